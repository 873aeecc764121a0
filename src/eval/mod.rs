//! How good labels and affinities are, and which scenes are worth learning from.

pub mod affinity_precision;
pub mod benchmarks;
pub mod kmeans;
pub mod labels;
pub mod metrics;
pub mod published;
pub mod report;
pub mod scenes;
pub mod select;
pub mod study;
