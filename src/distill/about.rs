//! What a checkpoint of a student's training says of itself.

use serde::{Deserialize, Serialize};

use super::Config;

/// What a checkpoint says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct About {
    /// Epochs that are done.
    pub(super) epochs: usize,
    /// Steps of the optimizer that are done.
    pub(super) steps: usize,
    /// How the student is trained. In TOML, which keeps every digit of a number.
    #[serde(with = "in_toml")]
    pub(super) config: Config,
    /// What the scenes are, in order: a run goes on with the same.
    pub(super) scenes: Vec<String>,
    /// Channels of the student's input.
    pub(super) input_dim: usize,
    /// Bytes a step may take, which decides where scenes are cropped.
    pub(super) max_memory: u64,
    /// The device the run is on: another one rounds differently.
    pub(super) device: String,
}

/// JSON rounds some numbers when it is read.
mod in_toml {
    use serde::de::Error as _;
    use serde::ser::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    use super::Config;

    pub fn serialize<S: Serializer>(config: &Config, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&config.to_toml().map_err(S::Error::custom)?)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Config, D::Error> {
        Config::parse(&String::deserialize(deserializer)?, None).map_err(D::Error::custom)
    }
}
