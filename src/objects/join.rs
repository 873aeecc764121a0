//! Joins parts that are one object, and leaves out specks.

use std::collections::BTreeMap;

use super::cut::LINKS_PER_VOXEL;
use super::graph::{Graph, cosine, sum_of_units};
use super::{Group, Input, Settings};

/// A part while parts are joined.
struct Part {
    /// Voxels of every label in it.
    count_of_label: BTreeMap<i32, usize>,
    voxels: Vec<usize>,
    /// Sum of its features.
    sum: Vec<f32>,
    is_stuff: bool,
}

impl Part {
    /// The label that most voxels have, the first of equal ones.
    fn label(&self) -> i32 {
        let best = self.count_of_label.iter().max_by(|a, b| a.1.cmp(b.1).then(b.0.cmp(a.0)));
        best.map_or(-1, |(&label, _)| label)
    }

    fn edge(&self) -> f64 {
        (self.voxels.len() as f64).sqrt()
    }

    fn take(&mut self, other: &mut Self) {
        for (label, count) in std::mem::take(&mut other.count_of_label) {
            *self.count_of_label.entry(label).or_default() += count;
        }
        self.voxels.append(&mut other.voxels);
        self.sum.iter_mut().zip(&other.sum).for_each(|(sum, x)| *sum += x);
    }
}

/// Joins `groups` to objects.
pub(super) fn joined(input: &Input<'_>, graph: &Graph, groups: Vec<Group>, settings: &Settings) -> Vec<Group> {
    let mut of_voxel = vec![usize::MAX; input.labels.len()];
    let mut parts: Vec<Part> = Vec::with_capacity(groups.len());
    for group in groups {
        group.voxels.iter().for_each(|&voxel| of_voxel[voxel] = parts.len());
        let is_stuff = input.is_stuff(group.label);
        let sum = if is_stuff { Vec::new() } else { sum_of_units(input, &group.voxels) };
        let count_of_label = BTreeMap::from([(group.label, group.voxels.len())]);
        parts.push(Part { count_of_label, voxels: group.voxels, sum, is_stuff });
    }
    let mut borders: Vec<BTreeMap<usize, f64>> = vec![BTreeMap::new(); parts.len()];
    for &(a, b) in &graph.links {
        let (a, b) = (of_voxel[a as usize], of_voxel[b as usize]);
        if a != b {
            *borders[a].entry(b).or_default() += 1.0;
            *borders[b].entry(a).or_default() += 1.0;
        }
    }
    // The smallest part first: it is the one most likely to be a piece of another.
    let mut order: Vec<usize> = (0..parts.len()).filter(|&i| !parts[i].is_stuff).collect();
    order.sort_by_key(|&i| (parts[i].voxels.len(), i));
    for i in order {
        let is_speck = parts[i].voxels.len() < settings.least_voxels;
        let label = parts[i].label();
        let fits = |j: usize, links: f64| {
            let other = &parts[j];
            let width = links / LINKS_PER_VOXEL / parts[i].edge().min(other.edge());
            is_speck
                || !other.is_stuff
                    && other.label() != label
                    && width >= settings.wide
                    && cosine(&parts[i].sum, &other.sum) >= settings.alike
        };
        let widest = borders[i].iter().filter(|&(&j, &links)| fits(j, links));
        let into = widest.max_by(|a, b| a.1.total_cmp(b.1).then(b.0.cmp(a.0))).map(|(&j, _)| j);
        if let Some(into) = into {
            merge(&mut parts, &mut borders, i, into);
        }
    }
    bridge(input, graph, &mut parts, settings);
    let is_object =
        |part: &Part| part.is_stuff && !part.voxels.is_empty() || part.voxels.len() >= settings.least_voxels;
    let group = |mut part: Part| {
        part.voxels.sort_unstable();
        Group { label: part.label(), voxels: part.voxels }
    };
    parts.into_iter().filter(is_object).map(group).collect()
}

/// Makes part `from` a part of `into`, with its borders.
fn merge(parts: &mut [Part], borders: &mut [BTreeMap<usize, f64>], from: usize, into: usize) {
    let Ok([from_part, into_part]) = parts.get_disjoint_mut([from, into]) else { return };
    into_part.take(from_part);
    for (other, links) in std::mem::take(&mut borders[from]) {
        borders[other].remove(&from);
        if other != into {
            *borders[into].entry(other).or_default() += links;
            *borders[other].entry(into).or_default() += links;
        }
    }
}

/// Joins fragments of a label to a larger part of it across a gap.
fn bridge(input: &Input<'_>, graph: &Graph, parts: &mut [Part], settings: &Settings) {
    let gap = (settings.gap * input.metre).max(f64::MIN_POSITIVE);
    let cell_of = |voxel: usize| graph.centers[voxel].map(|center| center.map(|x| (f64::from(x) / gap) as i64));
    let mut cells: BTreeMap<(i32, [i64; 3]), Vec<usize>> = BTreeMap::new();
    for part in parts.iter().filter(|part| !part.is_stuff) {
        for &voxel in &part.voxels {
            if let Some(cell) = cell_of(voxel) {
                cells.entry((part.label(), cell)).or_default().push(voxel);
            }
        }
    }
    let mut of_voxel = vec![usize::MAX; input.labels.len()];
    parts.iter().enumerate().for_each(|(i, part)| part.voxels.iter().for_each(|&voxel| of_voxel[voxel] = i));
    let mut order: Vec<usize> = (0..parts.len()).filter(|&i| !parts[i].is_stuff).collect();
    order.sort_by_key(|&i| (parts[i].voxels.len(), i));
    for i in order {
        let (label, size) = (parts[i].label(), parts[i].voxels.len() as f64);
        let mut near: BTreeMap<usize, usize> = BTreeMap::new();
        for &voxel in &parts[i].voxels {
            let (Some(center), Some(cell)) = (graph.centers[voxel], cell_of(voxel)) else { continue };
            let around = (0..27).map(|k| [cell[0] + k % 3 - 1, cell[1] + k / 3 % 3 - 1, cell[2] + k / 9 - 1]);
            for &other in around.filter_map(|cell| cells.get(&(label, cell))).flatten() {
                let j = of_voxel[other];
                let is_fragment = j != i && size <= settings.fragment * parts[j].voxels.len() as f64;
                let apart =
                    |other: [f32; 3]| (0..3).map(|axis| f64::from(center[axis] - other[axis]).powi(2)).sum::<f64>();
                if is_fragment && graph.centers[other].is_some_and(|other| apart(other) <= gap * gap) {
                    *near.entry(j).or_default() += 1;
                }
            }
        }
        let nearest = near.into_iter().max_by(|a, b| a.1.cmp(&b.1).then(b.0.cmp(&a.0)));
        if let Some((into, _)) = nearest {
            parts[i].voxels.iter().for_each(|&voxel| of_voxel[voxel] = into);
            if let Ok([from, into]) = parts.get_disjoint_mut([i, into]) {
                into.take(from);
            }
        }
    }
}
