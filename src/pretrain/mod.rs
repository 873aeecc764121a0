//! Training of the models that are otherwise downloaded, on rooms that `geopurify synth` made.

pub mod teacher;
