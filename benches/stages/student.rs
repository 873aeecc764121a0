//! The student at its published width, 518 → 512 → 128, with random weights. Items are voxels.

use divan::counter::ItemsCount;
use geopurify::models::student::{AffinityPredictor, StudentConfig};
use geopurify::weights::{Dtype, HostTensor, StateDict};

use crate::common::{device, features, finish, room_batched};

#[divan::bench(args = [2_000, 20_000], sample_count = 3, sample_size = 1)]
fn published_width(bencher: divan::Bencher<'_, '_>, n: usize) {
    let config = StudentConfig::PUBLISHED;
    let mut state = StateDict::default();
    for (name, shape) in config.keys() {
        let len = shape.iter().product();
        // Small enough for nine layers to stay finite, and variances above zero.
        let value = |i: usize| if name.ends_with("kernel") { ((i % 19) as f32 - 9.0) * 1e-3 } else { 1.0 };
        let data = (0..len).map(value).collect();
        state.tensors.insert(name.clone(), HostTensor { shape, dtype_in_file: Dtype::F32, data });
    }
    let (predictor, ..) = AffinityPredictor::load(state, &device()).expect("every key is there");
    let student = predictor.fold();
    let (x, coords) = (features(n, config.input_dim), room_batched(n));
    bencher.counter(ItemsCount::new(n)).bench_local(|| {
        let embedding = student.forward(x.clone(), coords.clone()).expect("valid input");
        finish();
        embedding
    });
}
