//! How good labels and affinities are, and which scenes are worth learning from.

pub mod affinity_precision;
pub mod kmeans;
pub mod metrics;
pub mod select;
