//! Scans and recordings on the command line, and where they are looked at from.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use burn::prelude::Device;
use glam::DVec3;

use crate::models::xdecoder::XDecoderConfig;
use crate::ops::project::Visibility;
use crate::pipeline::{Appearance, Compat, LookOptions, Scene, Views, recorded_cameras};
use crate::stages::Laps;
use crate::views::check::{Verdict, check};
use crate::views::fuse::FuseOptions;
use crate::views::render::Renderer;
use crate::views::virtual_cameras::{self, SceneKind, VirtualCameras, virtual_cameras};
use crate::views::{Axes, Dataset, Direction, Layout, OpenOptions, PoseConvention, detect, open};

/// Extensions of scans, for folders of them; files of plain text may be anything and have to be named.
pub(super) const SCAN_EXTENSIONS: [&str; 7] = ["ply", "las", "laz", "pcd", "e57", "xyz", "pts"];

/// Longer edge of pictures for the published model, as the reference has it.
const USUAL_SIZE: u32 = 648;

/// Arguments that say how scans and recordings are looked at.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct ViewingArgs {
    /// Most views [default: 60 drawn ones; every 20th frame of a recording, 60 at least]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) views: Option<u32>,
    /// Layout of the recording, where its content does not tell
    #[arg(long, value_name = "NAME")]
    pub(super) layout: Option<Layout>,
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
    pub(super) compat: Compat,
    /// Longer edge at which the model sees pictures; 0 leaves recorded ones as they are [default: that of the pictures it was
    /// trained on, 648 for the published one]
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(..=4000))]
    size: Option<u32>,
    /// Memory for temporary values, in MiB; results do not depend on it
    #[arg(long, value_name = "MIB", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) working_memory: u32,
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
    /// Opens a recording and says what is known of it.
    fn open_recording(&self, path: &Path) -> Result<Box<dyn Dataset>> {
        let options = OpenOptions {
            layout: self.layout,
            depth_units_per_meter: self.depth_units,
            pose: self.poses.map(PoseConvention::from),
        };
        let dataset = open(path, &options)?;
        eprintln!("recording: {}, {}; {}", dataset.layout(), dataset.counts(), dataset.conventions());
        for note in dataset.notes() {
            eprintln!("note: {note}");
        }
        if dataset.counts().with_depth > 0 && dataset.conventions().pose.is_some() {
            let checked = check(&*dataset)?;
            let is_wrong = matches!(checked.verdict, Verdict::Contradicted(_)) || checked.depth_factor.is_some();
            let say = if is_wrong { "warning" } else { "note" };
            eprintln!("{say}: {checked}");
            if is_wrong {
                eprintln!("--poses and --depth-units set what the recording does not say rightly");
            }
        }
        Ok(dataset)
    }

    /// With what was not given as suits the model.
    pub(super) fn for_model(&self, model: &XDecoderConfig) -> Self {
        Self { size: Some(self.size.or(model.image_size).unwrap_or(USUAL_SIZE)), ..self.clone() }
    }

    /// Longer edge at which the model sees pictures.
    pub(super) fn size(&self) -> u32 {
        self.size.unwrap_or(USUAL_SIZE)
    }

    /// What decides how a scene is looked at, as a text that differs where the result may.
    pub(super) fn key(&self) -> String {
        format!("{:?}", Self { working_memory: 0, ..self.clone() })
    }

    pub(super) fn max_views(&self) -> Option<usize> {
        self.views.map(|views| views as usize)
    }

    /// The frames of a recording without poses that are looked at, each a scan of its own.
    pub(super) fn frames_alone(&self, dataset: &dyn Dataset) -> Vec<usize> {
        let all: Vec<usize> = (0..dataset.len()).collect();
        self.compat.frames(&all, self.max_views())
    }

    /// How views are looked at.
    pub(super) fn look_options(&self) -> LookOptions {
        LookOptions {
            compat: self.compat,
            longest: self.size() as usize,
            visibility: Visibility::default(),
            working_bytes: u64::from(self.working_memory) << 20,
        }
    }

    /// How cameras are placed for a scan.
    fn camera_options(&self, scene: &Scene) -> virtual_cameras::Options {
        let usual = virtual_cameras::Options::default();
        let [height, width] = drawn_size(self.size());
        virtual_cameras::Options {
            up: self.up.map(DVec3::from).or(scene.up),
            kind: self.scene.map(SceneKind::from),
            max_views: self.max_views().unwrap_or(usual.max_views),
            width,
            height,
            ..usual
        }
    }
}

/// Height and width of drawn pictures.
fn drawn_size(longest: u32) -> [usize; 2] {
    let usual = virtual_cameras::Options::default();
    match longest as usize {
        0 => [usual.height, usual.width],
        longest => [(longest * usual.height / usual.width).max(1), longest],
    }
}

/// What a scan is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Scan(PathBuf),
    ScanInRecording { scan: PathBuf, recording: PathBuf },
    Recording(PathBuf),
}

/// What a [`Source`] turns out to be.
pub(super) enum Opened {
    /// One scan, and the recording that it is looked at in.
    Scan(Box<Scene>, Option<Box<dyn Dataset>>),
    /// A recording without poses: each frame is a scan of its own.
    Frames(Box<dyn Dataset>),
}

impl Source {
    /// What `path` holds: a recording, a scan, or the scans of a folder.
    pub(super) fn at(path: &Path, layout: Option<Layout>) -> Result<Vec<Self>> {
        if !path.is_dir() {
            let is_recording = detect(path).is_ok();
            return Ok(vec![if is_recording { Self::Recording(path.into()) } else { Self::Scan(path.into()) }]);
        }
        let scans = scans_in(path)?;
        match layout.map_or_else(|| detect(path), Ok) {
            Ok(layout) if layout != Layout::Images || scans.is_empty() => Ok(vec![Self::Recording(path.into())]),
            Err(error) if scans.is_empty() => {
                Err(error).with_context(|| format!("{}: no scan in this folder", path.display()))
            }
            _ => Ok(scans.into_iter().map(Self::Scan).collect()),
        }
    }

    /// The file or folder that names it.
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Scan(path) | Self::Recording(path) | Self::ScanInRecording { scan: path, .. } => path,
        }
    }

    /// Reads the scan, and opens the recording.
    pub(super) fn open(&self, viewing: &ViewingArgs, laps: &mut Laps) -> Result<Opened> {
        match self {
            Self::Scan(path) => {
                let scene = Scene::read(path)?;
                laps.lap("read scan");
                Ok(Opened::Scan(Box::new(scene), None))
            }
            Self::ScanInRecording { scan, recording } => {
                let mut scene = Scene::read(scan)?;
                laps.lap("read scan");
                let dataset = viewing.open_recording(recording)?;
                if dataset.conventions().pose.is_none() {
                    bail!(
                        "{}: the recording has no poses, so nothing says where in the scan its frames are",
                        recording.display()
                    );
                }
                if dataset.conventions().mirrored {
                    scene = scene.mirrored();
                }
                laps.lap("open recording");
                Ok(Opened::Scan(Box::new(scene), Some(dataset)))
            }
            Self::Recording(path) => {
                let dataset = viewing.open_recording(path)?;
                laps.lap("open recording");
                if dataset.conventions().pose.is_none() {
                    return Ok(Opened::Frames(dataset));
                }
                let scene = Scene::of_recording(&*dataset, &FuseOptions::default())?;
                laps.lap("fuse depth");
                Ok(Opened::Scan(Box::new(scene), Some(dataset)))
            }
        }
    }
}

/// The scans in a folder, by name.
fn scans_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut scans: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    scans.retain(|path| {
        let extension = path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
        path.is_file() && SCAN_EXTENSIONS.contains(&extension.as_str())
    });
    scans.sort();
    Ok(scans)
}

/// The name of a scan's file or of a recording's folder.
pub(super) fn stem(path: &Path) -> String {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    let name = if path.is_dir() { path.file_name() } else { path.file_stem() };
    name.map_or("scene".to_owned(), |name| name.to_string_lossy().into_owned())
}

/// Where the views of a scan come from.
#[derive(Clone, Copy)]
pub(super) enum Look<'a> {
    Drawn,
    Recorded(&'a dyn Dataset),
    Frame(&'a dyn Dataset, usize),
}

impl<'a> Look<'a> {
    /// As [`Opened`] has it.
    pub(super) fn of(dataset: Option<&'a dyn Dataset>) -> Self {
        dataset.map_or(Self::Drawn, Self::Recorded)
    }
}

/// A scan ready to be drawn and looked at.
pub(super) struct Placed<'a> {
    pub(super) cameras: VirtualCameras,
    pub(super) appearance: Appearance,
    pub(super) renderer: Renderer,
    /// What the user should know.
    pub(super) notes: Vec<String>,
    look: Look<'a>,
    frames: Vec<usize>,
}

impl<'a> Placed<'a> {
    pub(super) fn new(scene: &Scene, look: Look<'a>, viewing: &ViewingArgs, device: &Device) -> Result<Self> {
        let cameras = virtual_cameras(&scene.to_cameras(), &viewing.camera_options(scene));
        let appearance = scene.appearance(cameras.up);
        let renderer = Renderer::new(&appearance.of(scene), device)?;
        let mut notes = Vec::new();
        if renderer.fell_back() {
            notes.push("the scan does not fit one buffer of the device: pictures of it are drawn by the host".into());
        }
        let mut frames = Vec::new();
        match look {
            Look::Drawn => notes.push(format!(
                "{} virtual cameras for a scene of kind {}: {:.1} % of the points in at least one picture, {:.1} % in three",
                cameras.cameras.len(),
                cameras.kind,
                100.0 * cameras.seen_once,
                100.0 * cameras.seen_enough
            )),
            Look::Recorded(dataset) => {
                let posed: Vec<usize> = (0..dataset.len()).filter(|&i| dataset.frames()[i].pose.is_some()).collect();
                frames = viewing.compat.frames(&posed, viewing.max_views());
                let counts = dataset.counts();
                if counts.invalid_poses > 0 {
                    notes.push(format!("{} frames with an invalid pose were left out", counts.invalid_poses));
                }
            }
            Look::Frame(..) => {}
        }
        Ok(Self { cameras, appearance, renderer, notes, look, frames })
    }

    /// The views to look at.
    pub(super) fn views(&self) -> Views<'_> {
        match self.look {
            Look::Drawn => Views::Virtual(&self.cameras.cameras),
            Look::Recorded(dataset) => Views::Recorded { dataset, frames: &self.frames },
            Look::Frame(dataset, frame) => Views::Alone { dataset, frame },
        }
    }

    /// The cameras that pictures of the results are chosen from.
    pub(super) fn shown_from(&self) -> VirtualCameras {
        match self.look {
            Look::Recorded(dataset) => recorded_cameras(dataset, &self.frames, &self.cameras),
            Look::Frame(..) | Look::Drawn => self.cameras.clone(),
        }
    }

    /// The recording they are of.
    pub(super) fn recording(&self) -> Option<&'a Path> {
        match self.look {
            Look::Drawn => None,
            Look::Recorded(dataset) | Look::Frame(dataset, _) => Some(dataset.root()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drawn_pictures_keep_their_shape() {
        assert_eq!(drawn_size(648), [484, 648]);
        assert_eq!(drawn_size(0), [484, 648]);
        assert_eq!(drawn_size(1), [1, 1]);
    }
}
