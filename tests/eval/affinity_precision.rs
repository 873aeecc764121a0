//! Affinity precision over the neighbours and weights that the operations give.

use geopurify::distill::affinity_precision::{ClusterSettings, affinity_precision, cluster_features};
use geopurify::ops::affinity::affinity;
use geopurify::ops::knn::knn_voxels;
use geopurify::ops::{float_tensor, float_values, int_tensor, int_values};

use crate::common;

/// Side of a square of voxels whose left half is of one kind and whose right half of another.
const SIDE: usize = 16;
const NUM_VOXELS: usize = SIDE * SIDE;
const CHANNELS: usize = 4;

fn kind(voxel: usize) -> usize {
    usize::from(voxel % SIDE >= SIDE / 2)
}

/// A direction per kind with some noise.
fn features(random: &mut common::Random, noise: f32) -> Vec<f32> {
    let value = |voxel: usize, c: usize, random: &mut common::Random| {
        noise * random.signed() + if c == kind(voxel) { 1.0 } else { 0.0 }
    };
    (0..NUM_VOXELS * CHANNELS).map(|i| value(i / CHANNELS, i % CHANNELS, random)).collect()
}

fn unit_rows(mut rows: Vec<f32>) -> Vec<f32> {
    for row in rows.chunks_exact_mut(CHANNELS) {
        let norm = row.iter().map(|x| x * x).sum::<f32>().sqrt();
        row.iter_mut().for_each(|x| *x /= norm);
    }
    rows
}

#[test]
fn embeddings_like_the_teacher_lean_on_their_own_kind() {
    let mut random = common::Random(4);
    let teacher = features(&mut random, 0.2);
    let settings = ClusterSettings { clusters: 2, sample: 64, ..ClusterSettings::default() };
    let kinds = cluster_features(&teacher, CHANNELS, &settings).unwrap();
    assert!((0..NUM_VOXELS).all(|voxel| (kinds[voxel] == kinds[0]) == (kind(voxel) == 0)));

    let like_teacher = unit_rows(features(&mut random, 0.1));
    let of_nothing = unit_rows(random.floats(NUM_VOXELS * CHANNELS));
    for (name, device) in common::devices() {
        let coords = (0..NUM_VOXELS).flat_map(|voxel| [voxel % SIDE, voxel / SIDE, 0]).map(|x| x as i32).collect();
        let coords = int_tensor(coords, [NUM_VOXELS, 3], &device);
        let neighbors = knn_voxels(coords, 24, false, 0..NUM_VOXELS).unwrap().index;
        let measure = |embedding: &[f32]| {
            let embedding = float_tensor(embedding.to_vec(), [NUM_VOXELS, CHANNELS], &device);
            let weights = float_values(affinity(&[embedding], neighbors.clone(), 0, 20.0).unwrap()).unwrap();
            affinity_precision(&kinds, &int_values(neighbors.clone()).unwrap(), &weights, 8).unwrap()
        };
        let (good, poor) = (measure(&like_teacher), measure(&of_nothing));
        assert_eq!((good.num_voxels, good.baseline), (NUM_VOXELS, poor.baseline), "{name}");
        // Along the border and in the corners a neighbourhood reaches over to the other kind.
        assert!(good.top > 0.99 && (0.75..0.95).contains(&good.baseline), "{name}: {good:?}");
        assert!((poor.top - poor.baseline).abs() < 0.03, "{name}: {poor:?}");
    }
}
