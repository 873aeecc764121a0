//! Held-out room as the ablation measures it: lifted features of every voxel, and the true class of every
//! point.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::AblationError;
use crate::eval::metrics::Confusion;
use crate::labels::Protocol;
use crate::purify::{GEOMETRY_CHANNELS, Voxelized};
use crate::weights::{Dtype, SafetensorsFile, SafetensorsWriter, TensorSpec};

/// Key of the description in a file's metadata.
const ABOUT: &str = "geopurify-lifted-room";
/// Marks a label that is not counted, and a point without a voxel or a prediction.
const NONE: i32 = -1;

/// Room with lifted features.
#[derive(Clone, Debug)]
pub struct LiftedRoom {
    /// Means of features, colour and normal. `voxel_from_point` covers all `N` points, -1 for those without a
    /// position.
    pub voxelized: Voxelized,
    /// Number of channels C, without colour and normal.
    pub num_channels: usize,
    /// Labels of its points.
    pub points: RoomPoints,
    /// Number of views that went through the model.
    pub views: usize,
}

/// Labels of a room's points.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoomPoints {
    /// `[N]`: label on which the views agree, -1 for none.
    pub lifted_label: Vec<i32>,
    /// `[N]`: true class, -1 for points that are not counted.
    pub truth: Vec<i32>,
}

#[derive(Serialize, Deserialize)]
struct About {
    views: usize,
}

impl RoomPoints {
    /// Counts `predictions [N]`, -1 for none.
    ///
    /// # Errors
    /// [`AblationError::Metrics`].
    pub fn count(&self, predictions: &[i32], protocol: &Protocol) -> Result<Confusion, AblationError> {
        let mut confusion = Confusion::new(protocol.num_classes)?;
        confusion.add(&self.truth, predictions, &[NONE])?;
        Ok(confusion)
    }

    /// Counts `labels [V]` of voxels, -1 for none, at their points. `voxel_from_point [N]` is -1 for points
    /// without a voxel.
    ///
    /// # Errors
    /// [`AblationError::Metrics`].
    pub fn count_voxels(
        &self,
        labels: &[i32],
        voxel_from_point: &[i32],
        protocol: &Protocol,
    ) -> Result<Confusion, AblationError> {
        let label = |&voxel: &i32| usize::try_from(voxel).map_or(NONE, |voxel| labels[voxel]);
        self.count(&voxel_from_point.iter().map(label).collect::<Vec<_>>(), protocol)
    }
}

impl LiftedRoom {
    /// Writes the room to a file, completely or not at all.
    ///
    /// # Errors
    /// [`AblationError::Weights`].
    pub fn write(&self, path: &Path) -> Result<(), AblationError> {
        let Voxelized { matrix, coords, voxel_from_point } = &self.voxelized;
        let num_points = voxel_from_point.len();
        let specs = [
            TensorSpec::new("features", Dtype::F32, [coords.len(), self.num_channels + GEOMETRY_CHANNELS]),
            TensorSpec::new("voxel_coords", Dtype::I32, [coords.len(), 3]),
            TensorSpec::new("voxel_from_point", Dtype::I32, [num_points]),
            TensorSpec::new("lifted_label", Dtype::I32, [num_points]),
            TensorSpec::new("truth", Dtype::I32, [num_points]),
        ];
        let about = serde_json::to_string(&About { views: self.views }).map_err(|e| AblationError::json(path, &e))?;
        let mut file = SafetensorsWriter::create_sealed(path, &specs, &BTreeMap::from([(ABOUT.to_owned(), about)]))?;
        file.write_f32(matrix)?;
        file.write_i32(coords.as_flattened())?;
        for values in [voxel_from_point, &self.points.lifted_label, &self.points.truth] {
            file.write_i32(values)?;
        }
        Ok(file.finish()?)
    }

    /// True if `path` holds a complete room.
    #[must_use]
    pub fn is_whole(path: &Path) -> bool {
        let file = SafetensorsFile::open(path);
        file.is_ok_and(|file| {
            file.verify_seal().is_ok() && file.metadata().is_some_and(|about| about.contains_key(ABOUT))
        })
    }

    /// Reads a file written by [`write`](Self::write), for the classes of `protocol`.
    ///
    /// # Errors
    /// [`AblationError::Weights`] or [`AblationError::Room`] naming the file.
    pub fn read(path: &Path, protocol: &Protocol) -> Result<Self, AblationError> {
        let wrong = |message: String| AblationError::Room { path: path.to_path_buf(), message };
        let file = SafetensorsFile::open(path)?;
        let about = file.metadata().and_then(|metadata| metadata.get(ABOUT));
        let about = about.ok_or_else(|| wrong("this is not a lifted room".to_owned()))?;
        let About { views } = serde_json::from_str(about).map_err(|error| AblationError::json(path, &error))?;
        let integers = |name: &str, limit: usize| -> Result<Vec<i32>, AblationError> {
            let checked = |value: i64| match i32::try_from(value) {
                Ok(small) if small == NONE || usize::try_from(small).is_ok_and(|small| small < limit) => Ok(small),
                _ => Err(wrong(format!("'{name}' holds {value}, expected -1 to {}", limit as i64 - 1))),
            };
            file.tensor(name)?.to_i64()?.into_iter().map(checked).collect()
        };
        let features = file.tensor("features")?;
        let &[num_voxels, width] = features.shape else {
            return Err(wrong(format!("'features' is {:?}, expected two dimensions", features.shape)));
        };
        let coords = integers("voxel_coords", i32::MAX as usize)?;
        let room = Self {
            voxelized: Voxelized {
                matrix: features.to_f32()?,
                coords: coords.as_chunks().0.to_vec(),
                voxel_from_point: integers("voxel_from_point", num_voxels)?,
            },
            num_channels: width.saturating_sub(GEOMETRY_CHANNELS),
            points: RoomPoints {
                lifted_label: integers("lifted_label", protocol.num_classes)?,
                truth: integers("truth", protocol.num_classes)?,
            },
            views,
        };
        let num_points = room.points.truth.len();
        let fits = coords.len() == 3 * num_voxels
            && num_voxels > 0
            && width > GEOMETRY_CHANNELS
            && room.points.lifted_label.len() == num_points
            && room.voxelized.voxel_from_point.len() == num_points;
        if fits { Ok(room) } else { Err(wrong("its parts do not fit together".to_owned())) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two voxels of two points each, and a point without a position.
    fn small() -> LiftedRoom {
        LiftedRoom {
            voxelized: Voxelized {
                matrix: (0..16).map(|i| i as f32 / 16.0).collect(),
                coords: vec![[0, 0, 0], [1, 0, 0]],
                voxel_from_point: vec![0, 0, 1, 1, NONE],
            },
            num_channels: 2,
            points: RoomPoints { lifted_label: vec![0, 1, 1, NONE, NONE], truth: vec![0, 0, 1, NONE, 1] },
            views: 3,
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("room.safetensors");
        let room = small();
        assert!(!LiftedRoom::is_whole(&path));
        room.write(&path).unwrap();
        assert!(LiftedRoom::is_whole(&path));
        let read = LiftedRoom::read(&path, &Protocol::SCANNET19).unwrap();
        assert_eq!((&read.voxelized.matrix, read.voxelized.coords), (&room.voxelized.matrix, room.voxelized.coords));
        assert_eq!((read.points, read.num_channels, read.views), (room.points, 2, 3));
        let with = |truth: Vec<i32>| LiftedRoom { points: RoomPoints { truth, ..small().points }, ..small() };
        let wrong = with(vec![0, 0, 1, 19, 1]);
        wrong.write(&path).unwrap();
        let message = LiftedRoom::read(&path, &Protocol::SCANNET19).unwrap_err().to_string();
        assert!(message.ends_with("'truth' holds 19, expected -1 to 18"), "{message}");
        assert!(with(vec![0]).write(&path).is_err());
        assert!(!path.exists() || LiftedRoom::read(&path, &Protocol::SCANNET19).is_err());
    }

    #[test]
    fn points_without_a_voxel_are_not_found() {
        let LiftedRoom { voxelized, points, .. } = small();
        let confusion = points.count_voxels(&[0, 1], &voxelized.voxel_from_point, &Protocol::SCANNET19).unwrap();
        let classes = confusion.classes();
        assert_eq!((classes[0].intersection, classes[0].target), (2, 2));
        assert_eq!((classes[1].intersection, classes[1].target), (1, 2));
        assert_eq!(confusion.num_ignored(), 1);
    }
}
