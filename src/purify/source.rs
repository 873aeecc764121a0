use std::ops::Range;

use rayon::prelude::*;

use crate::weights::{TensorView, WeightsError};

/// Per-point features that are read a block of channels at a time.
pub trait FeatureSource {
    /// Number of points, N.
    fn num_points(&self) -> usize;
    /// Number of channels, C.
    fn num_channels(&self) -> usize;
    /// Reads the block `[N, channels]` as f32, row-major. All values are finite.
    ///
    /// # Errors
    /// [`WeightsError`] naming the file, and the row of a value that is not finite.
    fn read(&self, channels: Range<usize>) -> Result<Vec<f32>, WeightsError>;
}

/// Features in memory, `[N, C]` row-major.
#[derive(Clone, Debug)]
pub struct MemoryFeatures {
    /// The values.
    pub values: Vec<f32>,
    /// Number of channels, C.
    pub num_channels: usize,
}

impl FeatureSource for MemoryFeatures {
    fn num_points(&self) -> usize {
        self.values.len() / self.num_channels.max(1)
    }

    fn num_channels(&self) -> usize {
        self.num_channels
    }

    fn read(&self, channels: Range<usize>) -> Result<Vec<f32>, WeightsError> {
        let rows = self.values.chunks_exact(self.num_channels.max(1));
        Ok(rows.flat_map(|row| &row[channels.clone()]).copied().collect())
    }
}

/// The rows `points` of a tensor `[N, C]` of a file, or all rows if `points` is `None`.
#[derive(Clone, Debug)]
pub struct FileFeatures<'a> {
    tensor: TensorView<'a>,
    points: Option<&'a [u32]>,
}

impl<'a> FileFeatures<'a> {
    /// Wraps `tensor`; `points` are ascending row numbers.
    ///
    /// # Errors
    /// [`WeightsError::Extent`] where the tensor is not `[N, C]` or a row lies outside it.
    pub fn new(tensor: TensorView<'a>, points: Option<&'a [u32]>) -> Result<Self, WeightsError> {
        // Reading an empty block still checks the type and the number of dimensions.
        tensor.read_block(0..0, 0..0, &mut [])?;
        if let Some(&last) = points.and_then(<[u32]>::last) {
            tensor.read_block(0..last as usize + 1, 0..0, &mut [])?;
        }
        Ok(Self { tensor, points })
    }
}

impl FeatureSource for FileFeatures<'_> {
    fn num_points(&self) -> usize {
        self.points.map_or(self.tensor.shape[0], <[u32]>::len)
    }

    fn num_channels(&self) -> usize {
        self.tensor.shape[1]
    }

    fn read(&self, channels: Range<usize>) -> Result<Vec<f32>, WeightsError> {
        let (num_rows, width) = (self.tensor.shape[0], channels.len());
        let mut values = vec![0.0; num_rows * width];
        self.tensor.read_block(0..num_rows, channels, &mut values)?;
        if let Some(points) = self.points {
            // Row numbers ascend, so values only move towards the front.
            for (to, &from) in points.iter().enumerate() {
                let from = from as usize * width;
                values.copy_within(from..from + width, to * width);
            }
            values.truncate(points.len() * width);
        }
        // One value that is no number would spread over all neighbours.
        if let Some(at) = values.par_iter().position_first(|value| !value.is_finite()) {
            let row = at / width;
            let row = self.points.and_then(|points| points.get(row)).map_or(row, |&row| row as usize);
            return Err(self.tensor.not_finite(row, values[at]));
        }
        Ok(values)
    }
}
