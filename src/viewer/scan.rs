//! A labelled scan in the form in which the page draws it.

use std::path::Path;

use glam::DVec3;
use serde_json::{Value, json};

use super::ViewerError;
use super::blocks::{byte, message};
use super::octree::{Octree, octree};
use super::results::{Class, OfPoint, Results};
use crate::query::heat_range;
use crate::query::regions::Surface;
use crate::query::saved::Saved;
use crate::random::SplitMix64;
use crate::session::unit_of;

/// The label of points that have none.
pub(super) const NONE: u16 = u16::MAX;
/// Share of the points at each end of an axis that the camera need not show.
const STRAYS: f64 = 0.005;
/// Seed of the choice of points, if not all are shown.
const SEED: u64 = 0x7419;

/// A labelled scan, packed for the page. Points are in the order of the octree.
pub(super) struct Scan {
    name: String,
    classes: Vec<Class>,
    unlabelled: Class,
    origin: [f64; 3],
    up: [f64; 3],
    unit: Option<&'static str>,
    /// Usual distance of points from their neighbours.
    spacing: f64,
    /// Smallest and largest coordinates, relative to the origin.
    bounds: [[f32; 3]; 2],
    /// Where most of the points are, without strays far away.
    focus: [[f32; 3]; 2],
    has_colors: bool,
    has_lifted: bool,
    num_all: usize,
    score_range: [f32; 2],
    margin_range: [f32; 2],
    tree: Octree,
    /// `[N, 4]`: position in the cube, 0 to 65535, and label.
    places: Vec<[u16; 4]>,
    /// `[N, 4]`: red, green, blue, score.
    colors: Vec<[u8; 4]>,
    /// `[N, 2]`: label before purification, margin from 0 to 255.
    lifted: Vec<[u16; 2]>,
    /// `[N]`: voxel of every point, -1 for none.
    voxel: Vec<i32>,
    pub(super) surface: Surface,
    /// `[V]`: label and score of every voxel before any question.
    pub(super) label_of_voxel: Vec<i32>,
    pub(super) score_of_voxel: Vec<f32>,
}

impl Scan {
    /// Reads the results in `folder`, with `max_points` points at most. The others are left out at random. Returns
    /// the features too.
    pub(super) fn read(folder: &Path, name: &str, max_points: usize) -> Result<(Self, Saved), ViewerError> {
        let Results { scene, saved, classes, unlabelled, of_point } = Results::read(folder)?;
        let up = DVec3::from_array(saved.about.up);
        let appearance = scene.appearance(up);
        let num_all = scene.num_points();
        let shown = chosen(num_all, max_points.min(u32::MAX as usize));
        let points: Vec<[f32; 3]> = shown.iter().map(|&i| scene.points()[i as usize]).collect();
        let mut tree = octree(&points);
        let (score_range, _) = heat_range(&of_point.score);
        let (margin_range, _) = heat_range(&of_point.margin);
        let OfPoint { label, lifted, score, margin, voxel } = &of_point;
        let mut places = Vec::with_capacity(points.len());
        for node in &tree.nodes {
            for &at in &tree.order[node.start..node.start + node.count] {
                let p = points[at as usize];
                let share = |axis: usize| (f64::from(p[axis]) - node.low[axis]) / node.size;
                let [x, y, z] = std::array::from_fn(|axis| (share(axis).clamp(0.0, 1.0) * 65535.0 + 0.5) as u16);
                places.push([x, y, z, number(label[shown[at as usize] as usize])]);
            }
        }
        let order = || tree.order.iter().map(|&at| shown[at as usize] as usize);
        let colors = order().map(|i| {
            let [red, green, blue] = appearance.colors[i];
            [red, green, blue, byte(score[i], score_range)]
        });
        let colors = colors.collect();
        let before = |i: usize| lifted.as_ref().map_or(NONE, |lifted| number(lifted[i]));
        let packed = order().map(|i| [before(i), u16::from(byte(margin[i], margin_range))]).collect();
        let (mut label_of_voxel, mut score_of_voxel) = (vec![-1; saved.coords.len()], vec![0.0; saved.coords.len()]);
        for (i, &voxel) in voxel.iter().enumerate() {
            if let Ok(voxel) = usize::try_from(voxel) {
                (label_of_voxel[voxel], score_of_voxel[voxel]) = (label[i], score[i]);
            }
        }
        let surface = Surface::new(saved.coords.len(), scene.positions(), voxel).with_neighbors();
        let scan = Self {
            name: name.to_owned(),
            origin: scene.origin(),
            up: up.normalize_or(DVec3::Z).to_array(),
            unit: unit_of(folder, &scene).map(|unit| unit.symbol()),
            spacing: surface.spacing().unwrap_or(0.0) * (num_all as f64 / points.len().max(1) as f64).sqrt(),
            bounds: box_of(&points, 0.0),
            focus: box_of(&points, STRAYS),
            has_colors: scene.colors().is_some(),
            has_lifted: lifted.is_some(),
            num_all,
            score_range,
            margin_range,
            places,
            colors,
            lifted: packed,
            voxel: order().map(|i| voxel[i]).collect(),
            surface,
            label_of_voxel,
            score_of_voxel,
            tree: Octree { order: Vec::new(), nodes: std::mem::take(&mut tree.nodes) },
            classes,
            unlabelled,
        };
        Ok((scan, saved))
    }

    /// Number of points.
    pub(super) fn len(&self) -> usize {
        self.voxel.len()
    }

    /// The labels, by their numbers.
    pub(super) fn classes(&self) -> &[Class] {
        &self.classes
    }

    /// Describes the scan and its cubes.
    pub(super) fn describe(&self) -> Value {
        let nodes: Vec<Value> = (self.tree.nodes.iter())
            .map(|node| {
                let [x, y, z] = node.low.map(|x| x as f32);
                json!([x, y, z, node.size as f32, node.parent, node.start, node.count])
            })
            .collect();
        json!({
            "name": self.name, "points": self.len(), "all_points": self.num_all, "origin": self.origin, "up": self.up,
            "unit": self.unit, "has_colors": self.has_colors, "has_lifted": self.has_lifted,
            "score_range": self.score_range, "margin_range": self.margin_range, "nodes": nodes, "spacing": self.spacing, "bounds": self.bounds,
            "focus": self.focus,
            "legend": legend(&self.classes, &self.unlabelled, self.places.iter().map(|place| place[3])),
        })
    }

    /// The points from `start` to `end` for the page: places, colours, then labels before purification. `None` if there
    /// are no such points.
    pub(super) fn points(&self, start: usize, end: usize) -> Option<Vec<u8>> {
        let places = self.places.get(start..end)?;
        let mut bytes = Vec::with_capacity(places.len() * 16);
        bytes.extend(places.as_flattened().iter().flat_map(|x| x.to_le_bytes()));
        bytes.extend_from_slice(self.colors[start..end].as_flattened());
        bytes.extend(self.lifted[start..end].as_flattened().iter().flat_map(|x| x.to_le_bytes()));
        Some(bytes)
    }

    /// The description and all points in one message.
    pub(super) fn whole(&self) -> Vec<u8> {
        let mut whole = message(&self.describe(), self.len() * 16);
        whole.extend(self.points(0, self.len()).unwrap_or_default());
        whole
    }

    /// Brings values of voxels onto the points; those without a voxel get `none`.
    pub(super) fn onto_points<'a, T: Copy + 'a, R: Copy + 'a>(
        &'a self,
        of_voxel: &'a [T],
        none: R,
        shown: impl Fn(T) -> R + 'a,
    ) -> impl Iterator<Item = R> + 'a {
        self.voxel.iter().map(move |&voxel| {
            usize::try_from(voxel).ok().and_then(|voxel| of_voxel.get(voxel)).map_or(none, |&value| shown(value))
        })
    }
}

/// The number of a label on the page.
pub(super) fn number(label: i32) -> u16 {
    u16::try_from(label).unwrap_or(NONE)
}

/// The legend, with the number of points of every label among `labels`.
pub(super) fn legend(classes: &[Class], unlabelled: &Class, labels: impl Iterator<Item = u16>) -> Value {
    let mut counts = vec![0_usize; classes.len() + 1];
    labels.for_each(|label| counts[usize::from(label).min(classes.len())] += 1);
    let line = |(class, count): (&Class, &usize)| json!({ "label": class.label, "name": class.name, "known": class.known, "color": class.color, "points": count });
    classes.iter().chain([unlabelled]).zip(&counts).map(line).collect()
}

/// Box of finite points, without the share `strays` of them at either end of each axis.
fn box_of(points: &[[f32; 3]], strays: f64) -> [[f32; 3]; 2] {
    let mut found = [[0.0; 3]; 2];
    for axis in 0..3 {
        let mut along: Vec<f32> = points.iter().map(|p| p[axis]).collect();
        let Some(last) = along.len().checked_sub(1) else { continue };
        let out = (last as f64 * strays) as usize;
        found[0][axis] = *along.select_nth_unstable_by(out, f32::total_cmp).1;
        found[1][axis] = *along.select_nth_unstable_by(last - out, f32::total_cmp).1;
    }
    found
}

/// Indices of `most` of `count` points at most, chosen at random, ascending.
pub(super) fn chosen(count: usize, most: usize) -> Vec<u32> {
    let mut random = SplitMix64::new(SEED);
    let mut left = most.min(count);
    // Each point is taken with the share of the points still wanted among those still there.
    let is_chosen = |i: usize| {
        let takes = random.below(count - i) < left;
        left -= usize::from(takes);
        takes
    };
    let mut is_chosen = is_chosen;
    (0..count.min(u32::MAX as usize)).filter(|&i| is_chosen(i)).map(|i| i as u32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_left_out_evenly() {
        assert_eq!(chosen(5, 9), [0, 1, 2, 3, 4]);
        let some = chosen(100_000, 1000);
        assert_eq!(some.len(), 1000);
        assert!(some.is_sorted_by(|a, b| a < b));
        let first_half = some.iter().filter(|&&i| i < 50_000).count();
        assert!((420..580).contains(&first_half), "{first_half}");
        assert!(chosen(0, 10).is_empty());
    }

    #[test]
    fn strays_do_not_widen_the_focus() {
        let mut points: Vec<[f32; 3]> = (0..1000).map(|i| [i as f32, 1.0, -(i as f32)]).collect();
        points.push([1e6, 1.0, 0.0]);
        assert_eq!(box_of(&points, 0.0), [[0.0, 1.0, -999.0], [1e6, 1.0, 0.0]]);
        assert_eq!(box_of(&points, STRAYS), [[5.0, 1.0, -994.0], [995.0, 1.0, -4.0]]);
        assert_eq!(box_of(&[], 0.0), [[0.0; 3]; 2]);
    }

    #[test]
    fn the_legend_counts_points() {
        let class = |label: i32, name: &str| Class { label, name: name.to_owned(), known: true, color: [1, 2, 3] };
        let lines = legend(&[class(0, "chair")], &Class::none(), [0, 0, NONE].into_iter());
        assert_eq!((&lines[0]["name"], &lines[0]["points"]), (&json!("chair"), &json!(2)));
        assert_eq!((&lines[1]["name"], &lines[1]["points"]), (&json!("unlabelled"), &json!(1)));
    }
}
