//! Agreement of a student's affinities with the teacher on held-out scenes.

use burn::prelude::*;
use serde::Serialize;

use super::scene_file::SceneFile;
use super::{Config, DistillError, TrainingScene};
use crate::distill::affinity_precision::{ClusterSettings, affinity_precision, cluster_features};
use crate::models::student::{Student, StudentConfig};
use crate::ops::affinity::affinity;
use crate::ops::knn::knn_voxels;
use crate::ops::{float_tensor, float_values, int_tensor, int_values, limits_of};
use crate::purify::{self, Embedder};

/// Number of strongest neighbours of a voxel that are checked.
const TOP: usize = 8;

/// Precision of affinities over held-out scenes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Precision {
    /// Share of a voxel's strongest neighbours that are of its cluster by the teacher: a mean over the voxels
    /// of all scenes.
    pub affinity_precision: f64,
    /// The same share of all its neighbours, which equal weights would reach.
    pub uniform_precision: f64,
    /// Number of voxels of all scenes.
    pub validation_voxels: usize,
}

/// Held-out scenes, with clusters of their voxels by the teacher's features.
#[derive(Debug)]
pub(super) struct Validator<'a> {
    scenes: Vec<(&'a SceneFile, Vec<u32>)>,
    student: StudentConfig,
}

impl<'a> Validator<'a> {
    pub(super) fn new(files: &'a [SceneFile], config: &Config, student: StudentConfig) -> Result<Self, DistillError> {
        let prepare = |file: &'a SceneFile| {
            let scene = TrainingScene::read(&file.path)?.of_voxels();
            let settings = ClusterSettings { seed: config.seed, ..ClusterSettings::default() };
            let mismatch = |message| DistillError::Mismatch { scene: file.name.clone(), message };
            if scene.num_channels != student.input_dim {
                let found = scene.num_channels;
                return Err(mismatch(format!("{found} channels, the student takes {}", student.input_dim)));
            }
            let of_row = cluster_features(&scene.teacher, scene.teacher_dim, &settings);
            let of_row = of_row.map_err(|error| mismatch(error.to_string()))?;
            Ok((file, scene.teacher_from_sample.iter().map(|&row| of_row[row as usize]).collect()))
        };
        Ok(Self { scenes: files.iter().map(prepare).collect::<Result<_, DistillError>>()?, student })
    }

    /// Precision of `student`; `None` if no scenes were held out.
    pub(super) fn run(&self, student: &Student, device: &Device) -> Result<Option<Precision>, DistillError> {
        let mut sums = Precision { affinity_precision: 0.0, uniform_precision: 0.0, validation_voxels: 0 };
        for (file, cluster_from_voxel) in &self.scenes {
            let scene = TrainingScene::read(&file.path)?.of_voxels();
            let settings = purify::Settings::default();
            let num_voxels = scene.num_voxels();
            let coords = &scene.voxel_coords;
            let embedder = Embedder { student, config: self.student, device };
            let embedding = embedder.embed_voxels(&scene.features, coords, settings)?;
            let embedding = float_tensor(embedding, [num_voxels, self.student.embed_dim], device);
            let flat = coords.iter().flatten().copied().collect();
            let voxels = int_tensor(flat, [num_voxels, 3], device);
            let block = limits_of(device).rows(4 * settings.neighbors).clamp(1, num_voxels);
            let (mut neighbors, mut weights) = (Vec::new(), Vec::new());
            for first in (0..num_voxels).step_by(block) {
                let queries = first..(first + block).min(num_voxels);
                let found = knn_voxels(voxels.clone(), settings.neighbors, false, queries)?.index;
                let of_block = affinity(std::slice::from_ref(&embedding), found.clone(), first, settings.sharpness)?;
                neighbors.extend(int_values(found)?);
                weights.extend(float_values(of_block)?);
            }
            let found = affinity_precision(cluster_from_voxel, &neighbors, &weights, TOP);
            let found = found
                .map_err(|error| DistillError::Mismatch { scene: scene.name.clone(), message: error.to_string() })?;
            sums.affinity_precision += found.top * found.num_voxels as f64;
            sums.uniform_precision += found.baseline * found.num_voxels as f64;
            sums.validation_voxels += found.num_voxels;
        }
        let count = sums.validation_voxels as f64;
        Ok((sums.validation_voxels > 0).then(|| Precision {
            affinity_precision: sums.affinity_precision / count,
            uniform_precision: sums.uniform_precision / count,
            ..sums
        }))
    }
}
