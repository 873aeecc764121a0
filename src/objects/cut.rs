//! Parts: connected voxels of one label, cut where they are narrow.

use std::collections::BTreeMap;

use super::graph::{Graph, cosine, sum_of_units};
use super::{Group, Input, Settings};
use crate::unions::Unions;

/// Steps towards the slowest mode of a part, along which it is cut.
const STEPS: usize = 150;
/// Links across a border, for each voxel of its length.
pub(super) const LINKS_PER_VOXEL: f64 = 3.0;
/// Cosine of features at which a border counts nothing. At 1 it counts fully.
const STRANGERS: f64 = 0.7;

/// Splits all voxels with points into parts of one label. Stuff is one part for each label.
pub(super) fn parts(input: &Input<'_>, graph: &Graph, settings: &Settings) -> Vec<Group> {
    let num_voxels = input.labels.len();
    let cell = (settings.block * input.metre).max(f64::MIN_POSITIVE);
    let block_of = |center: [f32; 3]| center.map(|x| (f64::from(x) / cell) as i64);
    let blocks: Vec<_> = graph.centers.iter().map(|center| center.map(block_of)).collect();
    let (mut of_part, mut of_block) = (Unions::new(num_voxels), Unions::new(num_voxels));
    for &(a, b) in &graph.links {
        let (a, b) = (a as usize, b as usize);
        if input.labels[a] == input.labels[b] && !input.is_stuff(input.labels[a]) {
            of_part.unite(a, b);
            if blocks[a] == blocks[b] {
                of_block.unite(a, b);
            }
        }
    }
    let mut stuff: BTreeMap<i32, Vec<usize>> = BTreeMap::new();
    let mut things: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    let mut members: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for voxel in (0..num_voxels).filter(|&voxel| blocks[voxel].is_some()) {
        if input.is_stuff(input.labels[voxel]) {
            stuff.entry(input.labels[voxel]).or_default().push(voxel);
            continue;
        }
        let root = of_block.root(voxel);
        if root == voxel {
            things.entry(of_part.root(voxel)).or_default().push(root);
        }
        members.entry(root).or_default().push(voxel);
    }
    let mut borders: BTreeMap<(usize, usize), f64> = BTreeMap::new();
    for &(a, b) in &graph.links {
        let (a, b) = (of_block.root(a as usize), of_block.root(b as usize));
        if a != b && of_part.root(a) == of_part.root(b) {
            *borders.entry((a.min(b), a.max(b))).or_default() += 1.0;
        }
    }
    let sums: BTreeMap<usize, Vec<f32>> =
        members.iter().map(|(&root, voxels)| (root, sum_of_units(input, voxels))).collect();
    let mut links: BTreeMap<usize, Vec<(usize, f64)>> = BTreeMap::new();
    for ((a, b), count) in borders {
        let alike = (cosine(&sums[&a], &sums[&b]) - STRANGERS) / (1.0 - STRANGERS);
        let weight = count * alike.clamp(1e-3, 1.0);
        links.entry(a).or_default().push((b, weight));
        links.entry(b).or_default().push((a, weight));
    }
    let mut groups: Vec<Group> = stuff.into_iter().map(|(label, voxels)| Group { label, voxels }).collect();
    for blocks in things.into_values() {
        let mut waiting = vec![blocks];
        while let Some(blocks) = waiting.pop() {
            if let Some(sides) = halves(graph, &blocks, &members, &links, settings) {
                waiting.extend(sides);
                continue;
            }
            let mut voxels: Vec<usize> = blocks.iter().flat_map(|root| &members[root]).copied().collect();
            voxels.sort_unstable();
            groups.push(Group { label: input.labels[blocks[0]], voxels });
        }
    }
    groups
}

/// Cuts a part where it is narrowest, if it is narrow there: the blocks are put in order by the slowest mode of the
/// part's graph, which is found by averaging over neighbours, and the best place in that order is taken.
fn halves(
    graph: &Graph,
    blocks: &[usize],
    members: &BTreeMap<usize, Vec<usize>>,
    links: &BTreeMap<usize, Vec<(usize, f64)>>,
    settings: &Settings,
) -> Option<[Vec<usize>; 2]> {
    if blocks.len() < 4 {
        return None;
    }
    let place: BTreeMap<usize, usize> = blocks.iter().copied().zip(0..).collect();
    let near: Vec<Vec<(usize, f64)>> = blocks
        .iter()
        .map(|root| {
            let all = links.get(root).into_iter().flatten();
            all.filter_map(|(other, weight)| Some((*place.get(other)?, *weight))).collect()
        })
        .collect();
    let degree: Vec<f64> = near.iter().map(|row| row.iter().map(|(_, weight)| weight).sum::<f64>().max(1e-9)).collect();
    let total: f64 = degree.iter().sum();
    let center = |i: usize| graph.centers[blocks[i]].unwrap_or_default();
    let spread = |axis: usize| {
        let values = (0..blocks.len()).map(|i| center(i)[axis]);
        values.clone().fold(f32::MIN, f32::max) - values.fold(f32::MAX, f32::min)
    };
    let axis = (0..3).max_by(|&a, &b| spread(a).total_cmp(&spread(b)))?;
    let mut mode: Vec<f64> = (0..blocks.len()).map(|i| f64::from(center(i)[axis])).collect();
    for _ in 0..STEPS {
        let mean = mode.iter().zip(&degree).map(|(x, d)| x * d).sum::<f64>() / total;
        mode.iter_mut().for_each(|x| *x -= mean);
        let length = mode.iter().map(|x| x * x).sum::<f64>().sqrt().max(f64::MIN_POSITIVE);
        mode = (0..mode.len())
            .map(|i| {
                let around: f64 = near[i].iter().map(|&(j, weight)| weight * mode[j]).sum();
                (mode[i] + around / degree[i]) / (2.0 * length)
            })
            .collect();
    }
    let mut order: Vec<usize> = (0..blocks.len()).collect();
    order.sort_by(|&a, &b| mode[a].total_cmp(&mode[b]).then(a.cmp(&b)));
    let sizes: Vec<f64> = blocks.iter().map(|root| members[root].len() as f64).collect();
    let all: f64 = sizes.iter().sum();
    let mut is_before = vec![false; blocks.len()];
    let (mut border, mut size) = (0.0, 0.0);
    let mut best: Option<(f64, usize)> = None;
    for (at, &i) in order.iter().enumerate() {
        near[i].iter().for_each(|&(j, weight)| border += if is_before[j] { -weight } else { weight });
        is_before[i] = true;
        size += sizes[i];
        let smaller = size.min(all - size);
        if smaller < (settings.least_share * all).max(settings.least_voxels as f64) {
            continue;
        }
        let width = border / LINKS_PER_VOXEL / smaller.sqrt();
        if width < settings.narrow && best.is_none_or(|(narrowest, _)| width < narrowest) {
            best = Some((width, at + 1));
        }
    }
    let (_, at) = best?;
    let side = |order: &[usize]| {
        let mut side: Vec<usize> = order.iter().map(|&i| blocks[i]).collect();
        side.sort_unstable();
        side
    };
    Some([side(&order[..at]), side(&order[at..])])
}
