pub mod curve;
pub mod events;
pub mod metrics_log;
