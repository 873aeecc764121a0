//! The choice of pairs against every similarity in f64, sorted.

use burn::prelude::*;
use burn::tensor::Device;
use geopurify::gpu::{Limits, shaders, with_limits};
use geopurify::ops::contrastive_pairs::{MAX_MACRO, MAX_NEIGHBORS, Negatives, Pairs, contrastive_pairs};
use geopurify::ops::{OpError, float_tensor, int_tensor, int_values};

use crate::common::{Random, devices};

/// A choice of pairs with its values.
struct Scene {
    num_channels: usize,
    features: Vec<f32>,
    anchors: Vec<i32>,
    k: usize,
    neighbors: Vec<i32>,
}

impl Scene {
    /// Points that share the rows of `num_cells` cells, with rows of any length.
    fn new(num_points: usize, num_channels: usize, num_anchors: usize, k: usize, num_cells: usize) -> Self {
        let mut random = Random(num_points as u64);
        let cells: Vec<Vec<f32>> = (0..num_cells)
            .map(|cell| {
                let length = [1e-3, 1.0, 1e4][cell % 3];
                random.floats(num_channels).into_iter().map(|x| x * length).collect()
            })
            .collect();
        let features = (0..num_points)
            .flat_map(|point| if num_cells == num_points { &cells[point] } else { &cells[random.below(num_cells)] })
            .copied()
            .collect();
        let anchors: Vec<i32> = (0..num_anchors).map(|_| random.below(num_points) as i32).collect();
        let mut neighbors = Vec::new();
        for anchor in &anchors {
            // Distinct rows around the anchor, itself among them for some, and absent ones at the end.
            let step = 1 + random.below(3) as i32;
            let absent = random.below(3);
            let present = k - absent.min(k);
            neighbors.extend((0..present as i32).map(|j| (anchor + j * step) % num_points as i32));
            neighbors.extend(vec![-1; k - present]);
        }
        Self { num_channels, features, anchors, k, neighbors }
    }

    fn choose(&self, negatives: Negatives, device: &Device) -> Result<Pairs, OpError> {
        let (num_points, num_anchors) = (self.features.len() / self.num_channels, self.anchors.len());
        contrastive_pairs(
            float_tensor(self.features.clone(), [num_points, self.num_channels], device),
            int_tensor(self.anchors.clone(), [num_anchors], device),
            int_tensor(self.neighbors.clone(), [num_anchors, self.k], device),
            negatives,
        )
    }

    fn rows(&self, negatives: Negatives, device: &Device) -> [Vec<i32>; 3] {
        let pairs = self.choose(negatives, device).unwrap();
        let values = [int_values(pairs.positive), int_values(pairs.macro_negatives), int_values(pairs.micro_negatives)];
        values.map(Result::unwrap)
    }

    /// Every similarity, sorted.
    fn definition(&self, negatives: Negatives) -> [Vec<i32>; 3] {
        let rows: Vec<Vec<f64>> = self
            .features
            .chunks(self.num_channels)
            .map(|row| {
                let norm = row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt().max(1e-12);
                row.iter().map(|x| f64::from(*x) / norm).collect()
            })
            .collect();
        let mut found = [vec![], vec![], vec![]];
        for (anchor, neighbors) in self.anchors.iter().zip(self.neighbors.chunks(self.k.max(1))) {
            let cosine =
                |i: i32| -> f64 { rows[*anchor as usize].iter().zip(&rows[i as usize]).map(|(a, b)| a * b).sum() };
            let mut others: Vec<i32> = (0..rows.len() as i32).filter(|i| i != anchor).collect();
            others.sort_by(|a, b| cosine(*b).total_cmp(&cosine(*a)).then(a.cmp(b)));
            let positive = others.remove(0);
            others.sort_by(|a, b| cosine(*a).total_cmp(&cosine(*b)).then(a.cmp(b)));
            found[0].push(positive);
            found[1].extend(&others[..negatives.num_macro]);
            let near = others.iter().filter(|i| neighbors.contains(i));
            found[2].extend(near.take(negatives.num_micro));
        }
        found
    }

    #[track_caller]
    fn check(&self, negatives: Negatives) {
        let definition = self.definition(negatives);
        let folded = Limits { max_binding_bytes: u64::MAX, max_workgroups: 3 };
        // Blocks of as few rows as there can be.
        let whole = (self.features.len() * 4).max(self.anchors.len() * 512) as u64;
        let blocks = Limits { max_binding_bytes: whole, max_workgroups: 65_535 };
        for (name, device) in devices() {
            let found = self.rows(negatives, &device);
            assert_eq!(found, definition, "{name}");
            assert!(with_limits(folded, || self.rows(negatives, &device)) == found, "{name}: folded");
            assert!(with_limits(blocks, || self.rows(negatives, &device)) == found, "{name}: blocks");
        }
    }
}

#[test]
fn pairs_are_those_of_the_definition() {
    let (rows, depth) = (shaders::contrastive_pairs::similarity::ROWS, shaders::contrastive_pairs::similarity::DEPTH);
    for (num_points, num_anchors) in [(66, 1), (127, rows - 1), (128, rows), (129, rows + 1), (700, 2 * rows + 1)] {
        for num_channels in [depth - 1, depth, 2 * depth + 1] {
            Scene::new(num_points, num_channels as usize, num_anchors as usize, 20, num_points)
                .check(Negatives { num_macro: 48, num_micro: 15 });
        }
    }
}

#[test]
fn equally_similar_rows_are_taken_by_index() {
    // Seven cells: whole lists of one similarity, and the positive is a copy of the anchor.
    Scene::new(600, 24, 70, 40, 7).check(Negatives { num_macro: 48, num_micro: 16 });
    // All rows alike, or zero: the positive is the first other row and would be the first negative.
    for value in [1.0, 0.0] {
        let mut scene = Scene::new(130, 8, 40, 30, 1);
        scene.features.fill(value);
        scene.check(Negatives { num_macro: 48, num_micro: 16 });
    }
}

#[test]
fn every_row_of_a_descending_scene_enters_the_list() {
    let mut scene = Scene::new(1500, 4, 2, 8, 1);
    let angle = |i: usize| i as f32 * 2e-3;
    scene.features = (0..1500).flat_map(|i| [angle(i).cos(), angle(i).sin(), 0.0, 0.0]).collect();
    scene.anchors = vec![0, 1499];
    scene.neighbors = (0..8).chain(1490..1498).collect();
    scene.check(Negatives { num_macro: MAX_MACRO, num_micro: 6 });
}

#[test]
fn every_number_of_negatives() {
    for (num_macro, num_micro) in [(0, 5), (5, 0), (1, 1), (MAX_MACRO, 16)] {
        Scene::new(200, 20, 30, 20, 200).check(Negatives { num_macro, num_micro });
    }
    // As few points as can be, and as many neighbours.
    Scene::new(50, 20, 30, 20, 50).check(Negatives { num_macro: 48, num_micro: 16 });
    Scene::new(400, 20, 30, MAX_NEIGHBORS, 400).check(Negatives { num_macro: 3, num_micro: 120 });
    let mut scene = Scene::new(200, 20, 30, 20, 200);
    (scene.k, scene.neighbors) = (0, Vec::new());
    let negatives = Negatives { num_macro: 4, num_micro: 0 };
    let expected = Scene { k: 1, neighbors: vec![-1; 30], ..Scene::new(200, 20, 30, 20, 200) }.definition(negatives);
    for (name, device) in devices() {
        assert_eq!(scene.rows(negatives, &device), expected, "{name}");
    }
}

#[test]
fn a_teachers_width_fits_every_device() {
    let scene = Scene::new(900, 1088, 70, 96, 300);
    scene.check(Negatives::PUBLISHED);
    for (name, device) in devices() {
        let all = int_values(scene.choose(Negatives::PUBLISHED, &device).unwrap().negatives()).unwrap();
        let [_, macros, micros] = scene.rows(Negatives::PUBLISHED, &device);
        let expected: Vec<i32> = macros.chunks(48).zip(micros.chunks(15)).flat_map(|(a, b)| [a, b].concat()).collect();
        assert_eq!(all, expected, "{name}");
    }
}

#[test]
fn pairs_that_cannot_be_are_refused() {
    for (name, device) in devices() {
        let refused = |scene: Scene, negatives: Negatives, expected: &str| {
            let error = scene.choose(negatives, &device).unwrap_err();
            assert_eq!(error.to_string(), format!("contrastive_pairs: {expected}"), "{name}");
        };
        let scene = || Scene::new(60, 6, 4, 10, 60);
        let few = Negatives { num_macro: 5, num_micro: 5 };
        refused(
            scene(),
            Negatives { num_macro: 59, num_micro: 5 },
            "60 points of 6 channels, expected an anchor, its positive and 59 macro negatives, of one channel at least",
        );
        refused(
            scene(),
            Negatives { num_macro: 5, num_micro: 11 },
            "11 micro negatives out of 10 neighbours, expected no more of them",
        );
        refused(
            scene(),
            Negatives { num_macro: 128, num_micro: 5 },
            "128 macro negatives and 10 neighbours, expected at most 127 and 128",
        );
        let mut outside = scene();
        outside.anchors[2] = 60;
        let least = *outside.anchors.iter().min().unwrap();
        refused(outside, few, &format!("anchors span {least} to 60, expected rows within 0..60"));
        let mut outside = scene();
        outside.neighbors[7] = -2;
        let most = *outside.neighbors.iter().max().unwrap();
        refused(outside, few, &format!("neighbors span -2 to {most}, expected rows within 0..60, or -1 for none"));
        let mut infinite = scene();
        infinite.features[6 * 17 + 3] = f32::INFINITY;
        refused(infinite, few, "row 17 of the features has the length inf, expected a finite one");
        let mut lonely = scene();
        lonely.anchors[3] = 9;
        lonely.neighbors[30..].copy_from_slice(&[9, 1, 2, -1, -1, -1, -1, -1, -1, -1]);
        lonely.features[6..12].fill(0.0);
        lonely.features[12..18].fill(0.0);
        refused(
            lonely,
            few,
            "the anchor 9 has 2 neighbours besides itself and its positive, expected 5 micro negatives at least",
        );
        let error = contrastive_pairs(
            Tensor::zeros([60, 6], &device),
            int_tensor(vec![0; 4], [4], &device),
            int_tensor(vec![0; 30], [3, 10], &device),
            few,
        );
        assert_eq!(
            error.unwrap_err().to_string(),
            "contrastive_pairs: neighbors is [3, 10], expected [A = 4, K]",
            "{name}"
        );
        let small = Limits { max_binding_bytes: 1000, max_workgroups: 65_535 };
        let error = with_limits(small, || scene().choose(few, &device)).unwrap_err();
        assert!(matches!(error, OpError::TooLarge(_)), "{name}: {error}");
        let mut none = scene();
        (none.anchors, none.neighbors) = (Vec::new(), Vec::new());
        let pairs = none.choose(few, &device).unwrap();
        assert_eq!(pairs.positive.dims(), [0], "{name}");
        assert_eq!(pairs.macro_negatives.dims(), [0, 5], "{name}");
        assert_eq!(pairs.micro_negatives.dims(), [0, 5], "{name}");
    }
}
