//! The products of an attention's gradient over 1,024 slots of four heads, and of rows with 20 words; beside each burn's
//! own on the same device. Items are floating-point operations.

use burn::prelude::*;
use divan::counter::ItemsCount;
use geopurify::ops::matmul::{Form, matmul};

use crate::common::{features, finish};

/// Products, rows, terms and columns.
const SIZES: [[usize; 4]; 3] = [[4, 1024, 32, 1024], [4, 1024, 1024, 32], [1, 65_536, 512, 20]];

fn factors([products, rows, depth, cols]: [usize; 4]) -> (Tensor<3>, Tensor<3>) {
    let x = features(products * rows, depth).reshape([products, rows, depth]);
    (x, features(products * depth, cols).reshape([products, depth, cols]))
}

#[divan::bench(args = SIZES, sample_count = 10, sample_size = 1)]
fn plain(bencher: divan::Bencher<'_, '_>, size: [usize; 4]) {
    let (x, y) = factors(size);
    bencher.counter(ItemsCount::new(2 * size.into_iter().product::<usize>())).bench_local(|| {
        let out = matmul(x.clone(), y.clone(), Form::Plain).expect("valid input");
        finish();
        out
    });
}

#[divan::bench(args = SIZES, sample_count = 10, sample_size = 1)]
fn plain_of_burn(bencher: divan::Bencher<'_, '_>, size: [usize; 4]) {
    let (x, y) = factors(size);
    bencher.counter(ItemsCount::new(2 * size.into_iter().product::<usize>())).bench_local(|| {
        let out = x.clone().matmul(y.clone());
        finish();
        out
    });
}
