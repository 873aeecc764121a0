//! The weights that are given or installed, and what rows lack.

use std::path::PathBuf;

use super::data::Scenes;
use super::table::{DataSet, Learner, Step, Training, Way};
use crate::models::minkunet::TextSpace;
use crate::session::{ImageModelKind, Network, NetworkChoice, Networks, SessionError};

/// Names under which published 3D networks are installed.
const OPENSCENE: &str = "openscene";
const CUA_O3D: &str = "cua-o3d";

/// Weights that the rows use, as far as they are not trained here.
#[derive(Clone, Debug, PartialEq)]
pub struct Given {
    /// Weights as other commands take them. The student and the 3D network are for the rows of their own.
    pub networks: Networks,
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

    /// The choice of OpenScene's network. The demo's is no stand-in for it.
    pub(super) fn openscene(&self) -> NetworkChoice {
        let NetworkChoice { weights, config } = self.networks.openscene.clone();
        NetworkChoice { weights: weights.or_else(|| Some(OPENSCENE.into())), config }
    }

    /// The choice of CUA-O3D's network.
    pub(super) fn cua(&self) -> NetworkChoice {
        NetworkChoice { weights: self.cua.clone().or_else(|| Some(CUA_O3D.into())), config: None }
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
            Way::OpenScene => self.open_network(self.openscene()),
            Way::CuaO3d => self.open_network(self.cua()),
        };
        if let Err(error) = weights {
            let hint = match step.way {
                Way::CuaO3d => {
                    ". CUA-O3D's repository links no trained network; a checkpoint of it is installed by \
                                geopurify weights import openscene FILE --name cua-o3d, or given by --cua FILE"
                }
                _ => "",
            };
            lacks.push(format!("{error}{hint}"));
        }
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
