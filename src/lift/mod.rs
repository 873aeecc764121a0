//! From what X-Decoder sees in views to features of points.
//!
//! Within a view a point's feature is one of at most 200 query embeddings. So what is kept per point and view is
//! the number of a query; each view's small table of embeddings and logits holds the rest, and the features of all
//! points exist only in blocks of channels, when they are read.

mod lifter;
mod view;

pub use lifter::{LiftError, Lifted, Lifter, Sight, ViewReport};
pub use view::{NO_QUERY, Padding, View, ViewError};
