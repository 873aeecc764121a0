//! The figures of OpenScene's own evaluation, for rows of a table that are measured as it measures them.
//!
//! They differ from [`Confusion::scores`] where points have no prediction: those are missing from the union of their
//! class, so IoU does not see them, while accuracy still divides by all points of the class.

use super::metrics::Confusion;

/// IoU of every class, and means over all of them.
#[derive(Clone, Debug, PartialEq)]
pub struct OpenSceneScores {
    /// `[C]`: intersection over union; 0 for a class that occurs nowhere.
    pub iou: Vec<f64>,
    /// Mean of `iou` over all C classes, those without points included.
    pub mean_iou: f64,
    /// Mean over all C classes of the share of points that are found; 0 for a class without points.
    pub mean_accuracy: f64,
}

impl OpenSceneScores {
    /// The figures of counted points.
    #[must_use]
    pub fn of(confusion: &Confusion) -> Self {
        let num_classes = confusion.num_classes();
        let unpredicted = confusion.counts().chunks_exact(num_classes + 1).map(|row| row[num_classes]);
        let share = |part: u64, whole: u64| if whole == 0 { 0.0 } else { part as f64 / whole as f64 };
        let (mut iou, mut accuracy) = (Vec::with_capacity(num_classes), 0.0);
        for (counts, unpredicted) in confusion.classes().iter().zip(unpredicted) {
            iou.push(share(counts.intersection, counts.union - unpredicted));
            accuracy += share(counts.intersection, counts.target);
        }
        let mean_iou = iou.iter().sum::<f64>() / num_classes as f64;
        Self { iou, mean_iou, mean_accuracy: accuracy / num_classes as f64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn iou_does_not_see_points_without_a_prediction() {
        let mut confusion = Confusion::new(3).unwrap();
        // Class 0: one of four found, two without a prediction. Class 1: found, and one of class 0. Class 2: nowhere.
        confusion.add(&[0, 0, 0, 0, 1, 255], &[0, -1, -1, 1, 1, 0], &[255]).unwrap();
        let scores = OpenSceneScores::of(&confusion);
        assert_eq!(scores.iou, [0.5, 0.5, 0.0]);
        assert_eq!((scores.mean_iou, scores.mean_accuracy), (1.0 / 3.0, (0.25 + 1.0) / 3.0));
    }
}
