//! Fusion of 100 views of 200 queries and 20 labels. Items are points.

use divan::counter::ItemsCount;
use geopurify::ops::fuse_views::fuse_views;
use geopurify::ops::int_tensor;

use crate::common::{device, features, finish};

const POINTS: usize = 200_000;
const VIEWS: usize = 100;
const QUERIES: usize = 200;
const LABELS: usize = 20;

#[divan::bench(sample_count = 5, sample_size = 1)]
fn views(bencher: divan::Bencher<'_, '_>) {
    // Every view sees a fifth of the points.
    let query = |i: usize| if i.is_multiple_of(5) { (i / 5 % QUERIES) as i32 } else { -1 };
    let row = |i: usize| if query(i) < 0 { -1 } else { (i / POINTS * QUERIES) as i32 + query(i) };
    let rows = int_tensor((0..VIEWS * POINTS).map(row).collect(), [VIEWS, POINTS], &device());
    let logits = features(VIEWS * QUERIES, LABELS);
    bencher.counter(ItemsCount::new(POINTS)).bench_local(|| {
        let fused = fuse_views(rows.clone(), logits.clone()).expect("valid input");
        finish();
        fused
    });
}
