//! Attention within patches of 1024 voxels at the widths of Sonata's stages, heads of 16 channels. Items are
//! floating-point operations of the two products, two per multiply-add: items per second are FLOP/s.

use burn::prelude::*;
use divan::counter::ItemsCount;
use geopurify::ops::serialization::{Curve, serialization};
use geopurify::ops::serialized_attention::{Padding, serialized_attention};

use crate::common::{features, finish, room_batched};

const PATCH: usize = 1024;

/// Voxels and heads of the finest three stages of a scan of 20,000 voxels.
#[divan::bench(args = [[20_000, 3], [5_000, 6], [1_300, 12]], sample_count = 5, sample_size = 1)]
fn stage(bencher: divan::Bencher<'_, '_>, [voxels, heads]: [usize; 2]) {
    let serialized = serialization(room_batched(voxels), &[Curve::Hilbert]).expect("valid input");
    let padding = Padding::new(&serialized.batch_sizes, PATCH);
    let patches = padding.patches(&serialized.sequences[0].order).expect("fits");
    let qkv = features(voxels, 3 * 16 * heads);
    let flop = 4 * padding.pad.len() * padding.patch_size * 16 * heads;
    bencher.counter(ItemsCount::new(flop)).bench_local(|| {
        let out = serialized_attention(qkv.clone(), patches.clone(), heads).expect("valid input");
        finish();
        out
    });
}

/// 20,000 voxels, 3 heads of 16 channels.
fn loss(patch: usize) -> Tensor<1> {
    let serialized = serialization(room_batched(20_000), &[Curve::Hilbert]).expect("valid input");
    let padding = Padding::new(&serialized.batch_sizes, patch);
    let patches = padding.patches(&serialized.sequences[0].order).expect("fits");
    let qkv = Tensor::from_inner(features(20_000, 3 * 16 * 3)).require_grad();
    let loss = serialized_attention(qkv, patches, 3).expect("valid input").sum();
    finish();
    loss
}

#[divan::bench(args = [256, 1024], sample_count = 5, sample_size = 1)]
fn backward(bencher: divan::Bencher<'_, '_>, patch: usize) {
    bencher.with_inputs(|| loss(patch)).bench_local_values(|loss| {
        let gradients = loss.backward();
        finish();
        gradients
    });
}
