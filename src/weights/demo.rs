//! The demo pack: small weights that are part of the program, so that it labels something on a machine where
//! nothing is installed. They were trained by this project on rooms it made itself, and belong together.

use std::io::Read as _;
use std::path::PathBuf;

use flate2::read::GzDecoder;

use super::{SafetensorsFile, WeightsError};

/// Weights that are part of the program, in the form of the store. They are compressed: most rows of a vocabulary of which
/// a few hundred words were met are 0.
#[derive(Clone, Copy, Debug)]
pub struct BuiltIn {
    /// Name they can be asked for by, as those in the store.
    pub name: &'static str,
    /// Model they belong to.
    pub model: &'static str,
    /// The file, compressed.
    bytes: &'static [u8],
}

/// The whole pack; empty in a program that was built without the feature `demo`.
#[cfg(feature = "demo")]
pub const PACK: &[BuiltIn] = &[
    BuiltIn {
        name: "sonata-demo",
        model: "sonata",
        bytes: include_bytes!("../../weights/demo/sonata-demo.safetensors.gz"),
    },
    BuiltIn {
        name: "student-demo",
        model: "student",
        bytes: include_bytes!("../../weights/demo/student-demo.safetensors.gz"),
    },
    BuiltIn {
        name: "xdecoder-demo",
        model: "xdecoder",
        bytes: include_bytes!("../../weights/demo/xdecoder-demo.safetensors.gz"),
    },
];

/// The whole pack; empty in a program that was built without the feature `demo`.
#[cfg(not(feature = "demo"))]
pub const PACK: &[BuiltIn] = &[];

impl BuiltIn {
    /// The weights of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        PACK.iter().copied().find(|built_in| built_in.name == name)
    }

    /// The weights of this model.
    #[must_use]
    pub fn of_model(model: &str) -> Option<Self> {
        PACK.iter().copied().find(|built_in| built_in.model == model)
    }

    /// The file.
    ///
    /// # Errors
    /// [`WeightsError`] where the program was built with a damaged one.
    pub(super) fn open(self) -> Result<SafetensorsFile, WeightsError> {
        let path = PathBuf::from(format!("(built in)/{}.safetensors", self.name));
        let mut bytes = Vec::new();
        GzDecoder::new(self.bytes).read_to_end(&mut bytes).map_err(|error| WeightsError::io(&path, error))?;
        SafetensorsFile::held(path, bytes)
    }
}
