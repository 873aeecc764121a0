//! Random numbers as makers of rooms want them.

use crate::random::SplitMix64;

/// A stream of random choices.
#[derive(Clone, Debug)]
pub(super) struct Draw(SplitMix64);

impl Draw {
    /// The choices of a seed for the purpose that `path` numbers.
    pub(super) fn new(seed: u64, path: &[u64]) -> Self {
        Self(SplitMix64::stream(seed, path))
    }

    /// Uniform in `low..high`.
    pub(super) fn range(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.0.unit() as f32
    }

    /// Uniform in `low..=high`.
    pub(super) fn count(&mut self, low: usize, high: usize) -> usize {
        low + self.0.below(high.saturating_sub(low) + 1)
    }

    /// True with this probability.
    pub(super) fn chance(&mut self, probability: f32) -> bool {
        self.range(0.0, 1.0) < probability
    }

    /// One of these, which are at least one.
    pub(super) fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.0.below(choices.len())]
    }

    /// Nearly normal, of deviation 1.
    pub(super) fn normal(&mut self) -> f32 {
        normal_of(self.0.next_u64())
    }

    /// A seed for something else.
    pub(super) fn seed(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// The numbers `0..count` in random order.
    pub(super) fn order(&mut self, count: usize) -> Vec<usize> {
        self.0.permutation(count)
    }
}

/// Nearly normal, of deviation 1: the sum of eight uniform bytes.
pub(super) fn normal_of(bits: u64) -> f32 {
    let sum: u32 = bits.to_le_bytes().iter().map(|&byte| u32::from(byte)).sum();
    // A byte has variance (256² - 1) / 12.
    (sum as f32 - 8.0 * 127.5) / 209.02
}

/// Scrambles two integers and a seed.
#[inline]
pub(super) fn hash(x: i32, y: i32, seed: u32) -> u32 {
    let mut h =
        (x as u32).wrapping_mul(0x8da6_b343) ^ (y as u32).wrapping_mul(0xd816_3841) ^ seed.wrapping_mul(0xcb1a_b31f);
    h = (h ^ (h >> 15)).wrapping_mul(0x2c1b_3c6d);
    h = (h ^ (h >> 12)).wrapping_mul(0x297a_2d39);
    h ^ (h >> 15)
}

/// [`hash`] in 0..1.
#[inline]
pub(super) fn hash_unit(x: i32, y: i32, seed: u32) -> f32 {
    (hash(x, y, seed) >> 8) as f32 / (1 << 24) as f32
}

/// Smooth noise in 0..1 with one value per unit square.
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
