//! A scan with the class and the object of every point.

use std::collections::BTreeMap;
use std::path::Path;

use crate::cloud::PointCloud;
use crate::labels::read_labels;
use crate::pretrain::PretrainError;

/// Endings of the names of a room's files, after the folder's name.
const SCAN: &str = "_vh_clean_2.ply";
const LABELS: &str = "_vh_clean_2.labels.ply";
/// Properties of a point that hold the number of its class and of its object.
const CLASS: &str = "label";
const INSTANCE: &str = "instance";
/// Share of the scan's extents along x and y from which on an object goes around the room, as walls and
/// floors do.
const SPAN: f32 = 0.5;

/// A scanned room with the class and the object of every point.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelledScan {
    /// Name in messages.
    pub name: String,
    /// Positions in metres, `[N]`, relative to the middle in x and y and to the lowest point in z.
    pub points: Vec<[f32; 3]>,
    /// Red, green and blue, `[N]`.
    pub colors: Vec<[u8; 3]>,
    /// Unit normals, `[N]`.
    pub normals: Vec<[f32; 3]>,
    /// Class of every point, `[N]`: NYU40's number, 0 for unknown.
    pub classes: Vec<u8>,
    /// Object of every point, `[N]`, numbered from 0 without gaps.
    pub instances: Vec<u32>,
    /// True for each object that extends over half of the scan or more along both x and y.
    pub spans_room: Vec<bool>,
}

impl LabelledScan {
    /// Reads the room in `folder`, as `geopurify synth` writes it: `NAME_vh_clean_2.ply` with colours and
    /// normals, and `NAME_vh_clean_2.labels.ply` with the properties `label` and `instance`.
    ///
    /// # Errors
    /// [`PretrainError::Cloud`], [`PretrainError::Labels`], and [`PretrainError::Rooms`] if something is
    /// missing.
    pub fn read(folder: &Path) -> Result<Self, PretrainError> {
        let name = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let cloud = PointCloud::read(&folder.join(format!("{name}{SCAN}")))?;
        let file = folder.join(format!("{name}{LABELS}"));
        let (labels, classes) = (read_labels(&file, INSTANCE)?, read_labels(&file, CLASS)?);
        let wrong = |message: String| PretrainError::Rooms { path: folder.to_path_buf(), message };
        let (_, mut points) = cloud.centered();
        if labels.len() != points.len() || classes.len() != points.len() {
            return Err(wrong(format!("{} points and {} labels", points.len(), labels.len())));
        }
        let classes = classes.into_iter().map(|class| u8::try_from(class).unwrap_or(0)).collect();
        if points.iter().flatten().any(|x| !x.is_finite()) {
            return Err(wrong("a point has no position".to_owned()));
        }
        let colors = cloud.colors.ok_or_else(|| wrong("its scan has no colours".to_owned()))?;
        let normals = cloud.normals.ok_or_else(|| wrong("its scan has no normals".to_owned()))?;
        let lowest = points.iter().fold(f32::INFINITY, |lowest, p| lowest.min(p[2]));
        points.iter_mut().for_each(|p| p[2] -= lowest);
        let mut numbers: BTreeMap<i64, u32> = labels.iter().map(|&label| (label, 0)).collect();
        numbers.values_mut().zip(0..).for_each(|(number, i)| *number = i);
        if numbers.len() < 2 {
            return Err(wrong(format!("{} objects, expected two at least", numbers.len())));
        }
        let instances: Vec<u32> = labels.iter().map(|label| numbers[label]).collect();
        let spans_room = spanning(&points, &instances, numbers.len());
        Ok(Self { name, points, colors, normals, classes, instances, spans_room })
    }
}

/// Returns true for each object that extends over [`SPAN`] of all points along both x and y.
fn spanning(points: &[[f32; 3]], instances: &[u32], num_instances: usize) -> Vec<bool> {
    const NOTHING: [[f32; 2]; 2] = [[f32::INFINITY, f32::NEG_INFINITY]; 2];
    let grow = |bounds: &mut [[f32; 2]; 2], p: &[f32; 3]| {
        bounds.iter_mut().zip(p).for_each(|(b, &x)| *b = [b[0].min(x), b[1].max(x)]);
    };
    let (mut all, mut of_instance) = (NOTHING, vec![NOTHING; num_instances]);
    for (point, &instance) in points.iter().zip(instances) {
        grow(&mut all, point);
        grow(&mut of_instance[instance as usize], point);
    }
    let spans =
        |bounds: &[[f32; 2]; 2]| bounds.iter().zip(&all).all(|(b, all)| b[1] - b[0] >= SPAN * (all[1] - all[0]));
    of_instance.iter().map(spans).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_around_the_room_spans_it() {
        let points =
            [[0.0, 0.0, 0.0], [4.0, 6.0, 0.0], [0.0, 0.0, 1.0], [4.0, 1.0, 1.0], [2.0, 3.0, 0.0], [0.0, 0.0, 2.0]];
        assert_eq!(spanning(&points, &[0, 0, 1, 1, 2, 2], 3), [true, false, true]);
    }
}
