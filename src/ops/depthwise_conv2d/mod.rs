//! Depthwise 2D convolution, every channel with a kernel of its own, and its gradients.

pub mod cpu;

use burn::backend::TensorMetadata;
use burn::prelude::*;
use burn_wgpu::CubeTensor;

use super::run::Operands;
use super::{OpError, ShapeCheck, host_tensor, limits_of, plain, run, run_twin, with_gradient};
use crate::gpu::shaders::depthwise_conv2d::depthwise_conv2d as shader;
use crate::gpu::{check_binding, empty_f32, launch};

/// out\[b, y, x, c\] = Σ x\[b, y + i − k / 2, x + j − k / 2, c\] · weight\[i · k + j, c\] + bias\[c\], zeros outside
/// the image: `x [B, H, W, C]`, `weight [k², C]`, `bias [C]` → `[B, H, W, C]`. Gradients flow to every tensor;
/// sums have a fixed order, so two runs on one device agree to the bit.
///
/// # Errors
/// [`OpError::Shape`] where the shapes disagree; [`OpError::Value`] for a kernel of even size;
/// [`OpError::TooLarge`] where `x` does not fit one buffer.
pub fn depthwise_conv2d(x: Tensor<4>, weight: Tensor<2>, bias: Tensor<1>, kernel: usize) -> Result<Tensor<4>, OpError> {
    let mut shapes = ShapeCheck::new("depthwise_conv2d");
    shapes.check("x", x.dims(), ["B".into(), "H".into(), "W".into(), "C".into()])?;
    shapes.check("weight", weight.dims(), [(kernel * kernel).into(), "C".into()])?;
    shapes.check("bias", bias.dims(), ["C".into()])?;
    if kernel.is_multiple_of(2) {
        return Err(shapes.value(format!("a kernel of edge {kernel}, expected an odd one")));
    }
    let [batch, height, width, dim] = x.dims();
    if batch * height * width * dim == 0 {
        return Ok(x);
    }
    check_binding(limits_of(&x.device()), "depthwise_conv2d: x", batch * height * width, dim * 4)?;
    let (plain_x, plain_weight) = (plain(x.clone()), plain(weight.clone()));
    let out = convolve(plain_x.clone(), plain_weight.clone(), plain(bias.clone()), kernel);
    Ok(with_gradient((x, weight, bias), out, move |grad, wants| gradients(grad, plain_x, plain_weight, kernel, wants)))
}

/// [`depthwise_conv2d`] of plain tensors that were checked.
pub(crate) fn convolve(x: Tensor<4>, weight: Tensor<2>, bias: Tensor<1>, kernel: usize) -> Tensor<4> {
    let shape = x.dims();
    run(
        (x, weight, bias),
        |(x, weight, bias)| forward_wgsl(&x, &weight, &bias, kernel),
        |(x, weight, bias)| host_tensor(cpu::depthwise_conv2d(&x, &weight, &bias, [shape[1], shape[2]], kernel), shape),
    )
}

fn forward_wgsl(x: &CubeTensor, weight: &CubeTensor, bias: &CubeTensor, kernel: usize) -> CubeTensor {
    let shape: [usize; 4] = x.shape().dims();
    let [_, height, width, dim] = shape;
    let num_values: usize = shape.iter().product();
    let out = empty_f32(x, shape);
    launch(
        &x.client,
        &shader::BASE,
        num_values.div_ceil(shader::WG as usize),
        &shader::Params {
            num_values: num_values as u32,
            height: height as u32,
            width: width as u32,
            num_channels: dim as u32,
            kernel: kernel as u32,
        },
        &[&x.handle, &weight.handle, &bias.handle, &out.handle],
    );
    out
}

/// The gradients of x, weight and bias.
pub(crate) type Gradients = (Option<Tensor<4>>, Option<Tensor<2>>, Option<Tensor<1>>);

/// The gradients that `wants` names, from that of the result, `[B, H, W, C]`.
pub(crate) fn gradients(
    grad: Tensor<4>,
    x: Tensor<4>,
    weight: Tensor<2>,
    kernel: usize,
    wants: [bool; 3],
) -> Gradients {
    let shape = x.dims();
    let [batch, height, width, dim] = shape;
    if grad.is_on_host() {
        return run_twin(([grad, x], weight), |([grad, x], weight)| {
            let [grad_x, grad_weight, grad_bias] = cpu::grad(&grad, &x, &weight, [height, width, dim], kernel, wants);
            (
                wants[0].then(|| host_tensor(grad_x, shape)),
                wants[1].then(|| host_tensor(grad_weight, [kernel * kernel, dim])),
                wants[2].then(|| host_tensor(grad_bias, [dim])),
            )
        });
    }
    let sum = |x: Tensor<4>| x.sum_dim(2).sum_dim(1).sum_dim(0).reshape([1, dim]);
    let grad_x = wants[0].then(|| {
        let none = Tensor::zeros([dim], &x.device());
        convolve(grad.clone(), weight.flip([0]), none, kernel)
    });
    let grad_weight = wants[1].then(|| {
        let reach = kernel / 2;
        let framed = Tensor::zeros([batch, height + 2 * reach, width + 2 * reach, dim], &x.device());
        let inside = [0..batch, reach..reach + height, reach..reach + width, 0..dim];
        let framed = framed.slice_assign(inside, x);
        let taps = (0..kernel * kernel).map(|tap| {
            let seen = framed.clone().narrow(1, tap / kernel, height).narrow(2, tap % kernel, width);
            sum(grad.clone() * seen)
        });
        Tensor::cat(taps.collect(), 0)
    });
    let grad_bias = wants[2].then(|| sum(grad.clone()).reshape([dim]));
    (grad_x, grad_weight, grad_bias)
}
