//! OBJ: vertices, polygons and materials.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::{Cutting, Look, Mesh, Pictures, Skin, differ, fan, mtl, numbers, pictures};
use crate::cloud::data::{AttributeData, colors_from, parse_f64};
use crate::cloud::error::{Origin, quoted};
use crate::cloud::source::words;
use crate::cloud::{CloudError, Format, PointCloud};

/// Keywords without a meaning for the surface.
const PLAIN: [&[u8]; 5] = [b"o", b"g", b"s", b"usemap", b"maplib"];

/// What the lines of a file say.
#[derive(Default)]
struct Lines {
    positions: Vec<[f64; 3]>,
    /// Red, green and blue, of vertices that have them.
    colors: [Vec<f32>; 3],
    places: Vec<[f32; 2]>,
    normals: Vec<[f32; 3]>,
    triangles: Vec<[u32; 3]>,
    /// Of each triangle: an index of `materials`.
    material_of: Vec<Option<u32>>,
    /// Of each triangle: indices of `places`; empty if no face has any.
    places_of: Vec<[Option<u32>; 3]>,
    normal_of: Vec<Option<u32>>,
    materials: Vec<String>,
    libraries: Vec<String>,
    degenerate: u64,
    not_used: BTreeSet<String>,
}

/// A corner of a polygon: the vertex, its place in a picture, its normal.
type Corner = (u32, Option<u32>, Option<u32>);

pub(in crate::cloud) fn read(path: &Path, bytes: &[u8]) -> Result<PointCloud, CloudError> {
    Ok(read_mesh(path, bytes)?.into_cloud(Cutting::Always))
}

/// Reads the surface without cutting it.
pub(super) fn read_mesh(path: &Path, bytes: &[u8]) -> Result<Mesh, CloudError> {
    let origin = Origin { path, format: "OBJ" };
    let mut lines = Lines::default();
    let mut names: BTreeMap<String, u32> = BTreeMap::new();
    let mut material = None;
    let mut polygon = Vec::new();
    for (line, number) in bytes.split(|&byte| byte == b'\n').zip(1_u64..) {
        let line = line.trim_ascii();
        let mut words = words(line);
        let Some(keyword) = words.next() else { continue };
        let rest = line.get(keyword.len()..).unwrap_or_default().trim_ascii();
        let bad = |expected: &str| origin.line(number, quoted(line), expected);
        match keyword {
            b"v" => lines.vertex(words).ok_or_else(|| bad("\"v X Y Z\", with a colour or without"))?,
            b"vt" => {
                let [u, v] = numbers(&mut words).ok_or_else(|| bad("\"vt U V\""))?;
                lines.places.push([u as f32, 1.0 - v as f32]);
            }
            b"vn" => {
                let normal: [f64; 3] = numbers(&mut words).ok_or_else(|| bad("\"vn X Y Z\""))?;
                lines.normals.push(normal.map(|x| x as f32));
            }
            b"f" => {
                polygon.clear();
                for word in words {
                    let corner = lines.corner(word);
                    polygon.push(corner.ok_or_else(|| bad("numbers of vertices from 1 to the last one above"))?);
                }
                lines.face(&polygon, material);
            }
            b"usemtl" => {
                let name = String::from_utf8_lossy(rest).into_owned();
                let next = names.len() as u32;
                material = Some(*names.entry(name.clone()).or_insert_with(|| {
                    lines.materials.push(name);
                    next
                }));
            }
            b"mtllib" => lines.libraries.push(String::from_utf8_lossy(rest).into_owned()),
            keyword if keyword.starts_with(b"#") || PLAIN.contains(&keyword) => {}
            keyword => {
                const MOST: usize = 8;
                if lines.not_used.len() < MOST {
                    lines.not_used.insert(quoted(keyword));
                }
            }
        }
    }
    Ok(lines.into_mesh(path))
}

/// Index that a number of a file stands for: from 1, or from -1 backwards.
fn index(word: &[u8], length: usize) -> Option<u32> {
    let number: i64 = std::str::from_utf8(word).ok()?.parse().ok()?;
    let length = length as i64;
    let index = if number < 0 { length.checked_add(number)? } else { number.checked_sub(1)? };
    u32::try_from(index).ok().filter(|_| (0..length).contains(&index))
}

impl Lines {
    fn vertex<'a>(&mut self, words: impl Iterator<Item = &'a [u8]>) -> Option<()> {
        // A fourth number is a weight; six or seven hold a colour.
        let mut values = [0.0; 7];
        let mut count = 0;
        for (word, value) in words.zip(&mut values) {
            *value = parse_f64(word)?;
            count += 1;
        }
        if count < 3 || self.positions.len() >= u32::MAX as usize {
            return None;
        }
        let [x, y, z, red, green, blue, _] = values;
        if count >= 6 {
            for (column, value) in self.colors.iter_mut().zip([red, green, blue]) {
                column.push(value as f32);
            }
        }
        self.positions.push([x, y, z]);
        Some(())
    }

    fn corner(&self, word: &[u8]) -> Option<Corner> {
        let mut parts = word.split(|&byte| byte == b'/');
        let vertex = index(parts.next()?, self.positions.len())?;
        let mut part = |length| match parts.next() {
            None | Some([]) => Some(None),
            Some(word) => Some(Some(index(word, length)?)),
        };
        Some((vertex, part(self.places.len())?, part(self.normals.len())?))
    }

    fn face(&mut self, polygon: &[Corner], material: Option<u32>) {
        if polygon.len() < 3 {
            self.degenerate += 1;
            return;
        }
        for &(vertex, _, normal) in polygon.iter().filter(|(_, _, normal)| normal.is_some()) {
            self.normal_of.resize(self.normal_of.len().max(vertex as usize + 1), None);
            self.normal_of[vertex as usize] = normal;
        }
        for triangle in fan(polygon.len()) {
            let corners = triangle.map(|corner| polygon[corner]);
            if self.places_of.is_empty() && corners.iter().any(|(_, place, _)| place.is_some()) {
                self.places_of.resize(self.triangles.len(), [None; 3]);
            }
            if !self.places_of.is_empty() || corners.iter().any(|(_, place, _)| place.is_some()) {
                self.places_of.push(corners.map(|(_, place, _)| place));
            }
            self.triangles.push(corners.map(|(vertex, _, _)| vertex));
            self.material_of.push(material);
        }
    }

    fn into_mesh(self, path: &Path) -> Mesh {
        let mut notes = Vec::new();
        if self.degenerate > 0 {
            notes.push(format!("{} faces have fewer than three corners", self.degenerate));
        }
        if !self.not_used.is_empty() {
            let kinds: Vec<&str> = self.not_used.iter().map(String::as_str).collect();
            notes.push(format!("lines that are not used begin with {}", kinds.join(", ")));
        }
        let points = self.positions.len();
        let colored = self.colors[0].len();
        let mut colors = None;
        if colored == points && points > 0 {
            let [red, green, blue] = self.colors.map(AttributeData::from);
            colors = Some(colors_from(&red, &green, &blue, &mut notes));
        } else if colored > 0 {
            notes.push(format!("colours of vertices are not used: {colored} of {points} vertices have one"));
        }
        let mut normals = None;
        if self.normal_of.len() == points && points > 0 && self.normal_of.iter().all(Option::is_some) {
            let normal = |index: &Option<u32>| index.and_then(|index| self.normals.get(index as usize)).copied();
            normals = Some(self.normal_of.iter().map(|index| normal(index).unwrap_or_default()).collect());
        }
        let mut skins = Vec::new();
        let mut looks = Vec::new();
        let mut places = Vec::new();
        if differ(colors.as_deref()) && !self.materials.is_empty() {
            notes.push("materials are not used: the vertices have colours".into());
        } else if !self.materials.is_empty() {
            let found = Materials::read(path, &self.libraries, &self.materials, &mut notes);
            if found.looks.iter().any(|(look, _)| *look != Look::Vertices) {
                let unplaced = [None; 3];
                for (i, material) in self.material_of.iter().enumerate() {
                    let look = material.and_then(|material| found.looks.get(material as usize));
                    let (with_picture, without) = look.copied().unwrap_or((Look::Vertices, Look::Vertices));
                    let placed = self.places_of.get(i).unwrap_or(&unplaced).iter().all(Option::is_some);
                    looks.push(if placed { with_picture } else { without });
                }
                let place = |place: Option<u32>| {
                    place.and_then(|place| self.places.get(place as usize)).copied().unwrap_or_default()
                };
                places = self.places_of.iter().map(|corners| corners.map(place)).collect();
                skins = found.skins;
            }
        }
        let cloud = PointCloud {
            positions: self.positions,
            colors,
            normals,
            faces: self.triangles,
            format: Format::Obj,
            notes,
            ..PointCloud::default()
        };
        Mesh { cloud, looks, places, skins }
    }
}

/// Looks of the materials that faces use.
struct Materials {
    /// For triangles with places in a picture, and for those without.
    looks: Vec<(Look, Look)>,
    skins: Vec<Skin>,
}

impl Materials {
    fn read(path: &Path, libraries: &[String], names: &[String], notes: &mut Vec<String>) -> Self {
        let mut known = BTreeMap::new();
        let mut listed: Vec<&String> = libraries.iter().collect();
        listed.sort();
        listed.dedup();
        for library in listed {
            match pictures::open_beside(path, library) {
                Ok((_, bytes)) => mtl::read(&bytes, &mut known),
                Err(why) => notes.push(format!("materials are not used: {why}")),
            }
        }
        let mut pictures = Pictures::of(path);
        let mut skins: Vec<Skin> = Vec::new();
        let mut missing = Vec::new();
        let looks = names.iter().map(|name| {
            let Some(material) = known.get(name) else {
                missing.push(format!("\"{name}\""));
                return (Look::Vertices, Look::Vertices);
            };
            let flat = material.color.map_or(Look::Vertices, Look::Flat);
            let Some(file) = &material.picture else { return (flat, flat) };
            match pictures.named(file) {
                Some(picture) => {
                    skins.push(Skin::new(picture));
                    (Look::Skin(skins.len() as u32 - 1), flat)
                }
                // The colour beside a picture is mostly white. It says nothing about the surface.
                None => (Look::Vertices, Look::Vertices),
            }
        });
        let looks = looks.collect();
        notes.extend(pictures.into_notes());
        if !missing.is_empty() && !known.is_empty() {
            missing.truncate(5);
            notes.push(format!("materials that no file describes: {}", missing.join(", ")));
        }
        Self { looks, skins }
    }
}
