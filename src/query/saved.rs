//! The features that a run saves, for queries later.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::files::lossy;
use crate::weights::{Dtype, SafetensorsFile, SafetensorsWriter, TensorSpec, WeightsError};

/// Name of the file in the folder of results.
pub const FILE_NAME: &str = "features.safetensors";
/// Key of the description among the file's metadata.
const ABOUT: &str = "geopurify";
/// Name of the tensor with the labels before purification.
const LIFTED: &str = "lifted_label";
/// Values converted per block.
const BLOCK_VALUES: usize = 1 << 20;

/// Error of reading or writing saved features.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SavedError {
    /// The file cannot be read or written, or a tensor is missing or of another type.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The file can be read, but its content is inconsistent.
    #[error("{}: {message}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// Difference between the content and what was expected.
        message: String,
    },
}

/// Scan and weights to which saved features belong.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct About {
    /// The labelled scan, relative to the file.
    #[serde(serialize_with = "lossy::path")]
    pub scan: PathBuf,
    /// Edge of a voxel, in the scan's unit.
    pub voxel_size: f64,
    /// Corner of voxel 0 0 0 in the scan's coordinates: that of voxel `c` is `origin + voxel_size · Σᵢ cᵢ
    /// voxel_axesᵢ`. `None` if the voxels were scaled at random, and in files of earlier versions.
    #[serde(default)]
    pub origin: Option<[f64; 3]>,
    /// Directions of the voxels' x, y and z in the scan.
    #[serde(default = "own_axes")]
    pub voxel_axes: [[f64; 3]; 3],
    /// Up direction of the scan.
    pub up: [f64; 3],
    /// Model whose text encoder embedded the words: xdecoder, lseg or clip.
    #[serde(default = "xdecoder")]
    pub text: String,
    /// Weights of that model: a file, or a name in the store.
    #[serde(alias = "xdecoder")]
    pub weights: String,
    /// File with its configuration, if one was given.
    #[serde(alias = "xdecoder_config", serialize_with = "lossy::optional")]
    pub config: Option<PathBuf>,
    /// Length in bytes of that weights file, or of the file from which the store's weights were imported.
    #[serde(alias = "xdecoder_bytes")]
    pub weights_bytes: u64,
    /// SHA-256 of those weights. Words must be embedded with the same weights.
    #[serde(alias = "xdecoder_sha256")]
    pub weights_sha256: String,
    /// Words of the run, with its background words. A question competes with them. Empty in files of earlier
    /// versions.
    #[serde(default)]
    pub words: Vec<String>,
}

/// Purified features of voxels.
#[derive(Clone, Debug, PartialEq)]
pub struct Saved {
    /// Scan and weights to which they belong.
    pub about: About,
    /// `[V, C]` row-major, rounded to 16 bits in the file.
    pub features: Vec<f32>,
    /// Number of channels, C.
    pub num_channels: usize,
    /// `[V]`: integer voxel coordinates.
    pub coords: Vec<[i32; 3]>,
    /// `[N]`: voxel of every point of the scan, -1 for points without a position.
    pub voxel_from_point: Vec<i32>,
    /// `[N]`: label of every point before purification, -1 for none. `None` in files of earlier versions.
    pub lifted_label: Option<Vec<i32>>,
}

/// Writes `features [V, C]` as 16-bit floats, `voxel_coords [V, 3]`, `voxel_from_point [N]` and
/// `lifted_label [N]`, the labels before purification. The file is written completely or not at all, and holds
/// its own hash.
///
/// # Errors
/// [`SavedError::Weights`].
pub fn write(
    path: &Path,
    about: &About,
    features: &[f32],
    coords: &[[i32; 3]],
    voxel_from_point: &[i32],
    lifted_label: &[i32],
) -> Result<(), SavedError> {
    let num_channels = features.len() / coords.len().max(1);
    let specs = [
        TensorSpec::new("voxel_coords", Dtype::I32, [coords.len(), 3]),
        TensorSpec::new("voxel_from_point", Dtype::I32, [voxel_from_point.len()]),
        TensorSpec::new(LIFTED, Dtype::I32, [lifted_label.len()]),
        TensorSpec::new("features", Dtype::F16, [coords.len(), num_channels]),
    ];
    let text = serde_json::to_string(about)
        .map_err(|error| SavedError::Content { path: path.to_path_buf(), message: error.to_string() })?;
    // For other programs, the place of the voxels stands alone too.
    let mut metadata =
        BTreeMap::from([(ABOUT.to_owned(), text), ("voxel_edge".to_owned(), about.voxel_size.to_string())]);
    if let Some(origin) = about.origin {
        metadata.insert("origin".to_owned(), numbers(&origin));
        metadata.insert("voxel_axes".to_owned(), numbers(about.voxel_axes.as_flattened()));
    }
    let mut file = SafetensorsWriter::create_sealed(path, &specs, &metadata)?;
    file.write_i32(coords.as_flattened())?;
    file.write_i32(voxel_from_point)?;
    file.write_i32(lifted_label)?;
    for values in features.chunks(BLOCK_VALUES) {
        file.write_f32(values)?;
    }
    Ok(file.finish()?)
}

impl Saved {
    /// Reads a file written by [`write()`], and compares it with its hash.
    ///
    /// # Errors
    /// [`SavedError`] naming the file and the tensor.
    pub fn read(path: &Path) -> Result<Self, SavedError> {
        let wrong = |message: String| SavedError::Content { path: path.to_path_buf(), message };
        let file = SafetensorsFile::open(path)?;
        let about = file.metadata().and_then(|metadata| metadata.get(ABOUT));
        let about = about.ok_or_else(|| wrong("these are not features that `infer` saved".to_owned()))?;
        let about: About = serde_json::from_str(about).map_err(|error| wrong(format!("its description: {error}")))?;
        file.verify_seal_once()?;
        let is_length = about.voxel_size.is_finite() && about.voxel_size > 0.0;
        if !is_length || about.up.iter().any(|x| !x.is_finite()) {
            return Err(wrong(format!("a voxel size of {} and an up direction of {:?}", about.voxel_size, about.up)));
        }
        let integers = |name: &str| -> Result<Vec<i32>, SavedError> {
            let values = file.tensor(name)?.to_i64()?;
            let narrow = |value: i64| i32::try_from(value).map_err(|_| wrong(format!("'{name}' holds {value}")));
            values.into_iter().map(narrow).collect()
        };
        let (coords, voxel_from_point) = (integers("voxel_coords")?, integers("voxel_from_point")?);
        let features = file.tensor("features")?;
        let (coords, rest) = coords.as_chunks::<3>();
        let &[num_voxels, num_channels] = features.shape else {
            return Err(wrong(format!("'features' is {:?}, expected [V, C]", features.shape)));
        };
        if num_voxels != coords.len() || !rest.is_empty() || num_channels == 0 {
            return Err(wrong(format!("{num_voxels} rows of {num_channels} features for {} voxels", coords.len())));
        }
        if let Some(voxel) = voxel_from_point.iter().find(|&&voxel| voxel < -1 || voxel >= num_voxels as i32) {
            return Err(wrong(format!("'voxel_from_point' holds {voxel}, expected -1 to {}", num_voxels as i64 - 1)));
        }
        let lifted_label = file.names().iter().any(|name| name == LIFTED).then(|| integers(LIFTED)).transpose()?;
        if let Some(labels) = lifted_label.as_ref().filter(|labels| labels.len() != voxel_from_point.len()) {
            let (labels, points) = (labels.len(), voxel_from_point.len());
            return Err(wrong(format!("'{LIFTED}' has {labels} values, expected one for each of {points} points")));
        }
        let values = features.to_f32()?;
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            return Err(features.not_finite(at / num_channels, values[at]).into());
        }
        Ok(Self { about, features: values, num_channels, coords: coords.to_vec(), voxel_from_point, lifted_label })
    }
}

/// Text encoder of files of earlier versions.
fn xdecoder() -> String {
    "xdecoder".to_owned()
}

/// Directions of voxels that are not turned.
fn own_axes() -> [[f64; 3]; 3] {
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
}

/// Numbers in a row, for the metadata.
fn numbers(values: &[f64]) -> String {
    values.iter().map(f64::to_string).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about() -> About {
        About {
            scan: "labelled.ply".into(),
            voxel_size: 0.02,
            origin: Some([1.5, -2.0, 0.0]),
            voxel_axes: own_axes(),
            up: [0.0, 0.0, 1.0],
            text: xdecoder(),
            weights: "xdecoder".to_owned(),
            config: None,
            weights_bytes: 7,
            weights_sha256: "ab".to_owned(),
            words: vec!["chair".to_owned(), "background".to_owned()],
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE_NAME);
        let features = [0.5, -1.0, 0.25, 2.0, 0.333_333, 7.0];
        write(&path, &about(), &features, &[[0, 0, 0], [3, 1, 2]], &[1, 0, -1, 1], &[0, 1, -1, 1]).unwrap();
        let saved = Saved::read(&path).unwrap();
        assert_eq!((saved.about.clone(), saved.num_channels), (about(), 3));
        let metadata = SafetensorsFile::open(&path).unwrap().metadata().cloned().unwrap();
        assert_eq!((&*metadata["origin"], &*metadata["voxel_edge"]), ("1.5 -2 0", "0.02"));
        assert_eq!(metadata["voxel_axes"], "1 0 0 0 1 0 0 0 1");
        assert_eq!((saved.coords, saved.voxel_from_point), (vec![[0, 0, 0], [3, 1, 2]], vec![1, 0, -1, 1]));
        assert_eq!(saved.lifted_label, Some(vec![0, 1, -1, 1]));
        assert!(saved.features.iter().zip(features).all(|(a, b)| (a - b).abs() < 2e-4));
    }

    #[test]
    fn values_that_are_no_numbers_and_flipped_bits_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE_NAME);
        let coords = [[0, 0, 0], [3, 1, 2]];
        write(&path, &about(), &[0.5, 1.0, 0.25, f32::NAN], &coords, &[1, 0], &[0, 0]).unwrap();
        let error = Saved::read(&path).unwrap_err().to_string();
        assert!(error.contains("'features', row 1: the value is NaN"), "{error}");
        write(&path, &About { voxel_size: 0.0, ..about() }, &[0.5, 1.0], &coords, &[1, 0], &[0, 0]).unwrap();
        let error = Saved::read(&path).unwrap_err().to_string();
        assert!(error.contains("a voxel size of 0"), "{error}");
        write(&path, &about(), &[0.5, 1.0], &coords, &[1, 0], &[0, 0]).unwrap();
        let honest = std::fs::read(&path).unwrap();
        for at in (0..honest.len()).step_by(7) {
            let mut bytes = honest.clone();
            bytes[at] ^= 4;
            std::fs::write(&path, &bytes).unwrap();
            assert!(Saved::read(&path).is_err(), "byte {at}");
        }
        std::fs::write(&path, &honest).unwrap();
        assert_eq!(Saved::read(&path).unwrap().features, [0.5, 1.0]);
    }

    #[test]
    fn what_is_no_such_file_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE_NAME);
        write(&path, &about(), &[1.0, 2.0], &[[0, 0, 0]], &[0, 0], &[7]).unwrap();
        let error = Saved::read(&path).unwrap_err().to_string();
        assert!(error.contains("'lifted_label' has 1 values, expected one for each of 2 points"), "{error}");
        write(&path, &about(), &[1.0, 2.0], &[[0, 0, 0]], &[0, 3], &[0, 0]).unwrap();
        let error = Saved::read(&path).unwrap_err().to_string();
        assert!(error.contains("features.safetensors") && error.contains("holds 3"), "{error}");
        SafetensorsWriter::create(&path, &[], &BTreeMap::new()).unwrap().finish().unwrap();
        let error = Saved::read(&path).unwrap_err().to_string();
        assert!(error.contains("not features that `infer` saved"), "{error}");
        assert!(Saved::read(&folder.path().join("none")).is_err());
    }
}
