//! Rows of numbers in JSON texts, read without a tree of values. A short text can make a tree of any size.

use std::fmt;

use serde::de::{Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// Most rows of a list: poses of hours of recording.
const MOST_ROWS: usize = 200_000;
/// Numbers of a row that are kept: those of a matrix of three rows.
const KEPT: usize = 9;

/// The first numbers of a JSON array, or of an array of arrays.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Numbers {
    first: [f64; KEPT],
    /// Numbers in the text, which may be more than are kept.
    count: usize,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Array,
    Number,
    /// Anything else, or an array with anything else in it.
    Other,
}

impl Numbers {
    fn one(number: f64) -> Self {
        let mut first = [0.0; KEPT];
        first[0] = number;
        Self { first, count: 1, kind: Kind::Number }
    }

    fn other() -> Self {
        Self { first: [0.0; KEPT], count: 0, kind: Kind::Other }
    }

    /// Returns the numbers if there are at most nine; `None` if the value is no array of numbers.
    pub(super) fn get(&self) -> Option<&[f64]> {
        match self.kind {
            Kind::Array => self.first.get(..self.count),
            Kind::Number | Kind::Other => None,
        }
    }

    /// Returns how many numbers the text has; 0 if the value is no array of numbers.
    pub(super) fn count(&self) -> usize {
        if self.kind == Kind::Array { self.count } else { 0 }
    }

    /// Returns the single number, if the value is one.
    pub(super) fn number(&self) -> Option<f64> {
        (self.kind == Kind::Number).then_some(self.first[0])
    }
}

impl<'de> Deserialize<'de> for Numbers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NumbersVisitor)
    }
}

struct NumbersVisitor;

impl<'de> Visitor<'de> for NumbersVisitor {
    type Value = Numbers;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of numbers")
    }

    fn visit_f64<E>(self, number: f64) -> Result<Numbers, E> {
        Ok(Numbers::one(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Numbers, E> {
        Ok(Numbers::one(number as f64))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Numbers, E> {
        Ok(Numbers::one(number as f64))
    }

    /// Some writers put null for NaN.
    fn visit_unit<E>(self) -> Result<Numbers, E> {
        Ok(Numbers::one(f64::NAN))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Numbers, E> {
        Ok(Numbers::other())
    }

    fn visit_str<E>(self, _: &str) -> Result<Numbers, E> {
        Ok(Numbers::other())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Numbers, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Numbers::other())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Numbers, A::Error> {
        let mut all = Numbers { first: [0.0; KEPT], count: 0, kind: Kind::Array };
        while let Some(element) = elements.next_element::<Numbers>()? {
            if element.kind == Kind::Other {
                all.kind = Kind::Other;
            }
            for &number in &element.first[..element.count.min(KEPT)] {
                if let Some(slot) = all.first.get_mut(all.count) {
                    *slot = number;
                }
                all.count += 1;
            }
            all.count += element.count.saturating_sub(KEPT);
        }
        Ok(all)
    }
}

/// A list of rows of numbers: at most 200,000.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Rows(pub(super) Vec<Numbers>);

impl<'de> Deserialize<'de> for Rows {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(RowsVisitor)
    }
}

struct RowsVisitor;

impl<'de> Visitor<'de> for RowsVisitor {
    type Value = Rows;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of rows of numbers")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Rows, A::Error> {
        let mut rows = Vec::new();
        while let Some(row) = elements.next_element()? {
            if rows.len() == MOST_ROWS {
                return Err(A::Error::custom(format!("an array of more than {MOST_ROWS} rows")));
            }
            rows.push(row);
        }
        Ok(Rows(rows))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(text: &str) -> Numbers {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn arrays_are_flattened_and_counted() {
        assert_eq!(numbers("[1, 2.5, -3]").get().unwrap(), [1.0, 2.5, -3.0]);
        assert_eq!(numbers("[[1, 0], [2, 3]]").get().unwrap(), [1.0, 0.0, 2.0, 3.0]);
        assert!(numbers("[null]").get().unwrap()[0].is_nan());
        let long = numbers("[[1,2,3,4,5,6,7,8,9,10],[11]]");
        assert_eq!((long.get(), long.count()), (None, 11));
        assert_eq!(numbers("7").number(), Some(7.0));
        for text in ["7", "\"a\"", "{\"a\": 1}", "[\"a\", 1]", "[true]", "[[{}]]"] {
            assert_eq!((numbers(text).get(), numbers(text).count()), (None, 0), "{text}");
        }
    }

    #[test]
    fn a_list_of_rows_is_bounded() {
        let rows: Rows = serde_json::from_str("[[1, 2], [], 3]").unwrap();
        assert_eq!(rows.0.len(), 3);
        let text = format!("[{}[]]", "[],".repeat(MOST_ROWS));
        let error = serde_json::from_str::<Rows>(&text).unwrap_err().to_string();
        assert!(error.contains("more than 200000 rows"), "{error}");
        assert!(serde_json::from_str::<Rows>("{}").is_err());
    }
}
