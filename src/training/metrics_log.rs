//! A log of metrics with one JSON object per line, which can be resumed.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::files::{MappedFile, write_atomic};

/// Error of writing or resuming a log.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The operating system refused.
    #[error("{}: cannot {action}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Action that failed, as a verb.
        action: &'static str,
        /// Error of the system.
        #[source]
        source: io::Error,
    },
    /// The file is not a log of this kind, so it must not be truncated.
    #[error("{}: {message}; expected {expected}", .path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Content that was found.
        message: String,
        /// Content that was expected.
        expected: &'static str,
    },
    /// A record cannot be written as JSON.
    #[error("{}: the record of step {step} is not a JSON object: {message}", .path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// Step of the record.
        step: u64,
        /// Reason.
        message: String,
    },
}

impl LogError {
    pub(super) fn io(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { path: path.to_path_buf(), action, source }
    }
}

/// A log that grows by one line per step.
///
/// Each line is a JSON object that starts with `"step"`. It is passed to the system in one piece as soon as
/// it is written. So a killed run loses at most the end of its last line, which [`resume`](Self::resume)
/// drops.
#[derive(Debug)]
pub struct MetricsLog {
    file: File,
    path: PathBuf,
}

#[derive(Serialize)]
struct Line<'a, T> {
    step: u64,
    #[serde(flatten)]
    fields: &'a T,
}

impl MetricsLog {
    /// Starts a new log at `path`. An older one there is replaced.
    ///
    /// # Errors
    /// [`LogError::Io`].
    pub fn create(path: &Path) -> Result<Self, LogError> {
        let file = File::create(path).map_err(LogError::io(path, "create"))?;
        Ok(Self { file, path: path.to_path_buf() })
    }

    /// Resumes the log at `path` after step `keep_up_to_step`. Lines of later steps are dropped, and so is an
    /// unfinished last line of a killed run. The file is replaced completely or not at all. If there is no
    /// file a new log starts.
    ///
    /// # Errors
    /// [`LogError::Io`], and [`LogError::Format`] if a line before the last is not a JSON object with a
    /// `step`.
    pub fn resume(path: &Path, keep_up_to_step: u64) -> Result<Self, LogError> {
        if path.exists() {
            let (lines, torn) = read_lines(path)?;
            let kept: Vec<&(u64, Value, String)> = lines.iter().filter(|(step, ..)| *step <= keep_up_to_step).collect();
            if torn || kept.len() < lines.len() {
                let written = write_atomic(path, |out| {
                    kept.iter()
                        .try_for_each(|(.., text)| out.write_all(text.as_bytes()).and_then(|()| out.write_all(b"\n")))
                });
                written.map_err(LogError::io(path, "write"))?;
            }
        }
        let file = OpenOptions::new().append(true).create(true).open(path).map_err(LogError::io(path, "open"))?;
        Ok(Self { file, path: path.to_path_buf() })
    }

    /// Appends a line: `step`, then the `fields` of a struct or map. NaN and infinite numbers become null.
    ///
    /// # Errors
    /// [`LogError::Record`] if `fields` is neither a struct nor a map, [`LogError::Io`].
    pub fn write<T: Serialize>(&mut self, step: u64, fields: &T) -> Result<(), LogError> {
        let mut line = serde_json::to_vec(&Line { step, fields }).map_err(|error| LogError::Record {
            path: self.path.clone(),
            step,
            message: error.to_string(),
        })?;
        line.push(b'\n');
        self.file.write_all(&line).map_err(LogError::io(&self.path, "write"))
    }

    /// Path of the log.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The (step, value) pairs of all lines whose `field` is a number, in their order. An unfinished last line is
/// left out.
///
/// # Errors
/// The same as [`MetricsLog::resume`], and an error if the file is missing.
pub fn read_series(path: &Path, field: &str) -> Result<Vec<(u64, f64)>, LogError> {
    let (lines, _) = read_lines(path)?;
    Ok(lines.iter().filter_map(|(step, record, _)| Some((*step, record.get(field)?.as_f64()?))).collect())
}

#[derive(Deserialize)]
struct Step {
    step: u64,
}

/// Step, content and text of a line.
type ReadLine = (u64, Value, String);

/// Reads every complete line with its step. The flag is true if the file ends in an incomplete line.
fn read_lines(path: &Path) -> Result<(Vec<ReadLine>, bool), LogError> {
    let bytes = MappedFile::open(path).map_err(LogError::io(path, "open"))?;
    let mut lines = Vec::new();
    let mut torn = bytes.last().is_some_and(|&last| last != b'\n');
    let pieces: Vec<&[u8]> = bytes.split(|&byte| byte == b'\n').collect();
    // The text behind the last line end is the last piece. It is empty if the last line is complete.
    let last = (0..pieces.len()).rev().find(|&i| !pieces[i].is_empty());
    for (i, piece) in pieces.iter().enumerate().filter(|(_, piece)| !piece.is_empty()) {
        let parsed = serde_json::from_slice::<Value>(piece).and_then(|record| {
            let step = Step::deserialize(&record)?.step;
            Ok((step, record, String::from_utf8_lossy(piece).into_owned()))
        });
        match parsed {
            Ok(line) => lines.push(line),
            // Bytes that had not reached the disk can also read as zeros.
            Err(_) if Some(i) == last => torn = true,
            Err(error) => {
                return Err(LogError::Format {
                    path: path.to_path_buf(),
                    message: format!("line {}: {error}", i + 1),
                    expected: "one JSON object with a step per line",
                });
            }
        }
    }
    // A file with a single line that is not an object is something else.
    if lines.is_empty() && torn && bytes.first().is_some_and(|&first| first != b'{') {
        return Err(LogError::Format {
            path: path.to_path_buf(),
            message: "the file does not start with a JSON object".into(),
            expected: "one JSON object with a step per line",
        });
    }
    Ok((lines, torn))
}
