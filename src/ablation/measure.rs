//! Confusion matrices of a room for one kind of affinities, at several numbers of applications.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use burn::prelude::*;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::room::{LiftedRoom, RoomPoints};
use super::{AblationError, AblationSettings};
use crate::eval::metrics::Confusion;
use crate::eval::report::Counts;
use crate::files::write_atomic;
use crate::labels::Protocol;
use crate::ops::matmul::{Form, matmul};
use crate::ops::normalize_rows;
use crate::ops::pooling::pooling;
use crate::ops::{OpError, float_tensor, float_values};
use crate::purify::{self, Affinities, GEOMETRY_CHANNELS, Graph, Voxelized};

/// Counts of a room, in the form of a result file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct RoomCounts {
    /// Key of its inputs: two results with the same key have the same counts.
    pub(super) key: String,
    /// Name of the room.
    pub(super) room: String,
    /// One matrix for each number of applications, in their order. For unpurified features there are two: of
    /// the labels on which the views agree, and of the features.
    pub(super) counts: Vec<Counts>,
}

impl RoomCounts {
    /// Reads the result at `path`, if it is complete and has this key.
    pub(super) fn read(path: &Path, key: &str, num_counts: usize) -> Option<Self> {
        let found: Self = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
        let is_whole = found.counts.iter().all(|counts| counts.to_confusion().is_ok());
        (found.key == key && found.counts.len() == num_counts && is_whole).then_some(found)
    }

    /// Writes the result, completely or not at all.
    pub(super) fn write(&self, path: &Path) -> Result<(), AblationError> {
        write_json(path, |out| serde_json::to_writer(out, self))
    }

    /// Confusion matrices of the counts.
    pub(super) fn confusions(&self) -> Result<Vec<Confusion>, AblationError> {
        Ok(self.counts.iter().map(Counts::to_confusion).collect::<Result<_, _>>()?)
    }
}

/// Writes a JSON file, completely or not at all.
pub(super) fn write_json(
    path: &Path,
    write: impl FnOnce(&mut std::io::BufWriter<std::fs::File>) -> serde_json::Result<()>,
) -> Result<(), AblationError> {
    let written = write_atomic(path, |out| {
        write(out)?;
        out.write_all(b"\n")
    });
    written.map_err(|source| AblationError::Write { path: path.to_path_buf(), source })
}

/// Room with everything that its measurements share. It is read, and its neighbours are found, when the first
/// measurement needs it.
pub(super) struct Bench<'a> {
    path: PathBuf,
    settings: &'a AblationSettings,
    protocol: Protocol,
    /// `[K, C]`: embeddings of the words, of unit length.
    words: Tensor<2>,
    device: &'a Device,
    ready: Option<Ready>,
}

struct Ready {
    points: RoomPoints,
    graph: Graph,
    /// `[V, K]`: products of the unpurified features with the words.
    scores: Tensor<2>,
}

impl<'a> Bench<'a> {
    pub(super) fn new(
        path: &Path,
        settings: &'a AblationSettings,
        protocol: Protocol,
        words: &Tensor<2>,
        device: &'a Device,
    ) -> Self {
        let words = normalize_rows(words.clone());
        Self { path: path.to_path_buf(), settings, protocol, words, device, ready: None }
    }

    fn ready(&mut self) -> Result<&Ready, AblationError> {
        let ready = match self.ready.take() {
            Some(ready) => ready,
            None => self.read()?,
        };
        Ok(self.ready.insert(ready))
    }

    fn read(&self) -> Result<Ready, AblationError> {
        let LiftedRoom { voxelized, num_channels, points, .. } = LiftedRoom::read(&self.path, &self.protocol)?;
        let [_, expected] = self.words.dims();
        if num_channels != expected {
            let message = format!("{num_channels} channels, the words have {expected}");
            return Err(AblationError::Room { path: self.path.clone(), message });
        }
        let scores = scores(&voxelized, num_channels, &self.words, self.device)?;
        let graph = Graph::new(voxelized, num_channels, self.settings.purify, self.device)?;
        Ok(Ready { points, graph, scores })
    }

    /// Counts of the labels on which the views agree, and of the unpurified features.
    pub(super) fn plain(&mut self) -> Result<Vec<Counts>, AblationError> {
        let protocol = self.protocol.clone();
        let ready = self.ready()?;
        let agreed = ready.points.count(&ready.points.lifted_label, &protocol)?;
        Ok(vec![Counts::from(&agreed), ready.count(&ready.scores, &protocol)?])
    }

    /// Counts after each of `applications` of A, which are ascending. `sharpness` applies to learned
    /// affinities.
    pub(super) fn purified(
        &mut self,
        affinities: Affinities<'_>,
        sharpness: f32,
        applications: &[usize],
    ) -> Result<Vec<Counts>, AblationError> {
        let settings = purify::Settings { sharpness, ..self.settings.purify };
        let (protocol, device) = (self.protocol.clone(), self.device);
        let ready = self.ready()?;
        let matrix = ready.graph.rows(affinities, settings, device)?;
        let (mut scores, mut done) = (ready.scores.clone(), 0);
        let mut counts = Vec::with_capacity(applications.len());
        for &number in applications {
            scores = pooling(scores, &matrix, number.saturating_sub(done))?;
            done = number;
            counts.push(ready.count(&scores, &protocol)?);
        }
        Ok(counts)
    }
}

impl Ready {
    /// Counts the nearest words of the voxels.
    fn count(&self, scores: &Tensor<2>, protocol: &Protocol) -> Result<Counts, AblationError> {
        let labels = nearest_words(scores.clone())?;
        let voxel_from_point = &self.graph.voxelized().voxel_from_point;
        Ok(Counts::from(&self.points.count_voxels(&labels, voxel_from_point, protocol)?))
    }
}

/// Products `[V, K]` of a room's features with the words.
///
/// Pooling mixes voxels, not channels. The word of a voxel is that with the largest product, whatever the
/// length of its features. So the products can be pooled in place of the features, which are many times as
/// wide.
fn scores(
    voxelized: &Voxelized,
    num_channels: usize,
    words: &Tensor<2>,
    device: &Device,
) -> Result<Tensor<2>, OpError> {
    let rows = voxelized.matrix.chunks_exact(num_channels + GEOMETRY_CHANNELS);
    let features: Vec<f32> = rows.flat_map(|row| &row[..num_channels]).copied().collect();
    let features = float_tensor(features, [voxelized.coords.len(), num_channels], device);
    matmul(features, words.clone().to_device(device), Form::RightTransposed)
}

/// Word with the largest product per voxel, the first of equal ones. -1 if all products are 0, because no
/// view saw the voxel.
fn nearest_words(scores: Tensor<2>) -> Result<Vec<i32>, OpError> {
    let [_, num_words] = scores.dims();
    let nearest = |row: &[f32]| {
        let best = (1..row.len()).fold(0, |best, word| if row[word] > row[best] { word } else { best });
        if row.iter().all(|&score| score == 0.0) { -1 } else { best as i32 }
    };
    Ok(float_values(scores)?.par_chunks_exact(num_words).with_min_len(1024).map(nearest).collect())
}
