//! Evaluation protocols of the benchmarks: splits, background, and ignored labels.

use std::borrow::Cow;

use serde::Serialize;

use super::Preset;

/// ScanNet200's novel classes, as in the configuration geopurify_scannet200 of GeoPurify's published code.
static SCANNET200_NOVEL: [usize; 50] = [
    5, 14, 16, 21, 25, 27, 30, 37, 40, 41, 43, 51, 53, 56, 60, 64, 69, 73, 80, 81, 84, 86, 88, 89, 91, 100, 102, 104,
    105, 108, 115, 120, 123, 135, 139, 142, 148, 149, 151, 152, 154, 162, 165, 173, 177, 178, 180, 190, 195, 196,
];
/// The numbers from 0 on. In the published configurations of Matterport3D's sets, the rarer half of the classes is novel.
static NUMBERS: [usize; 160] = {
    let mut numbers = [0; 160];
    let mut number = 0;
    while number < numbers.len() {
        numbers[number] = number;
        number += 1;
    }
    numbers
};

/// Evaluation protocol of a benchmark: which labels are ignored, and which classes are novel or background.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Protocol {
    /// Name of the protocol.
    pub name: &'static str,
    /// Number of classes that are predicted and evaluated.
    pub num_classes: usize,
    /// Labels that are ignored.
    pub ignore: &'static [i32],
    /// Novel classes; all others are base classes.
    pub novel: Cow<'static, [usize]>,
    /// Background classes, left out of foreground figures: wall, floor and ceiling, if the set has them.
    pub background: &'static [usize],
}

impl Protocol {
    /// ScanNet's first 19 classes; "other furniture" and unlabelled points are ignored.
    pub const SCANNET19: Self = Self {
        name: "scannet19",
        num_classes: 19,
        ignore: &[19, 20, 255],
        novel: Cow::Borrowed(&[9, 10, 11, 12, 14, 15, 16, 17, 18]),
        background: &[0, 1],
    };

    /// Matterport3D in ScanNet's 20 classes and "ceiling".
    pub const MATTERPORT21: Self = Self {
        name: "matterport21",
        num_classes: 21,
        ignore: &[255],
        novel: Cow::Borrowed(&[9, 10, 11, 12, 14, 15, 16, 17, 18, 19, 20]),
        background: &[0, 1, 20],
    };

    /// Returns the protocol of a label set: [`SCANNET19`](Self::SCANNET19) for ScanNet's 20 classes,
    /// [`MATTERPORT21`](Self::MATTERPORT21) for that set. Any other set is evaluated over all its classes. Novel
    /// ones are those of the published configurations; nuScenes and NYU40 have none. The protocol's classes are the first of
    /// the set.
    #[must_use]
    pub fn of_preset(preset: &Preset) -> Self {
        match preset.name {
            name if name == Preset::SCANNET20.name => Self::SCANNET19,
            name if name == Preset::MATTERPORT21.name => Self::MATTERPORT21,
            name => {
                // Wall, floor and ceiling.
                let background: &[usize] = match name {
                    name if name == Preset::SCANNET200.name => &[0, 2, 35],
                    name if name == Preset::NUSCENES16.name => &[],
                    name if name == Preset::NYU40.name => &[0, 1, 21],
                    _ => &[0, 2, 3],
                };
                let num_classes = preset.labels.len();
                let novel: &'static [usize] = match name {
                    name if name == Preset::SCANNET200.name => &SCANNET200_NOVEL,
                    name if name == Preset::NUSCENES16.name || name == Preset::NYU40.name => &[],
                    _ => NUMBERS.get(num_classes / 2..num_classes).unwrap_or_default(),
                };
                Self { name, num_classes, ignore: &[255], novel: Cow::Borrowed(novel), background }
            }
        }
    }

    /// The same protocol with these novel classes. All others are base classes.
    #[must_use]
    pub fn with_novel(self, mut novel: Vec<usize>) -> Self {
        novel.sort_unstable();
        novel.dedup();
        Self { novel: Cow::Owned(novel), ..self }
    }

    /// Returns all classes.
    #[must_use]
    pub fn all(&self) -> Vec<usize> {
        (0..self.num_classes).collect()
    }

    /// Returns the base classes: those that are not novel.
    #[must_use]
    pub fn base(&self) -> Vec<usize> {
        (0..self.num_classes).filter(|class| !self.novel.contains(class)).collect()
    }

    /// Returns the foreground classes: those that are not background.
    #[must_use]
    pub fn foreground(&self) -> Vec<usize> {
        (0..self.num_classes).filter(|class| !self.background.contains(class)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_divide_their_classes() {
        for preset in Preset::ALL {
            let protocol = Protocol::of_preset(&preset);
            assert!(protocol.num_classes <= preset.labels.len());
            let mut both = [protocol.base(), protocol.novel.to_vec()].concat();
            both.sort_unstable();
            assert_eq!(both, protocol.all(), "{}", protocol.name);
            assert_eq!(protocol.foreground().len() + protocol.background.len(), protocol.num_classes);
        }
        let num_novel = |preset| Protocol::of_preset(&preset).novel.len();
        let presets = [Preset::SCANNET200, Preset::MATTERPORT40, Preset::MATTERPORT80, Preset::MATTERPORT160];
        assert_eq!(presets.map(num_novel), [50, 20, 40, 80]);
        assert_eq!(Protocol::of_preset(&Preset::MATTERPORT40).novel[0], 20);
        let rare = &Protocol::of_preset(&Preset::SCANNET200).novel;
        let named = [0, 1, 49].map(|at| Preset::SCANNET200.labels[rare[at]]);
        assert_eq!(named, ["couch", "window", "poster"]);
        let of_streets = Protocol::of_preset(&Preset::NUSCENES16).with_novel(vec![3, 1, 3]);
        assert_eq!((of_streets.novel.as_ref(), of_streets.base().len()), (&[1, 3][..], 14));
        assert_eq!(Protocol::SCANNET19.base(), [0, 1, 2, 3, 4, 5, 6, 7, 8, 13]);
        let labels = Preset::MATTERPORT21.labels;
        assert_eq!(
            Protocol::MATTERPORT21.background.iter().map(|&c| labels[c]).collect::<Vec<_>>(),
            ["wall", "floor", "ceiling"]
        );
    }
}
