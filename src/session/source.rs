//! Files of scans and recordings, and how they are read.

use std::path::{Path, PathBuf};

use glam::DVec3;

use super::SessionError;
use super::beside::{recording_of, scan_of, scans_in};
use crate::models::xdecoder::XDecoderConfig;
use crate::ops::project::Visibility;
use crate::pipeline::{Compat, Scene, ViewOptions};
use crate::stages::StageTimer;
use crate::views::check::{Reading, Verdict};
use crate::views::fit::{DepthViews, FitVerdict, axes_text};
use crate::views::fuse::FuseOptions;
use crate::views::virtual_cameras::{self, SceneKind};
use crate::views::{Dataset, Layout, OpenOptions, RegionFrames, detect, frames_of_region, open_checked};

/// Longer edge of pictures for the published model, the same as in the reference.
const USUAL_SIZE: u32 = 648;

/// Settings of reading scans and recordings, and of their views.
#[derive(Clone, Debug, PartialEq)]
pub struct ViewSettings {
    /// Most views; `None` for 60 drawn ones, or every 20th frame of a recording and at least 60.
    pub max_views: Option<usize>,
    /// Layout of recordings, if their content does not tell it.
    pub layout: Option<Layout>,
    /// Number in a depth map that means one metre, if it differs from the layout's.
    pub depth_units: Option<f64>,
    /// How a recording's poses are read, if it differs from the layout's convention.
    pub poses: Option<Reading>,
    /// Kind of scene, if the shape of the scan does not tell it.
    pub kind: Option<SceneKind>,
    /// Up direction, if the scan does not tell it.
    pub up: Option<DVec3>,
    /// Choice between the published code and this project.
    pub compat: Compat,
    /// Longer edge, in pixels, at which the model sees pictures. 0 leaves recorded pictures unchanged; `None`
    /// is the edge that suits the model.
    pub size: Option<u32>,
    /// Memory for temporary values, in MiB. The results do not depend on it.
    pub working_memory: u32,
}

impl Default for ViewSettings {
    fn default() -> Self {
        Self {
            max_views: None,
            layout: None,
            depth_units: None,
            poses: None,
            kind: None,
            up: None,
            compat: Compat::default(),
            size: None,
            working_memory: 1024,
        }
    }
}

impl ViewSettings {
    /// The same settings, with the picture size that suits the model if none was given.
    #[must_use]
    pub fn for_model(&self, model: &XDecoderConfig) -> Self {
        Self { size: Some(self.size.or(model.image_size).unwrap_or(USUAL_SIZE)), ..self.clone() }
    }

    /// Longer edge at which the model sees pictures, in pixels.
    #[must_use]
    pub fn size(&self) -> u32 {
        self.size.unwrap_or(USUAL_SIZE)
    }

    /// Cache key: it differs if results may differ.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{:?}", Self { working_memory: 0, ..self.clone() })
    }

    /// Frames of a recording without poses that are used. Each is a separate scan.
    #[must_use]
    pub fn frames_alone(&self, dataset: &dyn Dataset) -> Vec<usize> {
        let all: Vec<usize> = (0..dataset.len()).collect();
        self.compat.frames(&all, self.max_views)
    }

    /// Memory for temporary values, in bytes.
    #[must_use]
    pub fn working_bytes(&self) -> u64 {
        u64::from(self.working_memory) << 20
    }

    /// Options of encoding views.
    #[must_use]
    pub fn view_options(&self) -> ViewOptions {
        ViewOptions {
            compat: self.compat,
            longest: self.size() as usize,
            visibility: Visibility::default(),
            most_visible: usize::MAX,
            working_bytes: self.working_bytes(),
        }
    }

    /// Options of placing cameras for a scan.
    pub(super) fn camera_options(&self, scene: &Scene) -> virtual_cameras::Options {
        let usual = virtual_cameras::Options::default();
        let [height, width] = drawn_size(self.size());
        virtual_cameras::Options {
            up: self.up.or(scene.up),
            kind: self.kind,
            max_views: self.max_views.unwrap_or(usual.max_views),
            width,
            height,
            ..usual
        }
    }

    /// Opens a recording and reports its properties to `say`.
    fn open_recording(&self, path: &Path, say: &mut dyn FnMut(&str)) -> Result<Box<dyn Dataset>, SessionError> {
        let options = OpenOptions { layout: self.layout, depth_units_per_meter: self.depth_units, pose: self.poses };
        let opened = open_checked(path, &options)?;
        let dataset = opened.dataset;
        say(&format!("recording: {}, {}; {}", dataset.layout(), dataset.counts(), dataset.conventions()));
        for note in dataset.notes() {
            say(&format!("note: {note}"));
        }
        if let Some(checked) = opened.check {
            let contradicted = matches!(checked.verdict, Verdict::Contradicted(_));
            let is_wrong = contradicted && opened.applied.is_none() || checked.depth_factor.is_some();
            say(&format!("{}: {checked}", if is_wrong || contradicted { "warning" } else { "note" }));
            if let Some(reading) = opened.applied {
                say(&format!("the poses are now read as {reading}; --poses takes another reading"));
            }
            if is_wrong {
                say("--poses and --depth-units override wrong values in the recording");
            }
        }
        Ok(dataset)
    }

    /// An opened recording without a scan.
    fn opened_alone(dataset: Box<dyn Dataset>, timer: &mut StageTimer<'_>) -> Result<Opened, SessionError> {
        timer.lap("open recording");
        if dataset.conventions().pose.is_none() {
            return Ok(Opened::Frames(dataset));
        }
        let scene = Scene::of_recording(&*dataset, &FuseOptions::default())?;
        timer.lap("fuse depth");
        Ok(Opened::Scan(Box::new(scene), Some(dataset)))
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

/// Files of a scene.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A scan without pictures.
    Scan(PathBuf),
    /// A scan in the world of a recording.
    ScanInRecording {
        /// The scan.
        scan: PathBuf,
        /// The recording.
        recording: PathBuf,
    },
    /// A recording without a scan.
    Recording(PathBuf),
    /// A recording that was found with its scan: in one folder, or with one name. If they do not fit, the
    /// recording is taken alone.
    SceneFolder {
        /// The scan.
        scan: PathBuf,
        /// The recording.
        recording: PathBuf,
    },
}

/// An opened [`Source`].
pub enum Opened {
    /// One scan, and its recording if there is one.
    Scan(Box<Scene>, Option<Box<dyn Dataset>>),
    /// A recording without poses. Each frame is a separate scan.
    Frames(Box<dyn Dataset>),
}

impl Source {
    /// Finds the sources at `path`: a recording, a scan, or the scans of a folder. A recording and its scan in
    /// one folder are one source.
    ///
    /// # Errors
    /// [`SessionError::NoScan`], [`SessionError::Io`].
    pub fn at(path: &Path, layout: Option<Layout>) -> Result<Vec<Self>, SessionError> {
        if !path.is_dir() {
            let is_recording = detect(path).is_ok();
            return Ok(vec![if is_recording { Self::Recording(path.into()) } else { Self::Scan(path.into()) }]);
        }
        let scans = scans_in(path).map_err(|source| SessionError::Io { path: path.to_path_buf(), source })?;
        match layout.map_or_else(|| detect(path), Ok) {
            Ok(layout) if layout != Layout::Images => Ok(vec![Self::with_scan(path)]),
            Ok(_) if scans.is_empty() => Ok(vec![Self::Recording(path.into())]),
            Err(error) if scans.is_empty() => {
                Err(SessionError::NoScan { folder: path.to_path_buf(), source: Box::new(error) })
            }
            _ => Ok(scans.into_iter().map(Self::with_recording).collect()),
        }
    }

    /// The source of one file. A scan that lies in a recording's folder, or beside a recording of its name, belongs
    /// to it, as in [`at`](Self::at).
    pub(super) fn of_file(path: PathBuf) -> Self {
        if detect(&path).is_ok() {
            return Self::Recording(path);
        }
        match path.parent().filter(|folder| detect(folder).is_ok_and(|layout| layout != Layout::Images)) {
            Some(folder) => Self::SceneFolder { recording: folder.to_path_buf(), scan: path },
            None => Self::with_recording(path),
        }
    }

    /// The recording in `folder`, with its scan if there is one.
    fn with_scan(folder: &Path) -> Self {
        let recording = folder.to_path_buf();
        match scan_of(folder) {
            Some(scan) => Self::SceneFolder { scan, recording },
            None => Self::Recording(recording),
        }
    }

    /// A scan of a folder, with the recording of its name if there is one.
    fn with_recording(scan: PathBuf) -> Self {
        let folder = scan.parent().unwrap_or(Path::new("."));
        match recording_of(folder, &stem(&scan), false) {
            Some(recording) => Self::SceneFolder { scan, recording },
            None => Self::Scan(scan),
        }
    }

    /// True if a recording belongs to the source.
    #[must_use]
    pub fn is_recording(&self) -> bool {
        self.recording().is_some()
    }

    /// The scan, if there is one.
    #[must_use]
    pub fn scan(&self) -> Option<&Path> {
        match self {
            Self::Recording(_) => None,
            Self::Scan(scan) | Self::ScanInRecording { scan, .. } | Self::SceneFolder { scan, .. } => Some(scan),
        }
    }

    /// The recording, if there is one.
    #[must_use]
    pub fn recording(&self) -> Option<&Path> {
        match self {
            Self::Scan(_) => None,
            Self::Recording(recording)
            | Self::ScanInRecording { recording, .. }
            | Self::SceneFolder { recording, .. } => Some(recording),
        }
    }

    /// A scan, with its recording if there is one.
    #[must_use]
    pub fn of(scan: &Path, recording: Option<&Path>) -> Self {
        match recording {
            Some(recording) => Self::ScanInRecording { scan: scan.into(), recording: recording.into() },
            None => Self::Scan(scan.into()),
        }
    }

    /// File or folder of the source.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::Scan(path)
            | Self::Recording(path)
            | Self::ScanInRecording { scan: path, .. }
            | Self::SceneFolder { recording: path, .. } => path,
        }
    }

    /// Name of the scan's file or of the recording's folder.
    #[must_use]
    pub fn name(&self) -> String {
        stem(self.path())
    }

    /// Reads the scan and opens the recording. Reports notes about the recording to `say`.
    ///
    /// # Errors
    /// [`SessionError::Pipeline`], [`SessionError::Views`], [`SessionError::NoPoses`],
    /// [`SessionError::DoesNotFit`].
    pub fn open(
        &self,
        settings: &ViewSettings,
        timer: &mut StageTimer<'_>,
        say: &mut dyn FnMut(&str),
    ) -> Result<Opened, SessionError> {
        match self {
            Self::Scan(path) => {
                let scene = Scene::read(path)?;
                timer.lap("read scan");
                Ok(Opened::Scan(Box::new(scene), None))
            }
            Self::ScanInRecording { scan, recording } => {
                let scene = Scene::read(scan)?;
                timer.lap("read scan");
                let dataset = settings.open_recording(recording, say)?;
                let scene = fitted(scene, scan, &*dataset, say)?;
                timer.lap("open recording");
                Ok(Opened::Scan(Box::new(scene), Some(dataset)))
            }
            Self::SceneFolder { scan, recording } => {
                let read = Scene::read(scan).map_err(SessionError::from);
                timer.lap("read scan");
                let dataset = settings.open_recording(recording, say)?;
                match read.and_then(|scene| fitted(scene, scan, &*dataset, say)) {
                    Ok(scene) => {
                        timer.lap("open recording");
                        say(&format!("the scan of the recording: {}", scan.display()));
                        Ok(Opened::Scan(Box::new(scene), Some(dataset)))
                    }
                    Err(error) => {
                        say(&format!("warning: {error}. The recording is taken without this scan"));
                        ViewSettings::opened_alone(dataset, timer)
                    }
                }
            }
            Self::Recording(path) => {
                let dataset = settings.open_recording(path, say)?;
                ViewSettings::opened_alone(dataset, timer)
            }
        }
    }
}

/// `scene` in the world of a recording with poses.
fn fitted(scene: Scene, scan: &Path, dataset: &dyn Dataset, say: &mut dyn FnMut(&str)) -> Result<Scene, SessionError> {
    if dataset.conventions().pose.is_none() {
        return Err(SessionError::NoPoses { recording: dataset.root().to_path_buf() });
    }
    let scene = if dataset.conventions().mirrored { scene.mirrored() } else { scene };
    check_fit(&scene, scan, dataset, say)?;
    Ok(scene)
}

/// Compares a scan with the depth maps of its recording. Warns if they agree in part only.
fn check_fit(scene: &Scene, scan: &Path, dataset: &dyn Dataset, say: &mut dyn FnMut(&str)) -> Result<(), SessionError> {
    if dataset.counts().with_depth == 0 || !dataset.conventions().metric {
        return Ok(());
    }
    let all = Vec::from_iter(0..dataset.len());
    let frames = match dataset.layout() {
        Layout::Matterport => frames_of_region(dataset.frames(), &all, scene.positions()),
        _ => RegionFrames { frames: all, are_inside: true },
    };
    if !frames.are_inside {
        // A closed room of a house: the cameras outside show other rooms.
        return Ok(());
    }
    let views = DepthViews::of_frames(dataset, &frames.frames)?;
    let fit = views.fit(scene.positions());
    match fit.verdict() {
        FitVerdict::Fits => {}
        FitVerdict::Doubtful => say(&format!(
            "warning: scan and recording do not fit well: {fit}; labels of pictures may go to wrong points"
        )),
        FitVerdict::Unfit => {
            let turned = views.turned(scene.positions()).map_or_else(String::new, |turn| {
                format!("; it fits if the coordinates (x, y, z) of the scan are turned to {}", axes_text(&turn))
            });
            let (scan, recording) = (scan.to_path_buf(), dataset.root().to_path_buf());
            return Err(SessionError::DoesNotFit { scan, recording, fit, turned });
        }
    }
    Ok(())
}

/// Name of a file without its extension, or of a folder.
#[must_use]
pub fn stem(path: &Path) -> String {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    let name = if path.is_dir() { path.file_name() } else { path.file_stem() };
    name.map_or("scene".to_owned(), |name| name.to_string_lossy().into_owned())
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
