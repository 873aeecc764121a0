//! Ground truth: the labels of a scan's points, as benchmarks keep them.

use std::path::{Path, PathBuf};

use super::metrics::{Confusion, MetricsError, Protocol};
use crate::cloud::{CloudError, PointCloud};
use crate::query::presets::Preset;

/// What ScanNet's labelled meshes are called.
pub const SCANNET_LABELS: &str = ".labels.ply";

/// NYU40's number of each of ScanNet's 20 classes (Dai et al., CVPR 2017), in the benchmark's order.
pub const NYU40_FROM_SCANNET20: [i64; 20] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 16, 24, 28, 33, 34, 36, 39];

/// The largest number of NYU40; 0 is unlabelled.
pub const LARGEST_NYU40: i64 = 40;

const NYU40_CEILING: i64 = 22;

/// A label of [`Truth`] that counts nowhere.
pub const NOT_COUNTED: i32 = i32::MIN;

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
    /// Labels and points are not of one scan.
    #[error(
        "{} has {labels} labels, {} has {points} points; expected one label for each point, in the same order",
        path.display(), scan.display()
    )]
    Points {
        /// The file with the labels.
        path: PathBuf,
        /// Number of labels.
        labels: usize,
        /// The scan.
        scan: PathBuf,
        /// Number of its points.
        points: usize,
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
    /// A label is none that the protocol knows, or a prediction is none.
    #[error("{}: {source}", path.display())]
    Metrics {
        /// The file with the labels.
        path: PathBuf,
        /// What is wrong.
        source: MetricsError,
    },
}

/// Whether a file is called as ScanNet's labelled meshes, whose labels are NYU40's.
#[must_use]
pub fn is_scannets(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(SCANNET_LABELS))
}

/// NYU40's number of each class of `preset`, for those whose classes are taken from NYU40.
#[must_use]
pub fn nyu40_from_class(preset: &Preset) -> Option<Vec<i64>> {
    match preset.name {
        name if name == Preset::SCANNET20.name => Some(NYU40_FROM_SCANNET20.to_vec()),
        name if name == Preset::MATTERPORT21.name => Some([&NYU40_FROM_SCANNET20[..], &[NYU40_CEILING]].concat()),
        _ => None,
    }
}

/// Replaces NYU40's numbers, 0 to 40, by classes; those of no class become `other`. Numbers that are not NYU40's stay.
pub fn classes_from_nyu40(labels: &mut [i64], nyu40_from_class: &[i64], other: i64) {
    for label in labels {
        if (0..=LARGEST_NYU40).contains(label) {
            let class = nyu40_from_class.iter().position(|nyu40| nyu40 == label);
            *label = class.map_or(other, |class| class as i64);
        }
    }
}

/// Reads the labels of all points of a scan from its property `field`, in the file's order.
///
/// # Errors
/// [`LabelsError::Cloud`], [`LabelsError::NoField`], [`LabelsError::NotWhole`].
pub fn read_labels(path: &Path, field: &str) -> Result<Vec<i64>, LabelsError> {
    let cloud = PointCloud::read(path)?;
    let Some(attribute) = cloud.attribute(field) else {
        let found = cloud.attributes.iter().map(|attribute| attribute.name.clone()).collect();
        return Err(LabelsError::NoField { path: path.into(), field: field.into(), found });
    };
    let label = |point: usize| {
        let value = attribute.data.get_f64(point).unwrap_or(f64::NAN);
        // Phrased so that a NaN fails.
        let is_whole = value.fract() == 0.0 && value.abs() < 1e15;
        if is_whole {
            Ok(value as i64)
        } else {
            Err(LabelsError::NotWhole { path: path.into(), point, value, field: field.into() })
        }
    };
    (0..attribute.data.len()).map(label).collect()
}

/// The labels of a scene as a protocol counts them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Truth {
    path: PathBuf,
    /// `[N]` classes, labels that the protocol ignores, or [`NOT_COUNTED`].
    labels: Vec<i32>,
}

impl Truth {
    /// Takes `labels` of the file `path`: numbers of classes, or NYU40's where `nyu40_from_class` is given. Labels in `ignore`
    /// count nowhere, as those that the protocol ignores and those of NYU40 that are no class.
    ///
    /// # Errors
    /// [`LabelsError::Metrics`] for a label that is neither a class nor ignored.
    pub fn new(
        path: &Path,
        mut labels: Vec<i64>,
        nyu40_from_class: Option<&[i64]>,
        ignore: &[i64],
        protocol: &Protocol,
    ) -> Result<Self, LabelsError> {
        const OTHER: i64 = NOT_COUNTED as i64;
        labels.iter_mut().filter(|label| ignore.contains(label)).for_each(|label| *label = OTHER);
        if let Some(nyu40_from_class) = nyu40_from_class {
            classes_from_nyu40(&mut labels, nyu40_from_class, OTHER);
        }
        // What does not fit is no class either.
        let labels = labels.into_iter().map(|label| i32::try_from(label).unwrap_or(i32::MAX)).collect();
        let truth = Self { path: path.to_path_buf(), labels };
        // A wrong label should be found before anything is predicted.
        truth.count(&vec![-1; truth.labels.len()], protocol)?;
        Ok(truth)
    }

    /// Number of labels.
    #[must_use]
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is no label.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// `[N]` the class of each point, -1 for those that count nowhere: for pictures.
    #[must_use]
    pub fn classes(&self, protocol: &Protocol) -> Vec<i32> {
        let class = |&label: &i32| if self.is_counted(label, protocol) { label } else { -1 };
        self.labels.iter().map(class).collect()
    }

    fn is_counted(&self, label: i32, protocol: &Protocol) -> bool {
        label != NOT_COUNTED && !protocol.ignore.contains(&label)
    }

    /// Fails unless there is one label for each of the `points` of `scan`.
    ///
    /// # Errors
    /// [`LabelsError::Points`].
    pub fn check(&self, scan: &Path, points: usize) -> Result<(), LabelsError> {
        if self.labels.len() == points {
            return Ok(());
        }
        let (path, labels) = (self.path.clone(), self.labels.len());
        Err(LabelsError::Points { path, labels, scan: scan.to_path_buf(), points })
    }

    /// Counts `predictions [N]`: a class each, -1 for none.
    ///
    /// # Errors
    /// [`LabelsError::Metrics`].
    pub fn count(&self, predictions: &[i32], protocol: &Protocol) -> Result<Confusion, LabelsError> {
        let counted = Confusion::new(protocol.num_classes).and_then(|mut confusion| {
            let ignore = [protocol.ignore, &[NOT_COUNTED]].concat();
            confusion.add(&self.labels, predictions, &ignore)?;
            Ok(confusion)
        });
        counted.map_err(|source| {
            let source = match source {
                // What stands for "not counted" is no label that a user could have meant.
                MetricsError::Label { point, label, num_classes, .. } => {
                    MetricsError::Label { point, label, num_classes, ignore: protocol.ignore.to_vec() }
                }
                other => other,
            };
            LabelsError::Metrics { path: self.path.clone(), source }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nyu40_becomes_classes() {
        let mut labels = [0, 1, 2, 13, 16, 22, 39, 40, 41, -1, 255];
        classes_from_nyu40(&mut labels, &NYU40_FROM_SCANNET20, -7);
        assert_eq!(labels, [-7, 0, 1, -7, 13, -7, 19, -7, 41, -1, 255]);
        let matterport = nyu40_from_class(&Preset::MATTERPORT21).unwrap();
        assert_eq!((matterport.len(), matterport[20]), (21, 22));
        assert_eq!(nyu40_from_class(&Preset::SCANNET200), None);
        for preset in [Preset::SCANNET20, Preset::MATTERPORT21] {
            assert_eq!(nyu40_from_class(&preset).unwrap().len(), preset.labels.len());
        }
    }

    #[test]
    fn truth_counts_what_the_protocol_counts() {
        let protocol = Protocol::SCANNET19;
        let path = Path::new("a.labels.ply");
        // Unlabelled, wall, other furniture, blinds, bathtub, and one that is left out by hand.
        let nyu40 = vec![0, 1, 39, 13, 36, 2];
        let truth = Truth::new(path, nyu40, Some(&NYU40_FROM_SCANNET20), &[2], &protocol).unwrap();
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
