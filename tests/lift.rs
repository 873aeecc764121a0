//! Lifting beyond the golden cases: its operations against definitions and twins on every device, and what it does with
//! views that do not fit.

mod common;

use burn::prelude::*;
use burn::tensor::Device;
use common::{Random, devices, rel_l2};
use geopurify::gpu::{Limits, with_limits};
use geopurify::lift::{Lifter, NO_QUERY, View};
use geopurify::ops::fuse_views::fuse_views;
use geopurify::ops::knn::knn_between;
use geopurify::ops::project::{Camera, Visibility, project};
use geopurify::ops::{float_tensor, float_values, int_tensor, int_values};
use geopurify::purify::FeatureSource as _;

/// Runs `body` on every device, plainly and with dispatches folded after three workgroups.
fn on_devices(body: impl Fn(&str, &Device)) {
    for (name, device) in devices() {
        body(&name, &device);
        let folded = Limits { max_binding_bytes: u64::MAX, max_workgroups: 3 };
        with_limits(folded, || body(&format!("{name}, folded"), &device));
    }
}

fn points(n: usize, scale: f32, seed: u64) -> Vec<[f32; 3]> {
    let values: Vec<f32> = Random(seed).floats(3 * n).into_iter().map(|x| x * scale).collect();
    values.as_chunks::<3>().0.to_vec()
}

fn tensor(points: &[[f32; 3]], device: &Device) -> Tensor<2> {
    float_tensor(points.as_flattened().to_vec(), [points.len(), 3], device)
}

#[test]
fn nearest_of_other_points_equal_brute_force() {
    // Queries inside and far outside of the points; points on one another; one point.
    for (num_points, num_queries, scale) in [(1, 5, 1.0), (500, 333, 0.4), (500, 70, 25.0), (64, 64, 0.0)] {
        let (among, queries) = (points(num_points, 1.0, 1), points(num_queries, scale, 2));
        let k = 4;
        let expected: Vec<i32> = queries
            .iter()
            .flat_map(|q| {
                let sq_dist = |p: &[f32; 3]| {
                    let d: [f32; 3] = std::array::from_fn(|axis| q[axis] - p[axis]);
                    d[0] * d[0] + d[1] * d[1] + d[2] * d[2]
                };
                let mut order: Vec<(f32, i32)> = among.iter().zip(0..).map(|(p, i)| (sq_dist(p), i)).collect();
                order.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
                (0..k).map(move |i| order.get(i).map_or(-1, |&(_, index)| index)).collect::<Vec<_>>()
            })
            .collect();
        on_devices(|name, device| {
            let found = knn_between(tensor(&queries, device), tensor(&among, device), k).unwrap();
            assert_eq!(int_values(found.index).unwrap(), expected, "{name}, {num_points} points");
        });
    }
    let none = knn_between(tensor(&points(3, 1.0, 1), &Device::flex()), Tensor::zeros([0, 3], &Device::flex()), 2);
    assert_eq!(int_values(none.unwrap().index).unwrap(), [-1; 6]);
    let wild = [[f32::NAN, 0.0, 0.0]];
    assert!(knn_between(tensor(&wild, &Device::flex()), tensor(&points(3, 1.0, 1), &Device::flex()), 1).is_err());
}

/// Looks along x from the origin: image x is world -y, image y is world -z.
const CAMERA: Camera = Camera {
    world_to_camera: [[0.0, -1.0, 0.0, 0.0], [0.0, 0.0, -1.0, 0.0], [1.0, 0.0, 0.0, 0.0]],
    focal: [50.0, 40.0],
    center: [40.0, 30.0],
    width: 80,
    height: 60,
};

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
    on_devices(|name, device| {
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
    on_devices(|name, device| {
        let depth = float_tensor(depth.clone(), [60, 80], device);
        let found = int_values(project(tensor(&at, device), depth, CAMERA, Visibility::default()).unwrap()).unwrap();
        for i in (0..at.len()).filter(|&i| sure[i]) {
            assert_eq!(found[i], expected[i], "{name}, point {:?}", at[i]);
        }
    });
}

#[test]
fn fusions_equal_the_definition() {
    for (num_views, num_points, num_queries, num_labels) in [(1, 70, 3, 2), (5, 200, 7, 4), (12, 65, 20, 1)] {
        let mut random = Random(8);
        let query: Vec<i32> =
            (0..num_views * num_points).map(|_| random.below(2 * num_queries) as i32 - num_queries as i32).collect();
        let query: Vec<i32> = query.into_iter().map(|q| q.max(-1)).collect();
        let logits: Vec<f32> = random.floats(num_views * num_queries * num_labels).iter().map(|x| 5.0 * x).collect();
        let logit = |v: usize, q: i32, label: usize| logits[(v * num_queries + q as usize) * num_labels + label];
        let (mut consensus, mut view, mut weights) = (Vec::new(), Vec::new(), Vec::new());
        for point in 0..num_points {
            let seen: Vec<(usize, i32)> =
                (0..num_views).map(|v| (v, query[v * num_points + point])).filter(|s| s.1 >= 0).collect();
            let total = |label: usize| seen.iter().map(|&(v, q)| f64::from(logit(v, q, label))).sum::<f64>();
            let best = (0..num_labels).max_by(|&a, &b| total(a).total_cmp(&total(b))).unwrap();
            consensus.push(if seen.is_empty() { -1 } else { best as i32 });
            let mut order: Vec<(f32, usize)> = seen.iter().map(|&(v, q)| (logit(v, q, best), v)).collect();
            order.sort_by(|a, b| b.0.total_cmp(&a.0));
            order.truncate(3);
            let sum: f64 = order.iter().map(|o| f64::from(o.0).exp()).sum();
            for i in 0..3 {
                view.push(order.get(i).map_or(-1, |o| o.1 as i32));
                weights.push(order.get(i).map_or(0.0, |o| (f64::from(o.0).exp() / sum) as f32));
            }
        }
        assert!(consensus.contains(&-1) || num_views > 5);
        on_devices(|name, device| {
            let query = int_tensor(query.clone(), [num_views, num_points], device);
            let logits = float_tensor(logits.clone(), [num_views, num_queries, num_labels], device);
            let found = fuse_views(query, logits).unwrap();
            assert_eq!(int_values(found.consensus).unwrap(), consensus, "{name}");
            assert_eq!(int_values(found.view).unwrap(), view, "{name}");
            assert!(rel_l2(&float_values(found.weights).unwrap(), &weights) < 2e-6, "{name}");
        });
    }
    let device = Device::flex();
    let error = fuse_views(int_tensor(vec![7], [1, 1], &device), Tensor::zeros([1, 3, 2], &device)).unwrap_err();
    assert_eq!(error.to_string(), "fuse_views: query 7, expected at most 3 - 1");
}

/// A view whose left half has query 0, whose right half has none.
fn half_view(num_queries: usize) -> View {
    View {
        size: [60, 80],
        query_from_pixel: (0..60 * 80).map(|i| if i % 80 < 40 { 0 } else { NO_QUERY }).collect(),
        embeddings: (0..num_queries * 2).map(|i| i as f32 + 1.0).collect(),
        logits: (0..num_queries * 3).map(|i| i as f32).collect(),
        num_labels: 3,
    }
}

#[test]
fn points_without_a_query_or_a_view_take_the_nearest() {
    on_devices(|name, device| {
        // Left and right of the middle in sight, and one behind the camera, nearest to the right one.
        let at = vec![[2.0, 0.3, 0.0], [2.0, -0.3, 0.0], [-2.0, -0.4, 0.0]];
        let mut lifter = Lifter::new(at, Visibility::default(), device);
        let sight = lifter.see(CAMERA, &vec![2.0; 60 * 80]).unwrap();
        assert_eq!(sight.num_visible, 2, "{name}");
        let report = lifter.add(&sight, &half_view(2)).unwrap();
        assert_eq!((report.num_visible, report.num_filled), (2, 1), "{name}");
        assert_eq!(lifter.query_from_point(0), [Some(0), Some(0), None], "{name}");
        let lifted = lifter.finish().unwrap();
        assert_eq!((lifted.consensus.clone(), lifted.num_unseen), (vec![2, 2, -1], 1), "{name}");
        assert_eq!(lifted.num_views_of_point, [1, 1, 0], "{name}");
        assert_eq!(lifted.read(0..2).unwrap(), [1.0, 2.0, 1.0, 2.0, 1.0, 2.0], "{name}");
        assert_eq!(lifted.read(1..2).unwrap(), [2.0, 2.0, 2.0], "{name}");
    });
}

#[test]
fn views_that_do_not_fit_are_refused_or_add_nothing() {
    let device = Device::flex();
    let mut lifter = Lifter::new(vec![[2.0, 0.3, 0.0], [2.0, -0.3, 0.0]], Visibility::default(), &device);
    let error = lifter.see(CAMERA, &[1.0; 7]).unwrap_err();
    assert_eq!(error.to_string(), "the depth map has 7 pixels, the camera 80 x 60");
    let sight = lifter.see(CAMERA, &vec![2.0; 60 * 80]).unwrap();
    let small = View { size: [6, 8], query_from_pixel: vec![0; 48], ..half_view(2) };
    assert!(lifter.add(&sight, &small).unwrap_err().to_string().starts_with("the view has 48 pixels"));
    // A view in which no query claims anything.
    let empty = View { query_from_pixel: vec![NO_QUERY; 60 * 80], ..half_view(2) };
    assert_eq!(lifter.add(&sight, &empty).unwrap().num_filled, 0);
    assert_eq!(lifter.num_views(), 0);
    lifter.add(&sight, &half_view(2)).unwrap();
    let error = lifter.add(&sight, &half_view(3)).unwrap_err();
    assert_eq!(error.to_string(), "a view of [3, 2, 3] queries, channels and labels after one of [2, 2, 3]");

    let lifter = Lifter::new(vec![[2.0, 0.3, 0.0]], Visibility::default(), &device);
    let error = lifter.finish().unwrap_err();
    assert!(error.to_string().contains("none of the 0 views sees any of the 1 points"), "{error}");
}
