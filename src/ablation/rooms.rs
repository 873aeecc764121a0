//! Finds the rooms of an ablation and prepares them.

use std::path::Path;

use burn::prelude::*;

use super::{AblationError, AblationRooms, AblationSettings, RoomLifter};
use crate::distill::{PrepareSettings, Preparer, SceneFile};
use crate::eval::scenes::{LabelledScene, find_scenes};
use crate::gpu::Selected;
use crate::labels::Preset;
use crate::pipeline::Weights;
use crate::session::{Network, Source, part_in};
use crate::stages::Progress;

/// Labelled rooms of an ablation, and the classes by which they are labelled.
#[derive(Clone, Debug)]
pub struct LabelledRooms {
    /// Classes.
    pub preset: Preset,
    /// Rooms to learn from.
    pub training: Vec<LabelledScene>,
    /// Rooms on which settings are chosen; none if there are none.
    pub validation: Vec<LabelledScene>,
    /// Rooms to measure.
    pub test: Vec<LabelledScene>,
}

impl LabelledRooms {
    /// Finds the rooms in `train`, `val` and `test` of `root`, the first in the order of their names. `most`
    /// is the number of rooms at most, for training, validation and test.
    ///
    /// # Errors
    /// [`AblationError::Scenes`], [`AblationError::Session`] without `train` or `test`. A folder `val` that does not exist means no validation rooms.
    pub fn find(root: &Path, preset: Preset, most: [usize; 3]) -> Result<Self, AblationError> {
        let [training, validation, test] = [("train", most[0]), ("val", most[1]), ("test", most[2])];
        let first = |(name, most): (&str, usize)| -> Result<Vec<LabelledScene>, AblationError> {
            let mut scenes = find_scenes(&part_in(root, name)?)?;
            scenes.truncate(most);
            Ok(scenes)
        };
        let has_validation = validation.1 > 0 && root.join(validation.0).is_dir();
        Ok(Self {
            preset,
            training: first(training)?,
            validation: if has_validation { first(validation)? } else { Vec::new() },
            test: first(test)?,
        })
    }
}

/// Rooms as [`ablation`](super::ablation) takes them.
pub struct PreparedRooms {
    /// Files of the rooms.
    pub rooms: AblationRooms,
    /// `[K, C]`: embeddings of the classes by X-Decoder.
    pub words: Tensor<2>,
    /// Weights of the frozen models.
    pub weights: Vec<Weights>,
}

/// Prepares the training rooms and lifts the others, or finds them in the cache. Tells `say` what becomes of
/// each room.
///
/// # Errors
/// [`AblationError::Failed`] with the room's name, and errors of opening the models.
pub fn prepare_rooms(
    found: &LabelledRooms,
    prepare: &PrepareSettings,
    settings: &AblationSettings,
    selected: &Selected,
    progress: &mut Progress<'_>,
    say: &mut dyn FnMut(&str),
) -> Result<PreparedRooms, AblationError> {
    let mut rooms = AblationRooms::default();
    let mut preparer = Preparer::new(prepare, &settings.training, selected, say)?;
    for scene in &found.training {
        let source = Source::of(&scene.scan, scene.recording.as_deref());
        let prepared = preparer.prepare(&source, progress).map_err(|error| failed(scene, error))?;
        let [mut prepared] = <[SceneFile; 1]>::try_from(prepared).map_err(|files| {
            AblationError::settings(format!("{}: {} scenes in a recording, expected one", scene.name, files.len()))
        })?;
        prepared.name.clone_from(&scene.name);
        rooms.training.push(prepared);
    }
    drop(preparer);

    let mut lifter = RoomLifter::new(prepare, found.preset, settings, selected, progress)?;
    for (scenes, files) in [(&found.validation, &mut rooms.validation), (&found.test, &mut rooms.test)] {
        for scene in scenes {
            files.push(lifter.lifted(scene, progress, say).map_err(|error| failed(scene, error))?);
        }
    }
    let sonata = prepare.networks.with_demo(&[Network::XDecoder, Network::Sonata]).open_sonata()?;
    let mut weights = Vec::new();
    for (model, origin) in [("xdecoder", lifter.origin()), ("sonata", &sonata.origin)] {
        weights.push(Weights { model, source: origin.source.clone(), sha256: origin.sha256()? });
    }
    Ok(PreparedRooms { rooms, words: lifter.words(), weights })
}

fn failed(scene: &LabelledScene, error: impl Into<AblationError>) -> AblationError {
    AblationError::Failed { room: scene.name.clone(), source: Box::new(error.into()) }
}
