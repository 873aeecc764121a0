//! A picture of 648 x 484 pixels of a sheet of triangles.

use divan::counter::ItemsCount;
use geopurify::ops::pinhole::Pinhole;
use geopurify::ops::rasterize::{Mesh, rasterize};
use geopurify::ops::{float_tensor, int_tensor};

use crate::common::{device, finish, sizes};

const CAMERA: Pinhole = Pinhole {
    width: 648,
    height: 484,
    focal: [500.0; 2],
    principal: [323.5, 241.5],
    axes: [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
    center: [0.0; 3],
    near: 0.1,
};

#[divan::bench(args = sizes(), sample_count = 5, sample_size = 1)]
fn sheet(bencher: divan::Bencher<'_, '_>, n: usize) {
    let side = ((n / 2) as f32).sqrt() as usize + 1;
    let place = |i: usize| (i as f32 / (side - 1) as f32 - 0.5) * 4.0;
    let vertices: Vec<f32> =
        (0..side * side).flat_map(|i| [place(i % side), place(i / side), 2.5 + place(i % side) / 4.0]).collect();
    let corner = |x: usize, y: usize| (y * side + x) as i32;
    let triangles: Vec<i32> = (0..(side - 1) * (side - 1))
        .map(|i| (i % (side - 1), i / (side - 1)))
        .flat_map(|(x, y)| {
            let [a, b, c, d] = [corner(x, y), corner(x + 1, y), corner(x, y + 1), corner(x + 1, y + 1)];
            [a, b, c, d, c, b]
        })
        .collect();
    let num_triangles = triangles.len() / 3;
    let vertices = float_tensor(vertices, [side * side, 3], &device());
    let triangles = int_tensor(triangles, [num_triangles, 3], &device());
    let mesh = Mesh::new(vertices, triangles).expect("valid input");
    bencher.counter(ItemsCount::new(num_triangles)).bench_local(|| {
        let drawn = rasterize(&mesh, &CAMERA).expect("valid input");
        finish();
        drawn
    });
}
