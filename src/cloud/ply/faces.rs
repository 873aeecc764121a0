//! Faces of a PLY mesh: polygons, triangle strips, and what colours them.

use std::path::Path;
use std::rc::Rc;

use super::{BinaryRows, Element, Header, Kind, Words, is_index_list};
use crate::cloud::data::{AttributeData, CHANNELS, colors_from, parse_f64};
use crate::cloud::mesh::{Cutting, Look, Mesh, Pictures, Skin, differ, fan};
use crate::cloud::{CloudError, PointCloud};

/// Value of a face.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// Numbers of its vertices.
    Corners,
    /// Places of the corners in a picture, two numbers each.
    Places,
    /// Red, green or blue, or the number of the picture.
    Value(usize),
    NotUsed,
}

/// Triangles of a mesh.
#[derive(Default)]
pub(super) struct Faces {
    pub triangles: Vec<[u32; 3]>,
    /// Number of faces with fewer than three corners.
    pub degenerate: u64,
    roles: Vec<Role>,
    corners: Vec<u32>,
    coordinates: Vec<f32>,
    num_faces: u32,
    /// Face of each triangle, if faces have values.
    face_of: Vec<u32>,
    /// Places of the corners of each triangle, if faces have them. Downwards, see [`Mesh::places`].
    places: Vec<[[f32; 2]; 3]>,
    /// Red, green, blue and the picture's number of each face.
    values: [Option<AttributeData>; 4],
    not_used: Vec<String>,
}

impl Faces {
    /// Decides which properties of `element` are used.
    fn begin(&mut self, element: &Element) {
        let scalar = |name: &str| {
            let named = |kind: Kind| matches!(kind, Kind::Scalar(_));
            element.properties.iter().position(|p| p.name.eq_ignore_ascii_case(name) && named(p.kind))
        };
        let corners = element.properties.iter().position(is_index_list);
        let colors = CHANNELS.map(scalar);
        let colors = if colors.iter().all(Option::is_some) { colors } else { [None; 3] };
        let values = [colors[0], colors[1], colors[2], scalar("texnumber")];
        let is_list = |kind: Kind| matches!(kind, Kind::List { .. });
        let places = element.properties.iter().position(|p| p.name.eq_ignore_ascii_case("texcoord") && is_list(p.kind));
        self.roles = (0..element.properties.len())
            .map(|i| match values.iter().position(|value| *value == Some(i)) {
                _ if corners == Some(i) => Role::Corners,
                _ if places == Some(i) => Role::Places,
                Some(value) => Role::Value(value),
                None => Role::NotUsed,
            })
            .collect();
        for (value, at) in self.values.iter_mut().zip(values) {
            *value = at.and_then(|at| element.properties.get(at)).and_then(|property| match property.kind {
                Kind::Scalar(ty) => Some(AttributeData::new(ty)),
                Kind::List { .. } => None,
            });
        }
        // The values of another element of faces are gone.
        self.face_of.fill(u32::MAX);
        self.num_faces = 0;
        self.pad();
        let unused = element.properties.iter().zip(&self.roles).filter(|(_, role)| **role == Role::NotUsed);
        self.not_used = unused.map(|(property, _)| format!("\"{}\"", property.name)).collect();
    }

    /// Makes the lists as long as that of the triangles: those of strips have no values.
    fn pad(&mut self) {
        if self.values.iter().any(Option::is_some) || !self.face_of.is_empty() {
            self.face_of.resize(self.triangles.len(), u32::MAX);
        }
        if self.roles.contains(&Role::Places) || !self.places.is_empty() {
            self.places.resize(self.triangles.len(), [[f32::NAN; 2]; 3]);
        }
    }

    /// Adds a corner. Returns `None` if there is no such vertex.
    fn corner(&mut self, index: i64, vertices: u64) -> Option<()> {
        self.corners.push(vertex_of(index, vertices)?);
        Some(())
    }

    /// Ends a face.
    fn close(&mut self) {
        if self.corners.len() < 3 {
            self.degenerate += 1;
        }
        let has_values = self.values.iter().any(Option::is_some);
        let has_places = self.roles.contains(&Role::Places);
        for triangle in fan(self.corners.len()) {
            self.triangles.push(triangle.map(|corner| self.corners[corner]));
            if has_values {
                self.face_of.push(self.num_faces);
            }
            if has_places {
                let coordinate = |at: usize| self.coordinates.get(at).copied().unwrap_or(f32::NAN);
                let place = |corner: usize| [coordinate(2 * corner), 1.0 - coordinate(2 * corner + 1)];
                self.places.push(triangle.map(place));
            }
        }
        self.num_faces = self.num_faces.saturating_add(1);
        self.corners.clear();
        self.coordinates.clear();
    }

    /// Reads the element "face" of a binary file from byte `at`. Returns its end.
    pub(super) fn read_binary(
        &mut self,
        rows: &BinaryRows<'_>,
        element: &Element,
        at: usize,
        vertices: u64,
    ) -> Result<usize, CloudError> {
        self.begin(element);
        let last = element.properties.len().saturating_sub(1);
        rows.walk(element, at, |i, at| {
            let (Some(property), Some(&role)) = (element.properties.get(i), self.roles.get(i)) else {
                return Ok(());
            };
            let end = rows.property_end(property, at)?;
            let start = match property.kind {
                Kind::List { count, .. } => at + count.size(),
                Kind::Scalar(_) => at,
            };
            let bytes = rows.bytes.get(start..end).unwrap_or_default();
            match (role, property.kind) {
                (Role::Corners, Kind::List { item, .. }) => {
                    for (k, corner) in bytes.chunks_exact(item.size()).enumerate() {
                        let index = item.read_i64(corner, 0, rows.endian);
                        if self.corner(index, vertices).is_none() {
                            let offset = start + k * item.size();
                            let expected = format!("a vertex number from 0 to below {vertices}");
                            return Err(rows.origin.value(offset as u64, &property.name, index, expected));
                        }
                    }
                }
                (Role::Places, Kind::List { item, .. }) => {
                    let numbers = bytes.chunks_exact(item.size());
                    self.coordinates.extend(numbers.map(|number| item.read_f64(number, 0, rows.endian) as f32));
                }
                (Role::Value(value), Kind::Scalar(_)) => {
                    if let Some(column) = &mut self.values[value] {
                        column.extend_rows(bytes, bytes.len(), 0, rows.endian);
                    }
                }
                _ => {}
            }
            if i == last {
                self.close();
            }
            Ok(())
        })
    }

    /// Reads the element "face" of a text file.
    pub(super) fn read_ascii(
        &mut self,
        words: &mut Words<'_>,
        element: &Element,
        vertices: u64,
    ) -> Result<(), CloudError> {
        self.begin(element);
        for _ in 0..element.rows(words.origin, words.bytes, words.at, true)? {
            for (i, property) in element.properties.iter().enumerate() {
                match self.roles.get(i).copied().unwrap_or(Role::NotUsed) {
                    Role::Corners => {
                        for _ in 0..words.count(property)? {
                            let word = words.next(&property.name)?;
                            let index = std::str::from_utf8(word).ok().and_then(|w| w.parse().ok());
                            if index.and_then(|i| self.corner(i, vertices)).is_none() {
                                let expected = format!("a vertex number from 0 to below {vertices}");
                                return Err(words.bad(word, expected));
                            }
                        }
                    }
                    Role::Places => {
                        for _ in 0..words.count(property)? {
                            let word = words.next(&property.name)?;
                            let Some(number) = parse_f64(word) else {
                                return Err(words.bad(word, format!("{} as a number", property.name)));
                            };
                            self.coordinates.push(number as f32);
                        }
                    }
                    Role::Value(value) => {
                        let word = words.next(&property.name)?;
                        if let Some(column) = &mut self.values[value]
                            && !column.push_text(word)
                        {
                            let ty = column.scalar_type().name();
                            return Err(words.bad(word, format!("{} as {ty}", property.name)));
                        }
                    }
                    Role::NotUsed => words.skip_property(property)?,
                }
            }
            self.close();
        }
        Ok(())
    }

    /// Reads the element "tristrips" of a binary file from byte `at`. Returns its end.
    pub(super) fn read_binary_strips(
        &mut self,
        rows: &BinaryRows<'_>,
        element: &Element,
        at: usize,
        vertices: u64,
    ) -> Result<usize, CloudError> {
        rows.walk(element, at, |i, at| {
            let Some(property) = element.properties.get(i).filter(|p| is_index_list(p)) else { return Ok(()) };
            let Kind::List { count, item } = property.kind else { return Ok(()) };
            let end = rows.property_end(property, at)?;
            let mut strip = Strip::default();
            for offset in (at + count.size()..end).step_by(item.size()) {
                let index = item.read_i64(rows.bytes, offset, rows.endian);
                if self.strip_corner(&mut strip, index, vertices).is_none() {
                    return Err(rows.origin.value(offset as u64, &property.name, index, expected_in_strip(vertices)));
                }
            }
            Ok(())
        })
    }

    /// Reads the element "tristrips" of a text file.
    pub(super) fn read_ascii_strips(
        &mut self,
        words: &mut Words<'_>,
        element: &Element,
        vertices: u64,
    ) -> Result<(), CloudError> {
        for _ in 0..element.rows(words.origin, words.bytes, words.at, true)? {
            for property in &element.properties {
                if !is_index_list(property) {
                    words.skip_property(property)?;
                    continue;
                }
                let mut strip = Strip::default();
                for _ in 0..words.count(property)? {
                    let word = words.next(&property.name)?;
                    let index = std::str::from_utf8(word).ok().and_then(|w| w.parse().ok());
                    if index.and_then(|index| self.strip_corner(&mut strip, index, vertices)).is_none() {
                        return Err(words.bad(word, expected_in_strip(vertices)));
                    }
                }
            }
        }
        Ok(())
    }

    /// Adds the next number of a strip. Returns `None` if there is no such vertex.
    fn strip_corner(&mut self, strip: &mut Strip, index: i64, vertices: u64) -> Option<()> {
        if index == -1 {
            *strip = Strip::default();
            return Some(());
        }
        self.triangles.extend(strip.next(vertex_of(index, vertices)?));
        Some(())
    }
}

/// The vertex that a number of the file stands for; `None` if there is no such vertex.
fn vertex_of(index: i64, vertices: u64) -> Option<u32> {
    u32::try_from(index).ok().filter(|&index| u64::from(index) < vertices)
}

fn expected_in_strip(vertices: u64) -> String {
    format!("a vertex number from 0 to below {vertices}, or -1 between strips")
}

/// A triangle strip: from the third vertex on, each makes a triangle with the two before it.
#[derive(Default)]
struct Strip {
    last: [Option<u32>; 2],
    /// Every second triangle is turned, so that all show the same side.
    turned: bool,
}

impl Strip {
    fn next(&mut self, index: u32) -> Option<[u32; 3]> {
        let before = self.last;
        self.last = [before[1], Some(index)];
        let [Some(a), Some(b)] = before else { return None };
        self.turned = !self.turned;
        // Repeated vertices join strips. They span no surface.
        if a == b || b == index || a == index {
            return None;
        }
        Some(if self.turned { [a, b, index] } else { [b, a, index] })
    }
}

/// Colours the vertices of `cloud` by its faces or by the pictures that the header names. Vertices with
/// different colours keep them.
pub(super) fn finish(path: &Path, header: &Header, mut faces: Faces, mut cloud: PointCloud) -> PointCloud {
    faces.pad();
    if faces.degenerate > 0 {
        cloud.notes.push(format!("{} faces have fewer than three corners", faces.degenerate));
    }
    if !faces.not_used.is_empty() {
        cloud.notes.push(format!("values of the faces that are not used: {}", faces.not_used.join(", ")));
    }
    cloud.faces = faces.triangles;
    let [red, green, blue, number] = faces.values;
    let has_colors = red.is_some();
    if differ(cloud.colors.as_deref()) {
        if has_colors || !header.pictures.is_empty() {
            cloud.notes.push("colours of faces and pictures are not used: the vertices have their own".into());
        }
        return cloud;
    }
    if header.pictures.is_empty() && !faces.places.is_empty() {
        cloud.notes.push("places of the faces in a picture are not used: no comment \"TextureFile\" names it".into());
    }
    let mut mesh = Mesh { cloud, looks: Vec::new(), places: faces.places, skins: Vec::new() };
    if !header.pictures.is_empty() {
        if mesh.places.is_empty() {
            mesh.places = places_of_vertices(&mesh.cloud);
        }
        let face_of = |triangle: usize| faces.face_of.get(triangle).map_or(0, |&face| face as usize);
        let number_of = |triangle| number.as_ref().and_then(|number| number.get_f64(face_of(triangle)));
        add_pictures(&mut mesh, path, header, number_of);
    }
    if mesh.looks.is_empty()
        && has_colors
        && let (Some(red), Some(green), Some(blue)) = (red, green, blue)
    {
        let colors = colors_from(&red, &green, &blue, &mut mesh.cloud.notes);
        let color = |&face: &u32| colors.get(face as usize).map_or(Look::Vertices, |&color| Look::Flat(color));
        mesh.looks = faces.face_of.iter().map(color).collect();
        mesh.cloud.notes.push("vertices have the colours of their faces".into());
    }
    mesh.into_cloud(Cutting::Painted)
}

/// Places in the picture that are stored with the vertices.
fn places_of_vertices(cloud: &PointCloud) -> Vec<[[f32; 2]; 3]> {
    let names = [["s", "t"], ["u", "v"], ["texture_u", "texture_v"]];
    let columns = names.iter().find_map(|[u, v]| Some([cloud.attribute(u)?, cloud.attribute(v)?]));
    let Some([u, v]) = columns else { return Vec::new() };
    let value = |column: &AttributeData, vertex: u32| column.get_f64(vertex as usize).unwrap_or(f64::NAN) as f32;
    let place = |vertex: u32| [value(&u.data, vertex), 1.0 - value(&v.data, vertex)];
    cloud.faces.iter().map(|face| face.map(place)).collect()
}

/// Lays the pictures that the header names on the triangles with places.
fn add_pictures(mesh: &mut Mesh, path: &Path, header: &Header, number_of: impl Fn(usize) -> Option<f64>) {
    if mesh.places.len() != mesh.cloud.faces.len() || mesh.places.is_empty() {
        mesh.cloud.notes.push("pictures are not used: the faces have no places in them".into());
        mesh.places.clear();
        return;
    }
    let mut pictures = Pictures::of(path);
    let skins: Vec<Option<u32>> = (header.pictures.iter())
        .map(|name| {
            let picture: Rc<_> = pictures.named(name)?;
            mesh.skins.push(Skin::new(picture));
            Some(mesh.skins.len() as u32 - 1)
        })
        .collect();
    let look = |triangle: usize| {
        let number = number_of(triangle).unwrap_or(0.0);
        let skin = skins.get(number as usize).copied().flatten().filter(|_| number >= 0.0);
        let placed = mesh.places[triangle].as_flattened().iter().all(|x| x.is_finite());
        skin.filter(|_| placed).map_or(Look::Vertices, Look::Skin)
    };
    if !mesh.skins.is_empty() {
        mesh.looks = (0..mesh.cloud.faces.len()).map(look).collect();
    }
    mesh.cloud.notes.extend(pictures.into_notes());
}

/// True for the element of triangle strips.
pub(super) fn is_strips(element: &Element) -> bool {
    element.name.eq_ignore_ascii_case("tristrips") && element.properties.iter().any(is_index_list)
}
