//! A session: a device and the networks on it, which label scans, answer questions, encode and purify.
//!
//! ```no_run
//! use std::path::Path;
//!
//! use geopurify::{LabelOptions, Scene, Session, Words};
//!
//! # fn main() -> Result<(), geopurify::SessionError> {
//! let session = Session::open()?;
//! let scene = Scene::read(Path::new("examples/room.ply"))?;
//! session.label(&scene, Words::new(["wall", "floor", "chair"]), LabelOptions::default(), Path::new("room-labels"))?;
//! let answer = session.query(Path::new("room-labels"), "chair")?;
//! println!("{} places, the best with a cosine of {:.2}", answer.places.len(), answer.best());
//! # Ok(())
//! # }
//! ```

mod error;
mod labelled;
mod labeller;
mod networks;
mod placed;
mod question;
mod source;

use std::path::Path;

use glam::DVec3;

use crate::gpu::{DeviceSelection, Selected, select};
use crate::pipeline::{Compat, EncodeOptions, Encoding, Scene, encode, voxel_size};
use crate::purify::{self, FeatureSource, Purified};
use crate::stages::StageTimer;
use crate::views::virtual_cameras::{Options, virtual_cameras};

pub use error::SessionError;
pub use labelled::{Labelled, SavedResults};
pub use labeller::{AffinityKind, LabelOptions, Labeller, Words, embed_words, note_of_unknown};
pub use networks::{Network, NetworkChoice, Networks, OpenSonata, OpenStudent, OpenXDecoder, WeightsOrigin};
pub use placed::{Placed, ViewSource};
pub use question::Answer;
pub use source::{Opened, SCAN_EXTENSIONS, Source, ViewSettings, stem};

/// A device, and which weights are used on it. Networks are loaded when they are needed.
#[derive(Debug)]
pub struct Session {
    device: Selected,
    networks: Networks,
}

impl Session {
    /// A session on a hardware GPU, or on the host where there is none, with the weights of the store, or the demo's
    /// where the store has none.
    ///
    /// # Errors
    /// [`SessionError::Device`].
    pub fn open() -> Result<Self, SessionError> {
        Self::with(DeviceSelection::Auto, Networks::default())
    }

    /// A session on a device of one's choice, with weights of one's choice.
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

    /// Which weights are used.
    #[must_use]
    pub fn networks(&self) -> &Networks {
        &self.networks
    }

    /// Loads what labelling needs and embeds the words, for any number of scans.
    ///
    /// # Errors
    /// [`SessionError::Store`] where weights are missing, [`SessionError::OtherStudent`] where student and X-Decoder do
    /// not belong together, and what loading gives.
    pub fn labeller(
        &self,
        words: Words,
        options: LabelOptions,
        timer: &mut StageTimer<'_>,
    ) -> Result<Labeller<'_>, SessionError> {
        Labeller::load(&self.device, &self.networks, words, options, timer)
    }

    /// Labels a scan, seen by virtual cameras, and saves the results in `folder`, see [`Labelled::save`].
    ///
    /// # Errors
    /// As [`labeller`](Self::labeller), [`Labeller::label`] and [`Labelled::save`].
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

    /// Finds `question` in results that were saved in `folder`.
    ///
    /// # Errors
    /// As [`query_above`](Self::query_above).
    pub fn query(&self, folder: &Path, question: &str) -> Result<Answer, SessionError> {
        self.query_above(folder, question, None, &mut StageTimer::default())
    }

    /// Finds `question` in results that were saved in `folder`. A place counts as found from the cosine `level` on;
    /// `None` is halfway from the median to the best.
    ///
    /// # Errors
    /// [`SessionError::NoResults`], [`SessionError::NoQuestion`], [`SessionError::OtherWeights`] where the features were made
    /// with other weights, and what loading and reading give.
    pub fn query_above(
        &self,
        folder: &Path,
        question: &str,
        level: Option<f32>,
        timer: &mut StageTimer<'_>,
    ) -> Result<Answer, SessionError> {
        question::ask(&self.device, &self.networks, folder, question, level, timer)
    }

    /// Features of a scan by Sonata. `voxel` is the edge of a voxel in the scan's unit, 2 cm where it is `None`; `up` says
    /// which way is up where the scan does not tell.
    ///
    /// # Errors
    /// [`SessionError::Store`] where weights are missing, [`SessionError::NeedsConfiguration`], [`SessionError::Pipeline`].
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
        let (voxel_size, why) = voxel.map_or_else(|| voxel_size(scene), |voxel| (voxel, None));
        notes.extend(why);
        let usual = Options { up: up.or(scene.up), ..Options::default() };
        let up = usual.up.unwrap_or_else(|| virtual_cameras(&scene.to_cameras(), &usual).up);
        let options = EncodeOptions { voxel_size, up, compat: Compat::Fixed };
        let encoding = encode(scene, &sonata, &options, &self.device.device, timer)?;
        notes.extend(encoding.notes.iter().cloned());
        Ok(Encoded { encoding, voxel_size, up, notes })
    }

    /// Purifies `features [N, C]` of the points of a scan, a row for every point with a position.
    ///
    /// # Errors
    /// [`SessionError::Store`] where the student is missing, [`SessionError::Purify`].
    pub fn purify(
        &self,
        scene: &Scene,
        features: &dyn FeatureSource,
        affinities: AffinityKind,
        settings: purify::Settings,
        timer: &mut StageTimer<'_>,
    ) -> Result<Purified, SessionError> {
        let student = (affinities == AffinityKind::Learned).then(|| self.networks.open_student()).transpose()?;
        let student = student.map(|student| student.load(&self.device.device)).transpose()?;
        let affinities = affinities.with(student.as_ref());
        Ok(purify::purify(scene.to_purify(), features, affinities, settings, &self.device.device, timer)?)
    }
}

/// A scan that Sonata encoded.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// The features by cell.
    pub encoding: Encoding,
    /// Edge of a voxel, in the scan's unit.
    pub voxel_size: f64,
    /// Which way is up.
    pub up: DVec3,
    /// What the user should know.
    pub notes: Vec<String>,
}
