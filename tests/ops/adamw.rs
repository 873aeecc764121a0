//! One step of AdamW, as the optimizer takes it, against a loop over scalars.

use burn::prelude::*;
use burn::tensor::Device;
use geopurify::ops::{OpError, float_tensor, float_values};
use geopurify::training::{AdamW, AdamWConfig, AdamWState, HostMoments};

use crate::common::{Random, devices, rel_l2};

#[test]
fn a_step_of_adamw_is_that_of_a_scalar_loop() {
    let (beta1, beta2, epsilon, weight_decay) = (0.9f64, 0.999f64, 1e-8, 0.3);
    let config = AdamWConfig { beta1, beta2, epsilon, weight_decay };
    for (name, device) in devices() {
        let len = 70_001;
        let mut rng = Random(5);
        let start = rng.floats(len);
        let mut expected: Vec<[f64; 3]> = start.iter().map(|&p| [p.into(), 0.0, 0.0]).collect();
        let mut param = float_tensor(start, [len], &device);
        let mut optimizer = AdamW::new(config);
        for step in 1..=12 {
            let rate = 0.02 / f64::from(step);
            // From gradients of 0 to such as ε is felt in.
            let grad: Vec<f32> = rng.floats(len).iter().enumerate().map(|(i, g)| g * [0.0, 1e-9, 1.0][i % 3]).collect();
            for ([p, m, v], g) in expected.iter_mut().zip(&grad) {
                let g = f64::from(*g);
                *p *= 1.0 - rate * weight_decay;
                *m = beta1 * *m + (1.0 - beta1) * g;
                *v = beta2 * *v + (1.0 - beta2) * g * g;
                let (m, v) = (*m / (1.0 - beta1.powi(step)), *v / (1.0 - beta2.powi(step)));
                *p -= rate * m / (v.sqrt() + epsilon);
            }
            optimizer.begin_step();
            let held = param.clone();
            let before = float_values(held.clone()).unwrap();
            param = optimizer.update("p", param, float_tensor(grad, [len], &device), rate).unwrap();
            assert_eq!(float_values(held).unwrap(), before, "{name}: values that are held elsewhere changed");
        }
        let expected: Vec<f32> = expected.iter().map(|[p, ..]| *p as f32).collect();
        let off = rel_l2(&float_values(param).unwrap(), &expected);
        assert!(off < 2e-6, "{name}: off by {off}");
    }
}

#[test]
fn moments_of_another_length_are_refused() {
    let device = Device::flex();
    let moments = |a, b| HostMoments { exp_avg: vec![0.0; a], exp_avg_sq: vec![0.0; b] };
    let state = |moments| AdamWState { num_steps: 3, moments: [("p".to_owned(), moments)].into() };
    assert!(AdamW::resume(AdamWConfig::default(), state(moments(2, 3)), &device).is_err());
    let mut optimizer = AdamW::resume(AdamWConfig::default(), state(moments(2, 2)), &device).unwrap();
    let vector = || Tensor::<1>::zeros([3], &device);
    assert!(matches!(optimizer.update("p", vector(), vector(), 0.1), Err(OpError::Shape { .. })));
}
