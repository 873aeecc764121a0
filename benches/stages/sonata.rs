//! Sonata as published, 108 million parameters, with random weights on a room. Items are voxels.

use std::sync::OnceLock;

use divan::counter::ItemsCount;
use geopurify::models::sonata::{Sonata, SonataConfig};

use crate::common::{RandomWeights, device, features, finish, room_batched};

fn model() -> &'static Sonata {
    static MODEL: OnceLock<Sonata> = OnceLock::new();
    MODEL.get_or_init(|| {
        let config = SonataConfig::published();
        Sonata::load(RandomWeights::new(config.keys()), &config, &device()).expect("all weights are there").0
    })
}

#[divan::bench(args = [5_000, 20_000], sample_count = 3, sample_size = 1)]
fn published(bencher: divan::Bencher<'_, '_>, n: usize) {
    let (x, coords) = (features(n, model().config.in_channels), room_batched(n));
    bencher.counter(ItemsCount::new(n)).bench_local(|| {
        let cells = model().forward(x.clone(), coords.clone(), &mut |_| ()).expect("fits");
        finish();
        cells
    });
}
