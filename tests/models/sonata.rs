//! Sonata against itself in other forms, and `encode` as a user runs it.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use burn::prelude::*;
use burn::tensor::Device;
use geopurify::cloud::PointCloud;
use geopurify::gpu::{Limits, with_limits};
use geopurify::models::sonata::{Cloud, GRID_METRES, RowOrder, Sonata, SonataConfig, SonataError, transform};
use geopurify::ops::{OpError, float_tensor, float_values, int_tensor, int_values};
use geopurify::weights::{SafetensorsFile, read_state_dict};

use crate::common::{Random, devices, rel_l2};
use crate::weights::{tiny_sonata, weight_files};

/// The whole encoder in f32, with sums in another order.
const MODEL_ROUNDING: f64 = 2e-5;

fn coords(voxels: &[[i32; 4]], device: &Device) -> Tensor<2, Int> {
    int_tensor(voxels.as_flattened().to_vec(), [voxels.len(), 4], device)
}

// ---- the encoder ----

fn model(device: &Device) -> Sonata {
    let state = read_state_dict(&weight_files().sonata).unwrap();
    let (model, report) = Sonata::load(state, &tiny_sonata(), device).unwrap();
    assert!(report.is_complete(), "{report}");
    model
}

/// A floor and two walls, several points to a voxel.
struct Room {
    points: Vec<[f32; 3]>,
    colors: Vec<[f32; 3]>,
    normals: Vec<[f32; 3]>,
}

fn room(n: usize) -> Room {
    let mut random = Random(31);
    let mut unit = || random.signed() / 2.0 + 0.5;
    let (mut points, mut colors, mut normals) = (Vec::new(), Vec::new(), Vec::new());
    for i in 0..n {
        let (a, b) = (1.2 * unit(), 1.2 * unit());
        points.push([[a, b, 0.0], [a, 0.0, b], [0.0, a, b]][i % 3]);
        normals.push([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]][i % 3]);
        colors.push([(i % 3 * 100) as f32, 255.0 * unit(), 30.0]);
    }
    Room { points, colors, normals }
}

impl Room {
    fn cloud(&self) -> Cloud<'_> {
        Cloud { points: &self.points, colors: &self.colors, normals: &self.normals }
    }
}

#[test]
fn devices_and_runs_agree() {
    let room = room(9000);
    let host = model(&Device::flex()).encode(room.cloud()).unwrap();
    let expected = float_values(host.features.clone()).unwrap();
    assert_eq!(host.features.dims(), [host.cells.len(), 32 + 48 + 64]);
    assert_eq!(host.cell_from_point.len(), 9000);
    assert!(host.cells.len() > 300 && host.cells.is_sorted());
    for (name, device) in devices() {
        let model = model(&device);
        let [first, second] = [(); 2].map(|()| model.encode(room.cloud()).unwrap());
        assert_eq!((&first.cells, &first.cell_from_point), (&host.cells, &host.cell_from_point), "{name}");
        let [a, b] = [&first, &second].map(|encoded| float_values(encoded.features.clone()).unwrap());
        assert!(a.iter().zip(&b).all(|(a, b)| a.to_bits() == b.to_bits()), "{name}: two runs differ");
        let difference = rel_l2(&a, &expected);
        assert!(difference <= MODEL_ROUNDING, "{name}: {difference:e}");
    }
}

#[test]
fn a_point_has_its_cells_features() {
    let room = room(500);
    let encoded = model(&Device::flex()).encode(room.cloud()).unwrap();
    let rows = float_values(encoded.features.clone()).unwrap();
    let points = float_values(encoded.of_points()).unwrap();
    let channels = encoded.features.dims()[1];
    for (point, &cell) in encoded.cell_from_point.iter().enumerate() {
        let row = cell as usize * channels..(cell as usize + 1) * channels;
        assert_eq!(points[point * channels..][..channels], rows[row]);
        // The room begins at 0 in every axis but is centred in x and y, so cells count from its corner.
        let cell_edge = 4.0 * GRID_METRES;
        let z = (room.points[point][2] / cell_edge).floor() as i32;
        assert!((encoded.cells[cell as usize][2] - z).abs() <= 1);
    }
}

#[test]
fn neither_the_rows_order_nor_another_cloud_changes_the_features() {
    let room = room(6000);
    let device = Device::flex();
    let model = model(&device);
    let prepared = transform(room.cloud(), GRID_METRES, RowOrder::Hashed).unwrap();
    let forward = |rows: &[[i32; 4]], features: Vec<f32>| {
        let x = float_tensor(features, [rows.len(), 9], &device);
        let cells = model.forward(x, coords(rows, &device), &mut |_| ()).unwrap();
        let of_voxel = cells.features.select(0, cells.cell_from_voxel);
        (float_values(of_voxel).unwrap(), int_values(cells.coords).unwrap())
    };
    let voxels: Vec<[i32; 4]> = prepared.voxels.iter().map(|&[x, y, z]| [0, x, y, z]).collect();
    let features = prepared.features.as_flattened().to_vec();
    let (alone, cells) = forward(&voxels, features.clone());
    let reversed: Vec<[i32; 4]> = voxels.iter().rev().copied().collect();
    let (turned, same_cells) = forward(&reversed, prepared.features.iter().rev().flatten().copied().collect());
    let back: Vec<f32> = turned.chunks_exact(144).rev().flatten().copied().collect();
    assert_eq!(cells, same_cells);
    assert!(rel_l2(&back, &alone) <= MODEL_ROUNDING, "{:e}", rel_l2(&back, &alone));
    // Two copies as two clouds of one batch.
    let both: Vec<[i32; 4]> = [0, 1].iter().flat_map(|&b| voxels.iter().map(move |v| [b, v[1], v[2], v[3]])).collect();
    let (pair, _) = forward(&both, [features.clone(), features].concat());
    let (first, second) = pair.split_at(alone.len());
    assert!(rel_l2(first, &alone) <= MODEL_ROUNDING && rel_l2(second, &alone) <= MODEL_ROUNDING);
}

#[test]
fn the_first_point_of_a_voxel_stands_for_it() {
    let points = [[5.0, 5.0, 1.0], [5.009, 5.001, 1.001], [5.1, 5.3, 1.05], [5.0, 5.0, 1.03]];
    let colors = [[0.0, 51.0, 255.0], [9.0; 3], [102.0; 3], [255.0; 3]];
    let normals = [[0.0, 0.0, 1.0]; 4];
    for order in [RowOrder::Morton, RowOrder::Hashed] {
        let cloud = Cloud { points: &points, colors: &colors, normals: &normals };
        let found = transform(cloud, GRID_METRES, order).unwrap();
        assert_eq!((found.voxels.len(), found.point_from_voxel.len()), (3, 3));
        let of = |point: usize| found.voxel_from_point[point] as usize;
        assert_eq!(of(0), of(1));
        assert_eq!(found.point_from_voxel[of(1)], 0);
        assert_eq!(found.voxels[of(0)], [0; 3]);
        assert_eq!(found.voxels[of(2)], [5, 15, 2]);
        let row = found.features[of(0)];
        assert!((row[0] + 0.05).abs() < 1e-6 && (row[1] + 0.15).abs() < 1e-6 && row[2] == 0.0, "{row:?}");
        assert_eq!(row[3..], [0.0, 0.2, 1.0, 0.0, 0.0, 1.0]);
    }
}

#[test]
fn one_point_and_a_few_are_encoded() {
    let model = model(&Device::flex());
    for n in [1, 2, 7] {
        let room = room(n);
        let encoded = model.encode(room.cloud()).unwrap();
        assert!(float_values(encoded.features).unwrap().iter().all(|x| x.is_finite()));
        assert_eq!(encoded.cell_from_point.len(), n);
    }
}

#[test]
fn clouds_that_cannot_be_encoded_are_refused() {
    let model = model(&Device::flex());
    let refuse = |room: &Room| model.encode(room.cloud()).unwrap_err();
    assert!(matches!(refuse(&room(0)), SonataError::Empty));
    let mut far = room(10);
    far.points[3][1] = 2000.0;
    let error = refuse(&far);
    assert!(matches!(error, SonataError::TooFar { axis: 1, .. }), "{error}");
    assert!(error.to_string().contains("along axis 1"), "{error}");
    far.points[3][1] = f32::MAX;
    assert!(matches!(refuse(&far), SonataError::TooFar { axis: 1, .. }));
    far.points[3][1] = f32::NAN;
    assert!(matches!(refuse(&far), SonataError::NotFinite { index: 3, .. }));
    let mut short = room(10);
    short.normals.pop();
    assert_eq!(refuse(&short).to_string(), "9 normals for 10 points; expected one per point");
    for (name, device) in devices() {
        let device_model = self::model(&device);
        let small = Limits { max_binding_bytes: 20_000, max_workgroups: 65_535 };
        let error = with_limits(small, || device_model.encode(room(3000).cloud()).unwrap_err());
        assert!(matches!(error, SonataError::Op(OpError::TooLarge(_))), "{name}: {error}");
    }
}

#[test]
fn a_configuration_that_does_not_fit_is_refused() {
    let load = |config: &SonataConfig| {
        let state = read_state_dict(&weight_files().sonata).unwrap();
        Sonata::load(state, config, &Device::flex()).unwrap_err().to_string()
    };
    let rpe = SonataConfig { enable_rpe: true, ..tiny_sonata() };
    assert!(load(&rpe).contains("enable_rpe is true, expected false"));
    let deeper = SonataConfig { enc_depths: vec![1, 2, 1, 1, 1], ..tiny_sonata() };
    assert!(load(&deeper).contains("enc.enc1.block1"));
    let shallow = SonataConfig { enc_depths: vec![1; 3], ..tiny_sonata() };
    assert!(!load(&shallow).is_empty());
}

#[test]
fn encoders_of_few_stages_run() {
    let device = Device::flex();
    for stages in 1..=4 {
        let published = tiny_sonata();
        let config = SonataConfig {
            enc_depths: vec![1; stages],
            enc_channels: published.enc_channels[..stages].to_vec(),
            enc_num_head: published.enc_num_head[..stages].to_vec(),
            enc_patch_size: vec![64; stages],
            stride: vec![2; stages - 1],
            ..published
        };
        let mut state = read_state_dict(&weight_files().sonata).unwrap();
        state.tensors.retain(|key, _| (stages..5).all(|stage| !key.starts_with(&format!("enc.enc{stage}."))));
        let (model, _) = Sonata::load(state, &config, &device).unwrap();
        let encoded = model.encode(room(300).cloud()).unwrap();
        let first = stages.saturating_sub(3);
        let expected: usize = config.enc_channels[first..].iter().sum();
        assert_eq!((encoded.features.dims()[1], model.num_channels()), (expected, expected));
    }
}

// ---- the command ----

fn encode(arguments: &[&str]) -> Output {
    let files = weight_files();
    let mut command = Command::new(env!("CARGO_BIN_EXE_geopurify"));
    command.arg("encode").args(arguments).env("GEOPURIFY_DEVICE", "cpu");
    command.arg("--teacher").arg(&files.sonata).output().unwrap()
}

fn with_config<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    let config = weight_files().sonata_config.to_str().unwrap();
    [arguments, &["--teacher-config", config]].concat()
}

fn write_room(path: &Path, n: usize) {
    let room = room(n);
    let cloud = PointCloud {
        positions: room.points.iter().map(|p| p.map(f64::from)).collect(),
        colors: Some(room.colors.iter().map(|c| c.map(|v| v as u8)).collect()),
        normals: Some(room.normals),
        ..PointCloud::default()
    };
    cloud.write_ply(path, &[]).unwrap();
}

#[test]
fn a_scan_is_encoded_and_shown() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (scan, cells, points) = (at("room.ply"), at("cells.safetensors"), at("points.safetensors"));
    let (picture, colored) = (at("pca.png"), at("pca.ply"));
    write_room(Path::new(&scan), 5000);
    let usual = ["--up", "z", "--voxel", "0.02"];
    let drawn = ["--picture", &picture, "--colored", &colored, "--f32", "-v"];
    let output = encode(&with_config(&[&[scan.as_str(), "-o", &cells], &drawn[..], &usual].concat()));
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{err}");
    assert!(out.contains("stage 4") && out.contains("whole run") && out.contains("cells of 144 channels"), "{out}");

    let file = SafetensorsFile::open(&cells).unwrap();
    let features = file.tensor("features").unwrap();
    let [num_cells, channels] = *features.shape else { panic!("{:?}", features.shape) };
    let rows = features.to_f32().unwrap();
    let cell_from_point = file.tensor("cell_from_point").unwrap().to_i64().unwrap();
    assert_eq!((channels, cell_from_point.len()), (144, 5000));
    assert_eq!(file.tensor("cells").unwrap().shape, [num_cells, 3]);
    assert!(cell_from_point.iter().all(|&cell| (0..num_cells as i64).contains(&cell)));
    // The library says the same.
    let room = room(5000);
    let rounded: Vec<[f32; 3]> = room.colors.iter().map(|c| c.map(|v| f32::from(v as u8))).collect();
    let cloud = PointCloud::read(Path::new(&scan)).unwrap();
    let (_, centered) = cloud.centered();
    let cloud = Cloud { points: &centered, colors: &rounded, normals: &room.normals };
    let expected = float_values(model(&Device::flex()).encode(cloud).unwrap().features).unwrap();
    assert!(rel_l2(&rows, &expected) <= MODEL_ROUNDING, "{:e}", rel_l2(&rows, &expected));

    assert_eq!(PointCloud::read(Path::new(&colored)).unwrap().len(), 5000);
    let png = image::open(&picture).unwrap();
    assert!(png.width() > 1000 && png.height() > 400);

    let output = encode(&with_config(&[&[scan.as_str(), "-o", &points, "--per-point", "--json"], &usual[..]].concat()));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((json["points"].as_u64(), json["cells"].as_u64()), (Some(5000), Some(num_cells as u64)));
    let file = SafetensorsFile::open(&points).unwrap();
    let features = file.tensor("features").unwrap();
    assert_eq!(features.shape, [5000, 144]);
    let of_points = features.to_f32().unwrap();
    let gathered: Vec<f32> =
        cell_from_point.iter().flat_map(|&cell| rows[cell as usize * 144..][..144].to_vec()).collect();
    assert!(rel_l2(&of_points, &gathered) < 4e-4, "16 bits: {:e}", rel_l2(&of_points, &gathered));
    let names = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(names.into_iter().all(|name| !name.to_string_lossy().starts_with(".partial")));
}

#[test]
fn what_cannot_be_encoded_is_said_before_any_work() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (scan, out) = (at("room.ply"), at("out.safetensors"));
    write_room(Path::new(&scan), 50);
    let fail_with = |code: i32, arguments: &[&str]| {
        let output = encode(arguments);
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{err}");
        assert!(!err.contains("panicked") && !Path::new(&out).exists(), "{err}");
        err
    };
    let fail = |arguments: &[&str]| fail_with(1, arguments);
    assert!(fail(&[&scan, "-o", &out]).contains("--teacher-config FILE.json"));
    assert!(fail(&with_config(&[&scan, "-o", "/nowhere/out.safetensors"])).contains("no such folder"));
    let no_length = fail_with(2, &with_config(&[&scan, "-o", &out, "--voxel", "0"]));
    assert!(no_length.contains("'--voxel <VOXEL>': expected a number above 0"), "{no_length}");
    assert!(fail(&with_config(&[&scan, "-o", &out, "--voxel", "0.00001"])).contains("voxels of"));
    assert!(fail(&with_config(&[&at("none.ply"), "-o", &out])).contains("none.ply"));
    assert!(fail(&with_config(&[&scan, "-o", &scan])).contains("would replace the scan"));
    assert!(fail(&with_config(&[&scan, "-o", &out, "--picture", &out])).contains("replace another result"));
    assert!(fail(&with_config(&[&scan, "-o", &out, "--colored", &at("c.pcd")])).contains("PLY, LAS or LAZ"));
}
