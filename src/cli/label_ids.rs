//! The option `--label-ids`: the meaning of label numbers.

/// Meaning of the label numbers in a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum LabelIds {
    Auto,
    Class,
    Nyu40,
}

#[cfg(feature = "train")]
impl LabelIds {
    /// True if the labels in `path` are NYU40's.
    pub(super) fn are_nyu40(self, path: &std::path::Path) -> bool {
        match self {
            Self::Auto => crate::labels::is_scannets(path),
            ids => ids == Self::Nyu40,
        }
    }
}
