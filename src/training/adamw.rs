//! AdamW with three learning rates, as for the student.

use std::collections::BTreeMap;

use burn::tensor::{Device, Gradients, Tensor};

use super::schedule::{Group, Schedule};
use crate::models::student::AffinityPredictor;
use crate::ops::adamw::{Step, Stepped, adamw};
use crate::ops::{OpError, float_tensor, float_values};

/// Constants of AdamW.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWConfig {
    /// Decay rate of the mean of gradients.
    pub beta1: f64,
    /// Decay rate of the mean of squared gradients.
    pub beta2: f64,
    /// Added to the denominator to keep it above zero.
    pub epsilon: f64,
    /// Weight decay: a step subtracts this share of every parameter, times the learning rate.
    pub weight_decay: f64,
}

impl Default for AdamWConfig {
    /// PyTorch's defaults, with the published weight decay of 1e-5.
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 1e-5 }
    }
}

/// Moments of a parameter in host memory, flat.
#[derive(Clone, Debug, PartialEq)]
pub struct HostMoments {
    /// Running mean of the gradient.
    pub exp_avg: Vec<f32>,
    /// Running mean of the squared gradient, of the same length.
    pub exp_avg_sq: Vec<f32>,
}

/// State of an optimizer. Together with the parameters it lets a run resume with equal results to the bit.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AdamWState {
    /// Number of steps taken.
    pub num_steps: u64,
    /// Moments by parameter key.
    pub moments: BTreeMap<String, HostMoments>,
}

#[derive(Clone, Debug)]
struct Moments {
    exp_avg: Tensor<1>,
    exp_avg_sq: Tensor<1>,
}

/// AdamW (Loshchilov and Hutter, 2019) with PyTorch's arithmetic. Decoupled weight decay applies to every
/// parameter, batch norms included. Bias corrections are in f64.
#[derive(Clone, Debug)]
pub struct AdamW {
    config: AdamWConfig,
    num_steps: u64,
    moments: BTreeMap<String, Moments>,
}

impl AdamW {
    /// Makes an optimizer before its first step.
    #[must_use]
    pub fn new(config: AdamWConfig) -> Self {
        Self { config, num_steps: 0, moments: BTreeMap::new() }
    }

    /// Restores an optimizer from an exported `state`. Its moments go to `device`.
    ///
    /// # Errors
    /// [`OpError::Value`] if the two moments of a parameter differ in length.
    pub fn resume(config: AdamWConfig, state: AdamWState, device: &Device) -> Result<Self, OpError> {
        let device = device.clone().without_autodiff();
        let mut moments = BTreeMap::new();
        for (key, HostMoments { exp_avg, exp_avg_sq }) in state.moments {
            let len = exp_avg.len();
            if exp_avg_sq.len() != len {
                let message = format!("{key} has {len} means of gradients and {} of their squares", exp_avg_sq.len());
                return Err(OpError::Value { op: "adamw", message });
            }
            let upload = |values| float_tensor(values, [len], &device);
            moments.insert(key, Moments { exp_avg: upload(exp_avg), exp_avg_sq: upload(exp_avg_sq) });
        }
        Ok(Self { config, num_steps: state.num_steps, moments })
    }

    /// State for [`resume`](Self::resume). Waits for the device.
    ///
    /// # Errors
    /// [`OpError::Device`] if the moments cannot be read back.
    pub fn state(&self) -> Result<AdamWState, OpError> {
        let host = |(key, moments): (&String, &Moments)| {
            let exp_avg = float_values(moments.exp_avg.clone())?;
            Ok((key.clone(), HostMoments { exp_avg, exp_avg_sq: float_values(moments.exp_avg_sq.clone())? }))
        };
        let moments = self.moments.iter().map(host).collect::<Result<_, OpError>>()?;
        Ok(AdamWState { num_steps: self.num_steps, moments })
    }

    /// Number of steps taken.
    #[must_use]
    pub fn num_steps(&self) -> u64 {
        self.num_steps
    }

    /// Takes a step along `gradients`, which are removed, with the learning rates of `schedule` in
    /// `iteration`.
    ///
    /// # Errors
    /// The same as [`update`](Self::update). See [`AffinityPredictor::update`] for the state of the student
    /// after an error.
    pub fn step(
        &mut self,
        student: &mut AffinityPredictor,
        gradients: &mut Gradients,
        schedule: &Schedule,
        iteration: u64,
    ) -> Result<(), OpError> {
        self.begin_step();
        student.update(gradients, |key, values, gradient| {
            self.update(key, values, gradient, schedule.rate(iteration, Group::of(key)))
        })
    }

    /// Counts a step. Call it before the [`update`](Self::update) of its parameters.
    pub fn begin_step(&mut self) {
        self.num_steps += 1;
    }

    /// Returns the new values of the parameter `key`; all tensors are `[N]`. Its moments start at 0. Values
    /// without another owner are changed in place on the host.
    ///
    /// # Errors
    /// [`OpError::Shape`] if the gradient or the moments have another length; [`OpError::TooLarge`] if they
    /// do not fit the device.
    pub fn update(
        &mut self,
        key: &str,
        values: Tensor<1>,
        gradient: Tensor<1>,
        rate: f64,
    ) -> Result<Tensor<1>, OpError> {
        self.update_with_decay(key, values, gradient, rate, self.config.weight_decay)
    }

    /// The same as [`update`](Self::update), with a separate weight decay for this parameter.
    ///
    /// # Errors
    /// The same as [`update`](Self::update).
    pub fn update_with_decay(
        &mut self,
        key: &str,
        values: Tensor<1>,
        gradient: Tensor<1>,
        rate: f64,
        weight_decay: f64,
    ) -> Result<Tensor<1>, OpError> {
        let AdamWConfig { beta1, beta2, epsilon, .. } = self.config;
        let num_steps = self.num_steps.max(1) as f64;
        let correction = |beta: f64| 1.0 - beta.powf(num_steps);
        let step = Step {
            keep: (1.0 - rate * weight_decay) as f32,
            one_minus_beta1: (1.0 - beta1) as f32,
            beta2: beta2 as f32,
            one_minus_beta2: (1.0 - beta2) as f32,
            step_size: (rate / correction(beta1)) as f32,
            sqrt_correction2: correction(beta2).sqrt() as f32,
            epsilon: epsilon as f32,
        };
        let Moments { exp_avg, exp_avg_sq } = self.moments.remove(key).unwrap_or_else(|| {
            let zeros = || Tensor::zeros(values.dims(), &values.device().without_autodiff());
            Moments { exp_avg: zeros(), exp_avg_sq: zeros() }
        });
        let Stepped { param, exp_avg, exp_avg_sq } =
            adamw(Stepped { param: values, exp_avg, exp_avg_sq }, gradient, step)?;
        self.moments.insert(key.to_owned(), Moments { exp_avg, exp_avg_sq });
        Ok(param)
    }
}
