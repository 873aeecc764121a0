//! Host twin of the normals.

use rayon::prelude::*;

use crate::ops::present;

/// Which way normals look.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Orientation {
    /// Towards this position, in the points' frame.
    Viewpoint([f32; 3]),
    /// Upwards: z ≥ 0, or where z is 0 the first of y, x that is not 0 is positive.
    Up,
}

/// Cyclic Jacobi sweeps; a 3 × 3 matrix is diagonal to f32 after four or five.
const SWEEPS: usize = 8;

fn sub(a: [f32; 3], b: [f32; 3]) -> [f32; 3] {
    [a[0] - b[0], a[1] - b[1], a[2] - b[2]]
}

/// See [`super::normals`].
#[must_use]
pub fn normals(
    points: &[[f32; 3]],
    neighbors: &[i32],
    k: usize,
    first_row: usize,
    orientation: Orientation,
) -> Vec<[f32; 3]> {
    let normal = |row: usize| {
        let p = points[first_row + row];
        let present_neighbors = neighbors[row * k..(row + 1) * k].iter().filter_map(|n| present(*n, points.len()));
        // Differences to the point itself: coordinates far from the origin lose nothing.
        let offsets = || present_neighbors.clone().map(|n| sub(points[n], p)).chain([[0.0; 3]]);
        orient(least_variance(offsets), p, orientation)
    };
    (0..neighbors.len() / k).into_par_iter().with_min_len(64).map(normal).collect()
}

/// The direction of least variance of `offsets`, or +z where there is none.
fn least_variance<I: Iterator<Item = [f32; 3]>>(offsets: impl Fn() -> I) -> [f32; 3] {
    let (mut count, mut mean) = (0.0_f32, [0.0_f32; 3]);
    for d in offsets() {
        count += 1.0;
        mean.iter_mut().zip(d).for_each(|(sum, v)| *sum += v);
    }
    let mean = mean.map(|sum| sum / count);
    let mut a = [[0.0_f32; 3]; 3];
    for d in offsets().map(|d| sub(d, mean)) {
        for (row, v) in a.iter_mut().zip(d) {
            row.iter_mut().zip(d).for_each(|(sum, w)| *sum += v * w);
        }
    }
    let scale = a[0][0] + a[1][1] + a[2][2];
    if count < 3.0 || scale <= 0.0 || !scale.is_finite() {
        return [0.0, 0.0, 1.0];
    }
    a.as_flattened_mut().iter_mut().for_each(|v| *v /= scale);
    let (variances, axes) = principal_axes(a);
    let least = (1..3).fold(0, |least, i| if variances[i] < variances[least] { i } else { least });
    axes[least]
}

/// Eigenvalues of the symmetric matrix `a`, and for each its eigenvector of length 1, in no order.
#[must_use]
pub fn principal_axes(mut a: [[f32; 3]; 3]) -> ([f32; 3], [[f32; 3]; 3]) {
    let mut vectors = [[1.0_f32, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
    for _ in 0..SWEEPS {
        for (r, s, o) in [(0, 1, 2), (0, 2, 1), (1, 2, 0)] {
            let off = a[r][s];
            if off.abs() < 1e-30 {
                continue;
            }
            let theta = (a[s][s] - a[r][r]) / (2.0 * off);
            let t = 1.0_f32.copysign(theta) / (theta.abs() + (theta * theta + 1.0).sqrt());
            let cosine = 1.0 / (t * t + 1.0).sqrt();
            let sine = t * cosine;
            a[r][r] -= t * off;
            a[s][s] += t * off;
            let (ro, so) = (cosine * a[r][o] - sine * a[s][o], sine * a[r][o] + cosine * a[s][o]);
            (a[r][s], a[s][r]) = (0.0, 0.0);
            (a[r][o], a[o][r], a[s][o], a[o][s]) = (ro, ro, so, so);
            let (vr, vs) = (vectors[r], vectors[s]);
            vectors[r] = std::array::from_fn(|axis| cosine * vr[axis] - sine * vs[axis]);
            vectors[s] = std::array::from_fn(|axis| sine * vr[axis] + cosine * vs[axis]);
        }
    }
    let unit = |v: [f32; 3]| {
        let norm = (v[0] * v[0] + v[1] * v[1] + v[2] * v[2]).sqrt();
        v.map(|c| c / norm)
    };
    ([a[0][0], a[1][1], a[2][2]], vectors.map(unit))
}

fn orient(normal: [f32; 3], p: [f32; 3], orientation: Orientation) -> [f32; 3] {
    let along = match orientation {
        Orientation::Viewpoint(view) => sub(view, p).iter().zip(normal).map(|(a, b)| a * b).sum(),
        Orientation::Up => normal.iter().rev().copied().find(|c| *c != 0.0).unwrap_or(0.0),
    };
    if along < 0.0 { normal.map(|c| -c) } else { normal }
}
