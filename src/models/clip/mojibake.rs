//! Repair of mojibake: text in UTF-8 that was decoded in a one-byte encoding. "cafÃ©" becomes "café".
//!
//! This equals `fix_encoding` of ftfy 6.3.1, which the text encoder's tokenizer calls. Text is changed only
//! if it has combinations of letters and signs that are common in mojibake and very rare in any language
//! (`is_garbled`).

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::{Regex, bytes};

/// Largest number of repeated repairs. Text is rarely garbled more than twice. The bound keeps artificial
/// input from taking more than linear time.
const ROUNDS: usize = 32;

/// Largest nesting depth of repairs of parts of a text.
const DEPTH: usize = 8;

// Characters of the bytes 0x80 to 0xff. A byte that a Windows encoding leaves undefined is kept as the
// character of that number.

const WINDOWS_1252: &str = "\
    €\u{81}‚ƒ„…†‡ˆ‰Š‹Œ\u{8d}Ž\u{8f}\u{90}‘’“”•–—˜™š›œ\u{9d}žŸ\u{a0}¡¢£¤¥¦§¨©ª«¬\u{ad}®¯°±²³´µ¶·¸¹º»¼½¾¿\
    ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÐÑÒÓÔÕÖ×ØÙÚÛÜÝÞßàáâãäåæçèéêëìíîïðñòóôõö÷øùúûüýþÿ";

const WINDOWS_1251: &str = "\
    ЂЃ‚ѓ„…†‡€‰Љ‹ЊЌЋЏђ‘’“”•–—\u{98}™љ›њќћџ\u{a0}ЎўЈ¤Ґ¦§Ё©Є«¬\u{ad}®Ї°±Ііґµ¶·ё№є»јЅѕї\
    АБВГДЕЖЗИЙКЛМНОПРСТУФХЦЧШЩЪЫЬЭЮЯабвгдежзийклмнопрстуфхцчшщъыьэюя";

const WINDOWS_1250: &str = "\
    €\u{81}‚\u{83}„…†‡\u{88}‰Š‹ŚŤŽŹ\u{90}‘’“”•–—\u{98}™š›śťžź\u{a0}ˇ˘Ł¤Ą¦§¨©Ş«¬\u{ad}®Ż°±˛ł´µ¶·¸ąş»Ľ˝ľż\
    ŔÁÂĂÄĹĆÇČÉĘËĚÍÎĎĐŃŇÓÔŐÖ×ŘŮÚŰÜÝŢßŕáâăäĺćçčéęëěíîďđńňóôőö÷řůúűüýţ˙";

const WINDOWS_1253: &str = "\
    €\u{81}‚ƒ„…†‡\u{88}‰\u{8a}‹\u{8c}\u{8d}\u{8e}\u{8f}\u{90}‘’“”•–—\u{98}™\u{9a}›\u{9c}\u{9d}\u{9e}\u{9f}\
    \u{a0}΅Ά£¤¥¦§¨©ª«¬\u{ad}®―°±²³΄µ¶·ΈΉΊ»Ό½ΎΏ\
    ΐΑΒΓΔΕΖΗΘΙΚΛΜΝΞΟΠΡÒΣΤΥΦΧΨΩΪΫάέήί\
    ΰαβγδεζηθικλμνξοπρςστυφχψωϊϋόύώÿ";

const WINDOWS_1254: &str = "\
    €\u{81}‚ƒ„…†‡ˆ‰Š‹Œ\u{8d}\u{8e}\u{8f}\u{90}‘’“”•–—˜™š›œ\u{9d}\u{9e}Ÿ\
    \u{a0}¡¢£¤¥¦§¨©ª«¬\u{ad}®¯°±²³´µ¶·¸¹º»¼½¾¿\
    ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏĞÑÒÓÔÕÖ×ØÙÚÛÜİŞß\
    àáâãäåæçèéêëìíîïğñòóôõö÷øùúûüışÿ";

const WINDOWS_1257: &str = "\
    €\u{81}‚\u{83}„…†‡\u{88}‰\u{8a}‹\u{8c}¨ˇ¸\u{90}‘’“”•–—\u{98}™\u{9a}›\u{9c}¯˛\u{9f}\
    \u{a0}¡¢£¤¥¦§Ø©Ŗ«¬\u{ad}®Æ°±²³´µ¶·ø¹ŗ»¼½¾æ\
    ĄĮĀĆÄÅĘĒČÉŹĖĢĶĪĻŠŃŅÓŌÕÖ×ŲŁŚŪÜŻŽß\
    ąįāćäåęēčéźėģķīļšńņóōõö÷ųłśūüżž˙";

const ISO_8859_2: &str = "\
    \u{80}\u{81}\u{82}\u{83}\u{84}\u{85}\u{86}\u{87}\u{88}\u{89}\u{8a}\u{8b}\u{8c}\u{8d}\u{8e}\u{8f}\
    \u{90}\u{91}\u{92}\u{93}\u{94}\u{95}\u{96}\u{97}\u{98}\u{99}\u{9a}\u{9b}\u{9c}\u{9d}\u{9e}\u{9f}\
    \u{a0}Ą˘Ł¤ĽŚ§¨ŠŞŤŹ\u{ad}ŽŻ°ą˛ł´ľśˇ¸šşťź˝žżŔÁÂĂÄĹĆÇČÉĘËĚÍÎĎ\
    ĐŃŇÓÔŐÖ×ŘŮÚŰÜÝŢßŕáâăäĺćçčéęëěíîďđńňóôőö÷řůúűüýţ˙";

const MAC_ROMAN: &str = "\
    ÄÅÇÉÑÖÜáàâäãåçéèêëíìîïñóòôöõúùûü†°¢£§•¶ß®©™´¨≠ÆØ∞±≤≥¥µ∂∑∏π∫ªºΩæø\
    ¿¡¬√ƒ≈∆«»…\u{a0}ÀÃÕŒœ–—“”‘’÷◊ÿŸ⁄€‹›ﬁﬂ‡·‚„‰ÂÊÁËÈÍÎÏÌÓÔ\u{f8ff}ÒÚÛÙıˆ˜¯˘˙˚¸˝˛ˇ";

const CP437: &str = "\
    ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐\
    └┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u{a0}";

/// A one-byte encoding whose lower half is ASCII.
struct Encoding {
    /// Characters of the bytes 0x80 to 0xff.
    upper: Vec<char>,
    /// The same characters with their bytes, sorted by character.
    bytes: Vec<(char, u8)>,
    /// True if byte 0x1a stands for U+FFFD. Stricter programs put it in place of bytes that a Windows
    /// encoding leaves undefined.
    lossy: bool,
    /// True if a space may have been a byte 0xa0 that some program replaced.
    spaces: bool,
}

impl Encoding {
    fn new(upper: impl Iterator<Item = char>, lossy: bool, spaces: bool) -> Self {
        let upper: Vec<char> = upper.collect();
        let mut bytes: Vec<_> = upper.iter().copied().zip(0x80..=0xff).collect();
        bytes.sort_unstable();
        Self { upper, bytes, lossy, spaces }
    }

    /// Encodes a text. Returns `None` if a character is not in this encoding.
    fn encode(&self, text: &str) -> Option<Vec<u8>> {
        text.chars().map(|character| self.byte(character)).collect()
    }

    fn byte(&self, character: char) -> Option<u8> {
        match character {
            '\u{1a}' if self.lossy => None,
            '\u{fffd}' if self.lossy => Some(0x1a),
            '\0'..='\x7f' => Some(character as u8),
            _ => self.bytes.binary_search_by_key(&character, |entry| entry.0).ok().map(|at| self.bytes[at].1),
        }
    }
}

/// Encodings to try, most likely first: Latin-1, six Windows encodings, and three rare ones.
static ENCODINGS: LazyLock<[Encoding; 10]> = LazyLock::new(|| {
    let windows = |upper: &str| Encoding::new(upper.chars(), true, true);
    [
        Encoding::new('\u{80}'..='\u{ff}', false, true),
        windows(WINDOWS_1252),
        windows(WINDOWS_1251),
        windows(WINDOWS_1250),
        windows(WINDOWS_1253),
        windows(WINDOWS_1254),
        windows(WINDOWS_1257),
        Encoding::new(ISO_8859_2.chars(), false, true),
        // A dash followed by a space is common in MacRoman text and looks like such a pair.
        Encoding::new(MAC_ROMAN.chars(), false, false),
        Encoding::new(CP437.chars(), false, true),
    ]
});

// Classes of characters that occur in mojibake, as ranges of a regular expression.

/// Characters of any text, which are no sign of mojibake by themselves.
const COMMON: &str = r"\u{a0}\u{ad}´·–—―’…";
/// Control characters that are not used.
const CONTROLS: &str = r"\u{80}-\u{9f}";
/// Characters that are rarely used on purpose.
const RARE: &str = r"¤¦¨ª¬¯¸ºƒˆˇ˘˛˜†‡‰⌐◊\u{fffd}";
const LAW: &str = "§¶";
const CURRENCY: &str = "¢£¥₧€";
const OPENING: &str = r"¡©«¿΄΅‘‚“„•‹\u{f8ff}";
const CLOSING: &str = "®»˝”›™";
const NUMERIC: &str = "±-³µ¹¼-¾×÷⁄№∂∆∏∑√∞∩∫≈≠≡≤≥";
/// Letters in kaomoji such as "(°ō°)", at places where no letter is expected.
const FACES: &str = "°Ò-ÖÙ-Üò-öø-üŌŐŪŲ";
const UPPER_ACCENTED: &str = "À-ÑØÜÝĀĂĄĆČĎĐĒĖĘĚĞĢĪİĶĹĻĽŁŃŅŇŒŘŚŞŠŢŤŮŰŸŹŻŽҐ";
const LOWER_ACCENTED: &str = "ß-ñüāăąćčďđēėęěğģīįķĺļľłœŕśşšťźżžґﬁﬂ";
const UPPER_OTHER: &str = "ÞΆΈ-ΊΌΎΏΑ-ΫЁ-Я";
const LOWER_OTHER: &str = "ά-ωа-џ";
/// Box-drawing characters, except the plain line, which kaomoji also have.
const FRAMES: &str = "│┌┐┘├┤┬┼═-╬▀▄█▌▐-▓";

/// Patterns that hardly occur in text that was decoded correctly.
static GARBLED: LazyLock<Regex> = LazyLock::new(|| {
    let signs = format!("{FRAMES}{OPENING}{CLOSING}{CURRENCY}{NUMERIC}{LAW}");
    let accented = format!("{LOWER_ACCENTED}{UPPER_ACCENTED}");
    // Arabic decoded in Windows-1252. Two such pairs are required, because a single one may be intended.
    let arabic = format!("[ØÙ][{COMMON}{CURRENCY}{RARE}{NUMERIC}{OPENING}ŸŠ®°µ»]");
    let between = format!("{CONTROLS}{RARE}{OPENING}{CLOSING}{CURRENCY}°");
    let patterns = [
        format!("[{CONTROLS}]"),
        // Rare signs next to letters and other signs.
        format!("[{RARE}{accented}{signs}][{RARE}]"),
        format!("[a-zA-Z][{LOWER_OTHER}{UPPER_OTHER}][{RARE}]"),
        format!("[{RARE}][{accented}{signs}]"),
        // Accented letters at places where no word has them.
        format!("[{LOWER_ACCENTED}{LOWER_OTHER}{FRAMES}{CLOSING}{CURRENCY}{NUMERIC}][{UPPER_ACCENTED}]"),
        format!("[{FRAMES}{CLOSING}{CURRENCY}{NUMERIC}][{LOWER_ACCENTED}]"),
        format!("[{LOWER_ACCENTED}{FRAMES}{CLOSING}][{CURRENCY}]"),
        format!(r"[\s\x1c-\x1f][{UPPER_ACCENTED}][{CURRENCY}]"),
        format!("[{UPPER_ACCENTED}{FRAMES}][{NUMERIC}{LAW}]"),
        format!("[{accented}{FRAMES}{CURRENCY}{CLOSING}][{OPENING}][{NUMERIC}]"),
        format!("[{accented}{CURRENCY}{NUMERIC}{FRAMES}{LAW}][{CLOSING}][{OPENING}]"),
        format!("[{CURRENCY}{NUMERIC}{FRAMES}][{OPENING}]"),
        format!("[a-z][{UPPER_ACCENTED}][{OPENING}{CURRENCY}]"),
        format!("[{FRAMES}][{FACES}]"),
        format!("[{accented}{CURRENCY}{NUMERIC}{OPENING}{CLOSING}{LAW}][{FRAMES}]"),
        format!("[{FRAMES}][{CLOSING}]"),
        format!(r"[{accented}][{OPENING}{CLOSING}][\p{{L}}\p{{N}}_]"),
        "[Œœ][^A-Za-z]".to_owned(),
        format!("[{UPPER_ACCENTED}]°"),
        // Windows-1252.
        format!(r"[ÂÃÎÐ][€œŠš¢£Ÿž\u{{a0}}\u{{ad}}®©°·»{OPENING}{CLOSING}–—´]"),
        "×[²³]".to_owned(),
        format!("{arabic}{arabic}"),
        "à[²µ¹¼½¾]".to_owned(),
        r"Ã[\u{a0}¡]".to_owned(),
        r"[a-z][\s\x1c-\x1f]?[ÃÂ] ".to_owned(),
        r"\A[ÃÂ] ".to_owned(),
        format!("[a-z.,?!{CLOSING}]Â[ {OPENING}{CLOSING}]"),
        // MacRoman.
        "√[±∂†≠®™´≤≥¥µø]|≈[°¢]|‚Ä[ìîïòôúùû†°¢π]|‚[âó][àä°ê]".to_owned(),
        // Windows-1251.
        "вЂ".to_owned(),
        format!("[ВГРС][{between}µ][ВГРС]"),
        "ГўВЂВ.[A-Za-z ]".to_owned(),
        // Windows-1253 and Windows-1257.
        r"β€[™\u{a0}Ά\u{ad}®°]".to_owned(),
        format!("[ΒΓΞΟ][{between}][ΒΓΞΟ]"),
        "ā€".to_owned(),
    ];
    Regex::new(&patterns.join("|")).expect("fixed pattern")
});

/// Returns true if a text seems to have been decoded in a wrong encoding.
fn is_garbled(text: &str) -> bool {
    !text.is_ascii() && GARBLED.is_match(text)
}

/// Decodes garbled text as UTF-8, as often as that improves it. All other text is returned unchanged.
pub(super) fn fix_encoding(text: &str) -> Cow<'_, str> {
    fix_nested(text, 0)
}

fn fix_nested(text: &str, depth: usize) -> Cow<'_, str> {
    let mut text = Cow::Borrowed(text);
    for _ in 0..ROUNDS {
        match fix_once(&text, depth) {
            Some(fixed) if fixed != *text => text = Cow::Owned(fixed),
            _ => break,
        }
    }
    text
}

fn fix_once(text: &str, depth: usize) -> Option<String> {
    if !is_garbled(text) {
        return None;
    }
    let whole = ENCODINGS.iter().find_map(|encoding| {
        let mut bytes = encoding.encode(text)?;
        if encoding.spaces {
            restore_spaces(&mut bytes);
        }
        if encoding.lossy { decode(&replace_lost(&bytes)) } else { decode(&bytes) }
    });
    if whole.is_some() {
        return whole;
    }
    if depth < DEPTH {
        let fixed = fix_parts(text, depth);
        if fixed != text {
            return Some(fixed);
        }
    }
    // The rest may be Windows-1252 decoded as Latin-1, completely or in single characters. The repair is the
    // same.
    text.contains(is_control).then(|| text.chars().map(windows_1252).collect())
}

/// Returns true for the control characters of Latin-1 that are letters and signs in Windows-1252.
fn is_control(character: char) -> bool {
    matches!(character, '\u{80}'..='\u{9f}')
}

/// Replaces a control character of Latin-1 by the Windows-1252 character of the same byte. Other characters
/// are unchanged.
pub(super) fn windows_1252(character: char) -> char {
    if is_control(character) { ENCODINGS[1].upper[character as usize - 0x80] } else { character }
}

/// Restores bytes 0xa0 where a space is inside what would otherwise be a UTF-8 character.
fn restore_spaces(bytes: &mut Vec<u8>) {
    static ALTERED: LazyLock<bytes::Regex> = LazyLock::new(|| {
        // First bytes that are rarely followed by 0xa0 are excluded.
        let byte = r"[\x80-\x84\x86-\x9f\xa1-\xbf]";
        let any = r"[\x80-\xbf]";
        let pattern = [
            r"(?-u)[\xc2\xc3\xc5\xce\xd0\xd9] ".to_owned(),
            format!(r"[\xe2\xe3] {byte}|[\xe0-\xe3]{byte} "),
            format!(r"\xf0(?: {any}{any}|{any} {any}|{any}{any} )"),
        ];
        bytes::Regex::new(&pattern.join("|")).expect("fixed pattern")
    });
    if !ALTERED.is_match(bytes) {
        return;
    }
    // "Ã la" was "à la" before its two spaces were merged into one. Portuguese words that begin with "à" are
    // excluded.
    let mut words = Vec::with_capacity(bytes.len());
    let mut rest = &bytes[..];
    while let [first, after @ ..] = rest {
        words.push(*first);
        if let (0xc3, [b' ', word @ ..]) = (*first, after)
            && ![&b" "[..], b"quele", b"quela", b"quilo", b"s "].iter().any(|start| word.starts_with(start))
        {
            words.extend(*b"\xa0 ");
            rest = word;
        } else {
            rest = after;
        }
    }
    let whole = |found: &bytes::Captures| {
        found[0].iter().map(|&byte| if byte == b' ' { 0xa0 } else { byte }).collect::<Vec<_>>()
    };
    *bytes = ALTERED.replace_all(&words, whole).into_owned();
}

/// Replaces UTF-8 characters that have lost a byte by U+FFFD.
fn replace_lost(bytes: &[u8]) -> Cow<'_, [u8]> {
    static LOST: LazyLock<bytes::Regex> = LazyLock::new(|| {
        let any = r"[\x1a\x80-\xbf]";
        let lost = r"[\x1a?]";
        let pattern = [
            r"(?-u)[\xc2-\xdf]\x1a|[\xc2\xc3]\?".to_owned(),
            format!(r"\xed[\xa0-\xaf]{lost}\xed[\xb0-\xbf][\x1a?\x80-\xbf]"),
            format!(r"\xed[\xa0-\xaf][\x1a?\x80-\xbf]\xed[\xb0-\xbf]{lost}"),
            format!(r"[\xe0-\xef](?:{lost}{any}|{any}{lost})"),
            format!(r"[\xf0-\xf4](?:{lost}{any}{any}|{any}{lost}{any}|{any}{any}{lost})"),
            r"\x1a".to_owned(),
        ];
        bytes::Regex::new(&pattern.join("|")).expect("fixed pattern")
    });
    LOST.replace_all(bytes, "\u{fffd}".as_bytes())
}

/// Decodes UTF-8 and two variants of it: U+0000 as the bytes 0xc0 0x80, and characters as surrogate pairs.
fn decode(bytes: &[u8]) -> Option<String> {
    let mut text = String::with_capacity(bytes.len());
    let mut plain = 0;
    let mut at = 0;
    while at < bytes.len() {
        let (character, length) = match bytes[at..] {
            [0xc0, 0x80, ..] => ('\0', 2),
            [0xed, a @ 0xa0..=0xaf, b @ 0x80..=0xbf, 0xed, c @ 0xb0..=0xbf, d @ 0x80..=0xbf, ..] => {
                let [a, b, c, d] = [a & 0xf, b & 0x3f, c & 0xf, d & 0x3f].map(u32::from);
                (char::from_u32(0x10000 + (a << 16 | b << 10 | c << 6 | d))?, 6)
            }
            _ => {
                at += 1;
                continue;
            }
        };
        text.push_str(std::str::from_utf8(&bytes[plain..at]).ok()?);
        text.push(character);
        at += length;
        plain = at;
    }
    text.push_str(std::str::from_utf8(&bytes[plain..]).ok()?);
    Some(text)
}

/// Possible role of a character as a byte of UTF-8 that was decoded in Latin-1 or a Windows encoding.
#[derive(Clone, Copy, Default)]
struct Role {
    /// Number of bytes that would follow it, if it may be a first byte.
    follow: Option<usize>,
    /// True if it may be a continuation byte.
    follows: bool,
}

static ROLES: LazyLock<Vec<(char, Role)>> = LazyLock::new(|| {
    let mut roles = std::collections::BTreeMap::<char, Role>::new();
    roles.entry(' ').or_default().follows = true;
    for encoding in &ENCODINGS[..7] {
        for (&character, byte) in encoding.upper.iter().zip(0x80_u8..=0xff) {
            let role = roles.entry(character).or_default();
            match byte {
                0x80..=0xbf => role.follows = true,
                0xc2..=0xdf => role.follow = Some(1),
                0xe0..=0xef => role.follow = Some(2),
                0xf0 | 0xf3 => role.follow = Some(3),
                _ => {}
            }
        }
    }
    roles.into_iter().collect()
});

fn role(character: char) -> Role {
    match ROLES.binary_search_by_key(&character, |entry| entry.0) {
        Ok(at) => ROLES[at].1,
        Err(_) => Role::default(),
    }
}

/// Repairs each part of a text that looks like UTF-8 separately, for text that was joined from several
/// sources.
fn fix_parts(text: &str, depth: usize) -> String {
    let mut fixed = String::with_capacity(text.len());
    let mut rest = text;
    let mut inside = false;
    while let Some(character) = rest.chars().next() {
        // A part must not begin inside a possible character, because that would garble the text further.
        let length = if inside { 0 } else { part(rest) };
        let length = if length > 0 { length } else { character.len_utf8() };
        let (found, after) = rest.split_at(length);
        if length > character.len_utf8() && length < text.len() && is_garbled(found) {
            fixed.push_str(&fix_nested(found, depth + 1));
        } else {
            fixed.push_str(found);
        }
        // Spaces, dashes, quotes, bullets and ellipses are usually meant as such.
        inside = found.chars().next_back().is_some_and(|last| role(last).follows && !" –—―‘’‚“”„•…".contains(last));
        rest = after;
    }
    fixed
}

/// Returns the length in bytes of the start of a text that may be UTF-8 characters decoded in a one-byte
/// encoding.
fn part(text: &str) -> usize {
    let mut characters = text.chars();
    loop {
        let length = text.len() - characters.as_str().len();
        let Some(follow) = characters.next().and_then(|first| role(first).follow) else { return length };
        for _ in 0..follow {
            if !characters.next().is_some_and(|next| role(next).follows) {
                return length;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn garbled_text_is_read_as_utf8() {
        for (text, expected) in [
            ("cafÃ© au lait", "café au lait"),
            ("âœ” No problems", "✔ No problems"),
            ("Ã la mode", "à la mode"),
            ("voilÃ le travail", "voilà le travail"),
            ("â€œquotesâ€\u{9d}", "“quotes”"),
            ("â€œ like this â€\u{fffd}", "“ like this \u{fffd}"),
            ("СЃС‚СѓР»", "стул"),
            ("ÐºÑ€ÐµÑ\u{81}Ð»Ð¾", "кресло"),
            ("Ã\u{83}Â©", "é"),
            ("l’humanitÃ©", "l’humanité"),
            ("\u{ed}\u{a0}\u{bd}\u{ed}\u{b8}\u{80}", "😀"),
            ("\u{93}quoted\u{94}", "“quoted”"),
        ] {
            assert_eq!(fix_encoding(text), expected, "{text:?}");
        }
    }

    #[test]
    fn other_text_is_left_alone() {
        for text in [
            "",
            "a chair",
            "café au lait",
            "naïve façade",
            "Ünïcödé Straße",
            "日本語の椅子",
            "стул и стол",
            "🪑",
            "“curly”",
        ] {
            assert_eq!(fix_encoding(text), text);
        }
    }

    #[test]
    fn tables_hold_the_upper_half() {
        for encoding in &*ENCODINGS {
            assert_eq!(encoding.upper.len(), 128);
            assert!(encoding.bytes.windows(2).all(|pair| pair[0].0 < pair[1].0));
        }
    }
}
