//! Random numbers for the generation of rooms.

use crate::random::SplitMix64;

/// A stream of random choices.
#[derive(Clone, Debug)]
pub(super) struct Draw(SplitMix64);

impl Draw {
    /// Starts the stream of `seed` for the purpose that `path` numbers.
    pub(super) fn new(seed: u64, path: &[u64]) -> Self {
        Self(SplitMix64::stream(seed, path))
    }

    /// Returns a uniform number in `low..high`.
    pub(super) fn range(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.0.unit() as f32
    }

    /// Returns a uniform integer in `low..=high`.
    pub(super) fn count(&mut self, low: usize, high: usize) -> usize {
        low + self.0.below(high.saturating_sub(low) + 1)
    }

    /// Returns true with this probability.
    pub(super) fn chance(&mut self, probability: f32) -> bool {
        self.range(0.0, 1.0) < probability
    }

    /// Returns one of `choices`, which must not be empty.
    pub(super) fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.0.below(choices.len())]
    }

    /// Returns a nearly normal number of standard deviation 1.
    pub(super) fn normal(&mut self) -> f32 {
        normal_of(self.0.next_u64())
    }

    /// Returns a seed for another stream.
    pub(super) fn seed(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Returns the numbers `0..count` in random order.
    pub(super) fn order(&mut self, count: usize) -> Vec<usize> {
        self.0.permutation(count)
    }
}

/// Returns a nearly normal number of standard deviation 1: the sum of eight uniform bytes.
pub(super) fn normal_of(bits: u64) -> f32 {
    let sum: u32 = bits.to_le_bytes().iter().map(|&byte| u32::from(byte)).sum();
    // A byte has variance (256² - 1) / 12.
    (sum as f32 - 8.0 * 127.5) / 209.02
}

/// Hashes two integers and a seed.
#[inline]
pub(super) fn hash(x: i32, y: i32, seed: u32) -> u32 {
    let mut h =
        (x as u32).wrapping_mul(0x8da6_b343) ^ (y as u32).wrapping_mul(0xd816_3841) ^ seed.wrapping_mul(0xcb1a_b31f);
    h = (h ^ (h >> 15)).wrapping_mul(0x2c1b_3c6d);
    h = (h ^ (h >> 12)).wrapping_mul(0x297a_2d39);
    h ^ (h >> 15)
}

/// Returns [`hash`] as a number in 0..1.
#[inline]
pub(super) fn hash_unit(x: i32, y: i32, seed: u32) -> f32 {
    (hash(x, y, seed) >> 8) as f32 / (1 << 24) as f32
}

/// Returns smooth noise in 0..1, with one random value per unit square.
#[inline]
pub(super) fn noise(x: f32, y: f32, seed: u32) -> f32 {
    let (fx, fy) = (x.floor(), y.floor());
    let (i, j) = (fx as i32, fy as i32);
    let smooth = |t: f32| t * t * (3.0 - 2.0 * t);
    let (s, t) = (smooth(x - fx), smooth(y - fy));
    let [a, b] = [hash_unit(i, j, seed), hash_unit(i.wrapping_add(1), j, seed)];
    let [c, d] = [hash_unit(i, j.wrapping_add(1), seed), hash_unit(i.wrapping_add(1), j.wrapping_add(1), seed)];
    (a * (1.0 - s) + b * s) * (1.0 - t) + (c * (1.0 - s) + d * s) * t
}
