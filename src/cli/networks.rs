//! Which weights are used, on the command line.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use super::weights::PrecisionArg;
use crate::gpu::DeviceSelection;
use crate::ops::conv2d::Precision;
use crate::session::{Network, NetworkChoice, Networks, Session, SessionError};

/// Which X-Decoder is used.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct XDecoderArgs {
    /// Weights of X-Decoder: .pt as the reference publishes it, safetensors, or a name in the store
    /// [default: the store's `xdecoder`, else the built-in `xdecoder-demo`]
    #[arg(long, value_name = "FILE|NAME")]
    xdecoder: Option<PathBuf>,
    /// X-Decoder's configuration, where a file's shapes do not tell it (JSON)
    #[arg(long, value_name = "FILE")]
    xdecoder_config: Option<PathBuf>,
    /// How its weights are held: f32 is the reference, f16 takes half the memory
    #[arg(long, value_enum, default_value_t = PrecisionArg::F32)]
    precision: PrecisionArg,
}

impl XDecoderArgs {
    pub(super) fn networks(&self) -> Networks {
        Networks {
            xdecoder: NetworkChoice { weights: self.xdecoder.clone(), config: self.xdecoder_config.clone() },
            precision: match self.precision {
                PrecisionArg::F32 => Precision::F32,
                PrecisionArg::F16 => Precision::F16,
            },
            ..Networks::default()
        }
    }
}

/// Which Sonata is used.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct TeacherArgs {
    /// Weights of Sonata: .pth as the reference publishes it, safetensors, or a name in the store
    /// [default: the store's `sonata`, else the built-in `sonata-demo`]
    #[arg(long, value_name = "FILE|NAME")]
    teacher: Option<PathBuf>,
    /// Sonata's configuration, where neither the file nor its shapes tell it (JSON)
    #[arg(long, value_name = "FILE")]
    teacher_config: Option<PathBuf>,
}

impl TeacherArgs {
    pub(super) fn choice(&self) -> NetworkChoice {
        NetworkChoice { weights: self.teacher.clone(), config: self.teacher_config.clone() }
    }
}

/// Opens a session for `needed`, and says which device it is on and whether the demo stands in.
pub(super) fn open_session(device: DeviceSelection, networks: Networks, needed: &[Network]) -> Result<Session> {
    if networks.are_demo(needed) {
        eprintln!(
            "no published weights are installed, so the built-in demo is used: small networks that know made rooms and \
             little else; `geopurify weights list` says how to get the published ones"
        );
    }
    let session = Session::with(device, networks)?;
    eprintln!("device: {} ({})", session.device().name, session.device().why);
    Ok(session)
}

/// Adds the option that gives a configuration where one is needed.
pub(super) trait WayOut<T> {
    /// `option` takes the configuration's file.
    fn or_configuration(self, option: &str) -> Result<T>;
}

impl<T> WayOut<T> for Result<T, SessionError> {
    fn or_configuration(self, option: &str) -> Result<T> {
        match self {
            Err(error @ SessionError::NeedsConfiguration { .. }) => {
                Err(error).context(format!("give the model's configuration with {option} FILE.json"))
            }
            other => Ok(other?),
        }
    }
}
