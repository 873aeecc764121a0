//! Learning rate of every iteration: a linear warm-up, then half a cosine.

use std::f64::consts::PI;

/// Parameters that share a learning rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// The first layer with its batch norm.
    Input,
    /// The residual blocks.
    Middle,
    /// The last layer.
    Output,
}

impl Group {
    /// Every group, in the order of the reference's optimizer.
    pub const ALL: [Self; 3] = [Self::Input, Self::Middle, Self::Output];

    /// Group of a parameter, by its key in the checkpoint.
    #[must_use]
    pub fn of(key: &str) -> Self {
        if key.starts_with("input_layer.") {
            Self::Input
        } else if key.starts_with("output_layer.") {
            Self::Output
        } else {
            Self::Middle
        }
    }
}

/// Factors of the published code for the learning rates of the input layer, the residual blocks and the
/// output layer.
pub const PUBLISHED_FACTORS: [f64; 3] = [0.1, 1.0, 5.0];

/// Warm-up and cosine by iteration, in closed form. The reference chains PyTorch's `LinearLR` and
/// `CosineAnnealingLR` and steps them once per iteration.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// Learning rate after the warm-up for a group with factor 1.
    pub base_rate: f64,
    /// Factors of the groups, in the order of [`Group::ALL`].
    pub factors: [f64; 3],
    /// Number of warm-up iterations.
    pub warmup: u64,
    /// Number of iterations of the whole run.
    pub total: u64,
    /// Share of the learning rate in iteration 0.
    pub start_factor: f64,
    /// Learning rate at the end, the same for every group.
    pub final_rate: f64,
}

impl Schedule {
    /// The published schedule: from 1e-6 of the rate up to the full rate, then down to a thousandth of
    /// `base_rate`.
    #[must_use]
    pub fn new(base_rate: f64, warmup: u64, total: u64) -> Self {
        Self { base_rate, factors: PUBLISHED_FACTORS, warmup, total, start_factor: 1e-6, final_rate: 1e-3 * base_rate }
    }

    /// Learning rate of `group` in `iteration`, counted from 0. After the end of the run it is the final
    /// rate.
    #[must_use]
    pub fn rate(&self, iteration: u64, group: Group) -> f64 {
        let rate = self.base_rate * self.factors[group as usize];
        if iteration < self.warmup {
            let done = iteration as f64 / self.warmup as f64;
            return rate * (self.start_factor + (1.0 - self.start_factor) * done);
        }
        if iteration >= self.total {
            return self.final_rate;
        }
        let done = (iteration - self.warmup) as f64 / (self.total - self.warmup) as f64;
        self.final_rate + (rate - self.final_rate) * (1.0 + (PI * done).cos()) / 2.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_and_bounds() {
        let schedule = Schedule::new(1e-4, 40, 2000);
        assert_eq!(schedule.rate(0, Group::Middle), 1e-10);
        assert_eq!(schedule.rate(40, Group::Output), 5e-4);
        // A thousandth of 1e-4 is not 1e-7 to the last bit.
        assert_eq!(schedule.rate(2000, Group::Input), 1e-3 * 1e-4);
        assert_eq!(schedule.rate(u64::MAX, Group::Output), 1e-3 * 1e-4);
        let without_warmup = Schedule::new(1e-4, 0, 1);
        assert_eq!(without_warmup.rate(0, Group::Middle), 1e-4);
        let only_warmup = Schedule::new(1e-4, 5, 5);
        assert!(only_warmup.rate(4, Group::Middle) < 1e-4);
        assert_eq!(only_warmup.rate(5, Group::Middle), 1e-3 * 1e-4);
    }
}
