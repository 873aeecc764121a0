//! geopurify labels 3D scans by words, and finds things in them by text. It runs on any Vulkan GPU, or on the
//! CPU.
//!
//! A [`Session`] goes all the way from a scan to labels. The modules do the parts, and each works alone.
//! Without installed weights, a session uses the small demo networks inside the crate.
//!
//! ```no_run
//! # #[cfg(feature = "session")]
//! # fn example() -> Result<(), geopurify::SessionError> {
//! use std::path::Path;
//!
//! use geopurify::{LabelOptions, Scene, Session, Words};
//!
//! let session = Session::open()?;
//! let scan = Scene::read(Path::new("examples/room.ply"))?;
//! let words = Words::new(["wall", "floor", "chair", "table", "bed"]);
//! session.label(&scan, words, LabelOptions::default(), Path::new("room-labels"))?;
//! let answer = session.query(Path::new("room-labels"), "chair")?;
//! for place in answer.places.iter().take(3) {
//!     println!("{:.2?} to {:.2?}: cosine {:.2}", place.low, place.high, place.best);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Which module to use
//!
//! | to do this | use |
//! |---|---|
//! | label, search, encode or purify a scan | [`Session`] |
//! | read and write scans | [`cloud::PointCloud`], or [`Scene`] for a session |
//! | read recordings, fuse their depth maps, place virtual cameras, render a scan | [`views`] |
//! | run X-Decoder, Sonata or the student alone | [`models`] |
//! | use single operations on burn tensors | [`ops`] |
//! | bring what the views show onto points | [`lift::Lifter`] |
//! | clean features by geometry | [`purify::purify`] |
//! | turn features and words into labels, regions and places | [`query`] |
//! | split labels into objects with boxes | [`objects`] |
//! | use the label sets of benchmarks, and labels in files | [`labels`] |
//! | train a student | [`distill`]; [`training`] has the checkpoints, logs and the optimizer |
//! | measure labels against the truth | [`eval`] |
//! | show results in the browser | [`viewer`] |
//! | read checkpoints, and install weights in the store | [`weights`] |
//! | read, resample and draw pictures | [`images`] |
//! | choose a device, launch WGSL shaders | [`gpu`] |
//! | generate rooms, and prepare data sets | [`synth`], [`prepare`] |
//! | train the image model and the teacher, run the ablation | [`pretrain`], [`ablation`] |
//! | measure the paper's tables | [`reproduce`] |
//!
//! ARCHITECTURE.md in the repository shows how the modules depend on each other.
//!
//! # Cargo features
//!
//! All features are on by default. Without any, the crate holds the engine: devices, operations, networks,
//! scans, views, lifting, purification and queries.
//!
//! | feature | adds |
//! |---|---|
//! | `session` | [`Session`], the pipeline, [`eval`], and pictures of results |
//! | `cli` | the command line; includes `session` |
//! | `demo` | the built-in demo weights, 10 MB |
//! | `train` | [`distill`] and [`training`]; includes `session` |
//! | `lab` | [`synth`], [`prepare`], [`pretrain`], [`ablation`] and [`reproduce`]; includes `train` and `meshes` |
//! | `download` | download of published weights |
//! | `las` | scans as LAS, LAZ and COPC |
//! | `e57` | scans as E57 |
//! | `record3d` | Record3D recordings with compressed depth |
//! | `viewer` | [`viewer`]: results in the browser; includes `session` |
//!
#![cfg_attr(not(feature = "session"), doc = "[`Session`]: #cargo-features")]
#![cfg_attr(not(feature = "session"), doc = "[`Scene`]: #cargo-features")]
#![cfg_attr(not(feature = "session"), doc = "[`eval`]: #cargo-features")]
#![cfg_attr(not(feature = "viewer"), doc = "[`viewer`]: #cargo-features")]
#![cfg_attr(not(feature = "train"), doc = "[`distill`]: #cargo-features")]
#![cfg_attr(not(feature = "train"), doc = "[`training`]: #cargo-features")]
#![cfg_attr(not(feature = "lab"), doc = "[`synth`]: #cargo-features")]
#![cfg_attr(not(feature = "lab"), doc = "[`prepare`]: #cargo-features")]
#![cfg_attr(not(feature = "lab"), doc = "[`pretrain`]: #cargo-features")]
#![cfg_attr(not(feature = "lab"), doc = "[`ablation`]: #cargo-features")]
#![cfg_attr(not(feature = "lab"), doc = "[`reproduce`]: #cargo-features")]
// Not among the lints of Cargo.toml: tests may unwrap, in their helpers too.
#![warn(clippy::unwrap_used)]
// A build without some of the features leaves helpers of theirs unused.
#![cfg_attr(
    not(all(feature = "cli", feature = "lab", feature = "las", feature = "e57", feature = "meshes")),
    allow(dead_code, unused_imports, reason = "helpers of features that this build leaves out")
)]

#[cfg(feature = "lab")]
pub mod ablation;
pub mod alloc;
#[cfg(feature = "cli")]
pub mod cli;
pub mod cloud;
mod counted;
#[cfg(feature = "train")]
pub mod distill;
#[cfg(feature = "session")]
pub mod eval;
pub mod files;
pub mod gpu;
pub mod images;
pub mod labels;
pub mod lift;
pub mod models;
pub mod objects;
pub mod ops;
#[cfg(feature = "session")]
pub mod pipeline;
#[cfg(feature = "lab")]
pub mod prepare;
#[cfg(feature = "lab")]
pub mod pretrain;
pub mod purify;
pub mod query;
pub mod random;
#[cfg(feature = "lab")]
pub mod reproduce;
#[cfg(feature = "session")]
pub mod session;
pub mod stages;
#[cfg(feature = "lab")]
pub mod synth;
#[cfg(feature = "train")]
pub mod training;
mod unions;
#[cfg(feature = "viewer")]
pub mod viewer;
pub mod views;
pub mod weights;

#[cfg(feature = "session")]
pub use pipeline::Scene;
#[cfg(feature = "session")]
pub use session::{LabelOptions, Session, SessionError, Words};
