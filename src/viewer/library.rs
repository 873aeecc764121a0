//! Folders of results, read when they are asked for, and questions about them.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use serde_json::{Value, json};

use super::ViewerError;
use super::answers;
use super::results::{Summary, sheet};
use super::scan::Scan;
use crate::query::saved::Saved;
use crate::session::{Asker, Session, SessionError, VoxelAnswer, VoxelLabels, Words};

/// Scans that stay in memory. The one that was opened first makes room for another.
const MOST_OPEN: usize = 3;
/// Longest question or word.
const MOST_CHARACTERS: usize = 200;
/// Most words of new labels.
const MOST_WORDS: usize = 256;

/// A folder of results, and its name for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The folder.
    pub folder: PathBuf,
    /// Its name on the page.
    pub name: String,
}

/// Folders of results with a session that answers questions about them.
pub struct Library {
    session: Session,
    entries: Vec<Entry>,
    max_points: usize,
    /// The scan of each entry, if it is open.
    open: Vec<Mutex<Option<Arc<OpenScan>>>>,
    /// Entries that are open, in the order in which they were opened.
    opened: Mutex<Vec<usize>>,
}

/// A scan in memory.
pub(super) struct OpenScan {
    pub(super) scan: Scan,
    folder: PathBuf,
    /// The features, until the asker takes them.
    saved: Mutex<Option<Saved>>,
    asker: OnceLock<Result<Mutex<Asker>, String>>,
    objects: OnceLock<Vec<u8>>,
}

/// Why there is no answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// There is no such scan, or no such part of it.
    NotFound,
    /// The question cannot be answered as it is.
    Question(String),
    /// The scan or its weights cannot be used.
    Unable(String),
}

impl Library {
    /// `session` answers questions about the results of `entries`. Of each scan, `max_points` points at most are shown.
    #[must_use]
    pub fn new(session: Session, entries: Vec<Entry>, max_points: usize) -> Self {
        let open = entries.iter().map(|_| Mutex::new(None)).collect();
        Self { session, entries, max_points, open, opened: Mutex::new(Vec::new()) }
    }

    /// The folders of results.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Reads the scan of an entry, so that it is ready for the page.
    ///
    /// # Errors
    /// [`ViewerError`] naming the file that is missing or damaged. An entry that does not exist is no fault.
    pub fn open(&self, index: usize) -> Result<(), ViewerError> {
        if index < self.entries.len() { self.scan_or_error(index).map(|_| ()) } else { Ok(()) }
    }

    /// The list of all scans.
    pub(super) fn list(&self) -> Value {
        let line = |entry: &Entry| match Summary::read(&entry.folder) {
            Ok(summary) => {
                let labels: Vec<&str> = summary.classes.iter().map(|class| class.name.as_str()).collect();
                json!({ "name": entry.name, "points": summary.points, "labels": labels })
            }
            Err(error) => json!({ "name": entry.name, "error": error.to_string() }),
        };
        json!({ "scans": self.entries.iter().map(line).collect::<Vec<_>>() })
    }

    /// The contact sheet of a scan.
    pub(super) fn sheet(&self, index: usize) -> Result<Vec<u8>, Refusal> {
        let entry = self.entries.get(index).ok_or(Refusal::NotFound)?;
        sheet(&entry.folder).map_err(|error| Refusal::Unable(error.to_string()))
    }

    /// The scan of an entry. It is read if it is not open.
    pub(super) fn scan(&self, index: usize) -> Result<Arc<OpenScan>, Refusal> {
        if index >= self.entries.len() {
            return Err(Refusal::NotFound);
        }
        self.scan_or_error(index).map_err(|error| Refusal::Unable(error.to_string()))
    }

    fn scan_or_error(&self, index: usize) -> Result<Arc<OpenScan>, ViewerError> {
        let mut slot = lock(&self.open[index]);
        if let Some(open) = &*slot {
            return Ok(open.clone());
        }
        let Entry { folder, name } = &self.entries[index];
        let open = Arc::new(OpenScan::read(folder, name, self.max_points)?);
        *slot = Some(open.clone());
        drop(slot);
        let oldest = {
            let mut opened = lock(&self.opened);
            opened.push(index);
            (opened.len() > MOST_OPEN).then(|| opened.remove(0))
        };
        if let Some(oldest) = oldest {
            *lock(&self.open[oldest]) = None;
        }
        Ok(open)
    }

    /// What the voxels of a scan say about a question.
    pub(super) fn ask(&self, open: &OpenScan, question: &str) -> Result<VoxelAnswer, Refusal> {
        check(question)?;
        lock(open.asker(&self.session)?).ask(question, None).map_err(refusal)
    }

    /// New labels of the voxels of a scan, and the words that they stand for.
    pub(super) fn label(&self, open: &OpenScan, words: &[String]) -> Result<(Words, VoxelLabels), Refusal> {
        let mut labels: Vec<String> = Vec::new();
        for word in words {
            check(word)?;
            let word = word.split_whitespace().collect::<Vec<_>>().join(" ");
            if !word.is_empty() && !labels.contains(&word) {
                labels.push(word);
            }
        }
        if labels.len() > MOST_WORDS {
            return Err(Refusal::Question(format!("{} words, at most {MOST_WORDS} can be labels", labels.len())));
        }
        let words = Words::new(labels);
        let found = lock(open.asker(&self.session)?).label(&words).map_err(refusal)?;
        Ok((words, found))
    }

    /// The scan for an exported page, if the open one has more than `max_points` points.
    pub(super) fn thinned(&self, index: usize, open: &OpenScan, max_points: usize) -> Result<Option<Scan>, Refusal> {
        if open.scan.len() <= max_points {
            return Ok(None);
        }
        let Entry { folder, name } = self.entries.get(index).ok_or(Refusal::NotFound)?;
        let (scan, _) = Scan::read(folder, name, max_points).map_err(|error| Refusal::Unable(error.to_string()))?;
        Ok(Some(scan))
    }
}

impl OpenScan {
    fn read(folder: &Path, name: &str, max_points: usize) -> Result<Self, ViewerError> {
        let (scan, saved) = Scan::read(folder, name, max_points)?;
        let (asker, objects) = (OnceLock::new(), OnceLock::new());
        Ok(Self { scan, folder: folder.to_path_buf(), saved: Mutex::new(Some(saved)), asker, objects })
    }

    /// The text encoder with the features. It is loaded for the first question.
    fn asker(&self, session: &Session) -> Result<&Mutex<Asker>, Refusal> {
        let load = || {
            let saved = lock(&self.saved).take().ok_or("the features are gone")?;
            session.asker(&self.folder, saved).map(Mutex::new).map_err(|error| error.to_string())
        };
        self.asker.get_or_init(load).as_ref().map_err(|error| Refusal::Unable(error.clone()))
    }

    /// The objects of the labels that the scan has.
    pub(super) fn objects(&self) -> &[u8] {
        self.objects.get_or_init(|| answers::objects(&self.scan))
    }
}

fn refusal(error: SessionError) -> Refusal {
    match error {
        SessionError::NoQuestion => Refusal::Question(error.to_string()),
        error => Refusal::Unable(error.to_string()),
    }
}

/// Fails for a text that is too long for a question.
fn check(question: &str) -> Result<(), Refusal> {
    let length = question.chars().count();
    if length > MOST_CHARACTERS {
        return Err(Refusal::Question(format!("{length} characters, at most {MOST_CHARACTERS} make a question")));
    }
    Ok(())
}

/// A panic while the lock was held left nothing half done that the next one would read.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
