//! Description of a student's training, in its folder and in its checkpoints.

use serde::{Deserialize, Serialize};

use super::Config;

/// Description of a run so far: of its start in its folder, and of its state in a checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct About {
    /// Number of epochs done.
    pub(super) epochs: usize,
    /// Number of optimizer steps done.
    pub(super) steps: usize,
    /// Training settings, as TOML, which keeps every digit of a number.
    #[serde(with = "in_toml")]
    pub(super) config: Config,
    /// Names and keys of the scenes, in order. A resumed run must have the same.
    pub(super) scenes: Vec<String>,
    /// Number of channels of the student's input.
    pub(super) input_dim: usize,
    /// Memory limit of a step in bytes. It decides which scenes are cropped.
    pub(super) max_memory: u64,
    /// Number of checkpoints kept.
    #[serde(default)]
    pub(super) keep_last: Option<usize>,
    /// Number of epochs between validations.
    #[serde(default)]
    pub(super) validate_every: Option<usize>,
    /// Device of the run. Another device rounds differently.
    pub(super) device: String,
}

/// Settings as TOML text, because JSON rounds some numbers when they are read.
mod in_toml {
    use serde::de::Error as _;
    use serde::ser::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    use super::Config;

    pub(super) fn serialize<S: Serializer>(config: &Config, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&config.to_toml().map_err(S::Error::custom)?)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Config, D::Error> {
        Config::parse(&String::deserialize(deserializer)?, None).map_err(D::Error::custom)
    }
}
