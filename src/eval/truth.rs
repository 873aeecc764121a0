//! Ground truth: the labels of a scan's points, in the classes of a benchmark.

use std::path::{Path, PathBuf};

use super::metrics::{Confusion, MetricsError};
use crate::labels::nyu40::classes_from_nyu40;
use crate::labels::{LabelsError, Protocol};

/// Label of [`Truth`] that is not counted.
pub const NOT_COUNTED: i32 = i32::MIN;

/// Error of comparing labels and predictions.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TruthError {
    /// The labels cannot be read.
    #[error(transparent)]
    Labels(#[from] LabelsError),
    /// The numbers of labels and points differ.
    #[error(
        "{} has {labels} labels, {} has {points} points; expected one label for each point, in the same order",
        path.display(), scan.display()
    )]
    Points {
        /// The file with the labels.
        path: PathBuf,
        /// Number of labels.
        labels: usize,
        /// File of the scan.
        scan: PathBuf,
        /// Number of its points.
        points: usize,
    },
    /// A label is unknown to the protocol, or a prediction is not a class.
    #[error("{}: {source}", path.display())]
    Metrics {
        /// The file with the labels.
        path: PathBuf,
        /// Reason.
        source: MetricsError,
    },
}

/// Labels of a scene, prepared for a protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Truth {
    path: PathBuf,
    /// `[N]`: classes, labels that the protocol ignores, or [`NOT_COUNTED`].
    labels: Vec<i32>,
}

impl Truth {
    /// Takes the `labels` of the file `path`. They are class numbers, or NYU40 numbers if `nyu40_from_class`
    /// is given. Three kinds of labels are not counted: those in `ignore`, those that the protocol ignores,
    /// and NYU40 numbers that are not a class.
    ///
    /// # Errors
    /// [`TruthError::Metrics`] for a label that is neither a class nor ignored.
    pub fn new(
        path: &Path,
        mut labels: Vec<i64>,
        nyu40_from_class: Option<&[i64]>,
        ignore: &[i64],
        protocol: &Protocol,
    ) -> Result<Self, TruthError> {
        const OTHER: i64 = NOT_COUNTED as i64;
        labels.iter_mut().filter(|label| ignore.contains(label)).for_each(|label| *label = OTHER);
        if let Some(nyu40_from_class) = nyu40_from_class {
            classes_from_nyu40(&mut labels, nyu40_from_class, OTHER);
        }
        // A number that does not fit is not a class either.
        let labels = labels.into_iter().map(|label| i32::try_from(label).unwrap_or(i32::MAX)).collect();
        let truth = Self { path: path.to_path_buf(), labels };
        // Finds a wrong label before anything is predicted.
        truth.count(&vec![-1; truth.labels.len()], protocol)?;
        Ok(truth)
    }

    /// Number of labels.
    #[must_use]
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// True if there are no labels.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// `[N]`: class of each point, -1 for points that are not counted. Used for pictures.
    #[must_use]
    pub fn classes(&self, protocol: &Protocol) -> Vec<i32> {
        let class = |&label: &i32| if self.is_counted(label, protocol) { label } else { -1 };
        self.labels.iter().map(class).collect()
    }

    fn is_counted(&self, label: i32, protocol: &Protocol) -> bool {
        label != NOT_COUNTED && !protocol.ignore.contains(&label)
    }

    /// Checks that there is one label for each of the `points` points of `scan`.
    ///
    /// # Errors
    /// [`TruthError::Points`].
    pub fn check(&self, scan: &Path, points: usize) -> Result<(), TruthError> {
        if self.labels.len() == points {
            return Ok(());
        }
        let (path, labels) = (self.path.clone(), self.labels.len());
        Err(TruthError::Points { path, labels, scan: scan.to_path_buf(), points })
    }

    /// Counts `predictions [N]`: one class per point, -1 for none.
    ///
    /// # Errors
    /// [`TruthError::Metrics`].
    pub fn count(&self, predictions: &[i32], protocol: &Protocol) -> Result<Confusion, TruthError> {
        let counted = Confusion::new(protocol.num_classes).and_then(|mut confusion| {
            let ignore = [protocol.ignore, &[NOT_COUNTED]].concat();
            confusion.add(&self.labels, predictions, &ignore)?;
            Ok(confusion)
        });
        counted.map_err(|source| {
            let source = match source {
                // The message leaves out the internal number for "not counted": a user could not have meant
                // it.
                MetricsError::Label { point, label, num_classes, .. } => {
                    MetricsError::Label { point, label, num_classes, ignore: protocol.ignore.to_vec() }
                }
                other => other,
            };
            TruthError::Metrics { path: self.path.clone(), source }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::labels::nyu40::SCANNET20;

    #[test]
    fn truth_counts_what_the_protocol_counts() {
        let protocol = Protocol::SCANNET19;
        let path = Path::new("a.labels.ply");
        // Unlabelled, wall, other furniture, blinds, bathtub, and one that `ignore` leaves out.
        let nyu40 = vec![0, 1, 39, 13, 36, 2];
        let truth = Truth::new(path, nyu40, Some(&SCANNET20.map(i64::from)), &[2], &protocol).unwrap();
        assert_eq!(truth.classes(&protocol), [-1, 0, -1, -1, 18, -1]);
        let confusion = truth.count(&[0, 0, 0, 0, -1, 0], &protocol).unwrap();
        assert_eq!((confusion.num_ignored(), confusion.counts()[0], confusion.counts()[18 * 20 + 19]), (4, 1, 1));
        assert_eq!(confusion.counts().iter().sum::<u64>(), 2);
    }

    #[test]
    fn labels_that_are_none_are_named() {
        let path = Path::new("a.labels.ply");
        let of = |labels: Vec<i64>| Truth::new(path, labels, None, &[], &Protocol::SCANNET19);
        let message = of(vec![0, 21]).unwrap_err().to_string();
        assert_eq!(
            message,
            "a.labels.ply: point 1 has the label 21; expected 0 to 18, or one of the ignored [19, 20, 255]"
        );
        assert!(of(vec![-1]).is_err() && of(vec![1 << 40]).is_err());
        let message = of(vec![0, 1]).unwrap().check(Path::new("a.ply"), 3).unwrap_err().to_string();
        assert!(message.contains("a.labels.ply has 2 labels, a.ply has 3 points"), "{message}");
    }
}
