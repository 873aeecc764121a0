//! Sparse convolutions followed by a batch norm, which the student and MinkUNet are made of: loaded, trained, exported,
//! and folded for inference.

use burn::prelude::*;
use burn::tensor::Gradients;

use crate::ops::batch_norm::{BatchNormed, batch_norm};
use crate::ops::{OpError, float_tensor, float_values, plain};
use crate::random::SplitMix64;
use crate::weights::{Dtype, HostTensor, IntTensor, StateDict, TensorSource, WeightsError};

/// Batch norm's ε, as in the reference.
const EPSILON: f64 = 1e-5;

/// Weight of a new batch in the running statistics, PyTorch's default.
const MOMENTUM: f64 = 0.1;

/// Number of the random stream that draws the weights.
const WEIGHTS: u64 = 0;

/// A convolution and its norm in a checkpoint.
#[derive(Clone, Debug)]
pub(super) struct ConvKeys {
    /// Key of the kernel.
    pub(super) kernel: String,
    /// Prefix of the norm's keys.
    pub(super) norm: String,
    /// Cells, inputs and outputs. The reference stores a kernel of one cell as a matrix.
    pub(super) shape: [usize; 3],
}

/// Names of a batch norm's tensors below its prefix.
const NORM_TENSORS: [&str; 4] = ["weight", "bias", "running_mean", "running_var"];

impl ConvKeys {
    /// Shape of the kernel in the checkpoint.
    fn kernel_shape(&self) -> Vec<usize> {
        let [volume, num_in, num_out] = self.shape;
        if volume == 1 { vec![num_in, num_out] } else { self.shape.to_vec() }
    }

    /// Every key with its shape, in the checkpoint's order.
    pub(super) fn shapes(&self) -> impl Iterator<Item = (String, Vec<usize>)> {
        let [_, _, num_out] = self.shape;
        let of_norm = NORM_TENSORS.map(|name| (format!("{}.{name}", self.norm), vec![num_out]));
        std::iter::once((self.kernel.clone(), self.kernel_shape())).chain(of_norm)
    }
}

/// Parameters and running statistics of a batch norm. The statistics are never on an autodiff device.
#[derive(Clone, Debug)]
pub(super) struct BatchNorm {
    weight: Tensor<1>,
    bias: Tensor<1>,
    running_mean: Tensor<1>,
    running_var: Tensor<1>,
}

/// A convolution without bias, and its batch norm. On an autodiff device its parameters track gradients.
#[derive(Clone, Debug)]
pub(super) struct ConvNorm {
    /// `[K, in, out]`.
    pub(super) kernel: Tensor<3>,
    bn: BatchNorm,
}

/// A convolution with its norm folded in.
#[derive(Clone, Debug)]
pub(super) struct FoldedConv {
    /// `[K, in, out]`.
    pub(super) kernel: Tensor<3>,
    /// `[out]`.
    pub(super) bias: Tensor<1>,
}

impl ConvNorm {
    /// Takes the tensors of a checkpoint.
    pub(super) fn load(
        weights: &mut impl TensorSource,
        keys: &ConvKeys,
        device: &Device,
    ) -> Result<Self, WeightsError> {
        let inner = device.clone().without_autodiff();
        let [_, _, num_out] = keys.shape;
        let key = |name: &str| format!("{}.{name}", keys.norm);
        let mut statistic = |name: &str| -> Result<Tensor<1>, WeightsError> {
            Ok(float_tensor(weights.take(&key(name), &[num_out])?.data, [num_out], &inner))
        };
        let (running_mean, running_var) = (statistic("running_mean")?, statistic("running_var")?);
        let weight = learnable(weights, &key("weight"), &[num_out], [num_out], device)?;
        let bias = learnable(weights, &key("bias"), &[num_out], [num_out], device)?;
        let kernel = learnable(weights, &keys.kernel, &keys.kernel_shape(), keys.shape, device)?;
        Ok(Self { kernel, bn: BatchNorm { weight, bias, running_mean, running_var } })
    }

    /// An untrained layer: the kernel [drawn](draw_kernel), scales 1, shifts 0, running means 0 and variances 1.
    pub(super) fn new([seed, stream]: [u64; 2], shape: [usize; 3], device: &Device) -> Self {
        let inner = device.clone().without_autodiff();
        let [volume, num_in, num_out] = shape;
        let vector = |value: f32, device: &Device| float_tensor(vec![value; num_out], [num_out], device);
        let values = draw_kernel([seed, stream], volume * num_in, num_out);
        Self {
            kernel: parameter(float_tensor(values, shape, device)),
            bn: BatchNorm {
                weight: parameter(vector(1.0, device)),
                bias: parameter(vector(0.0, device)),
                running_mean: vector(0.0, &inner),
                running_var: vector(1.0, &inner),
            },
        }
    }

    /// The layer for inference, without autodiff: the running statistics are folded into kernel and bias.
    pub(super) fn fold(&self) -> FoldedConv {
        let BatchNorm { weight, bias, running_mean, running_var } = self.bn.clone();
        let scale = plain(weight) / (running_var + EPSILON).sqrt();
        let bias = plain(bias) - running_mean * scale.clone();
        let [_, _, num_out] = self.kernel.dims();
        FoldedConv { kernel: plain(self.kernel.clone()) * scale.reshape([1, 1, num_out]), bias }
    }

    /// The norm as in training: by the mean and variance of the rows of `x`, the convolution's result.
    pub(super) fn norm(&self, x: Tensor<2>, added: Option<Tensor<2>>, relu: bool) -> Result<BatchNormed, OpError> {
        batch_norm(x, added, self.bn.weight.clone(), self.bn.bias.clone(), EPSILON as f32, relu)
    }

    /// Moves the running statistics a tenth of the way to those of a batch.
    pub(super) fn follow(&mut self, mean: Tensor<1>, unbiased_variance: Tensor<1>) {
        let BatchNorm { running_mean, running_var, .. } = &mut self.bn;
        *running_mean = running_mean.clone() * (1.0 - MOMENTUM) + mean * MOMENTUM;
        *running_var = running_var.clone() * (1.0 - MOMENTUM) + unbiased_variance * MOMENTUM;
    }

    /// The running statistics, by their keys.
    pub(super) fn running(&self, keys: &ConvKeys) -> [(String, Tensor<1>); 2] {
        let BatchNorm { running_mean, running_var, .. } = &self.bn;
        [("running_mean", running_mean), ("running_var", running_var)]
            .map(|(name, values)| (format!("{}.{name}", keys.norm), values.clone()))
    }

    /// [Replaces](replace) the kernel, the scales and the shifts, in this order, by what `step` makes of them.
    pub(super) fn update<E>(
        &mut self,
        keys: &ConvKeys,
        gradients: &mut Gradients,
        mut step: impl FnMut(&str, Tensor<1>, Tensor<1>) -> Result<Tensor<1>, E>,
    ) -> Result<(), E> {
        replace(&mut self.kernel, gradients, |values, gradient| step(&keys.kernel, values, gradient))?;
        for (name, vector) in [("weight", &mut self.bn.weight), ("bias", &mut self.bn.bias)] {
            let key = format!("{}.{name}", keys.norm);
            replace(vector, gradients, |values, gradient| step(&key, values, gradient))?;
        }
        Ok(())
    }

    /// Writes the tensors into `state`, with the number of training steps.
    pub(super) fn export(&self, keys: &ConvKeys, num_batches: u64, state: &mut StateDict) -> Result<(), OpError> {
        let kernel = HostTensor { shape: keys.kernel_shape(), ..host(&self.kernel)? };
        state.tensors.insert(keys.kernel.clone(), kernel);
        let BatchNorm { weight, bias, running_mean, running_var } = &self.bn;
        for (name, vector) in NORM_TENSORS.iter().zip([weight, bias, running_mean, running_var]) {
            state.tensors.insert(format!("{}.{name}", keys.norm), host(vector)?);
        }
        let count = IntTensor {
            shape: Vec::new(),
            dtype_in_file: Dtype::I64,
            data: vec![i64::try_from(num_batches).unwrap_or(i64::MAX)],
        };
        state.integers.insert(format!("{}.num_batches_tracked", keys.norm), count);
        Ok(())
    }
}

/// Values of an untrained kernel of `fan_in` rows and `num_out` columns, as the reference draws them: uniform in ±1 /
/// √`fan_in`. They depend on the seed and the number of the kernel alone.
pub(super) fn draw_kernel([seed, stream]: [u64; 2], fan_in: usize, num_out: usize) -> Vec<f32> {
    let mut random = SplitMix64::stream(seed, &[WEIGHTS, stream]);
    let bound = 1.0 / (fan_in as f64).sqrt();
    (0..fan_in * num_out).map(|_| (bound * (2.0 * random.unit() - 1.0)) as f32).collect()
}

/// Takes a tensor of `shape` from a source. If the source has it as a parameter in training, gradients flow to it.
pub(super) fn learnable<const D: usize>(
    weights: &mut impl TensorSource,
    key: &str,
    shape_in_file: &[usize],
    shape: [usize; D],
    device: &Device,
) -> Result<Tensor<D>, WeightsError> {
    Ok(match weights.parameter(key, shape_in_file)? {
        Some(values) => values.reshape(shape),
        None => parameter(float_tensor(weights.take(key, shape_in_file)?.data, shape, device)),
    })
}

/// Makes a tensor track gradients if the device does.
pub(super) fn parameter<const D: usize>(tensor: Tensor<D>) -> Tensor<D> {
    if tensor.device().is_autodiff() { tensor.require_grad() } else { tensor }
}

/// Replaces a parameter by the result of `step`, which receives its values and its gradient, both flat and without
/// autodiff. The gradient is taken out of `gradients`; without one the parameter is not changed. After an error it is
/// NaN, because values have a single owner so that they can be changed in place.
pub(super) fn replace<const D: usize, E>(
    tensor: &mut Tensor<D>,
    gradients: &mut Gradients,
    step: impl FnOnce(Tensor<1>, Tensor<1>) -> Result<Tensor<1>, E>,
) -> Result<(), E> {
    let Some(gradient) = tensor.grad_remove(gradients) else {
        return Ok(());
    };
    let (shape, device) = (tensor.dims(), tensor.device());
    let values = std::mem::replace(tensor, Tensor::zeros([0; D], &device)).inner();
    let len = shape.iter().product::<usize>();
    let stepped = step(values.reshape([len]), gradient.reshape([len]));
    let (values, result) = match stepped {
        Ok(values) => (values.reshape(shape), Ok(())),
        Err(error) => (Tensor::full(shape, f32::NAN, &device.without_autodiff()), Err(error)),
    };
    *tensor = parameter(Tensor::from_inner(values));
    result
}

/// Reads a parameter back.
pub(super) fn host<const D: usize>(tensor: &Tensor<D>) -> Result<HostTensor, OpError> {
    let (shape, data) = (tensor.dims().to_vec(), float_values(plain(tensor.clone()))?);
    Ok(HostTensor { shape, dtype_in_file: Dtype::F32, data })
}
