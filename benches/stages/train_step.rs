//! A training step of the student at its published width, 518 → 512 → 128: forward with batch statistics,
//! backward, AdamW. Items are voxels. The loss is the mean square of the embedding.

use divan::counter::ItemsCount;
use geopurify::models::student::{AffinityPredictor, StudentConfig};
use geopurify::training::Schedule;
use geopurify::training::{AdamW, AdamWConfig};

use crate::common::{device, features, finish, room_batched};

#[divan::bench(args = [2_000, 20_000], sample_count = 2, sample_size = 1)]
fn published_width(bencher: divan::Bencher<'_, '_>, n: usize) {
    let config = StudentConfig::PUBLISHED;
    let device = device().autodiff();
    let mut student = AffinityPredictor::new(&config, 1, &device);
    let mut optimizer = AdamW::new(AdamWConfig::default());
    let schedule = Schedule::new(1e-4, 0, 1000);
    let (x, coords) = (features(n, config.input_dim).autodiff(), room_batched(n).autodiff());
    bencher.counter(ItemsCount::new(n)).bench_local(|| {
        let embedding = student.forward_train(x.clone(), coords.clone()).expect("valid input");
        let mut gradients = embedding.powi_scalar(2).mean().backward();
        optimizer.step(&mut student, &mut gradients, &schedule, 0).expect("the parameters' own gradients");
        finish();
    });
}
