//! Sonata: a self-supervised Point Transformer V3 encoder, the student's teacher.

mod config;

pub use config::{ConfigError, SonataConfig};
