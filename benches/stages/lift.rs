//! Lifting at a scene's size: points into 100 views of 648 x 484, their fusion, and all channels read back. Items are points.

use divan::counter::ItemsCount;
use geopurify::lift::{Lifter, View};
use geopurify::ops::int_tensor;
use geopurify::ops::project::{Camera, Visibility};
use geopurify::purify::FeatureSource as _;

use crate::common::{device, features};

const POINTS: usize = 200_000;
const VIEWS: usize = 100;
const QUERIES: usize = 200;
const LABELS: usize = 20;
const SIZE: [usize; 2] = [484, 648];

fn camera() -> Camera {
    let camera = Camera::centered([500.0, 500.0], [324.0, 242.0], SIZE);
    // Back from the cube of points, so that most are in sight.
    Camera { world_to_camera: [[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 3.5]], ..camera }
}

/// A hundred views, one after the other, and all 512 channels in blocks of 64.
#[divan::bench(sample_count = 3, sample_size = 1)]
fn scene(bencher: divan::Bencher<'_, '_>) {
    let values = geopurify::ops::float_values(features(POINTS, 3)).expect("on the device");
    let positions: Vec<[f32; 3]> = values.as_chunks::<3>().0.to_vec();
    let depth: Vec<f32> = (0..SIZE[0] * SIZE[1]).map(|i| 2.8 + (i % 97) as f32 / 60.0).collect();
    let query = |i: usize| if i.is_multiple_of(50) { -1 } else { (i % QUERIES) as i32 };
    let query_from_pixel = int_tensor((0..SIZE[0] * SIZE[1]).map(query).collect(), SIZE, &device());
    let logits = (0..QUERIES * LABELS).map(|i| (i * 31 % 97) as f32 / 10.0).collect();
    let view = View::from_parts(query_from_pixel, vec![0.04; QUERIES * 512], logits, QUERIES).expect("valid parts");
    bencher.counter(ItemsCount::new(POINTS)).bench_local(|| {
        let mut lifter = Lifter::new(positions.clone(), Visibility::default(), &device());
        for _ in 0..VIEWS {
            let projection = lifter.see(camera(), camera(), &depth).expect("valid input");
            lifter.add(&projection, &view).expect("valid input");
        }
        let lifted = lifter.finish().expect("points are seen");
        for first in (0..512).step_by(64) {
            divan::black_box(lifted.read(first..first + 64).expect("in memory"));
        }
    });
}
