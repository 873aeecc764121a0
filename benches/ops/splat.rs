//! A picture of 648 x 484 pixels from within a box of points, and the gaps of it closed.

use divan::counter::ItemsCount;
use geopurify::ops::float_tensor;
use geopurify::ops::pinhole::Pinhole;
use geopurify::ops::splat::{fill, splat};

use crate::common::{device, finish, sizes};

const CAMERA: Pinhole = Pinhole {
    width: 648,
    height: 484,
    focal: [500.0; 2],
    principal: [323.5, 241.5],
    axes: [[0.0, -1.0, 0.0], [0.0, 0.0, -1.0], [1.0, 0.0, 0.0]],
    center: [-3.0, 0.5, 0.2],
    near: 0.1,
};

/// Points on the sides of a box of 8 x 6 x 3, evenly by the sequence of multiples of two irrational numbers.
fn walls(n: usize) -> Vec<f32> {
    let half = [4.0, 3.0, 1.5];
    let point = |i: usize| {
        let (u, v) = ((i as f64 * 0.754_877_666).fract(), (i as f64 * 0.569_840_296).fract());
        let mut p = [0.0; 3];
        let axis = i % 3;
        p[axis] = if i.is_multiple_of(2) { half[axis] } else { -half[axis] };
        for (value, axis) in [(u, (axis + 1) % 3), (v, (axis + 2) % 3)] {
            p[axis] = (2.0 * value - 1.0) * half[axis];
        }
        p.map(|v| v as f32)
    };
    (0..n).flat_map(point).collect()
}

#[divan::bench(args = sizes(), sample_count = 5, sample_size = 1)]
fn picture(bencher: divan::Bencher<'_, '_>, n: usize) {
    let points = float_tensor(walls(n), [n, 3], &device());
    let radius = 0.75 * (180.0 / n as f32).sqrt();
    let radii = float_tensor(vec![radius; n], [n], &device());
    bencher.counter(ItemsCount::new(n)).bench_local(|| {
        let drawn = splat(points.clone(), radii.clone(), &CAMERA, 2.0).expect("valid input");
        let filled = fill(fill(drawn, 2, 0.95).expect("valid input"), 6, 0.95).expect("valid input");
        finish();
        filled
    });
}
