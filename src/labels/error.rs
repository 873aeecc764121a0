use std::path::PathBuf;

use crate::cloud::CloudError;

/// Reasons why labels cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LabelsError {
    /// The file cannot be read.
    #[error(transparent)]
    Cloud(#[from] CloudError),
    /// The points have no property of this name.
    #[error("{}: the points have no property '{field}', only {found:?}", path.display())]
    NoField {
        /// The file.
        path: PathBuf,
        /// The property that should hold the labels.
        field: String,
        /// Names of the properties that exist.
        found: Vec<String>,
    },
    /// A label is not a whole number.
    #[error("{}: point {point} has the label {value}; expected whole numbers in '{field}'", path.display())]
    NotWhole {
        /// The file.
        path: PathBuf,
        /// Index of the point.
        point: usize,
        /// Value of the label.
        value: f64,
        /// The property.
        field: String,
    },
    /// A file of labels or a table cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// A file of labels or a table has unexpected content.
    #[error("{}: {found}; expected {expected}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// Content of the file.
        found: String,
        /// Expected content.
        expected: String,
    },
    /// The table that translates labels was not found.
    #[error(
        "{}: the labels need the data set's table {name}, which was not found. Put it here, in a folder above \
         (up to the one that contains {}), or in a folder metadata of one of these",
        start.display(), root.display()
    )]
    Table {
        /// File name of the table.
        name: &'static str,
        /// Path of the scene.
        start: PathBuf,
        /// The folder of all scenes.
        root: PathBuf,
    },
    /// The labels of a scene cannot be translated to the wanted classes.
    #[error("{}: the labels do not give the classes of {preset}; expected {expected}", path.display())]
    OtherClasses {
        /// The file with the labels.
        path: PathBuf,
        /// Name of the label set.
        preset: &'static str,
        /// Files or properties that would allow it.
        expected: &'static str,
    },
}
