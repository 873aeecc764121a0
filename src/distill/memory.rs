//! Memory of a training step.

use crate::gpu::Selected;
use crate::stages::available_memory;

/// Memory for a step on a GPU, or if the free memory is unknown, in bytes.
const USUAL_MEMORY: u64 = 8192 << 20;

/// Default memory limit of a step, in bytes, rounded to MiB: three quarters of the host's free memory. The
/// free memory of a GPU is unknown.
#[must_use]
pub fn usual_memory(selected: &Selected) -> u64 {
    match available_memory() {
        Some(bytes) if selected.adapter.is_none() => (bytes / 4 * 3) >> 20 << 20,
        _ => USUAL_MEMORY,
    }
}
