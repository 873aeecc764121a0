//! AdamW with the three rates of the student.

use std::collections::BTreeMap;

use burn::tensor::{Device, Gradients, Tensor};

use super::schedule::{Group, Schedule};
use crate::models::student::AffinityPredictor;
use crate::ops::adamw::{Step, Stepped, adamw};
use crate::ops::{OpError, float_tensor, float_values};

/// The constants of AdamW.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWConfig {
    /// Decay of the mean of gradients.
    pub beta1: f64,
    /// Decay of the mean of squared gradients.
    pub beta2: f64,
    /// What keeps the denominator from zero.
    pub epsilon: f64,
    /// Share of every parameter, times the rate, that a step takes away.
    pub weight_decay: f64,
}

impl Default for AdamWConfig {
    /// PyTorch's defaults, with the published decay of 1e-5.
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 1e-5 }
    }
}

/// The moments of a parameter in host memory, flat.
#[derive(Clone, Debug, PartialEq)]
pub struct HostMoments {
    /// Running mean of the gradient.
    pub exp_avg: Vec<f32>,
    /// Running mean of the gradient's square, as long.
    pub exp_avg_sq: Vec<f32>,
}

/// All that an optimizer remembers: with the parameters, what resuming to the bit takes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AdamWState {
    /// Steps taken.
    pub num_steps: u64,
    /// Moments by the parameter's key.
    pub moments: BTreeMap<String, HostMoments>,
}

#[derive(Clone, Debug)]
struct Moments {
    exp_avg: Tensor<1>,
    exp_avg_sq: Tensor<1>,
}

/// AdamW (Loshchilov and Hutter, 2019) with PyTorch's arithmetic: decoupled decay of every parameter, batch
/// norms included; bias corrections in f64.
#[derive(Clone, Debug)]
pub struct AdamW {
    config: AdamWConfig,
    num_steps: u64,
    moments: BTreeMap<String, Moments>,
}

impl AdamW {
    /// An optimizer before its first step.
    #[must_use]
    pub fn new(config: AdamWConfig) -> Self {
        Self { config, num_steps: 0, moments: BTreeMap::new() }
    }

    /// An optimizer as it was when `state` was exported; its moments go to `device`.
    ///
    /// # Errors
    /// [`OpError::Value`] where the two moments of a parameter are not equally long.
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

    /// What [`resume`](Self::resume) takes. Waits for the device.
    ///
    /// # Errors
    /// [`OpError::Device`] where the moments cannot be read back.
    pub fn state(&self) -> Result<AdamWState, OpError> {
        let host = |(key, moments): (&String, &Moments)| {
            let exp_avg = float_values(moments.exp_avg.clone())?;
            Ok((key.clone(), HostMoments { exp_avg, exp_avg_sq: float_values(moments.exp_avg_sq.clone())? }))
        };
        let moments = self.moments.iter().map(host).collect::<Result<_, OpError>>()?;
        Ok(AdamWState { num_steps: self.num_steps, moments })
    }

    /// Steps taken.
    #[must_use]
    pub fn num_steps(&self) -> u64 {
        self.num_steps
    }

    /// Takes a step along `gradients`, which are taken out, at the rates of `schedule` in `iteration`.
    ///
    /// # Errors
    /// As [`update`](Self::update); see [`AffinityPredictor::update`] for what the student then is.
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

    /// Counts a step, before the [`update`](Self::update) of each of its parameters.
    pub fn begin_step(&mut self) {
        self.num_steps += 1;
    }

    /// The new values of the parameter `key`, all `[N]`; its moments start at 0. Values that nobody else
    /// holds are changed in place on the host.
    ///
    /// # Errors
    /// [`OpError::Shape`] where the gradient or the moments have another length; [`OpError::TooLarge`] where
    /// they do not fit the device.
    pub fn update(
        &mut self,
        key: &str,
        values: Tensor<1>,
        gradient: Tensor<1>,
        rate: f64,
    ) -> Result<Tensor<1>, OpError> {
        self.update_with_decay(key, values, gradient, rate, self.config.weight_decay)
    }

    /// As [`update`](Self::update), with a decay of this parameter's own.
    ///
    /// # Errors
    /// As [`update`](Self::update).
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
