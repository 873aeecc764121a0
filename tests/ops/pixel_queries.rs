//! The query of every pixel against its definition in f64.

use burn::prelude::*;
use burn::tensor::Device;
use geopurify::gpu::{Limits, with_limits};
use geopurify::ops::bicubic_antialias::bicubic_antialias;
use geopurify::ops::pixel_queries::{Sizes, pixel_queries};
use geopurify::ops::{float_tensor, float_values, int_values};

use crate::common::{Random, everywhere};

/// The winner of every pixel in f64, and whether rounding could not change it.
fn contest(masks: &[f32], confidences: &[f32], sizes: Sizes) -> Vec<(i32, bool)> {
    let Sizes { resampled: [_, full_width], picture: [height, width] } = sizes;
    let plane = masks.len() / confidences.len();
    let pixel = |i: usize| {
        let (mut best, mut runner_up, mut winner, mut logit) = (f64::NEG_INFINITY, f64::NEG_INFINITY, -1, 0.0);
        for (q, (mask, &confidence)) in masks.chunks_exact(plane).zip(confidences).enumerate() {
            let x = f64::from(mask[i / width * full_width + i % width]);
            let value = f64::from(confidence) / (1.0 + (-x).exp());
            if value > best {
                (runner_up, best, winner, logit) = (best, value, q as i32, x);
            } else {
                runner_up = runner_up.max(value);
            }
        }
        (if logit >= 0.0 { winner } else { -1 }, best - runner_up > 1e-5 && logit.abs() > 1e-5)
    };
    (0..height * width).map(pixel).collect()
}

#[test]
fn queries_of_pixels_equal_the_definition() {
    let cases = [
        (1, [1, 1], [1, 1], [1, 1]),
        (3, [2, 3], [8, 12], [6, 9]),
        // Padding cropped, kept, and a mask that shrinks.
        (20, [9, 13], [36, 52], [34, 49]),
        (20, [9, 13], [35, 50], [35, 50]),
        (5, [40, 70], [11, 33], [11, 32]),
        (70, [33, 21], [132, 84], [131, 82]),
    ];
    for (num_queries, [h, w], resampled, picture) in cases {
        let mut random = Random(num_queries as u64);
        let masks: Vec<f32> = random.floats(num_queries * h * w).iter().map(|x| 4.0 * x).collect();
        let confidences: Vec<f32> = random.floats(num_queries).iter().map(|x| x.abs()).collect();
        let sizes = Sizes { resampled, picture };
        let shape = [num_queries, h, w];
        let planes = float_tensor(masks.clone(), shape, &Device::flex());
        let planes = float_values(bicubic_antialias(planes, resampled).unwrap()).unwrap();
        let expected: Vec<(i32, bool)> =
            planes.chunks_exact(planes.len()).flat_map(|planes| contest(planes, &confidences, sizes)).collect();
        assert!(expected.iter().filter(|(_, sure)| *sure).count() * 100 >= expected.len() * 99);
        assert!(num_queries < 20 || expected.iter().any(|(query, _)| *query >= 0));
        let compare = |name: &str, device: &Device| {
            let confidences = float_tensor(confidences.clone(), [num_queries], device);
            let found = pixel_queries(float_tensor(masks.clone(), shape, device), confidences, sizes).unwrap();
            assert_eq!(found.dims(), picture, "{name}");
            for (i, (found, (query, sure))) in int_values(found).unwrap().into_iter().zip(&expected).enumerate() {
                assert!(!sure || found == *query, "{name}, {shape:?}, pixel {i}: {found}, expected {query}");
            }
        };
        everywhere(|name, device| {
            compare(name, device);
            // As few masks at a time as their own size leaves room for.
            let lowered = Limits {
                max_binding_bytes: (num_queries * h * w * 4).max(picture[0] * picture[1] * 4) as u64,
                max_workgroups: 65_535,
            };
            with_limits(lowered, || compare(&format!("{name}, small buffers"), device));
        });
    }
}

#[test]
fn queries_of_pixels_at_the_edge_of_their_contract() {
    let sizes = Sizes { resampled: [4, 4], picture: [4, 3] };
    everywhere(|name, device| {
        let of = |masks: Vec<f32>, confidences: Vec<f32>| {
            let num_queries = confidences.len();
            let masks = float_tensor(masks, [num_queries, 1, 1], device);
            let found = pixel_queries(masks, float_tensor(confidences, [num_queries], device), sizes).unwrap();
            int_values(found).unwrap()
        };
        assert_eq!(of(vec![], vec![]), [-1; 12], "{name}");
        // The first of equals; a confident one whose mask is off; what is not a number.
        assert_eq!(of(vec![1.0, 1.0], vec![0.5, 0.5]), [0; 12], "{name}");
        assert_eq!(of(vec![1.0, -0.5], vec![0.1, 1.0]), [-1; 12], "{name}");
        assert_eq!(of(vec![0.0, f32::NAN, 9.0], vec![0.5, 1.0, f32::NAN]), [0; 12], "{name}");
        assert_eq!(of(vec![-200.0, 200.0], vec![1.0, 0.5]), [1; 12], "{name}");
        // Below zero every probability counts the other way round.
        assert_eq!(of(vec![3.0, 1.0], vec![-0.5, -0.5]), [1; 12], "{name}");
    });
    let device = Device::flex();
    let masks = |shape| Tensor::<3>::zeros(shape, &device);
    let error = pixel_queries(masks([2, 1, 1]), Tensor::zeros([3], &device), sizes).unwrap_err();
    assert_eq!(error.to_string(), "pixel_queries: confidences is [3], expected [Q = 2]");
    let larger = Sizes { resampled: [4, 4], picture: [5, 4] };
    let error = pixel_queries(masks([3, 1, 1]), Tensor::zeros([3], &device), larger).unwrap_err();
    assert!(error.to_string().contains("expected a part of them"), "{error}");
    assert!(pixel_queries(masks([3, 0, 1]), Tensor::zeros([3], &device), sizes).is_err());
}
