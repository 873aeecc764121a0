//! Labels that a scan's points carry as a property.

use std::path::Path;

use super::LabelsError;
use crate::cloud::PointCloud;

/// File name suffix of ScanNet's labelled meshes.
pub const SCANNET_LABELS: &str = ".labels.ply";

/// Meaning of label numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LabelIds {
    /// Decided by the file's name or the label set.
    #[default]
    Auto,
    /// Class numbers.
    Class,
    /// NYU40 numbers.
    Nyu40,
}

/// Returns true if the file name is that of a labelled ScanNet mesh, whose labels are NYU40's.
#[must_use]
pub fn is_scannets(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(SCANNET_LABELS))
}

/// Reads the labels of all points of a scan from its property `field`, in the order of the file.
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
