//! Figures of a validation by classes.

use std::collections::BTreeMap;

use crate::eval::metrics::{AbsentClasses, Confusion, MetricsError};

/// Adds `val_miou` and `val_accuracy` of all classes that occur, with `suffix` behind the names.
///
/// # Errors
/// [`MetricsError`].
pub(super) fn add_means(
    figures: &mut BTreeMap<String, f64>,
    suffix: &str,
    counts: &Confusion,
) -> Result<(), MetricsError> {
    let selection: Vec<usize> = (0..counts.num_classes()).collect();
    let scores = counts.scores(&selection, AbsentClasses::Skipped)?;
    for (figure, value) in [("miou", scores.mean_iou), ("accuracy", scores.all_accuracy)] {
        figures.extend(value.map(|value| (format!("val_{figure}{suffix}"), value)));
    }
    Ok(())
}

/// Adds the IoU of every class that occurs.
pub(super) fn add_ious(figures: &mut BTreeMap<String, f64>, labels: &[&str], counts: &Confusion) {
    for (label, class) in labels.iter().zip(counts.classes()) {
        figures.extend(class.iou().map(|iou| (format!("iou {label}"), iou)));
    }
}
