//! Lifts the output of a vision-language model from views to points.
//!
//! Within a view, the feature of a point is one of a few hundred query embeddings. So only a row number is
//! kept per point and view. It refers to the view's small table of embeddings and logits. The features of all
//! points are computed in blocks of channels when they are read.
//!
//! A model that gives every pixel a feature of its own has no such table: see [`DenseLifter`].

mod dense;
mod lifter;
mod row_numbers;
mod view;

pub use dense::{DenseLifted, DenseLifter, DenseView};
pub use lifter::{LiftError, Lifted, Lifter, MEMORY_BUDGET, Projection, ViewReport};
pub use view::{MAX_QUERIES, Padding, View, ViewError};
