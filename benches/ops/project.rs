//! Points into a 648 x 484 view with depth. Items are points.

use burn::prelude::*;
use divan::counter::ItemsCount;
use geopurify::ops::project::{Camera, Visibility, project};

use crate::common::{device, features, finish};

const POINTS: usize = 200_000;
const SIZE: [usize; 2] = [484, 648];

fn camera() -> Camera {
    let camera = Camera::centered([500.0, 500.0], [324.0, 242.0], SIZE);
    // Back from the cube of points, so that most are in sight.
    Camera { world_to_camera: [[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 3.5]], ..camera }
}

#[divan::bench(sample_count = 10, sample_size = 1)]
fn points(bencher: divan::Bencher<'_, '_>) {
    let (points, depth) = (features(POINTS, 3), Tensor::<2>::full(SIZE, 3.5, &device()));
    bencher.counter(ItemsCount::new(POINTS)).bench_local(|| {
        let pixels = project(points.clone(), depth.clone(), camera(), Visibility::default()).expect("valid input");
        finish();
        pixels
    });
}
