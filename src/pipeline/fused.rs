//! Features that OpenScene fused from views, as files beside its prepared scans.

use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::weights::{TensorSource as _, WeightsError, WeightsFile};

/// Key of the features, `[M, C]` of the points that a view sees.
const FEATURES: &str = "feat";
/// What a file that lacks a key should be.
const HINT: &str = "expected a file of fused features, with feat and mask_full";
/// Key of the mask, `[N]`: true for the points that have features.
const MASK: &str = "mask_full";
/// End of the name of a scan of ScanNet, which its features do not have.
const OF_SCANNET: &str = "_vh_clean_2";

/// Fused features of a scan.
#[derive(Clone, Debug, PartialEq)]
pub struct FusedFeatures {
    /// `[M, C]`.
    rows: Vec<f32>,
    num_channels: usize,
    /// `[N]`; -1 for points that no view sees.
    row_from_point: Vec<i32>,
}

impl FusedFeatures {
    /// The file with the features of a scan. `place` is that file, or a folder of such files: `NAME_0.pt` or `NAME.pt`,
    /// where NAME is that of the scan's file or else of its folder.
    #[must_use]
    pub fn file_of(place: &Path, scan: &Path) -> PathBuf {
        if !place.is_dir() {
            return place.to_path_buf();
        }
        let names = [scan.file_stem(), scan.parent().and_then(Path::file_name)];
        let names = names.into_iter().flatten().map(|name| name.to_string_lossy().into_owned());
        let files = names.flat_map(|name| {
            let name = name.strip_suffix(OF_SCANNET).unwrap_or(&name);
            [format!("{name}_0.pt"), format!("{name}.pt")].map(|file| place.join(file))
        });
        let files: Vec<PathBuf> = files.collect();
        let found = files.iter().find(|file| file.is_file()).or(files.first());
        found.cloned().unwrap_or_else(|| place.to_path_buf())
    }

    /// Number of channels of the features at `place`, that file or the first of a folder.
    ///
    /// # Errors
    /// [`WeightsError`] with the file, if it is not one of fused features; with the folder, if it has none.
    pub fn channels_at(place: &Path) -> Result<usize, WeightsError> {
        let io = |source| WeightsError::Io { path: place.to_path_buf(), source };
        let missing = |path: &Path| WeightsError::MissingKey {
            path: path.to_path_buf(),
            key: FEATURES.to_owned(),
            hint: HINT.to_owned(),
        };
        let mut files = vec![place.to_path_buf()];
        if place.is_dir() {
            let entries = std::fs::read_dir(place).and_then(Iterator::collect::<Result<Vec<_>, _>>).map_err(io)?;
            files = entries.into_iter().map(|entry| entry.path()).collect();
            files.retain(|path| path.extension().is_some_and(|extension| extension == "pt"));
            files.sort();
        }
        let file = files.first().ok_or_else(|| missing(place))?;
        let weights = WeightsFile::open(file)?;
        let shape = weights.inventory().tensors.get(FEATURES).map(|info| info.shape.clone());
        shape.and_then(|shape| shape.get(1).copied()).ok_or_else(|| missing(file))
    }

    /// Number of channels, C.
    #[must_use]
    pub fn num_channels(&self) -> usize {
        self.num_channels
    }

    /// Reads the features of a scan of `num_points` points, for words of `num_channels` channels.
    ///
    /// # Errors
    /// [`WeightsError`] with the file and the key: [`WeightsError::Shape`] for another number of points or channels,
    /// [`WeightsError::Number`] for a value that is not finite.
    pub fn read(path: &Path, num_points: usize, num_channels: usize) -> Result<Self, WeightsError> {
        let mut state = WeightsFile::open(path)?.state_dict()?;
        let missing = |key: &str| WeightsError::MissingKey {
            path: path.to_path_buf(),
            key: key.to_owned(),
            hint: HINT.to_owned(),
        };
        let misshaped = |key: &str, expected: &[usize], found: &[usize]| WeightsError::Shape {
            path: path.to_path_buf(),
            key: key.to_owned(),
            expected: expected.to_vec(),
            found: found.to_vec(),
        };
        let mask = state.integers.remove(MASK).ok_or_else(|| missing(MASK))?;
        let features = state.tensors.remove(FEATURES).ok_or_else(|| missing(FEATURES))?;
        if mask.shape != [num_points] {
            return Err(misshaped(MASK, &[num_points], &mask.shape));
        }
        let mut num_rows = 0;
        let row = |&seen: &i64| match seen {
            0 => -1,
            _ => {
                num_rows += 1;
                num_rows - 1
            }
        };
        let row_from_point: Vec<i32> = mask.data.iter().map(row).collect();
        let expected = [num_rows as usize, num_channels];
        // Older files have an axis of length 1 behind the channels.
        let shape = features.shape.strip_suffix(&[1]).filter(|shape| shape.len() == 2).unwrap_or(&features.shape);
        if shape != expected {
            return Err(misshaped(FEATURES, &expected, &features.shape));
        }
        if let Some(at) = features.data.iter().position(|value| !value.is_finite()) {
            let (path, key) = (path.to_path_buf(), FEATURES.to_owned());
            let (row, found) = (at / num_channels.max(1), features.data[at]);
            return Err(WeightsError::Number { path, key, row, found, expected: "a finite number" });
        }
        Ok(Self { rows: features.data, num_channels, row_from_point })
    }

    /// Features `[B, C]` of `points`, zeros for those that no view sees.
    pub(super) fn of_points(&self, points: Range<usize>) -> Vec<f32> {
        let zeros = vec![0.0; self.num_channels];
        let row = |&row: &i32| match usize::try_from(row) {
            Ok(row) => &self.rows[row * self.num_channels..][..self.num_channels],
            Err(_) => &zeros[..],
        };
        self.row_from_point[points].iter().flat_map(row).copied().collect()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::weights::{Dtype, HostTensor, IntTensor, StateDict, write_state_dict};

    /// Writes features of the points that `mask` says are seen.
    pub(crate) fn write(path: &Path, mask: &[i64], shape: &[usize], data: &[f32]) {
        let mut state = StateDict::default();
        let mask = IntTensor { shape: vec![mask.len()], dtype_in_file: Dtype::I64, data: mask.to_vec() };
        state.integers.insert(MASK.to_owned(), mask);
        let features = HostTensor { shape: shape.to_vec(), dtype_in_file: Dtype::F32, data: data.to_vec() };
        state.tensors.insert(FEATURES.to_owned(), features);
        write_state_dict(path, &state, &std::collections::BTreeMap::new()).unwrap();
    }

    #[test]
    fn features_go_to_the_points_that_are_seen() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("room_0.pt");
        for shape in [&[2, 2][..], &[2, 2, 1]] {
            write(&path, &[0, 1, 0, 1], shape, &[1.0, 2.0, 3.0, 4.0]);
            let fused = FusedFeatures::read(&path, 4, 2).unwrap();
            assert_eq!(fused.of_points(0..4), [0.0, 0.0, 1.0, 2.0, 0.0, 0.0, 3.0, 4.0]);
            assert_eq!(fused.of_points(3..4), [3.0, 4.0]);
            assert_eq!(FusedFeatures::channels_at(folder.path()).unwrap(), 2);
        }
        let empty = tempfile::tempdir().unwrap();
        let error = FusedFeatures::channels_at(empty.path()).unwrap_err().to_string();
        assert!(error.contains("'feat'") && error.contains("expected a file of fused features"), "{error}");
        let error =
            |num_points, num_channels| FusedFeatures::read(&path, num_points, num_channels).unwrap_err().to_string();
        assert!(error(5, 2).ends_with("'mask_full' has shape [4], expected [5]"), "{}", error(5, 2));
        assert!(error(4, 3).ends_with("'feat' has shape [2, 2, 1], expected [2, 3]"), "{}", error(4, 3));
        write(&path, &[1, 1, 1, 0], &[2, 2], &[1.0; 4]);
        assert!(error(4, 2).ends_with("'feat' has shape [2, 2], expected [3, 2]"), "{}", error(4, 2));
        write(&path, &[1, 1], &[2, 2], &[1.0, 2.0, 3.0, f32::NAN]);
        assert!(error(2, 2).contains("'feat', row 1: the value is NaN"), "{}", error(2, 2));
    }

    #[test]
    fn a_scan_finds_its_features_by_its_name_or_its_folders() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path();
        for file in ["scene0011_00_0.pt", "room1.pt"] {
            std::fs::write(place.join(file), b"").unwrap();
        }
        let of = |scan: &str| FusedFeatures::file_of(place, Path::new(scan));
        assert_eq!(of("/data/scene0011_00_vh_clean_2.ply"), place.join("scene0011_00_0.pt"));
        assert_eq!(of("/data/room1/scan.ply"), place.join("room1.pt"));
        // The first name that was tried says what is missing.
        assert_eq!(of("/data/room2/scan.ply"), place.join("scan_0.pt"));
        let file = place.join("room1.pt");
        assert_eq!(FusedFeatures::file_of(&file, Path::new("x.ply")), file);
    }
}
