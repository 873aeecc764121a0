//! Pool of views to train on. Views that show rare classes are drawn more often.

use rayon::prelude::*;

use super::PretrainError;
use super::rooms::LabelledView;
use crate::labels::nyu40::SCANNET20;
use crate::random::SplitMix64;

/// Least share of a view's pixels at which a class counts as shown.
const SHOWN: f64 = 0.01;

/// Labelled views with their weights for drawing.
#[derive(Clone, Debug, Default)]
pub struct ViewPool {
    views: Vec<LabelledView>,
    /// Sum of the weights up to and including each view.
    weight_to: Vec<f64>,
}

impl ViewPool {
    /// Makes a pool of `views`. A class of ScanNet is rare if fewer than a share `rare_below` of the views
    /// show it. Views that show a rare class get a larger weight, by the factor that the class lacks to this
    /// share. The rarest class of a view decides. This follows the repeat factors of Gupta, Dollár and
    /// Girshick (LVIS, CVPR 2019), without their square root. With 0, all views have the same weight.
    ///
    /// # Errors
    /// [`PretrainError`] if labels cannot be read.
    pub fn new(views: Vec<LabelledView>, rare_below: f64) -> Result<Self, PretrainError> {
        let weights = if rare_below > 0.0 {
            let shown = views.par_iter().map(|view| Ok(classes_shown(&view.read_labels()?)));
            weights(&shown.collect::<Result<Vec<_>, PretrainError>>()?, rare_below)
        } else {
            vec![1.0; views.len()]
        };
        let mut sum = 0.0;
        let weight_to = weights.into_iter().map(|weight| {
            sum += weight;
            sum
        });
        Ok(Self { weight_to: weight_to.collect(), views })
    }

    /// Returns the number of views.
    #[must_use]
    pub fn len(&self) -> usize {
        self.views.len()
    }

    /// True if there are no views.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.views.is_empty()
    }

    /// Draws a view. Returns `None` if there are none.
    pub fn draw(&self, random: &mut SplitMix64) -> Option<&LabelledView> {
        let at = random.unit() * self.weight_to.last()?;
        self.views.get(self.weight_to.partition_point(|&to| to <= at)).or(self.views.last())
    }
}

/// Returns for each of ScanNet's 20 classes whether `labels`, NYU40's numbers, show it.
fn classes_shown(labels: &[u8]) -> [bool; SCANNET20.len()] {
    let mut counts = [0_usize; 256];
    labels.iter().for_each(|&label| counts[usize::from(label)] += 1);
    SCANNET20.map(|class| counts[usize::from(class)] as f64 > SHOWN * labels.len() as f64)
}

/// Returns the weight of each view, from the classes that it shows.
fn weights(shown: &[[bool; SCANNET20.len()]], rare_below: f64) -> Vec<f64> {
    let factor = |class: usize| {
        let count = shown.iter().filter(|shown| shown[class]).count();
        (rare_below * shown.len() as f64 / count.max(1) as f64).max(1.0)
    };
    let factors: [f64; SCANNET20.len()] = std::array::from_fn(factor);
    let weight = |shown: &[bool; SCANNET20.len()]| {
        shown.iter().zip(&factors).filter(|(is_shown, _)| **is_shown).map(|(_, &factor)| factor).fold(1.0, f64::max)
    };
    shown.iter().map(weight).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(name: &str) -> LabelledView {
        LabelledView { colors: name.into(), labels: name.into() }
    }

    #[test]
    fn rare_classes_weigh_what_they_lack() {
        let with = |classes: &[usize]| std::array::from_fn(|class| classes.contains(&class));
        // Of ten views, all show class 0, four class 1 and one class 2.
        let mut shown = vec![with(&[0]); 6];
        shown.extend([with(&[0, 1]), with(&[0, 1]), with(&[0, 1]), with(&[0, 1, 2])]);
        assert_eq!(weights(&shown, 0.5), [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.25, 1.25, 1.25, 5.0]);
        assert_eq!(weights(&shown, 0.1), [1.0; 10]);
    }

    #[test]
    fn a_class_is_shown_from_a_hundredth_on() {
        let mut labels = vec![0; 1000];
        labels[..500].fill(1);
        labels[500..510].fill(4);
        labels[510..521].fill(6);
        let shown: Vec<usize> =
            classes_shown(&labels).iter().enumerate().filter(|(_, shown)| **shown).map(|(class, _)| class).collect();
        // Wall and sofa are shown. The bed covers no more than a hundredth, and 0 is no class.
        assert_eq!(shown, [0, 5]);
    }

    #[test]
    fn views_are_drawn_by_their_weight() {
        let pool = ViewPool { views: ["a", "b", "c"].map(view).to_vec(), weight_to: vec![1.0, 4.0, 5.0] };
        let mut random = SplitMix64::new(3);
        let mut counts = [0; 3];
        for _ in 0..5000 {
            let drawn = pool.draw(&mut random).unwrap();
            counts[["a", "b", "c"].iter().position(|&name| drawn == &view(name)).unwrap()] += 1;
        }
        // Within four standard deviations of 1000, 3000 and 1000.
        assert!((885..=1115).contains(&counts[0]) && (2860..=3140).contains(&counts[1]), "{counts:?}");
        assert_eq!(counts.iter().sum::<i32>(), 5000);
        assert_eq!(ViewPool::default().draw(&mut random), None);
    }

    #[test]
    fn all_weigh_the_same_without_a_share() {
        let pool = ViewPool::new(vec![view("a"), view("b")], 0.0).unwrap();
        assert_eq!((pool.len(), pool.weight_to), (2, vec![1.0, 2.0]));
    }
}
