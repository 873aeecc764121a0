//! Asking a scene for words.

pub mod presets;
