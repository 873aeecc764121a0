//! Labelling: the stage that purifies, and the commands as a user runs them.

mod commands;
#[path = "../common/mod.rs"]
mod common;
#[path = "../common/corner.rs"]
mod corner;
mod demo;
#[path = "../common/labelling.rs"]
mod labelling;
mod lseg;
mod network;
#[path = "../common/program.rs"]
mod program;
mod purify;
mod scenes;
#[path = "../common/walk.rs"]
mod walk;
#[path = "../common/weights.rs"]
mod weights;
