//! Lifting beyond the golden cases: its operations against definitions and twins on every device, and what it does with
//! views that do not fit.

mod common;

use burn::prelude::*;
use burn::tensor::Device;
use common::{Random, devices, rel_l2};
use geopurify::gpu::{Limits, with_limits};
use geopurify::lift::{LiftError, Lifted, Lifter, View};
use geopurify::ops::bicubic_antialias::bicubic_antialias;
use geopurify::ops::compact::compact;
use geopurify::ops::fuse_views::fuse_views;
use geopurify::ops::gather_index::gather_index;
use geopurify::ops::knn::knn_between;
use geopurify::ops::pixel_queries::{Sizes, pixel_queries};
use geopurify::ops::project::{Camera, Visibility, project, project_unhidden};
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
    for (num_views, num_points, num_queries, num_labels) in
        [(1, 70, 3, 2), (5, 200, 7, 5), (12, 65, 20, 1), (9000, 2, 2, 17)]
    {
        let mut random = Random(8);
        let query: Vec<i32> =
            (0..num_views * num_points).map(|_| random.below(2 * num_queries) as i32 - num_queries as i32).collect();
        let query: Vec<i32> = query.into_iter().map(|q| q.max(-1)).collect();
        let logits: Vec<f32> = random.floats(num_views * num_queries * num_labels).iter().map(|x| 5.0 * x).collect();
        let logit = |v: usize, q: i32, label: usize| logits[(v * num_queries + q as usize) * num_labels + label];
        let (mut consensus, mut count, mut row, mut weights) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for point in 0..num_points {
            let seen: Vec<(usize, i32)> =
                (0..num_views).map(|v| (v, query[v * num_points + point])).filter(|s| s.1 >= 0).collect();
            let total = |label: usize| seen.iter().map(|&(v, q)| f64::from(logit(v, q, label))).sum::<f64>();
            let best = (0..num_labels).max_by(|&a, &b| total(a).total_cmp(&total(b))).unwrap();
            consensus.push(if seen.is_empty() { -1 } else { best as i32 });
            count.push(seen.len() as i32);
            let mut order: Vec<(f32, i32)> =
                seen.iter().map(|&(v, q)| (logit(v, q, best), (v * num_queries) as i32 + q)).collect();
            order.sort_by(|a, b| b.0.total_cmp(&a.0));
            order.truncate(3);
            let sum: f64 = order.iter().map(|o| f64::from(o.0).exp()).sum();
            for i in 0..3 {
                row.push(order.get(i).map_or(-1, |o| o.1));
                weights.push(order.get(i).map_or(0.0, |o| (f64::from(o.0).exp() / sum) as f32));
            }
        }
        assert!(consensus.contains(&-1) || num_views > 5);
        on_devices(|name, device| {
            let of_table = |(i, &query): (usize, &i32)| match query {
                -1 => -1,
                query => (i / num_points * num_queries) as i32 + query,
            };
            let rows = query.iter().enumerate().map(of_table).collect();
            let rows = int_tensor(rows, [num_views, num_points], device);
            let logits = float_tensor(logits.clone(), [num_views * num_queries, num_labels], device);
            let found = fuse_views(rows, logits).unwrap();
            assert_eq!(int_values(found.consensus).unwrap(), consensus, "{name}");
            assert_eq!(int_values(found.num_views).unwrap(), count, "{name}");
            assert_eq!(int_values(found.row).unwrap(), row, "{name}");
            assert!(rel_l2(&float_values(found.weights).unwrap(), &weights) < 2e-6, "{name}");
        });
    }
    let device = Device::flex();
    let error = fuse_views(int_tensor(vec![7], [1, 1], &device), Tensor::zeros([3, 2], &device)).unwrap_err();
    assert_eq!(error.to_string(), "fuse_views: row 7, expected at most 3 - 1");
    assert!(fuse_views(int_tensor(vec![0], [1, 1], &device), Tensor::zeros([3, 0], &device)).is_err());
    let none = fuse_views(int_tensor(Vec::new(), [0, 2], &device), Tensor::zeros([0, 2], &device)).unwrap();
    assert_eq!(int_values(none.consensus).unwrap(), [-1; 2]);
}

#[test]
fn index_maps_compose_and_part() {
    for n in [0, 1, 255, 256, 257, 2048, 2049, 70_000] {
        let mut random = Random(n as u64);
        let index: Vec<i32> = (0..n).map(|_| random.below(900) as i32 - 300).collect();
        let map: Vec<i32> = (0..500).map(|_| random.below(100) as i32 - 30).collect();
        let composed: Vec<i32> = index
            .iter()
            .map(|&i| usize::try_from(i).ok().and_then(|i| map.get(i)).map_or(-1, |&c| c.max(-1)))
            .collect();
        let is_present = |&position: &usize| index[position] >= 0;
        let (present, absent): (Vec<usize>, Vec<usize>) = (0..n).compact(is_present);
        let order: Vec<i32> = present.iter().chain(&absent).map(|&position| position as i32).collect();
        on_devices(|name, device| {
            let index = int_tensor(index.clone(), [n], device);
            let found = gather_index(int_tensor(map.clone(), [500], device), index.clone()).unwrap();
            assert_eq!(int_values(found).unwrap(), composed, "{name}, {n}");
            let parted = compact(index).unwrap();
            assert_eq!(parted.num_present, present.len(), "{name}, {n}");
            assert_eq!(int_values(parted.position_from_place.clone()).unwrap(), order, "{name}, {n}");
            assert_eq!(int_values(parted.present()).unwrap(), order[..present.len()], "{name}, {n}");
            assert_eq!(int_values(parted.absent()).unwrap(), order[present.len()..], "{name}, {n}");
            let places = int_values(parted.place_from_position).unwrap();
            assert!(places.iter().zip(0..).all(|(&place, i)| order[place as usize] == i), "{name}, {n}");
        });
    }
    on_devices(|name, device| {
        let nowhere = gather_index(int_tensor(Vec::new(), [0], device), int_tensor(vec![0, -7, i32::MIN], [3], device));
        assert_eq!(int_values(nowhere.unwrap()).unwrap(), [-1; 3], "{name}");
        let all = compact(int_tensor(vec![4, 0], [2], device)).unwrap();
        assert_eq!((all.num_present, all.absent().dims()), (2, [0]), "{name}");
        let none = compact(int_tensor(vec![-1; 300], [300], device)).unwrap();
        assert_eq!((none.num_present, none.present().dims()), (0, [0]), "{name}");
    });
}

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
        on_devices(|name, device| {
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
    on_devices(|name, device| {
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

const SIZE: [usize; 2] = [60, 80];

/// A view whose left half has query 0, whose right half has none.
fn half_view(num_queries: usize, device: &Device) -> View {
    view(|i| if i % 80 < 40 { 0 } else { -1 }, num_queries, device)
}

/// Two channels and three labels.
fn view(query: impl Fn(usize) -> i32, num_queries: usize, device: &Device) -> View {
    let embeddings = (0..num_queries * 2).map(|i| i as f32 + 1.0).collect();
    let logits = (0..num_queries * 3).map(|i| i as f32).collect();
    let query_from_pixel = int_tensor((0..SIZE[0] * SIZE[1]).map(query).collect(), SIZE, device);
    View::from_parts(query_from_pixel, embeddings, logits, num_queries).unwrap()
}

#[test]
fn points_without_a_query_or_a_view_take_the_nearest() {
    on_devices(|name, device| {
        // Left and right of the middle in projection, and one behind the camera, nearest to the right one.
        let at = vec![[2.0, 0.3, 0.0], [2.0, -0.3, 0.0], [-2.0, -0.4, 0.0]];
        let mut lifter = Lifter::new(at, Visibility::default(), device);
        let projection = lifter.see(CAMERA, CAMERA, &vec![2.0; 60 * 80]).unwrap();
        assert_eq!(projection.num_visible(), 2, "{name}");
        let report = lifter.add(&projection, &half_view(2, device)).unwrap();
        assert_eq!((report.num_visible, report.num_filled), (2, 1), "{name}");
        assert_eq!(lifter.query_from_point(0).unwrap(), [Some(0), Some(0), None], "{name}");
        // Two bytes a point, and the one row that is used.
        assert_eq!(lifter.bytes_in_memory(), 3 * 2 + (2 + 3) * 4, "{name}");
        let lifted = lifter.finish().unwrap();
        assert_eq!((lifted.consensus.clone(), lifted.num_unseen), (vec![2, 2, -1], 1), "{name}");
        assert_eq!(lifted.num_views_of_point, [1, 1, 0], "{name}");
        assert_eq!(lifted.read(0..2).unwrap(), [1.0, 2.0, 1.0, 2.0, 1.0, 2.0], "{name}");
        assert_eq!(lifted.read(1..2).unwrap(), [2.0, 2.0, 2.0], "{name}");
    });
}

#[test]
fn a_depth_camera_of_its_own_says_only_what_is_hidden() {
    // The picture has twice as many pixels each way, and more at its upper and lower edge.
    let color = Camera { focal: [100.0, 80.0], center: [80.0, 80.0], width: 160, height: 160, ..CAMERA };
    let cases: [([f32; 3], i32); 8] = [
        ([2.0, 0.0, 0.0], 80 * 160 + 80),
        ([2.0, 0.4, 0.5], 60 * 160 + 60),
        // Within the border of the depth map, which counts, and of the picture, which does not.
        ([2.0, 1.4, 0.0], 80 * 160 + 10),
        ([2.0, 1.44, 0.0], -1),
        // In the picture, outside the depth map.
        ([2.0, 0.0, 1.6], -1),
        // Hidden, too near, behind both.
        ([2.3, 0.0, 0.0], -1),
        ([1.8, 0.0, 0.0], -1),
        ([-2.0, 0.0, 0.0], -1),
    ];
    let at: Vec<[f32; 3]> = cases.iter().map(|case| case.0).collect();
    let expected: Vec<i32> = cases.iter().map(|case| case.1).collect();
    on_devices(|name, device| {
        let lifter = Lifter::new(at.clone(), Visibility::default(), device);
        let projection = lifter.see(color, CAMERA, &vec![2.0; 60 * 80]).unwrap();
        assert_eq!(projection.pixel_from_point().unwrap(), expected, "{name}");
        assert_eq!(projection.num_visible(), 3, "{name}");
        let error = lifter.see(color, CAMERA, &vec![2.0; 160 * 160]).unwrap_err();
        assert_eq!(error.to_string(), "the depth map has 25600 pixels, the camera 80 x 60", "{name}");
        // Seen at any depth, but not from behind.
        let found = project_unhidden(tensor(&at, device), color, 10).unwrap();
        let unhidden = [12880, 9660, 12810, -1, 16 * 160 + 80, 12880, 12880, -1];
        assert_eq!(int_values(found).unwrap(), unhidden, "{name}");
    });
}

/// Six views of the same points, each with queries of its own.
fn six_views(budget: Option<u64>, device: &Device) -> Lifter {
    let at = points(900, 2.0, 3);
    let mut lifter = Lifter::new(at, Visibility { depth_tolerance: 0.6, ..Visibility::default() }, device);
    if let Some(budget) = budget {
        lifter = lifter.with_memory_budget(budget);
    }
    for v in 0..6 {
        let depth = vec![1.0 + 0.1 * v as f32; 60 * 80];
        let projection = lifter.see(CAMERA, CAMERA, &depth).unwrap();
        let pixels = |i: usize| if i % 7 == v { -1 } else { (i / 80 / 4 + v) as i32 };
        lifter.add(&projection, &view(pixels, 20 + v, device)).unwrap();
    }
    assert_eq!(lifter.num_views(), 6);
    lifter
}

fn all_of(lifted: &Lifted) -> (Vec<f32>, Vec<i32>, Vec<u32>, usize) {
    let features = lifted.read(0..lifted.num_channels()).unwrap();
    let (consensus, counts) = (lifted.consensus.clone(), lifted.num_views_of_point.clone());
    (features, consensus, counts, lifted.num_unseen)
}

#[test]
fn views_past_the_memory_budget_go_to_a_file_and_change_nothing() {
    on_devices(|name, device| {
        let lifter = six_views(None, device);
        assert_eq!(lifter.bytes_spilled(), 0, "{name}");
        let queries: Vec<_> = (0..6).map(|v| lifter.query_from_point(v).unwrap()).collect();
        let counts: Vec<usize> = queries.iter().map(|queries| queries.iter().flatten().count()).collect();
        assert!(counts.iter().all(|count| *count > 20), "{name}: {counts:?}");
        assert!(lifter.query_from_point(6).unwrap().is_empty(), "{name}");
        let whole = lifter.bytes_in_memory();
        let expected = all_of(&lifter.finish().unwrap());
        assert!(expected.3 > 0, "{name}: some points are seen by no view");
        // Nothing, about half, and all but the last in memory.
        for (budget, spilled) in [(0, 6..7), (whole / 2, 2..5), (whole - 1, 1..2)] {
            let lifter = six_views(Some(budget), device);
            let bytes = lifter.bytes_spilled();
            assert!(bytes.is_multiple_of(900 * 2) && spilled.contains(&(bytes / 900 / 2)), "{name}, {budget}: {bytes}");
            assert_eq!(bytes + lifter.bytes_in_memory(), whole, "{name}, {budget}");
            let found: Vec<_> = (0..6).map(|v| lifter.query_from_point(v).unwrap()).collect();
            assert_eq!(found, queries, "{name}");
            // With buffers that hold a few points of all views at a time as well.
            let limits = Limits { max_binding_bytes: 16_000, max_workgroups: 65_535 };
            let lifted = if budget == 0 { with_limits(limits, || lifter.finish()) } else { lifter.finish() };
            assert_eq!(all_of(&lifted.unwrap()), expected, "{name}, {budget}");
        }
    });
}

/// The folder of temporary files is that of the process, so this one starts itself anew with another.
#[cfg(unix)]
#[test]
fn a_temporary_file_that_cannot_be_written_is_named() {
    const MARK: &str = "GEOPURIFY_TEST_SPILL";
    if std::env::var_os(MARK).is_some() {
        let device = Device::flex();
        let mut lifter = Lifter::new(vec![[2.0, 0.3, 0.0]], Visibility::default(), &device).with_memory_budget(0);
        let projection = lifter.see(CAMERA, CAMERA, &vec![2.0; 60 * 80]).unwrap();
        let error = lifter.add(&projection, &half_view(2, &device)).unwrap_err();
        assert!(matches!(&error, LiftError::Spill { bytes: 2, .. }), "{error:?}");
        assert!(error.to_string().starts_with("2 bytes of views are past the memory budget"), "{error}");
        assert!(error.to_string().contains("/dev/null/nowhere"), "{error}");
        assert_eq!(lifter.num_views(), 0);
        return;
    }
    let status = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_temporary_file_that_cannot_be_written_is_named"])
        .env(MARK, "1")
        .env("TMPDIR", "/dev/null/nowhere")
        .output()
        .unwrap();
    assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stdout));
}

#[test]
fn views_that_do_not_fit_are_refused_or_add_nothing() {
    on_devices(|name, device| {
        let at = vec![[2.0, 0.3, 0.0], [2.0, -0.3, 0.0]];
        let mut lifter = Lifter::new(at, Visibility::default(), device);
        let error = lifter.see(CAMERA, CAMERA, &[1.0; 7]).unwrap_err();
        assert_eq!(error.to_string(), "the depth map has 7 pixels, the camera 80 x 60");
        let projection = lifter.see(CAMERA, CAMERA, &vec![2.0; 60 * 80]).unwrap();
        let small = View::from_parts(int_tensor(vec![0; 48], [6, 8], device), vec![1.0; 2], vec![1.0; 3], 1).unwrap();
        assert!(lifter.add(&projection, &small).unwrap_err().to_string().starts_with("the view has 48 pixels"));
        // Views in which no query claims anything, or no point is in projection.
        assert_eq!(lifter.add(&projection, &view(|_| -1, 2, device)).unwrap().num_filled, 0, "{name}");
        assert_eq!(lifter.add(&projection, &view(|_| -5, 0, device)).unwrap().num_visible, 2, "{name}");
        let dark = lifter.see(CAMERA, CAMERA, &vec![0.0; 60 * 80]).unwrap();
        assert_eq!(lifter.add(&dark, &half_view(2, device)).unwrap().num_visible, 0, "{name}");
        assert_eq!((lifter.num_views(), lifter.bytes_in_memory()), (0, 0), "{name}");
        lifter.add(&projection, &half_view(2, device)).unwrap();
        // Views may have different numbers of queries, but not of channels or labels.
        lifter.add(&projection, &half_view(3, device)).unwrap();
        let pixels = int_tensor(vec![0; 60 * 80], SIZE, device);
        let narrow = View::from_parts(pixels, vec![1.0; 1], vec![1.0; 3], 1).unwrap();
        let error = lifter.add(&projection, &narrow).unwrap_err();
        assert_eq!(error.to_string(), "a view has [1, 3] channels and labels, the first view has [2, 3]");
        let other = Lifter::new(vec![[2.0, 0.3, 0.0]], Visibility::default(), device);
        let projection = other.see(CAMERA, CAMERA, &vec![2.0; 60 * 80]).unwrap();
        let error = lifter.add(&projection, &half_view(2, device)).unwrap_err();
        assert_eq!(error.to_string(), "the projection is of 1 points, the scan has 2");
        assert_eq!(lifter.finish().unwrap().num_views_of_point, [2, 2], "{name}");

        let error = other.finish().unwrap_err();
        assert!(error.to_string().contains("none of the 0 views sees any of the 1 points"), "{error}");
        let mut empty = Lifter::new(Vec::new(), Visibility::default(), device);
        let projection = empty.see(CAMERA, CAMERA, &vec![2.0; 60 * 80]).unwrap();
        assert_eq!(empty.add(&projection, &half_view(2, device)).unwrap().num_visible, 0, "{name}");
        assert!(empty.finish().is_err(), "{name}");
    });
}
