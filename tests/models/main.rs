//! The networks beyond the golden cases, and the store of their weights.

#[allow(dead_code, reason = "the golden runner needs more of it")]
#[path = "../golden/case.rs"]
mod case;
#[path = "../common/mod.rs"]
mod common;
mod generated_weights;
mod gradients;
#[allow(dead_code, reason = "the golden runner needs more of it")]
#[path = "../golden/manifest.rs"]
mod manifest;
mod minkunet;
#[allow(dead_code, reason = "the tests of the importer need more of it")]
#[path = "../common/pickle.rs"]
mod op;
mod signatures;
mod sonata;
mod store;
mod student;
#[path = "../common/weights.rs"]
mod weights;
mod xdecoder;
