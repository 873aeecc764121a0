//! Comparison of gradients with burn's own of a composition of its operations.

use burn::prelude::*;
use burn::tensor::Device;
use geopurify::ops::{float_tensor, float_values};

use crate::common::{Random, devices, rel_l2};

/// The values of a function of flat tensors and, of those it is `tracked` in, the gradients of their weighted sum.
pub(crate) fn gradients(
    run: &dyn Fn(&[Tensor<1>]) -> Tensor<1>,
    inputs: &[Vec<f32>],
    tracked: &[bool],
    device: &Device,
) -> (Vec<f32>, Vec<Option<Vec<f32>>>) {
    let autodiff = device.clone().autodiff();
    let tensors: Vec<_> = inputs
        .iter()
        .zip(tracked)
        .map(|(values, tracked)| match tracked {
            true => float_tensor(values.clone(), [values.len()], &autodiff).require_grad(),
            false => float_tensor(values.clone(), [values.len()], device),
        })
        .collect();
    let out = run(&tensors);
    let values = float_values(out.clone().inner()).unwrap();
    let factors = float_tensor(Random(9).floats(values.len()), [values.len()], &autodiff);
    let grads = (out * factors).sum().backward();
    let of = |tensor: &Tensor<1>| float_values(tensor.grad(&grads).expect("a gradient")).unwrap();
    (values, tensors.iter().zip(tracked).map(|(tensor, tracked)| tracked.then(|| of(tensor))).collect())
}

/// Compares an operation with a composition: all inputs tracked, and each alone beside plain ones.
pub(crate) fn check_gradients(
    what: &str,
    names: &[&str],
    lens: &[usize],
    run: &dyn Fn(&[Tensor<1>]) -> Tensor<1>,
    composed: &dyn Fn(&[Tensor<1>]) -> Tensor<1>,
) {
    let mut rng = Random(lens.iter().sum::<usize>() as u64);
    let inputs: Vec<_> = lens.iter().map(|&len| rng.floats(len).iter().map(|x| x + 0.25).collect()).collect();
    let all = vec![true; inputs.len()];
    let (expected, expected_grads) = gradients(composed, &inputs, &all, &Device::flex());
    for (name, device) in devices() {
        let plain: Vec<_> =
            inputs.iter().map(|values: &Vec<f32>| float_tensor(values.clone(), [values.len()], &device)).collect();
        let plain = run(&plain);
        assert!(!plain.device().is_autodiff(), "{what} on {name}: plain in, plain out");
        let (values, grads) = gradients(run, &inputs, &all, &device);
        assert_eq!(float_values(plain).unwrap(), values, "{what} on {name}: tracking changes the result");
        assert!(rel_l2(&values, &expected) < 1e-5, "{what} on {name}: result");
        for ((part, grad), expected) in names.iter().zip(&grads).zip(&expected_grads) {
            let off = rel_l2(grad.as_ref().unwrap(), expected.as_ref().unwrap());
            assert!(off < 2e-5, "{what} on {name}: gradient of {part} is off by {off}");
        }
        assert_eq!(gradients(run, &inputs, &all, &device).1, grads, "{what} on {name}: a second run differs");
        for alone in 0..inputs.len() {
            let tracked: Vec<_> = (0..inputs.len()).map(|i| i == alone).collect();
            let grad = &gradients(run, &inputs, &tracked, &device).1[alone];
            assert_eq!(*grad, grads[alone], "{what} on {name}: {} alone", names[alone]);
        }
    }
}

pub(crate) fn flat<const D: usize>(x: Tensor<D>) -> Tensor<1> {
    let len = x.shape().num_elements();
    x.reshape([len])
}

/// `weight [k², C]`.
pub(crate) fn composed_depthwise(x: Tensor<4>, weight: Tensor<2>, kernel: usize) -> Tensor<4> {
    let ([batch, height, width, dim], reach) = (x.dims(), kernel / 2);
    let above = Tensor::zeros([batch, reach, width, dim], &x.device());
    let x = Tensor::cat(vec![above.clone(), x, above], 1);
    let beside = Tensor::zeros([batch, height + 2 * reach, reach, dim], &x.device());
    let x = Tensor::cat(vec![beside.clone(), x, beside], 2);
    (0..kernel * kernel)
        .map(|tap| {
            let seen = x.clone().narrow(1, tap / kernel, height).narrow(2, tap % kernel, width);
            seen * weight.clone().narrow(0, tap, 1).reshape([1, 1, 1, dim])
        })
        .reduce(|a, b| a + b)
        .expect("a tap")
}
