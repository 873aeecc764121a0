//! Gaussian splats: what the formats that hold them have in common.

use super::PointCloud;

/// Opacity below which a splat is hardly seen. Splats floating in free space are faint like that.
pub(super) const FAINT: f32 = 0.1;
/// Share of the first spherical harmonic in a colour.
const HARMONIC: f32 = 0.282_094_8;

/// Size and opacity of Gaussian splats, one value per point.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Splats {
    /// Standard deviation along the face of each splat, in file units: the geometric mean of its two largest.
    pub deviation: Vec<f32>,
    /// Opacity of each splat, 0 to 1.
    pub opacity: Vec<f32>,
}

/// Standard deviation along the face, from the deviations along the axes.
pub(super) fn along_face(mut axes: [f32; 3]) -> f32 {
    axes.sort_unstable_by(f32::total_cmp);
    let deviation = (axes[1] * axes[2]).sqrt();
    if deviation.is_finite() { deviation } else { 0.0 }
}

pub(super) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

/// Colour of the constant part of a splat's spherical harmonics.
pub(super) fn color_of(harmonic: [f32; 3]) -> [u8; 3] {
    harmonic.map(|x| byte(0.5 + HARMONIC * x))
}

/// A fraction as a byte. Casting saturates and turns NaN into 0.
pub(super) fn byte(x: f32) -> u8 {
    (255.0 * x).round() as u8
}

/// Splats too faint to be a surface, in ascending order.
pub(super) fn faint(cloud: &PointCloud) -> Vec<u32> {
    let Some(splats) = &cloud.splats else { return Vec::new() };
    let is_faint = |(i, &opacity): (u32, &f32)| (opacity < FAINT).then_some(i);
    (0..).zip(&splats.opacity).filter_map(is_faint).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_and_sizes() {
        assert_eq!(color_of([0.0, 1.396, -3.0]), [128, 228, 0]);
        assert_eq!(along_face([0.01, 4.0, 1.0]), 2.0);
        assert_eq!(along_face([f32::NAN, 4.0, f32::INFINITY]), 0.0);
        assert_eq!((sigmoid(0.0), sigmoid(-200.0)), (0.5, 0.0));
    }
}
