//! The folder of a run. One process at a time writes into it, and every file is written completely or not at
//! all.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::checkpoint;
use super::curve::LossCurve;
use super::error::RunError;
use super::metrics_log::read_series;
use crate::files::{self, Lock};
use crate::images::draw::Scale;
use crate::images::write_png;

/// Log with one line per step and per validation.
pub const METRICS_FILE: &str = "metrics.jsonl";
/// Picture of the loss curve.
pub const CURVE_FILE: &str = "loss.png";

/// Folder of a run, locked while this value exists.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    _lock: Lock,
}

impl RunFolder {
    /// Makes the folder if it is missing, locks it, and removes partly written checkpoints of a killed run.
    ///
    /// # Errors
    /// [`RunError::Io`], or [`RunError::Run`] while another process trains in the folder.
    pub fn open(path: &Path) -> Result<Self, RunError> {
        checkpoint::make_folder(path)?;
        let locked = Lock::of_folder(path).map_err(|source| RunError::Io { path: path.join(".lock"), source })?;
        let taken = || RunError::Run { path: path.to_path_buf(), message: "another process trains here".to_owned() };
        let folder = Self { path: path.to_path_buf(), _lock: locked.ok_or_else(taken)? };
        checkpoint::remove_partials(path)?;
        Ok(folder)
    }

    /// Path of the folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of the file `name`.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Writes the file `name` completely or not at all.
    ///
    /// # Errors
    /// [`RunError::Io`].
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), RunError> {
        let path = self.file(name);
        files::write_atomic(&path, |file| file.write_all(bytes)).map_err(|source| RunError::Io { path, source })
    }

    /// Draws [`CURVE_FILE`] from the log: loss, learning rate, and a validation figure. `field` is its name
    /// in the log, `figure` the name in the picture.
    ///
    /// # Errors
    /// [`RunError::Log`] and [`RunError::Image`].
    pub fn draw_curve(&self, field: &str, figure: &str) -> Result<(), RunError> {
        let metrics = self.file(METRICS_FILE);
        let [loss, learning_rate, validation] =
            ["loss", "learning_rate", field].map(|field| read_series(&metrics, field));
        let title = self.path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let curve = LossCurve {
            title: &title,
            loss: &loss?,
            learning_rate: &learning_rate?,
            validation: Some((figure, &validation?)),
            scale: Scale::Linear,
        };
        Ok(write_png(&self.file(CURVE_FILE), &curve.draw()?)?)
    }
}
