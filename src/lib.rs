//! Open-vocabulary 3D segmentation on any Vulkan GPU.
//!
//! The rooms a scene passes through, and what each knows, are in ARCHITECTURE.md.

#[cfg(feature = "lab")]
pub mod ablation;
pub mod alloc;
#[cfg(feature = "cli")]
pub mod cli;
pub mod cloud;
#[cfg(feature = "train")]
pub mod distill;
#[cfg(feature = "session")]
pub mod eval;
pub mod files;
pub mod gpu;
pub mod images;
pub mod labels;
pub mod lift;
pub mod models;
pub mod ops;
#[cfg(feature = "session")]
pub mod pipeline;
#[cfg(feature = "lab")]
pub mod prepare;
#[cfg(feature = "lab")]
pub mod pretrain;
pub mod purify;
pub mod query;
pub mod random;
#[cfg(feature = "session")]
pub mod session;
pub mod stages;
#[cfg(feature = "lab")]
pub mod synth;
#[cfg(feature = "train")]
pub mod training;
pub mod views;
pub mod weights;

#[cfg(feature = "session")]
pub use pipeline::Scene;
#[cfg(feature = "session")]
pub use session::{LabelOptions, Session, SessionError, Words};
