//! Elementary functions of the host twins, written so that loops over them compile to SIMD code.
//!
//! No branch, no library call, no fused operation the target may lack; `f32` accuracy stated at each.

/// eˣ, off by at most 3 units in the last place; 0 below -87.3 to within 1.2e-38.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // Adding 1.5 · 2²³ rounds to an integer and leaves it in the low bits of the sum.
    const ROUND: f32 = 12_582_912.0;
    let x = x.clamp(-87.3, 88.3);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    // ln 2 in two parts, the first with few enough bits that its product with n is exact.
    let r = x - n * 0.693_145_75 - n * 1.428_606_8e-6;
    let tail = 1.0 / 6.0 + r * (1.0 / 24.0 + r * (1.0 / 120.0 + r * (1.0 / 720.0)));
    let y = 1.0 + r + r * r * (0.5 + r * tail);
    y * f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3f80_0000))
}

/// 2ˣ for x ≤ 0, off by at most 3 units in the last place; 1.2e-38 below -126.
#[allow(clippy::approx_constant, reason = "the coefficients are fitted: the second is not ln 2 to the last bit")]
#[inline(always)]
pub(crate) fn exp2_of_negative(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0;
    let x = if x < -126.0 { -126.0 } else { x };
    let shifted = x + ROUND;
    let r = x - (shifted - ROUND);
    // Fitted to [-0.5, 0.5], where it is off by 9e-8.
    let y = 0.009_671_51 + r * 0.001_326_47;
    let y = 1.0 + r * (0.693_147 + r * (0.240_222_42 + r * (0.055_507_34 + r * y)));
    y * f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3f80_0000))
}

/// The error function, off by at most 4e-7: x times a rational function of x², fitted to [0, 3.95].
#[inline(always)]
pub(crate) fn erf(x: f32) -> f32 {
    let x = x.clamp(-3.95, 3.95);
    let s = x * x;
    let p = 2.025_591_8e-6;
    let p = p * s + 2.847_153_5e-4;
    let p = p * s + 3.809_580_3e-3;
    let p = p * s + 5.287_979e-2;
    let p = p * s + 0.191_583_98;
    let p = p * s + std::f32::consts::FRAC_2_SQRT_PI;
    let q = 3.782_997e-5;
    let q = q * s + 1.171_062_1e-3;
    let q = q * s + 1.505_792_8e-2;
    let q = q * s + 0.114_573_45;
    let q = q * s + 0.503_119_5;
    let q = q * s + 1.0;
    (x * p / q).clamp(-1.0, 1.0)
}

/// x · Φ(x), Φ the normal distribution's: the exact GELU.
#[inline(always)]
pub(crate) fn gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2))
}

/// x · σ(1.702 x): the GELU of CLIP's text encoder.
#[inline(always)]
pub(crate) fn quick_gelu(x: f32) -> f32 {
    x / (1.0 + exp(-1.702 * x))
}

/// The derivative of [`gelu`]: Φ(x) + x φ(x), φ the normal distribution's density.
#[inline(always)]
pub(crate) fn gelu_slope(x: f32) -> f32 {
    // 1 / √(2 π).
    const DENSITY: f32 = 0.398_942_3;
    0.5 * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2)) + x * DENSITY * exp(-0.5 * x * x)
}

/// The derivative of [`quick_gelu`].
#[inline(always)]
pub(crate) fn quick_gelu_slope(x: f32) -> f32 {
    let sigmoid = 1.0 / (1.0 + exp(-1.702 * x));
    sigmoid * (1.0 + 1.702 * x * (1.0 - sigmoid))
}

/// Lanes of [`sum`]: enough independent sums for every SIMD width.
const LANES: usize = 16;

/// Σ f(xᵢ), in [`LANES`] interleaved sums whatever the machine.
#[inline(always)]
pub(crate) fn sum(values: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let (blocks, rest) = values.as_chunks::<LANES>();
    let mut lanes = [0.0f32; LANES];
    for block in blocks {
        for lane in 0..LANES {
            lanes[lane] += f(block[lane]);
        }
    }
    lanes.iter().sum::<f32>() + rest.iter().map(|&x| f(x)).sum::<f32>()
}

/// The largest value, -∞ where there is none; in [`LANES`] interleaved maxima. Not for NaN.
#[inline(always)]
pub(crate) fn largest(values: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let (blocks, rest) = values.as_chunks::<LANES>();
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for block in blocks {
        for lane in 0..LANES {
            lanes[lane] = larger(lanes[lane], block[lane]);
        }
    }
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |a, &b| larger(a, b))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Error function by its Maclaurin series in f64, to 1e-12 for |x| ≤ 4.
    fn erf_series(x: f64) -> f64 {
        let (mut term, mut total) = (x, x);
        for n in 1..120 {
            term *= -x * x / f64::from(n);
            total += term / f64::from(2 * n + 1);
        }
        total * std::f64::consts::FRAC_2_SQRT_PI
    }

    #[test]
    fn within_the_stated_errors() {
        for i in -40_000..=40_000 {
            let x = i as f32 * 1e-4;
            assert!((f64::from(erf(x)) - erf_series(x.into())).abs() <= 4e-7, "erf({x})");
            let x = i as f32 * 2e-3;
            let expected = f64::from(x).exp();
            assert!((f64::from(exp(x)) - expected).abs() <= 3.6e-7 * expected, "exp({x})");
            let x = -126.0 * (i as f32 / 40_000.0).abs();
            let expected = f64::from(x).exp2();
            assert!((f64::from(exp2_of_negative(x)) - expected).abs() <= 3.6e-7 * expected, "2^{x}");
        }
    }

    #[test]
    fn the_ends_stay_finite() {
        assert_eq!((erf(f32::INFINITY), erf(f32::NEG_INFINITY)), (1.0, -1.0));
        assert!(exp2_of_negative(f32::NEG_INFINITY) < 2e-38 && exp2_of_negative(f32::NAN).is_nan());
        assert!(exp(f32::NEG_INFINITY) < 2e-38 && exp(f32::INFINITY).is_finite());
        assert_eq!((gelu(20.0), gelu(-20.0), quick_gelu(0.0)), (20.0, 0.0, 0.0));
        assert!(quick_gelu(-100.0).abs() < 1e-30);
        assert!(erf(f32::NAN).is_nan() && gelu(f32::NAN).is_nan());
    }

    #[test]
    fn sums_and_maxima_of_every_length() {
        for n in [0usize, 1, 15, 16, 17, 100] {
            let values: Vec<f32> = (0..n).map(|i| i as f32).collect();
            assert_eq!(sum(&values, |x| 2.0 * x), (n * n.saturating_sub(1)) as f32);
            assert_eq!(largest(&values), if n == 0 { f32::NEG_INFINITY } else { n as f32 - 1.0 });
        }
    }
}
