use serde::{Deserialize, Serialize};

/// Number of cells of a 3 × 3 × 3 kernel.
pub(super) const KERNEL_VOLUME: usize = 27;
/// Number of residual blocks.
pub(super) const NUM_BLOCKS: usize = 4;

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
        let mut keys = Vec::new();
        let norm = |keys: &mut Vec<(String, Vec<usize>)>, prefix: &str| {
            for name in ["weight", "bias", "running_mean", "running_var"] {
                keys.push((format!("{prefix}.bn.{name}"), vec![self.hidden_dim]));
            }
        };
        keys.push(("input_layer.0.kernel".to_owned(), vec![KERNEL_VOLUME, self.input_dim, self.hidden_dim]));
        norm(&mut keys, "input_layer.1");
        for block in 0..NUM_BLOCKS {
            for half in 1..=2 {
                let kernel = format!("res_blocks.{block}.conv{half}.kernel");
                keys.push((kernel, vec![KERNEL_VOLUME, self.hidden_dim, self.hidden_dim]));
                norm(&mut keys, &format!("res_blocks.{block}.norm{half}"));
            }
        }
        keys.push(("output_layer.kernel".to_owned(), vec![self.hidden_dim, self.embed_dim]));
        keys
    }
}
