//! Metrics of labels against ground truth: the confusion matrix and figures derived from it.

use serde::Serialize;

/// Most classes of a [`Confusion`]. The matrix grows with the square of their number.
pub const MAX_CLASSES: usize = 4096;

/// Value that the reference adds to denominators.
const EPSILON: f64 = 1e-10;

/// Error of counting predictions.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MetricsError {
    /// The numbers of labels and predictions differ.
    #[error("{labels} labels and {predictions} predictions; expected one of each per point")]
    Length {
        /// Number of labels.
        labels: usize,
        /// Number of predictions.
        predictions: usize,
    },
    /// A label is neither a class nor ignored.
    #[error("point {point} has the label {label}; expected 0 to {last}, or one of the ignored {ignore:?}", last = num_classes - 1)]
    Label {
        /// Index of the point.
        point: usize,
        /// Label of the point.
        label: i32,
        /// Number of classes.
        num_classes: usize,
        /// Labels that are not counted.
        ignore: Vec<i32>,
    },
    /// A prediction is not a class.
    #[error("point {point} has the prediction {prediction}; expected 0 to {last}, or -1 for none", last = num_classes - 1)]
    Prediction {
        /// Index of the point.
        point: usize,
        /// Prediction for the point.
        prediction: i32,
        /// Number of classes.
        num_classes: usize,
    },
    /// The number of classes is 0 or too large.
    #[error("{0} classes; expected 1 to {MAX_CLASSES}")]
    NumClasses(usize),
    /// The size of a matrix does not fit its number of classes.
    #[error("a matrix of {found} counts for {num_classes} classes; expected a row of {} for each", num_classes + 1)]
    Counts {
        /// Number of counts.
        found: usize,
        /// Number of classes.
        num_classes: usize,
    },
    /// A selection names a class that does not exist.
    #[error("class {class} is selected; expected classes below {num_classes}")]
    Class {
        /// Number of the class.
        class: usize,
        /// Number of classes.
        num_classes: usize,
    },
}

/// Contribution of a class without any point to a mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AbsentClasses {
    /// The class counts as 0, as in the published code: x / (x + 1e-10) over all classes of the selection.
    Zero,
    /// The class is skipped: the mean runs over the classes that occur. IoU skips a class that is in neither
    /// labels nor predictions. Accuracy skips a class that is not in the labels.
    Skipped,
}

/// Point counts of one class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClassCounts {
    /// Points with this label and this prediction.
    pub intersection: u64,
    /// Points with this label or this prediction.
    pub union: u64,
    /// Points with this label.
    pub target: u64,
}

impl ClassCounts {
    /// Intersection over union; `None` if the class does not occur.
    #[must_use]
    pub fn iou(self) -> Option<f64> {
        (self.union > 0).then(|| self.intersection as f64 / (self.union as f64 + EPSILON))
    }

    /// Share of the class's points that are found; `None` if no point has the label.
    #[must_use]
    pub fn accuracy(self) -> Option<f64> {
        (self.target > 0).then(|| self.intersection as f64 / (self.target as f64 + EPSILON))
    }
}

/// Means over a selection of classes; `None` if no class counts.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Scores {
    /// Mean intersection over union.
    pub mean_iou: Option<f64>,
    /// Mean over classes of the share of points that are found.
    pub mean_accuracy: Option<f64>,
    /// Share of all points of these classes that are found.
    pub all_accuracy: Option<f64>,
}

/// Counts of (label, prediction), summed over scenes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confusion {
    num_classes: usize,
    /// `[C, C + 1]`, row-major; the last column counts points without a prediction.
    counts: Vec<u64>,
    num_ignored: u64,
}

impl Confusion {
    /// Makes an empty matrix for `num_classes` classes.
    ///
    /// # Errors
    /// [`MetricsError::NumClasses`] unless there are 1 to [`MAX_CLASSES`].
    pub fn new(num_classes: usize) -> Result<Self, MetricsError> {
        if !(1..=MAX_CLASSES).contains(&num_classes) {
            return Err(MetricsError::NumClasses(num_classes));
        }
        Ok(Self { num_classes, counts: vec![0; num_classes * (num_classes + 1)], num_ignored: 0 })
    }

    /// Makes a matrix from `counts [C, C + 1]`, in the form of [`counts`](Self::counts).
    ///
    /// # Errors
    /// [`MetricsError::NumClasses`] and [`MetricsError::Counts`].
    pub fn from_counts(num_classes: usize, counts: Vec<u64>, num_ignored: u64) -> Result<Self, MetricsError> {
        let empty = Self::new(num_classes)?;
        match counts.len() {
            found if found == empty.counts.len() => Ok(Self { num_classes, counts, num_ignored }),
            found => Err(MetricsError::Counts { found, num_classes }),
        }
    }

    /// Adds the counts of another matrix.
    ///
    /// # Errors
    /// [`MetricsError::Counts`] if the numbers of classes differ; nothing is added then.
    pub fn merge(&mut self, other: &Self) -> Result<(), MetricsError> {
        if other.num_classes != self.num_classes {
            return Err(MetricsError::Counts { found: other.counts.len(), num_classes: self.num_classes });
        }
        self.counts.iter_mut().zip(&other.counts).for_each(|(sum, count)| *sum += count);
        self.num_ignored += other.num_ignored;
        Ok(())
    }

    /// Adds the points of a scene. Each has a label 0..C and a prediction 0..C, or -1 for none.
    ///
    /// Points whose label is in `ignore` are not counted, whatever their prediction. A point without a
    /// prediction counts as not found. Counts do not depend on how points are divided into scenes.
    ///
    /// # Errors
    /// [`MetricsError::Length`], [`MetricsError::Label`] or [`MetricsError::Prediction`]; nothing is added
    /// then.
    pub fn add(&mut self, labels: &[i32], predictions: &[i32], ignore: &[i32]) -> Result<(), MetricsError> {
        if labels.len() != predictions.len() {
            return Err(MetricsError::Length { labels: labels.len(), predictions: predictions.len() });
        }
        let num_classes = self.num_classes;
        let class = |value: i32| usize::try_from(value).ok().filter(|&class| class < num_classes);
        let cell = |point: usize| {
            let (label, prediction) = (labels[point], predictions[point]);
            if ignore.contains(&label) {
                return Ok(None);
            }
            let row = class(label);
            let row = row.ok_or_else(|| MetricsError::Label { point, label, num_classes, ignore: ignore.to_vec() })?;
            let column = if prediction == -1 { Some(num_classes) } else { class(prediction) };
            let column = column.ok_or(MetricsError::Prediction { point, prediction, num_classes })?;
            Ok(Some(row * (num_classes + 1) + column))
        };
        // Adds all of a scene or nothing: a wrong label must not leave half of the scene counted.
        let mut counts = vec![0_u64; self.counts.len()];
        let mut num_ignored = 0;
        for point in 0..labels.len() {
            match cell(point)? {
                Some(cell) => counts[cell] += 1,
                None => num_ignored += 1,
            }
        }
        self.counts.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        self.num_ignored += num_ignored;
        Ok(())
    }

    /// Number of classes C.
    #[must_use]
    pub fn num_classes(&self) -> usize {
        self.num_classes
    }

    /// The matrix `[C, C + 1]`, row-major: points with a label (row) and a prediction (column). The last
    /// column counts points without a prediction.
    #[must_use]
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// Number of points left out because of their label.
    #[must_use]
    pub fn num_ignored(&self) -> u64 {
        self.num_ignored
    }

    /// Counts of every class.
    #[must_use]
    pub fn classes(&self) -> Vec<ClassCounts> {
        let mut predicted = vec![0_u64; self.num_classes];
        for row in self.counts.chunks_exact(self.num_classes + 1) {
            predicted.iter_mut().zip(row).for_each(|(sum, count)| *sum += count);
        }
        let rows = self.counts.chunks_exact(self.num_classes + 1).enumerate();
        rows.map(|(class, row)| {
            let (target, intersection) = (row.iter().sum::<u64>(), row[class]);
            ClassCounts { intersection, union: target + predicted[class] - intersection, target }
        })
        .collect()
    }

    /// Means over the classes `selection`. Predictions always compete over all classes; the selection only
    /// decides which figures are averaged.
    ///
    /// # Errors
    /// [`MetricsError::Class`] for a class that does not exist.
    pub fn scores(&self, selection: &[usize], absent: AbsentClasses) -> Result<Scores, MetricsError> {
        let classes = self.classes();
        let selected: Vec<ClassCounts> = selection
            .iter()
            .map(|&class| {
                let counts = classes.get(class).copied();
                counts.ok_or(MetricsError::Class { class, num_classes: self.num_classes })
            })
            .collect::<Result<_, _>>()?;
        let mean = |figure: fn(ClassCounts) -> Option<f64>| {
            let figures: Vec<f64> = match absent {
                AbsentClasses::Zero => selected.iter().map(|&counts| figure(counts).unwrap_or(0.0)).collect(),
                AbsentClasses::Skipped => selected.iter().filter_map(|&counts| figure(counts)).collect(),
            };
            (!figures.is_empty()).then(|| figures.iter().sum::<f64>() / figures.len() as f64)
        };
        let target: u64 = selected.iter().map(|counts| counts.target).sum();
        let intersection: u64 = selected.iter().map(|counts| counts.intersection).sum();
        Ok(Scores {
            mean_iou: mean(ClassCounts::iou),
            mean_accuracy: mean(ClassCounts::accuracy),
            all_accuracy: match (target, absent) {
                (0, AbsentClasses::Skipped) => None,
                _ => (!selected.is_empty()).then(|| intersection as f64 / (target as f64 + EPSILON)),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Class 0: two of three points found, one predicted as 1. Class 1: one found, one unlabelled. Class 2:
    /// only predicted. Class 3: does not occur.
    fn counted() -> Confusion {
        let mut confusion = Confusion::new(4).unwrap();
        confusion.add(&[0, 0, 0, 9], &[0, 0, 1, 3], &[9]).unwrap();
        confusion.add(&[1, 1, 0], &[1, -1, 2], &[9]).unwrap();
        confusion
    }

    #[test]
    fn counts_are_those_of_the_definition() {
        let confusion = counted();
        #[rustfmt::skip]
        assert_eq!(confusion.counts(), [
            2, 1, 1, 0, 0,
            0, 1, 0, 0, 1,
            0, 0, 0, 0, 0,
            0, 0, 0, 0, 0,
        ]);
        assert_eq!((confusion.num_ignored(), confusion.num_classes()), (1, 4));
        let classes: Vec<_> = confusion.classes().iter().map(|c| (c.intersection, c.union, c.target)).collect();
        assert_eq!(classes, [(2, 4, 4), (1, 3, 2), (0, 1, 0), (0, 0, 0)]);
    }

    #[test]
    fn absent_classes_count_as_nothing_or_are_skipped() {
        let near = |found: Option<f64>, expected: f64| (found.unwrap() - expected).abs() < 1e-9;
        let confusion = counted();
        let zero = confusion.scores(&[0, 1, 2, 3], AbsentClasses::Zero).unwrap();
        assert!(near(zero.mean_iou, (0.5 + 1.0 / 3.0) / 4.0), "{zero:?}");
        assert!(near(zero.mean_accuracy, (0.5 + 0.5) / 4.0) && near(zero.all_accuracy, 0.5), "{zero:?}");
        let skipped = confusion.scores(&[0, 1, 2, 3], AbsentClasses::Skipped).unwrap();
        // Class 2 was predicted but is not in the labels: its IoU is zero, and it has no accuracy.
        assert!(near(skipped.mean_iou, (0.5 + 1.0 / 3.0) / 3.0), "{skipped:?}");
        assert!(near(skipped.mean_accuracy, 0.5) && near(skipped.all_accuracy, 0.5), "{skipped:?}");
        let nothing = Scores { mean_iou: None, mean_accuracy: None, all_accuracy: None };
        assert_eq!(confusion.scores(&[3], AbsentClasses::Skipped).unwrap(), nothing);
        assert_eq!(confusion.scores(&[], AbsentClasses::Zero).unwrap(), nothing);
        let zero = Scores { mean_iou: Some(0.0), mean_accuracy: Some(0.0), all_accuracy: Some(0.0) };
        assert_eq!(confusion.scores(&[3], AbsentClasses::Zero).unwrap(), zero);
    }

    #[test]
    fn matrices_add_up_to_that_of_all_scenes() {
        let (mut first, mut second) = (Confusion::new(4).unwrap(), Confusion::new(4).unwrap());
        first.add(&[0, 0, 0, 9], &[0, 0, 1, 3], &[9]).unwrap();
        second.add(&[1, 1, 0], &[1, -1, 2], &[9]).unwrap();
        first.merge(&second).unwrap();
        assert_eq!(first, counted());
        assert_eq!(Confusion::from_counts(4, first.counts().to_vec(), 1), Ok(counted()));
        let error = Confusion::from_counts(3, vec![0; 9], 0).unwrap_err();
        assert_eq!(error.to_string(), "a matrix of 9 counts for 3 classes; expected a row of 4 for each");
        assert!(first.merge(&Confusion::new(3).unwrap()).is_err());
        assert_eq!(first, counted());
    }

    #[test]
    fn faults_are_named_and_count_nothing() {
        let mut confusion = Confusion::new(3).unwrap();
        let before = confusion.clone();
        assert_eq!(confusion.add(&[0], &[], &[]), Err(MetricsError::Length { labels: 1, predictions: 0 }));
        let error = confusion.add(&[0, 3], &[0, 0], &[255]).unwrap_err();
        assert_eq!(error.to_string(), "point 1 has the label 3; expected 0 to 2, or one of the ignored [255]");
        assert!(matches!(confusion.add(&[0, -1], &[0, 0], &[]), Err(MetricsError::Label { point: 1, .. })));
        let error = confusion.add(&[0, 1], &[0, -2], &[]).unwrap_err();
        assert_eq!(error.to_string(), "point 1 has the prediction -2; expected 0 to 2, or -1 for none");
        assert_eq!(confusion, before);
        assert_eq!(
            confusion.scores(&[0, 3], AbsentClasses::Zero),
            Err(MetricsError::Class { class: 3, num_classes: 3 })
        );
        assert_eq!(Confusion::new(0), Err(MetricsError::NumClasses(0)));
        assert!(Confusion::new(MAX_CLASSES + 1).is_err());
    }
}
