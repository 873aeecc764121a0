//! Evaluation of labels and objects: metrics, labelled scenes, and the evaluation of many scenes.

pub mod evaluation;
pub mod instance_report;
pub mod instances;
pub mod metrics;
pub mod openscene;
pub mod parts;
pub mod published;
pub mod report;
pub mod run;
pub mod scenes;
pub mod truth;
