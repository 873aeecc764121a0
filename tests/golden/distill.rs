//! How the operations of the distillation are run and compared.

use burn::tensor::Device;
use geopurify::ops::contrastive_pairs::{Negatives, contrastive_pairs as choose};
use geopurify::ops::{int_tensor, int_values};

use crate::Line;
use crate::case::Case;
use crate::ops::{equal, floats};

pub(crate) fn contrastive_pairs(case: &Case, device: &Device) -> Vec<Line> {
    let count = |key: &str| case.config[key].as_u64().unwrap() as usize;
    let (k, num_anchors) = (count("k_neighbours"), count("n_anchors"));
    let (_, anchors) = case.i32("in.anchors");
    let (_, all) = case.i32("in.neighbours");
    let neighbors = anchors.iter().flat_map(|&anchor| &all[anchor as usize * k..][..k]).copied().collect();
    let negatives = Negatives { num_macro: count("n_macro"), num_micro: count("n_micro") };
    let pairs = choose(
        floats(case, "in.features", device),
        int_tensor(anchors, [num_anchors], device),
        int_tensor(neighbors, [num_anchors, k], device),
        negatives,
    )
    .unwrap();
    // The case gives sets: its rows are ordered by index, ours by similarity.
    let sets = |rows: Vec<i32>, len: usize| -> Vec<i32> {
        let mut rows = rows;
        rows.chunks_exact_mut(len).for_each(<[i32]>::sort_unstable);
        rows
    };
    let macros = sets(int_values(pairs.macro_negatives).unwrap(), negatives.num_macro);
    let micros = sets(int_values(pairs.micro_negatives).unwrap(), negatives.num_micro);
    vec![
        equal("out.positive", &int_values(pairs.positive).unwrap(), &case.i32("out.positive").1),
        equal("out.macro", &macros, &case.i32("out.macro").1),
        equal("out.micro", &micros, &case.i32("out.micro").1),
    ]
}
