//! What the tests of several operations share.

pub mod attention_gradient;
pub mod definition;
pub mod drawing;
pub mod gradient;
pub mod twin;
pub mod voxels;
