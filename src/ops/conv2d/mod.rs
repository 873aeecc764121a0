//! Dense 2D convolution with bias and activation; a linear layer is its 1 × 1 case.

pub mod cpu;

use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::prelude::*;
use burn::tensor::{DType, TensorData};
use burn_cubecl::{CubeBackend, kernel::into_contiguous};
use half::f16;

pub use super::gemm::Activation;
use super::gemm::{Panels, pack, panel_width};
use super::{Host, OpError, ShapeCheck, host_tensor, limits_of, plain};
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
}

/// A weight in the order in which its device reads it, with its bias.
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

    /// Packs the rows of `weight [out, in]` as the weight of a linear layer without bias: its result is
    /// x · weightᵀ.
    #[must_use]
    pub fn from_rows(weight: Tensor<2>) -> Self {
        let device = weight.device();
        let [num_out, num_in] = weight.dims();
        let panels = match num_out * num_in {
            0 => Tensor::zeros([0, num_in, panel_width_on(&device)], &device),
            _ => Tensor::from_dispatch(Dispatch::pack_rows(plain(weight).into_dispatch())),
        };
        Self { panels, bias: Tensor::zeros([num_out], &device), num_in, num_out, kernel: 1 }
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
#[backend_extension(Cube, Flex)]
pub trait Conv2dBackend: Backend {
    /// `weight [out, in]` → `[P, in, width]`, its rows being the columns of the panels.
    fn pack_rows(weight: FloatTensor<Self>) -> FloatTensor<Self>;

    /// `x [B, H, W, in]`, `panels [P, k · k · in, width]`, `bias [out]` → `[B, H', W', out]`.
    fn conv2d(
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
    let (panels, bias) = (plain(weight.panels.clone()).into_dispatch(), plain(weight.bias.clone()).into_dispatch());
    let out = Dispatch::conv2d(plain(x).into_dispatch(), panels, bias, geometry, activation);
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

    fn conv2d(
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

    fn conv2d(
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
