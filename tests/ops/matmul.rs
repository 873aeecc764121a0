//! Products of matrices against their definition in f64, and their gradients.

use burn::prelude::*;
use burn::tensor::Device;
use geopurify::gpu::{Limits, shaders, with_limits};
use geopurify::ops::matmul::{Form, matmul};
use geopurify::ops::{OpError, float_tensor, float_values};

use crate::common::{Random, devices};
use crate::helpers::definition::{check, close, rounded, sizes};

const FORMS: [Form; 3] = [Form::Plain, Form::RightTransposed, Form::LeftTransposed];

/// A batch of products with their factors.
struct Product {
    form: Form,
    batch: usize,
    rows: usize,
    depth: usize,
    cols: usize,
    x: Vec<f32>,
    y: Vec<f32>,
}

impl Product {
    fn new(form: Form, [batch, rows, depth, cols]: [usize; 4]) -> Self {
        let mut random = Random(5);
        let (x, y) = (random.floats(batch * rows * depth), random.floats(batch * depth * cols));
        Self { form, batch, rows, depth, cols, x, y }
    }

    fn x_at(&self, b: usize, row: usize, term: usize) -> usize {
        match self.form {
            Form::LeftTransposed => (b * self.depth + term) * self.rows + row,
            _ => (b * self.rows + row) * self.depth + term,
        }
    }

    fn y_at(&self, b: usize, term: usize, col: usize) -> usize {
        match self.form {
            Form::RightTransposed => (b * self.cols + col) * self.depth + term,
            _ => (b * self.depth + term) * self.cols + col,
        }
    }

    /// The result, and the gradients of the factors where that of the result is `grad`.
    fn definition(&self, grad: &[f32]) -> [Vec<f32>; 3] {
        let mut out = vec![0.0; self.batch * self.rows * self.cols];
        let (mut grad_x, mut grad_y) = (vec![0.0; self.x.len()], vec![0.0; self.y.len()]);
        for b in 0..self.batch {
            for row in 0..self.rows {
                for col in 0..self.cols {
                    let at = (b * self.rows + row) * self.cols + col;
                    for term in 0..self.depth {
                        let (x, y) = (self.x_at(b, row, term), self.y_at(b, term, col));
                        out[at] += f64::from(self.x[x]) * f64::from(self.y[y]);
                        grad_x[x] += f64::from(grad[at]) * f64::from(self.y[y]);
                        grad_y[y] += f64::from(grad[at]) * f64::from(self.x[x]);
                    }
                }
            }
        }
        [out, grad_x, grad_y].map(rounded)
    }

    fn factors(&self, device: &Device) -> (Tensor<3>, Tensor<3>) {
        let shape = |[last, other]: [usize; 2], transposed: bool| match transposed {
            true => [self.batch, other, last],
            false => [self.batch, last, other],
        };
        let x = shape([self.rows, self.depth], self.form == Form::LeftTransposed);
        let y = shape([self.depth, self.cols], self.form == Form::RightTransposed);
        (float_tensor(self.x.clone(), x, device), float_tensor(self.y.clone(), y, device))
    }

    fn check(&self) {
        let what = format!("{:?}, {} products {} x {} x {}", self.form, self.batch, self.rows, self.depth, self.cols);
        let grad = Random(6).floats(self.batch * self.rows * self.cols);
        let [out, grad_x, grad_y] = self.definition(&grad);
        check(&what, &out, |device| {
            let (x, y) = self.factors(device);
            let out = matmul(x, y, self.form).unwrap();
            assert_eq!(out.dims(), [self.batch, self.rows, self.cols]);
            float_values(out).unwrap()
        });
        let gradients = |device: &Device| {
            let (x, y) = self.factors(&device.clone().autodiff());
            let (x, y) = (x.require_grad(), y.require_grad());
            let shape = [self.batch, self.rows, self.cols];
            let grad = float_tensor(grad.clone(), shape, &device.clone().autodiff());
            let grads = (matmul(x.clone(), y.clone(), self.form).unwrap() * grad).sum().backward();
            [x, y].map(|factor| float_values(factor.grad(&grads).unwrap()).unwrap())
        };
        for (name, device) in devices() {
            let [found_x, found_y] = gradients(&device);
            close(&format!("{name}, {what}, gradient of x"), &found_x, &grad_x);
            close(&format!("{name}, {what}, gradient of y"), &found_y, &grad_y);
        }
    }
}

#[test]
fn products_of_every_form_and_size_around_the_tiles_equal_the_definition() {
    use shaders::matmul::matmul::{COLS, DEPTH, ROWS};
    for form in FORMS {
        let rows = sizes(ROWS).map(|rows| [1, rows, 19, 37]);
        let depths = sizes(DEPTH).map(|depth| [2, 65, depth, 66]);
        let cols = sizes(COLS).map(|cols| [3, 7, 21, cols]);
        for extents in rows.into_iter().chain(depths).chain(cols).chain([[5, 1, 1, 1]]) {
            Product::new(form, extents).check();
        }
    }
}

#[test]
fn sums_longer_than_a_launch_are_whole() {
    // 16,384 terms a launch. The terms are 1 and -1 in turn, then 1, so that every sum is exact.
    let depth = 16_384 * 2 + 100;
    let x: Vec<f32> = (0..depth).map(|i| if i < 16_384 && i % 2 == 1 { -1.0 } else { 1.0 }).collect();
    for (name, device) in devices() {
        let x = float_tensor(x.clone(), [1, depth], &device);
        let y = float_tensor(vec![2.0; depth * 3], [depth, 3], &device);
        let out = float_values(matmul(x, y, Form::Plain).unwrap()).unwrap();
        assert_eq!(out, [2.0 * (16_384.0 + 100.0); 3], "{name}");
    }
}

#[test]
fn factors_that_do_not_fit_are_refused() {
    for (name, device) in devices() {
        let zeros = |shape: [usize; 2]| Tensor::<2>::zeros(shape, &device);
        for (x, y, form) in [
            ([3, 4], [5, 6], Form::Plain),
            ([3, 4], [4, 5], Form::RightTransposed),
            ([3, 4], [4, 5], Form::LeftTransposed),
        ] {
            let error = matmul(zeros(x), zeros(y), form).unwrap_err();
            let OpError::Value { op: "matmul", message } = error else { panic!("{name}: {error}") };
            assert!(message.starts_with(&format!("{x:?} and {y:?}, expected [..")), "{name}: {message}");
        }
        let empty = matmul(zeros([3, 0]), zeros([0, 2]), Form::Plain).unwrap();
        assert_eq!(float_values(empty).unwrap(), [0.0; 6], "{name}");
        let limits = Limits { max_binding_bytes: 63, max_workgroups: 65_535 };
        let error = with_limits(limits, || matmul(zeros([1, 4]), zeros([4, 4]), Form::Plain).unwrap_err());
        assert!(matches!(&error, OpError::TooLarge(e) if e.tensor == "matmul: y" && e.bytes == 64), "{name}: {error}");
    }
}
