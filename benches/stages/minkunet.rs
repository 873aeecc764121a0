//! MinkUNet18A as OpenScene published it, with random weights, on the voxels of a room. Items are voxels.

use burn::prelude::*;
use divan::counter::ItemsCount;
use geopurify::models::minkunet::{MinkUnet, MinkUnetConfig};

use crate::common::{RandomWeights, device, finish, room_batched};

#[divan::bench(args = [20_000, 100_000], sample_count = 3, sample_size = 1)]
fn openscene(bencher: divan::Bencher<'_, '_>, n: usize) {
    let config = MinkUnetConfig::openscene();
    let weights = RandomWeights::new(config.keys());
    let network = MinkUnet::load_as(config, weights, &device()).expect("every key is there").0;
    let (ones, coords) = (Tensor::ones([n, network.config().in_channels], &device()), room_batched(n));
    bencher.counter(ItemsCount::new(n)).bench_local(|| {
        let last = network.forward(ones.clone(), coords.clone()).expect("valid input");
        let features = network.head(last, 0).expect("there is a head");
        finish();
        features
    });
}
