//! From what a vision-language model sees in views to features of points.
//!
//! Within a view a point's feature is one of a few hundred query embeddings. So what is kept per point and view is
//! the number of a row in the view's small table of embeddings and logits, and the features of all points exist only
//! in blocks of channels, when they are read.

mod lifter;
mod row_numbers;
mod view;

pub use lifter::{LiftError, Lifted, Lifter, MEMORY_BUDGET, Projection, ViewReport};
pub use view::{MAX_QUERIES, Padding, View, ViewError};
