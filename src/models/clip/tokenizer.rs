//! The text encoder's tokenizer: byte-pair encoding with the vocabulary of CLIP.

use std::sync::LazyLock;

use regex::Regex;

use super::byte_pairs::BytePairs;
use super::fix_text::fix_text;

/// The first token of every text.
pub const BOS: u32 = 49406;

/// The last token of every text. It also fills a text up to the length of the context.
pub const EOS: u32 = 49407;

/// Number of tokens in the vocabulary.
pub const VOCABULARY: usize = 49408;

/// Most tokens that the text encoder reads, [`BOS`] and [`EOS`] included.
pub const CONTEXT_LENGTH: usize = 77;

/// The text that stands for [`BOS`].
const BOS_TEXT: &str = "<|startoftext|>";

/// The text that stands for [`EOS`].
const EOS_TEXT: &str = "<|endoftext|>";

/// Length of the longest token in bytes.
const LONGEST_TOKEN: usize = 32;

/// Bytes beyond its own end on which a token can depend, rounded up.
///
/// Merges are applied in the order of the vocabulary. Text further on can change a token only by a chain of
/// merges: each is later in the vocabulary than the one before, and its right part starts with the left part
/// of the one before. The longest chain in this vocabulary takes 866 bytes.
const LOOK_AHEAD: usize = 1024;

static BYTE_PAIRS: LazyLock<BytePairs> = LazyLock::new(BytePairs::of_clip);

/// The words of a text in lower case.
static WORDS: LazyLock<Regex> = LazyLock::new(|| {
    // The reference ignores case throughout, and so takes U+0345 for neither a letter (iota) nor a sign.
    let pattern =
        r"<\|startoftext\|>|<\|endoftext\|>|(?i:'s|'t|'re|'ve|'m|'ll|'d)|\p{L}+|\p{N}|[^\s\p{L}\p{N}\u{345}]+";
    Regex::new(pattern).expect("fixed pattern")
});

/// Splits text into tokens as the text encoder was trained with: Hugging Face's `CLIPTokenizer` of
/// openai/clip-vit-base-patch32 with ftfy 6.3.1.
///
/// A text is cleaned as ftfy does, put in lower case and split into words. Then the bytes of each word are
/// merged. Any string is fine. The cost is linear in its length. The first text unpacks the vocabulary, which
/// all tokenizers share. The tokens equal the reference's, except for characters so new that one side's
/// tables of Unicode lack them.
#[derive(Clone, Copy, Debug)]
pub struct Tokenizer {
    context_length: usize,
}

impl Default for Tokenizer {
    fn default() -> Self {
        Self::new()
    }
}

impl Tokenizer {
    /// A tokenizer for the context of the text encoder, [`CONTEXT_LENGTH`] tokens.
    pub fn new() -> Self {
        Self::with_context_length(CONTEXT_LENGTH)
    }

    /// A tokenizer for another context.
    ///
    /// # Panics
    /// Panics if there is no room for [`BOS`] and [`EOS`].
    pub fn with_context_length(context_length: usize) -> Self {
        assert!(context_length >= 2, "a context has room for its first and last token");
        Self { context_length }
    }

    /// Most tokens of a text.
    pub fn context_length(&self) -> usize {
        self.context_length
    }

    /// The tokens of a text: [`BOS`], as many of the text's own as there is room for, and [`EOS`].
    ///
    /// No padding is added: the text encoder takes its features from the first [`EOS`], and later tokens make
    /// no difference. A text may spell [`BOS`] and [`EOS`] out as "<|startoftext|>" and "<|endoftext|>".
    pub fn encode(&self, text: &str) -> Vec<u32> {
        let mut tokens = Tokens { ids: vec![BOS], room: self.context_length - 1 };
        let mut rest = text;
        while tokens.missing() > 0 && !rest.is_empty() {
            // Only the exact spelling is found here, ahead of the clean-up; "<|EndOfText|>" is found among the words.
            let marks = [(BOS_TEXT, BOS), (EOS_TEXT, EOS)];
            let first = marks.iter().filter_map(|&(mark, id)| Some((rest.find(mark)?, mark, id))).min();
            let (before, after) = match first {
                Some((start, mark, _)) => (&rest[..start], &rest[start + mark.len()..]),
                None => (rest, ""),
            };
            tokens.push_text(before);
            if let Some((.., id)) = first {
                tokens.push(id);
            }
            rest = after;
        }
        let mut ids = tokens.ids;
        ids.push(EOS);
        ids
    }
}

/// The tokens of a text so far.
struct Tokens {
    ids: Vec<u32>,
    /// Most tokens that fit.
    room: usize,
}

impl Tokens {
    fn missing(&self) -> usize {
        self.room - self.ids.len()
    }

    fn push(&mut self, id: u32) {
        if self.missing() > 0 {
            self.ids.push(id);
        }
    }

    fn push_text(&mut self, text: &str) {
        let text = fix_text(text).to_lowercase();
        for word in WORDS.find_iter(&text) {
            if self.missing() == 0 {
                break;
            }
            match word.as_str() {
                BOS_TEXT => self.push(BOS),
                EOS_TEXT => self.push(EOS),
                word => self.push_word(word),
            }
        }
    }

    fn push_word(&mut self, word: &str) {
        // Merging takes quadratic time, and only the first tokens of a word are needed.
        let bytes = self.missing().saturating_mul(LONGEST_TOKEN).saturating_add(LOOK_AHEAD);
        let word = &word[..word.floor_char_boundary(bytes)];
        let tokens = BYTE_PAIRS.tokens(word);
        self.ids.extend(tokens.into_iter().take(self.missing()).map(u32::from));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inner(text: &str) -> Vec<u32> {
        let ids = Tokenizer::new().encode(text);
        let [BOS, inner @ .., EOS] = &ids[..] else { panic!("{text:?} has no marks: {ids:?}") };
        inner.to_vec()
    }

    #[test]
    fn texts_have_the_tokens_of_the_reference() {
        for (text, expected) in [
            ("a shower curtain in a scene", vec![320, 7777, 17223, 530, 320, 3562]),
            ("a photo of a a bookshelf in a scene.", vec![320, 1125, 539, 320, 320, 34821, 530, 320, 3562, 269]),
            ("refridgerator", vec![515, 815, 67, 1291, 1962]),
            ("A Photo Of A WALL.", vec![320, 1125, 539, 320, 2569, 269]),
            ("ScanNet200", vec![10650, 2315, 273, 271, 271]),
            (
                "3 chairs, 12 tables & 1,234 books",
                vec![274, 12033, 267, 272, 273, 7822, 261, 272, 267, 273, 274, 275, 2161],
            ),
            (
                "it's John's desk; they've moved, we'll see",
                vec![585, 568, 1742, 568, 6550, 282, 889, 1200, 6997, 267, 649, 1342, 862],
            ),
            ("hello...world!!! ???", vec![3306, 678, 1002, 995, 3824]),
            ("café au lait, naïve façade", vec![15304, 2566, 572, 585, 267, 1097, 35689, 563, 778, 10067, 1928]),
            ("日本語の椅子", vec![39121, 44353, 34002, 252, 21575, 162, 97, 227, 35751, 494]),
            ("стул и стол", vec![23669, 17875, 39729, 140, 375, 140, 372, 23669, 17875, 20978, 375]),
            ("a 🛋️ in a room 🎉🎉", vec![320, 11306, 233, 1001, 530, 320, 1530, 13450]),
            (
                "x_y-z+w=v*u/t\\s|r~q^p`o<n>m",
                vec![
                    343, 318, 344, 268, 345, 266, 342, 284, 341, 265, 340, 270, 339, 315, 338, 347, 337, 349, 336, 317,
                    335, 319, 334, 283, 333, 285, 332,
                ],
            ),
            (
                "“curly quotes” and ‘single’ — em dash…",
                vec![257, 20795, 5808, 257, 537, 568, 17005, 262, 2005, 2270, 10206, 959],
            ),
            ("&lt;b&gt; &amp; html", vec![283, 321, 285, 261, 18231]),
            ("ＦＵＬＬ　ｗｉｄｔｈ", vec![1476, 23571]),
        ] {
            assert_eq!(inner(text), expected, "{text:?}");
        }
    }

    #[test]
    fn white_space_and_case_make_no_difference() {
        assert_eq!(inner("   A\tShower \n\u{3000}CURTAIN "), inner("a shower curtain"));
        assert_eq!(Tokenizer::new().encode(" \n\t "), [BOS, EOS]);
        assert_eq!(Tokenizer::new().encode(""), [BOS, EOS]);
    }

    #[test]
    fn contractions_are_words_of_their_own() {
        assert_eq!(inner("it's they've we'll I'm he'd"), inner("IT 'S they 've we 'll i 'm he 'd"));
        assert_eq!(inner("it’s"), inner("it's"));
        // A long "s" is an "s" here; within signs none is split off.
        assert_eq!(inner("a'ſ"), [320, 6, 129, 379]);
        assert_eq!(inner("!'s"), inner("!' s"));
    }

    #[test]
    fn marks_can_be_spelled_out() {
        assert_eq!(inner("a<|startoftext|>b<|EndOfText|>"), [320, BOS, 321, EOS]);
        assert_eq!(inner("!<|endoftext|>!"), [256, EOS, 256]);
        assert_eq!(inner("<start_of_text>"), inner("< start _ of _ text >"));
    }

    #[test]
    fn long_texts_are_cut() {
        let chairs = "chair ".repeat(100);
        let ids = Tokenizer::new().encode(&chairs);
        assert_eq!(ids.len(), CONTEXT_LENGTH);
        assert_eq!((ids[0], ids[75], ids[76]), (BOS, 4269, EOS));
        assert_eq!(Tokenizer::with_context_length(4).encode(&chairs), [BOS, 4269, 4269, EOS]);
        assert_eq!(Tokenizer::with_context_length(2).encode(&chairs), [BOS, EOS]);
    }

    #[test]
    fn the_end_of_a_long_word_does_not_change_its_start() {
        let mut seed = 7;
        for alphabet in ["a", "ab", "=", "ha", "aeiou", "-=", "etaoinshrdlu", "the", "абв", "の日", "ßé"] {
            let alphabet: Vec<char> = alphabet.chars().collect();
            for length in [1000, 3000, 5000] {
                let word: String = (0..length).map(|_| alphabet[random(&mut seed) % alphabet.len()]).collect();
                let whole: Vec<u32> = BYTE_PAIRS.tokens(&word).into_iter().take(75).map(u32::from).collect();
                assert_eq!(inner(&word), whole, "{length} of {alphabet:?}");
            }
        }
    }

    #[test]
    fn any_text_has_tokens_of_the_vocabulary() {
        const PARTS: [&str; 24] = [
            "wall",
            "'s",
            "’",
            "Ã",
            "©",
            "â€",
            "\u{9d}",
            "\u{fffd}",
            "\u{1a}",
            " ",
            "\r\n",
            "\0",
            "&",
            "&amp;",
            "&#",
            "x41;",
            "<|",
            "endoftext",
            "|>",
            "\x1b[",
            "1m",
            "ﬁ",
            "🛋\u{fe0f}",
            "Σ",
        ];
        let mut seed = 1;
        for round in 0..2000 {
            let mut text = String::new();
            for _ in 0..random(&mut seed) % 40 {
                match random(&mut seed) % 4 {
                    0 => text.extend(char::from_u32((random(&mut seed) % 0x11_0000) as u32)),
                    1 => text.extend(char::from_u32((random(&mut seed) % 0x400) as u32)),
                    _ => text.push_str(PARTS[random(&mut seed) % PARTS.len()]),
                }
            }
            let ids = Tokenizer::new().encode(&text);
            assert!(
                ids.len() <= CONTEXT_LENGTH && ids.iter().all(|&id| (id as usize) < VOCABULARY),
                "{round}: {text:?}"
            );
            assert_eq!((ids[0], ids[ids.len() - 1]), (BOS, EOS));
        }
    }

    #[test]
    fn huge_texts_are_no_trouble() {
        for text in ["a".repeat(2_000_000), "é".repeat(1_000_000), "Ã ".repeat(500_000), "!".repeat(2_000_000)] {
            assert_eq!(Tokenizer::new().encode(&text).len(), CONTEXT_LENGTH);
        }
    }

    fn random(seed: &mut u64) -> usize {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*seed >> 33) as usize
    }
}
