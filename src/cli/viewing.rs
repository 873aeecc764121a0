//! Options for reading scans and recordings, and for choosing views.

use glam::DVec3;

use super::numbers::length;
use crate::pipeline::Compat;
use crate::session::ViewSettings;
use crate::views::check::Reading;
use crate::views::virtual_cameras::SceneKind;
use crate::views::{Axes, Direction, Layout, PoseConvention};

/// Options for reading scans and recordings, and for choosing views.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct ViewingArgs {
    /// Number of views at most [default: 60 drawn views; every 20th frame of a recording, but at least 60]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    views: Option<u32>,
    /// Layout of the recording, if its content does not tell
    #[arg(long, value_name = "NAME")]
    layout: Option<Layout>,
    /// Depth map values per metre, if they differ from the layout's
    #[arg(long, value_name = "N", value_parser = length)]
    depth_units: Option<f64>,
    /// How the recording's poses are stored, if it differs from the layout's: the direction that a pose maps
    /// and the camera's axes, or another order of numbers
    #[arg(long, value_enum, value_name = "CONVENTION")]
    poses: Option<PosesArg>,
    /// Kind of scene, if the scan's shape does not tell
    #[arg(long, value_enum, value_name = "KIND")]
    scene: Option<SceneArg>,
    /// Direction that points up, if the scan does not tell
    #[arg(long, value_enum, value_name = "AXIS", allow_hyphen_values = true)]
    up: Option<UpArg>,
    /// Behaviour where this program differs from the published code: fixed does it right, reference does it
    /// as published
    #[arg(long, default_value_t)]
    compat: Compat,
    /// Length of the longer edge of the pictures that the model sees; 0 keeps recorded pictures as they are
    /// [default: as in the model's training, 648 for the published weights]
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(..=4000))]
    size: Option<u32>,
    /// Memory for temporary values, in MiB; it does not change the results
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
    /// As the layout has them, with quaternions stored as w x y z
    QuaternionsWFirst,
    /// As the layout has them, with rotations stored column by column
    RotationsTransposed,
    /// Of a robot's body: x forward, y left, z up
    RobotBody,
}

impl From<PosesArg> for Reading {
    fn from(arg: PosesArg) -> Self {
        let (direction, axes) = match arg {
            PosesArg::CameraToWorldOpencv => (Direction::CameraToWorld, Axes::OpenCv),
            PosesArg::CameraToWorldOpengl => (Direction::CameraToWorld, Axes::OpenGl),
            PosesArg::WorldToCameraOpencv => (Direction::WorldToCamera, Axes::OpenCv),
            PosesArg::WorldToCameraOpengl => (Direction::WorldToCamera, Axes::OpenGl),
            PosesArg::QuaternionsWFirst => return Self::ScalarFirst,
            PosesArg::RotationsTransposed => return Self::Transposed,
            PosesArg::RobotBody => return Self::Body,
        };
        Self::Convention(PoseConvention { axes, direction })
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
            poses: self.poses.map(Reading::from),
            kind: self.scene.map(SceneKind::from),
            up: self.up.map(DVec3::from),
            compat: self.compat,
            size: self.size,
            working_memory: self.working_memory,
        }
    }
}
