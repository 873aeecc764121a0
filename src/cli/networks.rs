//! Options that choose the weights of the networks.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

use super::say;
use super::shown::plain;
use crate::gpu::{DeviceSelection, Selected, select};
use crate::ops::conv2d::Precision;
use crate::session::{ImageModelKind, Network, NetworkChoice, Networks, Session, SessionError};

/// Options for X-Decoder.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct XDecoderArgs {
    /// Weights of X-Decoder: the published .pt, safetensors, or a name in the store [default: the store's
    /// `xdecoder`, else the built-in `xdecoder-demo`]
    #[arg(long, value_name = "FILE|NAME")]
    xdecoder: Option<PathBuf>,
    /// X-Decoder's configuration (JSON), if the shapes in the file do not determine it
    #[arg(long, value_name = "FILE")]
    xdecoder_config: Option<PathBuf>,
    /// Precision of the image model's weights: f32 as in the reference; f16 for half the memory; bf16, on the host, for
    /// half the memory and, on processors with AVX-512 for it, some 1.5 times the speed, with features that differ more
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
                PrecisionArg::Bf16 => Precision::Bf16,
            },
            ..Networks::default()
        }
    }
}

/// Precision of weights in memory.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum PrecisionArg {
    F32,
    F16,
    Bf16,
}

/// Options for LSeg.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct LSegArgs {
    /// Weights of LSeg: the published .ckpt, safetensors, or a name in the store [default: the store's `lseg`]
    #[arg(long, value_name = "FILE|NAME")]
    lseg: Option<PathBuf>,
    /// LSeg's configuration (JSON), if the shapes in the file do not determine it
    #[arg(long, value_name = "FILE")]
    lseg_config: Option<PathBuf>,
}

impl LSegArgs {
    pub(super) fn choice(&self) -> NetworkChoice {
        NetworkChoice { weights: self.lseg.clone(), config: self.lseg_config.clone() }
    }
}

/// Options for the model that sees pictures.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct ImageModelArgs {
    /// Model that sees pictures: xdecoder finds masks and embeds them, lseg gives every pixel a feature in the space of
    /// CLIP [default: xdecoder; lseg if its weights are given]
    #[arg(long, value_name = "NAME")]
    image_model: Option<ImageModelKind>,
    #[command(flatten)]
    xdecoder: XDecoderArgs,
    #[command(flatten)]
    lseg: LSegArgs,
}

impl ImageModelArgs {
    pub(super) fn kind(&self) -> ImageModelKind {
        let usual = if self.lseg.lseg.is_some() { ImageModelKind::LSeg } else { ImageModelKind::XDecoder };
        self.image_model.unwrap_or(usual)
    }

    pub(super) fn networks(&self) -> Networks {
        Networks { lseg: self.lseg.choice(), ..self.xdecoder.networks() }
    }

    /// Fails if weights of an image model are given that is not used.
    pub(super) fn check(&self) -> Result<()> {
        let given = [(ImageModelKind::XDecoder, &self.xdecoder.xdecoder), (ImageModelKind::LSeg, &self.lseg.lseg)];
        match given.into_iter().find(|(kind, weights)| *kind != self.kind() && weights.is_some()) {
            Some((unused, _)) => {
                bail!(
                    "--{unused} has no use: {} sees the pictures; --image-model {unused} chooses the other",
                    self.kind()
                )
            }
            None => Ok(()),
        }
    }
}

/// Options for CLIP's text side.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct ClipArgs {
    /// Weights of CLIP's text side, for a published 3D network: OpenAI's archive, safetensors, or a name in the
    /// store [default: the store's clip-vit-b-32 or clip-vit-l-14-336, as the network needs]
    #[arg(long, value_name = "FILE|NAME")]
    clip: Option<PathBuf>,
}

impl ClipArgs {
    pub(super) fn choice(&self) -> NetworkChoice {
        NetworkChoice { weights: self.clip.clone(), config: None }
    }
}

/// Options for Sonata.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct TeacherArgs {
    /// Weights of Sonata or Concerto: the published .pth, safetensors, or a name in the store [default: the
    /// store's `sonata`, else the built-in `sonata-demo`]
    #[arg(long, value_name = "FILE|NAME")]
    teacher: Option<PathBuf>,
    /// Sonata's configuration (JSON), if neither the file nor its shapes determine it
    #[arg(long, value_name = "FILE")]
    teacher_config: Option<PathBuf>,
}

impl TeacherArgs {
    pub(super) fn choice(&self) -> NetworkChoice {
        NetworkChoice { weights: self.teacher.clone(), config: self.teacher_config.clone() }
    }
}

/// Opens a session that needs the networks `needed`. Prints the device, and a note if the demo is used.
pub(super) fn open_session(device: DeviceSelection, networks: Networks, needed: &[Network]) -> Result<Session> {
    let is_demo = !needed.is_empty() && networks.are_demo(needed);
    if is_demo {
        say::line(
            "no published weights are installed, so the built-in demo is used. Its small networks know synthetic rooms and \
             little else. `geopurify weights list` says how to get the published ones",
        );
    }
    let chosen = networks.with_demo(needed);
    if !is_demo && chosen.xdecoder != networks.xdecoder {
        say::line("the student has the width of the built-in demo, so it is used with the demo's X-Decoder");
    }
    let session = Session::with(device, networks)?;
    say_device(session.device());
    Ok(session)
}

/// Writes the device and the weights that a run would use. A missing device and missing weights are faults too.
pub(super) fn write_used(
    out: &mut dyn Write,
    device: DeviceSelection,
    networks: &Networks,
    needed: &[Network],
) -> Result<()> {
    for origin in networks.origins(needed)? {
        writeln!(out, "weights: {}", plain(&origin))?;
    }
    writeln!(out, "device: {}", select(device)?.name)?;
    Ok(())
}

/// Prints the device and why it was taken.
pub(super) fn say_device(device: &Selected) {
    say::line(&format!("device: {} ({})", device.name, device.why));
}

/// Adds to an error the option that takes the missing configuration.
pub(super) trait WayOut<T> {
    /// The same result, its error with the option.
    fn or_configuration(self) -> Result<T>;
}

impl<T> WayOut<T> for Result<T, SessionError> {
    fn or_configuration(self) -> Result<T> {
        match self {
            Err(error @ SessionError::NeedsConfiguration { model, .. }) => {
                let option = configuration_option(model);
                Err(error).context(format!("give the model's configuration with {option} FILE.json"))
            }
            other => Ok(other?),
        }
    }
}

/// The option that takes the configuration of the network `model`.
pub(super) fn configuration_option(model: &str) -> &'static str {
    match model {
        "sonata" => "--teacher-config",
        "lseg" => "--lseg-config",
        _ => "--xdecoder-config",
    }
}
