//! Drawing of triangles against the twin.

use geopurify::gpu::with_limits;
use geopurify::ops::rasterize::{self, Mesh, rasterize, shade};
use geopurify::ops::{OpError, float_values, int_tensor};

use crate::camera::turned as camera;
use crate::common::{Random, devices};
use crate::helpers::drawing::{check, corners, floats, folds, points};

#[test]
fn triangles_are_drawn_as_by_the_twin() {
    for (name, device) in devices() {
        for limits in folds() {
            // The last ones are larger than the image, and reach behind the camera.
            for (count, [width, height], turn, edge) in [
                (0, [3, 2], 0.0, 1.0),
                (1, [64, 48], 0.0, 3.0),
                (3000, [97, 61], 0.7, 0.3),
                (50, [320, 200], -1.0, 30.0),
            ] {
                let mut random = Random(count as u64);
                let middles = points(&mut random, count, 4.0);
                let vertices: Vec<[f32; 3]> =
                    middles.iter().flat_map(|m| [0; 3].map(|_| m.map(|v| v + random.signed() * edge))).collect();
                let triangles: Vec<[u32; 3]> = (0..count as u32).map(|i| [3 * i, 3 * i + 2, 3 * i + 1]).collect();
                let camera = camera(width, height, turn);
                let expected = rasterize::cpu::rasterize(&camera, &vertices, &triangles);
                let colors: Vec<[f32; 3]> = vertices.iter().map(|v| v.map(|x| x * 10.0)).collect();
                let flat = colors.as_flattened();
                let shaded = rasterize::cpu::shade(&camera, &vertices, &triangles, flat, 3, &expected.index);
                with_limits(limits, || {
                    let mesh = Mesh::new(floats(&vertices, &device), corners(&triangles, &device)).unwrap();
                    check(&name, rasterize(&mesh, &camera).unwrap(), &expected);
                    let index = int_tensor(expected.index.clone(), [height, width], &device);
                    let found = shade(&mesh, floats(&colors, &device), index, &camera).unwrap();
                    let found = float_values(found).unwrap();
                    assert!(found.iter().zip(&shaded).all(|(a, b)| (a - b).abs() <= 0.05), "{name}");
                });
            }
        }
    }
}

#[test]
fn triangles_of_missing_corners_are_refused() {
    for (name, device) in devices() {
        let three = floats(&[[0.0; 3]; 3], &device);
        for triangle in [[0, 1, 3], [0, -1, 2]] {
            let triangles = int_tensor(triangle.to_vec(), [1, 3], &device);
            let error = Mesh::new(three.clone(), triangles).unwrap_err();
            assert!(matches!(error, OpError::Value { .. }), "{name}: {error}");
        }
    }
}
