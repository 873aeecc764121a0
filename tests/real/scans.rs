//! Scans of many programs, in the folders ply, las, pcd and e57: a trial per file. Also fails on a file that
//! [`SCANS`] does not list.

use std::path::Path;

use geopurify::cloud::{AttributeData, Field, Format, PcdEncoding, PlyEncoding, PointCloud, Unit, write_with_fields};
use libtest_mimic::Trial;

use crate::{Outcome, Run};

/// What a file must turn out to be.
struct Scan {
    path: &'static str,
    format: Format,
    points: usize,
    /// Points with a position.
    finite: usize,
    faces: usize,
    colors: bool,
    normals: bool,
    /// All attributes in file order; for LAS those behind the standard ones.
    attributes: &'static [&'static str],
    /// The unit the file states.
    unit: Option<Unit>,
    /// Extent of the coordinates, and how far it may be off.
    extent: ([f64; 3], f64),
    /// What else must hold.
    more: fn(&PointCloud) -> Outcome,
}

const ASCII: Format = Format::Ply { encoding: PlyEncoding::Ascii };
const BINARY: Format = Format::Ply { encoding: PlyEncoding::BinaryLittleEndian };

const fn scan(path: &'static str, format: Format, points: usize, extent: ([f64; 3], f64)) -> Scan {
    Scan {
        path,
        format,
        points,
        finite: points,
        faces: 0,
        colors: false,
        normals: false,
        attributes: &[],
        unit: None,
        extent,
        more: |_| Ok(()),
    }
}

const fn las(version: (u8, u8), point_format: u8) -> Format {
    Format::Las { version, point_format }
}

const fn laz(version: (u8, u8), point_format: u8) -> Format {
    Format::Laz { version, point_format }
}

const TINY: ([f64; 3], f64) = ([0.00175, 0.00075, 0.002159], 1e-6);
const AUTZEN: ([f64; 3], f64) = ([3362.7, 4635.73, 179.79], 1e-6);

const SCANS: &[Scan] = &[
    Scan {
        attributes: &["intensity"],
        more: |cloud| {
            equal("second point", cloud.positions[1], [0.053054, 8.38004, -0.198])?;
            equal("intensity", column(cloud, "intensity")?, &vec![23_u8, 41, 255, 1, 0, 65, 128].into())
        },
        ..scan("ply/ascii_intensity.ply", ASCII, 7, ([0.198, 0.02699, 0.204985], 1e-6))
    },
    Scan {
        faces: 127_229,
        colors: true,
        normals: true,
        ..scan("ply/livingroom_mesh_binary.ply", BINARY, 64_365, ([1.7, 1.9, 1.0], 0.06))
    },
    Scan {
        // Six quads.
        faces: 12,
        normals: true,
        attributes: &["s", "t"],
        ..scan("ply/trimesh_cube_blender_uv.ply", ASCII, 24, ([1.0; 3], 1e-9))
    },
    Scan {
        // 1,000 large triangles of 502 vertices. They have colours of their own, so they are cut.
        faces: 48_516,
        colors: true,
        attributes: &["alpha"],
        ..scan("ply/trimesh_fuze.ply", BINARY, 24_260, ([0.0726, 0.0735, 0.2151], 1e-4))
    },
    scan("ply/trimesh_points_ascii.ply", ASCII, 5, TINY),
    scan("ply/trimesh_points_ascii_with_lists.ply", ASCII, 5, TINY),
    scan("ply/trimesh_points_bin.ply", BINARY, 5, TINY),
    scan("ply/trimesh_points_emptyface.ply", ASCII, 1024, ([265.5073, 209.3957, 167.8175], 1e-3)),
    Scan {
        unit: Some(Unit::UsSurveyFoot),
        ..scan("las/1_4_w_evlr.laz", laz((1, 4), 6), 1000, ([501.2314, 5.27, 6.3198], 1e-3))
    },
    Scan {
        colors: true,
        unit: Some(Unit::Foot),
        more: |cloud| {
            let (lo, hi) = cloud.bounds().unwrap_or_default();
            near("smallest coordinates", lo, [636_001.76, 848_935.2, 406.26], 1e-6)?;
            near("largest coordinates", hi, [637_179.22, 849_497.9, 520.51], 1e-6)?;
            equal("brightest colour", cloud.colors.iter().flatten().flatten().max(), Some(&236))?;
            equal("notes", &cloud.notes, &vec!["8-bit colours in 16-bit fields, kept as they are".into()])
        },
        ..scan("las/autzen_trim.laz", laz((1, 2), 3), 110_000, ([1177.46, 562.7, 114.25], 1e-6))
    },
    Scan {
        colors: true,
        attributes: &[
            "Colors[0]",
            "Colors[1]",
            "Colors[2]",
            "Reserved[0]",
            "Reserved[1]",
            "Reserved[2]",
            "Reserved[3]",
            "Reserved[4]",
            "Reserved[5]",
            "Reserved[6]",
            "Flags[0]",
            "Flags[1]",
            "Intensity",
            "Time",
        ],
        more: |cloud| {
            // The extra dimensions repeat standard ones.
            let times = column(cloud, "gps_time")?;
            let whole: Vec<u64> = (0..cloud.len()).filter_map(|i| times.get_f64(i)).map(|t| t as u64).collect();
            equal("Time", column(cloud, "Time")?, &whole.into())
        },
        ..scan("las/extrabytes.las", las((1, 4), 3), 1065, AUTZEN)
    },
    Scan {
        colors: true,
        unit: Some(Unit::Metre),
        ..scan("las/simple.copc.laz", Format::Copc { version: (1, 4), point_format: 7 }, 1065, AUTZEN)
    },
    Scan { colors: true, ..scan("las/simple.las", las((1, 2), 3), 1065, AUTZEN) },
    Scan { colors: true, ..scan("las/simple.laz", laz((1, 2), 3), 1065, AUTZEN) },
    Scan {
        more: |cloud| {
            let (_, hi) = cloud.bounds().unwrap_or_default();
            equal("all coordinates are negative", hi.iter().all(|&x| x < 0.0), true)
        },
        ..scan("las/vegetation_1_3.las", las((1, 3), 1), 10_683, ([3.758, 6.012, 4.888], 1e-6))
    },
    Scan {
        colors: true,
        normals: true,
        attributes: &["curvature"],
        ..scan("pcd/livingroom_fragment.pcd", pcd(PcdEncoding::Binary), 113_662, ([2.4, 1.9, 0.8], 0.06))
    },
    Scan {
        finite: 254_456,
        colors: true,
        more: |cloud| equal("grid", cloud.organized, Some((640, 480))),
        ..scan("pcd/office1.pcd", pcd(PcdEncoding::BinaryCompressed), 307_200, ([4.1498, 3.7777, 3.531], 1e-3))
    },
    scan("pcd/room_scan1.pcd", pcd(PcdEncoding::BinaryCompressed), 112_586, ([29.2469, 14.4724, 3.0608], 1e-3)),
    Scan {
        more: |cloud| equal("first point", cloud.positions[0], [289_814.15, 4_320_978.61, 170.76]),
        ..scan("pcd/utm17_space.pcd", pcd(PcdEncoding::Ascii), 10, ([4.35, 1.98, 0.18], 1e-6))
    },
    Scan { unit: Some(Unit::Metre), ..scan("e57/bunnyFloat.e57", E57, 30_571, ([0.155698, 0.14731, 0.120672], 1e-5)) },
    Scan {
        colors: true,
        unit: Some(Unit::Metre),
        ..scan("e57/tinyCartesianFloatRgb.e57", E57, 2090, ([3.0053, 3.0016, 3.0075], 1e-3))
    },
    Scan { unit: Some(Unit::Metre), ..scan("e57/tiny_pc_and_images.e57", E57, 2, ([1.0; 3], 1e-9)) },
    Scan {
        // The other half has a direction but no range.
        finite: 180,
        unit: Some(Unit::Metre),
        ..scan("e57/tiny_spherical.e57", E57, 360, ([1.0; 3], 1e-5))
    },
];

const E57: Format = Format::E57 { scans: 1 };

const fn pcd(encoding: PcdEncoding) -> Format {
    Format::Pcd { encoding }
}

/// Files that hold the same points; the order may differ where the flag says so.
const TWINS: &[(&str, &str, bool)] = &[
    ("ply/trimesh_points_ascii.ply", "ply/trimesh_points_ascii_with_lists.ply", false),
    ("las/simple.las", "las/simple.laz", false),
    // The octree of the copy has an order and an offset of its own.
    ("las/simple.las", "las/simple.copc.laz", true),
];

/// A trial for each file and each pair of twins, and one for files that [`SCANS`] does not list.
pub(crate) fn trials(needs_data: &dyn Fn(&str, Run) -> Trial) -> Vec<Trial> {
    let mut trials: Vec<Trial> =
        SCANS.iter().map(|scan| needs_data(scan.path, Box::new(move |data| check(data, scan)))).collect();
    for &(a, b, shuffled) in TWINS {
        let run = move |data: &Path| check_twins(&data.join(a), &data.join(b), shuffled);
        trials.push(needs_data(&format!("{b} as {a}"), Box::new(run)));
    }
    for folder in ["ply", "las", "pcd", "e57"] {
        let run = move |data: &Path| {
            let names = files_of(&data.join(folder))?.into_iter().map(|name| format!("{folder}/{name}"));
            let unknown: Vec<String> = names.filter(|name| SCANS.iter().all(|scan| scan.path != name)).collect();
            equal("files that the list of expectations does not have", unknown, Vec::new())
        };
        trials.push(needs_data(&format!("every file in {folder} is expected"), Box::new(run)));
    }
    trials
}

/// The names of the scans in a folder: SOURCE.txt says where they come from.
fn files_of(folder: &Path) -> Result<Vec<String>, String> {
    let entries = std::fs::read_dir(folder).map_err(|e| e.to_string())?;
    let names = entries.map(|entry| entry.map(|e| e.file_name().to_string_lossy().into_owned()));
    let names: Result<Vec<String>, _> = names.collect();
    Ok(names.map_err(|e| e.to_string())?.into_iter().filter(|name| name != "SOURCE.txt").collect())
}

fn equal<T: PartialEq + std::fmt::Debug>(what: &str, found: T, expected: T) -> Outcome {
    if found == expected {
        return Ok(());
    }
    let short = |value: T| format!("{value:?}").chars().take(120).collect::<String>();
    Err(format!("{what}: found {}, expected {}", short(found), short(expected)))
}

fn near(what: &str, found: [f64; 3], expected: [f64; 3], tolerance: f64) -> Outcome {
    if found.iter().zip(expected).all(|(a, b)| (a - b).abs() <= tolerance) {
        return Ok(());
    }
    Err(format!("{what}: found {found:?}, expected {expected:?} within {tolerance}"))
}

fn column<'a>(cloud: &'a PointCloud, name: &str) -> Result<&'a AttributeData, String> {
    cloud.attribute(name).map(|a| &a.data).ok_or(format!("there is no attribute {name}"))
}

fn open(path: &Path) -> Result<PointCloud, String> {
    PointCloud::read(path).map_err(|e| e.to_string())
}

fn check(data: &Path, scan: &Scan) -> Outcome {
    let path = data.join(scan.path);
    let cloud = open(&path)?;
    equal("format", cloud.format, scan.format)?;
    equal("points", cloud.len(), scan.points)?;
    equal("finite points", cloud.num_finite(), scan.finite)?;
    equal("triangles", cloud.faces.len(), scan.faces)?;
    equal("colours", cloud.colors.is_some(), scan.colors)?;
    equal("normals", cloud.normals.is_some(), scan.normals)?;
    equal("stated unit", cloud.unit, scan.unit)?;
    let mut names: Vec<&str> = cloud.attributes.iter().map(|a| a.name.as_str()).collect();
    if scan.path.starts_with("las/") {
        let last = names.iter().position(|name| *name == "gps_time").ok_or("there is no gps_time")?;
        names.drain(..=last);
    }
    equal("attributes", names.as_slice(), scan.attributes)?;
    let (lo, hi) = cloud.bounds().ok_or("there are no bounds")?;
    near("extent", std::array::from_fn(|axis| hi[axis] - lo[axis]), scan.extent.0, scan.extent.1)?;
    (scan.more)(&cloud)?;
    match scan.format {
        Format::Las { .. } | Format::Laz { .. } | Format::Copc { .. } => agrees_with_las(&path, &cloud)?,
        Format::E57 { .. } => agrees_with_e57(&path, &cloud)?,
        _ => {}
    }
    takes_a_field(&path, &cloud)
}

/// The same values as the las crate finds.
fn agrees_with_las(path: &Path, cloud: &PointCloud) -> Outcome {
    let mut reader = las::Reader::from_path(path).map_err(|e| e.to_string())?;
    let points = reader.read_all().map_err(|e| e.to_string())?;
    let points: Result<Vec<las::Point>, _> = points.points().collect();
    let points = points.map_err(|e| e.to_string())?;
    equal("points of the las crate", points.len(), cloud.len())?;
    let (intensity, time) = (column(cloud, "intensity")?, column(cloud, "gps_time")?);
    let eight_bits = cloud.notes.iter().any(|note| note.starts_with("8-bit"));
    for (i, p) in points.iter().enumerate() {
        let what = |name: &str| format!("{name} of point {i}");
        equal(&what("position"), cloud.positions[i].map(f64::to_bits), [p.x, p.y, p.z].map(f64::to_bits))?;
        equal(&what("intensity"), intensity.get_f64(i), Some(p.intensity.into()))?;
        equal(&what("time"), time.get_f64(i), p.gps_time)?;
        if let (Some(colors), Some(c)) = (&cloud.colors, p.color) {
            let shift = if eight_bits { 0 } else { 8 };
            equal(&what("colour"), colors[i], [c.red, c.green, c.blue].map(|x| (x >> shift) as u8))?;
        }
    }
    Ok(())
}

/// The same values as the e57 crate finds, with its own conversion of poses, angles and colours.
fn agrees_with_e57(path: &Path, cloud: &PointCloud) -> Outcome {
    let mut reader = e57::E57Reader::from_file(path).map_err(|e| e.to_string())?;
    let mut done = 0;
    for scan in reader.pointclouds() {
        for point in reader.pointcloud_simple(&scan).map_err(|e| e.to_string())? {
            let point = point.map_err(|e| e.to_string())?;
            match point.cartesian {
                e57::CartesianCoordinate::Valid { x, y, z } => {
                    near(&format!("point {done}"), cloud.positions[done], [x, y, z], 1e-9)?;
                }
                _ => equal(&format!("point {done} is finite"), cloud.is_finite(done), false)?,
            }
            if let (Some(colors), Some(c)) = (&cloud.colors, point.color) {
                let bytes = [c.red, c.green, c.blue].map(|x| (x * 255.0).round() as u8);
                equal(&format!("colour of point {done}"), colors[done], bytes)?;
            }
            done += 1;
        }
    }
    equal("points of the e57 crate", done, cloud.len())
}

/// Everything of `a` is in `b`, bit by bit; `b` may have more attributes.
fn kept(a: &PointCloud, b: &PointCloud) -> Outcome {
    let bits = |cloud: &PointCloud| -> Vec<[u64; 3]> { cloud.positions.iter().map(|p| p.map(f64::to_bits)).collect() };
    equal("positions", bits(a), bits(b))?;
    equal("colours", &a.colors, &b.colors)?;
    equal("triangles", &a.faces, &b.faces)?;
    // Debug output also compares NaN.
    equal("normals", format!("{:?}", a.normals), format!("{:?}", b.normals))?;
    for attribute in &a.attributes {
        let (old, new) = (&attribute.data, column(b, &attribute.name)?);
        equal(&attribute.name, format!("{old:?}"), format!("{new:?}"))?;
    }
    Ok(())
}

/// The scan comes back with a field, and nothing else changed.
fn takes_a_field(path: &Path, before: &PointCloud) -> Outcome {
    let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
    let extension = match before.format {
        Format::Pcd { .. } | Format::E57 { .. } => "ply".as_ref(),
        _ => path.extension().unwrap_or_default(),
    };
    let dest = dir.path().join("out").with_extension(extension);
    let labels: Vec<u16> = (0..before.len()).map(|i| (i * 7 % 60_000) as u16).collect();
    write_with_fields(path, &dest, &[Field::new("label", labels.clone())]).map_err(|e| e.to_string())?;
    let after = open(&dest)?;
    kept(before, &after)?;
    equal("label", column(&after, "label")?, &labels.into())
}

fn check_twins(a: &Path, b: &Path, shuffled: bool) -> Outcome {
    let (a, b) = (open(a)?, open(b)?);
    if !shuffled {
        return kept(&a, &b);
    }
    let sorted = |cloud: &PointCloud| {
        let centimetres = |p: &[f64; 3]| p.map(|x| (x * 100.0).round() as i64);
        let colors = cloud.colors.clone().unwrap_or_default();
        let mut all: Vec<_> = cloud.positions.iter().map(centimetres).zip(colors).collect();
        all.sort_unstable();
        all
    };
    equal("points and colours", sorted(&a), sorted(&b))
}
