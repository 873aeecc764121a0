//! Whole stages: networks, a training step, lifting: `cargo bench --bench stages -- student`.

#[path = "../common/mod.rs"]
mod common;
mod lift;
mod lseg;
mod minkunet;
mod sonata;
mod student;
mod train_step;
mod xdecoder;

fn main() {
    divan::main();
}
