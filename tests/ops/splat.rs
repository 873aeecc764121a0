//! Drawing of points against the twin.

use geopurify::gpu::{Limits, with_limits};
use geopurify::ops::pinhole::Pinhole;
use geopurify::ops::splat::{self, Drawn, fill, splat};
use geopurify::ops::{OpError, float_tensor, int_tensor};

use crate::camera::turned as camera;
use crate::common::{Random, devices};
use crate::helpers::drawing::{check, floats, folds, points};

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
fn points_that_cannot_be_drawn_are_refused() {
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
        let small = Limits { max_binding_bytes: 35, ..Limits::HOST };
        with_limits(small, || {
            assert!(matches!(splat(three.clone(), radii(), &view, 1.0), Err(OpError::TooLarge(_))), "{name}");
        });
    }
}
