//! The weights of a model in training: every tensor of a checkpoint as a parameter that tracks gradients.

use std::borrow::Cow;
use std::collections::BTreeMap;

use burn::prelude::*;
use burn::tensor::Gradients;

use crate::ops::{OpError, float_tensor, float_values};
use crate::training::AdamW;
use crate::weights::{Dtype, HostTensor, Inventory, StateDict, TensorSource, WeightsError};

/// How far one parameter moves in a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Factor of AdamW's direction.
    pub learning_rate: f64,
    /// Share of the parameter, times `learning_rate`, that the step takes away.
    pub weight_decay: f64,
}

#[derive(Clone, Debug)]
struct Parameter {
    shape: Vec<usize>,
    dtype_in_file: Dtype,
    /// Row-major, flat; tracks gradients.
    values: Tensor<1>,
}

/// Named parameters on an autodiff device, each flat in the checkpoint's layout.
///
/// As a [`TensorSource`] they give [`parameter`](TensorSource::parameter) for every key, any number of times: what a
/// model loads from them is made by differentiable operations, so that a gradient of the model's output reaches the
/// parameters. A model that was loaded keeps the values of then: it is loaded anew after every step, and dropped
/// before, so that the step can be taken in place.
#[derive(Clone, Debug)]
pub struct Parameters {
    parameters: BTreeMap<String, Parameter>,
    /// What was given beside them; it has no floating-point tensors.
    rest: StateDict,
    device: Device,
}

impl Parameters {
    /// Every floating-point tensor of `state` on `device`, with autodiff; the others are kept as they are.
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

    /// The autodiff device: the model is loaded for it, and its inputs must be on it.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Values of all parameters together.
    #[must_use]
    pub fn num_values(&self) -> usize {
        self.parameters.values().map(|parameter| parameter.values.dims()[0]).sum()
    }

    /// Keys and shapes of the parameters, in the order of the keys.
    pub fn shapes(&self) -> impl Iterator<Item = (&str, &[usize])> {
        self.parameters.iter().map(|(key, parameter)| (key.as_str(), parameter.shape.as_slice()))
    }

    /// Keys and values of the parameters, flat and without autodiff, in the order of the keys.
    pub fn values(&self) -> impl Iterator<Item = (&str, Tensor<1>)> {
        self.parameters.iter().map(|(key, parameter)| (key.as_str(), parameter.values.clone().inner()))
    }

    /// Takes the gradient of every parameter out of `gradients`, flat and without autodiff. A parameter that the
    /// differentiated value does not depend on has none.
    #[must_use]
    pub fn gradients(&self, gradients: &mut Gradients) -> BTreeMap<String, Tensor<1>> {
        let gradient =
            |(key, parameter): (&String, &Parameter)| Some((key.clone(), parameter.values.grad_remove(gradients)?));
        self.parameters.iter().filter_map(gradient).collect()
    }

    /// One step of `optimizer` along `gradients`, at the rate that `rate_of` gives for every key. A parameter
    /// without a gradient is left alone, its decay included; a gradient without a parameter too.
    ///
    /// # Errors
    /// As [`AdamW::update`]. The parameters before have then moved and the one under way is NaN, for values have one
    /// owner, so that they can be changed in place; those behind are as they were.
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

    /// The values as they are now, under the keys and in the shapes of the checkpoint, as f32, with what
    /// [`new`](Self::new) was given beside the parameters. Waits for the device.
    ///
    /// # Errors
    /// [`OpError::Device`] where the values cannot be read back.
    pub fn state_dict(&self) -> Result<StateDict, OpError> {
        let host = |(key, parameter): (&String, &Parameter)| {
            let data = float_values(parameter.values.clone().inner())?;
            Ok((key.clone(), HostTensor { shape: parameter.shape.clone(), dtype_in_file: Dtype::F32, data }))
        };
        let tensors = self.parameters.iter().map(host).collect::<Result<_, OpError>>()?;
        Ok(StateDict { tensors, ..self.rest.clone() })
    }

    /// The parameter `key`, which must have exactly `shape`.
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
