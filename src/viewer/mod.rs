//! Results in the browser: a server on this machine with a page that shows a labelled scan and answers words, and
//! the same page as one file.
//!
//! [`Library`] holds folders of results and answers questions about them. [`Server`] serves it. [`export()`] writes
//! a scan with answers as a page that needs no server, [`export_glb()`] as a scene for other programs.

mod answers;
mod blocks;
mod error;
mod export;
mod glb;
mod http;
mod library;
mod octree;
mod page;
mod results;
mod routes;
mod scan;
mod server;

pub use error::ViewerError;
pub use export::{Asked, EXPORT_POINTS, export};
pub use glb::{GLB_POINTS, export_glb};
pub use library::{Entry, Library};
pub use octree::{Node, Octree, octree};
pub use server::{Binding, Server};
