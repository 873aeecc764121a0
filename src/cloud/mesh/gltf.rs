//! glTF 2.0: a scene of meshes in JSON, with its numbers and pictures in binary.
//!
//! What the JSON says is never trusted: offsets, strides and counts are held against the bytes that are
//! there before anything is read.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;

use base64::Engine;
use glam::{DMat3, DMat4, DQuat, DVec3};

use super::paint::to_srgb;
use super::{Cutting, Look, Mesh, Pictures, Skin, Wrap, pictures};
use crate::cloud::error::{Origin, quoted};
use crate::cloud::source::{take, u32_at};
use crate::cloud::{CloudError, Format, PointCloud, Unit};
use crate::files::MappedFile;
use crate::images::Rgb8Image;

mod json;

use json::{Document, Material, Primitive, TextureInfo};

/// Most vertices of a scene. A mesh may be placed many times.
const MAX_VERTICES: usize = 1 << 27;
/// Most rows of numbers that are read. Each part of a mesh reads its own again, and it may be placed many
/// times.
const MAX_ROWS: u64 = 1 << 32;

/// Extensions that change nothing about the surface or are read here, besides those of materials and
/// textures.
const READ: [&str; 2] = ["KHR_mesh_quantization", "KHR_lights_punctual"];

/// Number of the first vertex for each set of positions, with the colours and the material that change
/// them.
type FirstVertices = BTreeMap<(usize, Option<(usize, Option<usize>)>), usize>;

/// A glTF file and what belongs to it.
struct File<'a> {
    origin: Origin<'a>,
    document: Document,
    buffers: Vec<&'a [u8]>,
    /// Rows of accessors that were read so far.
    num_rows: Cell<u64>,
}

pub(in crate::cloud) fn read(path: &Path, bytes: &[u8]) -> Result<PointCloud, CloudError> {
    Ok(read_mesh(path, bytes)?.into_cloud(Cutting::Always))
}

/// Reads the surface without cutting it.
pub(super) fn read_mesh(path: &Path, bytes: &[u8]) -> Result<Mesh, CloudError> {
    let origin = Origin { path, format: "glTF" };
    let binary = super::detect::is_glb(bytes);
    let (text, body) = if binary { chunks(origin, bytes)? } else { (bytes, None) };
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let document: Document = serde_json::from_slice(text).map_err(|error| {
        // The message may quote the file at any length.
        let message: String = error.to_string().chars().take(200).collect();
        origin.decode(0, "the description of the scene", message)
    })?;
    check_version(origin, &document)?;
    // Mapped files live as long as the buffers that borrow them.
    let mut files = Vec::new();
    for buffer in &document.buffers {
        files.push(open_buffer(origin, buffer.uri.as_deref())?);
    }
    let buffers = files.iter().enumerate().map(|(i, file)| match file {
        Some(file) => &file[..],
        None if i == 0 => body.unwrap_or_default(),
        None => &[],
    });
    let file = File { origin, buffers: buffers.collect(), document, num_rows: Cell::new(0) };
    let mut scene = Scene::new(&file);
    scene.place_all()?;
    Ok(scene.into_mesh(binary))
}

/// The JSON and the binary chunk of a GLB file.
fn chunks<'a>(origin: Origin<'_>, bytes: &'a [u8]) -> Result<(&'a [u8], Option<&'a [u8]>), CloudError> {
    const HEADER: usize = 12;
    if bytes.len() < HEADER {
        return Err(origin.truncated(0, "the header", HEADER as u64, bytes.len() as u64));
    }
    let version = u32_at(bytes, 4);
    if version != 2 {
        return Err(origin.unsupported(4, format!("version {version}"), "version 2"));
    }
    let mut at = HEADER;
    let (mut text, mut body) = (None, None);
    while bytes.len() - at >= 8 && (text.is_none() || body.is_none()) {
        let length = u32_at(bytes, at) as usize;
        let kind = u32_at(bytes, at + 4);
        let available = bytes.len() - at - 8;
        let Some(chunk) = bytes.get(at + 8..).and_then(|rest| rest.get(..length)) else {
            return Err(origin.truncated(at as u64 + 8, "a chunk", length as u64, available as u64));
        };
        match &kind.to_le_bytes() {
            b"JSON" if text.is_none() => text = Some(chunk),
            b"BIN\0" if body.is_none() => body = Some(chunk),
            _ => {}
        }
        at += 8 + length;
    }
    let text = text.ok_or_else(|| origin.value(HEADER as u64, "the first chunk", "missing", "a chunk of JSON"))?;
    Ok((text, body))
}

fn check_version(origin: Origin<'_>, document: &Document) -> Result<(), CloudError> {
    let version = document.asset.version.as_str();
    if !version.starts_with("2.") && version != "2" {
        return Err(origin.unsupported(0, format!("version {}", quoted(version.as_bytes())), "version 2.0"));
    }
    let unread = document.extensions_required.iter().find(|name| {
        !READ.contains(&name.as_str()) && !name.starts_with("KHR_materials_") && !name.contains("_texture_")
    });
    match unread {
        None => Ok(()),
        Some(name) => {
            let what = format!("the extension {}", quoted(name.as_bytes()));
            Err(origin.unsupported(0, what, "a file saved without compression"))
        }
    }
}

/// Bytes of a buffer with an address; `None` for the binary chunk.
fn open_buffer(origin: Origin<'_>, uri: Option<&str>) -> Result<Option<MappedFile>, CloudError> {
    let Some(uri) = uri else { return Ok(None) };
    if let Some(data) = data_of(uri) {
        let data = data.ok_or_else(|| origin.decode(0, "a buffer in the text", "it is not base64"))?;
        return Ok(Some(MappedFile::held(data)));
    }
    match pictures::open_beside(origin.path, &percent_decoded(uri)) {
        Ok((_, bytes)) => Ok(Some(bytes)),
        Err(why) => Err(origin.decode(0, "a buffer", why.chars().take(400).collect::<String>())),
    }
}

/// Bytes of an address that begins with "data:"; `None` for other addresses, `Some(None)` if they are
/// damaged.
fn data_of(uri: &str) -> Option<Option<Vec<u8>>> {
    let rest = uri.strip_prefix("data:")?;
    let data = rest.split_once(";base64,").map(|(_, data)| data);
    Some(data.and_then(|data| base64::engine::general_purpose::STANDARD.decode(data).ok()))
}

/// `text` with "%20" and the like as characters.
fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let digits = bytes.get(at + 1..at + 3).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.filter(|_| byte == b'%').and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(decoded) => {
                out.push(decoded);
                at += 3;
            }
            None => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

impl File<'_> {
    fn wrong(&self, field: impl Into<String>, found: impl ToString, expected: &str) -> CloudError {
        self.origin.value(0, field, found, expected)
    }

    /// Item `index` of a list of the document.
    fn item<'b, T>(&self, list: &'b [T], name: &str, index: usize) -> Result<&'b T, CloudError> {
        let expected = || format!("a number below {}", list.len());
        list.get(index).ok_or_else(|| self.wrong(format!("a number of \"{name}\""), index, &expected()))
    }

    /// Bytes of buffer view `index`, and the length of its rows if it states one.
    fn view(&self, index: usize) -> Result<(&[u8], Option<usize>), CloudError> {
        let view = self.item(&self.document.buffer_views, "bufferViews", index)?;
        let buffer = self.item(&self.buffers, "buffers", view.buffer)?;
        let end = view.byte_offset.checked_add(view.byte_length);
        let bytes = end.and_then(|end| buffer.get(view.byte_offset..end)).ok_or_else(|| {
            let what = format!("bufferView {index}");
            let available = buffer.len().saturating_sub(view.byte_offset);
            self.origin.truncated(view.byte_offset as u64, what, view.byte_length as u64, available as u64)
        })?;
        Ok((bytes, view.byte_stride.filter(|stride| *stride > 0)))
    }

    /// Rows of accessor `index`, the first `N` numbers of each.
    fn rows<const N: usize>(&self, index: usize) -> Result<Vec<[f64; N]>, CloudError> {
        let accessor = self.item(&self.document.accessors, "accessors", index)?;
        let name = format!("accessor {index}");
        if accessor.sparse.is_some() {
            return Err(self.origin.unsupported(0, format!("{name}: sparse numbers"), "numbers without gaps"));
        }
        let width = match accessor.kind.as_str() {
            "SCALAR" => 1,
            "VEC2" => 2,
            "VEC3" => 3,
            "VEC4" => 4,
            other => return Err(self.wrong(name, quoted(other.as_bytes()), "SCALAR, VEC2, VEC3 or VEC4")),
        };
        if width < N {
            return Err(self.wrong(name, quoted(accessor.kind.as_bytes()), &format!("{N} numbers in each row")));
        }
        let (size, largest) = match accessor.component_type {
            5120 => (1, f64::from(i8::MAX)),
            5121 => (1, f64::from(u8::MAX)),
            5122 => (2, f64::from(i16::MAX)),
            5123 => (2, f64::from(u16::MAX)),
            5125 => (4, f64::from(u32::MAX)),
            5126 => (4, 1.0),
            other => return Err(self.wrong(name, other, "a component type from 5120 to 5126")),
        };
        let Some(view) = accessor.buffer_view else {
            return Err(self.wrong(name, "without a bufferView", "the number of one"));
        };
        let (bytes, stride) = self.view(view)?;
        let bytes = bytes.get(accessor.byte_offset..).unwrap_or_default();
        let row = width * size;
        let stride = stride.unwrap_or(row);
        let needed = match accessor.count {
            0 => 0,
            count => (count - 1).saturating_mul(stride).saturating_add(row),
        };
        if needed > bytes.len() {
            let what = format!("{name} with {} rows", accessor.count);
            return Err(self.origin.truncated(accessor.byte_offset as u64, what, needed as u64, bytes.len() as u64));
        }
        let num_rows = self.num_rows.get().saturating_add(accessor.count as u64);
        if num_rows > MAX_ROWS {
            return Err(self.wrong("the number of rows of all parts", num_rows, &format!("at most {MAX_ROWS}")));
        }
        self.num_rows.set(num_rows);
        let scale = if accessor.normalized && accessor.component_type != 5126 { 1.0 / largest } else { 1.0 };
        let number = |at: usize| {
            let part: [u8; 4] = take(bytes, at);
            let short: [u8; 2] = take(bytes, at);
            let byte = bytes.get(at).copied().unwrap_or_default();
            let value = match accessor.component_type {
                5120 => f64::from(byte.cast_signed()),
                5121 => f64::from(byte),
                5122 => f64::from(i16::from_le_bytes(short)),
                5123 => f64::from(u16::from_le_bytes(short)),
                5125 => f64::from(u32::from_le_bytes(part)),
                _ => f64::from(f32::from_le_bytes(part)),
            };
            if scale == 1.0 { value } else { (value * scale).max(-1.0) }
        };
        let of_row = |i: usize| std::array::from_fn(|k| number(i * stride + k * size));
        Ok((0..accessor.count).map(of_row).collect())
    }
}

/// The meshes of a scene, put into one.
struct Scene<'a> {
    file: &'a File<'a>,
    cloud: PointCloud,
    normals: Vec<[f32; 3]>,
    colors: Vec<[u8; 3]>,
    num_colored: usize,
    num_with_normal: usize,
    looks: Vec<Look>,
    places: Vec<[[f32; 2]; 3]>,
    skins: Vec<Skin>,
    skin_of: BTreeMap<usize, Option<u32>>,
    pictures: Pictures<'a>,
    /// Lines and the like, which are no surface.
    num_other: usize,
    num_tinted: usize,
}

/// Colours of a material.
struct Paint {
    look: Look,
    /// The linear colour, which colours of vertices are multiplied with.
    factor: [f32; 3],
    texture: Option<TextureInfo>,
}

impl<'a> Scene<'a> {
    fn new(file: &'a File<'a>) -> Self {
        Self {
            file,
            cloud: PointCloud::default(),
            normals: Vec::new(),
            colors: Vec::new(),
            num_colored: 0,
            num_with_normal: 0,
            looks: Vec::new(),
            places: Vec::new(),
            skins: Vec::new(),
            skin_of: BTreeMap::new(),
            pictures: Pictures::of(file.origin.path),
            num_other: 0,
            num_tinted: 0,
        }
    }

    /// Adds the meshes of all nodes of the scene.
    fn place_all(&mut self) -> Result<(), CloudError> {
        let document = &self.file.document;
        let roots: Vec<usize> = match document.scenes.get(document.scene.unwrap_or(0)) {
            Some(scene) => scene.nodes.clone(),
            None => {
                let mut is_child = vec![false; document.nodes.len()];
                for &child in document.nodes.iter().flat_map(|node| &node.children) {
                    if let Some(is_child) = is_child.get_mut(child) {
                        *is_child = true;
                    }
                }
                (0..document.nodes.len()).filter(|&node| !is_child[node]).collect()
            }
        };
        if document.nodes.is_empty() {
            return (0..document.meshes.len()).try_for_each(|mesh| self.place(mesh, DMat4::IDENTITY));
        }
        let mut seen = vec![false; document.nodes.len()];
        let mut open: Vec<(usize, DMat4)> = roots.into_iter().rev().map(|node| (node, DMat4::IDENTITY)).collect();
        while let Some((index, parent)) = open.pop() {
            let node = self.file.item(&document.nodes, "nodes", index)?;
            // Without this a node could be its own child.
            if std::mem::replace(&mut seen[index], true) {
                return Err(self.file.wrong(format!("node {index}"), "reached twice", "one parent for each node"));
            }
            let own = match &node.matrix {
                Some(matrix) => DMat4::from_cols_array(matrix),
                None => {
                    let rotation = DQuat::from_array(node.rotation.unwrap_or([0.0, 0.0, 0.0, 1.0]));
                    let scale = DVec3::from(node.scale.unwrap_or([1.0; 3]));
                    DMat4::from_scale_rotation_translation(
                        scale,
                        if rotation.length_squared() > 0.0 { rotation.normalize() } else { DQuat::IDENTITY },
                        node.translation.unwrap_or_default().into(),
                    )
                }
            };
            let world = parent * own;
            if let Some(mesh) = node.mesh {
                self.place(mesh, world)?;
            }
            open.extend(node.children.iter().rev().map(|&child| (child, world)));
        }
        Ok(())
    }

    fn place(&mut self, mesh: usize, world: DMat4) -> Result<(), CloudError> {
        let mesh = self.file.item(&self.file.document.meshes, "meshes", mesh)?;
        // Parts of a mesh often share their vertices.
        let mut first_of = FirstVertices::new();
        for primitive in &mesh.primitives {
            self.add(primitive, world, &mut first_of)?;
        }
        Ok(())
    }

    fn add(&mut self, primitive: &Primitive, world: DMat4, first_of: &mut FirstVertices) -> Result<(), CloudError> {
        const POINTS: u32 = 0;
        const TRIANGLES: u32 = 4;
        const STRIP: u32 = 5;
        const FAN: u32 = 6;
        let mode = primitive.mode.unwrap_or(TRIANGLES);
        let attribute = |name: &str| primitive.attributes.get(name).copied();
        let Some(position) = attribute("POSITION").filter(|_| matches!(mode, POINTS | TRIANGLES | STRIP | FAN)) else {
            self.num_other += 1;
            return Ok(());
        };
        let paint = self.paint(primitive.material)?;
        let textured = matches!(paint.look, Look::Skin(_));
        let color = attribute("COLOR_0");
        let key = (position, color.map(|color| (color, primitive.material)));
        let first = match first_of.get(&key) {
            Some(&first) => first,
            None => {
                let first = self.cloud.len();
                self.add_vertices(position, attribute("NORMAL"), color.filter(|_| !textured), world, paint.factor)?;
                first_of.insert(key, first);
                first
            }
        };
        self.num_tinted += usize::from(textured && color.is_some());
        let vertices = self.file.document.accessors.get(position).map_or(0, |accessor| accessor.count);
        let indices: Vec<u32> = match primitive.indices {
            Some(index) => {
                let rows = self.file.rows::<1>(index)?;
                let number = |[index]: [f64; 1]| match index {
                    index if index >= 0.0 && index < vertices as f64 => Ok(index as u32),
                    index => {
                        let expected = format!("a vertex number from 0 to below {vertices}");
                        Err(self.file.wrong("a corner of a face", index, &expected))
                    }
                };
                rows.into_iter().map(number).collect::<Result<_, _>>()?
            }
            None => (0..vertices as u32).collect(),
        };
        let triangles: Vec<[u32; 3]> = match mode {
            TRIANGLES => indices.chunks_exact(3).map(|c| [c[0], c[1], c[2]]).collect(),
            STRIP => {
                let turned = |(i, c): (usize, &[u32])| if i % 2 == 0 { [c[0], c[1], c[2]] } else { [c[1], c[0], c[2]] };
                indices.windows(3).enumerate().map(turned).filter(|[a, b, c]| a != b && b != c && a != c).collect()
            }
            FAN => super::fan(indices.len()).map(|corners| corners.map(|corner| indices[corner])).collect(),
            _ => Vec::new(),
        };
        let count = self.cloud.faces.len() + triangles.len();
        if count > 2 * MAX_VERTICES {
            return Err(self.file.wrong("the number of triangles", count, &format!("at most {}", 2 * MAX_VERTICES)));
        }
        let look = if color.is_some() && !textured { Look::Vertices } else { paint.look };
        self.looks.extend(std::iter::repeat_n(look, triangles.len()));
        self.add_places(primitive, paint.texture.as_ref().filter(|_| textured), &triangles)?;
        self.cloud.faces.extend(triangles.into_iter().map(|corners| corners.map(|corner| corner + first as u32)));
        Ok(())
    }

    fn add_vertices(
        &mut self,
        position: usize,
        normal: Option<usize>,
        color: Option<usize>,
        world: DMat4,
        factor: [f32; 3],
    ) -> Result<(), CloudError> {
        let positions = self.file.rows::<3>(position)?;
        let count = self.cloud.len() + positions.len();
        if count > MAX_VERTICES {
            return Err(self.file.wrong("the number of vertices", count, &format!("at most {MAX_VERTICES}")));
        }
        self.cloud.positions.extend(positions.iter().map(|&p| world.transform_point3(p.into()).to_array()));
        let turn = DMat3::from_mat4(world).inverse().transpose();
        let normals = normal.map(|normal| self.file.rows::<3>(normal)).transpose()?.unwrap_or_default();
        self.num_with_normal += normals.len().min(positions.len());
        self.normals.extend(normals.iter().take(positions.len()).map(|&normal| {
            let turned = (turn * DVec3::from(normal)).normalize_or_zero();
            turned.to_array().map(|x| x as f32)
        }));
        self.normals.resize(count, [0.0; 3]);
        let colors = color.map(|color| self.file.rows::<3>(color)).transpose()?.unwrap_or_default();
        self.num_colored += colors.len().min(positions.len());
        let stored = |color: &[f64; 3]| std::array::from_fn(|channel| to_srgb(color[channel] as f32 * factor[channel]));
        self.colors.extend(colors.iter().take(positions.len()).map(stored));
        self.colors.resize(count, super::GREY);
        Ok(())
    }

    fn add_places(
        &mut self,
        primitive: &Primitive,
        texture: Option<&TextureInfo>,
        triangles: &[[u32; 3]],
    ) -> Result<(), CloudError> {
        let first = self.places.len();
        self.places.resize(first + triangles.len(), [[0.0; 2]; 3]);
        let Some(texture) = texture else { return Ok(()) };
        let change = texture.extensions.transform.clone().unwrap_or_default();
        let set = change.tex_coord.unwrap_or(texture.tex_coord);
        let Some(&accessor) = primitive.attributes.get(&format!("TEXCOORD_{set}")) else { return Ok(()) };
        let rows = self.file.rows::<2>(accessor)?;
        let (sin, cos) = change.rotation.sin_cos();
        let place = |corner: u32| {
            let [u, v] = rows.get(corner as usize).copied().unwrap_or_default();
            let (u, v) = (u * change.scale[0], v * change.scale[1]);
            [(cos * u + sin * v + change.offset[0]) as f32, (cos * v - sin * u + change.offset[1]) as f32]
        };
        for (to, corners) in self.places[first..].iter_mut().zip(triangles) {
            *to = corners.map(place);
        }
        Ok(())
    }

    fn paint(&mut self, material: Option<usize>) -> Result<Paint, CloudError> {
        let Some(index) = material else {
            return Ok(Paint { look: Look::Vertices, factor: [1.0; 3], texture: None });
        };
        let material = self.file.item(&self.file.document.materials, "materials", index)?;
        let (factor, texture) = colors_of(material);
        let flat = Look::Flat(factor.map(to_srgb));
        let Some(texture) = texture else {
            return Ok(Paint { look: flat, factor, texture: None });
        };
        let skin = match self.skin_of.get(&index) {
            Some(&skin) => skin,
            None => {
                let skin = self.skin(texture.index, factor)?;
                self.skin_of.insert(index, skin);
                skin
            }
        };
        // The factor beside a picture is mostly white. It says nothing about the surface.
        Ok(Paint { look: skin.map_or(Look::Vertices, Look::Skin), factor, texture: Some(texture) })
    }

    /// Reads the picture of a texture; `None` if it cannot be used, with a note.
    fn skin(&mut self, texture: usize, factor: [f32; 3]) -> Result<Option<u32>, CloudError> {
        let document = &self.file.document;
        let texture = self.file.item(&document.textures, "textures", texture)?;
        let wrap = match texture.sampler {
            Some(sampler) => self.file.item(&document.samplers, "samplers", sampler)?.wrap(),
            None => [Wrap::Repeat; 2],
        };
        let Some(source) = texture.source else {
            self.cloud.notes.push("a picture is not used: its format is an extension of glTF".into());
            return Ok(None);
        };
        let image = self.file.item(&document.images, "images", source)?;
        let name = format!("image {source}");
        let picture: Option<Rc<Rgb8Image>> = match (image.uri.as_deref(), image.buffer_view) {
            (Some(uri), _) => match data_of(uri) {
                Some(Some(data)) => self.pictures.inside(&name, &data),
                Some(None) => {
                    self.cloud.notes.push(format!("a picture is not used: {name} is not base64"));
                    None
                }
                None => self.pictures.named(&percent_decoded(uri)),
            },
            (None, Some(view)) => self.pictures.inside(&name, self.file.view(view)?.0),
            (None, None) => None,
        };
        Ok(picture.map(|picture| {
            self.skins.push(Skin { picture, factor, wrap });
            self.skins.len() as u32 - 1
        }))
    }

    fn into_mesh(self, binary: bool) -> Mesh {
        let mut cloud = self.cloud;
        cloud.format = Format::Gltf { binary };
        cloud.unit = Some(Unit::Metre);
        cloud.up = Some([0.0, 1.0, 0.0]);
        cloud.notes.push("y is up, as in every glTF file".into());
        cloud.notes.extend(self.pictures.into_notes());
        if self.num_other > 0 {
            cloud.notes.push(format!("{} parts without a surface (lines and the like) are not used", self.num_other));
        }
        if self.num_tinted > 0 {
            cloud.notes.push("colours of vertices are not used where there is a picture".into());
        }
        if self.num_with_normal == cloud.len() && !cloud.is_empty() {
            cloud.normals = Some(self.normals);
        }
        if self.num_colored > 0 {
            cloud.colors = Some(self.colors);
        }
        // Places matter for pictures alone.
        let places = if self.skins.is_empty() { Vec::new() } else { self.places };
        Mesh { cloud, looks: self.looks, places, skins: self.skins }
    }
}

/// The linear colour of a material, and its picture.
fn colors_of(material: &Material) -> ([f32; 3], Option<TextureInfo>) {
    let rgb = |factor: [f32; 4]| [factor[0], factor[1], factor[2]];
    if let Some(gloss) = &material.extensions.specular_glossiness {
        return (rgb(gloss.diffuse_factor.unwrap_or([1.0; 4])), gloss.diffuse_texture.clone());
    }
    let metal = &material.pbr_metallic_roughness;
    (rgb(metal.base_color_factor.unwrap_or([1.0; 4])), metal.base_color_texture.clone())
}
