//! How benchmarks evaluate their label sets: splits, background, and what is ignored.

use serde::Serialize;

use super::Preset;

/// How a benchmark is evaluated: what is ignored, and which classes count as new or as background.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Protocol {
    /// Its name.
    pub name: &'static str,
    /// Number of classes that are predicted and evaluated.
    pub num_classes: usize,
    /// Labels that are not counted.
    pub ignore: &'static [i32],
    /// Classes called novel; the others are base.
    pub novel: &'static [usize],
    /// Wall, floor and ceiling, as far as there are such: what foreground figures leave out.
    pub background: &'static [usize],
}

impl Protocol {
    /// ScanNet's first 19 classes; "other furniture" and unlabelled points are ignored.
    pub const SCANNET19: Self = Self {
        name: "scannet19",
        num_classes: 19,
        ignore: &[19, 20, 255],
        novel: &[9, 10, 11, 12, 14, 15, 16, 17, 18],
        background: &[0, 1],
    };

    /// Matterport3D in ScanNet's 20 classes and "ceiling".
    pub const MATTERPORT21: Self = Self {
        name: "matterport21",
        num_classes: 21,
        ignore: &[255],
        novel: &[9, 10, 11, 12, 14, 15, 16, 17, 18, 19, 20],
        background: &[0, 1, 20],
    };

    /// How a label set is evaluated: ScanNet's 20 as [`SCANNET19`](Self::SCANNET19), [`MATTERPORT21`](Self::MATTERPORT21) as
    /// such, others over all their classes, without novel ones. The classes are the set's first.
    #[must_use]
    pub fn of_preset(preset: &Preset) -> Self {
        match preset.name {
            name if name == Preset::SCANNET20.name => Self::SCANNET19,
            name if name == Preset::MATTERPORT21.name => Self::MATTERPORT21,
            name => {
                // Wall, floor and ceiling.
                let background: &[usize] = if name == Preset::SCANNET200.name { &[0, 2, 35] } else { &[0, 2, 3] };
                Self { name, num_classes: preset.labels.len(), ignore: &[255], novel: &[], background }
            }
        }
    }

    /// All classes.
    #[must_use]
    pub fn all(&self) -> Vec<usize> {
        (0..self.num_classes).collect()
    }

    /// The classes that are not novel.
    #[must_use]
    pub fn base(&self) -> Vec<usize> {
        (0..self.num_classes).filter(|class| !self.novel.contains(class)).collect()
    }

    /// The classes that are no background.
    #[must_use]
    pub fn foreground(&self) -> Vec<usize> {
        (0..self.num_classes).filter(|class| !self.background.contains(class)).collect()
    }
}
