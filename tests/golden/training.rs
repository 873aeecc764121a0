//! Cases of training: the schedule, the optimizer, and whole steps of the student.

use std::collections::BTreeSet;

use burn::prelude::*;
use burn::tensor::Device;
use burn::tensor::activation::log_softmax;
use geopurify::models::student::AffinityPredictor;
use geopurify::ops::normalize_rows;
use geopurify::ops::{float_tensor, float_values, int_tensor};
use geopurify::training::Schedule;
use geopurify::training::{AdamW, AdamWConfig, Group};

use crate::Line;
use crate::case::Case;
use crate::ops::{compare, equal};

fn number(case: &Case, key: &str) -> f64 {
    case.config[key].as_f64().unwrap_or_else(|| panic!("{}: config.{key} is no number", case.name))
}

fn schedule(case: &Case, warmup: f64, total: f64) -> Schedule {
    Schedule {
        start_factor: number(case, "start_factor"),
        final_rate: number(case, "eta_min"),
        ..Schedule::new(number(case, "base_lr"), warmup as u64, total as u64)
    }
}

pub(crate) fn lr_schedule(case: &Case, _device: &Device) -> Vec<Line> {
    let per_epoch = number(case, "iters_per_epoch");
    let schedule = schedule(case, number(case, "warmup_epochs") * per_epoch, number(case, "epochs") * per_epoch);
    assert_eq!(schedule, Schedule::new(schedule.base_rate, schedule.warmup, schedule.total), "{}", case.name);
    let rates: Vec<f64> = (0..schedule.total).flat_map(|i| Group::ALL.map(|group| schedule.rate(i, group))).collect();
    let narrow = |f: fn(f64) -> f64| rates.iter().map(|&rate| f(rate) as f32).collect::<Vec<f32>>();
    vec![compare(case, "out.lr", &narrow(|x| x)), compare(case, "out.log10_lr", &narrow(f64::log10))]
}

pub(crate) fn adamw(case: &Case, device: &Device) -> Vec<Line> {
    let (shape, params) = case.f32("in.params");
    let (_, grads) = case.f32("in.grads");
    let len = shape[1];
    let schedule = schedule(case, number(case, "warmup_iters"), number(case, "total_iters"));
    let config = AdamWConfig { weight_decay: number(case, "weight_decay"), ..AdamWConfig::default() };
    let mut optimizer = AdamW::new(config);
    let keys = ["input_layer.0.kernel", "res_blocks.0.conv1.kernel", "output_layer.kernel"];
    let upload = |values: &[f32]| float_tensor(values.to_vec(), [len], device);
    let mut params: Vec<Tensor<1>> = params.chunks(len).map(upload).collect();
    let mut after = Vec::new();
    for (iteration, grads) in grads.chunks(shape[0] * len).enumerate() {
        optimizer.begin_step();
        for ((param, grad), key) in params.iter_mut().zip(grads.chunks(len)).zip(keys) {
            let rate = schedule.rate(iteration as u64, Group::of(key));
            *param = optimizer.update(key, param.clone(), upload(grad), rate).unwrap();
            after.extend(float_values(param.clone()).unwrap());
        }
    }
    vec![compare(case, "out.params", &after)]
}

/// Mean over the anchors of the cross entropy of the positive among the negatives, in plain tensor operations.
fn loss(case: &Case, embedding: Tensor<2>, voxel: &dyn Fn(i32) -> i32, device: &Device) -> Tensor<1> {
    let rows = |name: &str| {
        let points = case.i32(name).1;
        let voxels: Vec<i32> = points.iter().map(|&point| voxel(point)).collect();
        let index = int_tensor(voxels, [points.len()], device);
        embedding.clone().select(0, index)
    };
    let (anchor, positive, negative) = (rows("in.anchor"), rows("in.positive"), rows("in.negative"));
    let [num_anchors, dim] = anchor.dims();
    let negative = negative.reshape([num_anchors as i32, -1, dim as i32]);
    let close = (anchor.clone() * positive).sum_dim(1);
    let [_, num_negatives, _] = negative.dims();
    let far = (anchor.unsqueeze_dim::<3>(1) * negative).sum_dim(2).reshape([num_anchors, num_negatives]);
    let logits = Tensor::cat(vec![close, far], 1) / number(case, "temperature");
    log_softmax(logits, 1).slice([0..num_anchors, 0..1]).mean().neg()
}

pub(crate) fn student_train(case: &Case, device: &Device) -> Vec<Line> {
    let device = device.clone().autodiff();
    let (_, voxel_of_point) = case.i32("in.voxel_of_point");
    let (_, coords) = case.i32("in.voxel_coords");
    let (shape, points) = case.f32("in.point_features");
    let dim = shape[1];

    // The mean of every voxel over the distinct points that were drawn in it, voxels ascending.
    let drawn: BTreeSet<i32> =
        ["in.anchor", "in.positive", "in.negative"].iter().flat_map(|name| case.i32(name).1).collect();
    let used: Vec<i32> =
        drawn.iter().map(|&p| voxel_of_point[p as usize]).collect::<BTreeSet<_>>().into_iter().collect();
    let row = |point: i32| used.binary_search(&voxel_of_point[point as usize]).unwrap();
    let mut sums = vec![0.0f64; used.len() * dim];
    let mut counts = vec![0.0f64; used.len()];
    for &point in &drawn {
        counts[row(point)] += 1.0;
        for c in 0..dim {
            sums[row(point) * dim + c] += f64::from(points[point as usize * dim + c]);
        }
    }
    let features: Vec<f32> = sums.iter().enumerate().map(|(i, sum)| (sum / counts[i / dim]) as f32).collect();
    let coords: Vec<i32> = used.iter().flat_map(|&v| coords[v as usize * 3..][..3].to_vec()).collect();
    let mut lines = vec![
        compare(case, "mid.student_features", &features),
        equal("mid.student_coords", &coords, &case.i32("mid.student_coords").1),
    ];
    let coords: Vec<i32> = coords.chunks_exact(3).flat_map(|c| [0, c[0], c[1], c[2]]).collect();
    let coords = int_tensor(coords, [used.len(), 4], &device);
    let features = float_tensor(features, [used.len(), dim], &device);

    let (mut student, _, report) = AffinityPredictor::load(case.state_dict(), &device).unwrap();
    assert!(report.is_complete(), "{report}");
    let before = student.state_dict().unwrap();
    let schedule = schedule(case, number(case, "warmup_iters"), number(case, "total_iters"));
    let config = AdamWConfig { weight_decay: number(case, "weight_decay"), ..AdamWConfig::default() };
    let mut optimizer = AdamW::new(config);
    let running = |student: &AffinityPredictor, step: usize| -> Vec<Line> {
        let state = student.state_dict().unwrap();
        let running = state.tensors.iter().filter(|(key, _)| key.contains("running_"));
        running.map(|(key, tensor)| compare(case, &format!("out.after{step}.{key}"), &tensor.data)).collect()
    };
    let num_steps = number(case, "steps") as usize;
    let mut losses = Vec::new();
    for step in 0..num_steps {
        let embedding = student.forward_train(features.clone(), coords.clone()).unwrap();
        if step == 0 {
            lines.push(compare(case, "mid.student_embedding", &float_values(embedding.clone().inner()).unwrap()));
            lines.extend(running(&student, 1));
        }
        let loss = loss(case, normalize_rows(embedding), &|point| row(point) as i32, &device);
        losses.extend(float_values(loss.clone().inner()).unwrap());
        let mut gradients = loss.backward();
        optimizer.begin_step();
        student
            .update(&mut gradients, |key, values, gradient| {
                if step == 0 {
                    let gradient = float_values(gradient.clone()).unwrap();
                    lines.push(compare(case, &format!("out.grad.{key}"), &gradient));
                }
                optimizer.update(key, values, gradient, schedule.rate(step as u64, Group::of(key)))
            })
            .unwrap();
    }
    lines.push(compare(case, "out.loss", &losses));
    lines.extend(running(&student, num_steps));
    assert_eq!(student.num_batches_tracked(), num_steps as u64);
    let after = student.state_dict().unwrap();
    for (key, tensor) in after.tensors.iter().filter(|(key, _)| !key.contains("running_")) {
        let delta: Vec<f32> = tensor.data.iter().zip(&before.tensors[key].data).map(|(a, b)| a - b).collect();
        lines.push(compare(case, &format!("out.delta5.{key}"), &delta));
    }
    lines
}
