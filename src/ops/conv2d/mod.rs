//! Dense 2D convolution with bias and activation; a linear layer is its 1 × 1 case.

pub mod cpu;

use std::f32::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::ops::{ActivationOps, FloatTensorOps, ModuleOps};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, AutodiffBackend, Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::prelude::*;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{DType, FloatDType, TensorData};
use burn_cubecl::{CubeBackend, kernel::into_contiguous};
use burn_flex::FlexTensor;
use half::f16;

pub use super::gemm::Activation;
use super::gemm::{Panels, pack, panel_width};
use super::{Host, OpError, ShapeCheck, host_tensor, into_tracked, limits_of};
use crate::gpu::shaders::conv2d::conv2d as shader;
use crate::gpu::{check_binding, empty_f32, launch};

/// How the weights of a model are held. Sums and activations are f32 in both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// As they are: the reference.
    #[default]
    F32,
    /// Rounded to 16 bits, half the memory.
    F16,
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

    /// Whether every pixel is multiplied with one matrix.
    fn is_linear(&self) -> bool {
        self.kernel == 1 && self.stride == 1 && self.padding == 0
    }

    /// As burn has them.
    fn options(&self) -> ConvOptions<2> {
        ConvOptions::new([self.stride; 2], [self.padding; 2], [1; 2], 1)
    }
}

/// A weight in the order in which its device reads it, with its bias. Gradients flow to the tensors it was made of.
#[derive(Clone, Debug)]
pub struct PackedWeight {
    /// `[panels, k · k · in, width]`, f32 or f16.
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
    /// [`OpError::Value`] where the lengths are not those of the extents; [`OpError::TooLarge`] where the
    /// weight does not fit one buffer.
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
        };
        Ok(Self { panels, bias: super::float_tensor(bias, [num_out], device), num_in, num_out, kernel })
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
            _ => Tensor::from_dispatch(Dispatch::pack_rows(weight.into_dispatch())),
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
    if super::is_host(device) { panel_width() } else { shader::COLS as usize }
}

/// Backend side of [`conv2d`]; preconditions are checked there.
#[backend_extension(Cube, Flex, Autodiff)]
pub trait Conv2dBackend: Backend {
    /// `weight [out, in]` → `[P, in, width]`, its rows being the columns of the panels.
    fn pack_rows(weight: FloatTensor<Self>) -> FloatTensor<Self>;

    /// The inverse of `pack_rows`, and its gradient: `[P, in, width]` → `[out, in]`.
    fn unpack_rows(panels: FloatTensor<Self>, num_out: usize) -> FloatTensor<Self>;

    /// The activation of every value.
    fn conv2d_activate(x: FloatTensor<Self>, activation: Activation) -> FloatTensor<Self>;

    /// `grad_out` times the derivative of the activation at `x`, which for ReLU may be its result.
    fn conv2d_grad_activation(
        x: FloatTensor<Self>,
        grad_out: FloatTensor<Self>,
        activation: Activation,
    ) -> FloatTensor<Self>;

    /// Gradient of `x`, `[B, H, W, in]`, from `grad_out [B, H', W', out]` before the activation.
    fn conv2d_grad_x(grad_out: FloatTensor<Self>, panels: FloatTensor<Self>, geometry: Geometry) -> FloatTensor<Self>;

    /// Gradient of the panels, from `x [B, H, W, in]` and `grad_out [B, H', W', out]` before the activation; padded
    /// columns have zeros.
    fn conv2d_grad_panels(x: FloatTensor<Self>, grad_out: FloatTensor<Self>, geometry: Geometry) -> FloatTensor<Self>;

    /// Gradient of the bias, `[out]`.
    fn conv2d_grad_bias(grad_out: FloatTensor<Self>) -> FloatTensor<Self>;

    /// `x [B, H, W, in]`, `panels [P, k · k · in, width]`, `bias [out]` → `[B, H', W', out]`.
    fn conv2d_packed(
        x: FloatTensor<Self>,
        panels: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        geometry: Geometry,
        activation: Activation,
    ) -> FloatTensor<Self>;
}

/// out\[b, y, x\] = activation(Σ x\[b, stride · y + i − padding, stride · x + j − padding\] · weight\[i, j\] +
/// bias), zeros outside the image: `x [B, H, W, in]` → `[B, H', W', out]`, channels last.
///
/// Gradients flow to `x`, the weight and the bias; they are summed in a fixed order, so two runs on one device agree to
/// the bit.
///
/// # Errors
/// [`OpError::Shape`] where `x` has not the weight's channels; [`OpError::Value`] for a stride of 0;
/// [`OpError::TooLarge`] where `x` or the result does not fit one buffer.
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
    let tracks = x.device().is_autodiff() || panels.device().is_autodiff() || bias.device().is_autodiff();
    let (x, panels, bias) = (into_tracked(x, tracks), into_tracked(panels, tracks), into_tracked(bias, tracks));
    let out =
        Dispatch::conv2d_packed(x.into_dispatch(), panels.into_dispatch(), bias.into_dispatch(), geometry, activation);
    Ok(Tensor::from_dispatch(out))
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

/// Of CLIP's GELU.
const QUICK: f32 = 1.702;

/// `[out, k · k · in]` as burn's `[out, in, k, k]`.
fn channels_second(weight: FloatTensor<CubeBackend>, geometry: Geometry) -> FloatTensor<CubeBackend> {
    let Geometry { num_in, num_out, kernel, .. } = geometry;
    let weight = CubeBackend::float_reshape(weight, Shape::from([num_out, kernel, kernel, num_in]));
    into_contiguous(CubeBackend::float_permute(weight, &[0, 3, 1, 2]))
}

impl Conv2dBackend for CubeBackend {
    fn pack_rows(weight: FloatTensor<Self>) -> FloatTensor<Self> {
        let [num_out, num_in] = weight.shape().dims();
        let width = shader::COLS as usize;
        let num_panels = num_out.div_ceil(width);
        let missing = num_panels * width - num_out;
        let padded = match missing {
            0 => weight,
            _ => {
                let zeros = Self::float_zeros(Shape::from([missing, num_in]), &weight.device, DType::F32.into());
                Self::float_cat(vec![weight, zeros], 0)
            }
        };
        let panels = Self::float_reshape(padded, Shape::from([num_panels, width, num_in]));
        into_contiguous(Self::float_swap_dims(panels, 1, 2))
    }

    fn unpack_rows(panels: FloatTensor<Self>, num_out: usize) -> FloatTensor<Self> {
        let [num_panels, depth, width] = panels.shape().dims();
        let rows = into_contiguous(Self::float_swap_dims(panels, 1, 2));
        let rows = Self::float_reshape(rows, Shape::from([num_panels * width, depth]));
        into_contiguous(Self::float_slice(rows, &[(0..num_out).into(), (0..depth).into()]))
    }

    fn conv2d_activate(x: FloatTensor<Self>, activation: Activation) -> FloatTensor<Self> {
        match activation {
            Activation::None => x,
            Activation::Relu => Self::relu(x),
            Activation::Gelu => Self::gelu(x),
            Activation::QuickGelu => {
                let sigmoid = Self::sigmoid(Self::float_mul_scalar(x.clone(), QUICK.into()));
                Self::float_mul(x, sigmoid)
            }
        }
    }

    fn conv2d_grad_activation(
        x: FloatTensor<Self>,
        grad_out: FloatTensor<Self>,
        activation: Activation,
    ) -> FloatTensor<Self> {
        match activation {
            Activation::None => grad_out,
            Activation::Relu => Self::relu_backward(x, grad_out),
            Activation::Gelu => {
                // Φ(x) + x φ(x); burn's own on this backend is off by 5e-4.
                let erf = Self::float_erf(Self::float_mul_scalar(x.clone(), FRAC_1_SQRT_2.into()));
                let phi = Self::float_mul_scalar(Self::float_add_scalar(erf, 1.0.into()), 0.5.into());
                let square = Self::float_mul_scalar(Self::float_mul(x.clone(), x.clone()), (-0.5).into());
                let density =
                    Self::float_mul_scalar(Self::float_exp(square), (0.5 * FRAC_2_SQRT_PI * FRAC_1_SQRT_2).into());
                Self::float_mul(grad_out, Self::float_add(phi, Self::float_mul(x, density)))
            }
            Activation::QuickGelu => {
                // σ + 1.702 x σ (1 − σ).
                let sigmoid = Self::sigmoid(Self::float_mul_scalar(x.clone(), QUICK.into()));
                let rest = Self::float_add_scalar(Self::float_neg(sigmoid.clone()), 1.0.into());
                let slope = Self::float_mul(Self::float_mul_scalar(x, QUICK.into()), rest);
                let slope = Self::float_mul(sigmoid, Self::float_add_scalar(slope, 1.0.into()));
                Self::float_mul(grad_out, slope)
            }
        }
    }

    fn conv2d_grad_x(grad_out: FloatTensor<Self>, panels: FloatTensor<Self>, geometry: Geometry) -> FloatTensor<Self> {
        let Geometry { batch, height, width, num_in, num_out, .. } = geometry;
        let weight = Self::unpack_rows(Self::float_cast(panels, FloatDType::F32), num_out);
        if geometry.is_linear() {
            let grad_out =
                Self::float_reshape(into_contiguous(grad_out), Shape::from([batch * height * width, num_out]));
            let grad = Self::float_matmul(grad_out, weight);
            return Self::float_reshape(into_contiguous(grad), Shape::from([batch, height, width, num_in]));
        }
        let x = Self::float_zeros(Shape::from([batch, num_in, height, width]), &grad_out.device, DType::F32.into());
        let (weight, grad_out) = (channels_second(weight, geometry), Self::float_permute(grad_out, &[0, 3, 1, 2]));
        let grad = Self::conv2d_x_backward(x, weight, into_contiguous(grad_out), geometry.options());
        into_contiguous(Self::float_permute(grad, &[0, 2, 3, 1]))
    }

    fn conv2d_grad_panels(x: FloatTensor<Self>, grad_out: FloatTensor<Self>, geometry: Geometry) -> FloatTensor<Self> {
        let Geometry { batch, height, width, num_in, num_out, kernel, .. } = geometry;
        if geometry.is_linear() {
            let num_rows = batch * height * width;
            let x = Self::float_reshape(into_contiguous(x), Shape::from([num_rows, num_in]));
            let grad_out = Self::float_reshape(into_contiguous(grad_out), Shape::from([num_rows, num_out]));
            return Self::pack_rows(into_contiguous(Self::float_matmul(Self::float_transpose(grad_out), x)));
        }
        let weight =
            Self::float_zeros(Shape::from([num_out, num_in, kernel, kernel]), &grad_out.device, DType::F32.into());
        let (x, grad_out) = (Self::float_permute(x, &[0, 3, 1, 2]), Self::float_permute(grad_out, &[0, 3, 1, 2]));
        let (x, grad_out) = (into_contiguous(x), into_contiguous(grad_out));
        let grad = Self::conv2d_weight_backward(x, weight, grad_out, geometry.options());
        let grad = into_contiguous(Self::float_permute(grad, &[0, 2, 3, 1]));
        Self::pack_rows(Self::float_reshape(grad, Shape::from([num_out, kernel * kernel * num_in])))
    }

    fn conv2d_grad_bias(grad_out: FloatTensor<Self>) -> FloatTensor<Self> {
        let [batch, height, width, num_out] = grad_out.shape().dims();
        let grad_out = Self::float_reshape(into_contiguous(grad_out), Shape::from([batch * height * width, num_out]));
        Self::float_reshape(Self::float_sum_dim(grad_out, 0), Shape::from([num_out]))
    }

    fn conv2d_packed(
        x: FloatTensor<Self>,
        panels: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        geometry: Geometry,
        activation: Activation,
    ) -> FloatTensor<Self> {
        let (x, panels, bias) = (into_contiguous(x), into_contiguous(panels), into_contiguous(bias));
        let Geometry { batch, height, width, num_in, num_out, kernel, stride, padding } = geometry;
        let [out_height, out_width] = geometry.out_size();
        let num_rows = batch * out_height * out_width;
        let out = empty_f32(&x, [batch, out_height, out_width, num_out]);
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
}

impl Conv2dBackend for Flex {
    fn pack_rows(weight: FloatTensor<Self>) -> FloatTensor<Self> {
        let [num_out, num_in] = weight.shape().dims();
        let (weight, width) = (Host::<f32>::new(weight), panel_width());
        let panels = pack(num_in, num_out, width, |d, col| weight[col * num_in + d]);
        host_tensor(panels, [num_out.div_ceil(width), num_in, width])
    }

    fn unpack_rows(panels: FloatTensor<Self>, num_out: usize) -> FloatTensor<Self> {
        let [_, depth, width] = panels.shape().dims();
        let panels = Host::<f32>::new(panels);
        host_tensor(cpu::unpack_rows(&panels, [num_out, depth], width), [num_out, depth])
    }

    fn conv2d_activate(x: FloatTensor<Self>, activation: Activation) -> FloatTensor<Self> {
        let shape = x.shape();
        FlexTensor::from_data(TensorData::new(cpu::activate(&Host::<f32>::new(x), activation), shape))
    }

    fn conv2d_grad_activation(
        x: FloatTensor<Self>,
        grad_out: FloatTensor<Self>,
        activation: Activation,
    ) -> FloatTensor<Self> {
        let shape = x.shape();
        let grad = cpu::grad_activation(&Host::<f32>::new(x), &Host::<f32>::new(grad_out), activation);
        FlexTensor::from_data(TensorData::new(grad, shape))
    }

    fn conv2d_grad_x(grad_out: FloatTensor<Self>, panels: FloatTensor<Self>, geometry: Geometry) -> FloatTensor<Self> {
        let Geometry { batch, height, width, num_in, .. } = geometry;
        let panels = Host::<f32>::new(Self::float_cast(panels, FloatDType::F32));
        let grad = cpu::grad_x(&Host::<f32>::new(grad_out), &panels, geometry);
        host_tensor(grad, [batch, height, width, num_in])
    }

    fn conv2d_grad_panels(x: FloatTensor<Self>, grad_out: FloatTensor<Self>, geometry: Geometry) -> FloatTensor<Self> {
        let (depth, width) = (geometry.kernel * geometry.kernel * geometry.num_in, panel_width());
        let grad = cpu::grad_panels(&Host::<f32>::new(x), &Host::<f32>::new(grad_out), geometry);
        host_tensor(grad, [geometry.num_out.div_ceil(width), depth, width])
    }

    fn conv2d_grad_bias(grad_out: FloatTensor<Self>) -> FloatTensor<Self> {
        let [_, _, _, num_out] = grad_out.shape().dims();
        host_tensor(cpu::grad_bias(&Host::<f32>::new(grad_out), num_out), [num_out])
    }

    fn conv2d_packed(
        x: FloatTensor<Self>,
        panels: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        geometry: Geometry,
        activation: Activation,
    ) -> FloatTensor<Self> {
        let [out_height, out_width] = geometry.out_size();
        let (x, bias) = (Host::<f32>::new(x), Host::<f32>::new(bias));
        let out = match panels.dtype() {
            DType::F16 => {
                let panels = Host::<f16>::new(panels);
                cpu::forward(&x, Panels::F16(&panels), &bias, geometry, activation)
            }
            _ => {
                let panels = Host::<f32>::new(panels);
                cpu::forward(&x, Panels::F32(&panels), &bias, geometry, activation)
            }
        };
        host_tensor(out, [geometry.batch, out_height, out_width, geometry.num_out])
    }
}

#[derive(Debug)]
struct PackRowsBackward;

impl<B: Conv2dBackend> Backward<B, 1> for PackRowsBackward {
    /// Rows of the weight.
    type State = usize;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let [weight] = ops.parents;
        let grad = grads.consume::<B>(&ops.node);
        if let Some(weight) = weight {
            grads.register::<B>(weight.id, B::unpack_rows(grad, ops.state));
        }
    }
}

/// What the backward pass of a convolution needs.
#[derive(Clone, Debug)]
struct ConvState<B: Backend> {
    x: FloatTensor<B>,
    panels: FloatTensor<B>,
    /// What the activation was applied to, of ReLU the result; none where there is no activation.
    activated: Option<FloatTensor<B>>,
    geometry: Geometry,
    activation: Activation,
}

#[derive(Debug)]
struct ConvBackward;

impl<B: Conv2dBackend> Backward<B, 3> for ConvBackward {
    type State = ConvState<B>;

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let [x_node, panels_node, bias_node] = ops.parents;
        let ConvState { x, panels, activated, geometry, activation } = ops.state;
        let grad = grads.consume::<B>(&ops.node);
        let grad = match activated {
            Some(activated) => B::conv2d_grad_activation(activated, grad, activation),
            None => grad,
        };
        if let Some(node) = bias_node {
            grads.register::<B>(node.id, B::conv2d_grad_bias(grad.clone()));
        }
        if let Some(node) = panels_node {
            grads.register::<B>(node.id, B::conv2d_grad_panels(x, grad.clone(), geometry));
        }
        if let Some(node) = x_node {
            grads.register::<B>(node.id, B::conv2d_grad_x(grad, panels, geometry));
        }
    }
}

impl<B: Conv2dBackend, C: CheckpointStrategy> Conv2dBackend for Autodiff<B, C> {
    fn pack_rows(weight: FloatTensor<Self>) -> FloatTensor<Self> {
        let num_out = weight.shape()[0];
        match PackRowsBackward.prepare::<C>([weight.node()]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(num_out, B::pack_rows(weight.into_primitive())),
            OpsKind::UnTracked(prep) => prep.finish(B::pack_rows(weight.into_primitive())),
        }
    }

    fn unpack_rows(panels: FloatTensor<Self>, num_out: usize) -> FloatTensor<Self> {
        <Self as AutodiffBackend>::from_inner(B::unpack_rows(panels.into_primitive(), num_out))
    }

    fn conv2d_activate(x: FloatTensor<Self>, activation: Activation) -> FloatTensor<Self> {
        <Self as AutodiffBackend>::from_inner(B::conv2d_activate(x.into_primitive(), activation))
    }

    fn conv2d_grad_activation(
        x: FloatTensor<Self>,
        grad_out: FloatTensor<Self>,
        activation: Activation,
    ) -> FloatTensor<Self> {
        let grad = B::conv2d_grad_activation(x.into_primitive(), grad_out.into_primitive(), activation);
        <Self as AutodiffBackend>::from_inner(grad)
    }

    fn conv2d_grad_x(grad_out: FloatTensor<Self>, panels: FloatTensor<Self>, geometry: Geometry) -> FloatTensor<Self> {
        let grad = B::conv2d_grad_x(grad_out.into_primitive(), panels.into_primitive(), geometry);
        <Self as AutodiffBackend>::from_inner(grad)
    }

    fn conv2d_grad_panels(x: FloatTensor<Self>, grad_out: FloatTensor<Self>, geometry: Geometry) -> FloatTensor<Self> {
        let grad = B::conv2d_grad_panels(x.into_primitive(), grad_out.into_primitive(), geometry);
        <Self as AutodiffBackend>::from_inner(grad)
    }

    fn conv2d_grad_bias(grad_out: FloatTensor<Self>) -> FloatTensor<Self> {
        <Self as AutodiffBackend>::from_inner(B::conv2d_grad_bias(grad_out.into_primitive()))
    }

    fn conv2d_packed(
        x: FloatTensor<Self>,
        panels: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        geometry: Geometry,
        activation: Activation,
    ) -> FloatTensor<Self> {
        let prep = ConvBackward.prepare::<C>([x.node(), panels.node(), bias.node()]).compute_bound().stateful();
        let (x, panels, bias) = (x.into_primitive(), panels.into_primitive(), bias.into_primitive());
        let prep = match prep {
            OpsKind::Tracked(prep) => prep,
            OpsKind::UnTracked(prep) => return prep.finish(B::conv2d_packed(x, panels, bias, geometry, activation)),
        };
        let conv = |activation| B::conv2d_packed(x.clone(), panels.clone(), bias, geometry, activation);
        let (activated, out) = match activation {
            Activation::None => (None, conv(activation)),
            Activation::Relu => {
                let out = conv(activation);
                (Some(out.clone()), out)
            }
            Activation::Gelu | Activation::QuickGelu => {
                let x = conv(Activation::None);
                (Some(x.clone()), B::conv2d_activate(x, activation))
            }
        };
        prep.finish(ConvState { x, panels, activated, geometry, activation }, out)
    }
}
