//! A 3 x 3 x 3 convolution: 64 to 64 channels at every size, the student's 512 to 512 at 20,000 voxels, and
//! its gradients.
//! Items are floating-point operations on the cells that hold a voxel: items per second are FLOP/s.

use divan::counter::ItemsCount;
use geopurify::ops::kernel_map::kernel_map;
use geopurify::ops::sparse_conv::sparse_conv;

use crate::common::{device, features, finish, room_batched, sizes};

fn convolve(bencher: divan::Bencher<'_, '_>, n: usize, channels: usize) {
    let map = kernel_map(room_batched(n), 3).expect("valid input");
    let pairs: i64 = map.clone().greater_equal_elem(0).int().sum().into_scalar::<i64>();
    let x = features(n, channels);
    let weight = features(27 * channels, channels).reshape([27, channels, channels]).to_device(&device());
    let flop = 2 * pairs as usize * channels * channels;
    bencher.counter(ItemsCount::new(flop)).bench_local(|| {
        let out = sparse_conv(x.clone(), weight.clone(), None, map.clone()).expect("valid input");
        finish();
        out
    });
}

#[divan::bench(args = sizes(), sample_count = 5, sample_size = 1)]
fn channels_64(bencher: divan::Bencher<'_, '_>, n: usize) {
    convolve(bencher, n, 64);
}

#[divan::bench(args = [20_000], sample_count = 3, sample_size = 1)]
fn channels_512(bencher: divan::Bencher<'_, '_>, n: usize) {
    convolve(bencher, n, 512);
}

fn gradient(bencher: divan::Bencher<'_, '_>, n: usize, channels: usize, of_weight: bool) {
    let map = kernel_map(room_batched(n), 3).expect("valid input");
    let pairs: i64 = map.clone().greater_equal_elem(0).int().sum().into_scalar::<i64>();
    let x = features(n, channels).autodiff();
    let weight = features(27 * channels, channels).reshape([27, channels, channels]).autodiff();
    let (x, weight) = if of_weight { (x, weight.require_grad()) } else { (x.require_grad(), weight) };
    let flop = 2 * pairs as usize * channels * channels;
    let forward = || {
        let out = sparse_conv(x.clone(), weight.clone(), None, map.clone()).expect("valid input");
        finish();
        out
    };
    bencher.counter(ItemsCount::new(flop)).with_inputs(forward).bench_local_values(|out| {
        let gradients = out.backward();
        finish();
        gradients
    });
}

#[divan::bench(args = [20_000], sample_count = 3, sample_size = 1)]
fn grad_x_512(bencher: divan::Bencher<'_, '_>, n: usize) {
    gradient(bencher, n, 512, false);
}

#[divan::bench(args = [20_000], sample_count = 3, sample_size = 1)]
fn grad_weight_512(bencher: divan::Bencher<'_, '_>, n: usize) {
    gradient(bencher, n, 512, true);
}

#[divan::bench(args = [20_000], sample_count = 3, sample_size = 1)]
fn grad_weight_64(bencher: divan::Bencher<'_, '_>, n: usize) {
    gradient(bencher, n, 64, true);
}
