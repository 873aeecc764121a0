//! `cargo run --release --example furnished_room [-- FOLDER [DEVICE]]` purifies a synthetic room whose
//! features are as noisy as lifted ones. It writes the inputs of `geopurify purify`, the result and a picture
//! into FOLDER (default `target/furnished_room`). The picture shows the features before, after, and the
//! truth.
//!
//! The student has random weights. So this shows the stage at work, not the quality of the method.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use geopurify::cloud::PointCloud;
use geopurify::gpu::{DeviceSelection, select};
use geopurify::models::student::{AffinityPredictor, StudentConfig};
use geopurify::purify::{Affinities, MemoryFeatures, Purified, Scan, Settings, purify};
use geopurify::stages::StageTimer;
use geopurify::weights::{Dtype, SafetensorsWriter, TensorSpec, read_state_dict};

const CHANNELS: usize = 512;

/// Name and colour of every class.
const CLASSES: [(&str, [u8; 3]); 6] = [
    ("floor", [150, 120, 95]),
    ("wall", [205, 205, 190]),
    ("table", [190, 120, 50]),
    ("sofa", [70, 95, 160]),
    ("shelf", [110, 70, 60]),
    ("ball", [200, 60, 60]),
];

/// SplitMix64 random numbers.
struct Random(u64);

impl Random {
    /// Returns a uniform number in 0..1.
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Returns a uniform number in -1..1.
    fn signed(&mut self) -> f64 {
        2.0 * self.unit() - 1.0
    }
}

/// A sampled room, with one entry per point.
#[derive(Default)]
struct Room {
    positions: Vec<[f64; 3]>,
    normals: Vec<[f32; 3]>,
    colors: Vec<[u8; 3]>,
    classes: Vec<usize>,
}

impl Room {
    fn point(&mut self, random: &mut Random, position: [f64; 3], normal: [f64; 3], class: usize) {
        self.positions.push(position.map(|v| v + 0.002 * random.signed()));
        self.normals.push(normal.map(|v| v as f32));
        let shade = 12.0 * random.signed();
        self.colors.push(CLASSES[class].1.map(|c| (f64::from(c) + shade).clamp(0.0, 255.0) as u8));
        self.classes.push(class);
    }

    /// Adds the face of a box that lies across `axis` at `at`, over the other two axes of the box.
    fn face(&mut self, random: &mut Random, min: [f64; 3], max: [f64; 3], axis: usize, outward: f64, class: usize) {
        let (u, v) = ((axis + 1) % 3, (axis + 2) % 3);
        let steps = |i: usize| ((max[i] - min[i]) / 0.018).ceil() as usize;
        for a in 0..steps(u) {
            for b in 0..steps(v) {
                let mut p = [0.0; 3];
                p[axis] = if outward > 0.0 { max[axis] } else { min[axis] };
                p[u] = min[u] + (a as f64 + 0.5) / steps(u) as f64 * (max[u] - min[u]);
                p[v] = min[v] + (b as f64 + 0.5) / steps(v) as f64 * (max[v] - min[v]);
                let mut normal = [0.0; 3];
                normal[axis] = outward;
                self.point(random, p, normal, class);
            }
        }
    }

    /// Adds a box without its bottom.
    fn block(&mut self, random: &mut Random, min: [f64; 3], max: [f64; 3], class: usize) {
        for axis in 0..3 {
            self.face(random, min, max, axis, 1.0, class);
            if axis < 2 {
                self.face(random, min, max, axis, -1.0, class);
            }
        }
    }

    fn furnished(random: &mut Random) -> Self {
        let mut room = Self::default();
        let (x, y, z) = (2.4, 2.0, 1.1);
        room.face(random, [0.0; 3], [x, y, 0.0], 2, 1.0, 0);
        room.face(random, [0.0; 3], [0.0, y, z], 0, 1.0, 1);
        room.face(random, [0.0; 3], [x, 0.0, z], 1, 1.0, 1);
        room.block(random, [1.2, 1.0, 0.42], [2.0, 1.55, 0.46], 2);
        for (a, b) in [(1.24, 1.04), (1.92, 1.04), (1.24, 1.47), (1.92, 1.47)] {
            room.block(random, [a, b, 0.0], [a + 0.04, b + 0.04, 0.42], 2);
        }
        room.block(random, [0.9, 0.05, 0.0], [2.1, 0.6, 0.3], 3);
        room.block(random, [0.9, 0.05, 0.3], [2.1, 0.2, 0.6], 3);
        room.block(random, [0.02, 0.8, 0.0], [0.3, 1.7, 0.9], 4);
        let (center, radius) = ([0.75, 1.3, 0.17], 0.17);
        for i in 0..900 {
            // Fibonacci lattice on a sphere.
            let height = 1.0 - 2.0 * (f64::from(i) + 0.5) / 900.0;
            let angle = f64::from(i) * 2.399_963;
            let around = (1.0 - height * height).sqrt();
            let normal = [around * angle.cos(), around * angle.sin(), height];
            let p = [0, 1, 2].map(|axis| center[axis] + radius * normal[axis]);
            room.point(random, p, normal, 5);
        }
        room
    }
}

fn normalized(mut v: Vec<f32>) -> Vec<f32> {
    let norm = v.iter().map(|c| c * c).sum::<f32>().sqrt();
    v.iter_mut().for_each(|c| *c /= norm);
    v
}

/// Returns one unit direction per class, in place of text embeddings.
fn class_embeddings(random: &mut Random) -> Vec<Vec<f32>> {
    CLASSES.iter().map(|_| normalized((0..CHANNELS).map(|_| random.signed() as f32).collect())).collect()
}

/// Returns features like lifted ones: patches taken from another class, and noise on every point.
fn lifted(room: &Room, embeddings: &[Vec<f32>], random: &mut Random) -> MemoryFeatures {
    let mut wrong = std::collections::HashMap::new();
    let mut values = Vec::with_capacity(room.positions.len() * CHANNELS);
    for (p, &class) in room.positions.iter().zip(&room.classes) {
        let patch = p.map(|v| (v / 0.06) as i64);
        let drawn = *wrong.entry(patch).or_insert_with(|| match random.unit() < 0.35 {
            true => Some((random.unit() * CLASSES.len() as f64) as usize),
            false => None,
        });
        let embedding = &embeddings[drawn.unwrap_or(class)];
        values.extend(embedding.iter().map(|v| v + 0.06 * random.signed() as f32));
    }
    MemoryFeatures { values, num_channels: CHANNELS }
}

/// Returns the class with the closest embedding, for each row.
fn classify(features: &[f32], embeddings: &[Vec<f32>]) -> Vec<usize> {
    let score = |row: &[f32], e: &[f32]| row.iter().zip(e).map(|(a, b)| a * b).sum::<f32>();
    let best = |row: &[f32]| {
        (0..CLASSES.len()).max_by(|a, b| score(row, &embeddings[*a]).total_cmp(&score(row, &embeddings[*b])))
    };
    features.chunks_exact(CHANNELS).map(|row| best(row).unwrap_or(0)).collect()
}

/// Writes a student of the published width with random weights.
fn write_student(path: &Path, random: &mut Random) -> Result<()> {
    let keys = StudentConfig::PUBLISHED.keys();
    let specs: Vec<TensorSpec> =
        keys.iter().map(|(name, shape)| TensorSpec::new(name.clone(), Dtype::F32, shape.clone())).collect();
    let mut writer = SafetensorsWriter::create(path, &specs, &Default::default())?;
    for (name, shape) in &keys {
        let fan_in: usize = shape.iter().rev().skip(1).product();
        let scale = (3.0 / fan_in as f64).sqrt();
        let value: Box<dyn FnMut() -> f32> = if name.ends_with("kernel") {
            Box::new(|| (scale * random.signed()) as f32)
        } else if name.ends_with("bias") || name.ends_with("mean") {
            Box::new(|| 0.0)
        } else {
            Box::new(|| 1.0)
        };
        let values: Vec<f32> = std::iter::repeat_with(value).take(shape.iter().product()).collect();
        writer.write_f32(&values)?;
    }
    writer.finish()?;
    Ok(())
}

fn write_scan(path: &Path, room: &Room) -> Result<()> {
    let mut out = BufWriter::new(File::create(path)?);
    writeln!(out, "ply\nformat ascii 1.0\nelement vertex {}", room.positions.len())?;
    for name in ["x", "y", "z", "nx", "ny", "nz"] {
        writeln!(out, "property float {name}")?;
    }
    for name in ["red", "green", "blue"] {
        writeln!(out, "property uchar {name}")?;
    }
    writeln!(out, "end_header")?;
    for ((p, n), c) in room.positions.iter().zip(&room.normals).zip(&room.colors) {
        let [x, y, z] = p.map(|v| v as f32);
        writeln!(out, "{x} {y} {z} {} {} {} {} {} {}", n[0], n[1], n[2], c[0], c[1], c[2])?;
    }
    out.flush()?;
    Ok(())
}

/// Draws the room once for each list of labels, side by side, seen from above the open corner.
fn write_picture(path: &Path, room: &Room, panels: &[Vec<usize>]) -> Result<()> {
    let (width, height, scale) = (640_usize, 560_usize, 195.0);
    let mut image = vec![255_u8; width * panels.len() * height * 3];
    for (panel, labels) in panels.iter().enumerate() {
        let mut nearest = vec![f64::INFINITY; width * height];
        for (i, p) in room.positions.iter().enumerate() {
            let (right, down) = ((p[1] - p[0]) * 0.71, (p[0] + p[1]) * 0.42 - p[2] * 0.85);
            let (u, v) = ((right * scale + 340.0) as i64, (down * scale + 190.0) as i64);
            // The camera looks from +x, +y, +z. Points farther along this direction are in front.
            let depth = -(p[0] + p[1] + 0.9 * p[2]);
            let light = 0.72 + 0.28 * f64::from(room.normals[i][2].abs()) - 0.1 * f64::from(room.normals[i][0].abs());
            let color = CLASSES[labels[i]].1.map(|c| (f64::from(c) * light) as u8);
            for (du, dv) in (-2..=2).flat_map(|du| (-2..=2).map(move |dv| (du, dv))) {
                let (u, v) = (u + du, v + dv);
                if (0..width as i64).contains(&u) && (0..height as i64).contains(&v) {
                    let (u, v) = (u as usize, v as usize);
                    if depth < nearest[v * width + u] {
                        nearest[v * width + u] = depth;
                        let at = (v * width * panels.len() + panel * width + u) * 3;
                        image[at..at + 3].copy_from_slice(&color);
                    }
                }
            }
        }
    }
    let mut file = BufWriter::new(File::create(path)?);
    writeln!(file, "P6 {} {height} 255", width * panels.len())?;
    file.write_all(&image)?;
    file.flush()?;
    Ok(())
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().map_or_else(|| PathBuf::from("target/furnished_room"), PathBuf::from);
    let device: DeviceSelection = arguments.next().as_deref().unwrap_or("auto").parse()?;
    std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let mut random = Random(2026);
    let room = Room::furnished(&mut random);
    let embeddings = class_embeddings(&mut random);
    let features = lifted(&room, &embeddings, &mut random);

    write_scan(&folder.join("scan.ply"), &room)?;
    let specs = [TensorSpec::new("features", Dtype::F32, [room.positions.len(), CHANNELS])];
    let mut writer = SafetensorsWriter::create(folder.join("features.safetensors"), &specs, &Default::default())?;
    writer.write_f32(&features.values)?;
    writer.finish()?;
    write_student(&folder.join("student.safetensors"), &mut random)?;

    let selected = select(device)?;
    eprintln!("{} points on {} ({})", room.positions.len(), selected.name, selected.why);
    let cloud = PointCloud::read(&folder.join("scan.ply"))?;
    let state = read_state_dict(&folder.join("student.safetensors"))?;
    let (student, config, _) = AffinityPredictor::load(state, &selected.device)?;
    let scan = Scan { positions: &cloud.positions, colors: cloud.colors.as_deref(), normals: cloud.normals.as_deref() };
    let affinities = Affinities::Learned { student: &student.fold(), config };
    let Purified { features: purified, voxel_from_point, report, .. } =
        purify(scan, &features, affinities, Settings::default(), &selected.device, &mut StageTimer::default())?;
    for stage in &report.stages {
        println!("{:12} {:7.2} s", stage.name, stage.seconds);
    }

    let before = classify(&features.values, &embeddings);
    let of_voxels = classify(&purified, &embeddings);
    let after: Vec<usize> = voxel_from_point.iter().map(|&voxel| of_voxels[voxel as usize]).collect();
    let right = |labels: &[usize]| {
        let num = labels.iter().zip(&room.classes).filter(|(a, b)| a == b).count();
        100.0 * num as f64 / labels.len() as f64
    };
    println!("points whose nearest class is their own: {:.1} % before, {:.1} % after", right(&before), right(&after));
    let picture = folder.join("picture.ppm");
    write_picture(&picture, &room, &[before, after, room.classes.clone()])?;
    println!("{}: features before, after, and the truth", picture.display());
    Ok(())
}
