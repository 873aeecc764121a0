//! Pictures of scans on every device, and scans that cannot be drawn.

use burn::tensor::Device;
use geopurify::gpu::{Limits, with_limits};
use geopurify::ops::OpError;
use geopurify::ops::pinhole::Pinhole;
use geopurify::views::render::{Picture, Renderer, Scene, radii};

use crate::camera::turned as camera;
use crate::common::devices;

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
