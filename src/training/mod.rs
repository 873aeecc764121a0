//! Parts that all training runs share: folder, checkpoints, logs, optimizer and learning rate schedule.

mod adamw;
pub(crate) mod checkpoint;
mod curve;
mod error;
mod events;
mod folder;
mod metrics_log;
mod schedule;

pub use adamw::{AdamW, AdamWConfig, AdamWState, HostMoments};
pub use curve::LossCurve;
pub use error::RunError;
pub use events::{EventWriter, last_event_file, now};
pub use folder::{CURVE_FILE, METRICS_FILE, RunFolder};
pub use metrics_log::{LogError, MetricsLog, read_series};
pub use schedule::{Group, PUBLISHED_FACTORS, Schedule};
