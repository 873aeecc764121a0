//! Names of weights.

/// Whether `name` can be the name of a file in the store on every platform: letters, digits, `.`, `_`
/// and `-`, no leading dot or dash, at most 100 bytes.
#[must_use]
pub fn is_name(name: &str) -> bool {
    name.len() <= 100
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for name in ["student", "my-student_2.1", "7"] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", ".", "..", "-x", ".x", "a/b", "a\\b", "a b", "ü", &"x".repeat(101)] {
            assert!(!is_name(name), "{name}");
        }
    }
}
