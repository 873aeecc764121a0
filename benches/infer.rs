//! The whole road of `infer` on a made-up room, stage by stage, for two numbers of points and of views: all but X-Decoder at its
//! published widths, X-Decoder narrow, so that the rest can be seen beside it.
//!
//! `GEOPURIFY_DEVICE=cpu cargo bench --bench infer`. Prints seconds; what lies beside "x-decoder" should grow linearly.

#[path = "../tests/common/weights.rs"]
mod weights;

use anyhow::{Context, Result};
use geopurify::cloud::{PointCloud, Unit};
use geopurify::gpu::{DeviceSelection, select};
use geopurify::models::student::AffinityPredictor;
use geopurify::models::xdecoder::XDecoder;
use geopurify::ops::conv2d::Precision;
use geopurify::ops::project::Visibility;
use geopurify::pipeline::{
    Compat, Encoders, ImageModel, Models, Options, Scene, SceneViews, ViewOptions, Views, infer,
};
use geopurify::purify::{Affinities, Settings};
use geopurify::stages::{StageTimer, peak_memory};
use geopurify::views::render::Renderer;
use geopurify::views::virtual_cameras::VirtualCamera;
use geopurify::views::{Intrinsics, Pose, PoseConvention};
use geopurify::weights::WeightsFile;
use glam::{DMat3, DVec3};

/// Half the sides of the room, in metres: at 2 cm some 27,000 voxels, as a scan of 200,000 points has on a surface that
/// was seen several times.
const HALF: [f64; 3] = [0.95, 0.85, 0.6];

/// Points on the sides of the room, evenly by the sequence of multiples of two irrational numbers.
fn room(num_points: usize) -> PointCloud {
    let area = |axis: usize| HALF[(axis + 1) % 3] * HALF[(axis + 2) % 3];
    let total = area(0) + area(1) + area(2);
    let mut cloud = PointCloud { unit: Some(Unit::Metre), ..PointCloud::default() };
    let (mut colors, mut normals) = (Vec::new(), Vec::new());
    for axis in 0..3 {
        let count = (num_points as f64 * area(axis) / total) as usize;
        for i in 0..count {
            let (u, v) = ((i as f64 * 0.754_877_666).fract(), (i as f64 * 0.569_840_296).fract());
            let side = if i % 2 == 0 { 1.0 } else { -1.0 };
            let mut p = [0.0; 3];
            p[axis] = side * HALF[axis];
            p[(axis + 1) % 3] = (2.0 * u - 1.0) * HALF[(axis + 1) % 3];
            p[(axis + 2) % 3] = (2.0 * v - 1.0) * HALF[(axis + 2) % 3];
            let mut normal = [0.0; 3];
            normal[axis] = -side as f32;
            colors.push(std::array::from_fn(|c| (128.0 + 90.0 * (5.0 * p[c] + axis as f64).sin()) as u8));
            cloud.positions.push(p);
            normals.push(normal);
        }
    }
    cloud.colors = Some(colors);
    cloud.normals = Some(normals);
    cloud
}

/// Cameras that look around from the middle of the room, up and down in turn.
fn cameras(count: usize) -> Result<Vec<VirtualCamera>> {
    let intrinsics = Intrinsics::new(648, 484, 500.0, 500.0, 323.5, 241.5)?;
    let camera = |i: usize| {
        let (yaw, pitch) = (i as f64 * 2.399_963, 0.5 * (i as f64 * 0.7).sin());
        let forward = DVec3::new(yaw.cos() * pitch.cos(), yaw.sin() * pitch.cos(), pitch.sin());
        let right = forward.cross(DVec3::Z).normalize();
        let rotation = DMat3::from_cols(right, forward.cross(right), forward);
        let pose = Pose::new(rotation, DVec3::new(0.1, -0.1, 0.05), PoseConvention::OPENCV_CAMERA_TO_WORLD)?;
        Ok(VirtualCamera { intrinsics, pose, near: 0.01 })
    };
    (0..count).map(camera).collect()
}

fn main() -> Result<()> {
    let selection: DeviceSelection = std::env::var("GEOPURIFY_DEVICE").unwrap_or_else(|_| "auto".into()).parse()?;
    let selected = select(selection)?;
    println!("device: {}", selected.name);
    let folder = tempfile::tempdir()?;
    let files = weights::narrow_weights(folder.path())?;
    let config = serde_json::from_slice(&std::fs::read(&files.config)?)?;
    let mut source = WeightsFile::open(&files.xdecoder)?;
    let (xdecoder, _) = XDecoder::load(&mut source, config, Precision::F32, &selected.device)?;
    let (predictor, student_config, _) = AffinityPredictor::load(WeightsFile::open(&files.student)?, &selected.device)?;
    let student = predictor.fold();
    let words = ["wall", "floor", "ceiling", "table", "chair", "lamp", "box", "door"].map(str::to_owned);
    let text = xdecoder.embed_text(&words)?;
    let affinities = Affinities::Learned { student: &student, config: student_config };
    let models = Models {
        encoders: Encoders::Views(ImageModel::XDecoder(&xdecoder)),
        affinities,
        text: &text,
        num_labels: words.len(),
    };
    let views = ViewOptions {
        compat: Compat::Fixed,
        longest: 648,
        visibility: Visibility::default(),
        most_visible: usize::MAX,
        working_bytes: 1 << 30,
    };
    let options = Options { views, turn: DMat3::IDENTITY, purify: Settings::default(), threshold: None };
    for (num_points, num_views) in [(100_000, 100), (200_000, 50), (200_000, 100)] {
        let scene = Scene::new(room(num_points), None)?;
        let mut timer = StageTimer::default();
        let appearance = scene.appearance(DVec3::Z);
        let renderer = Renderer::new(&appearance.of(&scene), &selected.device)?;
        timer.lap("radii");
        let cameras = cameras(num_views)?;
        let input = SceneViews { scene: &scene, views: Views::Virtual(&cameras), renderer: &renderer };
        let inferred = infer(input, &models, &options, &selected.device, &mut timer, &mut |_| Ok(()))
            .context("the room is seen")?;
        println!(
            "\n{} points, {} voxels, {} views",
            scene.num_points(),
            inferred.purified.coords.len(),
            inferred.views.looked_at
        );
        let mut rest = 0.0;
        for stage in timer.stages() {
            println!("  {:14} {:8.3} s", stage.name, stage.seconds);
            rest += if stage.name == "x-decoder" { 0.0 } else { stage.seconds };
        }
        let peak = peak_memory()
            .map_or(String::new(), |bytes| format!(", peak {:.2} GiB", bytes as f64 / (1_u64 << 30) as f64));
        println!("  all but x-decoder {rest:.2} s{peak}");
    }
    Ok(())
}
