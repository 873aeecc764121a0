//! Data sets as they are downloaded, unpacked once into the form that every command reads.
//!
//! A scene is a folder with frames as files (`color`, `depth`, `pose`, `intrinsic`), the scan, its labels,
//! and `prepared.json`, which describes its origin. The folder is built under another name and renamed at the
//! end. So it is always complete, and finished scenes are kept.

mod batch;
mod error;
mod frames;
pub mod matterport;
pub mod scannet;
mod unzip;

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use batch::{Batch, DataSet, Download, Event, Prepared, prepare_all};
pub use error::PrepareError;

use crate::files::{AtomicFolder, remove_partials};
use crate::views::Dataset;

/// Version of the preparation, increased when the same files and settings give another result.
const RECIPE: u32 = 1;
const MANIFEST: &str = "prepared.json";
/// Largest edge of a picture, in pixels.
const LARGEST: usize = 16_384;

/// Callback for the additional share of a scene that is done.
pub type Progress<'a> = dyn Fn(f64) + Sync + 'a;

/// Settings for preparing scenes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Step between the frames that are taken, from the first on; at least 1.
    pub frame_step: usize,
    /// Width and height of the colour pictures; `None` keeps their size.
    pub size: Option<[usize; 2]>,
}

impl Settings {
    /// Every 20th frame, as GeoPurify takes ScanNet's frames.
    pub const SCANNET: Self = Self { frame_step: 20, size: None };
    /// All frames, since Matterport3D has few from each place.
    pub const MATTERPORT: Self = Self { frame_step: 1, size: None };

    fn check(&self) -> Result<(), PrepareError> {
        if self.frame_step == 0 {
            let expected = "1 or more";
            return Err(PrepareError::Setting { what: "the step between frames", found: "0".into(), expected });
        }
        if let Some([width, height]) = self.size
            && !((1..=LARGEST).contains(&width) && (1..=LARGEST).contains(&height))
        {
            let found = format!("{width}x{height}");
            return Err(PrepareError::Setting { what: "the size", found, expected: "1x1 to 16384x16384" });
        }
        Ok(())
    }
}

/// A source file of a scene.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceFile {
    /// Name of the file.
    pub name: String,
    /// Length in bytes.
    pub bytes: u64,
}

/// Origin and contents of a scene, as in `prepared.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of the preparation.
    pub recipe: u32,
    /// `scannet` or `matterport`.
    pub dataset: String,
    /// Name of the scene.
    pub scene: String,
    /// Settings it was prepared with.
    pub settings: Settings,
    /// Source files.
    pub sources: Vec<SourceFile>,
    /// Number of frames.
    pub frames: usize,
    /// Number of frames that were left out because tracking was lost.
    pub frames_without_pose: usize,
    /// Number of rooms with labels, if the scene is cut into rooms.
    pub regions: usize,
    /// Properties of the points that hold labels.
    pub labels: Vec<String>,
    /// Notes for the user.
    pub notes: Vec<String>,
}

impl Manifest {
    fn new(dataset: &str, scene: &str, sources: &[PathBuf], settings: &Settings) -> Result<Self, PrepareError> {
        let source = |path: &PathBuf| {
            let file = fs::metadata(path).map_err(|error| PrepareError::io(path, "read", error))?;
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            Ok(SourceFile { name, bytes: file.len() })
        };
        Ok(Self {
            recipe: RECIPE,
            dataset: dataset.to_owned(),
            scene: scene.to_owned(),
            settings: *settings,
            sources: sources.iter().map(source).collect::<Result<_, PrepareError>>()?,
            frames: 0,
            frames_without_pose: 0,
            regions: 0,
            labels: Vec::new(),
            notes: Vec::new(),
        })
    }
}

/// Result of the preparation of a scene.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The scene was prepared.
    Made(Manifest),
    /// The same scene was already there.
    Kept(Manifest),
}

impl Outcome {
    /// Returns the description of the scene.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        match self {
            Self::Made(manifest) | Self::Kept(manifest) => manifest,
        }
    }
}

/// Folder of a scene in preparation.
struct Target {
    folder: PathBuf,
    partial: AtomicFolder,
}

impl Target {
    /// Starts the folder of `manifest`'s scene, or returns the one that is already there.
    fn new(output: &Path, manifest: &mut Manifest) -> Result<Result<Self, Outcome>, PrepareError> {
        let folder = output.join(&manifest.scene);
        if let Some(present) = present(&folder, manifest)? {
            return Ok(Err(Outcome::Kept(present)));
        }
        let partial = AtomicFolder::create(&folder).map_err(|error| PrepareError::io(&folder, "create", error))?;
        Ok(Ok(Self { folder, partial }))
    }

    /// Returns the folder to write into.
    fn path(&self) -> &Path {
        self.partial.path()
    }

    /// Writes the manifest and renames the folder to its final name.
    fn finish(self, manifest: Manifest) -> Result<Outcome, PrepareError> {
        let path = self.path().join(MANIFEST);
        let text = serde_json::to_string_pretty(&manifest)
            .map_err(|error| PrepareError::io(&path, "write", std::io::Error::other(error)))?;
        frames::write(&path, (text + "\n").as_bytes())?;
        self.partial.commit().map_err(|error| PrepareError::io(&self.folder, "create", error))?;
        Ok(Outcome::Made(manifest))
    }
}

/// Returns the scene in `folder`, if one of the same origin is there.
fn present(folder: &Path, manifest: &Manifest) -> Result<Option<Manifest>, PrepareError> {
    let path = folder.join(MANIFEST);
    let differs = |found: String| PrepareError::Differs { path: folder.to_path_buf(), found };
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return if folder.exists() { Err(differs(format!("there is no {MANIFEST}"))) } else { Ok(None) };
        }
        Err(error) => return Err(PrepareError::io(&path, "read", error)),
    };
    let found: Manifest = serde_json::from_str(&text).map_err(|error| differs(format!("{MANIFEST}: {error}")))?;
    if found.settings != manifest.settings {
        let [found, asked] = [found.settings, manifest.settings].map(|settings| format!("{settings:?}"));
        return Err(differs(format!("it was prepared with {found}, not {asked}")));
    }
    if (found.recipe, &found.dataset, &found.scene) != (manifest.recipe, &manifest.dataset, &manifest.scene) {
        return Err(differs(format!("{} of {}, recipe {}", found.scene, found.dataset, found.recipe)));
    }
    if found.sources != manifest.sources {
        return Err(differs("it was made of other files".to_owned()));
    }
    Ok(Some(found))
}

/// Fails if files that the recording lists are missing.
fn check_whole(dataset: &dyn Dataset, path: &Path) -> Result<(), PrepareError> {
    let counts = dataset.counts();
    if counts.missing_color == 0 && counts.missing_depth == 0 {
        return Ok(());
    }
    let found = format!(
        "the recording is incomplete: {} frames are there, {} pictures and {} depth maps are missing",
        counts.frames, counts.missing_color, counts.missing_depth
    );
    Err(PrepareError::missing(path, found, "a whole download"))
}

/// Removes what a killed run has left in `output`. Call it only while nothing else prepares scenes there.
///
/// # Errors
/// [`PrepareError::Io`].
pub fn clean(output: &Path) -> Result<(), PrepareError> {
    remove_partials(output, Duration::ZERO).map_err(|error| PrepareError::io(output, "clean", error))
}
