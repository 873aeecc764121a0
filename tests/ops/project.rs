//! Projection of points into a picture.

use burn::prelude::*;
use burn::tensor::Device;
use geopurify::ops::project::{Visibility, project};
use geopurify::ops::{float_tensor, int_values};

use crate::camera::{CAMERA, points, tensor};
use crate::common::everywhere;

#[test]
fn projections_are_those_of_the_pinhole() {
    let cases: [([f32; 3], i32); 9] = [
        ([2.0, 0.0, 0.0], 30 * 80 + 40),
        // Left is smaller x, up is smaller y.
        ([2.0, 0.4, 0.0], 30 * 80 + 30),
        ([2.0, 0.0, 0.5], 20 * 80 + 40),
        // Half pixels go to the even one: 40.5 to 40, 41.5 to 42.
        ([2.0, -0.02, 0.0], 30 * 80 + 40),
        ([2.0, -0.06, 0.0], 30 * 80 + 42),
        // Behind the camera, in its plane, in the border, hidden.
        ([-2.0, 0.0, 0.0], -1),
        ([0.0, 0.0, 0.0], -1),
        ([2.0, 1.24, 0.0], -1),
        ([2.2, 0.0, 0.0], -1),
    ];
    let at: Vec<[f32; 3]> = cases.iter().map(|case| case.0).collect();
    let expected: Vec<i32> = cases.iter().map(|case| case.1).collect();
    everywhere(|name, device| {
        let depth = Tensor::<2>::full([60, 80], 2.0, device);
        let found = project(tensor(&at, device), depth, CAMERA, Visibility::default()).unwrap();
        assert_eq!(int_values(found).unwrap(), expected, "{name}");
        let nothing = project(tensor(&at, device), Tensor::zeros([60, 80], device), CAMERA, Visibility::default());
        assert_eq!(int_values(nothing.unwrap()).unwrap(), [-1; 9], "{name}");
    });
    let error =
        project(tensor(&at, &Device::flex()), Tensor::zeros([60, 81], &Device::flex()), CAMERA, Visibility::default());
    assert_eq!(error.unwrap_err().to_string(), "project: depth is [60, 81], expected [60, 80]");
}

#[test]
fn projections_of_many_points_equal_the_definition() {
    let at = points(20_000, 3.0, 5);
    let depth: Vec<f32> = (0..60 * 80).map(|i| 0.5 + (i * 37 % 100) as f32 / 40.0).collect();
    // In f64; points within a thousandth of a pixel or of the depth's tolerance of a border could go either way.
    let mut sure = Vec::new();
    let expected: Vec<i32> = at
        .iter()
        .map(|p| {
            let p = p.map(f64::from);
            let (column, row) = (-p[1] * 50.0 / p[0] + 40.0, -p[2] * 40.0 / p[0] + 30.0);
            let off = |x: f64| ((x - x.floor()) - 0.5).abs() > 1e-3;
            let inside = |x: f64, size: f64| (10.0..size - 10.0).contains(&x.round());
            if !(p[0] > 0.0 && inside(column, 80.0) && inside(row, 60.0)) {
                sure.push(p[0] < 0.0 || (off(column) && off(row)));
                return -1;
            }
            let pixel = row.round() as usize * 80 + column.round() as usize;
            let seen = f64::from(depth[pixel]);
            let excess = (seen - p[0]).abs() - 0.05 * seen;
            sure.push(off(column) && off(row) && excess.abs() > 1e-4);
            if excess <= 0.0 { pixel as i32 } else { -1 }
        })
        .collect();
    assert!(sure.iter().filter(|sure| **sure).count() > 19_800 && expected.iter().filter(|p| **p >= 0).count() > 50);
    everywhere(|name, device| {
        let depth = float_tensor(depth.clone(), [60, 80], device);
        let found = int_values(project(tensor(&at, device), depth, CAMERA, Visibility::default()).unwrap()).unwrap();
        for i in (0..at.len()).filter(|&i| sure[i]) {
            assert_eq!(found[i], expected[i], "{name}, point {:?}", at[i]);
        }
    });
}
