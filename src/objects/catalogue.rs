//! The files that list objects.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Object;
use crate::files::{csv_quoted, write_atomic};

/// Name of the catalogue in a folder of results.
pub const FILE_NAME: &str = "objects.json";
/// Name of the same as a table.
pub const CSV_FILE: &str = "objects.csv";
/// Version of the format.
const VERSION: u32 = 1;
/// Largest file that is read.
const MOST_BYTES: u64 = 256 << 20;

/// Error of reading or writing a catalogue.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CatalogueError {
    /// The file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Error of the system.
        source: std::io::Error,
    },
    /// The content is not a catalogue.
    #[error("{}: {message}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// Difference between the content and what was expected.
        message: String,
    },
}

/// Objects of a scan, `objects.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Catalogue {
    /// Version of the format, 1.
    pub version: u32,
    /// Metres in a unit of the scan; `None` if unknown.
    pub metres_per_unit: Option<f64>,
    /// Up direction of the scan.
    pub up: [f64; 3],
    /// The objects, by their number.
    pub objects: Vec<Object>,
}

impl Catalogue {
    /// A catalogue of the current version.
    #[must_use]
    pub fn new(objects: Vec<Object>, up: [f64; 3], metres_per_unit: Option<f64>) -> Self {
        Self { version: VERSION, metres_per_unit, up, objects }
    }

    /// Reads `objects.json` of the folder.
    ///
    /// # Errors
    /// [`CatalogueError::Io`]; [`CatalogueError::Content`] for another format, numbers of objects out of order, and
    /// sizes that are no lengths.
    pub fn read(folder: &Path) -> Result<Self, CatalogueError> {
        let path = folder.join(FILE_NAME);
        let io = |source| CatalogueError::Io { path: path.clone(), source };
        let wrong = |message: String| CatalogueError::Content { path: path.clone(), message };
        let bytes = std::fs::metadata(&path).map_err(io)?.len();
        if bytes > MOST_BYTES {
            return Err(wrong(format!("{bytes} bytes, expected at most {MOST_BYTES}")));
        }
        let text = std::fs::read(&path).map_err(io)?;
        let catalogue: Self = serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
        if catalogue.version != VERSION {
            return Err(wrong(format!("version {}, expected {VERSION}", catalogue.version)));
        }
        for (at, object) in catalogue.objects.iter().enumerate() {
            if object.id != at {
                return Err(wrong(format!("object {at} has the id {}, expected {at}", object.id)));
            }
            if object.label < -1 {
                return Err(wrong(format!("object {at} has the label {}, expected -1 or more", object.label)));
            }
            if object.bounds.size.iter().any(|size| *size < 0.0) {
                return Err(wrong(format!("object {at} has the size {:?}, expected lengths", object.bounds.size)));
            }
        }
        Ok(catalogue)
    }

    /// Writes `objects.json` and `objects.csv` into the folder and returns their paths.
    ///
    /// # Errors
    /// [`CatalogueError::Io`].
    pub fn write(&self, folder: &Path) -> Result<[PathBuf; 2], CatalogueError> {
        let (json, csv) = (folder.join(FILE_NAME), folder.join(CSV_FILE));
        let io = |path: &Path| {
            let path = path.to_path_buf();
            move |source| CatalogueError::Io { path, source }
        };
        write_atomic(&json, |out| {
            serde_json::to_writer_pretty(&mut *out, self)?;
            out.write_all(b"\n")
        })
        .map_err(io(&json))?;
        write_atomic(&csv, |out| {
            writeln!(out, "id,label,name,score,points,x,y,z,length,width,height,yaw")?;
            for Object { id, label, name, score, points, bounds, .. } in &self.objects {
                let name = csv_quoted(name);
                let ([x, y, z], [length, width, height]) = (bounds.center, bounds.size);
                let yaw = bounds.yaw;
                writeln!(out, "{id},{label},{name},{score},{points},{x},{y},{z},{length},{width},{height},{yaw}")?;
            }
            Ok(())
        })
        .map_err(io(&csv))?;
        Ok([json, csv])
    }
}
