//! A labelled scan and its objects as one file for other programs: glTF 2.0, binary (`.glb`).

use std::io::Write as _;
use std::path::Path;

use glam::{DMat3, DQuat, DVec3};
use serde_json::{Value, json};

use super::ViewerError;
use super::answers::listed;
use super::library::Entry;
use super::results::Results;
use super::scan::{Scan, chosen};
use crate::files::write_atomic;
use crate::images::draw::UNLABELLED_COLOR;

/// Points of an exported scene, unless another number is asked for. The file has 400 MB then.
pub const GLB_POINTS: usize = 20_000_000;
/// Most points of a file. Its length has 32 bits, and a point takes twenty bytes.
const MOST_POINTS: usize = 150_000_000;

/// Kinds of numbers and of primitives, as glTF counts them.
const FLOAT: u32 = 5126;
const UNSIGNED_SHORT: u32 = 5123;
const UNSIGNED_BYTE: u32 = 5121;
const POINTS: u32 = 0;
const LINES: u32 = 1;

/// Pairs of corners of a cube that differ along one axis. Bit `a` of a corner is its place along axis `a`.
const EDGES: [u8; 24] = [0, 1, 2, 3, 4, 5, 6, 7, 0, 2, 1, 3, 4, 6, 5, 7, 0, 4, 1, 5, 2, 6, 3, 7];

/// What is written.
struct Content<'a> {
    name: &'a str,
    /// `[N]`: positions relative to `origin`.
    points: &'a [[f32; 3]],
    /// `[N]`: red, green and blue, as on a screen.
    colors: &'a [[u8; 3]],
    origin: [f64; 3],
    up: [f64; 3],
    metres_per_unit: f64,
    /// Objects as the page lists them.
    objects: &'a [Value],
    /// Colour of each label.
    color_of_label: &'a [[u8; 3]],
}

/// Writes the results of `entry` as a scene to `path`: the points in the colours of their labels, and a box for each
/// object, as a node with its name. Of the points, `max_points` are written at most. Returns the size in bytes.
///
/// The scene is in metres with y up, as glTF has it. The nodes below the first one are in the axes of the scan, relative
/// to the `origin` that its `extras` hold.
///
/// # Errors
/// [`ViewerError`] if the results are damaged or the file cannot be written.
pub fn export_glb(entry: &Entry, max_points: usize, path: &Path) -> Result<u64, ViewerError> {
    let Results { scene, saved, classes, of_point, .. } = Results::read(&entry.folder)?;
    let color_of_label: Vec<[u8; 3]> = classes.iter().map(|class| class.color).collect();
    let shown = chosen(scene.num_points(), max_points.min(MOST_POINTS));
    let points: Vec<[f32; 3]> = shown.iter().map(|&i| scene.points()[i as usize]).collect();
    let color = |label: i32| usize::try_from(label).ok().and_then(|label| color_of_label.get(label).copied());
    let colors: Vec<[u8; 3]> =
        shown.iter().map(|&i| color(of_point.label[i as usize]).unwrap_or(UNLABELLED_COLOR)).collect();
    let (scan, _) = Scan::read(&entry.folder, &entry.name, usize::MAX)?;
    let content = Content {
        name: &entry.name,
        points: &points,
        colors: &colors,
        origin: scene.origin(),
        up: saved.about.up,
        metres_per_unit: scene.metres_per_unit().unwrap_or(1.0),
        objects: &listed(&scan),
        color_of_label: &color_of_label,
    };
    let bytes = glb(&content);
    write_atomic(path, |out| out.write_all(&bytes))
        .map_err(|source| ViewerError::Io { path: path.to_path_buf(), source })?;
    Ok(bytes.len() as u64)
}

/// The bytes of the file.
fn glb(content: &Content<'_>) -> Vec<u8> {
    let Content { name, points, colors, origin, up, metres_per_unit, objects, color_of_label } = content;
    let mut data: Vec<u8> = points.iter().flatten().flat_map(|x| x.to_le_bytes()).collect();
    let colors_at = data.len();
    data.extend(
        colors
            .iter()
            .flat_map(|color| {
                let [red, green, blue] = color.map(linear);
                [red, green, blue, u16::MAX].map(u16::to_le_bytes)
            })
            .flatten(),
    );
    let corners_at = data.len();
    let corners = (0..8_u8).flat_map(|corner| [0, 1, 2].map(|axis| f32::from(corner >> axis & 1) - 0.5));
    data.extend(corners.flat_map(f32::to_le_bytes));
    let edges_at = data.len();
    data.extend(EDGES);
    let [low, high] = bounds(points);
    let view = |from: usize, to: usize, target: u32| json!({ "buffer": 0, "byteOffset": from, "byteLength": to - from, "target": target });
    let material = |color: [f64; 3]| {
        let [red, green, blue] = color;
        json!({
            "pbrMetallicRoughness": { "baseColorFactor": [red, green, blue, 1.0], "metallicFactor": 0.0 },
            "extensions": { "KHR_materials_unlit": {} },
        })
    };
    let share = |color: &[u8; 3]| color.map(|value| f64::from(linear(value)) / f64::from(u16::MAX));
    // A material and a box for each label, and one for objects without any.
    let of_boxes = color_of_label.iter().chain([&UNLABELLED_COLOR]);
    let materials: Vec<Value> =
        [material([1.0; 3])].into_iter().chain(of_boxes.map(|color| material(share(color)))).collect();
    let mut meshes = vec![json!({ "name": "points", "primitives": [{
        "attributes": { "POSITION": 0, "COLOR_0": 1 }, "mode": POINTS, "material": 0,
    }] })];
    meshes.extend((1..materials.len()).map(|material| {
        json!({ "name": "box", "primitives": [{ "attributes": { "POSITION": 2 }, "indices": 3, "mode": LINES, "material": material }] })
    }));
    let mut nodes = vec![json!({}), json!({ "name": "points", "mesh": 0 })];
    nodes.extend(objects.iter().enumerate().map(|(i, object)| {
        let label = object["label"].as_u64().map_or(color_of_label.len(), |label| label as usize);
        let place = |key: &str| DVec3::from_array([0, 1, 2].map(|axis| object[key][axis].as_f64().unwrap_or(0.0)));
        let (low, high) = (place("low"), place("high"));
        json!({
            "name": format!("{} {}", object["name"].as_str().unwrap_or("object"), i + 1),
            "mesh": 1 + label.min(color_of_label.len()),
            "translation": (((low + high) * 0.5) - DVec3::from_array(*origin)).to_array(),
            "scale": (high - low).to_array(),
            "extras": { "name": object["name"], "score": object["mean"], "low": object["low"], "high": object["high"] },
        })
    }));
    nodes[0] = json!({
        "name": name, "children": (1..nodes.len()).collect::<Vec<_>>(), "rotation": turn(*up).to_array(),
        "scale": [metres_per_unit, metres_per_unit, metres_per_unit], "extras": { "origin": origin, "metres_per_unit": metres_per_unit },
    });
    let text = json!({
        "asset": { "version": "2.0", "generator": format!("geopurify {}", env!("CARGO_PKG_VERSION")) },
        "extensionsUsed": ["KHR_materials_unlit"],
        "scene": 0, "scenes": [{ "name": name, "nodes": [0] }], "nodes": nodes, "meshes": meshes, "materials": materials,
        "accessors": [
            { "bufferView": 0, "componentType": FLOAT, "count": points.len(), "type": "VEC3", "min": low, "max": high },
            { "bufferView": 1, "componentType": UNSIGNED_SHORT, "normalized": true, "count": points.len(), "type": "VEC4" },
            { "bufferView": 2, "componentType": FLOAT, "count": 8, "type": "VEC3", "min": [-0.5, -0.5, -0.5], "max": [0.5, 0.5, 0.5] },
            { "bufferView": 3, "componentType": UNSIGNED_BYTE, "count": EDGES.len(), "type": "SCALAR" },
        ],
        "bufferViews": [
            view(0, colors_at, ARRAY), view(colors_at, corners_at, ARRAY), view(corners_at, edges_at, ARRAY),
            view(edges_at, data.len(), INDICES),
        ],
        "buffers": [{ "byteLength": data.len() }],
    });
    let mut text = text.to_string().into_bytes();
    // Parts have lengths of whole fours.
    text.resize(text.len().next_multiple_of(4), b' ');
    data.resize(data.len().next_multiple_of(4), 0);
    let part = |kind: &[u8; 4], part: Vec<u8>| [&(part.len() as u32).to_le_bytes()[..], kind, &part].concat();
    let parts = [part(b"JSON", text), part(b"BIN\0", data)].concat();
    let length = (parts.len() + 12) as u32;
    [&b"glTF"[..], &2_u32.to_le_bytes(), &length.to_le_bytes(), &parts].concat()
}

/// Uses of a part of the buffer, as glTF counts them.
const ARRAY: u32 = 34962;
const INDICES: u32 = 34963;

/// The turn that takes `up` to y, which is up in glTF: x stays where it is if z was up.
fn turn(up: [f64; 3]) -> DQuat {
    let up = DVec3::from_array(up).normalize_or(DVec3::Z);
    let right = if up.x.abs() < 0.9 { DVec3::X } else { DVec3::Z };
    let right = (right - up * right.dot(up)).normalize();
    DQuat::from_mat3(&DMat3::from_cols(right, up, right.cross(up)).transpose())
}

/// A channel of a colour as glTF has it: in proportion to light.
fn linear(value: u8) -> u16 {
    let share = f64::from(value) / 255.0;
    let light = if share <= 0.04045 { share / 12.92 } else { ((share + 0.055) / 1.055).powf(2.4) };
    (light * f64::from(u16::MAX)).round() as u16
}

/// Smallest and largest coordinates.
fn bounds(points: &[[f32; 3]]) -> [[f32; 3]; 2] {
    let Some(&first) = points.first() else { return [[0.0; 3]; 2] };
    points.iter().fold([first; 2], |[low, high], p| {
        [std::array::from_fn(|axis| low[axis].min(p[axis])), std::array::from_fn(|axis| high[axis].max(p[axis]))]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made() -> Vec<u8> {
        let objects = [
            json!({ "name": "chair", "label": 1, "mean": 0.5, "low": [11.0, 0.0, 0.0], "high": [13.0, 1.0, 4.0] }),
            json!({ "name": "blue thing", "label": -1, "mean": 0.1, "low": [10.0, 0.0, 0.0], "high": [11.0, 1.0, 1.0] }),
        ];
        glb(&Content {
            name: "room",
            points: &[[0.0, 1.0, 2.0], [3.0, -1.0, 0.5], [1.0, 0.0, 0.0]],
            colors: &[[255, 0, 128], [1, 2, 3], [0, 0, 0]],
            origin: [10.0, 0.0, 0.0],
            up: [0.0, 0.0, 1.0],
            metres_per_unit: 0.5,
            objects: &objects,
            color_of_label: &[[9; 3], [255, 0, 0]],
        })
    }

    /// The text and the data of a file, whose lengths must be right.
    fn read(bytes: &[u8]) -> (Value, &[u8]) {
        let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        assert_eq!((&bytes[..4], number(4), number(8)), (&b"glTF"[..], 2, bytes.len()));
        let text = number(12);
        assert_eq!((&bytes[16..20], text % 4), (&b"JSON"[..], 0));
        let data = 20 + text;
        assert_eq!(
            (&bytes[data + 4..data + 8], number(data) % 4, data + 8 + number(data)),
            (&b"BIN\0"[..], 0, bytes.len())
        );
        (serde_json::from_slice(&bytes[20..data]).unwrap(), &bytes[data + 8..])
    }

    #[test]
    fn the_structure_is_whole() {
        let bytes = made();
        let (scene, data) = read(&bytes);
        // Every accessor lies in its part of the buffer, at a multiple of its numbers' size.
        for accessor in scene["accessors"].as_array().unwrap() {
            let view = &scene["bufferViews"][accessor["bufferView"].as_u64().unwrap() as usize];
            let size = match accessor["componentType"].as_u64().unwrap() as u32 {
                FLOAT => 4,
                UNSIGNED_SHORT => 2,
                _ => 1,
            };
            let width = match accessor["type"].as_str().unwrap() {
                "VEC4" => 4,
                "VEC3" => 3,
                _ => 1,
            };
            let (from, length) = (view["byteOffset"].as_u64().unwrap(), view["byteLength"].as_u64().unwrap());
            assert_eq!((length, from % size), (accessor["count"].as_u64().unwrap() * size * width, 0));
            assert!(
                from + length <= data.len() as u64
                    && scene["buffers"][0]["byteLength"].as_u64().unwrap() <= data.len() as u64
            );
        }
        let modes: Vec<u64> = (scene["meshes"].as_array().unwrap().iter())
            .map(|mesh| mesh["primitives"][0]["mode"].as_u64().unwrap())
            .collect();
        assert_eq!(modes, [0, 1, 1, 1]);
        assert_eq!(
            (&scene["accessors"][0]["min"], &scene["accessors"][0]["max"]),
            (&json!([0.0, -1.0, 0.0]), &json!([3.0, 1.0, 2.0]))
        );
        // The second point, and the colour of the first: white is 65535.
        assert_eq!(data[12..24], [3.0_f32, -1.0, 0.5].map(f32::to_le_bytes).concat());
        assert_eq!(data[36..44], [65535_u16, 0, 14146, 65535].map(u16::to_le_bytes).concat());
    }

    #[test]
    fn boxes_are_nodes_where_the_objects_are() {
        let bytes = made();
        let (scene, _) = read(&bytes);
        let nodes = scene["nodes"].as_array().unwrap();
        let names: Vec<&str> = nodes.iter().map(|node| node["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["room", "points", "chair 1", "blue thing 2"]);
        assert_eq!(nodes[0]["children"], json!([1, 2, 3]));
        assert_eq!((&nodes[2]["translation"], &nodes[2]["scale"]), (&json!([2.0, 0.5, 2.0]), &json!([2.0, 1.0, 4.0])));
        assert_eq!((&nodes[2]["mesh"], &nodes[3]["mesh"]), (&json!(2), &json!(3)));
        let red = &scene["materials"][2]["pbrMetallicRoughness"]["baseColorFactor"];
        assert_eq!(*red, json!([1.0, 0.0, 0.0, 1.0]));
        // z goes up to y, x stays.
        let turn = turn([0.0, 0.0, 1.0]);
        assert!((turn * DVec3::Z - DVec3::Y).length() < 1e-12 && (turn * DVec3::X - DVec3::X).length() < 1e-12);
        assert!((super::turn([0.0, 2.0, 0.0]) * DVec3::Y - DVec3::Y).length() < 1e-12);
        assert!((super::turn([1.0, 0.0, 0.0]) * DVec3::X - DVec3::Y).length() < 1e-12);
    }

    #[test]
    fn an_empty_scan_has_bounds() {
        assert_eq!(bounds(&[]), [[0.0; 3]; 2]);
    }

    #[test]
    fn every_edge_of_a_box_is_drawn_once() {
        let mut edges: Vec<(u8, u8)> = EDGES.chunks(2).map(|pair| (pair[0], pair[1])).collect();
        edges.sort_unstable();
        edges.dedup();
        assert!(edges.len() == 12 && edges.iter().all(|(a, b)| (a ^ b).count_ones() == 1 && a < b));
    }
}
