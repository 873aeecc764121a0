//! Training the frozen models themselves, at small widths, on rooms whose labels are known.
//!
//! [`run`] is the loop: seeds, schedule, optimizer, checkpoints and logs, for whatever a [`Task`](run::Task) computes a
//! loss of.

mod error;
pub mod run;
pub mod teacher;

pub use error::PretrainError;
