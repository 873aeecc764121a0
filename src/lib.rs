//! Open-vocabulary 3D segmentation on any Vulkan GPU.
//!
//! The rooms a scene passes through, and what each knows, are in ARCHITECTURE.md.

pub mod alloc;
pub mod cli;
pub mod cloud;
pub mod distill;
pub mod eval;
pub mod files;
pub mod gpu;
pub mod images;
pub mod lift;
pub mod models;
pub mod ops;
pub mod pipeline;
pub mod prepare;
pub mod pretrain;
pub mod purify;
pub mod query;
pub mod random;
pub mod stages;
pub mod synth;
pub mod views;
pub mod weights;
