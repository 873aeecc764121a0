//! From what X-Decoder sees in a view to features: of pixels here, of points through them.

mod view;

pub use view::{NO_QUERY, Padding, View, ViewError};
