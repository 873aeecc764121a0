//! The sine position encoding of the pixel decoder and the decoder.

use burn::prelude::*;

use crate::ops::float_tensor;

/// Base of the wavelengths.
const TEMPERATURE: f64 = 10_000.0;

/// Returns the encoding `[1, height · width, dim]` of every pixel, row by row. Half of the channels encode
/// the row, half the column. Positions 1..n of an axis become angles up to 2π. Even channels are sines and
/// odd ones cosines of the angle divided by 10000^(2 ⌊i / 2⌋ / (dim / 2)).
pub(super) fn sine_positions(height: usize, width: usize, dim: usize, device: &Device) -> Tensor<3> {
    let half = dim / 2;
    let axis = |n: usize| -> Vec<f32> {
        // Each step is in f32, as in the reference.
        let scale = 2.0 * std::f32::consts::PI;
        let position = |i: usize| (i + 1) as f32 / (n as f32 + 1e-6) * scale;
        let wave = |c: usize| TEMPERATURE.powf(2.0 * (c / 2) as f64 / half as f64) as f32;
        let value = |i: usize, c: usize| match c % 2 {
            0 => (position(i) / wave(c)).sin(),
            _ => (position(i) / wave(c)).cos(),
        };
        (0..n * half).map(|i| value(i / half, i % half)).collect()
    };
    let (rows, columns) = (axis(height), axis(width));
    let mut values = Vec::with_capacity(height * width * dim);
    for row in rows.chunks_exact(half.max(1)) {
        for column in columns.chunks_exact(half.max(1)) {
            values.extend_from_slice(row);
            values.extend_from_slice(column);
        }
    }
    float_tensor(values, [1, height * width, dim], device)
}
