//! The keys of a checkpoint with their shapes, layer by layer.

/// Collects keys with their shapes.
#[derive(Default)]
pub(crate) struct Keys(pub(crate) Vec<(String, Vec<usize>)>);

impl Keys {
    pub(crate) fn add(&mut self, key: String, shape: &[usize]) {
        self.0.push((key, shape.to_vec()));
    }

    /// A linear layer with bias.
    pub(crate) fn linear(&mut self, prefix: &str, num_in: usize, num_out: usize) {
        self.add(format!("{prefix}.weight"), &[num_out, num_in]);
        self.add(format!("{prefix}.bias"), &[num_out]);
    }

    /// The scale and shift of a norm.
    pub(crate) fn affine(&mut self, prefix: &str, dim: usize) {
        self.add(format!("{prefix}.weight"), &[dim]);
        self.add(format!("{prefix}.bias"), &[dim]);
    }

    /// PyTorch's `MultiheadAttention` with one packed input projection.
    pub(crate) fn attention(&mut self, prefix: &str, dim: usize) {
        self.add(format!("{prefix}.in_proj_weight"), &[3 * dim, dim]);
        self.add(format!("{prefix}.in_proj_bias"), &[3 * dim]);
        self.linear(&format!("{prefix}.out_proj"), dim, dim);
    }
}
