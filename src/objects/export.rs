//! Boxes of objects as a mesh.

use std::io::Write as _;
use std::path::Path;

use super::{CatalogueError, Object};
use crate::files::write_atomic;

/// Colour of boxes without one.
const GREY: [u8; 3] = [160; 3];
/// Triangles of a box between its corners, counter-clockwise from outside.
const TRIANGLES: [[usize; 3]; 12] = [
    [0, 2, 1],
    [0, 3, 2],
    [4, 5, 6],
    [4, 6, 7],
    [0, 1, 5],
    [0, 5, 4],
    [1, 2, 6],
    [1, 6, 5],
    [2, 3, 7],
    [2, 7, 6],
    [3, 0, 4],
    [3, 4, 7],
];

/// Writes the boxes of `objects` as a mesh (PLY, text) in the mean colours of the objects. Comments name them.
///
/// # Errors
/// [`CatalogueError::Io`].
pub fn write_boxes(path: &Path, objects: &[Object]) -> Result<(), CatalogueError> {
    write_atomic(path, |out| {
        writeln!(out, "ply\nformat ascii 1.0")?;
        for object in objects {
            let name: String = object.name.chars().filter(|c| !c.is_control()).collect();
            writeln!(out, "comment geopurify object {} name {name}", object.id)?;
        }
        writeln!(out, "element vertex {}", 8 * objects.len())?;
        writeln!(out, "property double x\nproperty double y\nproperty double z")?;
        writeln!(out, "property uchar red\nproperty uchar green\nproperty uchar blue\nproperty int instance")?;
        writeln!(out, "element face {}", TRIANGLES.len() * objects.len())?;
        writeln!(out, "property list uchar int vertex_indices\nend_header")?;
        for object in objects {
            let [red, green, blue] = object.color.unwrap_or(GREY);
            for [x, y, z] in object.bounds.corners() {
                writeln!(out, "{x} {y} {z} {red} {green} {blue} {}", object.id)?;
            }
        }
        for first in (0..objects.len()).map(|object| 8 * object) {
            for [a, b, c] in TRIANGLES {
                writeln!(out, "3 {} {} {}", first + a, first + b, first + c)?;
            }
        }
        Ok(())
    })
    .map_err(|source| CatalogueError::Io { path: path.to_path_buf(), source })
}
