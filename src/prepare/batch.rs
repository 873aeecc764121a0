//! Many scenes, several at once.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use rayon::prelude::*;

use super::{Outcome, PrepareError, Progress, Settings, clean, matterport, scannet};
use crate::files::{Lock, is_full};

/// A data set that can be prepared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataSet {
    /// ScanNet.
    Scannet,
    /// Matterport3D.
    Matterport,
}

impl DataSet {
    /// Finds the downloads in `root` and in the folders below it, in the order of their names.
    ///
    /// # Errors
    /// [`PrepareError::Io`], and [`PrepareError::Missing`] if there is none or two have the same name.
    pub fn find(self, root: &Path) -> Result<Vec<Download>, PrepareError> {
        Ok(match self {
            Self::Scannet => scannet::find(root)?.into_iter().map(Download::Scannet).collect(),
            Self::Matterport => matterport::find(root)?.into_iter().map(Download::Matterport).collect(),
        })
    }
}

/// A scene as it was downloaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Download {
    /// Scene of ScanNet.
    Scannet(scannet::Download),
    /// Scan of Matterport3D.
    Matterport(matterport::Download),
}

impl Download {
    /// Name of the scene.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Scannet(scene) => &scene.name,
            Self::Matterport(scan) => &scan.name,
        }
    }

    /// Returns the expected duration, relative to other downloads of the data set.
    #[must_use]
    pub fn weight(&self) -> u64 {
        match self {
            Self::Scannet(scene) => scene.weight(),
            Self::Matterport(scan) => scan.weight(),
        }
    }

    fn prepare(&self, batch: &Batch<'_>, progress: &Progress<'_>) -> Result<Outcome, PrepareError> {
        let Batch { root, output, settings, .. } = batch;
        match self {
            Self::Scannet(scene) => scannet::prepare(scene, root, output, settings, progress),
            Self::Matterport(scan) => matterport::prepare(scan, root, output, settings, progress),
        }
    }
}

/// How the scenes of [`prepare_all`] are prepared.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// Folder of the downloads.
    pub root: &'a Path,
    /// Folder for the prepared scenes. It must exist.
    pub output: &'a Path,
    /// Settings of every scene.
    pub settings: Settings,
    /// Number of threads; 0 for one for each processor.
    pub threads: usize,
    /// Whether the other scenes are prepared if one fails. A full disk stops them in any case.
    pub skip_failed: bool,
}

/// Event of [`prepare_all`]. Threads send their events at the same time.
#[derive(Debug)]
pub enum Event<'a> {
    /// A part of a scene is done.
    Advanced {
        /// The part, in the unit of [`Download::weight`].
        weight: f64,
    },
    /// A scene is done.
    Finished {
        /// Name of the scene.
        name: &'a str,
        /// The scene, or why it failed.
        result: &'a Result<Outcome, PrepareError>,
        /// Number of scenes that are done, with this one.
        number: usize,
        /// Weight of the scene.
        weight: f64,
        /// Time that the scene took, in seconds.
        seconds: f64,
    },
}

/// A scene of [`prepare_all`]: its name, and the scene or why it failed.
pub type Prepared = (String, Result<Outcome, PrepareError>);

/// Prepares `downloads`. Returns those that were begun, in the order of `downloads`. Only one process at a
/// time can prepare scenes in a folder. What a killed run has left there is removed.
///
/// # Errors
/// [`PrepareError::Busy`], [`PrepareError::Threads`], [`PrepareError::Io`]. Scenes that fail are results.
pub fn prepare_all(
    downloads: &[Download],
    batch: &Batch<'_>,
    on_event: &(dyn Fn(Event<'_>) + Sync),
) -> Result<Vec<Prepared>, PrepareError> {
    let output = batch.output;
    let locked = Lock::of_folder(output).map_err(|error| PrepareError::io(output, "lock", error))?;
    let Some(_alone) = locked else { return Err(PrepareError::Busy { path: output.to_path_buf() }) };
    clean(output)?;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(batch.threads).build()?;
    let weighted: Vec<(&Download, f64)> = downloads.iter().map(|one| (one, one.weight() as f64)).collect();
    let (finished, stopped) = (AtomicUsize::new(0), AtomicBool::new(false));
    let one = |&(download, weight): &(&Download, f64)| -> Option<Prepared> {
        if stopped.load(Ordering::Relaxed) {
            return None;
        }
        let start = Instant::now();
        let name = download.name();
        let result = download.prepare(batch, &|share| on_event(Event::Advanced { weight: share * weight }));
        let number = finished.fetch_add(1, Ordering::Relaxed) + 1;
        if let Err(error) = &result {
            let is_disk_full = matches!(error, PrepareError::Io { source, .. } if is_full(source));
            if !batch.skip_failed || is_disk_full {
                stopped.store(true, Ordering::Relaxed);
            }
        }
        let seconds = start.elapsed().as_secs_f64();
        on_event(Event::Finished { name, result: &result, number, weight, seconds });
        Some((name.to_owned(), result))
    };
    // The threads share the frames of a scene. A thread that finds no frame left takes another scene.
    let results: Vec<Option<Prepared>> = pool.install(|| weighted.par_iter().with_max_len(1).map(one).collect());
    Ok(results.into_iter().flatten().collect())
}
