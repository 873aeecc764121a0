//! LSeg's tensors, with CLIP's text side out of a file of its own.

use std::borrow::Cow;

use super::config::CLIP;
use crate::models::clip::ClipTextConfig;
use crate::weights::{HostTensor, Inventory, TensorSource, WeightsError, key_matches};

/// A checkpoint of LSeg whose text side is that of another source, in OpenAI's layout. A text side of its own is left
/// out.
pub struct WithClip<'a> {
    lseg: Box<dyn TensorSource + 'a>,
    clip: Box<dyn TensorSource + 'a>,
    inventory: Inventory,
}

impl<'a> WithClip<'a> {
    /// Joins the two sources.
    #[must_use]
    pub fn new(lseg: Box<dyn TensorSource + 'a>, clip: Box<dyn TensorSource + 'a>) -> Self {
        let mut inventory = lseg.inventory().into_owned();
        inventory.tensors.retain(|key, _| !key.starts_with(CLIP));
        let is_unused = |key: &str| ClipTextConfig::UNUSED.iter().any(|(pattern, _)| key_matches(pattern, key));
        let of_clip = clip.inventory();
        for (key, info) in of_clip.tensors.iter().filter(|(key, _)| !is_unused(key)) {
            inventory.tensors.insert(format!("{CLIP}{key}"), info.clone());
        }
        drop(of_clip);
        Self { lseg, clip, inventory }
    }
}

impl TensorSource for WithClip<'_> {
    fn inventory(&self) -> Cow<'_, Inventory> {
        Cow::Borrowed(&self.inventory)
    }

    fn take(&mut self, key: &str, shape: &[usize]) -> Result<HostTensor, WeightsError> {
        match key.strip_prefix(CLIP) {
            Some(own) => self.clip.take(own, shape),
            None => self.lseg.take(key, shape),
        }
    }
}
