//! Text clean-up before tokenization, equal to the defaults of ftfy 6.3.1.
//!
//! The text encoder was trained on text cleaned this way, so its tokenizer must see the same. The clean-up
//! covers HTML entities, terminal escapes, wrong encodings, ligatures, full-width and half-width forms, curly
//! quotes, line breaks, control characters, and the composition of accents.

use std::borrow::Cow;
use std::sync::LazyLock;

use html_escape::NAMED_ENTITIES;
use regex::Regex;
use unicode_normalization::{UnicodeNormalization, is_nfc};

use super::mojibake::{fix_encoding, windows_1252};

/// Largest number of passes over a line. Passes repeat until nothing changes. Two or three suffice except for
/// artificial input such as "&amp;amp;amp;...", which would take quadratic time.
const ROUNDS: usize = 32;

/// Lines longer than this many characters are cleaned in pieces.
const LONGEST_LINE: usize = 1_000_000;

/// Longest name or number of an entity, without "&" and ";".
const LONGEST_ENTITY: usize = 24;

/// Cleans a text, line by line.
pub(super) fn fix_text(text: &str) -> String {
    let mut fixed = String::with_capacity(text.len());
    // A "<" marks the text as HTML, so from that line on entities are kept.
    let mut entities = true;
    for line in text.split_inclusive('\n').flat_map(pieces) {
        entities = entities && !line.contains('<');
        fixed.push_str(&fix_line(line, entities));
    }
    fixed
}

fn pieces(line: &str) -> impl Iterator<Item = &str> {
    let mut rest = line;
    std::iter::from_fn(move || {
        let cut = rest.char_indices().nth(LONGEST_LINE).map_or(rest.len(), |(cut, _)| cut);
        let (piece, after) = rest.split_at(cut);
        rest = after;
        (!piece.is_empty()).then_some(piece)
    })
}

fn fix_line(line: &str, entities: bool) -> Cow<'_, str> {
    let plain = |byte: u8| matches!(byte, b'\t' | b'\n' | b'\x0c' | b' '..=b'~') && !(entities && byte == b'&');
    if line.bytes().all(plain) {
        return Cow::Borrowed(line);
    }
    let mut text = Cow::Borrowed(line);
    for _ in 0..ROUNDS {
        let fixed = fix_once(&text, entities);
        if fixed == *text {
            break;
        }
        text = Cow::Owned(fixed);
    }
    text
}

fn fix_once(text: &str, entities: bool) -> String {
    static ESCAPES: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\x1b\[[\d;]*[a-zA-Z]").expect("fixed pattern"));
    let text = if entities { unescape(text) } else { Cow::Borrowed(text) };
    let text = fix_encoding(&text);
    let mut simple = String::with_capacity(text.len());
    for character in text.chars().map(windows_1252) {
        if let Some(letters) = ligature(character) {
            simple.extend(letters.chars().map(straight_quote));
        } else {
            match character {
                '\u{3000}' => simple.push(' '),
                '\u{ff01}'..='\u{ffef}' => simple.extend(std::iter::once(character).nfkc()),
                _ => simple.push(straight_quote(character)),
            }
        }
    }
    let lines = simple.replace("\r\n", "\n").replace(['\r', '\u{2028}', '\u{2029}'], "\n");
    let shown = ESCAPES.replace_all(&lines, "").replace(is_control, "");
    if is_nfc(&shown) { shown } else { shown.nfc().collect() }
}

/// Returns the letters of a ligature, or of a character for two letters from an old encoding.
fn ligature(character: char) -> Option<&'static str> {
    Some(match character {
        'Ĳ' => "IJ",
        'ĳ' => "ij",
        'ŉ' => "ʼn",
        'Ǳ' => "DZ",
        'ǲ' => "Dz",
        'ǳ' => "dz",
        'Ǆ' => "DŽ",
        'ǅ' => "Dž",
        'ǆ' => "dž",
        'Ǉ' => "LJ",
        'ǈ' => "Lj",
        'ǉ' => "lj",
        'Ǌ' => "NJ",
        'ǋ' => "Nj",
        'ǌ' => "nj",
        'ﬀ' => "ff",
        'ﬁ' => "fi",
        'ﬂ' => "fl",
        'ﬃ' => "ffi",
        'ﬄ' => "ffl",
        'ﬅ' => "ſt",
        'ﬆ' => "st",
        _ => return None,
    })
}

fn straight_quote(character: char) -> char {
    match character {
        '\u{2bc}' | '\u{2018}'..='\u{201b}' => '\'',
        '\u{201c}'..='\u{201f}' => '"',
        _ => character,
    }
}

/// Returns true for a control character that is invisible and does not affect its neighbours.
fn is_control(character: char) -> bool {
    matches!(
        character,
        '\0'..='\x08'
            | '\x0b'
            | '\x0e'..='\x1f'
            | '\x7f'
            | '\u{206a}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffc}'
    )
}

/// Replaces HTML entities that end with ";".
fn unescape(text: &str) -> Cow<'_, str> {
    let mut fixed = String::new();
    let mut rest = text;
    while let Some(start) = rest.find('&') {
        let (before, entity) = rest.split_at(start);
        fixed.push_str(before);
        let (value, length) = match entity_length(entity) {
            Some(length) => (entity_value(&entity[1..length - 1]), length),
            None => (None, 1),
        };
        fixed.push_str(value.as_deref().unwrap_or(&entity[..length]));
        rest = &entity[length..];
    }
    if rest.len() == text.len() {
        return Cow::Borrowed(text);
    }
    fixed.push_str(rest);
    Cow::Owned(fixed)
}

/// Returns the length of the entity, known or unknown, at the start of a text.
fn entity_length(text: &str) -> Option<usize> {
    let name = text.strip_prefix('&')?;
    let name = name.strip_prefix('#').unwrap_or(name).as_bytes();
    let letters = name.iter().take(LONGEST_ENTITY + 1).take_while(|byte| byte.is_ascii_alphanumeric()).count();
    let whole = (1..=LONGEST_ENTITY).contains(&letters) && name.get(letters) == Some(&b';');
    whole.then(|| text.len() - name.len() + letters + 1)
}

/// Returns the text of an entity, by its name or number.
fn entity_value(name: &str) -> Option<Cow<'static, str>> {
    let Some(number) = name.strip_prefix('#') else { return named(name) };
    let (digits, radix) = match number.strip_prefix(['x', 'X']) {
        Some(digits) => (digits, 16),
        None => (number, 10),
    };
    let mut code = 0_u32;
    for digit in digits.chars() {
        code = code.saturating_mul(radix).saturating_add(digit.to_digit(radix)?);
    }
    if digits.is_empty() {
        return None;
    }
    Some(match char::from_u32(code).unwrap_or('\u{fffd}') {
        '\0' => "\u{fffd}".into(),
        // An entity is not replaced if its value still contains a ";".
        ';' => return None,
        character @ '\u{80}'..='\u{9f}' => windows_1252(character).to_string().into(),
        '\x01'..='\x08' | '\x0b' | '\x0e'..='\x1f' | '\x7f' | '\u{fdd0}'..='\u{fdef}' => "".into(),
        character if code & 0xfffe == 0xfffe && character != '\u{fffd}' => "".into(),
        character => character.to_string().into(),
    })
}

fn named(name: &str) -> Option<Cow<'static, str>> {
    /// Names that are also valid without ";". Longer names in capitals that begin with one are not
    /// capitalized variants.
    const OPEN: [&str; 8] = ["AMP", "COPY", "ETH", "GT", "LT", "QUOT", "REG", "THORN"];
    let find = |name: &str| {
        let found = NAMED_ENTITIES.binary_search_by_key(&name.as_bytes(), |(name, _)| name);
        found.ok().map(|at| NAMED_ENTITIES[at].1)
    };
    if let Some(value) = find(name) {
        return Some(value.into());
    }
    if name.bytes().any(|byte| byte.is_ascii_lowercase()) || OPEN.iter().any(|open| name.starts_with(open)) {
        return None;
    }
    find(&name.to_ascii_lowercase()).map(|value| value.to_uppercase().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(cases: &[(&str, &str)]) {
        for (text, expected) in cases {
            assert_eq!(fix_text(text), *expected, "{text:?}");
        }
    }

    #[test]
    fn entities_are_replaced_unless_the_text_is_html() {
        check(&[
            ("&lt;b&gt; &amp; html", "<b> & html"),
            ("P&eacute;rez P&EACUTE;REZ &nTILDE;", "Pérez PÉREZ &nTILDE;"),
            ("BUNDESSTRA&SZLIG;E", "BUNDESSTRASSE"),
            ("&ETHX; &LTIMES; &amp &unknown; &;", "&ETHX; &LTIMES; &amp &unknown; &;"),
            ("&#65;&#x42;&#X43; &#59; &#x; &#12a; &#0; &#128;", "ABC &#59; &#x; &#12a; \u{fffd} €"),
            ("&#xd800;&#99999999999999999999;&#xfffe;|&#1;|", "\u{fffd}\u{fffd}||"),
            ("&amp;amp;lt; it", "< it"),
            ("a < b &amp; c\n&amp;", "a < b &amp; c\n&amp;"),
            ("&amp;\na < b &amp; c", "&\na < b &amp; c"),
        ]);
    }

    #[test]
    fn signs_take_their_plain_forms() {
        check(&[
            ("“curly” ‘quotes’", "\"curly\" 'quotes'"),
            ("ＦＵＬＬ　ｗｉｄｔｈ ﾃｰﾌﾞﾙ", "FULL width テーブル"),
            ("ﬂuﬃeﬆ ŉ", "fluffiest 'n"),
            ("one\r\ntwo\rthree\u{2028}four\u{2029}", "one\ntwo\nthree\nfour\n"),
            ("\x1b[36;44mblue\x1b[0m \0\x07bell\u{feff}", "blue bell"),
            ("cafe\u{301}", "café"),
            ("cafÃ©", "café"),
        ]);
    }

    #[test]
    fn long_lines_cost_linear_time() {
        let nested = format!("&{}", "amp;".repeat(1_000_000));
        assert!(fix_text(&nested).len() > 3_000_000);
        assert_eq!(fix_text(&"Ã©".repeat(1_000_000)).len(), 2_000_000);
    }
}
