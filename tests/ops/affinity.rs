//! Weights of neighbours, and what pooling makes of them.

use geopurify::gpu::shaders;
use geopurify::ops::affinity::affinity;
use geopurify::ops::pooling::{AffinityRows, pooling};
use geopurify::ops::{float_tensor, float_values, int_tensor};

use crate::common::Random;
use crate::helpers::twin::{against_twin, close, sizes};
use crate::helpers::voxels::neighbor_lists;

#[test]
fn affinity_and_pooling_equal_the_twin() {
    for k in [1, 7, 96, 128] {
        for n in sizes(shaders::affinity::softmax::WG).into_iter().filter(|n| *n < 200) {
            let mut random = Random(16);
            let (embedding, features) = (random.floats(n * 20), random.floats(n * 13));
            let neighbors = neighbor_lists(n, k);
            against_twin(
                |device| {
                    let neighbors = int_tensor(neighbors.clone(), [n, k], device);
                    let embedding = float_tensor(embedding.clone(), [n, 20], device);
                    let weights = affinity(&[embedding], neighbors.clone(), 0, 3.0).unwrap();
                    let matrix = [AffinityRows { neighbors, weights: weights.clone() }];
                    let features = float_tensor(features.clone(), [n, 13], device);
                    (float_values(weights).unwrap(), float_values(pooling(features, &matrix, 3).unwrap()).unwrap())
                },
                |name, found, twin| {
                    close(&format!("{name}, {n} x {k}, weights"), &found.0, &twin.0);
                    close(&format!("{name}, {n} x {k}, pooled"), &found.1, &twin.1);
                    for (row, neighbors) in found.0.chunks_exact(k).zip(neighbors.chunks_exact(k)) {
                        let expected = if neighbors.iter().any(|v| *v >= 0) { 1.0 } else { 0.0 };
                        let sum: f32 = row.iter().sum();
                        assert!((sum - expected).abs() < 1e-5, "{name}: a row sums to {sum}");
                        assert!(row.iter().zip(neighbors).all(|(w, v)| *v >= 0 || *w == 0.0), "{name}: -1 weighs");
                    }
                    if n > 0 {
                        close("a row without neighbours keeps its value", &found.1[..13], &features[..13]);
                    }
                },
            );
        }
    }
}
