//! How scans and recordings are read and seen, on the command line.

use glam::DVec3;

use crate::pipeline::Compat;
use crate::session::ViewSettings;
use crate::views::virtual_cameras::SceneKind;
use crate::views::{Axes, Direction, Layout, PoseConvention};

/// Arguments that say how scans and recordings are looked at.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct ViewingArgs {
    /// Most views [default: 60 drawn ones; every 20th frame of a recording, 60 at least]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    views: Option<u32>,
    /// Layout of the recording, where its content does not tell
    #[arg(long, value_name = "NAME")]
    layout: Option<Layout>,
    /// Numbers in a depth map that make a metre, where they are not those of the layout
    #[arg(long, value_name = "N")]
    depth_units: Option<f64>,
    /// How the recording's poses are written, where that is not as in its layout: what they map, then the camera's axes
    #[arg(long, value_enum, value_name = "CONVENTION")]
    poses: Option<PosesArg>,
    /// What the scan shows, where its shape does not tell
    #[arg(long, value_enum, value_name = "KIND")]
    scene: Option<SceneArg>,
    /// Which way is up, where the scan does not tell
    #[arg(long, value_enum, value_name = "AXIS", allow_hyphen_values = true)]
    up: Option<UpArg>,
    /// Where the published code and this program differ: fixed is right, reference does as published
    #[arg(long, default_value_t)]
    compat: Compat,
    /// Longer edge at which the model sees pictures; 0 leaves recorded ones as they are [default: that of the pictures it was
    /// trained on, 648 for the published one]
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(..=4000))]
    size: Option<u32>,
    /// Memory for temporary values, in MiB; results do not depend on it
    #[arg(long, value_name = "MIB", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..))]
    working_memory: u32,
}

/// A pose convention on the command line.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum PosesArg {
    CameraToWorldOpencv,
    CameraToWorldOpengl,
    WorldToCameraOpencv,
    WorldToCameraOpengl,
}

impl From<PosesArg> for PoseConvention {
    fn from(arg: PosesArg) -> Self {
        let (direction, axes) = match arg {
            PosesArg::CameraToWorldOpencv => (Direction::CameraToWorld, Axes::OpenCv),
            PosesArg::CameraToWorldOpengl => (Direction::CameraToWorld, Axes::OpenGl),
            PosesArg::WorldToCameraOpencv => (Direction::WorldToCamera, Axes::OpenCv),
            PosesArg::WorldToCameraOpengl => (Direction::WorldToCamera, Axes::OpenGl),
        };
        Self { axes, direction }
    }
}

/// A kind of scene on the command line.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum SceneArg {
    Interior,
    Scanner,
    Object,
    Terrain,
}

impl From<SceneArg> for SceneKind {
    fn from(arg: SceneArg) -> Self {
        match arg {
            SceneArg::Interior => Self::Interior,
            SceneArg::Scanner => Self::SingleViewpoint,
            SceneArg::Object => Self::Object,
            SceneArg::Terrain => Self::Terrain,
        }
    }
}

/// A direction on the command line.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(super) enum UpArg {
    #[value(name = "x")]
    X,
    #[value(name = "y")]
    Y,
    #[value(name = "z")]
    Z,
    #[value(name = "-x")]
    NegX,
    #[value(name = "-y")]
    NegY,
    #[value(name = "-z")]
    NegZ,
}

impl From<UpArg> for DVec3 {
    fn from(arg: UpArg) -> Self {
        match arg {
            UpArg::X => Self::X,
            UpArg::Y => Self::Y,
            UpArg::Z => Self::Z,
            UpArg::NegX => Self::NEG_X,
            UpArg::NegY => Self::NEG_Y,
            UpArg::NegZ => Self::NEG_Z,
        }
    }
}

impl ViewingArgs {
    pub(super) fn settings(&self) -> ViewSettings {
        ViewSettings {
            max_views: self.views.map(|views| views as usize),
            layout: self.layout,
            depth_units: self.depth_units,
            poses: self.poses.map(PoseConvention::from),
            kind: self.scene.map(SceneKind::from),
            up: self.up.map(DVec3::from),
            compat: self.compat,
            size: self.size,
            working_memory: self.working_memory,
        }
    }
}
