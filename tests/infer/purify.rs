//! The whole stage: pieces against the whole, devices against the host, and what it refuses.

use std::path::Path;

use burn::tensor::Device;
use geopurify::gpu::{Limits, with_limits};
use geopurify::models::student::{AffinityPredictor, Student, StudentConfig};
use geopurify::ops::float_values;
use geopurify::ops::voxel_grid::QuantizeError;
use geopurify::purify::{
    Affinities, ColorNormal, Graph, MemoryFeatures, Purified, PurifyError, Scan, Settings, purify, voxel_means,
};
use geopurify::stages::StageTimer;
use geopurify::weights::read_state_dict;

use crate::common::{Random, devices, rel_l2};

/// Semantic channels of the small student in the golden cases.
const CHANNELS: usize = 16;

/// Points of two walls and a floor, several to a voxel in places, with features and colours.
struct Room {
    positions: Vec<[f64; 3]>,
    colors: Vec<[u8; 3]>,
    normals: Vec<[f32; 3]>,
    features: MemoryFeatures,
}

fn room(num_points: usize) -> Room {
    let mut random = Random(21);
    let mut unit = || f64::from(random.signed()) / 2.0 + 0.5;
    let (mut positions, mut normals) = (Vec::new(), Vec::new());
    for i in 0..num_points {
        let (a, b) = (unit() * 1.5, unit() * 1.5);
        // Far from the origin, as surveyed scans are.
        let at = |p: [f64; 3]| [p[0] + 431_000.25, p[1] + 5_412_000.5, p[2] + 120.0];
        positions.push(at([[a, b, 0.0], [a, 0.0, b], [0.0, a, b]][i % 3]));
        normals.push([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]][i % 3]);
    }
    let colors = (0..num_points).map(|i| [(i % 3 * 100) as u8, (i % 251) as u8, 30]).collect();
    let features = MemoryFeatures { values: Random(22).floats(num_points * CHANNELS), num_channels: CHANNELS };
    Room { positions, colors, normals, features }
}

fn student(device: &Device) -> (Student, StudentConfig) {
    let checkpoint = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/geopurify/student_tiny.pth");
    let (student, config, report) = AffinityPredictor::load(read_state_dict(&checkpoint).unwrap(), device).unwrap();
    assert!(report.is_complete(), "{report}");
    (student.fold(), config)
}

impl Room {
    fn scan(&self) -> Scan<'_> {
        Scan { positions: &self.positions, colors: Some(&self.colors), normals: Some(&self.normals) }
    }

    fn purify(&self, scan: Scan<'_>, settings: Settings, device: &Device) -> Result<Purified, PurifyError> {
        let (student, config) = student(device);
        let affinities = Affinities::Learned { student: &student, config };
        purify(scan, &self.features, affinities, settings, device, &mut StageTimer::default())
    }
}

#[test]
fn pieces_equal_the_whole_on_every_device() {
    let room = room(6000);
    let whole = room.purify(room.scan(), Settings::default(), &Device::flex()).unwrap();
    let num_voxels = whole.coords.len();
    assert!((2000..6000).contains(&num_voxels), "{num_voxels} voxels");
    assert_eq!((whole.report.num_points, whole.report.num_voxels, whole.report.num_tiles), (6000, num_voxels, 1));
    assert_eq!(whole.features.len(), num_voxels * CHANNELS);
    assert!(whole.report.max_row_sum_error < 1e-5, "{}", whole.report.max_row_sum_error);

    for (name, device) in devices() {
        let on_device = room.purify(room.scan(), Settings::default(), &device).unwrap();
        // Tiles of some 900 voxels, a channel or two at a time.
        let working_bytes = 16 * num_voxels * 2;
        let small = Settings { working_bytes, ..Settings::default() };
        let tiled = room.purify(room.scan(), small, &device).unwrap();
        assert!(tiled.report.num_tiles > 3, "{name}: {} tiles", tiled.report.num_tiles);
        // As on a device that can bind little: the points do not fit, nor does the embedding; tiles, rows of
        // A and channels come in several parts.
        let limits = Limits { max_binding_bytes: num_voxels as u64 * 16, max_workgroups: 40 };
        let limited = with_limits(limits, || room.purify(room.scan(), Settings::default(), &device)).unwrap();
        assert!(limited.report.num_tiles > 3, "{name}: {} tiles", limited.report.num_tiles);
        for (what, found) in [("whole", &on_device), ("tiled", &tiled), ("limited", &limited)] {
            assert_eq!(found.coords, whole.coords, "{name}, {what}");
            assert_eq!(found.voxel_from_point, whole.voxel_from_point, "{name}, {what}");
            assert!(found.report.max_row_sum_error < 1e-5, "{name}, {what}");
            let difference = rel_l2(&found.features, &whole.features);
            assert!(difference < 1e-5, "{name}, {what}: {difference:e}");
        }
    }
}

#[test]
fn every_point_lies_in_its_voxel() {
    let room = room(3000);
    let purified = room.purify(room.scan(), Settings::default(), &Device::flex()).unwrap();
    let least = |axis: usize| room.positions.iter().map(|p| (p[axis] * 50.0).floor()).fold(f64::INFINITY, f64::min);
    let least = [least(0), least(1), least(2)];
    for (p, &voxel) in room.positions.iter().zip(&purified.voxel_from_point) {
        let cell = [0, 1, 2].map(|axis| ((p[axis] * 50.0).floor() - least[axis]) as i32);
        assert_eq!(purified.coords[voxel as usize], cell);
    }
}

#[test]
fn pooling_averages_within_the_range_of_the_input() {
    // Constant features stay constant: the rows of A sum to 1, nothing leaks from the geometry channels.
    let mut room = room(2000);
    room.features.values.fill(0.75);
    for (name, device) in devices() {
        let purified = room.purify(room.scan(), Settings::default(), &device).unwrap();
        let farthest = purified.features.iter().map(|v| (v - 0.75).abs()).fold(0.0, f32::max);
        assert!(farthest < 1e-4, "{name}: {farthest}");
    }
}

#[test]
fn what_a_scan_lacks_is_made_up_and_said() {
    let room = room(2000);
    let bare = Scan { colors: None, normals: None, ..room.scan() };
    for (name, device) in devices() {
        let notes = room.purify(bare, Settings::default(), &device).unwrap().report.notes;
        assert_eq!(
            notes,
            ["no normals: estimated from 30 neighbours, turned upwards", "no colours: grey is assumed"],
            "{name}"
        );
        assert!(room.purify(room.scan(), Settings::default(), &device).unwrap().report.notes.is_empty(), "{name}");
    }
}

#[test]
fn one_point_keeps_its_features() {
    let mut room = room(1);
    room.features.values = (0..CHANNELS).map(|c| c as f32).collect();
    for (name, device) in devices() {
        let purified = room.purify(room.scan(), Settings::default(), &device).unwrap();
        assert_eq!(purified.features, room.features.values, "{name}");
        assert_eq!((purified.voxel_from_point, purified.coords), (vec![0], vec![[0; 3]]), "{name}");
        assert_eq!(purified.report.max_row_sum_error, 0.0, "{name}: a voxel alone has no row");
    }
}

#[test]
fn input_that_does_not_fit_together_is_refused() {
    let device = Device::flex();
    let mut room = room(10);
    let run = |room: &Room, settings| room.purify(room.scan(), settings, &device).unwrap_err().to_string();
    for (settings, message) in [
        (Settings { voxel_size: 0.0, ..Settings::default() }, "voxel size is 0, expected a length above 0"),
        (Settings { neighbors: 129, ..Settings::default() }, "neighbors is 129, expected 1 to 128"),
        (Settings { sharpness: f32::NAN, ..Settings::default() }, "sharpness is NaN, expected a finite number"),
    ] {
        assert_eq!(run(&room, settings), message);
    }
    let empty = Scan { positions: &[], colors: None, normals: None };
    assert!(matches!(room.purify(empty, Settings::default(), &device), Err(PurifyError::Empty)));

    room.features.values.truncate(9 * CHANNELS);
    assert_eq!(
        run(&room, Settings::default()),
        "features have 9 rows, the scan has 10 points: one row per point, in the scan's order"
    );
    room.features = MemoryFeatures { values: vec![0.0; 10 * 15], num_channels: 15 };
    assert_eq!(
        run(&room, Settings::default()),
        "features have 15 channels, the student takes 22: 16 semantic ones, colour and normal"
    );
    room.features = MemoryFeatures { values: vec![0.0; 10 * CHANNELS], num_channels: CHANNELS };
    room.positions[3][1] = f64::NAN;
    let error = room.purify(room.scan(), Settings::default(), &device).unwrap_err();
    assert!(matches!(error, PurifyError::Quantize(QuantizeError::NotFinite { index: 3, .. })), "{error}");
    room.positions[3][1] = 1e12;
    let error = room.purify(room.scan(), Settings::default(), &device).unwrap_err();
    assert!(matches!(error, PurifyError::Quantize(QuantizeError::TooFar { axis: 1, .. })), "{error}");
}

/// Means over points of each voxel of `values [N][C]`.
fn means_of_voxels(values: &[Vec<f64>], voxel_from_point: &[i32], num_voxels: usize) -> Vec<Vec<f64>> {
    let mut sums = vec![vec![0.0; values[0].len()]; num_voxels];
    let mut counts = vec![0.0; num_voxels];
    for (row, &voxel) in values.iter().zip(voxel_from_point) {
        sums[voxel as usize].iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
        counts[voxel as usize] += 1.0;
    }
    for (row, count) in sums.iter_mut().zip(&counts) {
        row.iter_mut().for_each(|value| *value /= count);
    }
    sums
}

#[test]
fn baselines_are_means_of_neighbours_by_their_definitions() {
    const K: usize = 12;
    let room = room(600);
    let settings = Settings { neighbors: K, iterations: 1, ..Settings::default() };
    let run = |affinities: Affinities<'_>, settings: Settings, device: &Device| {
        purify(room.scan(), &room.features, affinities, settings, device, &mut StageTimer::default())
    };
    let before = run(Affinities::Uniform, Settings { iterations: 0, ..settings }, &Device::flex()).unwrap();
    let num_voxels = before.coords.len();
    let features: Vec<Vec<f64>> = room
        .features
        .values
        .chunks_exact(CHANNELS)
        .map(|row| row.iter().map(|&value| f64::from(value)).collect())
        .collect();
    let features = means_of_voxels(&features, &before.voxel_from_point, num_voxels);
    let geometry: Vec<Vec<f64>> = room
        .colors
        .iter()
        .zip(&room.normals)
        .map(|(color, normal)| {
            color.iter().map(|&c| f64::from(c) / 255.0).chain(normal.iter().map(|&n| f64::from(n))).collect()
        })
        .collect();
    let geometry = means_of_voxels(&geometry, &before.voxel_from_point, num_voxels);
    let flat: Vec<f32> = features.iter().flatten().map(|&value| value as f32).collect();
    assert!(rel_l2(&before.features, &flat) < 1e-6);

    let kernel = ColorNormal { color_sigma: 0.15, normal_scale: 0.3 };
    let color_normal = |a: usize, b: usize| {
        let (a, b) = (&geometry[a], &geometry[b]);
        let color: f64 = (0..3).map(|i| (a[i] - b[i]).powi(2)).sum();
        let length = |n: &[f64]| n[3..].iter().map(|x| x * x).sum::<f64>().sqrt();
        let cosine = (3..6).map(|i| a[i] * b[i]).sum::<f64>() / (length(a) * length(b));
        let (sigma, scale) = (f64::from(kernel.color_sigma), f64::from(kernel.normal_scale));
        (-color / (2.0 * sigma * sigma) - (1.0 - cosine.abs()) / scale).exp()
    };
    let expected = |weight: &dyn Fn(usize, usize) -> f64| -> Vec<f32> {
        let mut pooled = Vec::new();
        for voxel in 0..num_voxels {
            let distance = |other: usize| -> i32 {
                (0..3).map(|axis| (before.coords[voxel][axis] - before.coords[other][axis]).pow(2)).sum()
            };
            let mut others: Vec<usize> = (0..num_voxels).filter(|&other| other != voxel).collect();
            others.sort_by_key(|&other| (distance(other), other));
            others.truncate(K);
            let total: f64 = others.iter().map(|&other| weight(voxel, other)).sum();
            pooled.extend((0..CHANNELS).map(|c| {
                others.iter().map(|&other| weight(voxel, other) / total * features[other][c]).sum::<f64>() as f32
            }));
        }
        pooled
    };
    for (name, device) in devices() {
        for (affinities, weight) in [
            (Affinities::Uniform, &(|_, _| 1.0) as &dyn Fn(usize, usize) -> f64),
            (Affinities::ColorNormal(kernel), &color_normal),
        ] {
            let found = run(affinities, settings, &device).unwrap();
            let difference = rel_l2(&found.features, &expected(weight));
            assert!(difference < 1e-5, "{name}, {affinities:?}: {difference:e}");
            assert!(found.report.max_row_sum_error < 1e-5 && found.report.num_tiles == 0, "{name}");
            // As on a device that can bind little.
            let limits = Limits { max_binding_bytes: num_voxels as u64 * 16, max_workgroups: 40 };
            let limited = with_limits(limits, || run(affinities, settings, &device)).unwrap();
            assert!(rel_l2(&limited.features, &found.features) < 1e-5, "{name}");
        }
    }
    let wrong = ColorNormal { color_sigma: 0.0, ..kernel };
    let message = run(Affinities::ColorNormal(wrong), settings, &Device::flex()).unwrap_err().to_string();
    assert_eq!(message, "colour sigma is 0, expected a number above 0");
}

#[test]
fn combined_weights_are_products_of_both() {
    let room = room(600);
    let settings = Settings { neighbors: 12, ..Settings::default() };
    let kernel = ColorNormal { color_sigma: 0.15, normal_scale: 0.3 };
    for (name, device) in devices() {
        let (student, config) = student(&device);
        let student = &student;
        let voxelized =
            voxel_means(&room.scan(), &room.features, settings, &device, &mut StageTimer::default()).unwrap();
        let graph = Graph::new(voxelized, CHANNELS, settings, &device).unwrap();
        let weights = |affinities: Affinities<'_>| {
            let rows = graph.rows(affinities, settings, &device).unwrap();
            rows.into_iter().flat_map(|rows| float_values(rows.weights).unwrap()).collect::<Vec<f32>>()
        };
        let learned = weights(Affinities::Learned { student, config });
        let alike = weights(Affinities::ColorNormal(kernel));
        let found = weights(Affinities::Combined { student, config, kernel });
        let mut expected: Vec<f32> = learned.iter().zip(&alike).map(|(a, b)| a * b).collect();
        for row in expected.chunks_exact_mut(12) {
            let sum: f32 = row.iter().sum();
            row.iter_mut().for_each(|weight| *weight /= sum);
        }
        assert!(rel_l2(&found, &expected) < 1e-6, "{name}");
        assert!(rel_l2(&found, &learned) > 0.1 && rel_l2(&found, &alike) > 0.1, "{name}");
        let affinities = Affinities::Combined { student, config, kernel };
        let run = || purify(room.scan(), &room.features, affinities, settings, &device, &mut StageTimer::default());
        let whole = run().unwrap();
        let num_voxels = whole.coords.len();
        assert!(whole.report.max_row_sum_error < 1e-5 && whole.report.num_tiles == 1, "{name}");
        let limits = Limits { max_binding_bytes: num_voxels as u64 * 32, max_workgroups: 40 };
        assert!(rel_l2(&with_limits(limits, run).unwrap().features, &whole.features) < 1e-5, "{name}");
    }
}
