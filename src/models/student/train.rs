//! Training of the student: initial weights, forward pass with batch statistics, access to parameters by
//! name, and export under the reference's keys.

use burn::prelude::*;
use burn::tensor::Gradients;

use super::config::{KERNEL_VOLUME, NUM_BLOCKS};
use super::{AffinityPredictor, BatchNorm, ConvNorm, EPSILON, ResidualBlock, StudentConfig, parameter};
use crate::ops::batch_norm::{BatchNormed, batch_norm};
use crate::ops::kernel_map::kernel_map;
use crate::ops::matmul::{Form, matmul};
use crate::ops::sparse_conv::sparse_conv;
use crate::ops::{OpError, float_tensor, float_values};
use crate::random::SplitMix64;
use crate::weights::{Dtype, HostTensor, IntTensor, StateDict};

/// Weight of a new batch in the running statistics, PyTorch's default.
const MOMENTUM: f64 = 0.1;

/// Number of the random stream that draws the weights.
const WEIGHTS: u64 = 0;

/// A parameter of one rank, mutable.
enum ParameterMut<'a> {
    Vector(&'a mut Tensor<1>),
    Matrix(&'a mut Tensor<2>),
    Kernel(&'a mut Tensor<3>),
}

impl AffinityPredictor {
    /// Creates an untrained student, initialized as in the reference: kernels uniform in ±1 / √(inputs ·
    /// cells of the kernel), scales 1, shifts 0, running means 0 and variances 1. The values depend on `seed`
    /// alone, with one random stream for each kernel in the checkpoint's order.
    #[must_use]
    pub fn new(config: &StudentConfig, seed: u64, device: &Device) -> Self {
        let inner = device.clone().without_autodiff();
        let (hidden, mut stream) = (config.hidden_dim, 0);
        let mut uniform = |len: usize, fan_in: usize| -> Vec<f32> {
            let mut random = SplitMix64::stream(seed, &[WEIGHTS, stream]);
            stream += 1;
            let bound = 1.0 / (fan_in as f64).sqrt();
            (0..len).map(|_| (bound * (2.0 * random.unit() - 1.0)) as f32).collect()
        };
        let mut layer = |num_in: usize| {
            let values = uniform(KERNEL_VOLUME * num_in * hidden, KERNEL_VOLUME * num_in);
            let vector = |value: f32, device: &Device| float_tensor(vec![value; hidden], [hidden], device);
            ConvNorm {
                kernel: parameter(float_tensor(values, [KERNEL_VOLUME, num_in, hidden], device)),
                bn: BatchNorm {
                    weight: parameter(vector(1.0, device)),
                    bias: parameter(vector(0.0, device)),
                    running_mean: vector(0.0, &inner),
                    running_var: vector(1.0, &inner),
                },
            }
        };
        let input_layer = layer(config.input_dim);
        let res_blocks =
            (0..NUM_BLOCKS).map(|_| ResidualBlock { first: layer(hidden), second: layer(hidden) }).collect();
        let output = uniform(hidden * config.embed_dim, hidden);
        let output_layer = parameter(float_tensor(output, [hidden, config.embed_dim], device));
        Self { input_layer, res_blocks, output_layer, num_batches_tracked: 0 }
    }

    /// Returns the student's widths.
    #[must_use]
    pub fn config(&self) -> StudentConfig {
        let ([_, input_dim, _], [hidden_dim, embed_dim]) = (self.input_layer.kernel.dims(), self.output_layer.dims());
        StudentConfig { input_dim, hidden_dim, embed_dim }
    }

    /// Returns the number of training steps in the running statistics.
    #[must_use]
    pub fn num_batches_tracked(&self) -> u64 {
        self.num_batches_tracked
    }

    /// Sets the number of training steps, for a resumed run.
    pub fn set_num_batches_tracked(&mut self, num_batches: u64) {
        self.num_batches_tracked = num_batches;
    }

    /// Computes the embedding `[V, embed]` (not normalised) as in training. Batch norms use the mean and
    /// variance of these voxels, and their running statistics move a tenth of the way there (unbiased
    /// variance). `features [V, input]` and `coords [V, 4]` (batch, x, y, z; distinct, in any order) must be
    /// on the device of the parameters. On an autodiff device gradients flow to the parameters.
    ///
    /// # Errors
    /// [`OpError`] if shapes disagree, there are fewer than two voxels, or a layer does not fit the device.
    /// The running statistics are then unchanged.
    pub fn forward_train(&mut self, features: Tensor<2>, coords: Tensor<2, Int>) -> Result<Tensor<2>, OpError> {
        let map = kernel_map(coords, 3)?;
        let mut seen = Vec::with_capacity(1 + 2 * NUM_BLOCKS);
        let mut forward = |layer: &ConvNorm, x: Tensor<2>, identity: Option<Tensor<2>>| -> Result<_, OpError> {
            let x = sparse_conv(x, layer.kernel.clone(), None, map.clone())?;
            let (weight, bias) = (layer.bn.weight.clone(), layer.bn.bias.clone());
            let normed = batch_norm(x, identity, weight, bias, EPSILON as f32, true)?;
            let BatchNormed { y, mean, unbiased_variance } = normed;
            seen.push((mean, unbiased_variance));
            Ok(y)
        };
        let mut x = forward(&self.input_layer, features, None)?;
        for ResidualBlock { first, second } in &self.res_blocks {
            let hidden = forward(first, x.clone(), None)?;
            x = forward(second, hidden, Some(x))?;
        }
        for (layer, (mean, variance)) in self.layers_mut().zip(seen) {
            let BatchNorm { running_mean, running_var, .. } = &mut layer.bn;
            *running_mean = running_mean.clone() * (1.0 - MOMENTUM) + mean * MOMENTUM;
            *running_var = running_var.clone() * (1.0 - MOMENTUM) + variance * MOMENTUM;
        }
        self.num_batches_tracked += 1;
        matmul(x, self.output_layer.clone(), Form::Plain)
    }

    /// Replaces every parameter by the result of `step`. `step` receives the parameter's key, its values and
    /// its gradient, both flat and without autodiff, and returns as many new values. Parameters are visited
    /// in the checkpoint's order. Gradients are taken out of `gradients`; a parameter without one is not
    /// changed.
    ///
    /// # Errors
    /// The error of `step`. Earlier parameters have then been replaced, and later ones are unchanged. The
    /// current one is NaN, because values have a single owner so that they can be changed in place.
    pub fn update<E>(
        &mut self,
        gradients: &mut Gradients,
        mut step: impl FnMut(&str, Tensor<1>, Tensor<1>) -> Result<Tensor<1>, E>,
    ) -> Result<(), E> {
        fn replace<const D: usize, E>(
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
        self.try_for_each_parameter(|key, tensor| match tensor {
            ParameterMut::Vector(tensor) => replace(tensor, gradients, |values, grad| step(key, values, grad)),
            ParameterMut::Matrix(tensor) => replace(tensor, gradients, |values, grad| step(key, values, grad)),
            ParameterMut::Kernel(tensor) => replace(tensor, gradients, |values, grad| step(key, values, grad)),
        })
    }

    /// Returns the weights under the reference's keys, with the counts of training steps, as
    /// [`load`](Self::load) reads them.
    ///
    /// # Errors
    /// [`OpError::Device`] if the values cannot be read back.
    pub fn state_dict(&self) -> Result<StateDict, OpError> {
        fn host<const D: usize>(tensor: &Tensor<D>) -> Result<HostTensor, OpError> {
            let (shape, data) = (tensor.dims().to_vec(), float_values(super::plain(tensor.clone()))?);
            Ok(HostTensor { shape, dtype_in_file: Dtype::F32, data })
        }
        let mut state = StateDict::default();
        let count = IntTensor {
            shape: Vec::new(),
            dtype_in_file: Dtype::I64,
            data: vec![i64::try_from(self.num_batches_tracked).unwrap_or(i64::MAX)],
        };
        for ([kernel, norm], layer) in layer_keys().zip(self.layers()) {
            state.tensors.insert(kernel, host(&layer.kernel)?);
            let BatchNorm { weight, bias, running_mean, running_var } = &layer.bn;
            let vectors =
                [("weight", weight), ("bias", bias), ("running_mean", running_mean), ("running_var", running_var)];
            for (name, vector) in vectors {
                state.tensors.insert(format!("{norm}.{name}"), host(vector)?);
            }
            state.integers.insert(format!("{norm}.num_batches_tracked"), count.clone());
        }
        state.tensors.insert(OUTPUT_KEY.to_owned(), host(&self.output_layer)?);
        Ok(state)
    }

    fn layers(&self) -> impl Iterator<Item = &ConvNorm> {
        std::iter::once(&self.input_layer).chain(self.res_blocks.iter().flat_map(|block| [&block.first, &block.second]))
    }

    fn layers_mut(&mut self) -> impl Iterator<Item = &mut ConvNorm> {
        let blocks = self.res_blocks.iter_mut().flat_map(|block| [&mut block.first, &mut block.second]);
        std::iter::once(&mut self.input_layer).chain(blocks)
    }

    /// Calls `f` for every parameter in the checkpoint's order.
    fn try_for_each_parameter<E>(
        &mut self,
        mut f: impl FnMut(&str, ParameterMut<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        for ([kernel, norm], layer) in layer_keys().zip(self.layers_mut()) {
            f(&kernel, ParameterMut::Kernel(&mut layer.kernel))?;
            f(&format!("{norm}.weight"), ParameterMut::Vector(&mut layer.bn.weight))?;
            f(&format!("{norm}.bias"), ParameterMut::Vector(&mut layer.bn.bias))?;
        }
        f(OUTPUT_KEY, ParameterMut::Matrix(&mut self.output_layer))
    }
}

/// Key of the last layer's kernel.
const OUTPUT_KEY: &str = "output_layer.kernel";

/// Returns, for every layer with a batch norm, the key of its kernel and the prefix of its norm.
fn layer_keys() -> impl Iterator<Item = [String; 2]> {
    let blocks = (0..NUM_BLOCKS).flat_map(|block| {
        [1, 2]
            .map(|half| [format!("res_blocks.{block}.conv{half}.kernel"), format!("res_blocks.{block}.norm{half}.bn")])
    });
    std::iter::once(["input_layer.0.kernel".to_owned(), "input_layer.1.bn".to_owned()]).chain(blocks)
}
