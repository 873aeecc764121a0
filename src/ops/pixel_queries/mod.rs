//! Which of a picture's queries each of its pixels goes to.

pub mod cpu;

use burn::backend::TensorMetadata;
use burn::prelude::*;
use burn_wgpu::CubeTensor;

use super::bicubic_antialias::along;
use super::bicubic_antialias::cpu::Axis;
use super::{OpError, ShapeCheck, host_tensor, int_tensor, limits_of, run};
use crate::gpu::shaders::pixel_queries::pixel_queries as shader;
use crate::gpu::{Limits, check_binding, empty_f32, empty_i32, launch, upload};

/// Bytes of masks that are stretched along their rows at a time, on a GPU.
const STRETCHED_BYTES: u64 = 16 << 20;
/// Rounds of its loops that an invocation makes in one launch: Mesa's software driver ends them after 65,535.
const MAX_ROUNDS: usize = 1 << 15;

/// Sizes of a contest for pixels, height and width.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Size to which the masks are resampled.
    pub resampled: [usize; 2],
    /// The part of it, from the upper left corner, that is the picture.
    pub picture: [usize; 2],
}

impl Sizes {
    /// The windows of rows and columns that make the picture of masks of `mask_size`.
    fn axes(&self, mask_size: [usize; 2]) -> [Axis; 2] {
        [0, 1].map(|axis| Axis::new(mask_size[axis], self.resampled[axis]).cropped(self.picture[axis]))
    }
}

/// The query of every pixel of a picture `[H, W]`: the one with the largest product of confidence and mask
/// probability, the first of equal ones, where that probability is at least one half; -1 elsewhere.
///
/// `masks [Q, h, w]` are logits, resampled as [`bicubic_antialias`](super::bicubic_antialias::bicubic_antialias) does
/// to `sizes.resampled`, of which the picture is the upper left part; `confidences [Q]`. A logit or confidence that is NaN
/// wins nothing. The masks never exist at the picture's size: on a GPU the second pass of the resampling is part of the
/// contest, on the host both are.
///
/// # Errors
/// [`OpError::Shape`] where masks and confidences are not of the same number; [`OpError::Value`] where a mask or the
/// picture has no pixel, or the picture is larger than what the masks are resampled to; [`OpError::TooLarge`] where a
/// tensor does not fit one buffer.
pub fn pixel_queries(masks: Tensor<3>, confidences: Tensor<1>, sizes: Sizes) -> Result<Tensor<2, Int>, OpError> {
    let mut shapes = ShapeCheck::new("pixel_queries");
    shapes.check("masks", masks.dims(), ["Q".into(), "h".into(), "w".into()])?;
    shapes.check("confidences", confidences.dims(), ["Q".into()])?;
    let ([num_queries, h, w], Sizes { resampled, picture }) = (masks.dims(), sizes);
    let largest = resampled.into_iter().chain([h, w, num_queries]).max().unwrap_or(0);
    let is_part = (0..2).all(|axis| picture[axis] <= resampled[axis]);
    if h * w * picture[0] * picture[1] == 0 || !is_part || largest > i32::MAX as usize {
        let message = format!("{picture:?} of {resampled:?} pixels from masks of {h} x {w}, expected a part of them");
        return Err(shapes.value(message));
    }
    let (limits, device) = (limits_of(&masks.device()), masks.device());
    check_binding(limits, "pixel_queries: masks", num_queries * h, w * 4)?;
    check_binding(limits, "pixel_queries: a mask half way", h, picture[1] * 4)?;
    check_binding(limits, "pixel_queries: query_from_pixel", picture[0], picture[1] * 4)?;
    if num_queries == 0 {
        return Ok(int_tensor(vec![-1; picture[0] * picture[1]], picture, &device));
    }
    let axes = sizes.axes([h, w]);
    Ok(run(
        (masks, confidences),
        |(masks, confidences)| contest_wgsl(&masks, &confidences, &axes, picture),
        |(masks, confidences)| {
            let [rows, columns] = &axes;
            host_tensor(cpu::pixel_queries(&masks, &confidences, [h, w], rows, columns), picture)
        },
    ))
}

/// `masks [Q, h, w]`, `confidences [Q]` → `[H, W]`, for the windows of rows and columns that make the picture.
fn contest_wgsl(
    masks: &CubeTensor,
    confidences: &CubeTensor,
    [rows, columns]: &[Axis; 2],
    [height, width]: [usize; 2],
) -> CubeTensor {
    let [num_queries, h, w] = masks.shape().dims();
    let client = &masks.client;
    let (first, weights) = (upload(client, &rows.first), upload(client, &rows.weights));
    let (best, query_from_pixel) = (empty_f32(masks, [height, width]), empty_i32(masks, [height, width]));
    let bytes = STRETCHED_BYTES.min(Limits::of(client).max_binding_bytes);
    let block = (bytes / (h * width * 4) as u64).min((MAX_ROUNDS / (rows.num_taps + 1)) as u64).max(1) as usize;
    for first_query in (0..num_queries).step_by(block) {
        let end = num_queries.min(first_query + block);
        let stretched = along(masks, first_query * h..end * h, [w, 1], columns);
        launch(
            client,
            &shader::BASE,
            (height * width).div_ceil(shader::WG as usize),
            &shader::Params {
                num_pixels: (height * width) as u32,
                width: width as u32,
                mask_height: h as u32,
                num_taps: rows.num_taps as u32,
                first_query: first_query as u32,
                num_queries: (end - first_query) as u32,
            },
            &[&stretched.handle, &confidences.handle, &first, &weights, &best.handle, &query_from_pixel.handle],
        );
    }
    query_from_pixel
}
