//! A session: a device and its networks. It labels scans and pictures, answers queries, encodes and purifies.
//! The crate's front page has an example.

mod asker;
mod beside;
mod encoders;
mod error;
mod image_model;
mod labelled;
mod labeller;
pub mod lists;
mod method;
mod networks;
mod options;
mod parts;
mod pictures;
mod placed;
mod plan;
mod question;
mod scenes;
mod source;
mod source_list;
mod text;

use std::path::Path;

use asker::OpenAsker;
use glam::DVec3;

use crate::gpu::{DeviceSelection, Selected, select};
use crate::pipeline::{Compat, EncodeOptions, Encoding, Scene, encode, voxel_size_for_training};
use crate::purify::{self, FeatureSource, Purified};
use crate::query::saved::Saved;
use crate::stages::StageTimer;
use crate::views::virtual_cameras::{Options, virtual_cameras};

pub use asker::{Asker, VoxelAnswer, VoxelLabels};
pub use beside::{SCAN_EXTENSIONS, holds_only_results, is_results, recording_of, split_of};
pub use error::SessionError;
pub use image_model::{ImageModelKind, LoadedImageModel, OpenImageModel, UnknownImageModel};
pub use labelled::{Labelled, SavedResults};
pub use labeller::{Labeller, Words, embed_words, note_of_unknown};
pub use method::{Method, UnknownMethod};
pub use networks::{
    Network, NetworkChoice, Networks, OpenClip, OpenLSeg, OpenOpenScene, OpenSonata, OpenStudent, OpenText,
    OpenXDecoder, WeightsOrigin,
};
pub use options::{AffinityKind, LabelOptions};
pub use parts::{part_in, part_of};
pub use pictures::{PictureFiles, PictureOptions, SegmentedPicture, Segmenter};
pub use placed::{Placed, ViewSource};
pub use plan::Plan;
pub use question::{Answer, unit_of};
pub use scenes::scenes_at;
pub use source::{Opened, Source, ViewSettings, stem};
pub use source_list::find_sources;
pub use text::TextModel;

/// A device, and the weights to be used on it. Networks are loaded when they are needed.
#[derive(Debug)]
pub struct Session {
    device: Selected,
    networks: Networks,
}

impl Session {
    /// Opens a session on a GPU, or on the host if there is none. It uses the weights of the store, or those
    /// of the demo if the store has none.
    ///
    /// # Errors
    /// [`SessionError::Device`].
    pub fn open() -> Result<Self, SessionError> {
        Self::with(DeviceSelection::Auto, Networks::default())
    }

    /// Opens a session on the given device with the given weights.
    ///
    /// # Errors
    /// [`SessionError::Device`].
    pub fn with(device: DeviceSelection, networks: Networks) -> Result<Self, SessionError> {
        Ok(Self { device: select(device)?, networks })
    }

    /// The device.
    #[must_use]
    pub fn device(&self) -> &Selected {
        &self.device
    }

    /// Choice of weights.
    #[must_use]
    pub fn networks(&self) -> &Networks {
        &self.networks
    }

    /// Loads the networks for labelling and embeds the words. The labeller can be used for any number of
    /// scans.
    ///
    /// # Errors
    /// [`SessionError::Store`] if weights are missing, [`SessionError::OtherStudent`] if student and
    /// X-Decoder do not fit each other, and errors of loading.
    pub fn labeller(
        &self,
        words: Words,
        options: LabelOptions,
        timer: &mut StageTimer<'_>,
    ) -> Result<Labeller<'_>, SessionError> {
        Labeller::load(&self.device, &self.networks, words, options, timer)
    }

    /// Labels a scan, seen by virtual cameras, and saves the results in `folder`. See [`Labelled::save`].
    ///
    /// # Errors
    /// The same as [`labeller`](Self::labeller), [`Labeller::label`] and [`Labelled::save`].
    pub fn label(
        &self,
        scene: &Scene,
        words: Words,
        options: LabelOptions,
        folder: &Path,
    ) -> Result<SavedResults, SessionError> {
        let mut timer = StageTimer::default();
        let labeller = self.labeller(words, options, &mut timer)?;
        labeller.label(scene, ViewSource::Drawn, &mut timer, &mut |_| Ok(()))?.save(folder, &mut timer)
    }

    /// Loads the image model and embeds the words. The segmenter labels the pixels of any number of pictures.
    ///
    /// # Errors
    /// [`SessionError::Store`] if weights are missing, and errors of loading.
    pub fn segmenter(
        &self,
        words: &[String],
        options: PictureOptions,
        timer: &mut StageTimer<'_>,
    ) -> Result<Segmenter, SessionError> {
        Segmenter::load(&self.device, &self.networks, words, options, timer)
    }

    /// Finds `question` in the results saved in `folder`.
    ///
    /// # Errors
    /// The same as [`query_above`](Self::query_above).
    pub fn query(&self, folder: &Path, question: &str) -> Result<Answer, SessionError> {
        self.query_above(folder, question, None, &mut StageTimer::default())
    }

    /// Finds `question` in the results saved in `folder`. Places with a cosine of at least `level` count as
    /// found; the default is halfway between the median and the largest cosine.
    ///
    /// # Errors
    /// [`SessionError::NoResults`], [`SessionError::NoQuestion`], [`SessionError::OtherWeights`] if the
    /// features were made with other weights, and errors of loading and reading.
    pub fn query_above(
        &self,
        folder: &Path,
        question: &str,
        level: Option<f32>,
        timer: &mut StageTimer<'_>,
    ) -> Result<Answer, SessionError> {
        question::ask(&self.device, &self.networks, folder, question, level, timer)
    }

    /// Opens `saved` features of `folder` for any number of questions.
    ///
    /// # Errors
    /// [`SessionError::OtherWeights`] if the features were made with other weights, [`SessionError::Store`] if
    /// weights are missing, and errors of loading.
    pub fn asker(&self, folder: &Path, saved: Saved) -> Result<Asker, SessionError> {
        OpenAsker::open(&self.networks, folder, saved)?.load(&self.device.device)
    }

    /// Encodes a scan by Sonata. `voxel` is the edge of a voxel in the scan's unit, 2 cm by default. `up` is
    /// the up direction, used if the scan does not give one.
    ///
    /// # Errors
    /// [`SessionError::Store`] if weights are missing, [`SessionError::NeedsConfiguration`],
    /// [`SessionError::Pipeline`].
    pub fn encode(
        &self,
        scene: &Scene,
        voxel: Option<f64>,
        up: Option<DVec3>,
        timer: &mut StageTimer<'_>,
    ) -> Result<Encoded, SessionError> {
        let mut opened = self.networks.with_demo(&[Network::Sonata]).open_sonata()?;
        timer.progress("load weights", 0.0);
        let sonata = opened.load(&self.device.device)?;
        timer.lap("load weights");
        let mut notes = scene.notes.clone();
        let (voxel_size, why) = voxel.map_or_else(|| voxel_size_for_training(scene), |voxel| (voxel, None));
        notes.extend(why);
        let usual = Options { up: up.or(scene.up), ..Options::default() };
        let up = usual.up.unwrap_or_else(|| virtual_cameras(&scene.to_cameras(), &usual).up);
        let options = EncodeOptions { voxel_size, up, compat: Compat::Fixed };
        let encoding = encode(scene, &sonata, &options, &self.device.device, timer)?;
        notes.extend(encoding.notes.iter().cloned());
        Ok(Encoded { encoding, voxel_size, up, notes })
    }

    /// Purifies `features [N, C]` of the points of a scan, one row per point with a position.
    ///
    /// # Errors
    /// [`SessionError::Store`] if a student that was named is missing, [`SessionError::Purify`].
    pub fn purify(
        &self,
        scene: &Scene,
        features: &dyn FeatureSource,
        affinities: AffinityKind,
        settings: purify::Settings,
        timer: &mut StageTimer<'_>,
    ) -> Result<Purified, SessionError> {
        let open = || self.networks.with_demo(&[Network::Student]).open_student();
        let student = affinities.needs_student().then(open).transpose()?;
        let student = student.map(|student| student.load(&self.device.device)).transpose()?;
        let affinities = affinities.with(student.as_ref());
        Ok(purify::purify(scene.to_purify(), features, affinities, settings, &self.device.device, timer)?)
    }
}

/// Scan encoded by Sonata.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// Features of cells.
    pub encoding: Encoding,
    /// Edge of a voxel, in the scan's unit.
    pub voxel_size: f64,
    /// Up direction.
    pub up: DVec3,
    /// Notes for the user.
    pub notes: Vec<String>,
}
