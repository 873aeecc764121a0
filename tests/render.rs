//! Drawing points and triangles on every device against the host's twins.

mod common;

use burn::tensor::{Device, Int, Tensor};
use common::{Random, devices};
use geopurify::gpu::{Limits, with_limits};
use geopurify::ops::pinhole::Pinhole;
use geopurify::ops::rasterize::{self, Mesh, rasterize, shade};
use geopurify::ops::splat::{self, Drawn, cpu::Seen, fill, splat};
use geopurify::ops::{OpError, float_tensor, float_values, int_tensor, int_values};
use geopurify::views::render::{Picture, Renderer, Scene, radii};

fn camera(width: usize, height: usize, turn: f32) -> Pinhole {
    let (sin, cos) = turn.sin_cos();
    let focal = width as f32 * 0.8;
    Pinhole {
        width,
        height,
        focal: [focal, focal * 1.1],
        principal: [width as f32 * 0.5 - 0.37, height as f32 * 0.5 + 0.11],
        axes: [[cos, 0.0, -sin], [0.0, 1.0, 0.0], [sin, 0.0, cos]],
        center: [0.1, -0.2, 0.3],
        near: 0.05,
    }
}

fn points(random: &mut Random, count: usize, size: f32) -> Vec<[f32; 3]> {
    (0..count).map(|_| [0; 3].map(|_| random.signed() * size)).collect()
}

fn floats<const C: usize>(rows: &[[f32; C]], device: &Device) -> Tensor<2> {
    float_tensor(rows.as_flattened().to_vec(), [rows.len(), C], device)
}

fn corners(triangles: &[[u32; 3]], device: &Device) -> Tensor<2, Int> {
    int_tensor(triangles.as_flattened().iter().map(|&v| v as i32).collect(), [triangles.len(), 3], device)
}

/// Equal to the bit where arithmetic is the host's; elsewhere products may be fused with sums, and a point
/// near the border of a pixel may fall on its other side.
fn check(name: &str, drawn: Drawn, expected: &Seen) {
    let (depth, index) = (float_values(drawn.depth).unwrap(), int_values(drawn.index).unwrap());
    if name == "cpu" || name.contains("llvmpipe") {
        assert_eq!(index, expected.index, "{name}");
        assert!(depth.iter().zip(&expected.depth).all(|(a, b)| a.to_bits() == b.to_bits()), "{name}");
        return;
    }
    let same: Vec<usize> = (0..index.len()).filter(|&pixel| index[pixel] == expected.index[pixel]).collect();
    assert!(same.len() * 100 >= index.len() * 99, "{name}: {} of {} pixels agree", same.len(), index.len());
    for pixel in same {
        assert!((depth[pixel] - expected.depth[pixel]).abs() <= 1e-4 * expected.depth[pixel], "{name}");
    }
}

/// Launches of at most this many workgroups per dimension, so that small ones fold.
fn folds() -> [Limits; 2] {
    [65_535, 7].map(|max_workgroups| Limits { max_workgroups, ..Limits::HOST })
}

#[test]
fn points_are_drawn_as_by_the_twin() {
    for (name, device) in devices() {
        for limits in folds() {
            for (count, [width, height], turn, size) in [
                (0, [3, 2], 0.0, 1.0),
                (1, [64, 48], 0.0, 1.0),
                (5000, [97, 61], 0.7, 4.0),
                (40_000, [160, 242], 2.0, 5.0),
            ] {
                let mut random = Random(count as u64);
                let points = points(&mut random, count, size);
                let radii: Vec<f32> = (0..count).map(|_| random.signed().abs() * 0.06).collect();
                let camera = camera(width, height, turn);
                let expected = splat::cpu::splat(&camera, &points, &radii, 2.0);
                with_limits(limits, || {
                    let radii = float_tensor(radii, [count], &device);
                    check(&name, splat(floats(&points, &device), radii, &camera, 2.0).unwrap(), &expected);
                    let image = || Drawn {
                        depth: float_tensor(expected.depth.clone(), [height, width], &device),
                        index: int_tensor(expected.index.clone(), [height, width], &device),
                    };
                    for reach in [0, 1, 4] {
                        let filled = splat::cpu::fill(&expected.depth, &expected.index, width, reach, 0.95);
                        check(&name, fill(image(), reach, 0.95).unwrap(), &filled);
                    }
                });
            }
        }
    }
}

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

/// Points with colours, and the triangles between them.
struct Sheet {
    points: Vec<[f32; 3]>,
    colors: Vec<[u8; 3]>,
    faces: Vec<[u32; 3]>,
}

/// A bumpy sheet before the camera.
fn sheet() -> Sheet {
    let side = 60;
    let place = |i: usize| (i as f32 / 59.0 - 0.5) * 3.0;
    let point = |i: usize| {
        let (x, y) = (place(i % side), place(i / side));
        [x, y, 2.5 + 0.3 * (4.0 * x).sin() * (3.0 * y).cos()]
    };
    let corner = |x: usize, y: usize| (y * side + x) as u32;
    let faces = (0..(side - 1) * (side - 1)).flat_map(|i| {
        let (x, y) = (i % (side - 1), i / (side - 1));
        let [a, b, c, d] = [corner(x, y), corner(x + 1, y), corner(x, y + 1), corner(x + 1, y + 1)];
        [[a, b, c], [d, c, b]]
    });
    let colors = (0..side * side).map(|i| [(i % side * 4) as u8, (i / side * 4) as u8, 99]).collect();
    Sheet { points: (0..side * side).map(point).collect(), colors, faces: faces.collect() }
}

fn differs(name: &str, picture: &Picture, expected: &Picture) -> usize {
    assert_eq!(picture.index.len(), expected.index.len(), "{name}");
    let same = |pixel: &usize| {
        picture.index[*pixel] == expected.index[*pixel]
            && (picture.depth[*pixel] - expected.depth[*pixel]).abs() <= 1e-4 * expected.depth[*pixel]
            && (0..3).all(|c| picture.colors[*pixel][c].abs_diff(expected.colors[*pixel][c]) <= 1)
    };
    (0..picture.index.len()).filter(|pixel| !same(pixel)).count()
}

#[test]
fn pictures_are_the_same_on_every_device() {
    let Sheet { points, colors, faces } = sheet();
    let radii = radii(&points);
    let view = camera(120, 90, 0.2);
    for faces in [&[][..], &faces] {
        let scene = Scene { points: &points, origin: [0.0; 3], colors: &colors, faces, radii: &radii };
        let host = Renderer::new(&scene, &Device::flex()).unwrap();
        let expected = host.picture(&view, [7; 3]).unwrap();
        let empty = expected.index.iter().filter(|index| **index < 0).count();
        assert!(empty * 2 < expected.index.len() && empty > 0, "{empty}");
        assert!(expected.colors.iter().zip(&expected.index).all(|(color, index)| (*color == [7; 3]) == (*index < 0)));
        // Every other row.
        let num_elements = if faces.is_empty() { points.len() } else { faces.len() };
        let shown: Vec<bool> = (0..num_elements).map(|i| (i * 60 / num_elements).is_multiple_of(2)).collect();
        let half = host.showing(&shown).unwrap().picture(&view, [7; 3]).unwrap();
        assert!(half.index.iter().all(|index| *index < 0 || shown[*index as usize]));
        assert!(half.index.iter().filter(|index| **index >= 0).count() > expected.index.len() / 5);
        for (name, device) in devices() {
            let renderer = Renderer::new(&scene, &device).unwrap();
            assert!(!renderer.fell_back());
            let picture = renderer.picture(&view, [7; 3]).unwrap();
            let allowed = if name == "cpu" || name.contains("llvmpipe") { 0 } else { picture.index.len() / 100 };
            assert!(differs(&name, &picture, &expected) <= allowed, "{name}");
            let seen = renderer.seen(&view).unwrap();
            assert_eq!((&seen.index, &seen.depth), (&picture.index, &picture.depth), "{name}");
            let picture = renderer.showing(&shown).unwrap().picture(&view, [7; 3]).unwrap();
            assert!(differs(&name, &picture, &half) <= allowed, "{name}");
            assert!(matches!(renderer.showing(&shown[1..]), Err(OpError::Shape { tensor: "shown", .. })), "{name}");

            // What does not fit the device is left to the host. Meshes are looked through at once, and lowered
            // limits hold for the host as well.
            if faces.is_empty() {
                let small = Limits { max_binding_bytes: 1000, ..Limits::HOST };
                let renderer = with_limits(small, || Renderer::new(&scene, &device).unwrap());
                assert_eq!(renderer.fell_back(), name != "cpu");
                assert_eq!(renderer.picture(&view, [7; 3]).unwrap(), expected, "{name}");
            }
        }
    }
}

#[test]
fn scans_that_contradict_themselves_are_refused() {
    let Sheet { points, colors, faces } = sheet();
    let radii = radii(&points);
    let scene = Scene { points: &points, origin: [0.0; 3], colors: &colors, faces: &[], radii: &radii };
    let wild = [[0, 1, u32::MAX]];
    let far = [[0, 1, points.len() as u32]];
    for (name, device) in devices() {
        let refused = |scene: &Scene<'_>| Renderer::new(scene, &device).unwrap_err();
        let error = refused(&Scene { colors: &colors[1..], ..scene.clone() });
        assert!(matches!(error, OpError::Shape { tensor: "colors", .. }), "{name}: {error}");
        let error = refused(&Scene { radii: &radii[1..], ..scene.clone() });
        assert!(matches!(error, OpError::Shape { tensor: "radii", .. }), "{name}: {error}");
        for faces in [&wild, &far] {
            assert!(matches!(refused(&Scene { faces, ..scene.clone() }), OpError::Value { .. }), "{name}");
        }
        let renderer = Renderer::new(&Scene { faces: &faces, ..scene.clone() }, &device).unwrap();
        let view = Pinhole { width: 0, ..camera(8, 8, 0.0) };
        assert!(matches!(renderer.picture(&view, [0; 3]), Err(OpError::Value { .. })), "{name}");
        let none = Scene { points: &[], origin: [0.0; 3], colors: &[], faces: &[], radii: &[] };
        let picture = Renderer::new(&none, &device).unwrap().picture(&camera(8, 8, 0.0), [3; 3]).unwrap();
        assert!(picture.colors == [[3; 3]; 64] && picture.index == [-1; 64], "{name}");
    }
}

#[test]
fn what_cannot_be_drawn_is_refused() {
    for (name, device) in devices() {
        let view = camera(8, 8, 0.0);
        let (three, one) = (floats(&[[0.0; 3]; 3], &device), float_tensor(vec![0.1], [1], &device));
        let error = splat(three.clone(), one, &view, 1.0).unwrap_err();
        assert!(matches!(error, OpError::Shape { tensor: "radii", .. }), "{name}: {error}");
        let radii = || float_tensor(vec![0.1; 3], [3], &device);
        for camera in [
            Pinhole { width: 0, ..view },
            Pinhole { height: 4001, ..view },
            Pinhole { near: 0.0, ..view },
            Pinhole { center: [f32::NAN; 3], ..view },
        ] {
            assert!(matches!(splat(three.clone(), radii(), &camera, 1.0), Err(OpError::Value { .. })), "{name}");
        }
        for triangle in [[0, 1, 3], [0, -1, 2]] {
            let triangles = int_tensor(triangle.to_vec(), [1, 3], &device);
            let error = Mesh::new(three.clone(), triangles).unwrap_err();
            assert!(matches!(error, OpError::Value { .. }), "{name}: {error}");
        }
        let small = Limits { max_binding_bytes: 35, ..Limits::HOST };
        with_limits(small, || {
            assert!(matches!(splat(three.clone(), radii(), &view, 1.0), Err(OpError::TooLarge(_))), "{name}");
        });
    }
}
