//! From pictures to points and back: recordings, drawing, and lifting.

#[path = "../common/camera.rs"]
mod camera;
mod cases;
#[path = "../common/mod.rs"]
mod common;
mod lift;
mod placement;
mod recordings;
mod render;
mod reprojection;
