//! Comparison of a device with a definition in f64 and with the twin.

use burn::tensor::Device;
use geopurify::gpu::{Limits, with_limits};

use crate::common::devices;

/// f32 sums of at most a thousand terms of order one, in another order and behind an error function that is
/// off by 4e-7. Relative to the values, or to one where they are smaller: what is left of terms of order one
/// that cancel, as in the left tail of a GELU, has their rounding.
pub(crate) const ROUNDING: f64 = 2e-6;

pub(crate) const EPSILON: f32 = 1e-5;

/// Root of the mean square of the difference, in units of the larger of that of `expected` and 1.
pub(crate) fn difference(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let squares = |value: &dyn Fn(usize) -> f64| (0..found.len()).map(|i| value(i).powi(2)).sum::<f64>();
    let norm = squares(&|i| f64::from(expected[i])).max(found.len().max(1) as f64);
    (squares(&|i| f64::from(found[i]) - f64::from(expected[i])) / norm).sqrt()
}

#[track_caller]
pub(crate) fn close(what: &str, found: &[f32], expected: &[f32]) {
    let difference = difference(found, expected);
    assert!(difference <= ROUNDING, "{what}: {difference:e}");
}

/// Runs `on` on every device, plainly and with dispatches folded after three workgroups: the result is that of
/// the definition and of the host's twin, and the fold changes no bit of it.
#[track_caller]
pub(crate) fn check(what: &str, definition: &[f32], on: impl Fn(&Device) -> Vec<f32>) {
    let twin = on(&Device::flex());
    for (name, device) in devices() {
        let found = on(&device);
        close(&format!("{name}, {what}, definition"), &found, definition);
        close(&format!("{name}, {what}, twin"), &found, &twin);
        let folded = Limits { max_binding_bytes: u64::MAX, max_workgroups: 3 };
        let folded = with_limits(folded, || on(&device));
        assert!(folded == found, "{name}, {what}: folded {:e}", difference(&folded, &found));
    }
}

/// Sizes around a tile of `tile`, and of several tiles.
pub(crate) fn sizes(tile: u32) -> [usize; 5] {
    let tile = tile as usize;
    [1, tile - 1, tile, tile + 1, 5 * tile + 3]
}

pub(crate) fn rounded(values: Vec<f64>) -> Vec<f32> {
    values.into_iter().map(|x| x as f32).collect()
}

/// (2 / √π) · e^(−x²) · Σ 2ⁿ x²ⁿ⁺¹ / (2n + 1)!!, whose terms all have one sign.
pub(crate) fn erf(x: f64) -> f64 {
    if x.abs() > 6.0 {
        return x.signum();
    }
    let (mut term, mut total) = (x, x);
    for n in 1..200 {
        term *= 2.0 * x * x / f64::from(2 * n + 1);
        total += term;
    }
    std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp() * total
}

pub(crate) fn gelu(x: f64) -> f64 {
    x / 2.0 * (1.0 + erf(x / std::f64::consts::SQRT_2))
}

#[test]
fn the_error_function_here_has_its_known_values() {
    for (x, expected) in [(0.0, 0.0), (0.5, 0.520_499_877_813_046_5), (-1.0, -0.842_700_792_949_714_9)] {
        assert!((erf(x) - expected).abs() < 1e-15);
    }
    assert!((erf(3.0) - 0.999_977_909_503_001_4).abs() < 1e-14 && erf(-9.0) == -1.0);
    assert_eq!(difference(&[1.0, 0.0], &[1.0, 0.0]), 0.0);
    assert_eq!(difference(&[3.0], &[4.0]), 0.25);
    assert_eq!(difference(&[0.0], &[0.5]), 0.5);
    assert!(difference(&[f32::NAN], &[1.0]).is_nan());
}
