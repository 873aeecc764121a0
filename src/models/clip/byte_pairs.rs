//! CLIP's vocabulary of byte pairs: which bytes make up a token, and in which order they merge.

use std::collections::HashMap;
use std::io::Read;

use flate2::read::GzDecoder;

/// The merges, one a line below a head line: two parts, their bytes written as printable characters.
const MERGES: &[u8] = include_bytes!("clip_bpe/merges.txt.gz");

/// The mark of a part that ends a word.
const WORD_END: &str = "</w>";

/// How many tokens are single bytes within a word. As many again, behind them, are those that end one.
const NUM_BYTES: u16 = 256;

/// No token: the pair does not merge.
const NONE: u16 = u16::MAX;

/// The tokens of bytes, and of the pairs that merge.
///
/// Tokens are numbered as the vocabulary lists them, so the pair that merges first has the smallest token.
pub(super) struct BytePairs {
    /// Tokens of the bytes within a word.
    byte_tokens: [u16; NUM_BYTES as usize],
    merged_from_pair: HashMap<[u16; 2], u16>,
}

impl BytePairs {
    /// Unpacks CLIP's vocabulary.
    pub(super) fn of_clip() -> Self {
        let mut text = String::new();
        GzDecoder::new(MERGES).read_to_string(&mut text).expect("the vocabulary is part of the program");
        Self::parse(&text).expect("the vocabulary is part of the program")
    }

    fn parse(text: &str) -> Option<Self> {
        // Bytes that print are numbered first. The others are written as the characters from U+0100 on.
        let prints = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..);
        let (printable, others): (Vec<u8>, Vec<u8>) = (0..=u8::MAX).partition(prints);
        let characters = printable.iter().map(|&byte| char::from(byte)).chain('\u{100}'..);

        let mut byte_tokens = [NONE; NUM_BYTES as usize];
        let mut tokens = HashMap::new();
        for ((token, &byte), character) in (0..).zip(printable.iter().chain(&others)).zip(characters) {
            byte_tokens[usize::from(byte)] = token;
            tokens.insert(character.to_string(), token);
            tokens.insert(format!("{character}{WORD_END}"), token + NUM_BYTES);
        }
        let mut merged_from_pair = HashMap::new();
        for (line, merged) in text.lines().skip(1).zip(2 * NUM_BYTES..) {
            let (left, right) = line.split_once(' ')?;
            merged_from_pair.insert([*tokens.get(left)?, *tokens.get(right)?], merged);
            tokens.insert([left, right].concat(), merged);
        }
        Some(Self { byte_tokens, merged_from_pair })
    }

    fn merged(&self, left: u16, right: u16) -> u16 {
        self.merged_from_pair.get(&[left, right]).copied().unwrap_or(NONE)
    }

    /// The tokens of a word. They take time quadratic in its length.
    pub(super) fn tokens(&self, word: &str) -> Vec<u16> {
        let mut tokens: Vec<u16> = word.bytes().map(|byte| self.byte_tokens[usize::from(byte)]).collect();
        if let Some(last) = tokens.last_mut() {
            *last += NUM_BYTES;
        }
        // What each token and the next one merge to.
        let mut merges: Vec<u16> = tokens.windows(2).map(|pair| self.merged(pair[0], pair[1])).collect();
        while let Some(first) = merges.iter().copied().min().filter(|&merged| merged != NONE)
            && let Some(at) = merges.iter().position(|&merged| merged == first)
        {
            tokens[at] = first;
            tokens.remove(at + 1);
            merges.remove(at);
            if at > 0 {
                merges[at - 1] = self.merged(tokens[at - 1], first);
            }
            if at < merges.len() {
                merges[at] = self.merged(first, tokens[at + 1]);
            }
        }
        tokens
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vocabulary_is_whole() {
        let vocabulary = BytePairs::of_clip();
        assert_eq!(vocabulary.merged_from_pair.len(), 48_894);
        assert_eq!(vocabulary.merged_from_pair.values().max(), Some(&49_405));
        let mut bytes = vocabulary.byte_tokens.to_vec();
        bytes.sort_unstable();
        assert!(bytes.into_iter().eq(0..256));
    }

    #[test]
    fn pairs_merge_in_the_order_of_the_vocabulary() {
        let vocabulary = BytePairs::parse("head\nb c</w>\na b\na a").unwrap();
        let [a, b, c] = [64, 65, 66];
        for (word, expected) in [
            ("", vec![]),
            ("a", vec![a + 256]),
            ("abc", vec![a, 512]),
            ("abcb", vec![513, c, b + 256]),
            ("aaaab", vec![514, 514, b + 256]),
            ("aaaba", vec![514, 513, a + 256]),
        ] {
            assert_eq!(vocabulary.tokens(word), expected, "{word}");
        }
        for malformed in ["head\nab", "head\na bc"] {
            assert!(BytePairs::parse(malformed).is_none(), "{malformed}");
        }
    }
}
