//! The demo pack: small weights inside the program, which label a scan without any installation. This project
//! trained them together, on rooms it generated.

use std::io::Read as _;
use std::path::PathBuf;

use flate2::read::GzDecoder;

use super::{SafetensorsFile, WeightsError};

/// Weights inside the program, in the format of the store. They are compressed, because most rows of the
/// vocabulary are 0: training met only a few hundred words.
#[derive(Clone, Copy, Debug)]
pub struct BuiltIn {
    /// Name to ask for them by, as for weights in the store.
    pub name: &'static str,
    /// Model they belong to.
    pub model: &'static str,
    /// The file, compressed.
    bytes: &'static [u8],
}

/// All weights of the pack; empty if the program was built without the feature `demo`.
#[cfg(feature = "demo")]
pub static PACK: &[BuiltIn] = &[
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

/// All weights of the pack; empty if the program was built without the feature `demo`.
#[cfg(not(feature = "demo"))]
pub static PACK: &[BuiltIn] = &[];

impl BuiltIn {
    /// Returns the weights of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        PACK.iter().copied().find(|built_in| built_in.name == name)
    }

    /// Returns the weights of this model.
    #[must_use]
    pub fn of_model(model: &str) -> Option<Self> {
        PACK.iter().copied().find(|built_in| built_in.model == model)
    }

    /// Opens the file.
    ///
    /// # Errors
    /// [`WeightsError`] if the program was built with a damaged file.
    pub(super) fn open(self) -> Result<SafetensorsFile, WeightsError> {
        let path = PathBuf::from(format!("(built in)/{}.safetensors", self.name));
        let mut bytes = Vec::new();
        GzDecoder::new(self.bytes).read_to_end(&mut bytes).map_err(|error| WeightsError::io(&path, error))?;
        SafetensorsFile::held(path, bytes)
    }
}
