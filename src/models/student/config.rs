use serde::{Deserialize, Serialize};

use crate::models::conv_norm::ConvKeys;

/// Number of cells of a 3 × 3 × 3 kernel.
const KERNEL_VOLUME: usize = 27;
/// Number of residual blocks.
pub(super) const NUM_BLOCKS: usize = 4;

/// Key of the last layer's kernel.
pub(super) const OUTPUT_KEY: &str = "output_layer.kernel";

/// Widths of the student.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StudentConfig {
    /// Input channels: semantic features, then colour, then normal.
    pub input_dim: usize,
    /// Hidden channels.
    pub hidden_dim: usize,
    /// Channels of the embedding.
    pub embed_dim: usize,
}

impl StudentConfig {
    /// The published widths.
    pub const PUBLISHED: Self = Self { input_dim: 518, hidden_dim: 512, embed_dim: 128 };

    /// Keys of the checkpoint that inference does not need, with the reason. Each is a pattern for
    /// [`key_matches`](crate::weights::key_matches).
    pub const UNUSED: &[(&str, &str)] = &[("num_batches_tracked", "batch norm's count of training steps")];

    /// Derives the widths from the shapes of a checkpoint. Returns `None` if it is not a student.
    #[must_use]
    pub fn of(shape: &dyn Fn(&str) -> Option<Vec<usize>>) -> Option<Self> {
        let input = shape("input_layer.0.kernel")?;
        let output = shape("output_layer.kernel")?;
        match (input.as_slice(), output.as_slice()) {
            (&[_, input_dim, hidden_dim], &[_, embed_dim]) => Some(Self { input_dim, hidden_dim, embed_dim }),
            _ => None,
        }
    }

    /// Returns every key of the checkpoint with its shape, in the checkpoint's order.
    #[must_use]
    pub fn keys(&self) -> Vec<(String, Vec<usize>)> {
        let layers = self.layers();
        let output = (OUTPUT_KEY.to_owned(), vec![self.hidden_dim, self.embed_dim]);
        layers.iter().flat_map(ConvKeys::shapes).chain([output]).collect()
    }

    /// Returns the first layer.
    pub(super) fn input_layer(&self) -> ConvKeys {
        let shape = [KERNEL_VOLUME, self.input_dim, self.hidden_dim];
        ConvKeys { kernel: "input_layer.0.kernel".to_owned(), norm: "input_layer.1.bn".to_owned(), shape }
    }

    /// Returns the two layers of every residual block.
    pub(super) fn res_blocks(&self) -> [[ConvKeys; 2]; NUM_BLOCKS] {
        let shape = [KERNEL_VOLUME, self.hidden_dim, self.hidden_dim];
        let layer = |block: usize, half: usize| ConvKeys {
            kernel: format!("res_blocks.{block}.conv{half}.kernel"),
            norm: format!("res_blocks.{block}.norm{half}.bn"),
            shape,
        };
        std::array::from_fn(|block| [layer(block, 1), layer(block, 2)])
    }

    /// Returns every layer with a batch norm, in the checkpoint's order.
    pub(super) fn layers(&self) -> Vec<ConvKeys> {
        std::iter::once(self.input_layer()).chain(self.res_blocks().into_iter().flatten()).collect()
    }
}
