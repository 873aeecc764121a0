//! Bounds on what a decoder makes of its input.

use std::io::{self, Read};

/// Bytes that a decoder may still make of an input: in proportion to the bytes that it reads, but never
/// fewer than a floor.
///
/// A header may claim any size. So every decoder charges a size to a budget before it allocates, and memory
/// and time stay in proportion to the file.
///
/// ```
/// # use geopurify::files::Budget;
/// let mut budget = Budget::new(100, 8, 1000);
/// assert_eq!(budget.limit(), 1000);
/// budget.charge(900).unwrap();
/// assert!(budget.charge(101).is_err());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    read: u64,
    limit: u64,
    left: u64,
}

/// Error of a decoder that would make more of its input than its [`Budget`] allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{needed} bytes would come from {read} bytes; expected at most {limit}")]
pub struct OverBudget {
    /// Bytes that would be made, with those made before.
    pub needed: u64,
    /// Bytes of the input.
    pub read: u64,
    /// Largest number of bytes that may be made of it.
    pub limit: u64,
}

impl Budget {
    /// The most that deflate can make of a byte, rounded up. No honest picture is packed tighter.
    pub const DEFLATE: u64 = 1100;
    /// Bytes that a small picture or member of an archive may always take.
    pub const PICTURE_FLOOR: u64 = 16 << 20;

    /// Starts the budget of an input of `read` bytes: `per_byte` bytes for each, and at least `floor` bytes.
    #[must_use]
    pub fn new(read: u64, per_byte: u64, floor: u64) -> Self {
        let limit = read.saturating_mul(per_byte).max(floor);
        Self { read, limit, left: limit }
    }

    /// Starts the budget of a picture, a depth map or a member of an archive of `read` bytes.
    #[must_use]
    pub fn picture(read: usize) -> Self {
        Self::new(read as u64, Self::DEFLATE, Self::PICTURE_FLOOR)
    }

    /// Lowers the budget to at most `most` bytes.
    #[must_use]
    pub fn at_most(self, most: u64) -> Self {
        Self { limit: self.limit.min(most), left: self.left.min(most), ..self }
    }

    /// Returns the most bytes that may be made of the input.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Takes `bytes` from what is left. Call it before the bytes are allocated.
    ///
    /// # Errors
    /// [`OverBudget`] if fewer are left. The budget is then unchanged.
    pub fn charge(&mut self, bytes: u64) -> Result<(), OverBudget> {
        match self.left.checked_sub(bytes) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => {
                let needed = (self.limit - self.left).saturating_add(bytes);
                Err(OverBudget { needed, read: self.read, limit: self.limit })
            }
        }
    }

    /// Reads all that `decoder` gives, as long as the budget lasts.
    ///
    /// # Errors
    /// The decoder's own, or [`OverBudget`] inside an [`io::Error`].
    pub fn read_all(&mut self, decoder: impl Read) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        decoder.take(self.left.saturating_add(1)).read_to_end(&mut bytes)?;
        self.charge(bytes.len() as u64).map_err(io::Error::other)?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_in_proportion_and_has_a_floor() {
        assert_eq!(Budget::new(10, 8, 1000).limit(), 1000);
        assert_eq!(Budget::new(1000, 8, 1000).limit(), 8000);
        assert_eq!(Budget::new(u64::MAX, 8, 1000).limit(), u64::MAX);
        assert_eq!(Budget::picture(691).limit(), 16 << 20);
        assert_eq!(Budget::picture(1 << 20).limit(), 1100 << 20);
        assert_eq!(Budget::picture(1 << 20).at_most(16 << 20).limit(), 16 << 20);
    }

    #[test]
    fn what_is_charged_adds_up() {
        let mut budget = Budget::new(1, 8, 100);
        budget.charge(60).unwrap();
        let error = budget.charge(41).unwrap_err();
        assert_eq!(error, OverBudget { needed: 101, read: 1, limit: 100 });
        assert_eq!(error.to_string(), "101 bytes would come from 1 bytes; expected at most 100");
        budget.charge(40).unwrap();
        assert!(budget.charge(1).is_err());
    }

    #[test]
    fn a_decoder_is_stopped_at_the_limit() {
        assert_eq!(Budget::new(1, 1, 100).read_all(&[7; 100][..]).unwrap().len(), 100);
        let error = Budget::new(1, 1, 100).read_all(io::repeat(0)).unwrap_err();
        assert_eq!(error.to_string(), "101 bytes would come from 1 bytes; expected at most 100");
    }
}
