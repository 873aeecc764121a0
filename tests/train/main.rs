//! Training of every network, in the library and as a user runs it.

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/corner.rs"]
mod corner;
mod distill;
mod log;
mod lseg;
mod pretrain_openscene;
mod pretrain_sonata;
mod pretrain_xdecoder;
mod runs;
mod train_openscene;
#[path = "../common/training.rs"]
mod training;
#[path = "../common/weights.rs"]
mod weights;
