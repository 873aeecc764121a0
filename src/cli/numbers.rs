//! Numbers on the command line.

use crate::purify::MOST_ITERATIONS;

/// Parses a finite number.
pub(super) fn finite<T: Into<f64> + Copy + std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, String> {
    let value: T = text.parse().map_err(|error| format!("{error}"))?;
    if value.into().is_finite() { Ok(value) } else { Err("expected a finite number".to_owned()) }
}

/// Parses a length: a finite number above 0.
pub(super) fn length(text: &str) -> Result<f64, String> {
    let value = finite(text)?;
    if value > 0.0 { Ok(value) } else { Err("expected a number above 0".to_owned()) }
}

/// Parses a number of iterations.
pub(super) fn iterations(text: &str) -> Result<usize, String> {
    let count = text.parse().map_err(|error| format!("{error}"))?;
    if count <= MOST_ITERATIONS { Ok(count) } else { Err(format!("expected at most {MOST_ITERATIONS}")) }
}

/// Parses a number from -1 to 1.
pub(super) fn cosine(text: &str) -> Result<f32, String> {
    let value = text.parse().map_err(|error| format!("{error}"))?;
    if (-1.0..=1.0).contains(&value) { Ok(value) } else { Err("expected -1 to 1".to_owned()) }
}

/// Parses a number of neighbours.
pub(super) fn neighbors(text: &str) -> Result<usize, String> {
    let value = text.parse().map_err(|error| format!("{error}"))?;
    if (1..=128).contains(&value) { Ok(value) } else { Err("expected 1 to 128".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_number_is_refused() {
        assert_eq!(finite::<f32>("-0.5"), Ok(-0.5));
        assert_eq!(length("0.02"), Ok(0.02));
        assert_eq!(iterations("10000"), Ok(10_000));
        for text in ["nan", "inf", "-inf", "1e39", "a", ""] {
            assert!(finite::<f32>(text).is_err(), "{text}");
        }
        for text in ["nan", "inf", "0", "-1"] {
            assert!(length(text).is_err(), "{text}");
        }
        assert_eq!(iterations("10001").unwrap_err(), "expected at most 10000");
    }
}
