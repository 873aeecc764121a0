//! The weights that are given or installed, and what rows lack.

use std::path::PathBuf;

use super::data::Scenes;
use super::table::{DataSet, Learner, Step, Training, Way};
use crate::models::minkunet::TextSpace;
use crate::session::{ImageModelKind, Network, NetworkChoice, Networks, SessionError};
use crate::weights::registry::Registry;
use crate::weights::store::StoreError;

/// Names under which published 3D networks are installed: OpenScene's of ScanNet and of Matterport3D, and CUA-O3D's.
const OPENSCENE: [&str; 2] = ["openscene", "openscene-matterport"];
const CUA_O3D: &str = "cua-o3d";

/// Weights that the rows use, as far as they are not trained here.
#[derive(Clone, Debug, PartialEq)]
pub struct Given {
    /// Weights as other commands take them. The student is for the row of its own; the 3D network is not used.
    pub networks: Networks,
    /// OpenScene's 3D networks of ScanNet and of Matterport3D; `None` for the store's `openscene` and
    /// `openscene-matterport`.
    pub openscene: [Option<PathBuf>; 2],
    /// CUA-O3D's 3D network; `None` for the store's `cua-o3d`.
    pub cua: Option<PathBuf>,
}

/// The networks with the demo's X-Decoder and Sonata named where they stand in for missing ones, so that they stay
/// the same whatever else is loaded.
pub(super) fn pinned(networks: &Networks, image_model: ImageModelKind) -> Networks {
    networks.with_demo(&[image_model.network(), Network::Sonata])
}

impl Given {
    /// The networks with the student that is given or installed, or both of the demo.
    pub(super) fn with_student(&self) -> Networks {
        self.networks.with_demo(&[Network::XDecoder, Network::Student])
    }

    /// The choice of OpenScene's network for a data set. The demo's is no stand-in for it.
    pub(super) fn openscene(&self, data: DataSet) -> NetworkChoice {
        let usual = || OPENSCENE[data as usize].into();
        NetworkChoice { weights: Some(self.openscene[data as usize].clone().unwrap_or_else(usual)), config: None }
    }

    /// The choice of CUA-O3D's network.
    pub(super) fn cua(&self) -> NetworkChoice {
        NetworkChoice { weights: Some(self.cua.clone().unwrap_or_else(|| CUA_O3D.into())), config: None }
    }

    /// What a step lacks: data and weights, each with the way to get it.
    pub(super) fn lacks(&self, step: Step, scenes: &[Option<Scenes>; 2]) -> Vec<String> {
        let mut lacks: Vec<String> = Vec::new();
        let training = step.way.training();
        for data in DataSet::ALL {
            let is_needed = data == step.data || training.is_some_and(|training| training.data == data);
            if is_needed && scenes[data as usize].is_none() {
                lacks.push(format!("scenes of {data}: give their folder with --{}", data.key()));
            }
        }
        if let Some(training) = training
            && let Some(found) = &scenes[training.data as usize]
            && found.training.len() < training.scenes
        {
            let (there, data) = (found.training.len(), training.data);
            lacks.push(format!("{} scenes of {data} to learn from: there are {there}", training.scenes));
        }
        let weights = match step.way {
            Way::Lifted(image_model) => self.open_image_model(image_model),
            Way::Student(training, _) | Way::Network(training) => self.open_teachers(training),
            Way::GivenStudent(_) => self.networks.origins(&[Network::XDecoder, Network::Student]).map(drop),
            Way::OpenScene => self.open_network(self.openscene(step.data)),
            Way::CuaO3d => self.open_network(self.cua()),
        };
        lacks.extend(weights.err().map(|error| way_to_get(&error)));
        lacks
    }

    fn open_image_model(&self, image_model: ImageModelKind) -> Result<(), SessionError> {
        let networks = pinned(&self.networks, image_model);
        match image_model {
            ImageModelKind::XDecoder => networks.open_xdecoder().map(drop),
            ImageModelKind::LSeg => networks.open_lseg().map(drop),
        }
    }

    fn open_teachers(&self, training: Training) -> Result<(), SessionError> {
        let image_model = match training.learner {
            Learner::Student(_, image_model) => image_model,
            Learner::Network => ImageModelKind::XDecoder,
        };
        self.open_image_model(image_model)?;
        pinned(&self.networks, image_model).open_sonata().map(drop)
    }

    /// Opens a published 3D network and what embeds its words.
    fn open_network(&self, choice: NetworkChoice) -> Result<(), SessionError> {
        let networks = Networks { openscene: choice, ..pinned(&self.networks, ImageModelKind::XDecoder) };
        let opened = networks.open_openscene()?;
        match opened.config.text {
            TextSpace::XDecoder => networks.open_xdecoder().map(drop),
            TextSpace::Clip => networks.open_clip(opened.config.text_width()).map(drop),
        }
    }
}

/// What is missing, and how to get it. It names no folder of this machine, so that tables are the same everywhere.
fn way_to_get(error: &SessionError) -> String {
    let SessionError::Store(StoreError::Missing { name, .. }) = error else { return error.to_string() };
    if name == CUA_O3D {
        return "CUA-O3D's 3D network: its repository links no trained one. A checkpoint of it is installed by: geopurify \
                weights import openscene FILE --name cua-o3d"
            .to_owned();
    }
    let registry = Registry::load(None);
    match registry.as_ref().ok().and_then(|registry| registry.get(name).ok()) {
        Some(published) => format!("{}: {}", published.about, published.how_to_get()),
        None => format!("weights '{name}' are not installed"),
    }
}
