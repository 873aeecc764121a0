//! Host twin of the fusion of views.

use rayon::prelude::*;

use super::{Extents, TOP};

/// The result of [`fuse_views`](super::fuse_views), flat.
pub(crate) struct Fused {
    pub(crate) consensus: Vec<i32>,
    pub(crate) num_views: Vec<i32>,
    pub(crate) row: Vec<i32>,
    pub(crate) agreement: Vec<f32>,
    pub(crate) weights: Vec<f32>,
}

/// `row_from_point [V, N]`, `logits [R, K]`, flat.
pub(crate) fn fuse_views(row_from_point: &[i32], logits: &[f32], extents: Extents) -> Fused {
    let Extents { num_views, num_points, num_labels } = extents;
    let mut consensus = vec![-1; num_points];
    let mut counts = vec![0; num_points];
    let mut row = vec![-1; num_points * TOP];
    let mut agreement = vec![0.0; num_points * TOP];
    let mut weights = vec![0.0; num_points * TOP];
    let of_point = consensus.par_iter_mut().zip(&mut counts);
    let tops = row.par_chunks_mut(TOP).zip(agreement.par_chunks_mut(TOP)).zip(weights.par_chunks_mut(TOP));
    of_point.zip(tops).enumerate().with_min_len(1024).for_each_init(
        || vec![0.0f32; num_labels],
        |sums, (point, ((consensus, count), ((row, agreement), weights)))| {
            let seen = || {
                (0..num_views).filter_map(move |v| {
                    let row = row_from_point[v * num_points + point];
                    Some((row, &logits[usize::try_from(row).ok()? * num_labels..][..num_labels]))
                })
            };
            sums.fill(0.0);
            for (_, logits) in seen() {
                sums.iter_mut().zip(logits).for_each(|(sum, logit)| *sum += logit);
                *count += 1;
            }
            if *count == 0 {
                return;
            }
            // The first of equal sums.
            let label = (1..num_labels).fold(0, |best, label| if sums[label] > sums[best] { label } else { best });
            *consensus = label as i32;
            let mut found = 0;
            for (candidate, logits) in seen() {
                let logit = logits[label];
                let place = agreement[..found].iter().position(|&other| logit > other).unwrap_or(found);
                if place < TOP {
                    found = (found + 1).min(TOP);
                    row[place..found].rotate_right(1);
                    agreement[place..found].rotate_right(1);
                    row[place] = candidate;
                    agreement[place] = logit;
                }
            }
            let total: f32 = agreement[..found].iter().map(|logit| (logit - agreement[0]).exp()).sum();
            for (weight, logit) in weights.iter_mut().zip(&agreement[..found]) {
                *weight = (logit - agreement[0]).exp() / total;
            }
        },
    );
    Fused { consensus, num_views: counts, row, agreement, weights }
}
