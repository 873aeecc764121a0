//! Objects: the instances that labels of voxels are split into.
//!
//! Labels say what a voxel is, and not which of two chairs it belongs to. [`find`] decides that in four steps.
//!
//! 1. Voxels of one label that touch are one part. Voxels of stuff (walls, floors) are one object for each label.
//! 2. A part is cut where it is narrow: where the border, which counts less if the features on its sides differ, is
//!    short for the size of the smaller side. So chairs that meet at an arm part, and a sofa in two colours stays whole.
//! 3. Parts of different labels become one if their border is wide and their features agree. The label that most
//!    voxels have names the whole. Specks join what they touch most.
//! 4. Parts of one label with a small gap between them are joined if one is a fragment beside the other. What is too
//!    small then is no object.
//!
//! Nothing depends on chance: the same scan gives the same objects.

mod bounds;
mod catalogue;
mod cut;
mod export;
mod graph;
mod join;

pub use bounds::OrientedBox;
pub use catalogue::{CSV_FILE, Catalogue, CatalogueError, FILE_NAME};
pub use export::write_boxes;

use serde::{Deserialize, Serialize};

use crate::ops::present;
use crate::query::regions::Surface;
use bounds::BoxFinder;
use graph::Graph;

/// Name of objects that no word names.
pub const UNLABELLED: &str = "unlabelled object";

/// A scan in voxels with their labels. `N` is the number of points, `V` that of `labels`.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// `[N]` positions in the scan's unit.
    pub positions: &'a [[f64; 3]],
    /// `[N]` colours.
    pub colors: Option<&'a [[u8; 3]]>,
    /// `[N]`: voxel of every point, -1 for none.
    pub voxel_from_point: &'a [i32],
    /// `[V, C]` purified features, row-major.
    pub features: &'a [f32],
    /// Number of channels, C.
    pub num_channels: usize,
    /// `[V]` labels; -1 for none.
    pub labels: &'a [i32],
    /// `[V]` cosines with the label.
    pub scores: &'a [f32],
    /// Names of the labels.
    pub names: &'a [String],
    /// True for labels that are stuff, in the order of the names. Missing ones are things.
    pub is_stuff: &'a [bool],
    /// Up direction.
    pub up: [f64; 3],
    /// Length of a metre in the scan's unit.
    pub metre: f64,
}

impl Input<'_> {
    fn is_stuff(&self, label: i32) -> bool {
        usize::try_from(label).ok().and_then(|label| self.is_stuff.get(label)).copied().unwrap_or(false)
    }

    fn name(&self, label: i32) -> String {
        let name = usize::try_from(label).ok().and_then(|label| self.names.get(label));
        name.cloned().unwrap_or_else(|| UNLABELLED.to_owned())
    }
}

/// Thresholds of [`find`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Edge of the blocks of voxels between which parts are cut, in metres.
    pub block: f64,
    /// A part is cut if the border is shorter than this, as a multiple of the edge of a square as large as the
    /// smaller side.
    pub narrow: f64,
    /// Least share of a part that is cut off.
    pub least_share: f64,
    /// Least width of the border, in the same measure, at which parts of different labels become one.
    pub wide: f64,
    /// Least cosine of their mean features for that.
    pub alike: f64,
    /// Largest gap within one object, in metres.
    pub gap: f64,
    /// A fragment is at most this large, as a share of what it joins.
    pub fragment: f64,
    /// Smallest number of voxels of an object.
    pub least_voxels: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            block: 0.1,
            narrow: 0.2,
            least_share: 0.15,
            wide: 0.6,
            alike: 0.9,
            gap: 0.1,
            fragment: 0.5,
            least_voxels: 20,
        }
    }
}

/// One object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Object {
    /// Number of the object, from 0: by label, unlabelled ones last, then by size, largest first.
    pub id: usize,
    /// Index of its label, -1 for none.
    pub label: i32,
    /// Name of its label.
    pub name: String,
    /// Mean cosine of its voxels with their labels.
    pub score: f64,
    /// Number of points.
    pub points: usize,
    /// Number of voxels.
    pub voxels: usize,
    /// Mean colour of its points; `None` if the scan has no colours.
    pub color: Option<[u8; 3]>,
    /// Its box.
    #[serde(rename = "box")]
    pub bounds: OrientedBox,
}

/// Objects of a scan.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    /// `[V]`: index of the object of every voxel, -1 for none.
    pub of_voxel: Vec<i32>,
    /// The objects, by their number.
    pub objects: Vec<Object>,
}

/// Finds the objects with the usual settings. A missing row of an input counts as zeros.
#[must_use]
pub fn find(input: &Input<'_>) -> Found {
    find_with(input, &Settings::default())
}

/// Finds the objects.
#[must_use]
pub fn find_with(input: &Input<'_>, settings: &Settings) -> Found {
    let graph = Graph::new(input);
    let parts = cut::parts(input, &graph, settings);
    let groups = join::joined(input, &graph, parts, settings);
    catalogued(input, groups)
}

/// The simplest objects, for comparison: connected groups of the voxels of a label, of any size. Stuff is left whole.
#[must_use]
pub fn baseline(input: &Input<'_>) -> Found {
    let surface = Surface::new(input.labels.len(), input.positions, input.voxel_from_point).with_neighbors();
    let mut labels: Vec<i32> = input.labels.to_vec();
    labels.sort_unstable();
    labels.dedup();
    let mut groups = Vec::new();
    for label in labels {
        let wanted: Vec<bool> = input.labels.iter().map(|&other| other == label).collect();
        let scores = vec![1.0; wanted.len()];
        let found = surface.regions(&scores, &wanted, 0.0);
        let count = if input.is_stuff(label) { 1 } else { found.regions.len() };
        let mut members = vec![Vec::new(); count];
        for (voxel, &region) in found.region_of_voxel.iter().enumerate() {
            let region = if input.is_stuff(label) { region.min(0) } else { region };
            if let Some(region) = present(region, count) {
                members[region].push(voxel);
            }
        }
        groups.extend(members.into_iter().map(|voxels| Group { label, voxels }));
    }
    catalogued(input, groups)
}

/// Voxels that are one object.
#[derive(Clone, Debug)]
struct Group {
    label: i32,
    /// Voxels, ascending.
    voxels: Vec<usize>,
}

/// Describes groups as objects, in their order.
fn catalogued(input: &Input<'_>, mut groups: Vec<Group>) -> Found {
    groups.retain(|group| !group.voxels.is_empty());
    let order = |label: i32| if label < 0 { i32::MAX } else { label };
    groups.sort_by(|a, b| {
        let by_size = b.voxels.len().cmp(&a.voxels.len());
        order(a.label).cmp(&order(b.label)).then(by_size).then(a.voxels.cmp(&b.voxels))
    });
    let mut of_voxel = vec![-1; input.labels.len()];
    for (index, group) in (0..).zip(&groups) {
        group.voxels.iter().for_each(|&voxel| of_voxel[voxel] = index);
    }
    let mut points = vec![Vec::new(); groups.len()];
    for (point, &voxel) in input.voxel_from_point.iter().take(input.positions.len()).enumerate() {
        let object = present(voxel, of_voxel.len()).and_then(|voxel| present(of_voxel[voxel], groups.len()));
        if let Some(object) = object {
            points[object].push(point);
        }
    }
    let finder = BoxFinder::new(input.up);
    let describe = |(id, (group, points)): (usize, (&Group, &Vec<usize>))| {
        let scores = group.voxels.iter().map(|&voxel| input.scores.get(voxel).copied().map_or(0.0, f64::from));
        Object {
            id,
            label: group.label,
            name: input.name(group.label),
            score: scores.sum::<f64>() / group.voxels.len() as f64,
            points: points.len(),
            voxels: group.voxels.len(),
            color: input.colors.map(|colors| mean_color(colors, points)),
            bounds: finder.of(input.positions, points),
        }
    };
    let objects = groups.iter().zip(&points).enumerate().map(describe).collect();
    Found { of_voxel, objects }
}

/// Mean colour of `points`; black without any.
fn mean_color(colors: &[[u8; 3]], points: &[usize]) -> [u8; 3] {
    let known = || points.iter().filter_map(|&point| colors.get(point));
    let count = known().count().max(1) as f64;
    std::array::from_fn(|c| (known().map(|color| f64::from(color[c])).sum::<f64>() / count).round() as u8)
}

#[cfg(test)]
mod tests;
