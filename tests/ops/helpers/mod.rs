//! What the tests of several operations share.

pub(crate) mod attention_gradient;
pub(crate) mod definition;
pub(crate) mod drawing;
pub(crate) mod gradient;
pub(crate) mod twin;
pub(crate) mod voxels;
