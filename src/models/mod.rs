//! The networks, as plain burn modules named as in the reference checkpoints.

pub mod student;
