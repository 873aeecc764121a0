use std::path::PathBuf;

use crate::cloud::CloudError;

/// Why labels cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LabelsError {
    /// The file cannot be read.
    #[error(transparent)]
    Cloud(#[from] CloudError),
    /// The points have no such property.
    #[error("{}: its points have no '{field}', only {found:?}", path.display())]
    NoField {
        /// The file.
        path: PathBuf,
        /// The property that should hold the labels.
        field: String,
        /// The properties there are.
        found: Vec<String>,
    },
    /// A label is no whole number.
    #[error("{}: point {point} has the label {value}; expected whole numbers in '{field}'", path.display())]
    NotWhole {
        /// The file.
        path: PathBuf,
        /// Index of the point.
        point: usize,
        /// What it has.
        value: f64,
        /// The property.
        field: String,
    },
    /// A file of labels or a table cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file of labels or a table is not what it should be.
    #[error("{}: {found}; expected {expected}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is there.
        found: String,
        /// What should be.
        expected: String,
    },
    /// The table that says what labels mean is not there.
    #[error(
        "{}: the labels need the data set's own table, and there is no {name} here, in a folder above up to the one around {}, or \
         in a folder metadata of these; put it there",
        start.display(), root.display()
    )]
    Table {
        /// The table.
        name: &'static str,
        /// The scene.
        start: PathBuf,
        /// The folder of all scenes.
        root: PathBuf,
    },
    /// The labels of a scene are not of the wanted classes.
    #[error("{}: nothing says which points are of the classes of {preset}; expected {expected}", path.display())]
    OtherClasses {
        /// The file with the labels.
        path: PathBuf,
        /// The label set.
        preset: &'static str,
        /// What would say it.
        expected: &'static str,
    },
}
