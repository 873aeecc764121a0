//! A model as furniture: in its place and size, with every side facing outwards.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use glam::{DVec3, Mat3, Vec2, Vec3, vec2, vec3};

use super::catalogue::Entry;
use super::tops::{Level, levels};
use crate::cloud::{self, Look, read_model};
use crate::synth::SynthError;
use crate::synth::bvh::Bvh;
use crate::synth::mesh::{Bounds, Mesh, Surface};
use crate::synth::picture::{Picture, to_linear};
use crate::unions::Unions;

/// Most triangles of a model.
const MOST_TRIANGLES: usize = 150_000;
/// Most parts that are told apart.
const MOST_PARTS: usize = 48;
/// Distance within which vertices are one, in metres.
const WELD: f32 = 5e-5;
/// Cosine of the largest angle between faces that look smooth.
const SMOOTH: f32 = 0.72;
/// Faces around a vertex above which its normals stay flat.
const MOST_AROUND: usize = 64;
/// Triangles of a connected surface that tell its outer side, and rays from each of their sides.
const SAMPLES: usize = 16;
const RAYS: usize = 7;
/// Shares of rays that leave the model: a side below the first is inside, two sides above the second are outside.
const INSIDE: f32 = 0.04;
const OUTSIDE: f32 = 0.05;
/// Thickness of sheets, in metres.
const THICKNESS: f32 = 0.002;

/// A model of furniture.
#[derive(Debug)]
pub(in crate::synth) struct Model {
    /// The origin is on the floor, in the middle of the back. Surfaces have the numbers of parts as materials, and no
    /// object.
    pub mesh: Mesh,
    pub parts: Vec<Part>,
    /// Level places where things may stand, from the highest to the lowest.
    pub levels: Vec<Level>,
}

/// A part of a model that looks alike.
#[derive(Clone, Debug)]
pub(in crate::synth) struct Part {
    /// The colour, linear; the mean of a picture.
    pub color: Vec3,
    /// The picture on it, and how often it repeats within a metre.
    pub picture: Option<(Arc<Picture>, f32)>,
    /// Share of the model's surface.
    pub share: f32,
}

/// A triangle under preparation.
#[derive(Clone, Copy)]
struct Face {
    corners: [Vec3; 3],
    /// Numbers of the welded vertices.
    welded: [u32; 3],
    places: [Vec2; 3],
    part: u16,
}

impl Face {
    fn area_normal(&self) -> Vec3 {
        let [a, b, c] = self.corners;
        (b - a).cross(c - a)
    }

    fn turned(self) -> Self {
        let turn = |[a, b, c]: [Vec3; 3]| [a, c, b];
        let ([a, b, c], [p, q, r]) = (self.welded, self.places);
        Self { corners: turn(self.corners), welded: [a, c, b], places: [p, r, q], part: self.part }
    }
}

/// Reads a model.
///
/// # Errors
/// [`SynthError::Cloud`] for a file that cannot be read, [`SynthError::Model`] for one without a surface or with too
/// many triangles.
pub(super) fn load(path: &Path, entry: &Entry) -> Result<Model, SynthError> {
    let file = read_model(path)?;
    let wrong =
        |found: &str, expected| SynthError::Model { path: path.to_path_buf(), found: found.to_owned(), expected };
    let count = file.cloud.faces.len();
    if count > MOST_TRIANGLES {
        return Err(wrong(&format!("{count} triangles"), "at most 150000"));
    }
    let mut parts = Parts::default();
    let faces = placed(&file, entry, &mut parts).ok_or_else(|| wrong("no surface", "triangles of some size"))?;
    let faces = facing_outwards(&faces);
    let mesh = mesh_of(&faces, &parts, entry.kind.class());
    let parts = parts.finish(&faces);
    let levels = if entry.kind.has_tops() { levels(&mesh) } else { Vec::new() };
    Ok(Model { mesh, parts, levels })
}

/// Parts while faces are read.
#[derive(Default)]
struct Parts {
    numbers: BTreeMap<(u8, u32), u16>,
    parts: Vec<Part>,
}

impl Parts {
    /// Returns the number of the part with a look. `color` is that of the vertices.
    fn number(&mut self, file: &cloud::Mesh, look: Look, color: [u8; 3]) -> u16 {
        let flat = |color: [u8; 3]| u32::from_le_bytes([color[0], color[1], color[2], 0]);
        let key = match look {
            Look::Skin(skin) => (1, skin),
            Look::Flat(color) => (0, flat(color)),
            // Colours of vertices run into each other.
            Look::Vertices => (0, flat(color.map(|value| value & 0xe0 | 0x10))),
        };
        let full = self.parts.len() >= MOST_PARTS;
        if let Some(&number) = self.numbers.get(&key) {
            return number;
        }
        if full {
            return 0;
        }
        let skin = match look {
            Look::Skin(skin) => file.skins.get(skin as usize),
            _ => None,
        };
        let part = match skin {
            Some(skin) => {
                let picture = Arc::new(Picture::new(&skin.picture, skin.factor, skin.wrap));
                Part { color: picture.mean(), picture: Some((picture, 1.0)), share: 0.0 }
            }
            None => {
                let [r, g, b, _] = key.1.to_le_bytes().map(|value| to_linear(f32::from(value) / 255.0));
                Part { color: vec3(r, g, b), picture: None, share: 0.0 }
            }
        };
        let number = self.parts.len() as u16;
        self.parts.push(part);
        self.numbers.insert(key, number);
        number
    }

    /// Measures the parts.
    fn finish(mut self, faces: &[Face]) -> Vec<Part> {
        let mut areas = vec![[0.0_f32; 2]; self.parts.len()];
        for face in faces {
            let [p, q, r] = face.places;
            areas[usize::from(face.part)][0] += 0.5 * face.area_normal().length();
            areas[usize::from(face.part)][1] += 0.5 * (q - p).perp_dot(r - p).abs();
        }
        let whole = areas.iter().map(|[area, _]| area).sum::<f32>().max(1e-9);
        for (part, [area, on_picture]) in self.parts.iter_mut().zip(areas) {
            part.share = area / whole;
            if let Some((_, per_metre)) = &mut part.picture {
                *per_metre = (on_picture / area.max(1e-9)).sqrt().clamp(1e-3, 1e3);
            }
        }
        self.parts
    }
}

/// Returns the faces of a file in the axes and the size of furniture; `None` if there are none.
fn placed(file: &cloud::Mesh, entry: &Entry, parts: &mut Parts) -> Option<Vec<Face>> {
    let positions = &file.cloud.positions;
    let used = || file.cloud.faces.iter().flatten().filter_map(|&corner| positions.get(corner as usize));
    let usable = |position: &&[f64; 3]| position.iter().all(|x| x.is_finite() && x.abs() < 1e9);
    let origin = DVec3::from(*used().find(usable)?);
    // Near the origin few digits are enough.
    let local = |position: &[f64; 3]| entry.frame * (DVec3::from(*position) - origin).as_vec3();
    let bounds = Bounds::of(used().filter(usable).map(local));
    let extent = bounds.size();
    if !extent.is_finite() || extent.max_element() <= 0.0 {
        return None;
    }
    let scale = Vec3::select(extent.cmpgt(Vec3::splat(extent.max_element() * 1e-6)), entry.size / extent, Vec3::ZERO);
    let corner = vec3(bounds.center().x, bounds.min.y, bounds.min.z);
    let lift = vec3(0.0, 0.0, entry.elevation);
    let mut numbers: HashMap<[i32; 3], u32> = HashMap::new();
    let mut known: HashSet<[u32; 3]> = HashSet::new();
    let mut faces = Vec::new();
    for (number, triangle) in file.cloud.faces.iter().enumerate() {
        let Some(corners) = gathered(triangle.map(|corner| positions.get(corner as usize).filter(usable))) else {
            continue;
        };
        let corners = corners.map(|position| (local(position) - corner) * scale + lift);
        let welded = corners.map(|p| {
            let next = numbers.len() as u32;
            *numbers.entry((p / WELD).round().to_array().map(|x| x as i32)).or_insert(next)
        });
        let [a, b, c] = welded;
        let mut sorted = welded;
        sorted.sort_unstable();
        // Many files have a second face behind each, for programs that show the front alone.
        if a == b || b == c || a == c || !known.insert(sorted) {
            continue;
        }
        let look = file.looks.get(number).copied().unwrap_or(Look::Vertices);
        let colors = file.cloud.colors.as_ref();
        let color = colors.and_then(|colors| colors.get(triangle[0] as usize)).copied().unwrap_or([150; 3]);
        let places = file.places.get(number).copied().unwrap_or_default();
        let places = places.map(|place| Vec2::from_array(place.map(|x| if x.abs() < 1e4 { x } else { 0.0 })));
        let face = Face { corners, welded, places, part: parts.number(file, look, color) };
        if face.area_normal().length() > 1e-9 {
            faces.push(face);
        }
    }
    (!faces.is_empty()).then_some(faces)
}

fn gathered<T>([a, b, c]: [Option<T>; 3]) -> Option<[T; 3]> {
    Some([a?, b?, c?])
}

/// Turns the faces whose front is inside, and gives sheets, which are seen from both sides, a second one.
fn facing_outwards(faces: &[Face]) -> Vec<Face> {
    let tree = Bvh::new(faces.iter().zip(0..).map(|(face, number)| (face.corners, number)));
    let reach = 2.0 * Bounds::of(faces.iter().flat_map(|face| face.corners)).size().length();
    let rays = rays();
    let open = |at: Vec3, normal: Vec3| {
        let across = normal.any_orthonormal_vector();
        let frame = Mat3::from_cols(across, normal.cross(across), normal);
        let from = at + normal * 5e-4;
        rays.iter().filter(|ray| !tree.is_hit(from, frame * **ray, reach)).count()
    };
    let mut out = Vec::with_capacity(faces.len());
    let mut sheets = Vec::new();
    for surface in connected(faces) {
        let step = surface.len().div_ceil(SAMPLES);
        let (mut front, mut back, mut count) = (0, 0, 0);
        for &number in surface.iter().step_by(step) {
            let face = &faces[number as usize];
            let middle = face.corners.iter().sum::<Vec3>() / 3.0;
            let normal = face.area_normal().normalize_or(Vec3::Z);
            front += open(middle, normal);
            back += open(middle, -normal);
            count += RAYS;
        }
        let [front, back] = [front, back].map(|open| open as f32 / count as f32);
        let turned = front < INSIDE && back > front;
        let both = front.min(back) > OUTSIDE;
        for &number in &surface {
            let face = faces[number as usize];
            out.push(if turned { face.turned() } else { face });
            if both {
                sheets.push(face.turned());
            }
        }
    }
    // The second side gets vertices of its own, behind those of the first.
    let first = faces.iter().flat_map(|face| face.welded).max().unwrap_or(0) + 1;
    let mut normals: HashMap<u32, Vec3> = HashMap::new();
    for sheet in &sheets {
        let normal = sheet.area_normal().normalize_or(Vec3::ZERO);
        sheet.welded.iter().for_each(|&corner| *normals.entry(corner).or_default() += normal);
    }
    for mut sheet in sheets {
        for (corner, welded) in sheet.corners.iter_mut().zip(&mut sheet.welded) {
            *corner += normals[welded].normalize_or(Vec3::ZERO) * THICKNESS;
            *welded = welded.saturating_add(first);
        }
        out.push(sheet);
    }
    out
}

/// Returns directions around +z.
fn rays() -> [Vec3; RAYS] {
    std::array::from_fn(|i| {
        let r = ((i as f32 + 0.5) / RAYS as f32).sqrt();
        let (sin, cos) = (i as f32 * 2.399_963_2).sin_cos();
        vec3(r * cos, r * sin, (1.0 - r * r).sqrt())
    })
}

/// Returns the faces of each connected surface, whose neighbours show the same side.
fn connected(faces: &[Face]) -> Vec<Vec<u32>> {
    let mut unions = Unions::new(faces.len());
    let mut edges: HashMap<[u32; 2], usize> = HashMap::with_capacity(3 * faces.len());
    for (number, face) in faces.iter().enumerate() {
        let [a, b, c] = face.welded;
        for [from, to] in [[a, b], [b, c], [c, a]] {
            edges.insert([from, to], number);
            if let Some(&other) = edges.get(&[to, from]) {
                unions.unite(number, other);
            }
        }
    }
    let mut surfaces: BTreeMap<usize, Vec<u32>> = BTreeMap::new();
    for number in 0..faces.len() {
        surfaces.entry(unions.root(number)).or_default().push(number as u32);
    }
    surfaces.into_values().collect()
}

/// Builds the mesh, smooth where faces meet at a small angle.
fn mesh_of(faces: &[Face], parts: &Parts, class: u8) -> Mesh {
    let count = faces.iter().flat_map(|face| face.welded).max().map_or(0, |most| most as usize + 1);
    let mut starts = vec![0_u32; count + 1];
    faces.iter().flat_map(|face| face.welded).for_each(|corner| starts[corner as usize + 1] += 1);
    for i in 1..starts.len() {
        starts[i] += starts[i - 1];
    }
    let mut ends = starts.clone();
    let mut around = vec![0_u32; 3 * faces.len()];
    for (face, number) in faces.iter().zip(0..) {
        for corner in face.welded {
            around[ends[corner as usize] as usize] = number;
            ends[corner as usize] += 1;
        }
    }
    let normals: Vec<Vec3> = faces.iter().map(Face::area_normal).collect();
    let units: Vec<Vec3> = normals.iter().map(|normal| normal.normalize_or(Vec3::Z)).collect();
    let size = Bounds::of(faces.iter().flat_map(|face| face.corners)).size();
    let mut mesh = Mesh::default();
    let mut vertices: HashMap<[u32; 6], u32> = HashMap::new();
    for (number, face) in faces.iter().enumerate() {
        let own = units[number];
        let has_picture = parts.parts[usize::from(face.part)].picture.is_some();
        let corners = std::array::from_fn(|k| {
            let welded = face.welded[k] as usize;
            let neighbours = &around[starts[welded] as usize..starts[welded + 1] as usize];
            let near = neighbours.iter().filter(|&&other| units[other as usize].dot(own) > SMOOTH);
            let normal = if neighbours.len() > MOST_AROUND {
                own
            } else {
                near.map(|&other| normals[other as usize]).sum::<Vec3>().normalize_or(own)
            };
            let place = if has_picture { face.places[k] } else { on_side(face.corners[k], own, size) };
            let key_normal = (normal * 100.0).round().to_array().map(|x| (x as i32).cast_unsigned());
            let key =
                [face.welded[k], key_normal[0], key_normal[1], key_normal[2], place.x.to_bits(), place.y.to_bits()];
            *vertices.entry(key).or_insert_with(|| {
                mesh.positions.push(face.corners[k]);
                mesh.normals.push(normal);
                mesh.uvs.push(place);
                mesh.positions.len() as u32 - 1
            })
        });
        mesh.triangles.push(corners);
        mesh.surfaces.push(Surface { material: face.part, class, instance: 0 });
    }
    mesh
}

/// Returns texture coordinates in metres for parts without a picture: seen along the axis that the side faces most,
/// with u along the longer way.
fn on_side(at: Vec3, normal: Vec3, size: Vec3) -> Vec2 {
    let axis = (1..3).fold(0, |best, axis| if normal[axis].abs() > normal[best].abs() { axis } else { best });
    let (p, q) = ((axis + 1) % 3, (axis + 2) % 3);
    let (u, v) = if size[p] >= size[q] { (p, q) } else { (q, p) };
    vec2(at[u], at[v])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synth::Split;
    use crate::synth::assets::catalogue::ModelKind;

    /// A box of 1 x 2 x 3 with y up, whose sides face outwards, or inwards if `turned`.
    fn block(turned: bool, without_lid: bool) -> String {
        let mut text = String::new();
        for i in 0..8 {
            text += &format!("v {} {} {}\n", i & 1, 3 * (i >> 1 & 1), 2 * (i >> 2 & 1));
        }
        let sides = [[1, 5, 7, 3], [2, 4, 8, 6], [1, 2, 6, 5], [3, 7, 8, 4], [1, 3, 4, 2], [5, 6, 8, 7]];
        for [a, b, c, d] in sides.into_iter().filter(|side| !without_lid || *side != [3, 7, 8, 4]) {
            text += &if turned { format!("f {a} {d} {c} {b}\n") } else { format!("f {a} {b} {c} {d}\n") };
        }
        text
    }

    fn loaded(text: &str) -> Result<Model, SynthError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.obj");
        std::fs::write(&path, text).unwrap();
        let frame = Mat3::from_cols(vec3(-1.0, 0.0, 0.0), vec3(0.0, 0.0, 1.0), vec3(0.0, 1.0, 0.0));
        let entry = Entry {
            file: "model.obj".into(),
            kind: ModelKind::Cabinet,
            size: vec3(0.5, 0.4, 0.9),
            elevation: 0.1,
            frame,
            split: Split::Train,
        };
        load(&path, &entry)
    }

    fn volume(mesh: &Mesh) -> f32 {
        let volume = |t: &[u32; 3]| {
            let [a, b, c] = t.map(|corner| mesh.positions[corner as usize]);
            a.dot(b.cross(c)) / 6.0
        };
        mesh.triangles.iter().map(volume).sum()
    }

    #[test]
    fn models_stand_in_their_size_and_face_outwards() {
        for turned in [false, true] {
            let model = loaded(&block(turned, false)).unwrap();
            let bounds = model.mesh.bounds();
            assert!((bounds.min - vec3(-0.25, 0.0, 0.1)).abs().max_element() < 1e-5, "{bounds:?}");
            assert!((bounds.max - vec3(0.25, 0.4, 1.0)).abs().max_element() < 1e-5, "{bounds:?}");
            assert_eq!(model.mesh.triangles.len(), 12);
            assert!((volume(&model.mesh) - 0.5 * 0.4 * 0.9).abs() < 1e-4, "{turned}");
            assert!(model.mesh.normals.iter().all(|normal| normal.abs().max_element() > 0.999));
            assert!(model.mesh.surfaces.iter().all(|surface| surface.class == crate::labels::nyu40::CABINET));
            let [level] = &model.levels[..] else { panic!("{:?}", model.levels) };
            assert!((level.z - 1.0).abs() < 1e-3 && (level.max - level.min).cmpgt(vec2(0.4, 0.3)).all(), "{level:?}");
        }
    }

    #[test]
    fn open_boxes_get_inner_sides() {
        let model = loaded(&block(false, true)).unwrap();
        assert_eq!(model.mesh.triangles.len(), 20);
        assert!(volume(&model.mesh).abs() < 0.02);
    }

    #[test]
    fn faces_that_lie_on_each_other_count_once() {
        let twice = block(false, false) + &block(true, false).replace("v ", "# ");
        assert_eq!(loaded(&twice).unwrap().mesh.triangles.len(), 12);
    }

    #[test]
    fn files_without_a_surface_are_refused() {
        for text in ["# nothing", "v 0 0 0\nv 0 0 0\nv 0 0 0\nf 1 2 3\n", "v nan 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n"] {
            let error = loaded(text).unwrap_err().to_string();
            assert!(error.contains("model.obj"), "{error}");
        }
        assert!(loaded("v 1e300 0 0\nv 1 0 0\nv 0 1 0\nv 1 1 0\nf 1 2 3\nf 2 3 4\n").is_ok());
        let many: String = "v 0 0 0\nv 1 0 0\nv 0 1 0\n".to_owned() + &"f 1 2 3\n".repeat(MOST_TRIANGLES + 1);
        assert!(loaded(&many).unwrap_err().to_string().contains("at most 150000"));
    }
}
