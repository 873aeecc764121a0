//! Focal modulation at the four stages of X-Decoder's backbone on one 648 x 484 view: four levels with kernels
//! of 3, 5, 7 and 9. Items are the floating-point operations of the depthwise convolutions, two per
//! multiply-add: items per second are FLOP/s.

use divan::counter::ItemsCount;
use geopurify::ops::focal_modulation::{Levels, focal_modulation};

use crate::common::{features, finish};

const LEVELS: Levels = Levels { num_levels: 4, window: 3, growth: 2, scaled: true };

/// Height, width and channels.
const STAGES: [[usize; 3]; 4] = [[128, 168, 192], [64, 84, 384], [32, 42, 768], [16, 21, 1536]];

#[divan::bench(args = STAGES, sample_count = 5, sample_size = 1)]
fn stage(bencher: divan::Bencher<'_, '_>, [height, width, dim]: [usize; 3]) {
    let context = features(height * width, dim).reshape([1, height, width, dim]);
    let gates = features(height * width, LEVELS.num_levels + 1).reshape([1, height, width, LEVELS.num_levels + 1]);
    let kernels = features(LEVELS.num_taps(), dim);
    let flop = 2 * LEVELS.num_taps() * height * width * dim;
    bencher.counter(ItemsCount::new(flop)).bench_local(|| {
        let out = focal_modulation(context.clone(), gates.clone(), kernels.clone(), LEVELS).expect("valid input");
        finish();
        out
    });
}
