//! Products of matrices, with gradients. A layer with a weight that stays is [`linear`](super::conv2d::linear).
//!
//! burn has this product too. Its GPU kernels would add nearly 7 MB to the program, so nothing calls them.

use burn::backend::Flex;
use burn::backend::ops::FloatTensorOps;
use burn::prelude::*;
use burn_wgpu::CubeTensor;

use super::{OpError, ShapeCheck, limits_of, plain, run, with_gradient};
use crate::gpu::shaders::matmul::matmul as shader;
use crate::gpu::{check_binding, empty_f32, launch};

/// Terms of a sum in one launch: Mesa's software driver ends all loops of an invocation after 65,535 rounds, and a
/// block of `DEPTH` terms takes about 41.
const LAUNCH_TERMS: usize = 16_384;

/// How the two factors of a product are stored. M rows, K terms of each sum, N columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// x · y: `x [.., M, K]`, `y [.., K, N]`.
    Plain,
    /// x · yᵀ: `x [.., M, K]`, `y [.., N, K]`.
    RightTransposed,
    /// xᵀ · y: `x [.., K, M]`, `y [.., K, N]`.
    LeftTransposed,
}

/// The product of every matrix of `x` with the matrix of `y` at the same place: `[.., M, N]`, see [`Form`]. All
/// dimensions but the last two agree.
///
/// Gradients flow to both. They are summed in a fixed order, so two runs on one device agree to the bit. On the host
/// the product is burn-flex's.
///
/// # Errors
/// [`OpError::Shape`] where the shapes disagree; [`OpError::TooLarge`] where a factor or the result does not fit one
/// buffer.
pub fn matmul<const D: usize>(x: Tensor<D>, y: Tensor<D>, form: Form) -> Result<Tensor<D>, OpError> {
    let extents = Extents::of(&x, &y, form)?;
    let Extents { num_products, num_rows, depth, num_cols } = extents;
    if num_products * num_rows * depth * num_cols == 0 {
        return Ok(Tensor::zeros(extents.shape(x.dims()), &x.device()));
    }
    let limits = limits_of(&x.device());
    check_binding(limits, "matmul: x", num_products * num_rows, depth * 4)?;
    check_binding(limits, "matmul: y", num_products * num_cols, depth * 4)?;
    check_binding(limits, "matmul: out", num_products * num_rows, num_cols * 4)?;
    let (plain_x, plain_y) = (plain(x.clone()), plain(y.clone()));
    let out = product(plain_x.clone(), plain_y.clone(), form);
    Ok(with_gradient((x, y), out, move |grad, [wants_x, wants_y]| {
        let grad_x = wants_x.then(|| match form {
            Form::Plain => product(grad.clone(), plain_y.clone(), Form::RightTransposed),
            Form::RightTransposed => product(grad.clone(), plain_y.clone(), Form::Plain),
            Form::LeftTransposed => product(plain_y.clone(), grad.clone(), Form::RightTransposed),
        });
        let grad_y = wants_y.then(|| match form {
            Form::Plain => product(plain_x, grad, Form::LeftTransposed),
            Form::RightTransposed => product(grad, plain_x, Form::LeftTransposed),
            Form::LeftTransposed => product(plain_x, grad, Form::Plain),
        });
        (grad_x, grad_y)
    }))
}

/// Sizes of a product.
#[derive(Clone, Copy)]
struct Extents {
    num_products: usize,
    num_rows: usize,
    depth: usize,
    num_cols: usize,
}

impl Extents {
    fn of<const D: usize>(x: &Tensor<D>, y: &Tensor<D>, form: Form) -> Result<Self, OpError> {
        let (x_dims, y_dims) = (x.dims(), y.dims());
        let extents = Self::between(x, y, form);
        let y_depth = y_dims[if form == Form::RightTransposed { D - 1 } else { D - 2 }];
        if x_dims[..D - 2] != y_dims[..D - 2] || y_depth != extents.depth {
            let expected = match form {
                Form::Plain => "[.., M, K] and [.., K, N]",
                Form::RightTransposed => "[.., M, K] and [.., N, K]",
                Form::LeftTransposed => "[.., K, M] and [.., K, N]",
            };
            return Err(ShapeCheck::new("matmul").value(format!("{x_dims:?} and {y_dims:?}, expected {expected}")));
        }
        Ok(extents)
    }

    fn between<const D: usize>(x: &Tensor<D>, y: &Tensor<D>, form: Form) -> Self {
        let (x, y) = (x.dims(), y.dims());
        let num_products = x[..D - 2].iter().product();
        let (num_rows, depth) = match form {
            Form::LeftTransposed => (x[D - 1], x[D - 2]),
            _ => (x[D - 2], x[D - 1]),
        };
        let num_cols = if form == Form::RightTransposed { y[D - 2] } else { y[D - 1] };
        Self { num_products, num_rows, depth, num_cols }
    }

    /// The shape of the result, where `x` has the dimensions `dims`.
    fn shape<const D: usize>(self, mut dims: [usize; D]) -> [usize; D] {
        (dims[D - 2], dims[D - 1]) = (self.num_rows, self.num_cols);
        dims
    }
}

/// The product of plain tensors whose shapes agree, for backward passes: [`matmul`] without its checks.
pub(crate) fn product<const D: usize>(x: Tensor<D>, y: Tensor<D>, form: Form) -> Tensor<D> {
    let extents = Extents::between(&x, &y, form);
    let shape = extents.shape(x.dims());
    run(
        (x, y),
        |(x, y)| product_wgsl(&x, &y, empty_f32(&x, shape), form, extents),
        |(x, y)| {
            let (x, y) = (x.into_tensor(), y.into_tensor());
            match form {
                Form::Plain => Flex::float_matmul(x, y),
                Form::RightTransposed => Flex::float_matmul(x, Flex::float_transpose(y)),
                Form::LeftTransposed => Flex::float_matmul(Flex::float_transpose(x), y),
            }
        },
    )
}

fn product_wgsl(x: &CubeTensor, y: &CubeTensor, out: CubeTensor, form: Form, extents: Extents) -> CubeTensor {
    let Extents { num_products, num_rows, depth, num_cols } = extents;
    let (x_row, x_depth) = if form == Form::LeftTransposed { (1, num_rows) } else { (depth, 1) };
    let (y_depth, y_col) = if form == Form::RightTransposed { (1, depth) } else { (num_cols, 1) };
    let tiles = num_rows.div_ceil(shader::ROWS as usize) * num_cols.div_ceil(shader::COLS as usize);
    for first in (0..depth).step_by(LAUNCH_TERMS) {
        let params = shader::Params {
            num_products: num_products as u32,
            num_rows: num_rows as u32,
            depth: depth as u32,
            num_cols: num_cols as u32,
            x_row: x_row as u32,
            x_depth: x_depth as u32,
            y_depth: y_depth as u32,
            y_col: y_col as u32,
            first: first as u32,
            num_terms: LAUNCH_TERMS as u32,
        };
        launch(&x.client, &shader::BASE, num_products * tiles, &params, &[&x.handle, &y.handle, &out.handle]);
    }
    out
}
