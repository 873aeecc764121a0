//! The teacher on the command line.

use std::path::{Path, PathBuf};

use anyhow::Result;
use burn::prelude::Device;

use super::segment::XDecoderArgs;
use super::weights::{WeightsOrigin, configuration, demo_of, demo_stands_in, open_weights};
use crate::models::sonata::{Sonata, SonataConfig};
use crate::weights::WeightsFile;

/// Which Sonata to load.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct TeacherArgs {
    /// Weights of Sonata: .pth as the reference publishes it, safetensors, or a name in the store
    /// [default: the store's `sonata`, else the built-in `sonata-demo`]
    #[arg(long, value_name = "FILE|NAME")]
    teacher: Option<PathBuf>,
    /// Sonata's configuration, where neither the file holds it nor its shapes tell it (JSON)
    #[arg(long, value_name = "FILE")]
    teacher_config: Option<PathBuf>,
}

/// The weights of a Sonata, open, with what is known of them.
pub(super) struct OpenTeacher {
    weights: WeightsFile,
    pub(super) config: SonataConfig,
    pub(super) origin: WeightsOrigin,
}

impl TeacherArgs {
    /// Opens the weights and finds out their configuration.
    pub(super) fn open(&self) -> Result<OpenTeacher> {
        OpenTeacher::new(self.teacher.as_deref(), self.teacher_config.as_deref())
    }
}

/// The frozen models that a student is distilled from: those of the demo where neither is given or installed.
pub(super) fn frozen_models(xdecoder: &XDecoderArgs, teacher: &TeacherArgs) -> (XDecoderArgs, TeacherArgs) {
    let (mut xdecoder, mut teacher) = (xdecoder.clone(), teacher.clone());
    if xdecoder.is_usual() && teacher.teacher.is_none() && demo_stands_in(&["xdecoder", "sonata"]) {
        xdecoder.take_demo();
        teacher.teacher = demo_of("sonata");
    }
    (xdecoder, teacher)
}

impl OpenTeacher {
    /// Opens weights, with their configuration: given, of the store, of the checkpoint itself, or as the shapes tell.
    pub(super) fn new(given: Option<&Path>, config: Option<&Path>) -> Result<Self> {
        let (weights, manifest) = open_weights(given, "sonata")?;
        let origin = WeightsOrigin::new(given, "sonata", manifest.as_ref());
        let config = configuration(&weights, manifest, config, "sonata", |shapes| {
            SonataConfig::of(shapes).unwrap_or_else(SonataConfig::published)
        })?;
        Ok(Self { weights, config, origin })
    }

    /// Loads the model.
    pub(super) fn load(&mut self, device: &Device) -> Result<Sonata> {
        let (model, report) = Sonata::load(&mut self.weights, &self.config, device)?;
        log::info!("{report}");
        Ok(model)
    }
}
