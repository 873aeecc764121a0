//! Labelled scenes: making, preparing and choosing them, and measuring on them.

mod ablation;
mod affinity_precision;
#[path = "../common/mod.rs"]
mod common;
#[path = "../common/corner.rs"]
mod corner;
#[path = "../common/labelled_corner.rs"]
mod labelled_corner;
mod lseg;
mod prepare;
#[path = "../common/prepared.rs"]
mod prepared;
#[path = "../common/program.rs"]
mod program;
mod reports;
mod reproduce;
mod select;
mod synth;
#[path = "../common/walk.rs"]
mod walk;
#[path = "../common/weights.rs"]
mod weights;
