//! Label sets: their names, colours and splits, the class numbers of benchmarks, and labels read from files.

mod asprs;
pub mod benchmarks;
mod error;
pub mod nyu40;
mod points;
mod preset;
mod protocol;
mod stuff;

pub use asprs::{UNCLASSIFIED, asprs_class};
pub use error::LabelsError;
pub use nyu40::{classes_from_nyu40, nyu40_from_class};
pub use points::{LabelIds, SCANNET_LABELS, is_scannets, read_labels};
pub use preset::{Preset, UnknownPreset};
pub use protocol::Protocol;
pub use stuff::{is_stuff, which_are_stuff};
