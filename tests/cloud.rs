//! Reading and writing scans made here; real files of many programs are in `real/scans.rs`.

use std::fs;
use std::path::{Path, PathBuf};

use geopurify::cloud::{
    AttributeData, CloudError, Field, Format, PcdEncoding, PlyEncoding, PointCloud, Unit, write_with_fields,
};
use tempfile::TempDir;

#[path = "cloud/openscene.rs"]
mod openscene;
#[path = "common/packing.rs"]
mod packing;
#[path = "cloud/point_files.rs"]
mod point_files;

fn dir() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn put(dir: &TempDir, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
    let path = dir.path().join(name);
    fs::write(&path, bytes).unwrap();
    path
}

/// Reads a file made of `bytes`.
fn read(name: &str, bytes: impl AsRef<[u8]>) -> Result<PointCloud, CloudError> {
    let dir = dir();
    PointCloud::read(&put(&dir, name, bytes))
}

/// The message of the error that a file made of `bytes` must give.
fn message(name: &str, bytes: impl AsRef<[u8]>) -> String {
    let error = read(name, bytes).expect_err(name).to_string();
    assert!(error.contains(name), "{error} does not name the file");
    error
}

fn bits(cloud: &PointCloud) -> Vec<[u64; 3]> {
    cloud.positions.iter().map(|p| p.map(f64::to_bits)).collect()
}

fn column<'a>(cloud: &'a PointCloud, name: &str) -> &'a AttributeData {
    let names: Vec<_> = cloud.attributes.iter().map(|a| &a.name).collect();
    &cloud.attribute(name).unwrap_or_else(|| panic!("no {name} in {names:?}")).data
}

/// Everything of `a` is in `b`, bit by bit; `b` may have more attributes.
fn assert_kept(a: &PointCloud, b: &PointCloud) {
    assert_eq!(bits(a), bits(b));
    assert_eq!(a.colors, b.colors);
    let normals =
        |c: &PointCloud| c.normals.as_ref().map(|n| n.iter().flatten().map(|x| x.to_bits()).collect::<Vec<_>>());
    assert_eq!(normals(a), normals(b));
    assert_eq!(a.faces, b.faces);
    for attribute in &a.attributes {
        // Debug output also compares NaN.
        let same = format!("{:?}", attribute.data) == format!("{:?}", column(b, &attribute.name));
        assert!(same, "{}", attribute.name);
    }
}

const TYPES: [(&str, &str); 8] = [
    ("i8", "char"),
    ("u8", "uint8"),
    ("i16", "short"),
    ("u16", "uint16"),
    ("i32", "int"),
    ("u32", "uint32"),
    ("f32", "float32"),
    ("f64", "double"),
];

/// Three vertices with properties of all types, a list among them, other elements before and after.
fn ply(encoding: PlyEncoding) -> Vec<u8> {
    let name = match encoding {
        PlyEncoding::Ascii => "ascii",
        PlyEncoding::BinaryLittleEndian => "binary_little_endian",
        PlyEncoding::BinaryBigEndian => "binary_big_endian",
    };
    let mut out = format!(
        "ply\nformat {name} 1.0\ncomment caf\u{e9}\nobj_info made by a test\nelement camera 2\nproperty list uchar short view\nproperty float gain\nelement vertex 3\nproperty double x\nproperty double y\nproperty float z\n"
    );
    out += "property uchar red\nproperty uchar green\nproperty uchar blue\nproperty uchar alpha\n";
    out += "property float nx\nproperty float ny\nproperty float nz\nproperty list uchar int seen_by\n";
    for (rust, ply) in TYPES {
        out += &format!("property {ply} a_{rust}\n");
    }
    out += "element face 2\nproperty uchar flag\nproperty list uchar uint vertex_indices\nend_header\n";
    let mut out = out.into_bytes();
    let text = encoding == PlyEncoding::Ascii;
    let big = encoding == PlyEncoding::BinaryBigEndian;
    macro_rules! value {
        ($x:expr) => {{
            let x = $x;
            if text {
                out.extend(format!("{x} ").bytes());
            } else if big {
                out.extend(x.to_be_bytes());
            } else {
                out.extend(x.to_le_bytes());
            }
        }};
    }
    macro_rules! row {
        () => {
            if text {
                out.push(b'\n');
            }
        };
    }
    for i in 0..2_u8 {
        value!(i + 1);
        for k in 0..=i {
            value!(i16::from(k) - 300);
        }
        value!(f32::from(i) + 0.5);
        row!();
    }
    for i in 0..3_u8 {
        value!(636_000.123_456_789 + f64::from(i));
        value!(-0.1 * f64::from(i));
        value!(0.1_f32 + f32::from(i));
        for channel in [10 * i, 20 * i, 255 - i, 7] {
            value!(channel);
        }
        for normal in [0.6_f32, -0.8, f32::from(i)] {
            value!(normal);
        }
        value!(i);
        for k in 0..i {
            value!(i32::from(k) * 1000);
        }
        value!(-(i as i8) - 100);
        value!(200 + i);
        value!(-30_000 + i16::from(i));
        value!(60_000 + u16::from(i));
        value!(-2_000_000_000 + i32::from(i));
        value!(4_000_000_000 + u32::from(i));
        value!(1.1e-7_f32 * f32::from(i));
        value!(std::f64::consts::PI * f64::from(i));
        row!();
    }
    for (flag, face) in [(0_u8, vec![0_u32, 1, 2]), (1, vec![2, 1, 0, 1])] {
        value!(flag);
        value!(face.len() as u8);
        for index in face {
            value!(index);
        }
        row!();
    }
    out
}

const PLY_ENCODINGS: [PlyEncoding; 3] =
    [PlyEncoding::Ascii, PlyEncoding::BinaryLittleEndian, PlyEncoding::BinaryBigEndian];

mod ply_files {
    use super::*;

    #[test]
    fn everything_is_read() {
        for encoding in PLY_ENCODINGS {
            let cloud = read("a.ply", ply(encoding)).unwrap();
            assert_eq!(cloud.format, Format::Ply { encoding });
            assert_eq!(cloud.len(), 3);
            assert_eq!(cloud.positions[1][0], 636_001.123_456_789);
            assert_eq!(cloud.positions[2][1], -0.2);
            let z = if encoding == PlyEncoding::Ascii { 0.1 } else { f64::from(0.1_f32) };
            assert_eq!(cloud.positions[0][2], z);
            assert_eq!(cloud.colors.as_ref().unwrap()[2], [20, 40, 253]);
            assert_eq!(cloud.normals.as_ref().unwrap()[1], [0.6, -0.8, 1.0]);
            assert_eq!(cloud.faces, [[0, 1, 2], [2, 1, 0], [2, 0, 1]]);
            assert_eq!(*column(&cloud, "alpha"), vec![7_u8; 3].into());
            assert_eq!(*column(&cloud, "a_i8"), vec![-100_i8, -101, -102].into());
            assert_eq!(*column(&cloud, "a_u8"), vec![200_u8, 201, 202].into());
            assert_eq!(*column(&cloud, "a_i16"), vec![-30_000_i16, -29_999, -29_998].into());
            assert_eq!(*column(&cloud, "a_u16"), vec![60_000_u16, 60_001, 60_002].into());
            assert_eq!(*column(&cloud, "a_i32"), vec![-2_000_000_000_i32, -1_999_999_999, -1_999_999_998].into());
            assert_eq!(*column(&cloud, "a_u32"), vec![4_000_000_000_u32, 4_000_000_001, 4_000_000_002].into());
            assert_eq!(*column(&cloud, "a_f32"), vec![0.0, 1.1e-7_f32, 1.1e-7 * 2.0].into());
            let pi = std::f64::consts::PI;
            assert_eq!(*column(&cloud, "a_f64"), vec![0.0, pi, pi * 2.0].into());
            assert!(cloud.notes.iter().any(|n| n.contains("seen_by")), "{:?}", cloud.notes);
        }
    }

    #[test]
    fn other_names_and_types_of_colours_and_normals() {
        let header =
            |properties: &str| format!("ply\r\nformat ascii 1.0\r\nelement vertex 2\r\n{properties}end_header\r\n");
        let head = "property float X\r\nproperty float Y\r\nproperty float Z\r\n";
        let floats = format!("{head}property float r\r\nproperty float g\r\nproperty float b\r\n");
        let cloud = read("a.ply", header(&floats) + "0 0 0 1 0.5 0\r\n1 nan 2 0 0 0.2\r\n").unwrap();
        assert_eq!(cloud.colors.as_ref().unwrap()[..], [[255, 128, 0], [0, 0, 51]]);
        assert_eq!((cloud.num_finite(), cloud.is_finite(1)), (1, false));

        let wide: String = ["red", "green", "blue"].map(|c| format!("property ushort diffuse_{c}\r\n")).concat();
        let normals: String = ["x", "y", "z"].map(|c| format!("property double normal_{c}\r\n")).concat();
        let cloud =
            read("a.ply", header(&format!("{head}{wide}{normals}")) + "0 0 0 65535 256 255 0 0 1\n1 1 1 0 0 0 1 0 0\n")
                .unwrap();
        assert_eq!(cloud.colors.unwrap()[0], [255, 1, 0]);
        assert_eq!(cloud.normals.unwrap()[1], [1.0, 0.0, 0.0]);

        // A radius is no red.
        let radius = format!("{head}property float r\r\n");
        let cloud = read("a.ply", header(&radius) + "0 0 0 9\n0 0 1 9\n").unwrap();
        assert_eq!(cloud.colors, None);
        assert_eq!(*column(&cloud, "r"), vec![9_f32; 2].into());
    }

    #[test]
    fn fields_are_added_and_all_else_is_kept() {
        let dir = dir();
        for encoding in PLY_ENCODINGS {
            let source = put(&dir, "in.ply", ply(encoding));
            let dest = dir.path().join("out.ply");
            let fields = [
                Field::new("label", vec![3_i32, -1, 7]),
                Field::new("a_f32", vec![1_u16, 2, 3]),
                Field::new("score", vec![0.1_f64, 1e-300, -2.5]),
            ];
            write_with_fields(&source, &dest, &fields).unwrap();
            let (before, after) = (PointCloud::read(&source).unwrap(), PointCloud::read(&dest).unwrap());
            let mut rest = before.clone();
            rest.attributes.retain(|a| a.name != "a_f32");
            assert_kept(&rest, &after);
            for field in &fields {
                assert_eq!(*column(&after, &field.name), field.data);
            }
            assert_eq!(after.attributes.len(), before.attributes.len() + 2);
            let text = String::from_utf8_lossy(&fs::read(&dest).unwrap()).into_owned();
            for kept in
                ["comment caf\u{e9}\n", "obj_info made by a test\n", "element camera 2\n", "property uchar flag\n"]
            {
                assert!(text.contains(kept), "{kept}");
            }
            assert!(text.contains("property uint16 a_f32\n") && text.contains("property int32 label\n"));

            // Without fields the file is the same byte by byte, also onto itself.
            write_with_fields(&source, &source, &[]).unwrap();
            assert_eq!(fs::read(&source).unwrap(), ply(encoding));
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "temporary files are left");
    }

    #[test]
    fn labels_and_their_colours_are_written() {
        let dir = dir();
        let dest = dir.path().join("out.ply");
        let fields = labelled(3);
        for encoding in PLY_ENCODINGS {
            let source = put(&dir, "in.ply", ply(encoding));
            write_with_fields(&source, &dest, &fields).unwrap();
            let (before, after) = (PointCloud::read(&source).unwrap(), PointCloud::read(&dest).unwrap());
            assert_kept(&PointCloud { colors: Some(label_colors(3)), ..before }, &after);
            assert_labelled(&after);
            let text = String::from_utf8_lossy(&fs::read(&dest).unwrap()).into_owned();
            assert_eq!(text.matches("property uint8 red\n").count(), 1, "{text}");
            assert!(!text.contains("uchar red") && text.contains("property uchar alpha\n"));
        }
    }

    #[test]
    fn colours_of_any_name_and_type_become_plain_ones() {
        let dir = dir();
        let dest = dir.path().join("out.ply");
        let axes = "property float x\nproperty float y\nproperty float z\n";
        let set = |names: [&str; 3]| names.map(|name| format!("property float {name}\n")).concat();
        for (properties, values, left) in [
            (String::new(), "", vec![]),
            (set(["r", "g", "b"]), " 0.5 1 0", vec![]),
            (set(["Red", "GREEN", "blue"]), " 0.5 1 0", vec![]),
            (set(["diffuse_red", "diffuse_green", "diffuse_blue"]), " 0.5 1 0", vec![]),
            // A radius stays, and so does what is beside a set of plain names.
            (set(["r", "s", "t"]), " 0.5 1 0", vec!["r", "s", "t"]),
            (set(["red", "green", "blue"]) + &set(["r", "g", "b"]), " 9 9 9 0.5 1 0", vec!["r", "g", "b"]),
            (set(["red", "g", "b"]) + &set(["r", "s", "t"]), " 9 9 9 0.5 1 0", vec!["g", "b", "r", "s", "t"]),
        ] {
            let header = format!("ply\nformat ascii 1.0\nelement vertex 2\n{axes}{properties}end_header\n");
            let source = put(&dir, "in.ply", format!("{header}1 2 3{values}\n4 5 6{values}\n"));
            let colors = [[7, 0, 255], [1, 2, 3]];
            write_with_fields(&source, &dest, &Field::colors(&colors)).unwrap();
            let after = PointCloud::read(&dest).unwrap();
            assert_eq!(after.colors.as_deref(), Some(&colors[..]), "{properties}");
            assert_eq!(after.positions, [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]);
            let names: Vec<&str> = after.attributes.iter().map(|a| a.name.as_str()).collect();
            assert_eq!(names, left);
            let text = fs::read_to_string(&dest).unwrap();
            for channel in ["red", "green", "blue"] {
                assert_eq!(text.matches(&format!("property uchar {channel}\n")).count(), 1, "{text}");
            }
        }
    }

    #[test]
    fn channels_go_together() {
        let dir = dir();
        let text = "1 2 3\n";
        let sources = [
            (put(&dir, "in.ply", ply(PlyEncoding::Ascii)), 3, "out.ply"),
            (put(&dir, "in.las", las(2, false, false, 3).0), 3, "out.las"),
            (put(&dir, "in.xyz", text), 1, "other.ply"),
        ];
        for (source, n, dest) in sources {
            let dest = dir.path().join(dest);
            let fail = |fields: &[Field]| write_with_fields(&source, &dest, fields).unwrap_err().to_string();
            let [red, green, blue] = Field::colors(&vec![[1, 2, 3]; n]);
            let error = fail(&[red.clone(), blue.clone()]);
            assert!(error.contains("\"blue\": another channel is missing"), "{error}");
            let float = Field::new("green", vec![0.5_f32; n]);
            let error = fail(&[red.clone(), float, blue.clone()]);
            assert!(error.contains("\"green\": the data are f32"), "{error}");
            let twice = Field::new("RED", vec![0_u8; n]);
            let error = fail(&[red.clone(), green.clone(), twice, blue.clone()]);
            assert!(error.contains("\"RED\": the channel is given twice"), "{error}");
            let error = fail(&Field::colors(&vec![[1, 2, 3]; n + 1]));
            assert!(error.contains(&format!("{} values", n + 1)), "{error}");
            assert!(!dest.exists());
        }
    }

    #[test]
    fn a_field_must_fit() {
        let dir = dir();
        let source = put(&dir, "in.ply", ply(PlyEncoding::Ascii));
        let dest = dir.path().join("out.ply");
        let fail = |dest: &Path, field| write_with_fields(&source, dest, &[field]).unwrap_err().to_string();
        let error = fail(&dest, Field::new("label", vec![1_u8; 4]));
        assert!(error.contains("4 values") && error.contains("3 points"), "{error}");
        assert!(fail(&dest, Field::new("x", vec![1_u8; 3])).contains("another name"));
        assert!(fail(&dest, Field::new("seen_by", vec![1_u8; 3])).contains("list"));
        assert!(fail(&dest, Field::new("", vec![1_u8; 3])).contains("empty"));
        let alike = ["a b", "a_b"].map(|name| Field::new(name, vec![1_u8; 3]));
        let error = write_with_fields(&source, &dest, &alike).unwrap_err().to_string();
        assert!(error.contains("two fields"), "{error}");
        assert!(fail(&dir.path().join("out.las"), Field::new("a", vec![1_u8; 3])).contains("las"));
        assert!(!dest.exists());
    }

    #[test]
    fn damage_is_named() {
        let good = String::from_utf8(ply(PlyEncoding::Ascii)).unwrap();
        let error = message("a.ply", good.replace("element vertex 3", "element vertex 1000000000000"));
        assert!(error.contains("1000000000000 rows"), "{error}");
        let error = message("a.ply", good.replace("property float nx", "property flaot nx"));
        assert!(error.contains("line 16") && error.contains("flaot"), "{error}");
        let error = message("a.ply", good.replace("4 2 1 0 1", "4 2 1 9 1"));
        assert!(error.contains("vertex number") && error.contains('9'), "{error}");
        let error = message("a.ply", good.replace("-30000 ", "-30000x "));
        assert!(error.contains("a_i16"), "{error}");
        let error = message("a.ply", good.replace("end_header", "end"));
        assert!(error.contains("end_header"), "{error}");
        let error = message("a.ply", good.replace("property double y", "property double why"));
        assert!(error.contains("\"y\""), "{error}");
        let binary = ply(PlyEncoding::BinaryBigEndian);
        let error = message("a.ply", &binary[..binary.len() - 1]);
        assert!(error.contains("cut off"), "{error}");
    }

    #[test]
    fn no_vertices() {
        let header = "ply\nformat binary_little_endian 1.0\nelement vertex 0\nproperty float x\nproperty float y\nproperty float z\nend_header\n";
        let cloud = read("a.ply", header).unwrap();
        assert!(cloud.is_empty());
        assert_eq!(cloud.notes, ["no points"]);
        assert_eq!((cloud.bounds(), cloud.spacing()), (None, None));
        assert_eq!(cloud.centered(), ([0.0; 3], vec![]));
    }
}

#[test]
fn a_legend_is_in_the_comments_once() {
    let dir = dir();
    for encoding in [PlyEncoding::Ascii, PlyEncoding::BinaryLittleEndian] {
        let source = put(&dir, "in.ply", ply(encoding));
        let n = PointCloud::read(&source).unwrap().len();
        let dest = dir.path().join("out.ply");
        for name in ["wall", "floor\nend_header"] {
            let lines = vec![format!("label 0 color 1 2 3 name {name}")];
            let field = Field::new("label", vec![0_i32; n]).explained("number of the word", lines);
            write_with_fields(if dest.exists() { &dest } else { &source }, &dest, &[field]).unwrap();
        }
        let bytes = std::fs::read(&dest).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        assert_eq!(text.matches("comment geopurify ").count(), 1);
        assert!(text.contains("comment geopurify label 0 color 1 2 3 name floor end_header\n"));
        assert_eq!(PointCloud::read(&dest).unwrap().len(), n);
        std::fs::remove_file(&dest).unwrap();
    }
}

/// What a labelled scan has for each of `n` points.
fn labelled(n: usize) -> Vec<Field> {
    let mut fields = vec![
        Field::new("label", (0..n).map(|i| (i % 200) as u16).collect::<Vec<_>>()),
        Field::new("instance", (0..n).map(|i| i as i32 - 1).collect::<Vec<_>>()),
        Field::new("score", (0..n).map(|i| i as f32 / 7.0).collect::<Vec<_>>()),
        Field::new("margin", (0..n).map(|i| -1.0 / (i as f32 + 1.0)).collect::<Vec<_>>()),
    ];
    fields.extend(Field::colors(&label_colors(n)));
    fields
}

fn label_colors(n: usize) -> Vec<[u8; 3]> {
    (0..n).map(|i| [(i % 256) as u8, 255, (i * 31 % 256) as u8]).collect()
}

/// `cloud` has the fields of [`labelled`].
fn assert_labelled(cloud: &PointCloud) {
    let n = cloud.len();
    assert_eq!(cloud.colors, Some(label_colors(n)));
    for field in labelled(n).into_iter().take(4) {
        assert_eq!(*column(cloud, &field.name), field.data, "{}", field.name);
    }
}

/// A LAS or LAZ file, and its points as the las crate knows them.
fn las(format: u8, compressed: bool, extra: bool, count: usize) -> (Vec<u8>, Vec<las::Point>) {
    let mut builder = las::Builder::from((1, 4));
    builder.point_format = las::point::Format::new(format).unwrap();
    builder.point_format.is_compressed = compressed;
    builder.point_format.extra_bytes = if extra { 11 } else { 0 };
    let axis = |scale, offset| las::Transform { scale, offset };
    builder.transforms = las::Vector { x: axis(0.01, 636_000.0), y: axis(0.01, 848_000.0), z: axis(0.001, -3.3) };
    builder.system_identifier = "a test".into();
    builder.vlrs.push(vlr(
        "LASF_Projection",
        2112,
        b"PROJCS[\"x\",GEOGCS[\"y\",UNIT[\"degree\",0.017]],UNIT[\"metre\",1]],VERT_CS[\"z\",UNIT[\"foot\",0.3048]]"
            .to_vec(),
    ));
    if extra {
        // A scaled i16, two u16; five bytes stay undescribed.
        let mut data = vec![0; 2 * 192];
        data[2..4].copy_from_slice(&[4, 8 | 16]);
        data[4..12].copy_from_slice(b"flatness");
        data[112..120].copy_from_slice(&0.5_f64.to_le_bytes());
        data[136..144].copy_from_slice(&10.0_f64.to_le_bytes());
        data[192 + 2] = 13;
        data[192 + 4..192 + 8].copy_from_slice(b"pair");
        builder.vlrs.push(vlr("LASF_Spec", 4, data));
    }
    builder.vlrs.push(vlr("somebody", 99, b"kept".to_vec()));
    builder.evlrs.push(vlr("somebody", 100, b"kept behind the points".to_vec()));
    let format = builder.point_format;
    let header = builder.into_header().unwrap();
    let points: Vec<las::Point> = (0..count)
        .map(|i| las::Point {
            x: 636_000.0 + (i * 37 % 1000) as f64 * 0.01,
            y: 848_000.0 + (i * 91 % 777) as f64 * 0.01,
            z: (i % 50) as f64 * 0.001,
            intensity: (i * 7 % 65536) as u16,
            return_number: 1 + (i % 3) as u8,
            number_of_returns: 4,
            classification: las::point::Classification::new((i % 10) as u8).unwrap(),
            is_withheld: i % 7 == 0,
            scan_angle: (i % 60) as f32,
            user_data: (i % 256) as u8,
            point_source_id: 12,
            gps_time: format.has_gps_time.then_some(1e8 + i as f64 * 1e-6),
            color: format.has_color.then(|| las::Color::new((i * 256 % 65536) as u16, 512, 65535)),
            nir: format.has_nir.then_some(i as u16),
            extra_bytes: match extra {
                true => {
                    let mut bytes = ((i % 100) as i16 - 50).to_le_bytes().to_vec();
                    bytes.extend([(i % 200) as u8, 1, 2, 0, 9, 8, 7, 6, 5]);
                    bytes
                }
                false => Vec::new(),
            },
            ..Default::default()
        })
        .collect();
    let mut writer = las::Writer::new(std::io::Cursor::new(Vec::new()), header).unwrap();
    for point in &points {
        writer.write_point(point.clone()).unwrap();
    }
    (writer.into_inner().unwrap().into_inner(), points)
}

fn vlr(user_id: &str, record_id: u16, data: Vec<u8>) -> las::Vlr {
    las::Vlr { user_id: user_id.into(), record_id, description: "about it".into(), data }
}

/// The points and the header as another reader sees them.
fn las_points(path: &Path) -> (las::Header, Vec<las::Point>) {
    let mut reader = las::Reader::from_path(path).unwrap();
    let points = reader.read_all().unwrap();
    (reader.header().clone(), points.points().map(Result::unwrap).collect())
}

mod las_files {
    use super::*;

    #[test]
    fn agrees_with_another_reader() {
        let dir = dir();
        for format in [0, 1, 2, 3, 6, 7, 8] {
            for (compressed, extra) in [(false, true), (true, false), (true, true)] {
                let path = put(&dir, "a.las", las(format, compressed, extra, 500).0);
                let cloud = PointCloud::read(&path).unwrap();
                let (header, points) = las_points(&path);
                assert_eq!(cloud.len(), 500);
                let expected = match compressed {
                    true => Format::Laz { version: (1, 4), point_format: format },
                    false => Format::Las { version: (1, 4), point_format: format },
                };
                assert_eq!(cloud.format, expected);
                assert_eq!(cloud.unit, Some(Unit::Metre));
                assert!(cloud.notes.iter().any(|n| n.contains("heights in feet")), "{:?}", cloud.notes);
                for (i, p) in points.iter().enumerate() {
                    let xyz = [p.x, p.y, p.z].map(f64::to_bits);
                    assert_eq!(cloud.positions[i].map(f64::to_bits), xyz);
                    let value = |name| column(&cloud, name).get_f64(i).unwrap();
                    assert_eq!(value("intensity"), f64::from(p.intensity));
                    assert_eq!(value("return_number"), f64::from(p.return_number));
                    assert_eq!(value("number_of_returns"), f64::from(p.number_of_returns));
                    assert_eq!(value("classification"), f64::from(u8::from(p.classification)));
                    assert_eq!(value("withheld") == 1.0, p.is_withheld);
                    assert_eq!(value("user_data"), f64::from(p.user_data));
                    assert_eq!(value("point_source_id"), f64::from(p.point_source_id));
                    assert_eq!(p.gps_time, header.point_format().has_gps_time.then(|| value("gps_time")));
                    assert_eq!(p.nir.map(f64::from), p.nir.map(|_| value("nir")));
                    let color = p.color.map(|c| [c.red, c.green, c.blue].map(|x| (x >> 8) as u8));
                    assert_eq!(cloud.colors.as_ref().map(|c| c[i]), color);
                    if extra {
                        assert_eq!(value("flatness"), (i % 100) as f64 * 0.5 - 25.0 + 10.0);
                        assert_eq!(value("pair[0]"), (i % 200) as f64 + 256.0);
                        assert_eq!(value("pair[1]"), 2.0);
                        assert_eq!(value("extra_bytes[4]"), 5.0);
                    }
                }
            }
        }
    }

    /// A file written byte by byte, with something in every place that a copy could lose: the points all alike.
    fn by_hand(minor: u8, format: u8, points: usize) -> Vec<u8> {
        let mut point = [-123_456_i32, 7, i32::MAX].map(i32::to_le_bytes).concat();
        point.extend(60_001_u16.to_le_bytes());
        if format < 6 {
            point.extend([0b1101_0011, 0b1010_1100, -90_i8 as u8, 200]);
        } else {
            point.extend([0xa5, 0b1011_1010, 12, 200]);
            point.extend((-15_000_i16).to_le_bytes());
        }
        point.extend(40_000_u16.to_le_bytes());
        if !matches!(format, 0 | 2) {
            point.extend(1_000_000_000.25_f64.to_le_bytes());
        }
        if matches!(format, 2 | 3 | 5 | 7 | 8 | 10) {
            point.extend([256_u16, 513, 65_535].map(u16::to_le_bytes).concat());
        }
        if matches!(format, 8 | 10) {
            point.extend(77_u16.to_le_bytes());
        }
        if matches!(format, 4 | 5 | 9 | 10) {
            point.push(3);
            point.extend((1_u64 << 60 | 1).to_le_bytes());
            point.extend(513_u32.to_le_bytes());
            point.extend([0.5_f32, -1.5, 2.5, f32::MIN_POSITIVE].map(f32::to_le_bytes).concat());
        }
        let size = [227, 227, 227, 235, 375, 393][usize::from(minor)] + 5;
        // Whatever has no meaning here is in no order either: names with bytes behind their end, a date that
        // there is not, all bits of the encoding, bounds that are not numbers.
        let mut out: Vec<u8> = (0..size).map(|i| (i * 83 % 251) as u8).collect();
        let mut put = |at: usize, value: &[u8]| out[at..at + value.len()].copy_from_slice(value);
        put(0, b"LASF");
        put(6, &[0xff; 2]);
        put(24, &[1, minor]);
        put(26, b"system\0rest");
        put(90, &[0xff; 4]);
        put(94, &(size as u16).to_le_bytes());
        put(100, &2_u32.to_le_bytes());
        put(104, &[format]);
        put(105, &(point.len() as u16).to_le_bytes());
        put(107, &(points as u32).to_le_bytes());
        put(131, &[0.001_f64, 0.1, 1e-7].map(f64::to_le_bytes).concat());
        put(155, &[636_000.0_f64, -0.5, 1e-3].map(f64::to_le_bytes).concat());
        put(179, &[0xff; 48]);
        let mut records = Vec::new();
        for (user, data) in [("somebody\0else", vec![1; 300]), ("sixteen letters.", vec![])] {
            let mut record = vec![0xaa; 54];
            record[2..18].fill(0);
            record[2..2 + user.len()].copy_from_slice(user.as_bytes());
            record[20..22].copy_from_slice(&(data.len() as u16).to_le_bytes());
            records.extend(record);
            records.extend(data);
        }
        records.extend([0xcc, 0xdd, 0xcc, 0xdd]);
        let point_offset = size + records.len();
        put(96, &(point_offset as u32).to_le_bytes());
        let end = (point_offset + points * point.len()) as u64;
        let mut behind = Vec::new();
        if minor >= 3 {
            put(227, &[0; 8]);
        }
        if minor >= 4 {
            for data in [vec![5; 70_000], b"the second".to_vec()] {
                let mut record = vec![0xaa; 60];
                record[2..18].copy_from_slice(&b"somebody\0trailing"[..16]);
                record[20..28].copy_from_slice(&(data.len() as u64).to_le_bytes());
                behind.extend(record);
                behind.extend(data);
            }
            put(227, &(end + 70_060).to_le_bytes());
            put(235, &end.to_le_bytes());
            put(243, &2_u32.to_le_bytes());
            put(247, &(points as u64).to_le_bytes());
            behind.extend(b"behind all");
        }
        out.extend(records);
        out.extend(point.repeat(points));
        out.extend(behind);
        out
    }

    const FORMATS_BY_HAND: [(u8, u8); 14] = [
        (0, 0),
        (1, 1),
        (2, 2),
        (2, 3),
        (3, 4),
        (3, 5),
        (4, 3),
        (4, 6),
        (4, 7),
        (4, 8),
        (4, 9),
        (4, 10),
        (5, 7),
        (5, 10),
    ];

    #[test]
    fn every_property_of_every_format() {
        for (minor, format) in FORMATS_BY_HAND {
            let cloud = read("a.las", by_hand(minor, format, 3)).unwrap();
            assert_eq!(cloud.format, Format::Las { version: (1, minor), point_format: format });
            let position = [635_876.544, 0.2, 214.749_364_7];
            assert!(cloud.positions.iter().all(|p| p.iter().zip(position).all(|(a, b)| (a - b).abs() < 1e-9)));
            let expected = [0.001 * -123_456.0 + 636_000.0, 0.1 * 7.0 - 0.5, 1e-7 * 2_147_483_647.0 + 1e-3];
            assert_eq!(cloud.positions[2].map(f64::to_bits), expected.map(f64::to_bits));
            let colored = matches!(format, 2 | 3 | 5 | 7 | 8 | 10);
            assert_eq!(cloud.colors, colored.then(|| vec![[1, 2, 255]; 3]));
            let bytes = |value: u8| AttributeData::from(vec![value; 3]);
            let flags: Vec<(&str, AttributeData)> = if format < 6 {
                let flags = [
                    ("return_number", 3),
                    ("number_of_returns", 2),
                    ("scan_direction_flag", 1),
                    ("edge_of_flight_line", 1),
                    ("classification", 12),
                    ("synthetic", 1),
                    ("key_point", 0),
                    ("withheld", 1),
                ];
                let angle = ("scan_angle_rank", vec![-90_i8; 3].into());
                flags
                    .map(|(name, value)| (name, bytes(value)))
                    .into_iter()
                    .chain([angle, ("user_data", bytes(200))])
                    .collect()
            } else {
                let flags = [
                    ("return_number", 5),
                    ("number_of_returns", 10),
                    ("synthetic", 0),
                    ("key_point", 1),
                    ("withheld", 0),
                    ("overlap", 1),
                    ("scanner_channel", 3),
                    ("scan_direction_flag", 0),
                    ("edge_of_flight_line", 1),
                    ("classification", 12),
                    ("user_data", 200),
                ];
                let angle = ("scan_angle", vec![-15_000_i16; 3].into());
                flags.map(|(name, value)| (name, bytes(value))).into_iter().chain([angle]).collect()
            };
            let mut expected = vec![("intensity", vec![60_001_u16; 3].into())];
            expected.extend(flags);
            expected.push(("point_source_id", vec![40_000_u16; 3].into()));
            if !matches!(format, 0 | 2) {
                expected.push(("gps_time", vec![1_000_000_000.25; 3].into()));
            }
            if matches!(format, 8 | 10) {
                expected.push(("nir", vec![77_u16; 3].into()));
            }
            if matches!(format, 4 | 5 | 9 | 10) {
                expected.push(("wavepacket_index", bytes(3)));
                expected.push(("wavepacket_offset", vec![1_u64 << 60 | 1; 3].into()));
                expected.push(("wavepacket_size", vec![513_u32; 3].into()));
                let names = ["return_point_wave_location", "x_t", "y_t", "z_t"];
                let values = [0.5_f32, -1.5, 2.5, f32::MIN_POSITIVE];
                expected.extend(names.into_iter().zip(values.map(|value| vec![value; 3].into())));
            }
            let found: Vec<_> = cloud.attributes.iter().map(|a| (a.name.as_str(), a.data.clone())).collect();
            assert_eq!(found, expected, "1.{minor}, format {format}");
        }
    }

    #[test]
    fn a_copy_keeps_every_byte() {
        let dir = dir();
        for (minor, format) in FORMATS_BY_HAND {
            let bytes = by_hand(minor, format, 60_000);
            let source = put(&dir, "in.las", &bytes);
            let (packed, dest) = (dir.path().join("out.laz"), dir.path().join("out.las"));
            write_with_fields(&source, &dest, &[]).unwrap();
            assert!(fs::read(&dest).unwrap() == bytes, "1.{minor}, format {format}");
            // Compressed and back.
            write_with_fields(&source, &packed, &[]).unwrap();
            let compressed = PointCloud::read(&packed).unwrap();
            assert_eq!(compressed.format, Format::Laz { version: (1, minor), point_format: format });
            assert_kept(&PointCloud::read(&source).unwrap(), &compressed);
            write_with_fields(&packed, &dest, &[]).unwrap();
            assert!(fs::read(&dest).unwrap() == bytes, "1.{minor}, format {format}, compressed and back");
        }
    }

    #[test]
    fn an_added_field_moves_the_rest() {
        let dir = dir();
        let (source, dest) = (put(&dir, "in.las", by_hand(5, 10, 4)), dir.path().join("out.las"));
        write_with_fields(&source, &dest, &[Field::new("label", vec![1_u16, 2, 3, 4])]).unwrap();
        let (old, new) = (fs::read(&source).unwrap(), fs::read(&dest).unwrap());
        // One description, and two bytes for each point.
        let described = 54 + 192;
        assert_eq!(new.len(), old.len() + described + 4 * 2);
        let u32_at = |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        let u64_at = |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        let start = u32_at(&old, 96) as usize;
        assert_eq!(u32_at(&new, 96) as usize, start + described);
        assert_eq!((u32_at(&new, 100), new[104], u32_at(&new, 105) & 0xffff), (3, 10, 69));
        for at in [227, 235] {
            assert_eq!(u64_at(&new, at), u64_at(&old, at) + described as u64 + 8);
        }
        let rest = |bytes: &[u8]| [&bytes[..96], &bytes[107..227], &bytes[243..398]].concat();
        assert_eq!(rest(&new), rest(&old));
        for i in 0..4 {
            let (old, new) = (&old[start + 67 * i..], &new[start + described + 69 * i..]);
            assert_eq!((&new[..67], new[67], new[68]), (&old[..67], i as u8 + 1, 0));
        }
        assert_eq!(new[start + described + 69 * 4..], old[start + 67 * 4..]);
    }

    #[test]
    fn several_chunks() {
        let dir = dir();
        for format in [3, 7] {
            let (bytes, _) = las(format, true, false, 120_000);
            let path = put(&dir, "a.laz", bytes);
            let cloud = PointCloud::read(&path).unwrap();
            let (_, points) = las_points(&path);
            assert_eq!(cloud.len(), 120_000);
            assert!(points.iter().zip(&cloud.positions).all(|(p, q)| [p.x, p.y, p.z] == *q));
        }
    }

    #[test]
    fn fields_are_added_and_all_else_is_kept() {
        let dir = dir();
        let n = 60_001;
        for format in [1, 3, 6, 7] {
            for (from, to) in [("las", "las"), ("laz", "laz"), ("las", "laz"), ("laz", "las")] {
                let extra = from == to;
                let source = put(&dir, &format!("in.{from}"), las(format, from == "laz", extra, n).0);
                let dest = dir.path().join(format!("out.{to}"));
                let class: Vec<u8> = (0..n).map(|i| (i % 12) as u8).collect();
                let fields = [
                    Field::new("instance", (0..n as u32).collect::<Vec<_>>()),
                    Field::classification(class.clone()),
                    Field::new("score", (0..n).map(|i| i as f32 / 3.0).collect::<Vec<_>>()),
                ];
                write_with_fields(&source, &dest, &fields).unwrap();
                let (old, old_points) = las_points(&source);
                let (new, new_points) = las_points(&dest);
                assert_eq!(new.transforms(), old.transforms());
                assert_eq!(new.bounds(), old.bounds());
                assert_eq!(new.guid(), old.guid());
                assert_eq!(new.evlrs(), old.evlrs());
                for vlr in old.vlrs().iter().filter(|v| v.record_id != 4 && v.record_id != 22204) {
                    assert!(new.vlrs().contains(vlr), "{}", vlr.user_id);
                }
                assert_eq!(new.point_format().is_compressed, to == "laz");
                for (i, (old, new)) in old_points.into_iter().zip(new_points).enumerate() {
                    assert_eq!(new.extra_bytes[..old.extra_bytes.len()], old.extra_bytes);
                    assert_eq!(u8::from(new.classification), class[i]);
                    let same = las::Point { extra_bytes: Vec::new(), classification: old.classification, ..new };
                    assert_eq!(same, las::Point { extra_bytes: Vec::new(), ..old });
                }
                let (before, after) = (PointCloud::read(&source).unwrap(), PointCloud::read(&dest).unwrap());
                let mut rest = before.clone();
                rest.attributes.retain(|a| a.name != "classification" && !a.name.starts_with("extra_bytes"));
                assert_kept(&rest, &after);
                assert_eq!(*column(&after, "instance"), fields[0].data);
                assert_eq!(*column(&after, "score"), fields[2].data);
                assert_eq!(*column(&after, "classification"), class.into());
                if extra {
                    assert_eq!(*column(&after, "undocumented 0[4]"), vec![5_u8; n].into());
                }

                // Again, onto itself: one field of the same type, one of another.
                let again = [
                    Field::new("instance", (0..n as u32).rev().collect::<Vec<_>>()),
                    Field::new("score", (0..n).map(|i| (i % 7) as u8).collect::<Vec<_>>()),
                ];
                write_with_fields(&dest, &dest, &again).unwrap();
                let twice = PointCloud::read(&dest).unwrap();
                assert_eq!(twice.attributes.len(), after.attributes.len());
                assert_kept(&rest, &twice);
                for field in &again {
                    assert_eq!(*column(&twice, &field.name), field.data);
                }
            }
        }
    }

    #[test]
    fn a_field_must_fit() {
        let dir = dir();
        let source = put(&dir, "in.las", las(1, false, false, 3).0);
        let dest = dir.path().join("out.las");
        let fail = |field| write_with_fields(&source, &dest, &[field]).unwrap_err().to_string();
        assert!(fail(Field::classification(vec![1, 32, 0])).contains("0 to 31"));
        assert!(fail(Field::classification(vec![1])).contains("3 points"));
        assert!(fail(Field::new("a name that is longer than LAS allows", vec![1_u8; 3])).contains("32"));
        assert!(fail(Field::new("intensity", vec![1_u8; 3])).contains("standard property"));
        let wrong = Field { as_classification: true, ..Field::new("classification", vec![1_i32; 3]) };
        assert!(fail(wrong).contains("u8"));
        assert!(!dest.exists());
    }

    #[test]
    fn a_legend_is_inside_the_file_once() {
        let dir = dir();
        let source = put(&dir, "in.las", las(3, false, false, 3).0);
        let dest = dir.path().join("out.laz");
        let field = |name: &str| {
            let line = format!("label 0 color 1 2 3 name {name}");
            Field::new("label", vec![0_i32; 3]).explained("number of the word; -1: none, and more", vec![line])
        };
        write_with_fields(&source, &dest, &[field("wall")]).unwrap();
        // Labelled once more, the new legend replaces the old one.
        write_with_fields(&dest, &dest, &[field("floor")]).unwrap();
        let (header, _) = las_points(&dest);
        let legends: Vec<_> = header.vlrs().iter().filter(|vlr| vlr.user_id == "geopurify").collect();
        assert_eq!(legends.len(), 1);
        assert_eq!(legends[0].data, b"label 0 color 1 2 3 name floor\n");
        let extra = header.vlrs().iter().find(|vlr| vlr.record_id == 4).unwrap();
        assert_eq!(&extra.data[160..192], b"number of the word; -1: none, an");
    }

    #[test]
    fn labels_and_their_colours_are_written() {
        let dir = dir();
        let n = 1000;
        for format in [0, 1, 2, 3, 6, 7, 8] {
            for (from, to) in [("las", "las"), ("laz", "laz"), ("las", "laz"), ("laz", "las")] {
                let source = put(&dir, &format!("in.{from}"), las(format, from == "laz", true, n).0);
                let dest = dir.path().join(format!("out.{to}"));
                let class: Vec<u8> = (0..n).map(|i| (i % 12) as u8).collect();
                let mut fields = labelled(n);
                fields.push(Field::classification(class.clone()));
                let notes = write_with_fields(&source, &dest, &fields).unwrap();
                let (old, old_points) = las_points(&source);
                let (new, new_points) = las_points(&dest);
                assert_eq!(new.point_format().to_u8().unwrap() & 0x3f, format);
                let colored = old.point_format().has_color;
                assert_eq!(notes.iter().any(|n| n.contains("have no colours")), !colored, "{notes:?}");
                let colors = label_colors(n);
                for (i, (old, new)) in old_points.into_iter().zip(new_points).enumerate() {
                    let color = colors[i].map(|value| u16::from(value) * 257);
                    assert_eq!(new.color, colored.then(|| las::Color::new(color[0], color[1], color[2])));
                    assert_eq!(u8::from(new.classification), class[i]);
                    let (kept, added) = new.extra_bytes.split_at(old.extra_bytes.len());
                    assert_eq!(kept, old.extra_bytes);
                    assert_eq!(added[..2], ((i % 200) as u16).to_le_bytes());
                    assert_eq!(added[2..6], (i as i32 - 1).to_le_bytes());
                    assert_eq!(added[6..10], (i as f32 / 7.0).to_le_bytes());
                    assert_eq!(added.len(), 14);
                    let rest = |p: las::Point, color, classification| las::Point {
                        extra_bytes: Vec::new(),
                        color,
                        classification,
                        ..p
                    };
                    let (color, classification) = (new.color, new.classification);
                    assert_eq!(new.nir, old.nir);
                    assert_eq!(rest(old, color, classification), rest(new, color, classification));
                }
                let mut after = PointCloud::read(&dest).unwrap();
                assert_eq!(after.colors.is_some(), colored);
                assert!(after.attribute("red").is_none());
                after.colors = Some(colors);
                assert_labelled(&after);
            }
        }
    }

    #[test]
    fn more_extra_bytes_than_can_be_compressed() {
        let dir = dir();
        let source = put(&dir, "in.las", las(1, false, false, 3).0);
        let many: Vec<Field> = (0..130).map(|i| Field::new(format!("f{i}"), vec![0.5_f64; 3])).collect();
        let dest = dir.path().join("out.las");
        write_with_fields(&source, &dest, &many).unwrap();
        let after = PointCloud::read(&dest).unwrap();
        assert_eq!(*column(&after, "f129"), vec![0.5_f64; 3].into());
        let dest = dir.path().join("out.laz");
        let error = write_with_fields(&source, &dest, &many).unwrap_err().to_string();
        assert!(error.contains("1040 extra bytes") && error.contains("at most 1024"), "{error}");
        assert!(!dest.exists());
    }

    #[test]
    fn no_points() {
        let dir = dir();
        for (from, to) in [("las", "las"), ("laz", "laz"), ("las", "laz"), ("laz", "las")] {
            let source = put(&dir, &format!("in.{from}"), las(7, from == "laz", true, 0).0);
            let dest = dir.path().join(format!("out.{to}"));
            write_with_fields(&source, &dest, &[Field::new("label", Vec::<u8>::new())]).unwrap();
            let after = PointCloud::read(&dest).unwrap();
            assert!(after.is_empty() && after.attribute("label").is_some());
            assert_eq!(las_points(&dest).1.len(), 0);
        }
    }

    #[test]
    fn labelled_as_ply() {
        let dir = dir();
        for format in [1, 8] {
            let source = put(&dir, "in.laz", las(format, true, true, 700).0);
            let dest = dir.path().join("out.ply");
            write_with_fields(&source, &dest, &labelled(700)).unwrap();
            let (before, after) = (PointCloud::read(&source).unwrap(), PointCloud::read(&dest).unwrap());
            assert_kept(&PointCloud { colors: Some(label_colors(700)), ..before }, &after);
            assert_labelled(&after);
        }
    }

    #[test]
    fn as_ply() {
        let dir = dir();
        let source = put(&dir, "in.laz", las(8, true, true, 700).0);
        let dest = dir.path().join("out.ply");
        write_with_fields(&source, &dest, &[Field::new("label", vec![5_i16; 700])]).unwrap();
        let (before, after) = (PointCloud::read(&source).unwrap(), PointCloud::read(&dest).unwrap());
        assert_kept(&before, &after);
        assert_eq!(*column(&after, "label"), vec![5_i16; 700].into());
    }

    #[test]
    fn damage_is_named() {
        let (good, _) = las(3, false, false, 10);
        let with = |at: usize, value: &[u8]| {
            let mut bytes = good.clone();
            bytes[at..at + value.len()].copy_from_slice(value);
            message("a.las", bytes)
        };
        let trillion = with(247, &1_000_000_000_000_u64.to_le_bytes());
        assert!(trillion.contains("1000000000000 points"), "{trillion}");
        assert!(with(96, &9_999_999_u32.to_le_bytes()).contains("offset to point data"));
        assert!(with(100, &9_999_999_u32.to_le_bytes()).contains("number of variable length records"));
        assert!(with(104, &[17]).contains("point format"));
        assert!(with(105, &[1, 0]).contains("point record length"));
        assert!(with(25, &[9]).contains("version"));
        assert!(with(131, &0.0_f64.to_le_bytes()).contains("scale factor"));
        assert!(with(104, &[0x83]).contains("LASzip"));
        let (packed, _) = las(3, true, false, 10);
        let mut huge = packed.clone();
        huge[247..255].copy_from_slice(&1_000_000_000_000_u64.to_le_bytes());
        let error = message("a.laz", huge);
        assert!(error.contains("number of points"), "{error}");
        assert!(message("a.las", &good[..300]).contains("375"));
    }
}

/// Name, size, type and count of a field.
type PcdField = (&'static str, u8, char, u8);

/// A PCD header for `fields`.
fn pcd_header(fields: &[PcdField], size: (usize, usize), data: &str) -> String {
    let list = |f: &dyn Fn(&PcdField) -> String| fields.iter().map(f).collect::<Vec<_>>().join(" ");
    format!(
        "# .PCD v0.7 - Point Cloud Data file format\nVERSION 0.7\nFIELDS {}\nSIZE {}\nTYPE {}\nCOUNT {}\nWIDTH {}\nHEIGHT {}\nVIEWPOINT 0 0 0 1 0 0 0\nPOINTS {}\nDATA {data}\n",
        list(&|f| f.0.to_string()),
        list(&|f| f.1.to_string()),
        list(&|f| f.2.to_string()),
        list(&|f| f.3.to_string()),
        size.0,
        size.1,
        size.0 * size.1,
    )
}

const PCD_FIELDS: [PcdField; 9] = [
    ("X", 8, 'F', 1),
    ("y", 4, 'F', 1),
    ("Z", 4, 'F', 1),
    ("rgb", 4, 'F', 1),
    ("normal_x", 4, 'F', 1),
    ("Normal_Y", 4, 'F', 1),
    ("normal_z", 4, 'F', 1),
    ("_", 1, 'U', 4),
    ("hist", 2, 'I', 3),
];

/// Four points in a grid of two by two, the second without a position.
fn pcd(data: &str) -> Vec<u8> {
    let mut out = pcd_header(&PCD_FIELDS, (2, 2), data).into_bytes();
    let mut columns: Vec<Vec<Vec<u8>>> = vec![Vec::new(); PCD_FIELDS.len()];
    for i in 0..4_i16 {
        let hole = i == 1;
        let x = if hole { f64::NAN } else { 1e6 + 0.1 * f64::from(i) };
        let yz = [0.25, -1.5].map(|v: f32| if hole { f32::NAN } else { v + f32::from(i) });
        let rgb = 0x00ff_0080_u32 + i as u32;
        let normal = [0.0_f32, 0.6, -0.8];
        if data == "ascii" {
            let row = format!(
                "{x} {} {} {:e} {} {} {} 0 0 0 0 {i} {} -3",
                yz[0],
                yz[1],
                f32::from_bits(rgb),
                normal[0],
                normal[1],
                normal[2],
                i * 100
            );
            out.extend(row.bytes());
            out.push(b'\n');
            continue;
        }
        let hist = [i, i * 100, -3].iter().flat_map(|h| h.to_le_bytes()).collect();
        let mut row = vec![x.to_le_bytes().to_vec()];
        row.extend(yz.map(|v| v.to_le_bytes().to_vec()));
        row.push(rgb.to_le_bytes().to_vec());
        row.extend(normal.map(|v| v.to_le_bytes().to_vec()));
        row.push(vec![0; 4]);
        row.push(hist);
        for (column, value) in columns.iter_mut().zip(row) {
            if data == "binary" {
                out.extend(value);
            } else {
                column.push(value);
            }
        }
    }
    if data == "binary_compressed" {
        let plain: Vec<u8> = columns.concat().concat();
        // Runs as they are: the simplest valid compression.
        let packed: Vec<u8> = plain.chunks(32).flat_map(|run| [&[run.len() as u8 - 1], run].concat()).collect();
        out.extend((packed.len() as u32).to_le_bytes());
        out.extend((plain.len() as u32).to_le_bytes());
        out.extend(packed);
    }
    out
}

const PCD_ENCODINGS: [(&str, PcdEncoding); 3] = [
    ("ascii", PcdEncoding::Ascii),
    ("binary", PcdEncoding::Binary),
    ("binary_compressed", PcdEncoding::BinaryCompressed),
];

mod pcd_files {
    use super::*;

    #[test]
    fn everything_is_read() {
        for (data, encoding) in PCD_ENCODINGS {
            let cloud = read("a.pcd", pcd(data)).unwrap();
            assert_eq!(cloud.format, Format::Pcd { encoding });
            assert_eq!((cloud.len(), cloud.num_finite()), (4, 3));
            assert_eq!(cloud.organized, Some((2, 2)));
            assert_eq!(cloud.positions[3], [1e6 + 0.1 * 3.0, 3.25, 1.5]);
            assert!(cloud.positions[1].iter().all(|x| x.is_nan()));
            assert_eq!(cloud.colors.as_ref().unwrap()[2], [255, 0, 130]);
            assert_eq!(cloud.normals.as_ref().unwrap()[0], [0.0, 0.6, -0.8]);
            assert_eq!(*column(&cloud, "hist[1]"), vec![0_i16, 100, 200, 300].into());
            assert_eq!(cloud.attributes.len(), 3);
        }
    }

    #[test]
    fn colours_in_other_ways() {
        let xyz = [("x", 4, 'F', 1), ("y", 4, 'F', 1), ("z", 4, 'F', 1)];
        let one = |field: &[PcdField], text: &str| {
            let header = pcd_header(&[&xyz, field].concat(), (1, 1), "ascii");
            read("a.pcd", header + "0 0 0 " + text + "\n").unwrap()
        };
        assert_eq!(one(&[("rgb", 4, 'U', 1)], "16711935").colors.unwrap(), [[255, 0, 255]]);
        assert_eq!(one(&[("rgb", 4, 'F', 1)], "4.2108e+06").colors.unwrap(), [[64, 64, 112]]);
        let cloud = one(&[("RGBA", 4, 'U', 1)], "2147484160");
        assert_eq!(cloud.colors.as_ref().unwrap()[0], [0, 2, 0]);
        assert_eq!(*column(&cloud, "alpha"), vec![128_u8].into());
        let separate = [("r", 1, 'U', 1), ("g", 1, 'U', 1), ("b", 1, 'U', 1)];
        assert_eq!(one(&separate, "1 2 3").colors.unwrap(), [[1, 2, 3]]);
    }

    #[test]
    fn becomes_ply() {
        let dir = dir();
        for (data, _) in PCD_ENCODINGS {
            let source = put(&dir, "in.pcd", pcd(data));
            let dest = dir.path().join("out.ply");
            let notes = write_with_fields(&source, &dest, &[Field::new("label", vec![1_u8, 2, 3, 4])]).unwrap();
            assert!(notes.iter().any(|n| n.contains("grid")), "{notes:?}");
            let (before, after) = (PointCloud::read(&source).unwrap(), PointCloud::read(&dest).unwrap());
            assert_kept(&before, &after);
            assert_eq!(*column(&after, "label"), vec![1_u8, 2, 3, 4].into());

            write_with_fields(&source, &dest, &labelled(4)).unwrap();
            let after = PointCloud::read(&dest).unwrap();
            assert_kept(&PointCloud { colors: Some(label_colors(4)), ..before }, &after);
            assert_labelled(&after);
        }
    }

    #[test]
    fn damage_is_named() {
        let text = String::from_utf8(pcd("ascii")).unwrap();
        let error = message("a.pcd", text.replace("POINTS 4", "POINTS 1000000000000"));
        assert!(error.contains("1000000000000 points"), "{error}");
        let error = message("a.pcd", text.replace("POINTS 4", "POINTS 5"));
        assert!(error.contains("cut off"), "{error}");
        assert!(message("a.pcd", text.replace("SIZE 8 4", "SIZE 8 3")).contains("SIZE 3"));
        assert!(message("a.pcd", text.replace("FIELDS X", "FIELDS Q")).contains("\"x\""));
        assert!(message("a.pcd", text.replace("TYPE F F", "TYPE F")).contains("8 TYPE"));
        assert!(message("a.pcd", text.replace("DATA ascii", "DATA zip")).contains("line 11"));
        assert!(message("a.pcd", text.replace("1000000 ", "1000000x ")).contains("\"X\""));
        let packed = pcd("binary_compressed");
        let body = packed.windows(11).position(|w| w == b"compressed\n").unwrap() + 11;
        let mut wrong = packed.clone();
        wrong[body + 4] ^= 1;
        assert!(message("a.pcd", wrong).contains("uncompressed size"));
        let mut wrong = packed.clone();
        wrong[body + 8] = 0xff;
        assert!(message("a.pcd", wrong).contains("cannot be decoded"));
        assert!(message("a.pcd", &packed[..packed.len() - 1]).contains("cut off"));
    }
}

mod e57_files {
    use super::*;
    use e57::{Quaternion, Record, RecordValue, Transform, Translation};

    fn scans() -> Vec<u8> {
        let mut out = std::io::Cursor::new(Vec::new());
        let mut writer = e57::E57Writer::new(&mut out, "file").unwrap();
        writer.set_coordinate_metadata(Some("PROJCS[\"ETRS89 / UTM zone 32N\",UNIT[\"metre\",1]]".into()));
        let colored = vec![
            Record::CARTESIAN_X_F64,
            Record::CARTESIAN_Y_F64,
            Record::CARTESIAN_Z_F64,
            Record::CARTESIAN_INVALID_STATE,
            Record::COLOR_RED_U8,
            Record::COLOR_GREEN_U8,
            Record::COLOR_BLUE_U8,
            Record::INTENSITY_U16,
        ];
        let mut scan = writer.add_pointcloud("one", colored).unwrap();
        // A quarter turn around z, then a shift.
        let half = std::f64::consts::FRAC_1_SQRT_2;
        scan.set_transform(Some(Transform {
            rotation: Quaternion { w: half, x: 0.0, y: 0.0, z: half },
            translation: Translation { x: 100.0, y: 200.0, z: 300.0 },
        }));
        for i in 0..3_i64 {
            let int = RecordValue::Integer;
            let double = RecordValue::Double;
            let values = vec![
                double(1.0 + i as f64),
                double(0.0),
                double(5.0),
                int(i % 2),
                int(10 * i),
                int(0),
                int(255),
                int(1000 * i),
            ];
            scan.add_point(values).unwrap();
        }
        scan.finalize().unwrap();
        let sphere = vec![Record::SPHERICAL_RANGE_F64, Record::SPHERICAL_AZIMUTH_F64, Record::SPHERICAL_ELEVATION_F64];
        let mut scan = writer.add_pointcloud("two", sphere).unwrap();
        scan.add_point([2.0, std::f64::consts::FRAC_PI_2, 0.0].map(RecordValue::Double).to_vec()).unwrap();
        scan.finalize().unwrap();
        writer.finalize().unwrap();
        drop(writer);
        out.into_inner()
    }

    #[test]
    fn scans_are_merged_with_their_poses() {
        let cloud = read("a.e57", scans()).unwrap();
        assert_eq!(cloud.crs.as_deref(), Some("ETRS89 / UTM zone 32N"));
        assert_eq!(cloud.format, Format::E57 { scans: 2 });
        assert_eq!((cloud.len(), cloud.num_finite()), (4, 3));
        let near = |i: usize, expected: [f64; 3]| {
            let far = cloud.positions[i].iter().zip(expected).any(|(a, b)| (a - b).abs() > 1e-12);
            assert!(!far, "{:?} is not {expected:?}", cloud.positions[i]);
        };
        near(0, [100.0, 201.0, 305.0]);
        near(2, [100.0, 203.0, 305.0]);
        near(3, [0.0, 2.0, 0.0]);
        assert!(!cloud.is_finite(1));
        assert_eq!(cloud.colors.as_ref().unwrap()[2], [20, 0, 255]);
        assert_eq!(*column(&cloud, "intensity"), vec![0_u16, 1000, 2000, 0].into());
        assert_eq!(*column(&cloud, "scan"), vec![0_u32, 0, 0, 1].into());
        assert!(cloud.notes.iter().any(|n| n == "scan 1 has no colours, \"intensity\""), "{:?}", cloud.notes);
        assert_eq!(cloud.unit, Some(Unit::Metre));
    }

    #[test]
    fn becomes_ply() {
        let dir = dir();
        let source = put(&dir, "in.e57", scans());
        let dest = dir.path().join("out.ply");
        write_with_fields(&source, &dest, &[Field::new("label", vec![9_u8; 4])]).unwrap();
        let before = PointCloud::read(&source).unwrap();
        assert_kept(&before, &PointCloud::read(&dest).unwrap());

        write_with_fields(&source, &dest, &labelled(4)).unwrap();
        let after = PointCloud::read(&dest).unwrap();
        assert_kept(&PointCloud { colors: Some(label_colors(4)), ..before }, &after);
        assert_labelled(&after);
    }

    #[test]
    fn damage_is_named() {
        let good = scans();
        assert!(message("a.e57", &good[..good.len() - 1024]).contains("XML"));
        let mut flipped = good.clone();
        flipped[100] ^= 1;
        assert!(message("a.e57", flipped).contains("checksum"));
        let mut long = good.clone();
        long[32..40].copy_from_slice(&(1_u64 << 60).to_le_bytes());
        assert!(message("a.e57", long).contains("XML section"));
    }
}

mod text_files {
    use super::*;

    #[test]
    fn columns_by_their_number_and_content() {
        let cloud = read("a.xyz", "1 2 3\n4 5 6\n\n").unwrap();
        assert_eq!(cloud.positions, [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]);
        assert_eq!((cloud.colors, cloud.format), (None, Format::Text));

        let cloud = read("a.txt", "# made by hand\n1\t2\t3\t255\t0\t10\n4\t5\t6\t0\t1\t2").unwrap();
        assert_eq!(cloud.colors.unwrap(), [[255, 0, 10], [0, 1, 2]]);

        let cloud = read("a.pts", "2\r\n1 2 3 -700 1 2 3\r\n4 5 6 20 4 5 6\r\n").unwrap();
        assert_eq!(*column(&cloud, "intensity"), vec![-700.0, 20.0].into());
        assert_eq!(cloud.colors.unwrap()[1], [4, 5, 6]);

        let cloud = read("a.asc", "1 2 3 0 0 1\n4 5 6 0.6 0.8 0\n").unwrap();
        assert_eq!(cloud.normals.unwrap()[1], [0.6, 0.8, 0.0]);

        let cloud = read("a.csv", "1;2,5;3\n-1,25;0;1e3\n").unwrap();
        assert_eq!(cloud.positions, [[1.0, 2.5, 3.0], [-1.25, 0.0, 1000.0]]);

        let cloud = read("a.xyz", "1 2 3 9 8\n").unwrap();
        assert_eq!(*column(&cloud, "column_5"), vec![8.0].into());
    }

    #[test]
    fn columns_by_name() {
        let cloud = read("a.csv", "\u{feff}id,\"X\",Y [m],z,R,G,B,nx,ny,nz\n7,1,2,3,10,20,30,0,0,1\n").unwrap();
        assert_eq!(cloud.positions, [[1.0, 2.0, 3.0]]);
        assert_eq!(cloud.colors.as_ref().unwrap()[0], [10, 20, 30]);
        assert_eq!(cloud.normals.as_ref().unwrap()[0], [0.0, 0.0, 1.0]);
        assert_eq!(*column(&cloud, "id"), vec![7.0].into());

        let cloud = read("a.txt", "//X Y Z Rf Gf Bf\n1 2 3 1.0 0.5 0\n").unwrap();
        assert_eq!(cloud.colors.unwrap(), [[255, 128, 0]]);
    }

    #[test]
    fn becomes_ply() {
        let dir = dir();
        let source = put(&dir, "in.csv", "x,y,z,reflectance\n636000.12345678,2,3,0.1\n1,2,3,0.7\n");
        let dest = dir.path().join("out.ply");
        write_with_fields(&source, &dest, &[Field::new("reflectance", vec![1_u8, 2])]).unwrap();
        let after = PointCloud::read(&dest).unwrap();
        assert_eq!(after.positions[0], [636_000.123_456_78, 2.0, 3.0]);
        assert_eq!(*column(&after, "reflectance"), vec![1_u8, 2].into());

        write_with_fields(&source, &dest, &labelled(2)).unwrap();
        let after = PointCloud::read(&dest).unwrap();
        assert_kept(&PointCloud { colors: Some(label_colors(2)), ..PointCloud::read(&source).unwrap() }, &after);
        assert_labelled(&after);
    }

    #[test]
    fn damage_is_named() {
        let error = message("a.xyz", "1 2 3\n\n# fine\n1 2\n");
        assert!(error.contains("line 4") && error.contains("2 columns"), "{error}");
        let error = message("a.csv", "1,2,3\r\n1,two,3\r\n");
        assert!(error.contains("line 2") && error.contains("\"two\"") && error.contains("column 2"), "{error}");
        assert!(message("a.pts", "1000000000000\n1 2 3 4\n").contains("1000000000000 points"));
        assert!(message("a.txt", "hello\n").contains("line 1"));
        assert!(message("a.txt", "# nothing\n").contains("no line with numbers"));
        assert!(message("a.xyz", b"1 2 3\n\0\x01").contains("binary"));
    }
}

mod any_file {
    use super::*;

    #[test]
    fn told_by_content_not_by_name() {
        let cloud = read("really_a_ply.xyz", ply(PlyEncoding::BinaryBigEndian)).unwrap();
        assert!(matches!(cloud.format, Format::Ply { .. }));
        assert!(matches!(read("no_extension", pcd("binary")).unwrap().format, Format::Pcd { .. }));
    }

    #[test]
    fn not_a_scan() {
        for name in ["a.ply", "a.las", "a.laz", "a.pcd", "a.e57", "a.xyz"] {
            assert!(message(name, "").contains("empty"));
        }
        for name in ["a.ply", "a.las", "a.pcd", "a.e57"] {
            assert!(message(name, "who knows").contains("who know"));
        }
        assert!(message("a.glb", "glTF").contains("glb"));
        assert!(message("no_extension", "1 2 3").contains("no extension"));
        let dir = dir();
        let missing = PointCloud::read(&dir.path().join("none.ply")).unwrap_err();
        assert!(matches!(missing, CloudError::Io { .. }), "{missing}");
        let folder = PointCloud::read(dir.path()).unwrap_err();
        assert!(folder.to_string().contains("directory"), "{folder}");
    }

    #[test]
    fn centred_in_double_precision() {
        let cloud = PointCloud {
            positions: vec![[636_000.0, 848_935.2, 400.0], [f64::NAN; 3], [637_000.001, 848_936.2, 402.0]],
            ..PointCloud::default()
        };
        let (origin, near) = cloud.centered();
        assert!((origin[0] - 636_500.000_5).abs() < 1e-9);
        assert_eq!(origin[1..], [848_935.7, 401.0]);
        assert_eq!(near[0], [-500.0005, -0.5, -1.0]);
        assert!(near[1].iter().all(|x| x.is_nan()));
        assert_eq!(cloud.bounds().unwrap().0, [636_000.0, 848_935.2, 400.0]);
    }

    #[test]
    fn unit_from_size() {
        let grid = |step: f64, origin: f64| PointCloud {
            positions: (0..1000)
                .map(|i| [i % 10, i / 10 % 10, i / 100].map(|k| origin + f64::from(k) * step))
                .collect(),
            ..PointCloud::default()
        };
        assert_eq!(grid(0.5, 0.0).guess_unit().unit, Some(Unit::Metre));
        assert_eq!(grid(300.0, 0.0).guess_unit().unit, Some(Unit::Millimetre));
        let map = grid(0.5, 5e5).guess_unit();
        assert!(map.map_coordinates && !map.stated);
        assert_eq!(grid(1e-5, 0.0).guess_unit().unit, None);
    }
}

/// A source whose damage shows only while it is copied leaves the earlier result, and nothing else.
#[test]
fn a_failed_copy_leaves_the_earlier_file() {
    let text = ply(PlyEncoding::Ascii);
    let mut packed = las(3, true, false, 60_000).0;
    let middle = packed.len() / 2;
    packed[middle..].fill(0xff);
    for (name, bytes, points) in [("in.ply", text[..text.len() - 80].to_vec(), 3), ("in.laz", packed, 60_000)] {
        let dir = dir();
        let source = put(&dir, name, bytes);
        let dest = put(&dir, &name.replace("in", "out"), "earlier");
        let fields = [Field::new("label", vec![1_u8; points])];
        write_with_fields(&source, &dest, &fields).unwrap_err();
        assert_eq!(fs::read(&dest).unwrap(), b"earlier");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "temporary files are left");
    }
}

mod info_command {
    use super::*;
    use std::process::Command;

    /// Exit code, standard output and standard error of `geopurify info`.
    fn info(args: &[&str], files: &[&Path]) -> (i32, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_geopurify"));
        let output = command.arg("info").args(args).args(files).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }

    #[test]
    fn says_what_a_file_holds() {
        let dir = dir();
        let cloud = put(&dir, "in.ply", ply(PlyEncoding::BinaryLittleEndian));
        let (code, out, err) = info(&[], &[&cloud]);
        assert_eq!((code, err.as_str()), (0, ""));
        for line in [
            "  format     PLY, binary little-endian",
            "  points     3",
            "  triangles  3",
            "  colours    yes",
            "  normals    yes",
            "  min        636000.123457 -0.2 0.1",
            "  max        636002.123457 0 2.1",
            "  extent     2 0.2 2",
            "  spacing    1.417745 (median distance to the nearest neighbour)",
            "  attribute  a_i8 (i8) -102 to -100",
            "  attribute  alpha (u8) all 7",
            "  note       list \"seen_by\" of the vertices is not used",
        ] {
            assert!(out.lines().any(|l| l == line), "{line} is not in:\n{out}");
        }
        assert!(out.contains("  unit       probably metres, map coordinates"), "{out}");

        let (code, out, _) = info(&[], &[&put(&dir, "in.pcd", pcd("binary"))]);
        assert_eq!(code, 0);
        for line in ["  points     4, 3 of them finite", "  organised  2 x 2", "  colours    yes"] {
            assert!(out.lines().any(|l| l == line), "{line} is not in:\n{out}");
        }
        let (_, out, _) = info(&[], &[&put(&dir, "in.xyz", "1 2 3\n")]);
        assert!(out.contains("  colours    no\n  normals    no\n"), "{out}");
    }

    #[test]
    fn says_what_is_peculiar() {
        let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/cloud/cases");
        for (name, line) in [
            ("01-splats.ply", "  splats     half of them up to 0.011109 large, half of them up to 0.952574 opaque"),
            ("03-xyzrgb-label.txt", "  note       the columns are read as x, y, z, red, green, blue, column_7"),
            ("04b-map-grid-and-zero-points.ply", "  set aside  50 points (the notes say why)"),
            ("05-degrees.las", "  crs        EPSG:4326"),
        ] {
            let (code, out, _) = info(&[], &[&cases.join(name)]);
            assert!(code == 0 && out.lines().any(|l| l == line), "{line} is not in:\n{out}");
        }
        let (_, out, _) = info(&["--json"], &[&cases.join("04b-map-grid-and-zero-points.ply")]);
        let said: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!((&said["set_aside"], &said["points"]), (&50.into(), &350.into()));
    }

    #[test]
    fn a_bad_file_does_not_hide_the_others() {
        let dir = dir();
        let good = put(&dir, "good.xyz", "1 2 3\n4 5 6\n");
        let bad = put(&dir, "bad.ply", "ply\nformat ascii 1.0\nelement vertex 5\n");
        let (code, out, err) = info(&[], &[&bad, &good]);
        assert_eq!(code, 1);
        assert!(out.contains("good.xyz\n  format     text\n  points     2\n"), "{out}");
        assert!(err.starts_with("error: ") && err.contains("bad.ply") && err.contains("end_header"), "{err}");
        assert_eq!(err.lines().count(), 1);
        assert_eq!(info(&[], &[&dir.path().join("none.las")]).0, 1);
        assert_eq!(info(&[], &[]).0, 2);

        let (code, out, _) = info(&["--json"], &[&bad, &good]);
        assert_eq!(code, 1);
        let lines: Vec<serde_json::Value> = out.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert!(lines[0]["error"].as_str().unwrap().contains("end_header"));
        assert_eq!(lines[1]["points"], 2);
        assert_eq!(lines[1]["max"], serde_json::json!([4.0, 5.0, 6.0]));
        assert_eq!(lines[1]["colors"], false);
        assert_eq!(lines[1]["error"], serde_json::Value::Null);
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        let dir = dir();
        let header = "ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nproperty float y\nproperty float z\n";
        let file = format!("{header}property float \u{1b}[2J\nend_header\n1 2 3 4\n");
        let (code, out, _) = info(&[], &[&put(&dir, "in.ply", file)]);
        assert_eq!(code, 0);
        assert!(out.contains("\u{fffd}[2J (f32) all 4") && !out.contains('\u{1b}'), "{out}");
    }
}
