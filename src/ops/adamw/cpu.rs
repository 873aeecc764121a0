//! Host twin of the AdamW step, in place.

use pulp::{Arch, NullaryFnOnce};
use rayon::prelude::*;

use super::Step;

/// Elements of a task.
const TASK: usize = 1 << 15;

/// `param`, `exp_avg`, `exp_avg_sq` after one step along `grad`.
pub(crate) fn adamw(param: &mut [f32], grad: &[f32], exp_avg: &mut [f32], exp_avg_sq: &mut [f32], step: Step) {
    let arch = Arch::new();
    param
        .par_chunks_mut(TASK)
        .zip(grad.par_chunks(TASK))
        .zip(exp_avg.par_chunks_mut(TASK).zip(exp_avg_sq.par_chunks_mut(TASK)))
        .for_each(|((param, grad), (exp_avg, exp_avg_sq))| {
            arch.dispatch(Task { param, grad, exp_avg, exp_avg_sq, step });
        });
}

struct Task<'a> {
    param: &'a mut [f32],
    grad: &'a [f32],
    exp_avg: &'a mut [f32],
    exp_avg_sq: &'a mut [f32],
    step: Step,
}

impl NullaryFnOnce for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Step { keep, one_minus_beta1, beta2, one_minus_beta2, step_size, sqrt_correction2, epsilon } = self.step;
        let moments = self.exp_avg.iter_mut().zip(self.exp_avg_sq);
        for ((param, grad), (m, v)) in self.param.iter_mut().zip(self.grad).zip(moments) {
            *m += one_minus_beta1 * (grad - *m);
            *v = beta2 * *v + one_minus_beta2 * grad * grad;
            let denominator = v.sqrt() / sqrt_correction2 + epsilon;
            *param = *param * keep - step_size * (*m / denominator);
        }
    }
}
