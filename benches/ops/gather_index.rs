//! One index map after another: a million points into a view's pixels. Items are points.

use divan::counter::ItemsCount;
use geopurify::ops::gather_index::gather_index;
use geopurify::ops::int_tensor;

use crate::common::{device, finish};

const PIXELS: usize = 484 * 648;

#[divan::bench(args = [10_000, 1_000_000], sample_count = 10, sample_size = 1)]
fn points_into_pixels(bencher: divan::Bencher<'_, '_>, points: usize) {
    let query_from_pixel = int_tensor((0..PIXELS as i32).map(|i| i % 200).collect(), [PIXELS], &device());
    let pixel = |i: usize| if i.is_multiple_of(5) { (i * 7919 % PIXELS) as i32 } else { -1 };
    let pixel_from_point = int_tensor((0..points).map(pixel).collect(), [points], &device());
    bencher.counter(ItemsCount::new(points)).bench_local(|| {
        let out = gather_index(query_from_pixel.clone(), pixel_from_point.clone()).expect("valid input");
        finish();
        out
    });
}
