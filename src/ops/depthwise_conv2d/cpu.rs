//! Host twin of the depthwise convolution.

use pulp::{Arch, NullaryFnOnce};
use rayon::prelude::*;

/// `x [B, H, W, C]` in images of `height` × `width` pixels, `weight [k², C]`, `bias [C]`, flat.
pub(crate) fn depthwise_conv2d(
    x: &[f32],
    weight: &[f32],
    bias: &[f32],
    [height, width]: [usize; 2],
    kernel: usize,
) -> Vec<f32> {
    let mut out = vec![0.0; x.len()];
    let arch = Arch::new();
    out.par_chunks_mut(width * bias.len()).enumerate().for_each(|(row, out)| {
        let image = &x[row / height * height * width * bias.len()..][..height * width * bias.len()];
        arch.dispatch(Row { image, weight, bias, y: row % height, size: [height, width], kernel, out });
    });
    out
}

/// One row of pixels of one image.
struct Row<'a> {
    image: &'a [f32],
    weight: &'a [f32],
    bias: &'a [f32],
    y: usize,
    size: [usize; 2],
    kernel: usize,
    out: &'a mut [f32],
}

impl NullaryFnOnce for Row<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { image, weight, bias, y, size: [height, width], kernel, out } = self;
        let dim = bias.len();
        let reach = kernel / 2;
        for (x, out) in out.chunks_exact_mut(dim).enumerate() {
            out.copy_from_slice(bias);
            for dy in reach.saturating_sub(y)..kernel.min(height + reach - y) {
                for dx in reach.saturating_sub(x)..kernel.min(width + reach - x) {
                    let from = &image[((y + dy - reach) * width + x + dx - reach) * dim..][..dim];
                    let weight = &weight[(dy * kernel + dx) * dim..][..dim];
                    for c in 0..dim {
                        out[c] += from[c] * weight[c];
                    }
                }
            }
        }
    }
}
