//! Training of the image model and of the teacher: gradients of convolutions and of linear layers against burn's own,
//! and of whole models against central differences, from the parameters of a checkpoint to a scalar.

use std::collections::BTreeMap;

use burn::prelude::*;
use burn::tensor::Device;
use burn::tensor::activation::{gelu, relu, sigmoid};
use burn::tensor::module;
use burn::tensor::ops::ConvOptions;
use geopurify::gpu::{Limits, with_limits};
use geopurify::models::sonata::{Sonata, SonataConfig};
use geopurify::models::xdecoder::{Observed, XDecoder, XDecoderConfig};
use geopurify::ops::conv2d::{Activation, PackedWeight, Precision, conv2d, linear};
use geopurify::ops::{float_tensor, float_values, int_tensor, int_values};
use geopurify::pretrain::parameters::{Parameters, Rate};
use geopurify::training::{AdamW, AdamWConfig};
use geopurify::weights::{Dtype, HostTensor, StateDict, TensorSource, WeightsError};

use crate::common::{Random, devices, rel_l2};

const ACTIVATIONS: [Activation; 4] = [Activation::None, Activation::Relu, Activation::Gelu, Activation::QuickGelu];

// ---- convolutions ----

#[derive(Clone, Copy, Debug)]
struct Conv {
    /// B, H, W, in.
    shape: [usize; 4],
    num_out: usize,
    kernel: usize,
    stride: usize,
    padding: usize,
    activation: Activation,
}

/// The result, and the gradients of its sum with fixed factors by input, weight and bias.
fn by_burn(conv: Conv) -> [Vec<f32>; 4] {
    let Conv { shape, num_out, kernel, stride, padding, activation } = conv;
    let device = Device::flex().autodiff();
    let [x, weight, bias] = inputs(conv);
    let x = float_tensor(x, shape, &device).require_grad();
    let weight = float_tensor(weight, [num_out, shape[3], kernel, kernel], &device).require_grad();
    let bias = float_tensor(bias, [num_out], &device).require_grad();
    let options = ConvOptions::new([stride; 2], [padding; 2], [1; 2], 1);
    let out = module::conv2d(x.clone().permute([0, 3, 1, 2]), weight.clone(), Some(bias.clone()), options);
    let out = match activation {
        Activation::None => out,
        Activation::Relu => relu(out),
        Activation::Gelu => gelu(out),
        Activation::QuickGelu => out.clone() * sigmoid(out * 1.702),
    };
    gradients(out.permute([0, 2, 3, 1]), &x, &weight, &bias)
}

fn by_ours(conv: Conv, device: &Device) -> [Vec<f32>; 4] {
    let Conv { shape, num_out, kernel, stride, padding, activation } = conv;
    let device = device.clone().autodiff();
    let [x, weight, bias] = inputs(conv);
    let x = float_tensor(x, shape, &device).require_grad();
    let weight = float_tensor(weight, [num_out, shape[3], kernel, kernel], &device).require_grad();
    let bias = float_tensor(bias, [num_out], &device).require_grad();
    let packed = PackedWeight::from_tensor(weight.clone()).unwrap().with_bias(bias.clone()).unwrap();
    gradients(conv2d(x.clone(), &packed, stride, padding, activation).unwrap(), &x, &weight, &bias)
}

fn inputs(conv: Conv) -> [Vec<f32>; 3] {
    let Conv { shape, num_out, kernel, .. } = conv;
    let mut random = Random(5);
    let x = random.floats(shape.iter().product());
    [x, random.floats(num_out * shape[3] * kernel * kernel), random.floats(num_out)]
}

fn gradients(out: Tensor<4>, x: &Tensor<4>, weight: &Tensor<4>, bias: &Tensor<1>) -> [Vec<f32>; 4] {
    let factors = float_tensor(Random(6).floats(out.dims().iter().product()), out.dims(), &out.device());
    let mut grads = (out.clone() * factors).sum().backward();
    [
        float_values(out).unwrap(),
        float_values(x.grad_remove(&mut grads).unwrap()).unwrap(),
        float_values(weight.grad_remove(&mut grads).unwrap()).unwrap(),
        float_values(bias.grad_remove(&mut grads).unwrap()).unwrap(),
    ]
}

#[track_caller]
fn check(conv: Conv) {
    let expected = by_burn(conv);
    for (name, device) in devices() {
        let found = by_ours(conv, &device);
        assert!(found == by_ours(conv, &device), "{name}, {conv:?}: two runs differ");
        for (what, (found, expected)) in ["y", "x", "weight", "bias"].iter().zip(found.iter().zip(&expected)) {
            let difference = rel_l2(found, expected);
            assert!(difference < 3e-6, "{name}, {conv:?}, {what}: {difference:e}");
        }
    }
}

#[test]
fn gradients_of_convolutions_are_those_of_burn() {
    let mut activations = ACTIVATIONS.into_iter().cycle();
    // Few and many channels, strides that leave pixels unread, a stem, and paddings wider than a transposed kernel's.
    for (shape, num_out, [kernel, stride, padding]) in [
        ([2, 9, 8, 5], 7, [3, 1, 1]),
        ([2, 9, 8, 20], 35, [3, 1, 1]),
        ([1, 8, 11, 17], 33, [3, 2, 1]),
        ([2, 12, 16, 3], 24, [7, 4, 2]),
        ([1, 7, 6, 18], 4, [3, 4, 0]),
        ([1, 6, 5, 16], 16, [1, 1, 0]),
        ([1, 6, 5, 4], 3, [1, 2, 1]),
        ([1, 3, 4, 2], 3, [1, 1, 2]),
        ([1, 4, 4, 6], 5, [5, 1, 1]),
    ] {
        let activation = activations.next().unwrap();
        check(Conv { shape, num_out, kernel, stride, padding, activation });
    }
}

#[test]
fn images_whose_maps_do_not_fit_one_buffer_go_in_runs() {
    // The map of an image's 72 pixels takes 2,592 bytes: six images go as four and two.
    let limits = Limits { max_binding_bytes: 12_288, max_workgroups: 65_535 };
    let conv = Conv { shape: [6, 9, 8, 5], num_out: 7, kernel: 3, stride: 1, padding: 1, activation: Activation::None };
    with_limits(limits, || check(conv));
}

#[test]
fn gradients_of_linear_layers_are_those_of_burn() {
    for activation in ACTIVATIONS {
        check(Conv { shape: [1, 1, 70, 33], num_out: 37, kernel: 1, stride: 1, padding: 0, activation });
    }
    // More rows than one partial sum takes.
    let shape = [1, 1, 5000, 6];
    check(Conv { shape, num_out: 9, kernel: 1, stride: 1, padding: 0, activation: Activation::Gelu });
}

#[test]
fn what_gradients_do_not_flow_to_is_left_out() {
    for (name, device) in devices() {
        let tracked = device.clone().autodiff();
        let rows = float_tensor(Random(1).floats(12), [3, 4], &device);
        let x = float_tensor(Random(2).floats(20), [5, 4], &tracked).require_grad();
        // A frozen weight, not even on the autodiff device.
        let out = linear(x.clone(), &PackedWeight::from_rows(rows.clone()), Activation::None).unwrap();
        let mut grads = out.sum().backward();
        let found = float_values(x.grad_remove(&mut grads).unwrap()).unwrap();
        let sums = float_values(rows.clone().sum_dim(0)).unwrap();
        assert!(found.chunks_exact(4).all(|row| rel_l2(row, &sums) < 1e-6), "{name}");
        // A frozen input.
        let weight = Tensor::from_inner(rows).require_grad();
        let out = linear(x.clone().inner(), &PackedWeight::from_rows(weight.clone()), Activation::None).unwrap();
        let mut grads = out.sum().backward();
        let found = float_values(weight.grad_remove(&mut grads).unwrap()).unwrap();
        let sums = float_values(x.inner().sum_dim(0)).unwrap();
        assert!(found.chunks_exact(4).all(|row| rel_l2(row, &sums) < 1e-6), "{name}");
    }
}

// ---- parameters ----

fn state() -> StateDict {
    let mut state = StateDict { source: "some.safetensors".into(), ..StateDict::default() };
    for (key, shape) in [("a.weight", vec![2, 3]), ("b.bias", vec![4]), ("scale", vec![])] {
        let data = Random(shape.len() as u64).floats(shape.iter().product());
        state.tensors.insert(key.to_owned(), HostTensor { shape, dtype_in_file: Dtype::F32, data });
    }
    state
}

#[test]
fn parameters_are_stepped_by_their_own_rates() {
    for (name, device) in devices() {
        let mut parameters = Parameters::new(state(), &device);
        assert!(parameters.device().is_autodiff(), "{name}");
        assert_eq!(parameters.num_values(), 11);
        assert_eq!(parameters.state_dict().unwrap(), state(), "{name}");

        let weight = parameters.parameter("a.weight", &[2, 3]).unwrap().unwrap();
        let scale = parameters.parameter("scale", &[]).unwrap().unwrap();
        let mut grads = ((weight * 2.0).sum() + scale * 3.0).backward();
        let gradients = parameters.gradients(&mut grads);
        let values: BTreeMap<_, _> =
            gradients.iter().map(|(k, g)| (k.clone(), float_values(g.clone()).unwrap())).collect();
        assert_eq!(values, BTreeMap::from([("a.weight".to_owned(), vec![2.0; 6]), ("scale".to_owned(), vec![3.0])]));

        let mut optimizer = AdamW::new(AdamWConfig::default());
        let rate_of = |key: &str| Rate { learning_rate: 0.1, weight_decay: if key == "scale" { 0.0 } else { 0.5 } };
        parameters.step(gradients, &mut optimizer, rate_of).unwrap();
        // The first step of AdamW is as long as the rate.
        let (before, after) = (state(), parameters.state_dict().unwrap());
        for (before, after) in before.tensors["a.weight"].data.iter().zip(&after.tensors["a.weight"].data) {
            assert!((before * 0.95 - 0.1 - after).abs() < 1e-6, "{name}: {before} to {after}");
        }
        assert!((before.tensors["scale"].data[0] - 0.1 - after.tensors["scale"].data[0]).abs() < 1e-6, "{name}");
        assert_eq!(before.tensors["b.bias"], after.tensors["b.bias"], "{name}: it has no gradient");
    }
}

#[test]
fn parameters_are_asked_for_by_key_and_shape() {
    let mut parameters = Parameters::new(state(), &Device::flex());
    assert!(matches!(parameters.parameter("a.weight", &[3, 2]), Err(WeightsError::Shape { .. })));
    let error = parameters.parameter("c", &[1]).unwrap_err().to_string();
    assert_eq!(error, "some.safetensors: no 'c'; there are 3 parameters");
    assert_eq!(parameters.take("b.bias", &[4]).unwrap(), state().tensors["b.bias"]);
    assert_eq!(parameters.inventory().shape("a.weight"), Some(vec![2, 3]));
    let shapes: Vec<_> = parameters.shapes().map(|(key, shape)| (key.to_owned(), shape.to_vec())).collect();
    assert_eq!(shapes[2], ("scale".to_owned(), vec![]));
    assert!(state().parameter("a.weight", &[2, 3]).unwrap().is_none(), "of values alone");
}

// ---- whole models ----

/// Of the values of `keys`, drawn so that activations keep their size.
fn generated(keys: &[(String, Vec<usize>)]) -> StateDict {
    let mut state = StateDict { source: "generated".into(), ..StateDict::default() };
    for (i, (key, shape)) in keys.iter().enumerate() {
        let num_in: usize = if key.ends_with("class_embed") || key.ends_with("lang_proj") {
            shape[0]
        } else {
            shape.iter().skip(1).product()
        };
        let (center, spread) = match shape.len() {
            0 => (1.5, 0.0),
            1 if key.ends_with("bias") => (0.0, 0.05),
            1 => (1.0, 0.1),
            _ if key.ends_with("embed.weight") || key.ends_with("embedding") || key.ends_with("embedding.weight") => {
                (0.0, 0.5)
            }
            _ => (0.0, (3.0 / num_in as f32).sqrt()),
        };
        let mut random = Random(i as u64 + 40);
        let data = (0..shape.iter().product()).map(|_| center + spread * random.signed()).collect();
        state.tensors.insert(key.clone(), HostTensor { shape: shape.clone(), dtype_in_file: Dtype::F32, data });
    }
    state
}

/// Σ value · factor over what a model gives, with the same factors every time.
fn score(outputs: &[Vec<f32>]) -> f64 {
    let product = |(i, values): (usize, &Vec<f32>)| -> f64 {
        let factors = Random(i as u64 + 900).floats(values.len());
        values.iter().zip(factors).map(|(value, factor)| f64::from(*value) * f64::from(factor)).sum()
    };
    outputs.iter().enumerate().map(product).sum()
}

/// The same with gradients.
fn tracked_score(outputs: &[Tensor<1>]) -> Tensor<1> {
    let product = |(i, values): (usize, &Tensor<1>)| {
        let [len] = values.dims();
        (values.clone() * float_tensor(Random(i as u64 + 900).floats(len), [len], &values.device())).sum()
    };
    outputs.iter().enumerate().map(product).reduce(|a, b| a + b).unwrap()
}

fn host(outputs: Vec<Tensor<1>>) -> Vec<Vec<f32>> {
    outputs.into_iter().map(|values| float_values(values).unwrap()).collect()
}

/// Steps of central differences, along a direction of length 1 or so.
const STEPS: [f64; 4] = [3e-4, 1e-4, 3e-5, 1e-5];

/// The model's gradients by every parameter, along their own direction and a random one together, are the central
/// differences; and the forward pass in training is that of the frozen model. `masks` are what of it jumps: differences
/// count between equal ones alone, and are taken of ever smaller steps until they are.
fn check_model(
    state: &StateDict,
    tracked: impl Fn(&mut Parameters) -> Vec<Tensor<1>>,
    frozen: impl Fn(&mut StateDict) -> Vec<Tensor<1>>,
    masks: impl Fn(&mut StateDict) -> Vec<i32>,
) {
    let mut parameters = Parameters::new(state.clone(), &Device::flex());
    let outputs = tracked(&mut parameters);
    let mut grads = tracked_score(&outputs).backward();
    let gradients = parameters.gradients(&mut grads);
    let (found, expected) = (host(outputs), host(frozen(&mut state.clone())));
    assert_eq!(found.len(), expected.len());
    for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
        assert!(rel_l2(found, expected) < 1e-5, "output {i}: {:e}", rel_l2(found, expected));
    }
    let mut num_compared = 0;
    for (key, tensor) in &state.tensors {
        let gradient = gradients.get(key).unwrap_or_else(|| panic!("{key} has no gradient"));
        let gradient = float_values(gradient.clone()).unwrap();
        let norm = |values: &[f32]| values.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        let random = Random(7).floats(gradient.len());
        let (of_gradient, of_random) = (norm(&gradient).max(1e-30), norm(&random));
        let direction = |i: usize| f64::from(gradient[i]) / of_gradient + f64::from(random[i]) / of_random;
        let at = |step: f64| {
            let mut state = state.clone();
            let moved = (0..tensor.data.len()).map(|i| tensor.data[i] + (step * direction(i)) as f32);
            state.tensors.get_mut(key).unwrap().data = moved.collect();
            state
        };
        let expected: f64 = (0..gradient.len()).map(|i| f64::from(gradient[i]) * direction(i)).sum();
        let steady = |step: &&f64| masks(&mut at(**step)) == masks(&mut at(-**step));
        let Some(step) = STEPS.iter().find(steady) else {
            continue;
        };
        num_compared += 1;
        let score_at = |step: f64| score(&host(frozen(&mut at(step))));
        let difference = (score_at(*step) - score_at(-step)) / (2.0 * step);
        let error = (difference - expected).abs() / (of_gradient + 0.05);
        assert!(error < 0.03, "{key}: {difference} by differences of {step}, {expected} by the gradient");
    }
    assert!(num_compared * 10 > state.tensors.len() * 8, "{num_compared} of {}", state.tensors.len());
}

fn tiny_xdecoder(kind: &str) -> XDecoderConfig {
    let mut config = XDecoderConfig::focal_l();
    config.backbone.kind = kind.to_owned();
    (config.backbone.embed_dim, config.backbone.depths) = (8, vec![1; 4]);
    (config.backbone.focal_levels, config.backbone.focal_windows) = (vec![2; 4], vec![3; 4]);
    config.backbone_dim = config.stage_dim(3);
    config.dim_proj = 20;
    let p = &mut config.pixel_decoder;
    (p.conv_dim, p.mask_dim, p.enc_layers, p.heads, p.ffn_dim, p.gn_groups) = (24, 16, 1, 2, 40, 4);
    let d = &mut config.decoder;
    (d.hidden_dim, d.num_queries, d.layers, d.heads, d.ffn_dim, d.dim_proj) = (24, 5, 3, 2, 40, 20);
    let t = &mut config.text;
    (t.width, t.layers, t.heads, t.dim_proj) = (12, 1, 2, 20);
    config
}

#[test]
fn gradients_reach_every_parameter_of_xdecoder() {
    let size = [32, 64];
    let image: Vec<f32> = Random(10).floats(size[0] * size[1] * 3).into_iter().map(|x| 128.0 + 100.0 * x).collect();
    let texts = ["a wall.", "a photo of a chair.", "the floor."].map(str::to_owned);
    for kind in ["focal", "focal_dw"] {
        let config = tiny_xdecoder(kind);
        let see = |source: &mut dyn TensorSource, device: &Device| {
            let (model, _) = XDecoder::load(source, config.clone(), Precision::F32, device).unwrap();
            let text = model.text_encoder.embed_texts_tracked(&texts).unwrap();
            let scale = model.text_encoder.logit_scale_tracked();
            let (heads, mask_features) =
                model.forward_train(model.prepare(&image, size).unwrap(), text, scale).unwrap();
            assert_eq!(mask_features.dims(), [1, 8, 16, 16]);
            assert_eq!(heads.len(), 4);
            let parts = heads.into_iter().flat_map(|head| {
                assert_eq!(head.pred_logits.dims(), [1, 4, 3]);
                let masks = head.pred_masks.flatten(0, 3);
                // As much of the score as of the others, which are fewer.
                [head.pred_logits.flatten(0, 2), masks * 0.1, head.mask_embed.flatten(0, 2)]
            });
            parts.collect::<Vec<Tensor<1>>>()
        };
        check_model(
            &generated(&config.keys()),
            |parameters| {
                let device = parameters.device().clone();
                see(parameters, &device)
            },
            |state| see(state, &Device::flex()),
            |state| {
                let (model, _) = XDecoder::load(state, config.clone(), Precision::F32, &Device::flex()).unwrap();
                let maps = model.backbone.forward(model.prepare(&image, size).unwrap(), &mut |_, _| ()).unwrap();
                let maps = model.pixel_decoder.forward(&maps, &mut |_, _| ()).unwrap();
                let mut masks = Vec::new();
                let observe = &mut |observed: Observed<'_>| {
                    if let Observed::Mask(_, mask) = observed {
                        masks.extend(int_values(mask.clone()).unwrap());
                    }
                };
                model.predictor.forward(&maps, Tensor::ones([1, 20], &Device::flex()), 1.0, observe).unwrap();
                masks
            },
        );
    }
}

#[test]
fn the_last_head_in_training_is_that_of_inference() {
    let config = tiny_xdecoder("focal");
    let (model, _) = XDecoder::load(&mut generated(&config.keys()), config, Precision::F32, &Device::flex()).unwrap();
    let image = model.prepare(&Random(3).floats(32 * 64 * 3), [32, 64]).unwrap();
    let text = model.embed_text(&["chair".to_owned()]).unwrap();
    let expected = model.forward(image.clone(), &text).unwrap();
    let scale = model.text_encoder.logit_scale_tracked();
    assert_eq!(float_values(scale.clone()).unwrap(), [text.logit_scale]);
    let found = model.forward_train(image, text.rows, scale).unwrap().0.pop().unwrap();
    assert_eq!(float_values(found.pred_logits).unwrap(), float_values(expected.pred_logits).unwrap());
    assert_eq!(float_values(found.pred_masks).unwrap(), float_values(expected.pred_masks).unwrap());
    // Texts one by one and together.
    let texts = ["a wall.", "a photo of a chair.", "the floor.", "a wall."].map(str::to_owned);
    let found = float_values(model.text_encoder.embed_texts_tracked(&texts).unwrap()).unwrap();
    let expected = float_values(model.text_encoder.embed_prompts(&texts, &mut |_, _| ()).unwrap()).unwrap();
    assert!(rel_l2(&found, &expected) < 1e-6);
    assert_eq!(model.text_encoder.embed_texts_tracked(&[]).unwrap().dims(), [0, 20]);
}

#[test]
fn gradients_reach_every_parameter_of_sonata() {
    let config = SonataConfig {
        enc_depths: vec![2, 1, 1, 1],
        enc_channels: vec![12, 16, 24, 32],
        enc_num_head: vec![1, 2, 2, 2],
        enc_patch_size: vec![32; 4],
        stride: vec![2; 3],
        ..SonataConfig::published()
    };
    // A floor and a wall.
    let voxels = (0..20).flat_map(|a| (0..20).flat_map(move |b| [[0, a, b, 0], [0, a, 0, b + 1]]));
    let coords: Vec<i32> = voxels.flatten().collect();
    let num_voxels = coords.len() / 4;
    let features = Random(8).floats(num_voxels * config.in_channels);
    let encode = |source: &mut dyn TensorSource, device: &Device| {
        let (model, _) = Sonata::load(source, &config, device).unwrap();
        let features = float_tensor(features.clone(), [num_voxels, config.in_channels], device);
        let coords = int_tensor(coords.clone(), [num_voxels, 4], device);
        vec![model.forward(features, coords, &mut |_| ()).unwrap().features.flatten(0, 1)]
    };
    check_model(
        &generated(&config.keys()),
        |parameters| {
            let device = parameters.device().clone();
            encode(parameters, &device)
        },
        |state| encode(state, &Device::flex()),
        |_| Vec::new(),
    );
}
