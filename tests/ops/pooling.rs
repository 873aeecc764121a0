//! Pooling by a matrix that comes in parts.

use geopurify::ops::affinity::affinity;
use geopurify::ops::pooling::{AffinityRows, pooling};
use geopurify::ops::{OpError, float_tensor, float_values, int_tensor};

use crate::common::{Random, devices};
use crate::helpers::twin::close;
use crate::helpers::voxels::neighbor_lists;

#[test]
fn a_matrix_in_parts_pools_as_the_whole() {
    let (n, k) = (150, 9);
    let mut random = Random(17);
    let (embedding, features) = (random.floats(n * 8), random.floats(n * 5));
    let neighbors = neighbor_lists(n, k);
    for (name, device) in devices() {
        let run = |rows_per_part: usize| {
            let embedding = float_tensor(embedding.clone(), [n, 8], &device);
            // The parts also take the embedding in blocks of channels.
            let embedding = match rows_per_part < n {
                true => vec![embedding.clone().slice([0..n, 0..3]), embedding.slice([0..n, 3..8])],
                false => vec![embedding],
            };
            let matrix: Vec<AffinityRows> = (0..n)
                .step_by(rows_per_part)
                .map(|first| {
                    let rows = rows_per_part.min(n - first);
                    let part = neighbors[first * k..(first + rows) * k].to_vec();
                    let neighbors = int_tensor(part, [rows, k], &device);
                    let weights = affinity(&embedding, neighbors.clone(), first, 20.0).unwrap();
                    AffinityRows { neighbors, weights }
                })
                .collect();
            let features = float_tensor(features.clone(), [n, 5], &device);
            float_values(pooling(features, &matrix, 6).unwrap()).unwrap()
        };
        close(&name, &run(41), &run(n));
        let features = float_tensor(features.clone(), [n, 5], &device);
        assert!(matches!(pooling(features.clone(), &[], 1), Err(OpError::Value { .. })), "{name}: rows are missing");
        let none = AffinityRows {
            neighbors: int_tensor(Vec::new(), [n, 0], &device),
            weights: float_tensor(Vec::new(), [n, 0], &device),
        };
        let kept = float_values(pooling(features.clone(), &[none], 4).unwrap()).unwrap();
        assert_eq!(kept, float_values(features).unwrap(), "{name}: rows without neighbours keep their values");
    }
}
