//! The form in which numbers go to the page: a JSON text, then blocks of numbers.
//!
//! Four bytes give the length of the text, least significant byte first. Spaces lengthen it to a multiple of four.
//! The blocks follow, those of 16-bit numbers before those of bytes. The text says how many numbers there are.

use serde_json::Value;

/// Starts a message with its text. `capacity` is the number of bytes that blocks will add.
pub(super) fn message(text: &Value, capacity: usize) -> Vec<u8> {
    let mut text = text.to_string().into_bytes();
    text.resize(text.len().next_multiple_of(4), b' ');
    let mut message = Vec::with_capacity(4 + text.len() + capacity);
    message.extend((text.len() as u32).to_le_bytes());
    message.extend(text);
    message
}

/// Bytes of 16-bit numbers, least significant first.
pub(super) fn words(values: impl IntoIterator<Item = u16>) -> Vec<u8> {
    values.into_iter().flat_map(u16::to_le_bytes).collect()
}

/// A value from `low` to `high` as a byte from 0 to 255.
pub(super) fn byte(value: f32, [low, high]: [f32; 2]) -> u8 {
    // A cast takes NaN to 0.
    (((value - low) / (high - low).max(f32::MIN_POSITIVE)).clamp(0.0, 1.0) * 255.0 + 0.5) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_begin_at_multiples_of_four() {
        let message = message(&serde_json::json!({ "a": 1 }), 0);
        assert_eq!(message, b"\x08\0\0\0{\"a\":1} ");
        assert_eq!(words([1, 0xfffe]), [1, 0, 0xfe, 0xff]);
    }

    #[test]
    fn bytes_span_the_range() {
        assert_eq!([0.2, 0.3, 0.4, 0.9, -1.0].map(|x| byte(x, [0.2, 0.4])), [0, 128, 255, 255, 0]);
        assert_eq!([byte(f32::NAN, [0.0, 1.0]), byte(0.5, [0.5, 0.5]), byte(1.0, [0.5, 0.5])], [0, 0, 255]);
    }
}
