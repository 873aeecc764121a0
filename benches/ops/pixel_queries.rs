//! The contest of X-Decoder's 200 queries for the pixels of a 648 x 484 view: masks of 121 x 162 cells, in which a query
//! has a blob of its own. Items are pixels.

use divan::counter::ItemsCount;
use geopurify::ops::float_tensor;
use geopurify::ops::pixel_queries::{Sizes, pixel_queries};

use crate::common::{device, features, finish};

const QUERIES: usize = 200;
const CELLS: [usize; 2] = [121, 162];
const SIZES: Sizes = Sizes { resampled: [484, 648], picture: [484, 648] };

/// Confidences that fall off evenly, or are all the same: no query can be left out early.
#[divan::bench(args = ["spread", "equal"], sample_count = 10, sample_size = 1)]
fn view_648x484(bencher: divan::Bencher<'_, '_>, confidence: &str) {
    let mask = |q: usize, i: usize| {
        let at = [i / CELLS[1], i % CELLS[1]];
        let middle = [q * 37 % CELLS[0], q * 61 % CELLS[1]];
        let distance = at[0].abs_diff(middle[0]) + at[1].abs_diff(middle[1]);
        8.0 - distance as f32 * 0.8
    };
    let masks = (0..QUERIES).flat_map(|q| (0..CELLS[0] * CELLS[1]).map(move |i| mask(q, i))).collect();
    let masks = float_tensor(masks, [QUERIES, CELLS[0], CELLS[1]], &device());
    let confidences = match confidence {
        "equal" => vec![0.5; QUERIES],
        _ => (0..QUERIES).map(|q| 1.0 - (q * 71 % QUERIES) as f32 / QUERIES as f32).collect(),
    };
    let confidences = float_tensor(confidences, [QUERIES], &device());
    bencher.counter(ItemsCount::new(SIZES.picture[0] * SIZES.picture[1])).bench_local(|| {
        let out = pixel_queries(masks.clone(), confidences.clone(), SIZES).expect("valid input");
        finish();
        out
    });
}

/// Noise everywhere.
#[divan::bench(sample_count = 10, sample_size = 1)]
fn noise_648x484(bencher: divan::Bencher<'_, '_>) {
    let masks = features(QUERIES * CELLS[0], CELLS[1]).reshape([QUERIES, CELLS[0], CELLS[1]]);
    let confidences = float_tensor(vec![0.5; QUERIES], [QUERIES], &device());
    bencher.counter(ItemsCount::new(SIZES.picture[0] * SIZES.picture[1])).bench_local(|| {
        let out = pixel_queries(masks.clone(), confidences.clone(), SIZES).expect("valid input");
        finish();
        out
    });
}
