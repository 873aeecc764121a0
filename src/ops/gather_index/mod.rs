//! One index map after another.

pub mod cpu;

use burn::prelude::*;

use super::{OpError, host_tensor, int_tensor, limits_of, run};
use crate::gpu::shaders::gather_index::gather_index as shader;
use crate::gpu::{check_binding, empty_i32, launch};

/// `c_from_a [A]`, from `c_from_b [B]` and `b_from_a [A]`: what `c_from_b` has at every index of `b_from_a`, -1 where
/// that is negative or not below B, or where `c_from_b` is negative there.
///
/// # Errors
/// [`OpError::TooLarge`] where a map does not fit one buffer.
pub fn gather_index(c_from_b: Tensor<1, Int>, b_from_a: Tensor<1, Int>) -> Result<Tensor<1, Int>, OpError> {
    let ([num_b], [num_a], device) = (c_from_b.dims(), b_from_a.dims(), b_from_a.device());
    check_binding(limits_of(&device), "gather_index: c_from_b", num_b, 4)?;
    check_binding(limits_of(&device), "gather_index: b_from_a", num_a, 4)?;
    if num_a == 0 || num_b == 0 {
        return Ok(int_tensor(vec![-1; num_a], [num_a], &device));
    }
    Ok(run(
        (c_from_b, b_from_a),
        |(c_from_b, b_from_a)| {
            let c_from_a = empty_i32(&b_from_a, [num_a]);
            launch(
                &b_from_a.client,
                &shader::BASE,
                num_a.div_ceil(shader::WG as usize),
                &shader::Params { num_a: num_a as u32, num_b: num_b as u32 },
                &[&c_from_b.handle, &b_from_a.handle, &c_from_a.handle],
            );
            c_from_a
        },
        |(c_from_b, b_from_a)| host_tensor(cpu::gather_index(&c_from_b, &b_from_a), [num_a]),
    ))
}
