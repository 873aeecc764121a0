//! Meshes: the surface that a file describes, and the points that stand for it.
//!
//! A point has one colour. A mesh may hold its colours in faces or in pictures, and its triangles may be
//! metres wide. [`Mesh::into_cloud`] cuts large triangles and gives each vertex the colour of the surface
//! around it. A mesh with many small triangles keeps its vertices as they are.

pub(super) mod detect;
#[cfg(feature = "meshes")]
pub(super) mod gltf;
#[cfg(feature = "meshes")]
mod mtl;
#[cfg(feature = "meshes")]
pub(super) mod obj;
#[cfg(feature = "meshes")]
pub(super) mod off;
mod paint;
mod pictures;
mod refine;
#[cfg(feature = "meshes")]
pub(super) mod stl;

pub(crate) use paint::{Skin, Wrap};
pub(super) use pictures::Pictures;

use super::PointCloud;
use super::data::GREY;

/// Colour of a triangle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// The colours of its vertices, if they have any.
    Vertices,
    /// One colour.
    Flat([u8; 3]),
    /// A picture: an index of [`Mesh::skins`].
    Skin(u32),
}

/// Meshes whose large triangles are cut.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Cutting {
    /// All meshes.
    Always,
    /// Meshes that take colours from faces or pictures. The vertices of others stay as they are, so that
    /// results can be added to a copy of the file.
    Painted,
}

/// A mesh as its file describes it.
pub(crate) struct Mesh {
    /// Vertices and triangles.
    pub cloud: PointCloud,
    /// Look of each triangle; empty if all have the colours of their vertices.
    pub looks: Vec<Look>,
    /// Places of the corners of each triangle in its picture, from the upper left corner (0, 0) to the
    /// lower right one (1, 1); empty without pictures.
    pub places: Vec<[[f32; 2]; 3]>,
    /// Pictures with the way they are laid on the surface.
    pub skins: Vec<Skin>,
}

impl Mesh {
    /// Makes points of the mesh: its vertices, and the corners of the pieces of large triangles.
    pub(super) fn into_cloud(mut self, cutting: Cutting) -> PointCloud {
        let painted = self.looks.iter().any(|look| *look != Look::Vertices);
        let vertices = self.cloud.len();
        let longest = (painted || cutting == Cutting::Always).then(|| refine::longest_edge(&self.cloud)).flatten();
        let pieces = longest.map(|longest| refine::cut(&mut self.cloud, longest));
        if painted {
            self.cloud.colors = Some(paint::colors_of_vertices(&self, pieces.as_ref()));
        }
        let mut cloud = self.cloud;
        if let (Some(pieces), Some(longest)) = (pieces, longest) {
            cloud.faces = pieces.triangles;
            let added = cloud.len() - vertices;
            cloud.notes.push(format!(
                "large triangles are cut, so that points lie at most {longest:.3} apart: {added} points are added to {vertices} vertices"
            ));
        }
        cloud
    }
}

/// Reads the surface of a model, with its triangles and pictures as they are in the file: glTF, else OBJ. The
/// pictures lie in the folder of the model.
#[cfg(feature = "lab")]
pub(crate) fn read_model(path: &std::path::Path) -> Result<Mesh, super::CloudError> {
    let bytes = super::source::open(path)?;
    if detect::is_glb(&bytes) || detect::is_gltf(&bytes) {
        gltf::read_mesh(path, &bytes)
    } else {
        obj::read_mesh(path, &bytes)
    }
}

/// The next `N` words as numbers.
#[cfg(feature = "meshes")]
fn numbers<'a, const N: usize>(words: &mut impl Iterator<Item = &'a [u8]>) -> Option<[f64; N]> {
    let mut numbers = [0.0; N];
    for number in &mut numbers {
        *number = super::data::parse_f64(words.next()?)?;
    }
    Some(numbers)
}

/// True if the colours tell the points apart: not all are the same.
pub(super) fn differ(colors: Option<&[[u8; 3]]>) -> bool {
    colors.is_some_and(|colors| colors.windows(2).any(|pair| pair[0] != pair[1]))
}

/// Cuts a polygon into a fan of triangles and gives the places of their corners in the polygon.
pub(super) fn fan(corners: usize) -> impl Iterator<Item = [usize; 3]> {
    (2..corners).map(|last| [0, last - 1, last])
}
