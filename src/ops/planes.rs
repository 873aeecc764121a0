//! Depthwise convolutions of the host twins: two SIMD registers of channels of an image at a time, in a plane
//! with a border of zeros, so that no tap needs a test.

use pulp::Simd;
use rayon::prelude::*;

/// Neighbouring pixels of one step: 4 × 2 sums and 2 weights in registers.
pub(crate) const PIXELS: usize = 4;

/// Some channels of an image.
#[derive(Clone, Copy)]
pub(crate) struct Plane {
    pub height: usize,
    pub width: usize,
    /// Pixels of zeros on every side.
    pub border: usize,
    /// Channels of a plane, two registers of them.
    pub block: usize,
    /// Channels of the image.
    pub num_channels: usize,
    /// The first channel of the plane.
    pub first: usize,
}

impl Plane {
    /// Channels that exist.
    pub(crate) fn present(&self) -> usize {
        self.block.min(self.num_channels - self.first)
    }

    /// Values of a row: a few pixels longer than the image, as steps run over the end.
    pub(crate) fn pitch(&self) -> usize {
        self.row_len() + 2 * self.border * self.block
    }

    /// Values that [`convolve`](Self::convolve) writes.
    pub(crate) fn row_len(&self) -> usize {
        self.width.next_multiple_of(PIXELS) * self.block
    }

    pub(crate) fn zeros(&self) -> Vec<f32> {
        vec![0.0; (self.height + 2 * self.border) * self.pitch()]
    }

    /// Index of the first pixel of a row.
    pub(crate) fn at(&self, y: usize) -> usize {
        (y + self.border) * self.pitch() + self.border * self.block
    }

    /// The plane of an image `[H, W, C]`.
    pub(crate) fn load(&self, image: &[f32]) -> Vec<f32> {
        let mut plane = self.zeros();
        for (y, row) in image.chunks_exact(self.width * self.num_channels).enumerate() {
            self.pick(row, &mut plane[self.at(y)..]);
        }
        plane
    }

    /// The channels of the plane in rows of all channels.
    pub(crate) fn pick(&self, rows: &[f32], to: &mut [f32]) {
        let channels = self.first..self.first + self.present();
        for (to, from) in to.chunks_exact_mut(self.block).zip(rows.chunks_exact(self.num_channels)) {
            to[..self.present()].copy_from_slice(&from[channels.clone()]);
        }
    }

    /// The plane's channels of a kernel `[k², C]`; `flipped`, the one that takes a gradient back.
    pub(crate) fn weight(&self, kernel: &[f32], flipped: bool) -> Vec<f32> {
        let mut weight = vec![0.0; kernel.len() / self.num_channels * self.block];
        self.pick(kernel, &mut weight);
        if flipped { weight.chunks_exact(self.block).rev().flatten().copied().collect() } else { weight }
    }

    /// Row `y` of a convolution of edge `kernel`, to `row_len` values.
    #[inline(always)]
    pub(crate) fn convolve<S: Simd>(
        &self,
        simd: S,
        plane: &[f32],
        weight: &[f32],
        kernel: usize,
        y: usize,
        to: &mut [f32],
    ) {
        let reach = (self.border - kernel / 2) * (self.pitch() + self.block);
        for x in (0..self.width).step_by(PIXELS) {
            let from = &plane[y * self.pitch() + x * self.block + reach..];
            convolve(simd, from, self.pitch(), weight, kernel, &mut to[x * self.block..][..PIXELS * self.block]);
        }
    }

    /// Gradient of the kernel, `[k², block]`, from the planes of the input and of the result's gradient.
    #[inline(always)]
    pub(crate) fn grad_weight<S: Simd>(
        &self,
        simd: S,
        input: &[f32],
        grad: &[f32],
        kernel: usize,
        grad_weight: &mut [f32],
    ) {
        for y in 0..self.height {
            let grad = &grad[self.at(y)..][..self.width * self.block];
            for dy in 0..kernel {
                let at = self.at(y + dy) - kernel / 2 * (self.pitch() + self.block);
                let from = &input[at..][..(self.width + kernel - 1) * self.block];
                let to = &mut grad_weight[dy * kernel * self.block..][..kernel * self.block];
                // As many taps at once as there are registers for their sums.
                match kernel {
                    3 => taps::<S, 3>(simd, grad, from, to),
                    5 => taps::<S, 5>(simd, grad, from, to),
                    7 => taps::<S, 7>(simd, grad, from, to),
                    _ => {
                        for (dx, to) in to.chunks_exact_mut(self.block).enumerate() {
                            taps::<S, 1>(simd, grad, &from[dx * self.block..], to);
                        }
                    }
                }
            }
        }
    }
}

/// A depthwise convolution at `PIXELS` neighbouring pixels: `from` begins at the first one's upper left tap.
#[inline(always)]
fn convolve<S: Simd>(simd: S, from: &[f32], pitch: usize, weight: &[f32], kernel: usize, to: &mut [f32]) {
    let block = 2 * S::F32_LANES;
    let mut sums = [[simd.splat_f32s(0.0); 2]; PIXELS];
    for dy in 0..kernel {
        let (from, _) = S::as_simd_f32s(&from[dy * pitch..][..(kernel + PIXELS - 1) * block]);
        let (weight, _) = S::as_simd_f32s(&weight[dy * kernel * block..][..kernel * block]);
        let (from, _) = pulp::as_arrays::<2, _>(from);
        let (weight, _) = pulp::as_arrays::<2, _>(weight);
        for (dx, w) in weight.iter().enumerate() {
            let from = &from[dx..dx + PIXELS];
            for p in 0..PIXELS {
                sums[p][0] = simd.mul_add_e_f32s(from[p][0], w[0], sums[p][0]);
                sums[p][1] = simd.mul_add_e_f32s(from[p][1], w[1], sums[p][1]);
            }
        }
    }
    let (to, _) = S::as_mut_simd_f32s(to);
    for p in 0..PIXELS {
        to[2 * p] = sums[p][0];
        to[2 * p + 1] = sums[p][1];
    }
}

/// Adds to `to [N, block]`, for N neighbouring taps, the products of a row of gradients with the row they fell on.
#[inline(always)]
fn taps<S: Simd, const N: usize>(simd: S, grad: &[f32], from: &[f32], to: &mut [f32]) {
    let (grad, _) = S::as_simd_f32s(grad);
    let (from, _) = S::as_simd_f32s(from);
    let (grad, _) = pulp::as_arrays::<2, _>(grad);
    let (from, _) = pulp::as_arrays::<2, _>(from);
    let mut sums = [[simd.splat_f32s(0.0); 2]; N];
    for (x, g) in grad.iter().enumerate() {
        let from = &from[x..x + N];
        for tap in 0..N {
            sums[tap][0] = simd.mul_add_e_f32s(from[tap][0], g[0], sums[tap][0]);
            sums[tap][1] = simd.mul_add_e_f32s(from[tap][1], g[1], sums[tap][1]);
        }
    }
    let (to, _) = S::as_mut_simd_f32s(to);
    for tap in 0..N {
        to[2 * tap] = simd.add_f32s(to[2 * tap], sums[tap][0]);
        to[2 * tap + 1] = simd.add_f32s(to[2 * tap + 1], sums[tap][1]);
    }
}

/// Images `[B, H, W, C]` from their blocks of channels, `[B · blocks]` times `[H, W, block]`.
pub(crate) fn join(
    blocks: &[impl AsRef<[f32]> + Sync],
    block: usize,
    [height, width, num_channels]: [usize; 3],
) -> Vec<f32> {
    let num_blocks = num_channels.div_ceil(block);
    let mut out = vec![0.0; blocks.len() / num_blocks * height * width * num_channels];
    out.par_chunks_mut(width * num_channels).enumerate().for_each(|(row, out)| {
        let (image, y) = (row / height, row % height);
        for (b, part) in blocks[image * num_blocks..][..num_blocks].iter().enumerate() {
            let present = block.min(num_channels - b * block);
            let part = part.as_ref()[y * width * block..][..width * block].chunks_exact(block);
            for (out, part) in out.chunks_exact_mut(num_channels).zip(part) {
                out[b * block..b * block + present].copy_from_slice(&part[..present]);
            }
        }
    });
    out
}

/// Sums `[rows, C]` over the images of `[B · blocks]` times `[rows, block]`.
pub(crate) fn join_sums(blocks: &[impl AsRef<[f32]>], block: usize, num_channels: usize) -> Vec<f32> {
    let num_blocks = num_channels.div_ceil(block);
    let mut out = vec![0.0; blocks.first().map_or(0, |part| part.as_ref().len() / block) * num_channels];
    for (task, part) in blocks.iter().enumerate() {
        let first = task % num_blocks * block;
        for (out, part) in out.chunks_exact_mut(num_channels).zip(part.as_ref().chunks_exact(block)) {
            out[first..].iter_mut().zip(part).for_each(|(out, part)| *out += part);
        }
    }
    out
}
