//! What a run measured, one JSON object per line, and how a log is taken up again.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::files::{MappedFile, write_atomic};

/// Why a log cannot be written or taken up again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The operating system refused.
    #[error("{}: cannot {action}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was being done, as a verb.
        action: &'static str,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// A file that is no log of this kind, which must not be cut.
    #[error("{}: {message}; expected {expected}", .path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What was found.
        message: String,
        /// What should be there.
        expected: &'static str,
    },
    /// A record that cannot be written as JSON.
    #[error("{}: the record of step {step} is no JSON object: {message}", .path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// Its step.
        step: u64,
        /// What was wrong.
        message: String,
    },
}

impl LogError {
    pub(super) fn io(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { path: path.to_path_buf(), action, source }
    }
}

/// A log that grows by a line per step.
///
/// Each line is a JSON object that starts with `"step"`. It goes to the system in one piece as soon as it is written, so a
/// killed run loses nothing but perhaps the end of its last line, which [`resume`](Self::resume) drops.
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
    /// Starts a new log at `path`; an older one there is replaced.
    ///
    /// # Errors
    /// [`LogError::Io`].
    pub fn create(path: &Path) -> Result<Self, LogError> {
        let file = File::create(path).map_err(LogError::io(path, "create"))?;
        Ok(Self { file, path: path.to_path_buf() })
    }

    /// Takes up the log at `path` after step `keep_up_to_step`: lines of later steps are dropped, and a last line that a
    /// killed run left unfinished. The file is replaced whole or not at all. Without a file a new log starts.
    ///
    /// # Errors
    /// [`LogError::Io`], and [`LogError::Format`] where another than the last line is no JSON object with a `step`.
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

    /// Appends a line: `step`, then the `fields` of a struct or map. Numbers that are not finite become null.
    ///
    /// # Errors
    /// [`LogError::Record`] where `fields` is neither, [`LogError::Io`].
    pub fn write<T: Serialize>(&mut self, step: u64, fields: &T) -> Result<(), LogError> {
        let mut line = serde_json::to_vec(&Line { step, fields }).map_err(|error| LogError::Record {
            path: self.path.clone(),
            step,
            message: error.to_string(),
        })?;
        line.push(b'\n');
        self.file.write_all(&line).map_err(LogError::io(&self.path, "write"))
    }

    /// Where the log is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The (step, value) of all lines of a log whose `field` is a number, in their order. An unfinished last line is left out.
///
/// # Errors
/// As [`MetricsLog::resume`]; a missing file is one.
pub fn read_series(path: &Path, field: &str) -> Result<Vec<(u64, f64)>, LogError> {
    let (lines, _) = read_lines(path)?;
    Ok(lines.iter().filter_map(|(step, record, _)| Some((*step, record.get(field)?.as_f64()?))).collect())
}

#[derive(Deserialize)]
struct Step {
    step: u64,
}

/// A line's step, what it says, and its text.
type ReadLine = (u64, Value, String);

/// Every complete line with its step, and whether the file ends otherwise than in a complete line.
fn read_lines(path: &Path) -> Result<(Vec<ReadLine>, bool), LogError> {
    let bytes = MappedFile::open(path).map_err(LogError::io(path, "open"))?;
    let mut lines = Vec::new();
    let mut torn = bytes.last().is_some_and(|&last| last != b'\n');
    let pieces: Vec<&[u8]> = bytes.split(|&byte| byte == b'\n').collect();
    // What follows the last line end is the last piece, empty where the last line is complete.
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
    // A file of one line that is none is something else.
    if lines.is_empty() && torn && bytes.first().is_some_and(|&first| first != b'{') {
        return Err(LogError::Format {
            path: path.to_path_buf(),
            message: "the file does not start with a JSON object".into(),
            expected: "one JSON object with a step per line",
        });
    }
    Ok((lines, torn))
}
