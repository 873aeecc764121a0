//! What the page is told about words: heat, new labels and objects, for every point.

use serde_json::{Value, json};

use super::blocks::{byte, message, words};
use super::results::Class;
use super::scan::{NONE, Scan, legend, number};
use crate::query::heat_range;
use crate::query::regions::{Found, Region};
use crate::session::{VoxelAnswer, VoxelLabels, Words};

/// Most objects in an answer.
const MOST_OBJECTS: usize = 1000;
/// Fewer voxels with one label are no object.
const FEW_VOXELS: usize = 30;

/// Objects of a scan, and which of them every voxel belongs to.
struct Objects {
    list: Vec<Value>,
    /// `[V]`: place in the list, from 1; 0 for none.
    of_voxel: Vec<u16>,
}

impl Objects {
    fn new(num_voxels: usize) -> Self {
        Self { list: Vec::new(), of_voxel: vec![0; num_voxels] }
    }

    /// Adds the regions of one label or question that have at least `least` voxels, as long as there is room.
    fn add(&mut self, found: &Found, name: &str, label: i32, least: usize) {
        let mut index_of: Vec<u16> = vec![0; found.regions.len()];
        for (region, index) in found.regions.iter().zip(&mut index_of) {
            if region.num_voxels >= least && self.list.len() < MOST_OBJECTS {
                self.list.push(object(region, name, label));
                *index = self.list.len() as u16;
            }
        }
        for (own, &region) in self.of_voxel.iter_mut().zip(&found.region_of_voxel) {
            if let Some(&index) = usize::try_from(region).ok().and_then(|region| index_of.get(region)) {
                *own = index;
            }
        }
    }
}

fn object(region: &Region, name: &str, label: i32) -> Value {
    let Region { num_voxels, best, mean, center, low, high } = region;
    json!({
        "name": name, "label": label, "voxels": num_voxels, "best": best, "mean": mean, "center": center, "low": low,
        "high": high,
    })
}

/// Connected parts of each label, the labels in their order, for `label [V]` and `score [V]`.
fn parts(scan: &Scan, names: &[String], label: &[i32], score: &[f32]) -> Objects {
    let mut objects = Objects::new(label.len());
    for (number, name) in (0..).zip(names) {
        let is_found: Vec<bool> = label.iter().map(|&label| label == number).collect();
        if is_found.contains(&true) {
            objects.add(&scan.surface.regions(score, &is_found, -1.0), name, number, FEW_VOXELS);
        }
    }
    objects
}

/// The parts of the labels that the scan has.
fn own(scan: &Scan) -> Objects {
    let names: Vec<String> = scan.classes().iter().map(|class| class.name.clone()).collect();
    parts(scan, &names, &scan.label_of_voxel, &scan.score_of_voxel)
}

/// The objects of the scan as the page lists them.
pub(super) fn listed(scan: &Scan) -> Vec<Value> {
    own(scan).list
}

/// The objects of the scan, then the object of every point.
pub(super) fn objects(scan: &Scan) -> Vec<u8> {
    let objects = own(scan);
    let mut reply = message(&json!({ "kind": "objects", "objects": objects.list }), scan.len() * 2);
    reply.extend(words(scan.onto_points(&objects.of_voxel, 0, |index| index)));
    reply
}

/// The answer to a question: its places, then the object and the heat of every point.
pub(super) fn answer(scan: &Scan, answer: &VoxelAnswer) -> Vec<u8> {
    let VoxelAnswer { question, known, competing, nearest, level, score, found, notes } = answer;
    let mut objects = Objects::new(score.len());
    let places = scan.surface.regions(score, found, *level);
    objects.add(&places, question, -1, 1);
    let (range, best) = heat_range(score);
    let text = json!({
        "kind": "answer", "question": question, "known": known, "competing": competing, "nearest": nearest,
        "level": level, "best": best, "heat_range": range, "notes": notes, "objects": objects.list,
        "places": places.regions.len(),
    });
    let mut reply = message(&text, scan.len() * 3);
    reply.extend(words(scan.onto_points(&objects.of_voxel, 0, |index| index)));
    reply.extend(scan.onto_points(score, 0, |score| byte(score, range)));
    reply
}

/// New labels: their legend and objects, then the object, the label, the score and the margin of every point.
pub(super) fn labels(scan: &Scan, asked: &Words, found: &VoxelLabels) -> Vec<u8> {
    let VoxelLabels { of_voxel, known, notes } = found;
    let objects = parts(scan, &asked.labels, &of_voxel.label, &of_voxel.score);
    let classes: Vec<Class> = (0..)
        .zip(&asked.labels)
        .zip(asked.colors.iter().zip(known))
        .map(|((label, name), (&color, &known))| Class { label, name: name.clone(), known, color })
        .collect();
    let label_of_point = || scan.onto_points(&of_voxel.label, NONE, number);
    let (score_range, _) = heat_range(&of_voxel.score);
    let (margin_range, _) = heat_range(&of_voxel.margin);
    let text = json!({
        "kind": "labels", "words": asked.labels, "notes": notes, "objects": objects.list,
        "legend": legend(&classes, &Class::none(), label_of_point()),
        "score_range": score_range, "margin_range": margin_range,
    });
    let mut reply = message(&text, scan.len() * 6);
    reply.extend(words(scan.onto_points(&objects.of_voxel, 0, |index| index)));
    reply.extend(words(label_of_point()));
    reply.extend(scan.onto_points(&of_voxel.score, 0, |score| byte(score, score_range)));
    reply.extend(scan.onto_points(&of_voxel.margin, 0, |margin| byte(margin, margin_range)));
    reply
}
