//! Settings of training a student.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::DistillError;

use crate::ops::contrastive_pairs::MAX_MACRO;
use crate::ops::knn::MAX_K;
use crate::training::PUBLISHED_FACTORS;

/// Named set of training settings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Recipe {
    /// Settings of the paper, and of its published code for everything that the paper leaves open.
    #[default]
    Paper,
    /// Settings of the published code.
    Reference,
    /// Settings of the published code for Matterport3D's 80 classes.
    #[serde(rename = "reference-matterport80")]
    ReferenceMatterport80,
    /// Settings of the published code for Matterport3D's 160 classes.
    #[serde(rename = "reference-matterport160")]
    ReferenceMatterport160,
}

impl Recipe {
    /// All recipes.
    pub const ALL: [Self; 4] =
        [Self::Paper, Self::Reference, Self::ReferenceMatterport80, Self::ReferenceMatterport160];
}

impl fmt::Display for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Paper => "paper",
            Self::Reference => "reference",
            Self::ReferenceMatterport80 => "reference-matterport80",
            Self::ReferenceMatterport160 => "reference-matterport160",
        })
    }
}

/// Name that is not one of [`Recipe`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no recipe \"{}\"; there are {}", .0, Recipe::ALL.map(|recipe| recipe.to_string()).join(", "))]
pub struct UnknownRecipe(String);

impl FromStr for Recipe {
    type Err = UnknownRecipe;

    fn from_str(name: &str) -> Result<Self, UnknownRecipe> {
        Self::ALL.into_iter().find(|recipe| recipe.to_string() == name).ok_or_else(|| UnknownRecipe(name.to_owned()))
    }
}

/// Kind of samples from which anchors, positives and negatives are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Samples {
    /// Voxels of a scene. Distances are between integer coordinates, as in purification.
    Voxels,
    /// Points of a scene. Distances are in metres.
    Points,
}

/// Voxels that the student gets as input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Shown {
    /// All voxels of the scene, as in purification.
    Scene,
    /// Only voxels that contain an anchor, a positive or a negative. Each is the mean of these samples in it.
    Sampled,
}

/// Choice of the positive of an anchor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Positives {
    /// The sample that the teacher finds most similar. It is nearly always from the anchor's own cell, over
    /// which the teacher's features are constant.
    Sample,
    /// A sample of the most similar cell other than the anchor's own. So the student also learns what belongs
    /// together beyond a single cell.
    Cell,
}

/// Settings of training a student. A settings file names a recipe and lists the values that differ from it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Recipe of all settings that a file does not list. Files of earlier versions call it `preset`.
    #[serde(alias = "preset")]
    pub recipe: Recipe,
    /// Seed of weights, scene order, anchors, crops and augmentation.
    pub seed: u64,
    /// Number of times every scene is used.
    pub epochs: usize,
    /// Number of scenes per optimizer step; their gradients are averaged.
    pub accumulate: usize,
    /// Learning rate between warm-up and decay.
    pub learning_rate: f64,
    /// Factors of the learning rate for the input layer, the residual blocks and the output layer.
    pub rate_factors: [f64; 3],
    /// Lowest learning rate, as a share of `learning_rate`.
    pub final_rate: f64,
    /// Number of warm-up epochs.
    pub warmup_epochs: usize,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Most anchors per scene. There are never more than a third of its samples.
    pub anchors: usize,
    /// Negatives per anchor that are least similar to it in the whole scene.
    pub macro_negatives: usize,
    /// Negatives per anchor that are least similar to it among its spatial neighbours.
    pub micro_negatives: usize,
    /// Number of spatial neighbours of an anchor.
    pub spatial_neighbors: usize,
    /// Temperature of the contrastive loss.
    pub temperature: f32,
    /// Choice of the positive of an anchor.
    pub positives: Positives,
    /// Kind of samples.
    pub samples: Samples,
    /// Voxels that the student gets as input.
    pub shown: Shown,
    /// True if the voxel grid is rotated and scaled at random at every step. Only for samples that are
    /// points.
    pub augment: bool,
    /// Number of channels inside the student.
    pub hidden_dim: usize,
    /// Number of channels of its embedding.
    pub embed_dim: usize,
}

impl Config {
    /// Settings of a recipe.
    #[must_use]
    pub fn of(recipe: Recipe) -> Self {
        let paper = Self {
            recipe,
            seed: 0,
            epochs: 50,
            accumulate: 1,
            learning_rate: 1e-3,
            rate_factors: [1.0; 3],
            final_rate: 1e-3,
            warmup_epochs: 2,
            weight_decay: 1e-5,
            anchors: 4096,
            macro_negatives: 48,
            micro_negatives: 16,
            spatial_neighbors: 96,
            temperature: 0.07,
            positives: Positives::Sample,
            samples: Samples::Voxels,
            shown: Shown::Scene,
            augment: false,
            hidden_dim: 512,
            embed_dim: 128,
        };
        let reference = Self {
            epochs: 100,
            learning_rate: 1e-4,
            rate_factors: PUBLISHED_FACTORS,
            micro_negatives: 15,
            samples: Samples::Points,
            shown: Shown::Sampled,
            augment: true,
            ..paper.clone()
        };
        match recipe {
            Recipe::Paper => paper,
            Recipe::Reference => reference,
            Recipe::ReferenceMatterport80 => Self { warmup_epochs: 3, ..reference },
            Recipe::ReferenceMatterport160 => {
                Self { learning_rate: 8e-5, warmup_epochs: 5, weight_decay: 2e-5, ..reference }
            }
        }
    }

    /// Parses settings in TOML on top of `recipe`, or else of the recipe that the text names, or else of the
    /// default one.
    ///
    /// # Errors
    /// [`DistillError::Config`] if the text is not TOML or names an unknown setting, and the errors of
    /// [`validate`](Self::validate).
    pub fn parse(text: &str, recipe: Option<Recipe>) -> Result<Self, DistillError> {
        let invalid = |reason: String| DistillError::Config { reason };
        let mut given: toml::Table = text.parse().map_err(|error: toml::de::Error| invalid(error.to_string()))?;
        let named = ["recipe", "preset"].into_iter().find_map(|key| given.remove(key));
        let named = named.map(toml::Value::try_into).transpose();
        let named = named.map_err(|error: toml::de::Error| invalid(format!("recipe: {error}")))?;
        let recipe = recipe.or(named).unwrap_or_default();
        let mut settings = toml::Table::try_from(Self::of(recipe)).map_err(|error| invalid(error.to_string()))?;
        settings.extend(given);
        let config: Self = settings.try_into().map_err(|error: toml::de::Error| invalid(error.to_string()))?;
        config.validate()?;
        Ok(config)
    }

    /// Text that [`parse`](Self::parse) reads.
    ///
    /// # Errors
    /// [`DistillError::Config`] if a number does not fit the format: a seed of 2⁶³ or more.
    pub fn to_toml(&self) -> Result<String, DistillError> {
        toml::to_string(self).map_err(|error| DistillError::Config { reason: error.to_string() })
    }

    /// The same settings for another number of epochs. The warm-up stays shorter than the run.
    #[must_use]
    pub fn with_epochs(self, epochs: usize) -> Self {
        Self { epochs, warmup_epochs: self.warmup_epochs.min(epochs.saturating_sub(1)), ..self }
    }

    /// Checks every setting.
    ///
    /// # Errors
    /// [`DistillError::Setting`] for the first setting that is out of range.
    pub fn validate(&self) -> Result<(), DistillError> {
        let check = |holds: bool, name, value: &dyn fmt::Display, expected| match holds {
            true => Ok(()),
            false => Err(DistillError::Setting { name, value: value.to_string(), expected }),
        };
        let count = |value: usize, most: usize| (1..=most).contains(&value);
        let share = |value: f64| (0.0..=1.0).contains(&value);
        check(i64::try_from(self.seed).is_ok(), "seed", &self.seed, "less than 2^63")?;
        check(count(self.epochs, 1 << 20), "epochs", &self.epochs, "1 to 2^20")?;
        check(count(self.accumulate, 1 << 16), "accumulate", &self.accumulate, "1 to 65536")?;
        let rate = self.learning_rate;
        check(rate > 0.0 && rate <= 10.0, "learning_rate", &rate, "more than 0, 10 at most")?;
        let factors = self.rate_factors.iter().all(|factor| (0.0..=1e3).contains(factor));
        check(factors, "rate_factors", &format!("{:?}", self.rate_factors), "three numbers from 0 to 1000")?;
        check(share(self.final_rate), "final_rate", &self.final_rate, "0 to 1")?;
        check(self.warmup_epochs < self.epochs, "warmup_epochs", &self.warmup_epochs, "fewer than the epochs")?;
        check(share(self.weight_decay), "weight_decay", &self.weight_decay, "0 to 1")?;
        check(count(self.anchors, 1 << 20), "anchors", &self.anchors, "1 to 2^20")?;
        check(self.macro_negatives <= MAX_MACRO, "macro_negatives", &self.macro_negatives, "127 at most")?;
        let neighbors = self.spatial_neighbors;
        check(count(neighbors, MAX_K - 1), "spatial_neighbors", &neighbors, "1 to 127")?;
        let micro = self.micro_negatives;
        check(micro <= neighbors.saturating_sub(1), "micro_negatives", &micro, "fewer than the spatial neighbours")?;
        let negatives = self.macro_negatives + micro;
        check(negatives > 0, "negatives", &negatives, "1 at least")?;
        let temperature = self.temperature;
        check((1e-3..=10.0).contains(&temperature), "temperature", &temperature, "0.001 to 10")?;
        let augmentable = !self.augment || self.samples == Samples::Points;
        check(augmentable, "augment", &self.augment, "false where samples are voxels")?;
        check(count(self.hidden_dim, 8192), "hidden_dim", &self.hidden_dim, "1 to 8192")?;
        check(count(self.embed_dim, 8192), "embed_dim", &self.embed_dim, "1 to 8192")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_says_what_differs_from_its_recipe() {
        let config = Config::parse("recipe = \"reference\"\nepochs = 7\ntemperature = 0.1", None).unwrap();
        assert_eq!(config, Config { epochs: 7, temperature: 0.1, ..Config::of(Recipe::Reference) });
        let config = Config::parse("preset = \"reference\"\nseed = 3", Some(Recipe::Paper)).unwrap();
        assert_eq!(config, Config { seed: 3, ..Config::of(Recipe::Paper) });
        assert_eq!(Config::parse("", None).unwrap(), Config::of(Recipe::Paper));
        assert_eq!(Config::parse(&config.to_toml().unwrap(), None).unwrap(), config);
    }

    #[test]
    fn recipes_are_named_and_differ_as_published() {
        for recipe in Recipe::ALL {
            assert_eq!(recipe.to_string().parse(), Ok(recipe));
            let config = Config::parse(&format!("recipe = \"{recipe}\""), None).unwrap();
            assert_eq!(config, Config::of(recipe));
            assert_eq!(Config::parse(&config.to_toml().unwrap(), None).unwrap(), config);
        }
        let of = |recipe| {
            let Config { learning_rate, warmup_epochs, weight_decay, epochs, .. } = Config::of(recipe);
            (learning_rate, warmup_epochs, weight_decay, epochs)
        };
        assert_eq!(of(Recipe::Reference), (1e-4, 2, 1e-5, 100));
        assert_eq!(of(Recipe::ReferenceMatterport80), (1e-4, 3, 1e-5, 100));
        assert_eq!(of(Recipe::ReferenceMatterport160), (8e-5, 5, 2e-5, 100));
        let message = "best".parse::<Recipe>().unwrap_err().to_string();
        assert_eq!(
            message,
            "there is no recipe \"best\"; there are paper, reference, reference-matterport80, reference-matterport160"
        );
    }

    #[test]
    fn what_cannot_be_is_named() {
        for (text, expected) in [
            ("epochs = 0", "epochs is 0, expected 1 to 2^20"),
            ("learning_rate = -1.0", "learning_rate is -1"),
            ("learning_rate = nan", "learning_rate is NaN"),
            ("augment = true", "augment is true, expected false where samples are voxels"),
            ("micro_negatives = 96", "micro_negatives is 96"),
            ("macro_negatives = 128", "macro_negatives is 128, expected 127 at most"),
            ("macro_negatives = 0\nmicro_negatives = 0", "negatives is 0"),
            ("epoch = 3", "unknown field `epoch`"),
            ("recipe = \"best\"", "recipe"),
            ("epochs = \"many\"", "epochs"),
            ("epochs", "TOML"),
        ] {
            let error = Config::parse(text, None).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
