//! Pairs of 4096 anchors among the points of a scene with a teacher's 1088 channels, 96 neighbours each. Features
//! are those of cells of eight points, as a teacher's are that sees a coarser grid, and change along the scene, as
//! a scan's do. Items are floating-point operations of the products with all points: items per second are FLOP/s.

use divan::counter::ItemsCount;
use geopurify::ops::contrastive_pairs::{Negatives, contrastive_pairs};
use geopurify::ops::int_tensor;

use crate::common::{device, features, finish};

const NUM_ANCHORS: usize = 4096;
const NUM_CHANNELS: usize = 1088;
const K: usize = 96;

fn sizes() -> Vec<usize> {
    [5_000, 30_000, 100_000].into_iter().filter(|n| crate::common::sizes().iter().max() >= Some(n)).collect()
}

#[divan::bench(args = sizes(), sample_count = 3, sample_size = 1)]
fn pairs(bencher: divan::Bencher<'_, '_>, n: usize) {
    let cell_from_point = int_tensor((0..n as i32).map(|point| point / 8).collect(), [n], &device());
    let cells = features(n.div_ceil(8), NUM_CHANNELS);
    let cells = (cells.clone() + cells.cumsum(0) * 0.1).select(0, cell_from_point);
    let anchor = |a: usize| (a * n / NUM_ANCHORS) as i32;
    let anchors = int_tensor((0..NUM_ANCHORS).map(anchor).collect(), [NUM_ANCHORS], &device());
    let near = |a: usize| (1..=K as i32).map(move |j| (anchor(a) + 37 * j) % n as i32);
    let neighbors = int_tensor((0..NUM_ANCHORS).flat_map(near).collect(), [NUM_ANCHORS, K], &device());
    bencher.counter(ItemsCount::new(2 * NUM_ANCHORS * n * NUM_CHANNELS)).bench_local(|| {
        let pairs = contrastive_pairs(cells.clone(), anchors.clone(), neighbors.clone(), Negatives::PAPER);
        finish();
        pairs.expect("valid input")
    });
}
