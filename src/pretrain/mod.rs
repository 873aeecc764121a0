//! Training the frozen models themselves, at small widths, on rooms whose labels are known.
//!
//! [`run`] is the loop: seeds, schedule, optimizer, checkpoints and logs, for whatever a [`Task`](run::Task) computes a
//! loss of. [`xdecoder`] trains X-Decoder by mask classification: pictures of [`rooms`], drawn from a [`view_pool`],
//! changed by [`augment`], with the words of [`words`], by the loss of [`criterion`]. [`sonata`] trains an encoder of Sonata's architecture by what the
//! rooms know of their objects.

pub mod augment;
pub mod criterion;
mod error;
pub mod hungarian;
pub mod parameters;
pub mod rooms;
pub mod run;
pub mod sonata;
pub mod view_pool;
pub mod words;
pub mod xdecoder;

pub use error::PretrainError;
