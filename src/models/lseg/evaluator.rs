//! Features of a picture's pixels, as LSeg's evaluator gives them.

use burn::prelude::*;

use super::LSeg;
use crate::ops::bilinear::{Corners, bilinear};
use crate::ops::{OpError, float_tensor};

/// Mean and standard deviation of every channel, in 0..1.
const MEAN: f32 = 0.5;
const STD: f32 = 0.5;
/// What pads a picture: black.
const PADDING: f32 = -MEAN / STD;
/// How often the network's input is larger than the picture. The network gives features at half the size of its input.
const ENLARGED: usize = 2;

/// Pictures of one size, RGB in 0..255, `[B, H, W, 3]` flat, as the network wants them: -1..1.
///
/// # Errors
/// [`OpError::Value`] if the number of values does not match the size, or a picture has no pixels.
pub fn normalized(pictures: &[f32], [height, width]: [usize; 2], device: &Device) -> Result<Tensor<4>, OpError> {
    let picture = height * width * 3;
    if picture == 0 || !pictures.len().is_multiple_of(picture) {
        let message = format!("{} values, expected pictures of {height} x {width} RGB pixels", pictures.len());
        return Err(OpError::Value { op: "lseg", message });
    }
    let values = pictures.iter().map(|value| (value / 255.0 - MEAN) / STD).collect();
    Ok(float_tensor(values, [pictures.len() / picture, height, width, 3], device))
}

/// Returns the side of the square that the network sees of a picture of `size` (height, width): twice the long side,
/// made a multiple of `divisor`.
#[must_use]
pub fn network_side([height, width]: [usize; 2], divisor: usize) -> usize {
    (ENLARGED * height.max(width)).next_multiple_of(divisor.max(1))
}

/// Enlarges pictures `[B, H, W, 3]` to twice their size.
///
/// # Errors
/// [`OpError`] for pictures without pixels, or that do not fit the device.
pub fn enlarged(pictures: Tensor<4>) -> Result<Tensor<4>, OpError> {
    let [_, height, width, _] = pictures.dims();
    bilinear(pictures, [ENLARGED * height, ENLARGED * width], Corners::Aligned)
}

impl LSeg {
    /// Returns features of pictures of one size, RGB in 0..255, `[B, H, W, 3]` flat, after a first resize to `grid`
    /// (rows, columns): `[B, rows, columns, out_channels]`. See [`pixel_features`](Self::pixel_features).
    ///
    /// # Errors
    /// The same as [`normalized`] and [`pixel_features`](Self::pixel_features).
    pub fn features_on(&self, pictures: &[f32], size: [usize; 2], grid: [usize; 2]) -> Result<Tensor<4>, OpError> {
        self.pixel_features(bilinear(normalized(pictures, size, self.device())?, grid, Corners::Aligned)?)
    }

    /// Returns features of the pixels of [`normalized`] pictures `[B, H, W, 3]`: `[B, H, W, out_channels]`, the sum of
    /// those of the picture and of its mirror image, so of a length up to 2.
    ///
    /// A picture is [`enlarged`] and padded with black at the right and the bottom. The network sees the padding too,
    /// so it is a part of the result.
    ///
    /// # Errors
    /// [`OpError::Value`] for a picture without pixels, or the error of a layer that does not fit the device.
    pub fn pixel_features(&self, pictures: Tensor<4>) -> Result<Tensor<4>, OpError> {
        let [batch, height, width, channels] = pictures.dims();
        let enlarged = enlarged(pictures)?;
        let [_, rows, columns, _] = enlarged.dims();
        let side = network_side([height, width], self.config.size_divisibility);
        let padded = Tensor::full([batch, side, side, channels], PADDING, &enlarged.device())
            .slice_assign([0..batch, 0..rows, 0..columns, 0..channels], enlarged);
        let pass = |mirrored: bool| {
            let turn = |x: Tensor<4>| if mirrored { x.flip([2]) } else { x };
            let path = turn(self.path(turn(padded.clone()), height, &mut |_, _| ())?);
            // The head and the norm go pixel by pixel: those of the picture alone are wanted.
            let path = path.slice([0..batch, 0..height, 0..width]);
            self.decoder.features(path, &mut |_, _| ())
        };
        Ok(pass(false)? + pass(true)?)
    }
}
