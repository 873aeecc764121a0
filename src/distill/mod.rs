//! Training of the student: the optimizer and the schedule of its rates.

pub mod optimizer;
pub mod schedule;
