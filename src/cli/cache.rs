//! The option that names the cache of prepared scenes.

use std::path::PathBuf;

use anyhow::Result;

use crate::distill::{DistillError, cache_folder};

/// Cache of prepared scenes.
#[derive(clap::Args, Debug)]
pub(super) struct CacheArgs {
    /// Folder for values that are computed once per scene [default: geopurify/training in the user's cache
    /// folder]
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
}

impl CacheArgs {
    /// Makes the folder if it does not exist, and returns its absolute path.
    pub(super) fn folder(&self) -> Result<PathBuf> {
        cache_folder(self.cache.as_deref()).map_err(|error| match error {
            DistillError::NoCacheFolder | DistillError::CacheNotText { .. } => {
                anyhow::anyhow!("{error}; name a folder with --cache DIR")
            }
            _ => error.into(),
        })
    }
}
