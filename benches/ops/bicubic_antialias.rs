//! Bicubic resampling with antialiasing of X-Decoder's 201 mask planes on one 648 x 484 view: to the attention
//! mask of the finest level, and to the view. Bytes are the planes read and the result written once each.

use divan::counter::BytesCount;
use geopurify::ops::bicubic_antialias::bicubic_antialias;

use crate::common::{features, finish};

const PLANES: usize = 201;
const FROM: [usize; 2] = [128, 168];

#[divan::bench(args = [[64, 84], [484, 648]], sample_count = 10, sample_size = 1)]
fn masks_128x168_to(bencher: divan::Bencher<'_, '_>, to: [usize; 2]) {
    let planes = features(PLANES * FROM[0], FROM[1]).reshape([PLANES, FROM[0], FROM[1]]);
    let bytes = PLANES * (FROM[0] * FROM[1] + to[0] * to[1]) * 4;
    bencher.counter(BytesCount::new(bytes)).bench_local(|| {
        let out = bicubic_antialias(planes.clone(), to).expect("valid input");
        finish();
        out
    });
}
