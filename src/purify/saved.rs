//! The file of purified features.

use std::collections::BTreeMap;
use std::path::Path;

use super::{Purified, PurifyError, Settings};
use crate::weights::{Dtype, SafetensorsWriter, TensorSpec, WeightsError};

impl Purified {
    /// Writes `features [V, C]`, `voxel_coords [V, 3]` and `voxel_from_point [N]` to a safetensors file,
    /// completely or not at all. Its metadata hold the settings as JSON.
    ///
    /// # Errors
    /// [`PurifyError::Features`].
    pub fn write(&self, path: &Path, settings: &Settings) -> Result<(), PurifyError> {
        let num_voxels = self.coords.len();
        let specs = [
            TensorSpec::new("features", Dtype::F32, [num_voxels, self.num_channels]),
            TensorSpec::new("voxel_coords", Dtype::I32, [num_voxels, 3]),
            TensorSpec::new("voxel_from_point", Dtype::I32, [self.voxel_from_point.len()]),
        ];
        let settings = serde_json::to_string(settings)
            .map_err(|error| WeightsError::Io { path: path.to_path_buf(), source: error.into() })?;
        let metadata = BTreeMap::from([("settings".to_owned(), settings)]);
        let mut writer = SafetensorsWriter::create(path, &specs, &metadata)?;
        writer.write_f32(&self.features)?;
        writer.write_i32(self.coords.as_flattened())?;
        writer.write_i32(&self.voxel_from_point)?;
        Ok(writer.finish()?)
    }
}
