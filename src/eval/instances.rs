//! Metric of objects: average precision, as ScanNet's instance benchmark counts it.
//!
//! An object that is told and a true object match if the intersection of their points over the union is above a level.
//! The average precision is the area under the curve of precision over recall, where the score of an object is the
//! threshold. Its mean over levels from 0.5 to 0.9 in steps of 0.05 is AP, as the benchmark's script has them; AP50 and
//! AP25 are those at 0.5 and at 0.25.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

/// Smallest object in points. A smaller one that is told is left out; a smaller true one is neither found nor missed.
pub const MIN_POINTS: u64 = 100;

/// Levels of AP are so many, from 0.5 on.
const NUM_LEVELS: usize = 9;
/// Step from level to level.
const STEP: f64 = 0.05;

/// True objects of a scene.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrueInstances {
    /// Class of every object.
    classes: Vec<usize>,
    /// `[N]`: the object of every point, -1 for points of none. They are ignored.
    of_point: Vec<i32>,
}

impl TrueInstances {
    /// Objects are the points with the same class and the same number. `class_of_point [N]` is -1 for points that are
    /// ignored, because they have no class or that of a surface of the room; `instance_of_point [N]` tells objects of
    /// a class apart. Without a number for a point, it is ignored.
    #[must_use]
    pub fn new(class_of_point: &[i32], instance_of_point: &[i64]) -> Self {
        let mut numbers = HashMap::new();
        let mut classes = Vec::new();
        let of_point = class_of_point.iter().enumerate().map(|(point, &class)| {
            let (Ok(class), Some(&instance)) = (usize::try_from(class), instance_of_point.get(point)) else {
                return -1;
            };
            *numbers.entry((class, instance)).or_insert_with(|| {
                classes.push(class);
                classes.len() as i32 - 1
            })
        });
        let of_point = of_point.collect();
        Self { classes, of_point }
    }

    /// Number of objects, of any size.
    #[must_use]
    pub fn len(&self) -> usize {
        self.classes.len()
    }

    /// True if there are no objects.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.classes.is_empty()
    }

    /// Number of points of the scene.
    #[must_use]
    pub fn num_points(&self) -> usize {
        self.of_point.len()
    }
}

/// An object that is told.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// Its class.
    pub class: usize,
    /// Its score: of two, that with the higher one is counted first.
    pub score: f32,
    /// Indices of its points, each once.
    pub points: Vec<u32>,
}

impl Told {
    /// Objects that are told as classes and scores, and by `object_of_point [N]`: the index of the object of every
    /// point, -1 for none.
    #[must_use]
    pub fn of_points(objects: &[(usize, f32)], object_of_point: &[i32]) -> Vec<Self> {
        let mut told: Vec<Self> =
            objects.iter().map(|&(class, score)| Self { class, score, points: Vec::new() }).collect();
        for (point, &object) in (0..).zip(object_of_point) {
            if let Some(object) = usize::try_from(object).ok().and_then(|object| told.get_mut(object)) {
                object.points.push(point);
            }
        }
        told
    }
}

/// Class and size of a true object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrueObject {
    /// Its class.
    pub class: usize,
    /// Number of its points.
    pub points: u64,
}

/// An object that is told, compared with the true ones of its scene.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToldObject {
    /// Its class.
    pub class: usize,
    /// Its score.
    pub score: f32,
    /// Number of its points.
    pub points: u64,
    /// Number of its points that are of no true object.
    pub ignored: u64,
    /// True objects that share points with it, and the number of these points.
    pub shared: Vec<(usize, u64)>,
}

impl ToldObject {
    fn shared_with(&self, object: usize) -> u64 {
        self.shared.iter().find(|(other, _)| *other == object).map_or(0, |(_, points)| *points)
    }
}

/// True objects of a scene, and the told ones compared with them. All figures follow from such comparisons, without the
/// points.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Compared {
    /// The true objects.
    pub truth: Vec<TrueObject>,
    /// The objects that are told, those with too few points left out.
    pub told: Vec<ToldObject>,
}

impl Compared {
    /// Compares `told` objects with the true ones. Points that the scene lacks are left out.
    #[must_use]
    pub fn new(truth: &TrueInstances, told: &[Told]) -> Self {
        let mut of_truth: Vec<TrueObject> =
            truth.classes.iter().map(|&class| TrueObject { class, points: 0 }).collect();
        for object in &truth.of_point {
            if let Some(object) = usize::try_from(*object).ok().and_then(|object| of_truth.get_mut(object)) {
                object.points += 1;
            }
        }
        let compare = |object: &Told| {
            let (mut points, mut ignored, mut shared) = (0, 0, BTreeMap::new());
            for own in object.points.iter().filter_map(|&point| truth.of_point.get(point as usize)) {
                points += 1;
                match usize::try_from(*own) {
                    Ok(own) => *shared.entry(own).or_insert(0) += 1,
                    Err(_) => ignored += 1,
                }
            }
            let shared = shared.into_iter().collect();
            ToldObject { class: object.class, score: object.score, points, ignored, shared }
        };
        let told = told.iter().map(compare).filter(|object| object.points >= MIN_POINTS).collect();
        Self { truth: of_truth, told }
    }

    /// Number of true objects of `class` that are large enough to count.
    #[must_use]
    pub fn num_true(&self, class: usize) -> usize {
        self.truth.iter().filter(|object| object.class == class && object.points >= MIN_POINTS).count()
    }

    /// True if every index is that of a true object and no object shares more points than it has. Comparisons that are
    /// read from a file may be damaged.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        let is_whole = |object: &ToldObject| {
            object.score.is_finite()
                && object.shared.iter().all(|&(own, points)| {
                    let truth = self.truth.get(own);
                    truth.is_some_and(|truth| points <= truth.points && points <= object.points)
                })
        };
        self.told.iter().all(is_whole)
    }

    /// Counts the objects of `class`, or of all classes as one, at the overlap `level`, into `tally`.
    fn count(&self, class: Option<usize>, level: f64, tally: &mut Tally) {
        let is_own = |other: usize| class.is_none_or(|class| class == other);
        let told: Vec<&ToldObject> = self.told.iter().filter(|object| is_own(object.class)).collect();
        let is_large = |object: &TrueObject| object.points >= MIN_POINTS;
        tally.has_told |= !told.is_empty();
        let overlap = |own: usize, object: &ToldObject| {
            let shared = object.shared_with(own);
            let union = (self.truth[own].points + object.points).saturating_sub(shared);
            if union == 0 { 0.0 } else { shared as f64 / union as f64 }
        };
        let mut is_taken = vec![false; told.len()];
        let truth = self.truth.iter().enumerate();
        for (own, _) in truth.filter(|(_, object)| is_own(object.class) && is_large(object)) {
            tally.num_true += 1;
            let mut best: Option<f32> = None;
            for (told, is_taken) in told.iter().zip(&mut is_taken) {
                if *is_taken || overlap(own, told) <= level {
                    continue;
                }
                // Of several, the one with the highest score is right, the others are wrong.
                match best {
                    None => {
                        best = Some(told.score);
                        *is_taken = true;
                    }
                    Some(before) => {
                        tally.outcomes.push((before.min(told.score), false));
                        best = Some(before.max(told.score));
                    }
                }
            }
            tally.outcomes.extend(best.map(|score| (score, true)));
        }
        for object in told {
            let is_found = |&(own, _): &(usize, u64)| is_own(self.truth[own].class) && overlap(own, object) > level;
            if object.shared.iter().any(is_found) {
                continue;
            }
            let of_small: u64 = (object.shared.iter())
                .filter(|(own, _)| is_own(self.truth[*own].class) && !is_large(&self.truth[*own]))
                .map(|(_, points)| points)
                .sum();
            if (object.ignored + of_small) as f64 <= level * object.points as f64 {
                tally.outcomes.push((object.score, false));
            }
        }
    }
}

/// Outcomes of all scenes.
#[derive(Debug, Default)]
struct Tally {
    /// Number of true objects.
    num_true: usize,
    has_told: bool,
    /// Score of each counted object, and whether it is right.
    outcomes: Vec<(f32, bool)>,
}

impl Tally {
    /// The average precision; `None` without true objects.
    ///
    /// The curve has one place for each score, and one of precision 1 and recall 0. A place counts by half the recall
    /// between its neighbours.
    fn average_precision(mut self) -> Option<f64> {
        if self.num_true == 0 {
            return None;
        }
        if !self.has_told {
            return Some(0.0);
        }
        self.outcomes.sort_by(|a, b| b.0.total_cmp(&a.0));
        let (mut num_right, mut num_counted) = (0_usize, 0_usize);
        // From the highest score down: precision and recall.
        let mut places = vec![(1.0, 0.0)];
        for equal in self.outcomes.chunk_by(|a, b| a.0 == b.0) {
            num_counted += equal.len();
            num_right += equal.iter().filter(|(_, is_right)| *is_right).count();
            places.push((num_right as f64 / num_counted as f64, num_right as f64 / self.num_true as f64));
        }
        let last = places.len() - 1;
        let area = places.iter().enumerate().map(|(i, (precision, _))| {
            let (before, after) = (places[i.saturating_sub(1)].1, places[(i + 1).min(last)].1);
            precision * 0.5 * (after - before)
        });
        Some(area.sum())
    }
}

/// Average precisions; `None` without true objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct InstanceScores {
    /// Mean over the levels from 0.5 to 0.9.
    pub ap: Option<f64>,
    /// At an overlap of 0.5.
    pub ap50: Option<f64>,
    /// At an overlap of 0.25.
    pub ap25: Option<f64>,
}

impl InstanceScores {
    /// Scores of `class` over all `scenes`, or of all classes as one without a class.
    #[must_use]
    pub fn of(scenes: &[&Compared], class: Option<usize>) -> Self {
        let at = |level: f64| {
            let mut tally = Tally::default();
            scenes.iter().for_each(|scene| scene.count(class, level, &mut tally));
            tally.average_precision()
        };
        let levels = (0..NUM_LEVELS).map(|i| at(0.5 + STEP * i as f64));
        Self { ap: mean(levels), ap50: at(0.5), ap25: at(0.25) }
    }

    /// Mean over classes. Those without true objects are left out.
    #[must_use]
    pub fn mean(of_classes: &[Self]) -> Self {
        let of = |score: fn(&Self) -> Option<f64>| mean(of_classes.iter().map(score));
        Self { ap: of(|scores| scores.ap), ap50: of(|scores| scores.ap50), ap25: of(|scores| scores.ap25) }
    }
}

fn mean(values: impl Iterator<Item = Option<f64>>) -> Option<f64> {
    let known: Vec<f64> = values.flatten().collect();
    (!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn of_runs(runs: &[(i32, i64, usize)]) -> TrueInstances {
        let classes: Vec<i32> = runs.iter().flat_map(|&(class, _, n)| std::iter::repeat_n(class, n)).collect();
        let numbers: Vec<i64> = runs.iter().flat_map(|&(_, number, n)| std::iter::repeat_n(number, n)).collect();
        TrueInstances::new(&classes, &numbers)
    }

    fn told(class: usize, score: f32, points: std::ops::Range<u32>) -> Told {
        Told { class, score, points: points.collect() }
    }

    fn ap50(truth: &TrueInstances, objects: &[Told], class: Option<usize>) -> Option<f64> {
        InstanceScores::of(&[&Compared::new(truth, objects)], class).ap50
    }

    #[test]
    fn scores_are_those_of_an_independent_program() {
        let text = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/instances/case.json"));
        let case: Value = serde_json::from_str(text).unwrap();
        let scene = |scene: &Value| {
            let runs: Vec<(i32, i64, usize)> = serde_json::from_value(scene["truth"].clone()).unwrap();
            let objects: Vec<(usize, f32, u32, u32)> = serde_json::from_value(scene["predictions"].clone()).unwrap();
            let objects: Vec<Told> = objects.into_iter().map(|(class, score, a, b)| told(class, score, a..b)).collect();
            Compared::new(&of_runs(&runs), &objects)
        };
        let scenes: Vec<Compared> = case["scenes"].as_array().unwrap().iter().map(scene).collect();
        assert!(scenes.len() == 3 && scenes.iter().all(Compared::is_whole));
        let scenes: Vec<&Compared> = scenes.iter().collect();
        let near = |found: Option<f64>, expected: &Value| match (found, expected.as_f64()) {
            (Some(found), Some(expected)) => (found - expected).abs() < 1e-12,
            (found, expected) => found.is_none() && expected.is_none(),
        };
        let of_classes: Vec<InstanceScores> = (0..5).map(|class| InstanceScores::of(&scenes, Some(class))).collect();
        for (class, scores) in of_classes.iter().enumerate() {
            let expected = &case["class_aware"]["ap50_of_class"][class];
            assert!(near(scores.ap50, expected), "class {class}: {scores:?}, expected {expected}");
        }
        for (kind, found) in
            [("class_aware", InstanceScores::mean(&of_classes)), ("class_agnostic", InstanceScores::of(&scenes, None))]
        {
            let expected = &case[kind];
            let is_near = near(found.ap, &expected["ap"]) && near(found.ap50, &expected["ap50"]);
            assert!(is_near && near(found.ap25, &expected["ap25"]), "{kind}: {found:?}, expected {expected}");
        }
    }

    #[test]
    fn whole_objects_score_one_and_missing_ones_none() {
        let truth = of_runs(&[(0, 1, 200), (0, 2, 200), (-1, 0, 100), (1, 3, 200)]);
        let all = [told(0, 0.5, 0..200), told(0, 0.9, 200..400), told(1, 0.1, 500..700)];
        assert_eq!([Some(0), Some(1), None].map(|class| ap50(&truth, &all, class)), [Some(1.0); 3]);
        // One of two: the curve ends at a recall of a half.
        assert_eq!(ap50(&truth, &all[..1], Some(0)), Some(0.5));
        assert_eq!((ap50(&truth, &[], Some(0)), ap50(&truth, &all, Some(2))), (Some(0.0), None));
        // The class is wrong: only the objects as such are right.
        let wrong = [told(1, 0.5, 0..200), told(1, 0.5, 200..400), told(0, 0.5, 500..700)];
        assert_eq!((ap50(&truth, &wrong, Some(0)), ap50(&truth, &wrong, None)), (Some(0.0), Some(1.0)));
    }

    #[test]
    fn of_two_for_the_same_object_the_lower_score_is_wrong() {
        let truth = of_runs(&[(0, 1, 300), (0, 2, 300)]);
        let twice = [told(0, 0.4, 0..300), told(0, 0.8, 0..280), told(0, 0.2, 300..600)];
        // Right, wrong, right: precisions 1, 1, 1/2, 2/3 at recalls 0, 1/2, 1/2, 1.
        let expected = 1.0 * 0.25 + 1.0 * 0.25 + 0.5 * 0.25 + 2.0 / 3.0 * 0.25;
        assert!((ap50(&truth, &twice, Some(0)).unwrap() - expected).abs() < 1e-12);
    }

    #[test]
    fn objects_on_ignored_points_and_small_ones_are_left_out() {
        let truth = of_runs(&[(0, 1, 200), (-1, 0, 300), (0, 2, 60)]);
        let right = told(0, 0.5, 0..200);
        // Mostly ignored points; mostly a small true object and ignored points; too few points.
        for left_out in [told(0, 0.9, 150..400), told(0, 0.9, 440..560), told(0, 0.9, 0..99)] {
            assert_eq!(ap50(&truth, &[right.clone(), left_out], Some(0)), Some(1.0));
        }
        assert!(ap50(&truth, &[right, told(0, 0.9, 150..260)], Some(0)).unwrap() == 1.0);
        // Under a half of it is ignored.
        let truth = of_runs(&[(0, 1, 200), (1, 2, 300)]);
        assert!(ap50(&truth, &[told(0, 0.5, 0..200), told(0, 0.9, 200..500)], Some(0)).unwrap() < 1.0);
    }

    #[test]
    fn damaged_comparisons_are_known() {
        let truth = of_runs(&[(0, 1, 200)]);
        let whole = Compared::new(&truth, &[told(0, 0.5, 0..250)]);
        assert!(whole.is_whole());
        assert_eq!(whole.told[0].points, 200);
        let mut damaged = whole.clone();
        damaged.told[0].shared[0].0 = 1;
        assert!(!damaged.is_whole());
        let text = serde_json::to_string(&whole).unwrap();
        assert_eq!(serde_json::from_str::<Compared>(&text).unwrap(), whole);
    }
}
