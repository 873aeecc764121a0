//! Training of the image model and of the teacher themselves, at small widths, on rooms with known labels.
//!
//! [`run`] is the training loop: seeds, schedule, optimizer, checkpoints and logs, for any
//! [`Task`](run::Task) that computes a loss.
//!
//! [`xdecoder`] trains X-Decoder by mask classification. It takes pictures of [`rooms`] from a [`view_pool`],
//! changes them with [`augment`], and names their classes with [`words`]. [`criterion`] is its loss.
//!
//! [`sonata`] trains an encoder of Sonata's architecture from the objects of the rooms.
//!
//! [`openscene`] trains a 3D network of OpenScene's architecture from the classes of the rooms, in the space of
//! X-Decoder's text encoder.

pub mod augment;
pub mod criterion;
mod error;
mod figures;
pub mod hungarian;
pub mod openscene;
pub mod parameters;
pub mod rooms;
pub mod run;
pub mod scan;
pub mod sonata;
pub mod view_pool;
pub mod words;
pub mod xdecoder;

pub use error::PretrainError;
