//! How a student is trained.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::DistillError;

use crate::ops::contrastive_pairs::MAX_MACRO;
use crate::ops::knn::MAX_K;
use crate::training::PUBLISHED_FACTORS;

/// A set of settings that belong together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// What the paper says; where it is silent, what its published code does.
    #[default]
    Paper,
    /// What the published code does.
    Reference,
}

impl fmt::Display for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Paper => "paper",
            Self::Reference => "reference",
        })
    }
}

/// A name that is not that of a [`Preset`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is neither paper nor reference")]
pub struct UnknownPreset(String);

impl FromStr for Preset {
    type Err = UnknownPreset;

    fn from_str(name: &str) -> Result<Self, UnknownPreset> {
        let known = [Self::Paper, Self::Reference];
        known.into_iter().find(|preset| preset.to_string() == name).ok_or_else(|| UnknownPreset(name.to_owned()))
    }
}

/// What anchors, positives and negatives are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Samples {
    /// The voxels of a scene, near to each other by their integer coordinates, as when features are purified.
    Voxels,
    /// Its points, near to each other in metres.
    Points,
}

/// Which voxels the student is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Shown {
    /// All of the scene, as when features are purified.
    Scene,
    /// Those that hold an anchor, a positive or a negative, each the mean of these samples in it.
    Sampled,
}

/// What an anchor is drawn to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Positives {
    /// The sample that the teacher finds most similar: nearly always one of the anchor's own cell, over which the teacher's
    /// features are constant.
    Sample,
    /// A sample of the most similar cell but the anchor's own: what an object is beyond the reach of a cell is learned too.
    Cell,
}

/// How a student is trained. A file of settings names a preset and what differs from it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the other settings come from.
    pub preset: Preset,
    /// Seed of weights, order of the scenes, anchors, crops and augmentation.
    pub seed: u64,
    /// How often every scene is seen.
    pub epochs: usize,
    /// Scenes whose gradients make one step of the optimizer.
    pub accumulate: usize,
    /// Rate of the optimizer, between warm-up and decay.
    pub learning_rate: f64,
    /// Factors of the rate for the input layer, the residual blocks and the output layer.
    pub rate_factors: [f64; 3],
    /// Lowest rate, as a share of `learning_rate`.
    pub final_rate: f64,
    /// Epochs over which the rate rises.
    pub warmup_epochs: usize,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Most anchors of a scene; a third of its samples at most.
    pub anchors: usize,
    /// Negatives of an anchor that are least similar to it in the whole scene.
    pub macro_negatives: usize,
    /// Negatives of an anchor that are least similar to it among its spatial neighbours.
    pub micro_negatives: usize,
    /// Spatial neighbours of an anchor.
    pub spatial_neighbors: usize,
    /// Temperature of the contrastive loss.
    pub temperature: f32,
    /// What an anchor is drawn to.
    pub positives: Positives,
    /// What pairs are made of.
    pub samples: Samples,
    /// What the student is shown.
    pub shown: Shown,
    /// Whether the voxel grid is turned and scaled at random at every step; of points only.
    pub augment: bool,
    /// Channels inside the student.
    pub hidden_dim: usize,
    /// Channels of its embedding.
    pub embed_dim: usize,
}

impl Config {
    /// The settings of a preset.
    #[must_use]
    pub fn of(preset: Preset) -> Self {
        let paper = Self {
            preset,
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
        match preset {
            Preset::Paper => paper,
            Preset::Reference => Self {
                epochs: 100,
                learning_rate: 1e-4,
                rate_factors: PUBLISHED_FACTORS,
                micro_negatives: 15,
                samples: Samples::Points,
                shown: Shown::Sampled,
                augment: true,
                ..paper
            },
        }
    }

    /// The settings that a text in TOML says, on top of `preset`, else of the one it names, else of the usual one.
    ///
    /// # Errors
    /// [`DistillError::Config`] for what is not TOML or names a setting that does not exist, and as
    /// [`validate`](Self::validate).
    pub fn parse(text: &str, preset: Option<Preset>) -> Result<Self, DistillError> {
        let invalid = |reason: String| DistillError::Config { reason };
        let given: toml::Table = text.parse().map_err(|error: toml::de::Error| invalid(error.to_string()))?;
        let named = given.get("preset").map(|name| name.clone().try_into()).transpose();
        let named = named.map_err(|error: toml::de::Error| invalid(format!("preset: {error}")))?;
        let preset = preset.or(named).unwrap_or_default();
        let mut settings = toml::Table::try_from(Self::of(preset)).map_err(|error| invalid(error.to_string()))?;
        settings.extend(given.into_iter().filter(|(key, _)| key != "preset"));
        let config: Self = settings.try_into().map_err(|error: toml::de::Error| invalid(error.to_string()))?;
        config.validate()?;
        Ok(config)
    }

    /// As [`parse`](Self::parse) reads it.
    ///
    /// # Errors
    /// [`DistillError::Config`] where a number does not fit the format: a seed above 2⁶³.
    pub fn to_toml(&self) -> Result<String, DistillError> {
        toml::to_string(self).map_err(|error| DistillError::Config { reason: error.to_string() })
    }

    /// Checks every setting.
    ///
    /// # Errors
    /// [`DistillError::Setting`] naming the first that is out of range.
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
    fn a_file_says_what_differs_from_its_preset() {
        let config = Config::parse("preset = \"reference\"\nepochs = 7\ntemperature = 0.1", None).unwrap();
        assert_eq!(config, Config { epochs: 7, temperature: 0.1, ..Config::of(Preset::Reference) });
        let config = Config::parse("preset = \"reference\"\nseed = 3", Some(Preset::Paper)).unwrap();
        assert_eq!(config, Config { seed: 3, ..Config::of(Preset::Paper) });
        assert_eq!(Config::parse("", None).unwrap(), Config::of(Preset::Paper));
        assert_eq!(Config::parse(&config.to_toml().unwrap(), None).unwrap(), config);
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
            ("preset = \"best\"", "preset"),
            ("epochs = \"many\"", "epochs"),
            ("epochs", "TOML"),
        ] {
            let error = Config::parse(text, None).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
