//! Seeded random numbers that are the same on every machine and in every release.

/// Random number generator SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
///
/// Random numbers decide which scenes are selected and which points are sampled. General libraries change
/// their streams between versions, so the generator is written out here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SplitMix64 {
    state: u64,
}

impl SplitMix64 {
    /// Starts the stream of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// Starts one of many independent streams of a seed. `path` numbers it, for example by epoch and scene,
    /// so no state has to be kept between streams.
    #[must_use]
    pub fn stream(seed: u64, path: &[u64]) -> Self {
        path.iter().fold(Self::new(seed), |mut stream, &part| Self { state: stream.next_u64() ^ part })
    }

    /// Returns a uniform u64.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a uniform number in [0, 1), in steps of 2⁻⁵³.
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Returns a uniform number in `0..bound`, or 0 if `bound` is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        // High word of a 128-bit product. Its bias is below 2⁻³² for any bound that memory can hold.
        ((u128::from(self.next_u64()) * bound as u128) >> 64) as usize
    }

    /// Returns a uniform number from `least` to `most`.
    pub fn between(&mut self, [least, most]: [f64; 2]) -> f64 {
        least + (most - least) * self.unit()
    }

    /// Returns a nearly normal number of standard deviation 1, the sum of three uniform ones. It is within ±3.
    pub fn nearly_normal(&mut self) -> f64 {
        2.0 * (self.unit() + self.unit() + self.unit() - 1.5)
    }

    /// Draws `count` different numbers from `0..bound`, in ascending order. Returns all of them if there are
    /// fewer.
    pub fn sample(&mut self, bound: usize, count: usize) -> Vec<usize> {
        let count = count.min(bound);
        let mut numbers: Vec<usize> = (0..bound).collect();
        for i in 0..count {
            numbers.swap(i, i + self.below(bound - i));
        }
        numbers.truncate(count);
        numbers.sort_unstable();
        numbers
    }

    /// Returns the numbers `0..bound` in random order.
    pub fn permutation(&mut self, bound: usize) -> Vec<usize> {
        let mut numbers: Vec<usize> = (0..bound).collect();
        for i in (1..bound).rev() {
            numbers.swap(i, self.below(i + 1));
        }
        numbers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_is_the_published_one() {
        let mut random = SplitMix64::new(1_234_567);
        let first: Vec<u64> = (0..3).map(|_| random.next_u64()).collect();
        assert_eq!(first, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn numbers_stay_in_their_range() {
        let mut random = SplitMix64::new(3);
        assert!((0..1000).map(|_| random.unit()).all(|x| (0.0..1.0).contains(&x)));
        let mut seen = [0; 7];
        (0..7000).for_each(|_| seen[random.below(7)] += 1);
        assert!(seen.iter().all(|&count| (850..1150).contains(&count)), "{seen:?}");
        assert_eq!(random.below(0), 0);
    }

    #[test]
    fn streams_differ_and_repeat() {
        let first = |path: &[u64]| SplitMix64::stream(7, path).next_u64();
        assert_eq!(first(&[1, 2]), first(&[1, 2]));
        let values = [first(&[]), first(&[0]), first(&[1]), first(&[0, 1]), first(&[1, 0]), first(&[1, 1])];
        assert_eq!(values.iter().collect::<std::collections::BTreeSet<_>>().len(), values.len());
    }

    #[test]
    fn a_permutation_has_every_number_once() {
        let mut order = SplitMix64::new(4).permutation(30);
        assert_ne!(order, (0..30).collect::<Vec<_>>());
        order.sort_unstable();
        assert_eq!(order, (0..30).collect::<Vec<_>>());
    }

    #[test]
    fn a_sample_has_no_number_twice() {
        let mut random = SplitMix64::new(9);
        let sample = random.sample(50, 20);
        assert_eq!(sample.len(), 20);
        assert!(sample.windows(2).all(|pair| pair[0] < pair[1]) && sample[19] < 50);
        assert_ne!(sample, random.sample(50, 20));
        assert_eq!(random.sample(3, 5), [0, 1, 2]);
        assert!(random.sample(0, 5).is_empty());
    }

    #[test]
    fn noise_has_deviation_one() {
        let mut random = SplitMix64::new(3);
        let values: Vec<f64> = (0..10_000).map(|_| random.nearly_normal()).collect();
        let mean = values.iter().sum::<f64>() / 1e4;
        let variance = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 1e4;
        assert!(mean.abs() < 0.05 && (variance - 1.0).abs() < 0.05, "{mean} {variance}");
    }
}
