//! Weights of a model in training. Each tensor of a checkpoint is a parameter that tracks gradients.

use std::borrow::Cow;
use std::collections::BTreeMap;

use burn::prelude::*;
use burn::tensor::Gradients;

use crate::ops::{OpError, float_tensor, float_values};
use crate::training::AdamW;
use crate::weights::{Dtype, HostTensor, Inventory, StateDict, TensorSource, WeightsError};

/// Learning rate and decay of one parameter in a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Factor on AdamW's direction.
    pub learning_rate: f64,
    /// Share of the parameter that the step takes away, per unit of `learning_rate`.
    pub weight_decay: f64,
}

#[derive(Clone, Debug)]
struct Parameter {
    shape: Vec<usize>,
    dtype_in_file: Dtype,
    /// Values in row-major order, flat. They track gradients.
    values: Tensor<1>,
}

/// Named parameters on an autodiff device, each flat in the checkpoint's layout.
///
/// As a [`TensorSource`], they return the [`parameter`](TensorSource::parameter) of a key any number of
/// times. A model loads its weights from them by differentiable operations, so gradients of its output reach
/// the parameters. A loaded model keeps the values of that moment. So drop it before each step and load it
/// again afterwards; then the step works in place.
#[derive(Clone, Debug)]
pub struct Parameters {
    parameters: BTreeMap<String, Parameter>,
    /// The rest of the state, without floating-point tensors.
    rest: StateDict,
    device: Device,
}

impl Parameters {
    /// Puts every floating-point tensor of `state` on `device`, with autodiff. The others are kept as they
    /// are.
    #[must_use]
    pub fn new(mut state: StateDict, device: &Device) -> Self {
        let device = if device.is_autodiff() { device.clone() } else { device.clone().autodiff() };
        let parameters =
            std::mem::take(&mut state.tensors).into_iter().map(|(key, HostTensor { shape, dtype_in_file, data })| {
                let len = data.len();
                let values = float_tensor(data, [len], &device).require_grad();
                (key, Parameter { shape, dtype_in_file, values })
            });
        Self { parameters: parameters.collect(), rest: state, device }
    }

    /// Returns the autodiff device. The model is loaded for this device, and its inputs must be on it.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Returns the number of values in all parameters.
    #[must_use]
    pub fn num_values(&self) -> usize {
        self.parameters.values().map(|parameter| parameter.values.dims()[0]).sum()
    }

    /// Returns keys and shapes of the parameters, in the order of the keys.
    pub fn shapes(&self) -> impl Iterator<Item = (&str, &[usize])> {
        self.parameters.iter().map(|(key, parameter)| (key.as_str(), parameter.shape.as_slice()))
    }

    /// Returns keys and values of the parameters, flat and without autodiff, in the order of the keys.
    pub fn values(&self) -> impl Iterator<Item = (&str, Tensor<1>)> {
        self.parameters.iter().map(|(key, parameter)| (key.as_str(), parameter.values.clone().inner()))
    }

    /// Replaces the values of the parameter `key`. For values that follow from the data, as the running statistics of
    /// a batch norm do: they have no gradient, and no step changes them.
    ///
    /// # Errors
    /// [`WeightsError`] if there is no such parameter, or of another length.
    pub fn put(&mut self, key: &str, values: Tensor<1>) -> Result<(), WeightsError> {
        let shape = values.dims().to_vec();
        self.find(key, &shape)?;
        if let Some(parameter) = self.parameters.get_mut(key) {
            parameter.values = Tensor::from_inner(values).require_grad();
        }
        Ok(())
    }

    /// Takes the gradient of every parameter out of `gradients`, flat and without autodiff. A parameter that
    /// the differentiated value does not depend on has no gradient.
    #[must_use]
    pub fn gradients(&self, gradients: &mut Gradients) -> BTreeMap<String, Tensor<1>> {
        let gradient =
            |(key, parameter): (&String, &Parameter)| Some((key.clone(), parameter.values.grad_remove(gradients)?));
        self.parameters.iter().filter_map(gradient).collect()
    }

    /// Takes one step of `optimizer` along `gradients`, at the rate that `rate_of` returns for each key. A
    /// parameter without a gradient is left alone, without decay too. So is a gradient without a parameter.
    ///
    /// # Errors
    /// As [`AdamW::update`]. Then the parameters before the failed one have moved, and those after it are
    /// unchanged. The failed one is NaN, because values have a single owner and are changed in place.
    pub fn step(
        &mut self,
        mut gradients: BTreeMap<String, Tensor<1>>,
        optimizer: &mut AdamW,
        rate_of: impl Fn(&str) -> Rate,
    ) -> Result<(), OpError> {
        optimizer.begin_step();
        for (key, parameter) in &mut self.parameters {
            let Some(gradient) = gradients.remove(key) else {
                continue;
            };
            let Rate { learning_rate, weight_decay } = rate_of(key);
            let len = parameter.values.dims();
            let values = std::mem::replace(&mut parameter.values, Tensor::zeros([0], &self.device)).inner();
            let stepped = optimizer.update_with_decay(key, values, gradient, learning_rate, weight_decay);
            let (values, result) = match stepped {
                Ok(values) => (values, Ok(())),
                Err(error) => (Tensor::full(len, f32::NAN, &self.device.clone().without_autodiff()), Err(error)),
            };
            parameter.values = Tensor::from_inner(values).require_grad();
            result?;
        }
        Ok(())
    }

    /// Returns the current values as f32, under the keys and in the shapes of the checkpoint, together with
    /// the rest of the state that [`new`](Self::new) was given. Waits for the device.
    ///
    /// # Errors
    /// [`OpError::Device`] if the values cannot be read back.
    pub fn state_dict(&self) -> Result<StateDict, OpError> {
        let host = |(key, parameter): (&String, &Parameter)| {
            let data = float_values(parameter.values.clone().inner())?;
            Ok((key.clone(), HostTensor { shape: parameter.shape.clone(), dtype_in_file: Dtype::F32, data }))
        };
        let tensors = self.parameters.iter().map(host).collect::<Result<_, OpError>>()?;
        Ok(StateDict { tensors, ..self.rest.clone() })
    }

    /// Returns the parameter `key`, which must have exactly `shape`.
    fn find(&self, key: &str, shape: &[usize]) -> Result<&Parameter, WeightsError> {
        let (path, owned) = (self.rest.source.clone(), key.to_owned());
        match (self.parameters.get(key), self.rest.integers.get(key)) {
            (Some(parameter), _) if parameter.shape == shape => Ok(parameter),
            (Some(parameter), _) => {
                let (expected, found) = (shape.to_vec(), parameter.shape.clone());
                Err(WeightsError::Shape { path, key: owned, expected, found })
            }
            (None, Some(tensor)) => {
                let (expected, found) = ("a floating-point type", tensor.dtype_in_file);
                Err(WeightsError::WrongDtype { path, key: owned, expected, found })
            }
            (None, None) => {
                let hint = format!("there are {} parameters", self.parameters.len());
                Err(WeightsError::MissingKey { path, key: owned, hint })
            }
        }
    }
}

impl TensorSource for Parameters {
    fn inventory(&self) -> Cow<'_, Inventory> {
        self.rest.inventory_with(self.parameters.iter().map(|(key, p)| (key, &p.shape, p.dtype_in_file)))
    }

    fn take(&mut self, key: &str, shape: &[usize]) -> Result<HostTensor, WeightsError> {
        let Parameter { shape, dtype_in_file, values } = self.find(key, shape)?;
        let data = float_values(values.clone().inner()).map_err(|error| WeightsError::Extent {
            path: self.rest.source.clone(),
            key: key.to_owned(),
            reason: error.to_string(),
        })?;
        Ok(HostTensor { shape: shape.clone(), dtype_in_file: *dtype_in_file, data })
    }

    fn parameter(&mut self, key: &str, shape: &[usize]) -> Result<Option<Tensor<1>>, WeightsError> {
        Ok(Some(self.find(key, shape)?.values.clone()))
    }
}
