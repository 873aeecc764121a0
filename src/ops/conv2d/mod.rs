//! Dense 2D convolution with bias and activation; a linear layer is its 1 × 1 case.

pub mod cpu;

use std::f32::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};

use burn::backend::TensorMetadata;
use burn::backend::ops::{ActivationOps, FloatTensorOps};
use burn::prelude::*;
use burn::tensor::{DType, FloatDType, TensorData};
use burn_wgpu::{CubeBackend, CubeTensor};
use half::f16;

pub use super::gemm::Activation;
use super::gemm::{Panels, pack, pack_pairs, paired, panel_width};
use super::run::Operands;
use super::sparse_conv;
use super::{OpError, ShapeCheck, float_tensor, host_tensor, is_host, limits_of, plain, run, run_twin, with_gradient};
use crate::gpu::shaders::conv2d::{conv2d as shader, pixel_map};
use crate::gpu::{Limits, Shader, check_binding, empty_f32, empty_i32, into_contiguous, launch};

/// How the weights of a model are held. Sums are f32 in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// As they are: the reference.
    #[default]
    F32,
    /// Rounded to 16 bits, half the memory.
    F16,
    /// Rounded to 16 bits with the range of f32, and so are the values they are multiplied with. Processors with AVX-512
    /// for bf16 multiply them twice as fast; others come to the same results, more slowly. For the host only, and without
    /// gradients.
    Bf16,
}

/// Extents of a convolution.
#[derive(Clone, Copy, Debug)]
pub struct Geometry {
    /// Images, B.
    pub batch: usize,
    /// Rows of an image, H.
    pub height: usize,
    /// Columns of an image, W.
    pub width: usize,
    /// Input channels.
    pub num_in: usize,
    /// Output channels.
    pub num_out: usize,
    /// Edge of the kernel, k.
    pub kernel: usize,
    /// Step of the kernel, in both directions.
    pub stride: usize,
    /// Zeros around the image, on every side.
    pub padding: usize,
}

impl Geometry {
    /// Rows and columns of the result, 0 where the kernel does not fit.
    #[must_use]
    pub fn out_size(&self) -> [usize; 2] {
        [self.height, self.width].map(|size| match (size + 2 * self.padding).checked_sub(self.kernel) {
            Some(rest) => rest / self.stride + 1,
            None => 0,
        })
    }
}

/// A weight in the order in which its device reads it, with its bias. Gradients flow to the tensors it was made of.
#[derive(Clone, Debug)]
pub struct PackedWeight {
    /// `[panels, k · k · in, width]`, f32 or f16; for bf16 in pairs of terms, see [`pack_pairs`].
    panels: Tensor<3>,
    /// `[out]`.
    bias: Tensor<1>,
    num_in: usize,
    num_out: usize,
    kernel: usize,
}

impl PackedWeight {
    /// Packs PyTorch's weight `[out, in, k, k]` (`[out, in]` with k = 1), given flat, and its bias, zeros
    /// where there is none.
    ///
    /// # Errors
    /// [`OpError::Value`] where the lengths are not those of the extents, and for bf16 on a GPU;
    /// [`OpError::TooLarge`] where the weight does not fit one buffer.
    pub fn new(
        weight: &[f32],
        bias: Option<Vec<f32>>,
        [num_out, num_in, kernel]: [usize; 3],
        precision: Precision,
        device: &Device,
    ) -> Result<Self, OpError> {
        let area = kernel * kernel;
        let bias = bias.unwrap_or_else(|| vec![0.0; num_out]);
        if weight.len() != num_out * num_in * area || bias.len() != num_out {
            return Err(ShapeCheck::new("conv2d").value(format!(
                "a weight of {} and a bias of {} values, expected [{num_out}, {num_in}, {kernel}, {kernel}] and [{num_out}]",
                weight.len(),
                bias.len()
            )));
        }
        let (width, depth) = (panel_width_on(device), area * num_in);
        let num_panels = num_out.div_ceil(width);
        check_binding(limits_of(device), "conv2d: weight", num_panels * depth, width * 4)?;
        let value = |d: usize, col: usize| weight[(col * num_in + d % num_in) * area + d / num_in];
        let shape = [num_panels, depth, width];
        let panels = match precision {
            Precision::F32 => {
                let panels = pack(depth, num_out, width, value);
                Tensor::from_data(TensorData::new(panels, shape), (device, DType::F32))
            }
            Precision::F16 => {
                let panels = pack(depth, num_out, width, |d, col| f16::from_f32(value(d, col)));
                Tensor::from_data(TensorData::new(panels, shape), (device, DType::F16))
            }
            Precision::Bf16 if is_host(device) => {
                let panels = pack_pairs(area, num_in, num_out, width, value);
                let shape = [num_panels, area * paired(num_in), width];
                Tensor::from_data(TensorData::new(panels, shape), (device, DType::BF16))
            }
            Precision::Bf16 => {
                return Err(ShapeCheck::new("conv2d").value("weights in bf16 on a GPU, expected f32 or f16 there"));
            }
        };
        Ok(Self { panels, bias: float_tensor(bias, [num_out], device), num_in, num_out, kernel })
    }

    /// Packs PyTorch's `weight [out, in, k, k]` in f32, without bias; gradients flow to it.
    ///
    /// # Errors
    /// [`OpError::Shape`] where the kernel is not square; [`OpError::TooLarge`] where the weight does not fit one buffer.
    pub fn from_tensor(weight: Tensor<4>) -> Result<Self, OpError> {
        ShapeCheck::new("conv2d").check(
            "weight",
            weight.dims(),
            ["out".into(), "in".into(), "k".into(), "k".into()],
        )?;
        let [num_out, num_in, kernel, _] = weight.dims();
        let (depth, width) = (kernel * kernel * num_in, panel_width_on(&weight.device()));
        check_binding(limits_of(&weight.device()), "conv2d: weight", num_out.div_ceil(width) * depth, width * 4)?;
        if num_out * depth == 0 {
            let rows = Self::from_rows(Tensor::zeros([num_out, depth], &weight.device()));
            return Ok(Self { num_in, kernel, ..rows });
        }
        let rows = Self::from_rows(weight.permute([0, 2, 3, 1]).reshape([num_out, depth]));
        Ok(Self { num_in, kernel, ..rows })
    }

    /// Packs the rows of `weight [out, in]` as the weight of a linear layer without bias: its result is
    /// x · weightᵀ. Gradients flow to it.
    #[must_use]
    pub fn from_rows(weight: Tensor<2>) -> Self {
        let device = weight.device();
        let [num_out, num_in] = weight.dims();
        let panels = match num_out * num_in {
            0 => Tensor::zeros([0, num_in, panel_width_on(&device)], &device),
            _ => pack_rows_tracked(weight),
        };
        Self { panels, bias: Tensor::zeros([num_out], &device), num_in, num_out, kernel: 1 }
    }

    /// The weight with another bias, `[out]`; gradients flow to it.
    ///
    /// # Errors
    /// [`OpError::Shape`] where it is not as long as the weight has outputs.
    pub fn with_bias(self, bias: Tensor<1>) -> Result<Self, OpError> {
        ShapeCheck::new("conv2d").check("bias", bias.dims(), [self.num_out.into()])?;
        Ok(Self { bias, ..self })
    }

    /// Output channels.
    #[must_use]
    pub fn num_out(&self) -> usize {
        self.num_out
    }
}

/// Columns of a panel on a device.
fn panel_width_on(device: &Device) -> usize {
    if is_host(device) { panel_width() } else { shader::COLS as usize }
}

/// out\[b, y, x\] = activation(Σ x\[b, stride · y + i − padding, stride · x + j − padding\] · weight\[i, j\] +
/// bias), zeros outside the image: `x [B, H, W, in]` → `[B, H', W', out]`, channels last.
///
/// Gradients flow to `x`, the weight and the bias; they are summed in a fixed order, so two runs on one device agree to
/// the bit.
///
/// # Errors
/// [`OpError::Shape`] where `x` has not the weight's channels; [`OpError::Value`] for a stride of 0, and for a weight in
/// bf16 where gradients are wanted; [`OpError::TooLarge`] where `x` or the result does not fit one buffer.
pub fn conv2d(
    x: Tensor<4>,
    weight: &PackedWeight,
    stride: usize,
    padding: usize,
    activation: Activation,
) -> Result<Tensor<4>, OpError> {
    let mut shapes = ShapeCheck::new("conv2d");
    shapes.check("x", x.dims(), ["B".into(), "H".into(), "W".into(), weight.num_in.into()])?;
    if stride == 0 {
        return Err(shapes.value("the stride is 0, expected 1 or more"));
    }
    let [batch, height, width, num_in] = x.dims();
    let (num_out, kernel) = (weight.num_out, weight.kernel);
    let geometry = Geometry { batch, height, width, num_in, num_out, kernel, stride, padding };
    let [out_height, out_width] = geometry.out_size();
    let num_rows = batch * out_height * out_width;
    if num_rows == 0 || num_out == 0 {
        return Ok(Tensor::zeros([batch, out_height, out_width, num_out], &x.device()));
    }
    let limits = limits_of(&x.device());
    check_binding(limits, "conv2d: x", batch * height * width, num_in * 4)?;
    check_binding(limits, "conv2d: out", num_rows, num_out * 4)?;
    let (panels, bias) = (weight.panels.clone(), weight.bias.clone());
    let plain_operands = || (plain(x.clone()), plain(panels.clone()), plain(bias.clone()));
    let tracks = x.is_autodiff() || panels.is_autodiff() || bias.is_autodiff();
    if tracks && panels.dtype() == DType::BF16 {
        return Err(shapes.value("weights in bf16, expected f32 or f16 where gradients are wanted"));
    }
    // The input of the activation; for ReLU, its result.
    let (activated, out) = match activation {
        Activation::Gelu | Activation::QuickGelu if tracks => {
            let before = convolve(plain_operands(), geometry, Activation::None);
            (Some(before.clone()), activate(before, activation))
        }
        _ => {
            let out = convolve(plain_operands(), geometry, activation);
            ((activation == Activation::Relu).then(|| out.clone()), out)
        }
    };
    let (plain_x, plain_panels, _) = plain_operands();
    Ok(with_gradient((x, panels, bias), out, move |grad, [wants_x, wants_panels, wants_bias]| {
        let grad = match activated {
            Some(activated) => grad_activation(activated, grad, activation),
            None => grad,
        };
        let grad_bias = wants_bias.then(|| grad_bias(grad.clone()));
        let grad_panels = wants_panels.then(|| grad_panels(plain_x, grad.clone(), geometry));
        (wants_x.then(|| grad_x(grad, plain_panels, geometry)), grad_panels, grad_bias)
    }))
}

/// activation(x · weightᵀ + bias) over the last dimension of `x [.., in]`: `[.., out]`.
///
/// # Errors
/// As [`conv2d`]; [`OpError::Value`] for a weight that is not 1 × 1.
pub fn linear<const D: usize>(
    x: Tensor<D>,
    weight: &PackedWeight,
    activation: Activation,
) -> Result<Tensor<D>, OpError> {
    if weight.kernel != 1 {
        let message = format!("a kernel of edge {}, expected 1 for a linear layer", weight.kernel);
        return Err(ShapeCheck::new("conv2d").value(message));
    }
    let mut dims = x.dims();
    let num_in = dims[D - 1];
    let num_rows: usize = dims[..D - 1].iter().product();
    dims[D - 1] = weight.num_out;
    if num_rows == 0 || num_in == 0 || weight.num_out == 0 {
        // Before any reshape: burn takes a 0 there for "as it was".
        ShapeCheck::new("conv2d").check("x", [num_rows, num_in], ["R".into(), weight.num_in.into()])?;
        return Ok(Tensor::zeros(dims, &x.device()));
    }
    Ok(conv2d(x.reshape([1, 1, num_rows, num_in]), weight, 1, 0, activation)?.reshape(dims))
}

/// `x [B, H, W, in]`, panels `[P, k · k · in, width]` and bias `[out]` → `[B, H', W', out]`.
fn convolve(operands: (Tensor<4>, Tensor<3>, Tensor<1>), geometry: Geometry, activation: Activation) -> Tensor<4> {
    let [out_height, out_width] = geometry.out_size();
    run(
        operands,
        |(x, panels, bias)| convolve_wgsl(&x, &panels, &bias, geometry, activation),
        |(x, panels, bias)| {
            let panels = match panels.dtype() {
                DType::F16 => Panels::F16(panels.elements()),
                DType::BF16 => Panels::Bf16(panels.elements()),
                _ => Panels::F32(&panels),
            };
            let out = cpu::forward(&x, panels, &bias, geometry, activation);
            host_tensor(out, [geometry.batch, out_height, out_width, geometry.num_out])
        },
    )
}

/// `weight [out, in]` → `[P, in, width]`, its rows being the columns of the panels. Gradients flow to it.
fn pack_rows_tracked(weight: Tensor<2>) -> Tensor<3> {
    let [num_out, _] = weight.dims();
    let panels = pack_rows(plain(weight.clone()));
    with_gradient((weight,), panels, move |grad, [wants]| (wants.then(|| unpack_rows(grad, num_out)),))
}

fn pack_rows(weight: Tensor<2>) -> Tensor<3> {
    let [num_out, num_in] = weight.dims();
    run(weight, pack_rows_wgsl, |weight| {
        let width = panel_width();
        let panels = pack(num_in, num_out, width, |d, col| weight[col * num_in + d]);
        host_tensor(panels, [num_out.div_ceil(width), num_in, width])
    })
}

/// The inverse of [`pack_rows`], and its gradient: `[P, in, width]` → `[out, in]`.
fn unpack_rows(panels: Tensor<3>, num_out: usize) -> Tensor<2> {
    let [_, depth, width] = panels.dims();
    run(
        panels,
        |panels| unpack_rows_wgsl(panels, num_out),
        |panels| host_tensor(cpu::unpack_rows(&panels, [num_out, depth], width), [num_out, depth]),
    )
}

/// The activation of every value.
fn activate(x: Tensor<4>, activation: Activation) -> Tensor<4> {
    let shape = x.dims();
    run(x, |x| activate_wgsl(x, activation), |x| host_tensor(cpu::activate(&x, activation), shape))
}

/// `grad_out` times the derivative of the activation at `x`, which for ReLU may be its result.
fn grad_activation(x: Tensor<4>, grad_out: Tensor<4>, activation: Activation) -> Tensor<4> {
    let shape = x.dims();
    run(
        [x, grad_out],
        |[x, grad_out]| grad_activation_wgsl(x, grad_out, activation),
        |[x, grad_out]| host_tensor(cpu::grad_activation(&x, &grad_out, activation), shape),
    )
}

/// Gradient of `x`, `[B, H, W, in]`, from `grad_out [B, H', W', out]` before the activation.
fn grad_x(grad_out: Tensor<4>, panels: Tensor<3>, geometry: Geometry) -> Tensor<4> {
    let Geometry { batch, height, width, num_in, .. } = geometry;
    run(
        (grad_out, panels.cast(FloatDType::F32)),
        |(grad_out, panels)| grad_x_wgsl(grad_out, panels, geometry),
        |(grad_out, panels)| host_tensor(cpu::grad_x(&grad_out, &panels, geometry), [batch, height, width, num_in]),
    )
}

/// Gradient of the panels, from `x [B, H, W, in]` and `grad_out [B, H', W', out]` before the activation; padded columns
/// have zeros.
fn grad_panels(x: Tensor<4>, grad_out: Tensor<4>, geometry: Geometry) -> Tensor<3> {
    run(
        [x, grad_out],
        |[x, grad_out]| grad_panels_wgsl(x, grad_out, geometry),
        |[x, grad_out]| {
            let (depth, width) = (geometry.kernel * geometry.kernel * geometry.num_in, panel_width());
            let grad = cpu::grad_panels(&x, &grad_out, geometry);
            host_tensor(grad, [geometry.num_out.div_ceil(width), depth, width])
        },
    )
}

/// Gradient of the bias, `[out]`.
fn grad_bias(grad_out: Tensor<4>) -> Tensor<1> {
    let [batch, height, width, num_out] = grad_out.dims();
    if grad_out.is_on_host() {
        return run_twin(grad_out, |grad_out| host_tensor(cpu::grad_bias(&grad_out, num_out), [num_out]));
    }
    grad_out.reshape([batch * height * width, num_out]).sum_dim(0).reshape([num_out])
}

fn convolve_wgsl(
    x: &CubeTensor,
    panels: &CubeTensor,
    bias: &CubeTensor,
    geometry: Geometry,
    activation: Activation,
) -> CubeTensor {
    let Geometry { batch, height, width, num_in, num_out, kernel, stride, padding } = geometry;
    let [out_height, out_width] = geometry.out_size();
    let num_rows = batch * out_height * out_width;
    let out = empty_f32(x, [batch, out_height, out_width, num_out]);
    let groups = num_rows.div_ceil(shader::ROWS as usize) * num_out.div_ceil(shader::COLS as usize);
    let params = shader::Params {
        num_rows: num_rows as u32,
        num_in: num_in as u32,
        num_out: num_out as u32,
        height: height as u32,
        width: width as u32,
        out_height: out_height as u32,
        out_width: out_width as u32,
        kernel: kernel as u32,
        stride: stride as u32,
        padding: padding as u32,
        activation: match activation {
            Activation::None => 0,
            Activation::Relu => shader::RELU,
            Activation::Gelu => shader::GELU,
            Activation::QuickGelu => shader::QUICK_GELU,
        },
    };
    let shader = match panels.dtype {
        DType::F16 => &shader::HALF,
        _ => &shader::BASE,
    };
    launch(&x.client, shader, groups, &params, &[&x.handle, &panels.handle, &bias.handle, &out.handle]);
    out
}

fn pack_rows_wgsl(weight: CubeTensor) -> CubeTensor {
    let [num_out, num_in] = weight.shape().dims();
    let width = shader::COLS as usize;
    let num_panels = num_out.div_ceil(width);
    let missing = num_panels * width - num_out;
    let padded = match missing {
        0 => weight,
        _ => {
            let zeros = CubeBackend::float_zeros(Shape::from([missing, num_in]), &weight.device, DType::F32.into());
            CubeBackend::float_cat(vec![weight, zeros], 0)
        }
    };
    let panels = CubeBackend::float_reshape(padded, Shape::from([num_panels, width, num_in]));
    into_contiguous(CubeBackend::float_swap_dims(panels, 1, 2))
}

fn unpack_rows_wgsl(panels: CubeTensor, num_out: usize) -> CubeTensor {
    let [num_panels, depth, width] = panels.shape().dims();
    let rows = into_contiguous(CubeBackend::float_swap_dims(panels, 1, 2));
    let rows = CubeBackend::float_reshape(rows, Shape::from([num_panels * width, depth]));
    into_contiguous(CubeBackend::float_slice(rows, &[(0..num_out).into(), (0..depth).into()]))
}

/// The factor in CLIP's GELU.
const QUICK: f32 = 1.702;

/// Which pixels the convolution joins, as a map of [`sparse_conv`]: the input's pixel under every tap of every pixel of
/// the result; with [`pixel_map::BACKWARD`], the result's pixel that has a pixel of the input under a tap.
fn pixel_map_wgsl(like: &CubeTensor, shader: &'static Shader, geometry: Geometry) -> CubeTensor {
    let Geometry { batch, height, width, kernel, stride, padding, .. } = geometry;
    let (inside, outside) = ([height, width], geometry.out_size());
    let is_backward = std::ptr::eq(shader, &raw const pixel_map::BACKWARD);
    let ([height, width], [other_height, other_width]) =
        if is_backward { (inside, outside) } else { (outside, inside) };
    let map = empty_i32(like, [batch * height * width, kernel * kernel]);
    let num_entries = batch * height * width * kernel * kernel;
    let params = pixel_map::Params {
        num_entries: num_entries as u32,
        height: height as u32,
        width: width as u32,
        other_height: other_height as u32,
        other_width: other_width as u32,
        kernel: kernel as u32,
        stride: stride as u32,
        padding: padding as u32,
    };
    launch(&like.client, shader, num_entries.div_ceil(pixel_map::WG as usize), &params, &[&map.handle]);
    map
}

fn activate_wgsl(x: CubeTensor, activation: Activation) -> CubeTensor {
    match activation {
        Activation::None => x,
        Activation::Relu => CubeBackend::relu(x),
        Activation::Gelu => CubeBackend::gelu(x),
        Activation::QuickGelu => {
            let sigmoid = CubeBackend::sigmoid(CubeBackend::float_mul_scalar(x.clone(), QUICK.into()));
            CubeBackend::float_mul(x, sigmoid)
        }
    }
}

fn grad_activation_wgsl(x: CubeTensor, grad_out: CubeTensor, activation: Activation) -> CubeTensor {
    match activation {
        Activation::None => grad_out,
        Activation::Relu => CubeBackend::relu_backward(x, grad_out),
        Activation::Gelu => {
            // Φ(x) + x φ(x); burn's own on this backend is off by 5e-4.
            let erf = CubeBackend::float_erf(CubeBackend::float_mul_scalar(x.clone(), FRAC_1_SQRT_2.into()));
            let phi = CubeBackend::float_mul_scalar(CubeBackend::float_add_scalar(erf, 1.0.into()), 0.5.into());
            let square = CubeBackend::float_mul_scalar(CubeBackend::float_mul(x.clone(), x.clone()), (-0.5).into());
            let density = CubeBackend::float_mul_scalar(
                CubeBackend::float_exp(square),
                (0.5 * FRAC_2_SQRT_PI * FRAC_1_SQRT_2).into(),
            );
            CubeBackend::float_mul(grad_out, CubeBackend::float_add(phi, CubeBackend::float_mul(x, density)))
        }
        Activation::QuickGelu => {
            // σ + 1.702 x σ (1 − σ).
            let sigmoid = CubeBackend::sigmoid(CubeBackend::float_mul_scalar(x.clone(), QUICK.into()));
            let rest = CubeBackend::float_add_scalar(CubeBackend::float_neg(sigmoid.clone()), 1.0.into());
            let slope = CubeBackend::float_mul(CubeBackend::float_mul_scalar(x, QUICK.into()), rest);
            let slope = CubeBackend::float_mul(sigmoid, CubeBackend::float_add_scalar(slope, 1.0.into()));
            CubeBackend::float_mul(grad_out, slope)
        }
    }
}

fn grad_x_wgsl(grad_out: CubeTensor, panels: CubeTensor, geometry: Geometry) -> CubeTensor {
    let Geometry { batch, height, width, num_in, num_out, kernel, .. } = geometry;
    let rows = unpack_rows_wgsl(panels, num_out);
    let rows = CubeBackend::float_reshape(rows, Shape::from([num_out, kernel * kernel, num_in]));
    let weight = into_contiguous(CubeBackend::float_permute(rows, &[1, 2, 0]));
    let runs = runs_of_images(&grad_out, geometry, height * width).map(|(first, run)| {
        let map = pixel_map_wgsl(&grad_out, &pixel_map::BACKWARD, run);
        sparse_conv::grad_x_wgsl(&rows_of_images(&grad_out, first, run.batch), &weight, &map)
    });
    let mut grads: Vec<CubeTensor> = runs.collect();
    let grad = if grads.len() == 1 { grads.remove(0) } else { CubeBackend::float_cat(grads, 0) };
    CubeBackend::float_reshape(grad, Shape::from([batch, height, width, num_in]))
}

fn grad_panels_wgsl(x: CubeTensor, grad_out: CubeTensor, geometry: Geometry) -> CubeTensor {
    let Geometry { num_in, num_out, kernel, .. } = geometry;
    let [out_height, out_width] = geometry.out_size();
    let runs = runs_of_images(&grad_out, geometry, out_height * out_width).map(|(first, run)| {
        let map = pixel_map_wgsl(&grad_out, &pixel_map::BASE, run);
        let rows = |images| rows_of_images(images, first, run.batch);
        sparse_conv::grad_weight_wgsl(&rows(&x), &rows(&grad_out), &map)
    });
    let grad = runs.reduce(CubeBackend::float_add).expect("a convolution of no image has no gradient");
    let grad = into_contiguous(CubeBackend::float_permute(grad, &[2, 0, 1]));
    pack_rows_wgsl(CubeBackend::float_reshape(grad, Shape::from([num_out, kernel * kernel * num_in])))
}

/// Runs of images whose map of pixels fits one buffer, where an image has `num_pixels` in it: the first image, and the
/// extents of the run.
fn runs_of_images(
    like: &CubeTensor,
    geometry: Geometry,
    num_pixels: usize,
) -> impl Iterator<Item = (usize, Geometry)> + use<> {
    let Geometry { batch, kernel, .. } = geometry;
    let at_once = Limits::of(&like.client).rows(num_pixels * kernel * kernel * 4);
    (0..batch).step_by(at_once).map(move |first| (first, Geometry { batch: at_once.min(batch - first), ..geometry }))
}

/// The pixels of `count` images of `x [B, H, W, C]`: `[count · H · W, C]`.
fn rows_of_images(x: &CubeTensor, first: usize, count: usize) -> CubeTensor {
    let [_, height, width, channels] = x.shape().dims();
    let images = [first..first + count, 0..height, 0..width, 0..channels].map(Into::into);
    let images = into_contiguous(CubeBackend::float_slice(x.clone(), &images));
    CubeBackend::float_reshape(images, Shape::from([count * height * width, channels]))
}
