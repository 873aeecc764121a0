//! Evaluation of labels: metrics, labelled scenes, and the evaluation of many scenes.

pub mod evaluation;
pub mod metrics;
pub mod openscene;
pub mod published;
pub mod report;
pub mod run;
pub mod scenes;
pub mod truth;
