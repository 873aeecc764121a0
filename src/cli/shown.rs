//! Text from files on its way to the terminal.

use std::borrow::Cow;
use std::fmt::Write as _;

use serde::Serialize;

/// Returns `text` with its control characters escaped, as `\u{1b}`. Lines and tabs stay.
///
/// Names in files reach the terminal in errors, notes and tables. A name with control sequences could change
/// colours and titles, or hide what stands beside it. Characters that reverse the direction of text count too.
pub(super) fn plain(text: &str) -> Cow<'_, str> {
    if !text.chars().any(controls) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if controls(character) {
            // Writing to a string cannot fail.
            let _ = write!(shown, "{}", character.escape_unicode());
        } else {
            shown.push(character);
        }
    }
    Cow::Owned(shown)
}

/// Returns `value` as one line of JSON. Characters that a terminal acts on are escaped, as `\u009b`: JSON itself
/// asks for that only below U+0020.
///
/// # Errors
/// Those of serialising `value`.
pub(super) fn json_line(value: &impl Serialize) -> serde_json::Result<String> {
    serde_json::to_string(value).map(escaped)
}

/// The same as indented lines.
///
/// # Errors
/// Those of serialising `value`.
pub(super) fn json_lines(value: &impl Serialize) -> serde_json::Result<String> {
    serde_json::to_string_pretty(value).map(escaped)
}

fn escaped(json: String) -> String {
    if !json.chars().any(controls) {
        return json;
    }
    // The controls are in the Basic Multilingual Plane, so four digits hold each.
    let mut shown = String::with_capacity(json.len() + 16);
    for character in json.chars() {
        if controls(character) {
            // Writing to a string cannot fail.
            let _ = write!(shown, "\\u{:04x}", u32::from(character));
        } else {
            shown.push(character);
        }
    }
    shown
}

/// Returns true for a character that a terminal acts on instead of showing it.
fn controls(character: char) -> bool {
    match character {
        '\n' | '\t' => false,
        '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => true,
        character => character.is_control(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_sequences_are_shown_and_not_obeyed() {
        assert_eq!(plain("os.\x1b[31mPWN\x1b]0;t\x07"), "os.\\u{1b}[31mPWN\\u{1b}]0;t\\u{7}");
        assert_eq!(plain("a\rb\u{9b}2J\u{7f}"), "a\\u{d}b\\u{9b}2J\\u{7f}");
        assert_eq!(plain("cat\u{202e}gpj"), "cat\\u{202e}gpj");
    }

    #[test]
    fn json_with_control_characters_stays_json() {
        let name = "a\u{9b}2J\u{202e}\u{1b}\n";
        let text = json_line(&serde_json::json!({ "name": name })).unwrap();
        assert_eq!(text, r#"{"name":"a\u009b2J\u202e\u001b\n"}"#);
        let lines = json_lines(&serde_json::json!([name])).unwrap();
        assert_eq!(serde_json::from_str::<[String; 1]>(&lines).unwrap(), [name]);
    }

    #[test]
    fn other_text_stays_as_it_is() {
        for text in ["", "two\nlines\tand a tab", "椅子 или стул, naïve ✓", "C:\\scans\\a.ply"] {
            assert!(matches!(plain(text), Cow::Borrowed(same) if same == text), "{text}");
        }
    }
}
