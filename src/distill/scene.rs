//! Training data of a scene, in memory and on disk.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{DistillError, Samples};
use crate::training::RunError;
use crate::weights::{Dtype, SafetensorsFile, SafetensorsWriter, TensorSpec};

/// Key of the description in a file's metadata.
const ABOUT: &str = "geopurify-training-scene";

/// Training data of a scene: samples, their voxels, and the teacher's features.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainingScene {
    /// Name, for messages.
    pub name: String,
    /// Kind of samples.
    pub samples: Samples,
    /// `[N]`: positions of the samples, in metres for points, in voxels for voxels.
    pub positions: Vec<[f32; 3]>,
    /// `[N, C]`: the student's input: semantic features, colour, normal.
    pub features: Vec<f32>,
    /// Number of channels, C.
    pub num_channels: usize,
    /// `[N]`: voxel of every sample. Samples that are voxels have their own index.
    pub voxel_from_sample: Vec<i32>,
    /// `[V]`: distinct voxel coordinates; every voxel has a sample.
    pub voxel_coords: Vec<[i32; 3]>,
    /// `[T, D]`: the teacher's features. Samples with the same row are identical to it.
    pub teacher: Vec<f32>,
    /// Number of channels of the teacher's features, D.
    pub teacher_dim: usize,
    /// `[N]`: the teacher's row of every sample.
    pub teacher_from_sample: Vec<i32>,
    /// Edge of a voxel, in the unit of the positions.
    pub voxel_size: f64,
    /// Edge of a voxel in metres; that in the scan's unit if it has no scale.
    pub voxel_metres: f64,
    /// Up direction.
    pub up: [f64; 3],
}

#[derive(Serialize, Deserialize)]
struct About {
    name: String,
    samples: Samples,
    voxel_size: f64,
    voxel_metres: f64,
    up: [f64; 3],
}

impl TrainingScene {
    /// Number of samples, N.
    #[must_use]
    pub fn num_samples(&self) -> usize {
        self.positions.len()
    }

    /// Number of voxels, V.
    #[must_use]
    pub fn num_voxels(&self) -> usize {
        self.voxel_coords.len()
    }

    /// The teacher's features of the given samples, one row each.
    #[must_use]
    pub fn teacher_rows(&self, samples: &[u32]) -> Vec<f32> {
        let mut rows = Vec::with_capacity(samples.len() * self.teacher_dim);
        for &sample in samples {
            let row = self.teacher_from_sample[sample as usize] as usize;
            rows.extend_from_slice(&self.teacher[row * self.teacher_dim..][..self.teacher_dim]);
        }
        rows
    }

    /// First sample of every voxel.
    #[must_use]
    pub fn first_samples(&self) -> Vec<u32> {
        let mut first = vec![u32::MAX; self.num_voxels()];
        for (sample, &voxel) in self.voxel_from_sample.iter().enumerate().rev() {
            first[voxel as usize] = sample as u32;
        }
        first
    }

    /// Checks that the parts fit together.
    ///
    /// # Errors
    /// [`DistillError::Mismatch`] for the first part that does not fit.
    pub fn validate(&self) -> Result<(), DistillError> {
        let (num_samples, num_voxels) = (self.num_samples(), self.num_voxels());
        let wrong = |message: String| Err(DistillError::Mismatch { scene: self.name.clone(), message });
        let rows = |values: &[f32], width: usize| values.len().checked_div(width).unwrap_or(0);
        let is_whole = |values: &[f32], width: usize| width > 0 && values.len().is_multiple_of(width);
        if rows(&self.features, self.num_channels) != num_samples || !is_whole(&self.features, self.num_channels) {
            let found = self.features.len();
            return wrong(format!(
                "{found} feature values for {num_samples} samples of {} channels",
                self.num_channels
            ));
        }
        if !is_whole(&self.teacher, self.teacher_dim) {
            let found = self.teacher.len();
            return wrong(format!("{found} values of the teacher, expected rows of {}", self.teacher_dim));
        }
        let teacher_rows = rows(&self.teacher, self.teacher_dim);
        for (name, index, limit) in [
            ("voxel_from_sample", &self.voxel_from_sample, num_voxels),
            ("teacher_from_sample", &self.teacher_from_sample, teacher_rows),
        ] {
            if index.len() != num_samples {
                return wrong(format!("{name} has {} entries for {num_samples} samples", index.len()));
            }
            if let Some(entry) = index.iter().find(|&&i| usize::try_from(i).map_or(true, |i| i >= limit)) {
                return wrong(format!("{name} holds {entry}, expected 0 to {}", limit as i64 - 1));
            }
        }
        if !(self.voxel_metres > 0.0 && self.voxel_metres.is_finite() && self.up.iter().all(|x| x.is_finite())) {
            return wrong(format!("voxels of {} m, up {:?}, expected finite numbers", self.voxel_metres, self.up));
        }
        for (name, values) in [("features", &self.features), ("teacher", &self.teacher)] {
            if let Some(at) = values.iter().position(|value| !value.is_finite()) {
                return wrong(format!("value {at} of {name} is {}", values[at]));
            }
        }
        if self.samples == Samples::Voxels && self.voxel_from_sample.iter().zip(0..).any(|(&voxel, i)| voxel != i) {
            return wrong("samples are voxels, but not in the voxels' order".to_owned());
        }
        if self.first_samples().contains(&u32::MAX) {
            return wrong("a voxel without a sample".to_owned());
        }
        Ok(())
    }

    /// Writes the scene to a file, completely or not at all.
    ///
    /// # Errors
    /// [`DistillError::Weights`].
    pub fn write(&self, path: &Path) -> Result<(), DistillError> {
        let specs = [
            TensorSpec::new("positions", Dtype::F32, [self.num_samples(), 3]),
            TensorSpec::new("features", Dtype::F32, [self.num_samples(), self.num_channels]),
            TensorSpec::new("teacher", Dtype::F32, [self.teacher.len() / self.teacher_dim.max(1), self.teacher_dim]),
            TensorSpec::new("voxel_coords", Dtype::I32, [self.num_voxels(), 3]),
            TensorSpec::new("voxel_from_sample", Dtype::I32, [self.num_samples()]),
            TensorSpec::new("teacher_from_sample", Dtype::I32, [self.num_samples()]),
        ];
        let about = About {
            name: self.name.clone(),
            samples: self.samples,
            voxel_size: self.voxel_size,
            voxel_metres: self.voxel_metres,
            up: self.up,
        };
        let about = serde_json::to_string(&about)
            .map_err(|error| RunError::Run { path: path.to_path_buf(), message: error.to_string() })?;
        let mut file = SafetensorsWriter::create_sealed(path, &specs, &BTreeMap::from([(ABOUT.to_owned(), about)]))?;
        file.write_f32(self.positions.as_flattened())?;
        file.write_f32(&self.features)?;
        file.write_f32(&self.teacher)?;
        file.write_i32(self.voxel_coords.as_flattened())?;
        file.write_i32(&self.voxel_from_sample)?;
        file.write_i32(&self.teacher_from_sample)?;
        Ok(file.finish()?)
    }

    /// Reads a file written by [`write`](Self::write).
    ///
    /// # Errors
    /// [`DistillError::Weights`] or [`DistillError::Run`] naming the file, [`DistillError::Mismatch`] if its
    /// parts do not fit each other.
    pub fn read(path: &Path) -> Result<Self, DistillError> {
        let wrong = |message: String| DistillError::from(RunError::Run { path: path.to_path_buf(), message });
        let file = SafetensorsFile::open(path)?;
        let about = file.metadata().and_then(|metadata| metadata.get(ABOUT));
        let about = about.ok_or_else(|| wrong("this is not a training scene".to_owned()))?;
        let about: About = serde_json::from_str(about).map_err(|error| wrong(format!("its description: {error}")))?;
        file.verify_seal_once()?;
        let floats = |name: &str| -> Result<(Vec<f32>, usize), DistillError> {
            let tensor = file.tensor(name)?;
            let &[_, width] = tensor.shape else {
                return Err(wrong(format!("'{name}' is {:?}, expected two dimensions", tensor.shape)));
            };
            Ok((tensor.to_f32()?, width))
        };
        let integers = |name: &str| -> Result<Vec<i32>, DistillError> {
            let narrow = |value| i32::try_from(value).map_err(|_| wrong(format!("'{name}' holds {value}")));
            file.tensor(name)?.to_i64()?.into_iter().map(narrow).collect()
        };
        let triples = |name: &str, (values, width): (Vec<f32>, usize)| match width {
            3 => Ok(values.as_chunks::<3>().0.to_vec()),
            _ => Err(wrong(format!("'{name}' has {width} columns, expected 3"))),
        };
        let positions = triples("positions", floats("positions")?)?;
        let ((features, num_channels), (teacher, teacher_dim)) = (floats("features")?, floats("teacher")?);
        let coords = integers("voxel_coords")?;
        let (voxel_coords, rest) = coords.as_chunks::<3>();
        if !rest.is_empty() {
            return Err(wrong("'voxel_coords' does not have three columns".to_owned()));
        }
        let scene = Self {
            name: about.name,
            samples: about.samples,
            positions,
            features,
            num_channels,
            voxel_from_sample: integers("voxel_from_sample")?,
            voxel_coords: voxel_coords.to_vec(),
            teacher,
            teacher_dim,
            teacher_from_sample: integers("teacher_from_sample")?,
            voxel_size: about.voxel_size,
            voxel_metres: about.voxel_metres,
            up: about.up,
        };
        scene.validate()?;
        Ok(scene)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::random::SplitMix64;

    /// Two facing walls of points, `width` voxels wide. The teacher's features tell them apart.
    pub(in crate::distill) fn walls(samples: Samples, width: i32) -> TrainingScene {
        let mut random = SplitMix64::new(5);
        let mut coords: Vec<[i32; 3]> = Vec::new();
        for wall in 0..2 {
            coords.extend((0..width * width).map(|i| [20 * wall, i % width, i / width]));
        }
        let per_voxel = if samples == Samples::Voxels { 1 } else { 2 };
        let voxel_from_sample: Vec<i32> = (0..coords.len() as i32 * per_voxel).map(|i| i / per_voxel).collect();
        let positions = voxel_from_sample.iter().map(|&voxel| match samples {
            Samples::Voxels => coords[voxel as usize].map(|c| c as f32),
            Samples::Points => coords[voxel as usize].map(|c| (c as f32 + 0.2 + 0.6 * random.unit() as f32) * 0.02),
        });
        let positions: Vec<[f32; 3]> = positions.collect();
        let mut value = |scale: f64| ((random.unit() - 0.5) * scale) as f32;
        let features = voxel_from_sample.iter().flat_map(|&voxel| {
            let wall = coords[voxel as usize][0] as f32 / 20.0;
            [wall + value(0.5), 1.0 - wall + value(0.5), value(1.0), value(1.0)]
        });
        let features: Vec<f32> = features.collect();
        // Cells of 4 × 4 voxels.
        let cells = (width + 3) / 4;
        let cell = |[x, y, z]: [i32; 3]| (x / 20 * cells + y / 4) * cells + z / 4;
        let teacher = (0..2 * cells * cells).flat_map(|cell| {
            let wall = (cell / (cells * cells)) as f32;
            let mut row = [wall, 1.0 - wall, 0.0, 0.0, 0.0];
            row.iter_mut().for_each(|v| *v += value(0.2));
            row
        });
        let teacher: Vec<f32> = teacher.collect();
        TrainingScene {
            name: "walls".to_owned(),
            samples,
            num_channels: 4,
            teacher_dim: 5,
            teacher_from_sample: voxel_from_sample.iter().map(|&voxel| cell(coords[voxel as usize])).collect(),
            voxel_size: if samples == Samples::Voxels { 1.0 } else { 0.02 },
            voxel_metres: 0.02,
            up: [0.0, 0.0, 1.0],
            positions,
            features,
            voxel_from_sample,
            voxel_coords: coords,
            teacher,
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("walls.safetensors");
        for samples in [Samples::Voxels, Samples::Points] {
            let scene = walls(samples, 9);
            scene.validate().unwrap();
            scene.write(&path).unwrap();
            assert_eq!(TrainingScene::read(&path).unwrap(), scene);
        }
        std::fs::write(&path, b"nothing").unwrap();
        assert!(TrainingScene::read(&path).unwrap_err().to_string().contains("walls.safetensors"));
    }

    #[test]
    fn parts_that_do_not_fit_are_named() {
        type Change = fn(&mut TrainingScene);
        let changes: [(Change, &str); 7] = [
            (|s| s.features.truncate(7), "feature values"),
            (|s| s.teacher.truncate(7), "the teacher"),
            (|s| s.teacher_from_sample[3] = 99, "teacher_from_sample holds 99"),
            (|s| s.voxel_from_sample[3] = -1, "voxel_from_sample holds -1"),
            (|s| s.voxel_from_sample.truncate(3), "voxel_from_sample has 3"),
            (|s| s.features[2] = f32::NAN, "value 2 of features is NaN"),
            (|s| s.voxel_coords.push([99; 3]), "a voxel without a sample"),
        ];
        for (change, expected) in changes {
            let mut scene = walls(Samples::Points, 5);
            change(&mut scene);
            let error = scene.validate().unwrap_err().to_string();
            assert!(error.starts_with("walls: ") && error.contains(expected), "{error}");
        }
    }
}
