//! The option `--label-ids`: the meaning of label numbers.

use crate::labels;

/// Meaning of the label numbers in a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum LabelIds {
    Auto,
    Class,
    Nyu40,
}

impl From<LabelIds> for labels::LabelIds {
    fn from(arg: LabelIds) -> Self {
        match arg {
            LabelIds::Auto => Self::Auto,
            LabelIds::Class => Self::Class,
            LabelIds::Nyu40 => Self::Nyu40,
        }
    }
}
