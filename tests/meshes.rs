//! Meshes as scans: colours of faces and pictures, large triangles, and the formats OBJ, glTF, STL and OFF.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use geopurify::cloud::{Field, Format, PlyEncoding, PointCloud, Unit, write_with_fields};
use geopurify::images::{Rgb8Image, write_png};
use geopurify::pipeline::Scene;
use tempfile::TempDir;

const RED: [u8; 3] = [200, 30, 30];
const BLUE: [u8; 3] = [30, 30, 200];
/// Vertices and cells of the floor along an axis.
const SIDE: usize = 40;

fn dir() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn put(dir: &TempDir, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
    let path = dir.path().join(name);
    fs::write(&path, bytes).unwrap();
    path
}

fn read(name: &str, bytes: impl AsRef<[u8]>) -> PointCloud {
    let dir = dir();
    PointCloud::read(&put(&dir, name, bytes)).unwrap()
}

fn message(name: &str, bytes: impl AsRef<[u8]>) -> String {
    let dir = dir();
    let error = PointCloud::read(&put(&dir, name, bytes)).expect_err(name).to_string();
    assert!(error.contains(name), "{error} does not name the file");
    error
}

fn has_note(cloud: &PointCloud, part: &str) {
    assert!(cloud.notes.iter().any(|note| note.contains(part)), "no \"{part}\" in {:?}", cloud.notes);
}

/// The picture of which the left half is red and the right half blue.
fn two_colors() -> Rgb8Image {
    Rgb8Image::new(8, 2, (0..16).map(|i| if i % 8 < 4 { RED } else { BLUE }).collect()).unwrap()
}

/// Vertices of a floor of 4 x 3 m, row by row.
fn floor() -> Vec<[f32; 3]> {
    let at = |i: usize, length: f32| i as f32 * length / (SIDE - 1) as f32;
    (0..SIDE * SIDE).map(|i| [at(i % SIDE, 4.0), at(i / SIDE, 3.0), 0.0]).collect()
}

/// Corners of the floor's cells, row by row.
fn cells() -> Vec<[u32; 4]> {
    let inside = |i: &usize| i % SIDE < SIDE - 1 && i / SIDE < SIDE - 1;
    (0..SIDE * SIDE).filter(inside).map(|i| [i, i + 1, i + SIDE + 1, i + SIDE].map(|i| i as u32)).collect()
}

/// A binary PLY file of the floor; `element` describes its faces and `body` holds them.
fn floor_ply(comment: &str, element: &str, body: &[u8]) -> Vec<u8> {
    let mut out = format!(
        "ply\nformat binary_little_endian 1.0\n{comment}element vertex {}\nproperty float x\nproperty float y\nproperty float z\n{element}end_header\n",
        SIDE * SIDE
    )
    .into_bytes();
    out.extend(floor().as_flattened().iter().flat_map(|x| x.to_le_bytes()));
    out.extend(body);
    out
}

/// Every point left of 2 m is red, every other one blue.
fn assert_two_colors(cloud: &PointCloud) {
    let colors = cloud.colors.as_ref().unwrap();
    for (position, color) in cloud.positions.iter().zip(colors) {
        assert_eq!(*color, if position[0] < 2.0 { RED } else { BLUE }, "{position:?}");
    }
}

#[test]
fn colours_of_faces_become_colours_of_vertices() {
    let vertices = floor();
    let mut body = Vec::new();
    for corners in cells() {
        body.push(4);
        body.extend(corners.iter().flat_map(|corner| corner.to_le_bytes()));
        let middle = (vertices[corners[0] as usize][0] + vertices[corners[2] as usize][0]) / 2.0;
        body.extend(if middle < 2.001 { RED } else { BLUE });
    }
    let element = "element face 1521\nproperty list uchar int vertex_indices\nproperty uchar red\nproperty uchar green\nproperty uchar blue\n";
    let ply = floor_ply("", element, &body);
    let cloud = read("faces.ply", &ply);
    assert_eq!((cloud.len(), cloud.faces.len()), (1600, 3042));
    assert_two_colors(&cloud);
    has_note(&cloud, "the colours of their faces");

    // The vertices are those of the file, so the result is a copy of it.
    let dir = dir();
    let (source, dest) = (put(&dir, "faces.ply", &ply), dir.path().join("out.ply"));
    write_with_fields(&source, &dest, &[Field::new("label", vec![7_i32; 1600])]).unwrap();
    let header = String::from_utf8_lossy(&fs::read(&dest).unwrap()[..500]).into_owned();
    assert!(header.contains("element face 1521") && header.contains("property int label"), "{header}");
}

#[test]
fn colours_of_a_picture_become_colours_of_vertices() {
    let vertices = floor();
    let mut body = Vec::new();
    for [a, b, c, d] in cells() {
        for corners in [[a, b, c], [a, c, d]] {
            body.push(3);
            body.extend(corners.iter().flat_map(|corner| corner.to_le_bytes()));
            body.push(6);
            for corner in corners {
                body.extend((vertices[corner as usize][0] / 4.0).to_le_bytes());
                body.extend(0.5_f32.to_le_bytes());
            }
        }
    }
    let element = "element face 3042\nproperty list uchar int vertex_indices\nproperty list uchar float texcoord\n";
    let ply = floor_ply("comment TextureFile two colours.png\n", element, &body);
    let dir = dir();
    let path = put(&dir, "textured.ply", ply);
    let grey = PointCloud::read(&path).unwrap();
    assert!(grey.colors.is_none());
    has_note(&grey, &format!("{} is not there", dir.path().join("two colours.png").display()));
    write_png(&dir.path().join("two colours.png"), &two_colors()).unwrap();
    let cloud = PointCloud::read(&path).unwrap();
    assert_eq!((cloud.len(), cloud.faces.len()), (1600, 3042));
    assert_two_colors(&cloud);
    has_note(&cloud, "colours from 1 picture: two colours.png");
}

#[test]
fn strips_are_triangles() {
    let mut strips: Vec<i32> = Vec::new();
    for row in 0..SIDE - 1 {
        strips.extend((0..SIDE).flat_map(|column| [row * SIDE + column, (row + 1) * SIDE + column].map(|i| i as i32)));
        strips.push(-1);
    }
    let element = "element tristrips 1\nproperty list int int vertex_indices\n";
    let body: Vec<u8> = [strips.len() as i32].iter().chain(&strips).flat_map(|index| index.to_le_bytes()).collect();
    let cloud = read("strips.ply", floor_ply("", element, &body));
    assert_eq!((cloud.len(), cloud.faces.len()), (1600, 3042));
    // All triangles show the same side, and together they are the floor.
    let area = |face: &[u32; 3]| {
        let [a, b, c] = face.map(|vertex| cloud.positions[vertex as usize]);
        (c[0] - a[0]) * (b[1] - a[1]) - (b[0] - a[0]) * (c[1] - a[1])
    };
    assert!(cloud.faces.iter().all(|face| area(face) > 0.0));
    assert!((cloud.faces.iter().map(area).sum::<f64>() / 2.0 - 12.0).abs() < 1e-4);

    let text = "ply\nformat ascii 1.0\nelement vertex 4\nproperty float x\nproperty float y\nproperty float z\nelement tristrips 2\nproperty list int int vertex_indices\nend_header\n0 0 0\n1 0 0\n0 1 0\n1 1 0\n4 0 1 2 3\n8 0 1 2 -1 3 2 2 1\n";
    let cloud = read("strips.ply", text);
    assert_eq!(cloud.faces, [[0, 1, 2], [2, 1, 3], [0, 1, 2]]);
    let error = message("strips.ply", text.replace("4 0 1 2 3", "4 0 1 2 4"));
    assert!(error.contains("0 to below 4, or -1"), "{error}");
}

/// The six sides of a box of 4 x 3 x 2.5 m, two triangles each.
const BOX_VERTICES: [[f32; 3]; 8] = [
    [0.0, 0.0, 0.0],
    [4.0, 0.0, 0.0],
    [4.0, 3.0, 0.0],
    [0.0, 3.0, 0.0],
    [0.0, 0.0, 2.5],
    [4.0, 0.0, 2.5],
    [4.0, 3.0, 2.5],
    [0.0, 3.0, 2.5],
];
const BOX_QUADS: [[usize; 4]; 6] = [[0, 1, 2, 3], [4, 5, 6, 7], [0, 1, 5, 4], [1, 2, 6, 5], [2, 3, 7, 6], [3, 0, 4, 7]];
const SIDE_COLORS: [[u8; 3]; 6] =
    [[120, 80, 40], [250, 250, 250], [200, 30, 30], [30, 200, 30], [30, 30, 200], [200, 200, 30]];

/// Every point away from the edges of the box has the colour of its side.
fn assert_sides(cloud: &PointCloud) {
    let colors = cloud.colors.as_ref().unwrap();
    let mut seen = [0; 6];
    for (position, color) in cloud.positions.iter().zip(colors) {
        let size = [4.0, 3.0, 2.5];
        let on = |axis: usize, at: f64| (position[axis] - at).abs() < 1e-6;
        let sides = [on(2, 0.0), on(2, 2.5), on(1, 0.0), on(0, 4.0), on(1, 3.0), on(0, 0.0)];
        assert!(sides.contains(&true), "{position:?} is not on the surface");
        let near = |axis: &usize| position[*axis].min(size[*axis] - position[*axis]) < 0.04;
        if (0..3).filter(near).count() > 1 {
            continue;
        }
        let side = sides.iter().position(|on| *on).unwrap();
        assert_eq!(*color, SIDE_COLORS[side], "{position:?}");
        seen[side] += 1;
    }
    assert!(seen.iter().all(|&count| count > 5_000), "{seen:?}");
    assert!((50_000..300_000).contains(&cloud.len()), "{} points", cloud.len());
    has_note(cloud, "large triangles are cut");
}

#[test]
fn large_faces_get_points_in_between() {
    let mut ply = String::from(
        "ply\nformat ascii 1.0\nelement vertex 8\nproperty float x\nproperty float y\nproperty float z\nelement face 6\nproperty uchar red\nproperty uchar green\nproperty uchar blue\nproperty list uchar int vertex_index\nend_header\n",
    );
    BOX_VERTICES.iter().for_each(|[x, y, z]| ply += &format!("{x} {y} {z}\n"));
    for (quad, [r, g, b]) in BOX_QUADS.iter().zip(SIDE_COLORS) {
        ply += &format!("{r} {g} {b} 4 {} {} {} {}\n", quad[0], quad[1], quad[2], quad[3]);
    }
    let dir = dir();
    let path = put(&dir, "box.ply", &ply);
    let cloud = PointCloud::read(&path).unwrap();
    assert_sides(&cloud);
    // The result has all points, not the eight vertices alone.
    let dest = dir.path().join("out.ply");
    write_with_fields(&path, &dest, &[Field::new("label", vec![3_i32; cloud.len()])]).unwrap();
    let again = PointCloud::read(&dest).unwrap();
    assert_eq!((again.len(), again.faces.len()), (cloud.len(), cloud.faces.len()));
    assert_eq!(again.attribute("label").unwrap().data, vec![3_i32; cloud.len()].into());
    let error = write_with_fields(&path, &dest, &[Field::new("label", vec![3_i32; 9])]).unwrap_err().to_string();
    assert!(error.contains("9 values"), "{error}");

    // Colours of vertices stay as they are, also on large triangles.
    let own = ply
        .replacen(
            "property float z\n",
            "property float z\nproperty uchar red\nproperty uchar green\nproperty uchar blue\n",
            1,
        )
        .replacen("4 3 2.5\n", "4 3 2.5 1 2 3\n", 1);
    let own: Vec<String> = (own.lines())
        .map(|line| {
            if line.split(' ').count() == 3
                && !line.starts_with('p')
                && !line.starts_with('e')
                && !line.starts_with('f')
            {
                format!("{line} 9 9 9")
            } else {
                line.into()
            }
        })
        .collect();
    let cloud = read("own.ply", own.join("\n") + "\n");
    assert_eq!(cloud.len(), 8);
    assert_eq!(cloud.colors.as_ref().unwrap()[6], [1, 2, 3]);
    has_note(&cloud, "the vertices have their own");
}

fn box_obj(faces: impl Fn(usize, &[usize; 4]) -> String) -> String {
    let mut out = String::from("# a box\nmtllib box.mtl\no Room\n");
    BOX_VERTICES.iter().for_each(|[x, y, z]| out += &format!("v {x} {y} {z}\n"));
    out += "vt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\n";
    BOX_QUADS.iter().enumerate().for_each(|(i, quad)| out += &faces(i, quad));
    out
}

#[test]
fn obj_with_materials() {
    let obj =
        box_obj(|i, [a, b, c, d]| format!("g side{i}\nusemtl side {i}\nf {} {} {}/ -{}\n", a + 1, b + 1, c + 1, 8 - d));
    let mut mtl = String::from("# materials\n");
    for (i, color) in SIDE_COLORS.iter().enumerate() {
        let [r, g, b] = color.map(|x| f64::from(x) / 255.0);
        mtl += &format!("newmtl side {i}\nKa 0 0 0\nKd {r:.6} {g:.6} {b:.6}\n");
    }
    let dir = dir();
    let path = put(&dir, "box.obj", &obj);
    let grey = PointCloud::read(&path).unwrap();
    assert!(grey.colors.is_none());
    has_note(&grey, "box.mtl is not there");
    put(&dir, "box.mtl", mtl);
    let cloud = PointCloud::read(&path).unwrap();
    assert_eq!((cloud.format, cloud.format.to_string().as_str()), (Format::Obj, "OBJ"));
    assert_sides(&cloud);
    // Results are PLY.
    let dest = dir.path().join("labelled.ply");
    write_with_fields(&path, &dest, &[Field::new("label", vec![3_i32; cloud.len()])]).unwrap();
    let again = PointCloud::read(&dest).unwrap();
    assert_eq!(again.format, Format::Ply { encoding: PlyEncoding::BinaryLittleEndian });
    assert_eq!((again.positions, again.faces, again.colors), (cloud.positions, cloud.faces, cloud.colors));
}

#[test]
fn obj_with_a_picture() {
    // u grows along x, so the left half of the floor is red.
    let faces = |i: usize, q: &[usize; 4]| match i {
        0 => format!("usemtl wall\nf {}/1 {}/2 {}/3 {}/4\n", q[0] + 1, q[1] + 1, q[2] + 1, q[3] + 1),
        _ => String::new(),
    };
    let dir = dir();
    let path = put(&dir, "box.obj", box_obj(faces));
    put(&dir, "box.mtl", "newmtl wall\nKd 1 1 1\nmap_Kd -clamp on C:\\scans\\wall.png\n");
    let grey = PointCloud::read(&path).unwrap();
    assert!(grey.colors.is_none());
    has_note(&grey, "wall.png");
    write_png(&dir.path().join("wall.png"), &two_colors()).unwrap();
    let cloud = PointCloud::read(&path).unwrap();
    let colors = cloud.colors.as_ref().unwrap();
    let mut counts = [0; 2];
    for (position, color) in cloud.positions.iter().zip(colors) {
        if position[2] == 0.0 && (position[0] - 2.0).abs() > 0.03 {
            assert_eq!(*color, if position[0] < 2.0 { RED } else { BLUE }, "{position:?}");
            counts[usize::from(position[0] > 2.0)] += 1;
        }
    }
    assert!(counts.iter().all(|&count| count > 5_000), "{counts:?}");
    // Nothing outside of the folder is opened.
    put(&dir, "box.mtl", "newmtl wall\nmap_Kd ../../../../etc/hostname\n");
    has_note(&PointCloud::read(&path).unwrap(), "is not in the folder of the mesh");
}

#[test]
fn obj_of_points_keeps_colours_and_digits() {
    let obj =
        "# points\nv 636000.125 5180000.25 1.5 0.2 0.4 1.0\nv 636001.125 5180000.25 1.5 1 0 0\nvn 0 0 1\ncurv 0 1\n";
    let cloud = read("points.obj", obj);
    assert_eq!(cloud.positions, [[636_000.125, 5_180_000.25, 1.5], [636_001.125, 5_180_000.25, 1.5]]);
    assert_eq!(cloud.colors.unwrap(), [[51, 102, 255], [255, 0, 0]]);
    // The second vertex is before the face, the third is not.
    let error = message("bad.obj", "v 0 0 0\nv 1 0 0\nf 1 2 3\nv 1 1 0\n");
    assert!(error.contains("line 3") && error.contains("f 1 2 3"), "{error}");
    let error = message("bad.obj", "v 0 0 0\nv 1 zero 0\n");
    assert!(error.contains("line 2"), "{error}");
    let cloud = read("normals.obj", "v 0 0 0\nv 0.01 0 0\nv 0 0.01 0\nvn 0 0 1\nf 1//1 2//1 3//1\n");
    assert_eq!(cloud.normals.unwrap()[2], [0.0, 0.0, 1.0]);
}

fn stl_binary(color: impl Fn(usize) -> u16, header: &[u8]) -> Vec<u8> {
    let mut out = header.to_vec();
    out.resize(80, b' ');
    out.extend(12_u32.to_le_bytes());
    for (i, [a, b, c, d]) in BOX_QUADS.iter().enumerate() {
        for corners in [[a, b, c], [a, c, d]] {
            out.extend([0; 12]);
            out.extend(corners.iter().flat_map(|&&corner| BOX_VERTICES[corner]).flat_map(f32::to_le_bytes));
            out.extend(color(i).to_le_bytes());
        }
    }
    out
}

#[test]
fn stl_binary_and_text() {
    let cloud = read("box.stl", stl_binary(|_| 0, b"solid by a program"));
    assert_eq!(cloud.format, Format::Stl { binary: true });
    assert!(cloud.colors.is_none());
    has_note(&cloud, "added to 8 vertices");
    // Both ways of colours: which bit says that there is one, and which channel comes first.
    let five = |x: u8| u16::from(x >> 3);
    let visible = |i: usize| {
        let [r, g, b] = SIDE_COLORS[i];
        0x8000 | five(r) << 10 | five(g) << 5 | five(b)
    };
    let magics = |i: usize| {
        let [r, g, b] = SIDE_COLORS[i];
        five(b) << 10 | five(g) << 5 | five(r)
    };
    for stl in [stl_binary(visible, b""), stl_binary(magics, b"COLOR=\x01\x02\x03\xff")] {
        let cloud = read("no extension", stl);
        let found: BTreeSet<[u8; 3]> = cloud.colors.unwrap().into_iter().collect();
        let expected = SIDE_COLORS.map(|color| color.map(|x| (u32::from(x >> 3) * 255 / 31) as u8));
        assert_eq!(found, expected.into_iter().collect());
    }
    let mut text = String::from("solid box\n");
    for [a, b, c, d] in BOX_QUADS {
        for corners in [[a, b, c], [a, c, d]] {
            text += "  facet normal 0 0 0\r\n    outer loop\r\n";
            corners.iter().for_each(|&corner| {
                let [x, y, z] = BOX_VERTICES[corner];
                text += &format!("      vertex {x:e} {y} {z}\n");
            });
            text += "    endloop\n  endfacet\n";
        }
    }
    let whole = read("box.stl", format!("{text}endsolid box\n"));
    assert_eq!(whole.format, Format::Stl { binary: false });
    assert_eq!((whole.len(), whole.faces.len()), (cloud.len(), cloud.faces.len()));
    let error = message("cut.stl", &text[..text.len() - 40]);
    assert!(error.contains("STL, line"), "{error}");
    let error = message("cut.stl", &stl_binary(|_| 0, b"")[..300]);
    assert!(error.contains("12 triangles needs 600 bytes"), "{error}");
}

#[test]
fn off_with_colours() {
    let faces = |colored: bool| {
        let mut out = String::new();
        for (quad, [r, g, b]) in BOX_QUADS.iter().zip(SIDE_COLORS) {
            out += &format!("4 {} {} {} {}", quad[0], quad[1], quad[2], quad[3]);
            out += &if colored { format!("  {r} {g} {b} 255\n") } else { String::from("\n") };
        }
        out
    };
    let vertices = |more: &str| BOX_VERTICES.map(|[x, y, z]| format!("{x} {y} {z}{more}\n")).concat();
    let plain = read("box.off", format!("OFF\n# a comment\n8 6 12\n\n{}{}", vertices(""), faces(false)));
    assert_eq!(plain.format, Format::Off);
    assert!(plain.colors.is_none());
    has_note(&plain, "added to 8 vertices");
    assert_sides(&read("box.off", format!("OFF8 6 0\n{}{}", vertices(""), faces(true))));
    let cloud = read("points", format!("CNOFF\n8 0 0\n{}", vertices(" 0 0 1 0.2 0.4 1.0 1")));
    assert_eq!((cloud.colors.unwrap()[7], cloud.normals.unwrap()[7]), ([51, 102, 255], [0.0, 0.0, 1.0]));
    let cloud = read("points", format!("COFF 8 0 0\n{}", vertices(" 0 1 200")));
    assert_eq!(cloud.colors.unwrap()[0], [0, 1, 200]);
    let error = message("cut.off", format!("OFF\n8 6 0\n{}", vertices("")));
    assert!(error.contains("6 faces"), "{error}");
    let error = message("bad.off", format!("OFF\n8 1 0\n{}3 0 1 8\n", vertices("")));
    assert!(error.contains("line 11") && error.contains("below 8"), "{error}");
    assert!(message("four.off", "4OFF\n1 0 0\n1 2 3 4\n").contains("three dimensions"));
}

/// A GLB file of a document and its binary chunk.
fn glb(json: &str, body: &[u8]) -> Vec<u8> {
    let padded = |bytes: &[u8], with: u8| {
        let mut bytes = bytes.to_vec();
        bytes.resize(bytes.len().next_multiple_of(4), with);
        bytes
    };
    let (json, body) = (padded(json.as_bytes(), b' '), padded(body, 0));
    let mut out = b"glTF\x02\0\0\0".to_vec();
    out.extend((28 + json.len() as u32 + body.len() as u32).to_le_bytes());
    for (kind, chunk) in [(b"JSON", json), (b"BIN\0", body)] {
        out.extend((chunk.len() as u32).to_le_bytes());
        out.extend(kind);
        out.extend(chunk);
    }
    out
}

/// Numbers of a floor of 4 x 3 m in the plane x, z, with places in a picture, and a picture as PNG.
fn floor_buffer(picture: &Rgb8Image) -> Vec<u8> {
    let mut body = Vec::new();
    for [x, z] in [[0.0_f32, 0.0], [4.0, 0.0], [4.0, 3.0], [0.0, 3.0]] {
        body.extend([x, 0.0, z, x / 4.0, z / 3.0].into_iter().flat_map(f32::to_le_bytes));
    }
    body.extend([0_u16, 1, 2, 0, 2, 3].into_iter().flat_map(u16::to_le_bytes));
    let dir = dir();
    let path = dir.path().join("picture.png");
    write_png(&path, picture).unwrap();
    body.extend(fs::read(path).unwrap());
    body
}

fn floor_gltf(buffer: &str, image: &str, png: usize) -> String {
    format!(
        r#"{{"asset":{{"version":"2.0"}},"scene":0,"scenes":[{{"nodes":[0]}}],
        "nodes":[{{"children":[1],"translation":[10,0,0]}},{{"mesh":0,"rotation":[0,0,0,1],"scale":[1,1,1],"translation":[0,5,0]}}],
        "meshes":[{{"primitives":[{{"attributes":{{"POSITION":0,"TEXCOORD_0":1}},"indices":2,"material":0}}]}}],
        "materials":[{{"pbrMetallicRoughness":{{"baseColorTexture":{{"index":0}}}}}}],
        "textures":[{{"source":0,"sampler":0}}],"samplers":[{{"wrapS":33071}}],"images":[{image}],
        "buffers":[{buffer}],
        "bufferViews":[{{"buffer":0,"byteLength":80,"byteStride":20}},{{"buffer":0,"byteOffset":80,"byteLength":12}},{{"buffer":0,"byteOffset":92,"byteLength":{png}}}],
        "accessors":[{{"bufferView":0,"componentType":5126,"count":4,"type":"VEC3"}},{{"bufferView":0,"byteOffset":12,"componentType":5126,"count":4,"type":"VEC2"}},{{"bufferView":1,"componentType":5123,"count":6,"type":"SCALAR"}}]}}"#
    )
}

#[test]
fn gltf_with_a_picture() {
    let body = floor_buffer(&two_colors());
    let png = body.len() - 92;
    let dir = dir();
    let inside = glb(&floor_gltf(r#"{"byteLength":92}"#, r#"{"bufferView":2,"mimeType":"image/png"}"#, png), &body);
    let data = format!(r#"{{"uri":"data:application/octet-stream;base64,{}"}}"#, STANDARD.encode(&body));
    let picture = format!(r#"{{"uri":"data:image/png;base64,{}"}}"#, STANDARD.encode(&body[92..]));
    put(&dir, "the floor.bin", &body);
    put(&dir, "wall.png", &body[92..]);
    let beside = floor_gltf(r#"{"uri":"the%20floor.bin"}"#, r#"{"uri":"wall.png"}"#, png);
    for (name, bytes) in [
        ("inside.glb", inside),
        ("data.gltf", floor_gltf(&data, &picture, png).into_bytes()),
        ("beside.gltf", beside.clone().into_bytes()),
    ] {
        let cloud = PointCloud::read(&put(&dir, name, bytes)).unwrap();
        assert_eq!(cloud.format, Format::Gltf { binary: name.ends_with("glb") });
        assert_eq!((cloud.unit, cloud.up), (Some(Unit::Metre), Some([0.0, 1.0, 0.0])), "{name}");
        assert_eq!(cloud.bounds(), Some(([10.0, 5.0, 0.0], [14.0, 5.0, 3.0])), "{name}");
        let colors = cloud.colors.as_ref().unwrap();
        let mut counts = [0; 2];
        for (position, color) in cloud.positions.iter().zip(colors) {
            if (position[0] - 12.0).abs() > 0.03 {
                assert_eq!(*color, if position[0] < 12.0 { RED } else { BLUE }, "{name} {position:?}");
                counts[usize::from(position[0] > 12.0)] += 1;
            }
        }
        assert!(counts.iter().all(|&count| count > 5_000), "{name} {counts:?}");
        has_note(&cloud, "colours from 1 picture");
        has_note(&cloud, "y is up");
        let scene = Scene::read(&dir.path().join(name)).unwrap();
        assert_eq!(scene.up.unwrap().to_array(), [0.0, 1.0, 0.0]);
    }
    // A picture that is missing leaves the mesh grey, numbers that are missing are an error.
    let path = put(&dir, "grey.gltf", beside.replace("wall.png", "../wall of others.png"));
    let cloud = PointCloud::read(&path).unwrap();
    assert!(cloud.colors.is_none());
    has_note(&cloud, "\"../wall of others.png\" is not in the folder of the mesh");
    let error = PointCloud::read(&put(&dir, "gone.gltf", beside.replace("floor.bin", "gone.bin"))).unwrap_err();
    assert!(error.to_string().contains("the gone.bin is not there"), "{error}");
}

#[test]
fn gltf_that_lies() {
    let body = floor_buffer(&two_colors());
    let json = floor_gltf("{}", r#"{"bufferView":2}"#, body.len() - 92);
    let error = |from: &str, to: &str| {
        assert!(json.contains(from), "{from}");
        message("bad.glb", glb(&json.replacen(from, to, 1), &body))
    };
    let text = error(r#""count":4"#, r#""count":4000000000000"#);
    assert!(text.contains("4000000000000 rows"), "{text}");
    let text = error(r#""byteLength":80"#, r#""byteLength":80000"#);
    assert!(text.contains("bufferView 0"), "{text}");
    let text = error(r#""children":[1]"#, r#""children":[1,0]"#);
    assert!(text.contains("reached twice"), "{text}");
    let text = error(r#""children":[1]"#, r#""children":[7]"#);
    assert!(text.contains("\"nodes\""), "{text}");
    let text = error(r#""indices":2"#, r#""indices":0"#);
    assert!(text.contains("a corner of a face is 4"), "{text}");
    let text = error(r#""scene":0"#, r#""extensionsRequired":["KHR_draco_mesh_compression"],"scene":0"#);
    assert!(text.contains("KHR_draco_mesh_compression"), "{text}");
    assert!(error(r#""version":"2.0""#, r#""version":"1.0""#).contains("version \"1.0\""));
    assert!(message("bad.glb", b"glTF\x01\0\0\0\0\0\0\0").contains("version 1"));
    assert!(message("bad.glb", &glb(&json, &body)[..100]).contains("a chunk"));
}

#[test]
fn gltf_colours_of_vertices_are_linear() {
    let mut body: Vec<u8> = [[0.0_f32, 0.0, 0.0], [0.01, 0.0, 0.0], [0.0, 0.0, 0.01]]
        .as_flattened()
        .iter()
        .flat_map(|x| x.to_le_bytes())
        .collect();
    body.extend([255, 128, 0, 255, 0, 255, 55, 255, 255, 255, 255, 255]);
    let json = r#"{"asset":{"version":"2.0"},"meshes":[{"primitives":[{"attributes":{"POSITION":0,"COLOR_0":1},"mode":6}]}],"buffers":[{}],
        "bufferViews":[{"buffer":0,"byteLength":36},{"buffer":0,"byteOffset":36,"byteLength":12}],
        "accessors":[{"bufferView":0,"componentType":5126,"count":3,"type":"VEC3"},{"bufferView":1,"componentType":5121,"normalized":true,"count":3,"type":"VEC4"}]}"#;
    let cloud = read("colours.glb", glb(json, &body));
    assert_eq!(cloud.positions[..3], [[0.0; 3], [0.01_f32.into(), 0.0, 0.0], [0.0, 0.0, 0.01_f32.into()]]);
    assert_eq!(cloud.colors.unwrap()[..3], [[255, 188, 0], [0, 255, 128], [255; 3]]);
}

fn by_others(name: &str) -> PointCloud {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/cloud/meshes");
    PointCloud::read(&folder.join(name)).unwrap()
}

fn assert_bounds(cloud: &PointCloud, low: [f64; 3], high: [f64; 3]) {
    let (found_low, found_high) = cloud.bounds().unwrap();
    let near = |a: [f64; 3], b: [f64; 3]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 2e-4);
    assert!(near(found_low, low) && near(found_high, high), "{found_low:?} {found_high:?}");
}

#[test]
fn meshes_of_other_programs() {
    let books = by_others("books.glb");
    assert_eq!(books.format, Format::Gltf { binary: true });
    assert_bounds(&books, [0.0, 0.0, -0.0945], [0.1504, 0.1039, 0.0]);
    let colors: BTreeSet<[u8; 3]> = books.colors.unwrap().into_iter().collect();
    assert_eq!(colors, [[205, 148, 145], [252, 255, 255], [118, 234, 200], [223, 234, 236]].into());
    let plant = by_others("pottedPlant.glb");
    assert_bounds(&plant, [-0.106, 0.0, -0.1207], [0.106, 0.654, 0.1207]);
    let colors: BTreeSet<[u8; 3]> = plant.colors.unwrap().into_iter().collect();
    assert_eq!(colors, [[243, 204, 168], [215, 180, 149], [118, 234, 200]].into());
    let shelf = by_others("Shelf_Small3.glb");
    assert_bounds(&shelf, [-0.5198, -0.0211, -0.2752], [0.5198, 0.3687, 0.2752]);
    assert!(shelf.colors.unwrap().iter().all(|color| *color == [161, 161, 158]));
    assert!(shelf.normals.is_some());
}
