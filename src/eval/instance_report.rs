//! Figures of objects over many scenes.

use serde::{Deserialize, Serialize};

use super::instances::{Compared, InstanceScores};

/// Objects of a scene, compared with the true ones.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SceneInstances {
    /// True if the true objects are connected parts of the labels, because the scene tells no others apart.
    pub of_parts: bool,
    /// The objects that this program tells.
    pub objects: Compared,
    /// The connected regions of its labels, as the baseline.
    pub baseline: Compared,
}

impl SceneInstances {
    /// True unless a comparison is damaged or has a class of `num_classes` or more.
    #[must_use]
    pub fn is_whole(&self, num_classes: usize) -> bool {
        let is_whole = |compared: &Compared| {
            let classes = compared.truth.iter().map(|object| object.class);
            classes.chain(compared.told.iter().map(|object| object.class)).all(|class| class < num_classes)
                && compared.is_whole()
        };
        is_whole(&self.objects) && is_whole(&self.baseline)
    }
}

/// Average precisions of one class.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClassScores {
    /// Label of the class.
    pub name: String,
    /// Number of its true objects that are large enough to count.
    pub num_true: usize,
    /// Its scores.
    pub scores: InstanceScores,
}

/// Average precisions of one way to tell objects.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct InstanceFigures {
    /// Number of objects that are told and large enough to count.
    pub num_told: usize,
    /// Mean over the classes that have true objects. An object is right only with its class.
    pub class_aware: InstanceScores,
    /// All classes as one: whatever the object is called.
    pub class_agnostic: InstanceScores,
    /// Scores of each class that is counted.
    pub classes: Vec<ClassScores>,
}

/// Figures of the objects of all scenes that tell their true objects apart.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct InstanceReport {
    /// Number of these scenes.
    pub num_scenes: usize,
    /// Number of those whose true objects are connected parts of the labels.
    pub num_of_parts: usize,
    /// Number of true objects that are large enough to count.
    pub num_true: usize,
    /// Figures of the objects that this program tells.
    pub objects: InstanceFigures,
    /// Figures of the connected regions of its labels.
    pub baseline: InstanceFigures,
}

impl InstanceReport {
    /// Combines `scenes`; `None` if there are none. `labels` name the classes. Classes without a true object are left
    /// out.
    #[must_use]
    pub fn new(scenes: &[&SceneInstances], labels: &[String]) -> Option<Self> {
        let of = |compared: fn(&SceneInstances) -> &Compared| -> Vec<&Compared> {
            scenes.iter().map(|scene| compared(scene)).collect()
        };
        let objects = figures(&of(|scene| &scene.objects), labels);
        let baseline = figures(&of(|scene| &scene.baseline), labels);
        (!scenes.is_empty()).then(|| Self {
            num_scenes: scenes.len(),
            num_of_parts: scenes.iter().filter(|scene| scene.of_parts).count(),
            num_true: objects.classes.iter().map(|class| class.num_true).sum(),
            objects,
            baseline,
        })
    }
}

fn figures(scenes: &[&Compared], labels: &[String]) -> InstanceFigures {
    let of_class = |(class, name): (usize, &String)| {
        let num_true = scenes.iter().map(|scene| scene.num_true(class)).sum();
        (num_true > 0).then(|| ClassScores {
            name: name.clone(),
            num_true,
            scores: InstanceScores::of(scenes, Some(class)),
        })
    };
    let classes: Vec<ClassScores> = labels.iter().enumerate().filter_map(of_class).collect();
    let scores: Vec<InstanceScores> = classes.iter().map(|class| class.scores).collect();
    InstanceFigures {
        num_told: scenes.iter().map(|scene| scene.told.len()).sum(),
        class_aware: InstanceScores::mean(&scores),
        class_agnostic: InstanceScores::of(scenes, None),
        classes,
    }
}

#[cfg(test)]
mod tests {
    use super::super::instances::{ToldObject, TrueObject};
    use super::*;

    fn compared(class: usize) -> Compared {
        let truth = vec![TrueObject { class: 0, points: 200 }, TrueObject { class: 1, points: 99 }];
        let told = vec![ToldObject { class, score: 0.5, points: 200, ignored: 0, shared: vec![(0, 190)] }];
        Compared { truth, told }
    }

    #[test]
    fn figures_join_scenes_and_name_classes() {
        let scene = SceneInstances { of_parts: true, objects: compared(0), baseline: compared(1) };
        let labels = ["chair", "lamp"].map(str::to_owned);
        let report = InstanceReport::new(&[&scene, &scene], &labels).unwrap();
        assert_eq!((report.num_scenes, report.num_of_parts, report.num_true), (2, 2, 2));
        assert_eq!((report.objects.num_told, report.objects.classes.len()), (2, 1));
        assert_eq!((report.objects.class_aware.ap50, report.objects.class_agnostic.ap50), (Some(1.0), Some(1.0)));
        assert_eq!((report.baseline.class_aware.ap50, report.baseline.class_agnostic.ap50), (Some(0.0), Some(1.0)));
        // An overlap of 190 / 210 is above all levels but none.
        assert_eq!((report.objects.classes[0].name.as_str(), report.objects.class_aware.ap), ("chair", Some(1.0)));
        assert_eq!(InstanceReport::new(&[], &labels), None);
    }

    #[test]
    fn classes_beyond_the_labels_are_damage() {
        let scene = SceneInstances { of_parts: false, objects: compared(0), baseline: compared(2) };
        assert!(scene.is_whole(3) && !scene.is_whole(2));
    }
}
