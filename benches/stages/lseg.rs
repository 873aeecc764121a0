//! LSeg as published (ViT-L/16 and DPT) with random weights: the features of one view, picture and mirror image. Items
//! are floating-point operations (two per multiply-add): items per second are FLOP/s.

use divan::counter::ItemsCount;
use geopurify::models::lseg::{LSeg, LSegConfig};

use crate::common::{RandomWeights, device, finish, precision};

const SIZE: [usize; 2] = [484, 648];
/// Rows and columns to which GeoPurify brings every picture.
const GRID: [usize; 2] = [240, 320];
/// Of both passes at 640 x 640, as the reference computes them.
const FLOP: usize = 3_060_000_000_000;

#[divan::bench(sample_count = 2, sample_size = 1)]
fn view(bencher: divan::Bencher<'_, '_>) {
    let config = LSegConfig::published();
    let mut weights = RandomWeights::new(config.keys());
    let model = LSeg::load(&mut weights, config, precision(), &device()).expect("all weights are there").0;
    let picture: Vec<f32> = (0..SIZE[0] * SIZE[1] * 3).map(|i| (i * 7919 % 256) as f32).collect();
    bencher.counter(ItemsCount::new(FLOP)).bench_local(|| {
        let features = model.features_on(&picture, SIZE, GRID).expect("fits");
        finish();
        features
    });
}
