//! One step of AdamW on one parameter.

pub(crate) mod cpu;

use burn::backend::TensorMetadata;
use burn::prelude::*;
use burn_wgpu::CubeTensor;

use super::run::Host;
use super::{OpError, ShapeCheck, limits_of, plain, run};
use crate::gpu::shaders::adamw::adamw as shader;
use crate::gpu::{check_binding, empty_f32, launch};

/// The numbers of one step, computed in f64 and rounded once.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// 1 − rate · decay, by which a parameter is multiplied first.
    pub keep: f32,
    /// 1 − β₁.
    pub one_minus_beta1: f32,
    /// β₂.
    pub beta2: f32,
    /// 1 − β₂.
    pub one_minus_beta2: f32,
    /// rate / (1 − β₁ᵗ).
    pub step_size: f32,
    /// √(1 − β₂ᵗ).
    pub sqrt_correction2: f32,
    /// A small number that keeps the denominator from zero.
    pub epsilon: f32,
}

/// A parameter and its moments, `[N]` each.
#[derive(Clone, Debug)]
pub struct Stepped {
    /// The parameter.
    pub param: Tensor<1>,
    /// Running mean of its gradient.
    pub exp_avg: Tensor<1>,
    /// Running mean of its gradient's square.
    pub exp_avg_sq: Tensor<1>,
}

/// One step of AdamW (Loshchilov and Hutter, 2019) along `grad [N]`, in PyTorch's order of operations:
/// the decay first, ε outside the root. The result has no gradient. On the host it takes the place of
/// `state` where nobody else holds it.
///
/// # Errors
/// [`OpError::Shape`] where the lengths disagree; [`OpError::TooLarge`] where the parameter does not fit one buffer.
pub fn adamw(state: Stepped, grad: Tensor<1>, step: Step) -> Result<Stepped, OpError> {
    let mut shapes = ShapeCheck::new("adamw");
    shapes.check("param", state.param.dims(), ["N".into()])?;
    shapes.check("grad", grad.dims(), ["N".into()])?;
    shapes.check("exp_avg", state.exp_avg.dims(), ["N".into()])?;
    shapes.check("exp_avg_sq", state.exp_avg_sq.dims(), ["N".into()])?;
    let Stepped { param, exp_avg, exp_avg_sq } = state;
    let [len] = param.dims();
    if len == 0 {
        return Ok(Stepped { param: plain(param), exp_avg, exp_avg_sq });
    }
    check_binding(limits_of(&param.device()), "adamw: param", len, 4)?;
    let (param, exp_avg, exp_avg_sq) = run(
        ([param, exp_avg, exp_avg_sq], grad),
        |(state, grad)| adamw_wgsl(&state, &grad, step),
        |(state, grad)| {
            let [mut param, mut exp_avg, mut exp_avg_sq] = state.map(Host::into_tensor);
            cpu::adamw(param.storage_mut(), &grad, exp_avg.storage_mut(), exp_avg_sq.storage_mut(), step);
            (param, exp_avg, exp_avg_sq)
        },
    );
    Ok(Stepped { param, exp_avg, exp_avg_sq })
}

/// Parameter and moments after the step, `[N]` each.
fn adamw_wgsl(
    [param, exp_avg, exp_avg_sq]: &[CubeTensor; 3],
    grad: &CubeTensor,
    step: Step,
) -> (CubeTensor, CubeTensor, CubeTensor) {
    let len = param.shape()[0];
    let [new_param, new_exp_avg, new_exp_avg_sq] = std::array::from_fn(|_| empty_f32(param, [len]));
    let Step { keep, one_minus_beta1, beta2, one_minus_beta2, step_size, sqrt_correction2, epsilon } = step;
    launch(
        &param.client,
        &shader::BASE,
        len.div_ceil(shader::WG as usize),
        &shader::Params {
            num_values: len as u32,
            keep,
            one_minus_beta1,
            beta2,
            one_minus_beta2,
            step_size,
            sqrt_correction2,
            epsilon,
        },
        &[
            &param.handle,
            &grad.handle,
            &exp_avg.handle,
            &exp_avg_sq.handle,
            &new_param.handle,
            &new_exp_avg.handle,
            &new_exp_avg_sq.handle,
        ],
    );
    (new_param, new_exp_avg, new_exp_avg_sq)
}
