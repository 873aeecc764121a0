//! Files as people have them: peculiar columns and colours, coordinates on the globe, splats, packed scans.
//! `data/cloud/cases` holds most of them.

use std::io::Cursor;

use super::packing::{gzip, zip};
use super::*;

fn case(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/cloud/cases").join(name)
}

fn cloud_of(name: &str) -> PointCloud {
    PointCloud::read(&case(name)).unwrap()
}

fn has_note(cloud: &PointCloud, text: &str) -> bool {
    cloud.notes.iter().any(|note| note.contains(text))
}

/// Extents rounded to a decimetre.
fn size(cloud: &PointCloud) -> [f64; 3] {
    let (lo, hi) = cloud.bounds().unwrap();
    [0, 1, 2].map(|axis| ((hi[axis] - lo[axis]) * 10.0).round() / 10.0)
}

const FIRST_COLORS: [[u8; 3]; 3] = [[217, 212, 220], [145, 105, 69], [155, 115, 62]];

mod columns {
    use super::*;

    #[test]
    fn a_label_or_an_alpha_behind_the_colours_is_no_blue() {
        for (name, last) in [("03-xyzrgb-label.txt", 2.0), ("03b-xyzrgba.xyz", 255.0)] {
            let cloud = cloud_of(name);
            assert_eq!(cloud.colors.as_ref().unwrap()[..3], FIRST_COLORS, "{name}");
            assert_eq!(column(&cloud, "column_7").get_f64(0), Some(last));
            assert!(has_note(&cloud, "read as x, y, z, red, green, blue, column_7"), "{:?}", cloud.notes);
        }
    }

    #[test]
    fn an_intensity_before_the_colours_is_found() {
        // Colours of which the channels go together, with an intensity from 0 to 255 that does not.
        let line = |i: u32| format!("{i} 1 2 {} {} {} {}\n", i * 97 % 256, i, i + 3, i / 2);
        let lines: String = (0..100).map(line).collect();
        let cloud = read("a.txt", &lines).unwrap();
        assert_eq!(cloud.colors.as_ref().unwrap()[10], [10, 13, 5]);
        assert_eq!(column(&cloud, "intensity").get_f64(1), Some(97.0));
        assert!(has_note(&cloud, "x, y, z, intensity, red, green, blue"));
        // A PTS file says so by counting its points, whatever the values.
        let cloud = read("a.pts", "2\n1 2 3 9 1 2 3\n4 5 6 9 4 5 6\n").unwrap();
        assert_eq!(cloud.colors.unwrap(), [[1, 2, 3], [4, 5, 6]]);
    }

    #[test]
    fn names_quotes_and_decimal_commas() {
        let names = ["09a-decimal-commas-tab.txt", "09b-paraview.csv", "09c-easting.csv", "09d-quoted.csv"];
        let clouds = names.map(cloud_of);
        for (name, cloud) in names.iter().zip(&clouds) {
            assert_eq!(cloud.len(), 2000, "{name}");
            let origin = if name.starts_with("09c") { [448_123.25, 5_411_876.5, 312.75] } else { [0.0; 3] };
            let near: Vec<f64> = (0..3).map(|axis| cloud.positions[1][axis] - origin[axis]).collect();
            assert!((near[0] - 3.615).abs() < 0.005 && (near[1] - 2.754).abs() < 0.005, "{name}: {near:?}");
        }
        assert_eq!(clouds[0].positions[0], [0.002, 1.516, 2.042]);
        assert_eq!(clouds[1].colors.as_ref().unwrap()[..3], FIRST_COLORS);
        assert_eq!(clouds[2].positions[0], [448_123.252, 5_411_878.016, 314.792]);
        assert_eq!(clouds[3].positions[2], [3.392, 2.111, 0.002]);
        let cloud = read("a.txt", "X [m]\tY [m]\tZ [m]\n0,5\t1\t2\n").unwrap();
        assert_eq!(cloud.positions, [[0.5, 1.0, 2.0]]);
        let cloud = read("a.csv", "\"x\",\"y\",\"z\"\n\"0,5\",\"1\",\"2,25\"\n").unwrap();
        assert_eq!(cloud.positions, [[0.5, 1.0, 2.25]]);
        let cloud = read("a.xyz", "1, 2, 3\n4, 5, 6\n").unwrap();
        assert_eq!(cloud.positions[1], [4.0, 5.0, 6.0]);
    }

    #[test]
    fn rows_of_numbers_are_text_whatever_the_name() {
        assert_eq!(read("scan.neu", "# a scanner\n1 2 3\n4 5 6\n").unwrap().len(), 2);
        assert_eq!(read("scan", "x y z\n1 2 3\n4 5 6\n").unwrap().len(), 2);
    }
}

mod colors {
    use super::*;

    #[test]
    fn one_value_above_one_does_not_turn_all_black() {
        let cloud = cloud_of("02-float-colours-over-one.ply");
        assert_eq!(cloud.colors.as_ref().unwrap()[..3], [[255, 212, 220], FIRST_COLORS[1], FIRST_COLORS[2]]);
        assert!(has_note(&cloud, "colour values above 1 are cut off (1 of them)"), "{:?}", cloud.notes);
    }

    #[test]
    fn one_value_above_255_does_not_turn_all_black() {
        let header = "ply\nformat ascii 1.0\nelement vertex 11\nproperty float x\nproperty float y\nproperty float z\nproperty ushort red\nproperty ushort green\nproperty ushort blue\nend_header\n";
        let rows = "0 0 0 200 100 50\n".repeat(10) + "1 1 1 260 0 0\n";
        let cloud = read("a.ply", format!("{header}{rows}")).unwrap();
        let colors = cloud.colors.unwrap();
        assert_eq!((colors[0], colors[10]), ([200, 100, 50], [255, 0, 0]));
    }

    #[test]
    fn scans_without_colours_are_grey_beside_others() {
        let cloud = cloud_of("12-second-scan-without-colours.e57");
        let colors = cloud.colors.as_ref().unwrap();
        assert_eq!(colors.len(), 5000);
        assert!(colors[2500..].iter().all(|color| *color == [128; 3]));
        assert!(colors[..2500].iter().any(|color| *color != [128; 3]));
        assert!(has_note(&cloud, "the points of scan 1 are grey"), "{:?}", cloud.notes);
    }
}

mod set_aside {
    use super::*;

    #[test]
    fn zeros_among_map_coordinates() {
        let cloud = cloud_of("04b-map-grid-and-zero-points.ply");
        assert_eq!((cloud.len(), cloud.aside.len()), (350, 50));
        assert!(cloud.aside.iter().all(|&i| cloud.positions[i as usize] == [0.0; 3]));
        assert!(has_note(&cloud, "50 points at 0 0 0 are invalid returns"), "{:?}", cloud.notes);
        assert_eq!(size(&cloud), [4.0, 3.0, 2.5]);
        assert!(cloud.spacing().unwrap() < 1.0);
        // In results they stay, in their places.
        let dir = dir();
        let dest = dir.path().join("out.ply");
        let source = case("04b-map-grid-and-zero-points.ply");
        write_with_fields(&source, &dest, &[Field::new("label", vec![1_u8; 350])]).unwrap();
        assert_eq!(bits(&PointCloud::read(&dest).unwrap()), bits(&cloud));
    }

    #[test]
    fn gaps_of_a_ptx_grid_have_no_position() {
        let cloud = cloud_of("10-two-scans.ptx");
        assert_eq!(cloud.format, Format::Ptx { scans: 2 });
        assert_eq!((cloud.len(), cloud.num_finite()), (440, 396));
        let (lo, hi) = cloud.bounds().unwrap();
        let rounded = |p: [f64; 3]| p.map(|x| (x * 1000.0).round() / 1000.0);
        assert_eq!((rounded(lo), rounded(hi)), ([-0.005, -0.005, -0.004], [3.949, 2.980, 2.474]));
        assert_eq!(cloud.colors.as_ref().unwrap()[..3], FIRST_COLORS);
        assert_eq!(column(&cloud, "scan").range(), Some((0.0, 1.0)));
        assert_eq!(column(&cloud, "intensity").get_f64(0), Some(0.4));
    }

    #[test]
    fn damage_of_a_ptx_file_is_named() {
        let good = fs::read_to_string(case("10-two-scans.ptx")).unwrap();
        let cut: String = good.split_inclusive('\n').take(100).collect();
        assert!(message("a.ptx", cut).contains("PTX, line "));
        assert!(message("a.ptx", good.replacen("22\n", "2200000000\n", 1)).contains("a grid of 2200000000 by 10"));
        assert!(message("a.ptx", good.replacen("145 105 69", "145 105", 1)).contains("line 12"));
    }
}

mod on_the_globe {
    use super::*;

    #[test]
    fn degrees_become_metres_and_stay_in_the_copy() {
        let cloud = cloud_of("05-degrees.las");
        assert_eq!(size(&cloud), [4.0, 3.0, 2.5]);
        assert_eq!((cloud.unit, cloud.crs.as_deref()), (Some(Unit::Metre), Some("EPSG:4326")));
        assert!(has_note(&cloud, "the coordinates are degrees"), "{:?}", cloud.notes);
        let (lo, hi) = column(&cloud, "longitude").range().unwrap();
        assert!(8.679 < lo && hi < 8.681);
        let heights = cloud.bounds().map(|(lo, hi)| [lo[2], hi[2]]).unwrap();
        assert!((heights[0] - 311.994).abs() < 1e-9 && (heights[1] - 314.501).abs() < 1e-9, "{heights:?}");

        let dir = dir();
        let dest = dir.path().join("out.las");
        let label = Field::new("label", vec![1_u8; cloud.len()]);
        write_with_fields(&case("05-degrees.las"), &dest, &[label]).unwrap();
        let (header, points) = las_points(&dest);
        assert!((header.bounds().min.x - lo).abs() < 1e-9);
        assert!((points[0].y - column(&cloud, "latitude").get_f64(0).unwrap()).abs() < 1e-12);
    }

    #[test]
    fn up_is_away_from_the_centre_of_the_earth() {
        let mut builder = las::Builder::from((1, 2));
        let keys: [u16; 8] = [1, 1, 0, 1, 1024, 0, 1, 3];
        builder.vlrs.push(vlr("LASF_Projection", 34735, keys.iter().flat_map(|k| k.to_le_bytes()).collect()));
        let transform = |offset| las::Transform { scale: 1e-4, offset };
        // On the equator at longitude 90°: up is y, east is -x, north is z.
        builder.transforms = las::Vector { x: transform(0.0), y: transform(6_378_137.0), z: transform(0.0) };
        let mut writer = las::Writer::new(Cursor::new(Vec::new()), builder.into_header().unwrap()).unwrap();
        for (x, y, z) in
            [(0.0, 6_378_137.0, 0.0), (-4.0, 6_378_137.0, 0.0), (0.0, 6_378_139.5, 0.0), (0.0, 6_378_137.0, 3.0)]
        {
            writer.write_point(las::Point { x, y, z, ..Default::default() }).unwrap();
        }
        writer.close().unwrap();
        let cloud = read("a.las", writer.into_inner().unwrap().into_inner()).unwrap();
        assert_eq!(size(&cloud), [4.0, 3.0, 2.5]);
        let offset = |i: usize, axis: usize| cloud.positions[i][axis] - cloud.positions[0][axis];
        for (point, axis, expected) in [(1, 0, 4.0), (2, 2, 2.5), (3, 1, 3.0)] {
            assert!((offset(point, axis) - expected).abs() < 1e-4, "{:?}", cloud.positions);
        }
        assert_eq!(column(&cloud, "geocentric_y").range(), Some((6_378_137.0, 6_378_139.5)));
    }

    #[test]
    fn names_say_degrees_and_sizes_make_a_note() {
        let rows = "8.68,48.85,312\n8.68005,48.85003,314.5\n";
        let cloud = read("a.csv", format!("lon,lat,height\n{rows}")).unwrap();
        assert_eq!(size(&cloud), [3.7, 3.3, 2.5]);
        assert_eq!(column(&cloud, "latitude").range(), Some((48.85, 48.85003)));
        let cloud = read("a.csv", rows).unwrap();
        assert_eq!(cloud.positions[0], [8.68, 48.85, 312.0]);
        assert!(has_note(&cloud, "look like degrees"), "{:?}", cloud.notes);
    }
}

mod splats {
    use super::*;

    #[test]
    fn as_training_writes_them() {
        let cloud = cloud_of("01-splats.ply");
        assert_eq!(cloud.colors.as_ref().unwrap()[..3], FIRST_COLORS);
        assert_eq!(cloud.normals, None);
        let splats = cloud.splats.as_ref().unwrap();
        assert!((splats.opacity[0] - 0.952_574).abs() < 1e-5, "{}", splats.opacity[0]);
        assert!((splats.deviation[0] - (-4.5_f32).exp()).abs() < 1e-6);
        assert!(cloud.aside.is_empty());
        assert!(has_note(&cloud, "all normals are 0 0 0"), "{:?}", cloud.notes);
    }

    #[test]
    fn faint_ones_are_set_aside() {
        let mut bytes = fs::read(case("01-splats.ply")).unwrap();
        let body = bytes.len() - 300 * 17 * 4;
        for i in [3, 7] {
            let at = body + (i * 17 + 9) * 4;
            bytes[at..at + 4].copy_from_slice(&(-5.0_f32).to_le_bytes());
        }
        let cloud = read("a.ply", bytes).unwrap();
        assert_eq!(cloud.aside, [3, 7]);
        assert!(has_note(&cloud, "2 splats are fainter"), "{:?}", cloud.notes);
    }

    #[test]
    fn without_a_header() {
        let bytes = splat(20);
        for name in ["a.splat", "anything"] {
            let cloud = read(name, &bytes).unwrap();
            assert_eq!((cloud.format, cloud.len()), (Format::Splat, 20));
            assert_eq!(cloud.positions[3], [3.0, 1.5, -2.0]);
            assert_eq!(cloud.colors.as_ref().unwrap()[3], [3, 100, 200]);
            let splats = cloud.splats.as_ref().unwrap();
            assert!((splats.deviation[0] - (0.02_f32 * 0.04).sqrt()).abs() < 1e-6);
            assert_eq!(splats.opacity[3], 1.0);
            assert_eq!(cloud.aside, [19]);
            assert_eq!(*column(&cloud, "splat_rotation_0"), vec![255_u8; 20].into());
        }
        assert!(message("a.splat", &bytes[..100]).contains("a splat needs 32 bytes"));
    }

    #[test]
    fn packed_as_spz() {
        for version in [1, 2, 3] {
            let cloud = read("a.spz", gzip(&spz(version, 12))).unwrap();
            assert_eq!((cloud.format, cloud.len()), (Format::Spz { version }, 12));
            assert_eq!(cloud.positions[3], [3.0, -1.5, 0.25]);
            // A stored 128 is nearly the middle, 0.5; 255 is as bright as can be.
            assert_eq!(cloud.colors.as_ref().unwrap()[3], [128, 255, 0]);
            let splats = cloud.splats.as_ref().unwrap();
            assert!((splats.deviation[0] - (-5.0_f32).exp()).abs() < 1e-6);
            assert_eq!(splats.opacity[3], 200.0 / 255.0);
            assert!(has_note(&cloud, "of degree 1"));
        }
        assert!(message("a.spz", gzip(&spz(4, 12))).contains("version 4 is not supported"));
        assert!(message("a.spz", gzip(&spz(2, 12)[..100])).contains("12 splats needs"));
    }

    #[test]
    fn packed_in_a_ply_file() {
        let bytes = packed_ply(300);
        let cloud = read("a.ply", &bytes).unwrap();
        assert_eq!((cloud.format, cloud.len()), (Format::PackedPly, 300));
        // The first chunk spans 0 to 4, the second 10 to 14.
        assert_eq!((cloud.positions[0], cloud.positions[1]), ([0.0; 3], [4.0, 4.0, 4.0]));
        assert_eq!((cloud.positions[256], cloud.positions[257]), ([10.0; 3], [14.0; 3]));
        assert_eq!(cloud.colors.as_ref().unwrap()[0], [217, 212, 220]);
        let splats = cloud.splats.as_ref().unwrap();
        assert!((splats.deviation[0] - (-6.0_f32).exp()).abs() < 1e-6);
        assert!((splats.deviation[1] - (-4.0_f32).exp()).abs() < 1e-6);
        assert_eq!(splats.opacity[0], 1.0);
        let error = message("a.ply", String::from_utf8_lossy(&bytes[..400]).as_bytes());
        assert!(error.contains("PLY"), "{error}");
        // A result has plain coordinates beside the packed values.
        let dir = dir();
        let source = put(&dir, "in.ply", &bytes);
        let dest = dir.path().join("out.ply");
        write_with_fields(&source, &dest, &[Field::new("label", vec![1_u8; 300])]).unwrap();
        let after = PointCloud::read(&dest).unwrap();
        assert_kept(&cloud, &after);
        assert_eq!(*column(&after, "label"), vec![1_u8; 300].into());
    }

    fn splat(count: u8) -> Vec<u8> {
        let row = |i: u8| {
            let floats = [f32::from(i), 1.5, -2.0, 0.01, 0.02, 0.04];
            let alpha = if i == 19 { 10 } else { 255 };
            let bytes = [i, 100, 200, alpha, 255, 128, 128, 128];
            floats.iter().flat_map(|x| x.to_le_bytes()).chain(bytes).collect::<Vec<u8>>()
        };
        (0..count).flat_map(row).collect()
    }

    /// Splats with harmonics of the first degree.
    fn spz(version: u32, count: u8) -> Vec<u8> {
        let mut out = b"NGSP".to_vec();
        out.extend(version.to_le_bytes());
        out.extend(u32::from(count).to_le_bytes());
        out.extend([1, 12, 0, 0]);
        for i in 0..count {
            for x in [f32::from(i), -0.5 * f32::from(i), 0.25] {
                match version {
                    1 => out.extend(half::f16::from_f32(x).to_bits().to_le_bytes()),
                    _ => out.extend(&((x * 4096.0) as i32).to_le_bytes()[..3]),
                }
            }
        }
        out.extend(vec![200; count.into()]);
        out.extend((0..count).flat_map(|_| [128, 255, 0]));
        out.extend(vec![80; 3 * usize::from(count)]);
        out.extend(vec![7; usize::from(count) * if version == 3 { 4 } else { 3 }]);
        out.extend(vec![128; 9 * usize::from(count)]);
        out
    }

    fn packed_ply(count: u32) -> Vec<u8> {
        let chunks = count.div_ceil(256);
        let mut header =
            format!("ply\nformat binary_little_endian 1.0\ncomment made by a test\nelement chunk {chunks}\n");
        for set in ["", "scale_"] {
            for limit in ["min", "max"] {
                for axis in ["x", "y", "z"] {
                    header += &format!("property float {limit}_{set}{axis}\n");
                }
            }
        }
        header += &format!("element vertex {count}\n");
        for name in ["position", "rotation", "scale", "color"] {
            header += &format!("property uint packed_{name}\n");
        }
        let mut out = (header + "end_header\n").into_bytes();
        for chunk in 0..chunks {
            let low = 10.0 * chunk as f32;
            for x in [low, low + 4.0, -6.0, -4.0] {
                (0..3).for_each(|_| out.extend(x.to_le_bytes()));
            }
        }
        for i in 0..count {
            let ends = if i % 2 == 0 { 0 } else { u32::MAX };
            [ends, 0, ends, 0xd9d4_dcff].iter().for_each(|word| out.extend(word.to_le_bytes()));
        }
        out
    }
}

mod packed {
    use super::*;

    #[test]
    fn a_scan_in_gzip() {
        let plain = ply(PlyEncoding::BinaryLittleEndian);
        let cloud = read("room.ply.gz", gzip(&plain)).unwrap();
        assert_kept(&read("room.ply", &plain).unwrap(), &cloud);
        let cloud = read("room.xyz.gz", gzip(b"1 2 3\n")).unwrap();
        assert_eq!(cloud.positions, [[1.0, 2.0, 3.0]]);
        let packed = gzip(&plain);
        assert!(message("a.ply.gz", &packed[..packed.len() - 20]).contains("cannot be decoded"));
        let bomb = gzip(&vec![b' '; 20 << 20]);
        assert!(message("a.xyz.gz", bomb).contains("when unpacked"));
    }

    #[test]
    fn results_are_written_beside_a_packed_scan() {
        let dir = dir();
        let (bytes, _) = las(3, false, true, 20);
        let source = put(&dir, "in.las.gz", gzip(&bytes));
        let dest = dir.path().join("out.las");
        write_with_fields(&source, &dest, &labelled(20)).unwrap();
        assert_labelled(&PointCloud::read(&dest).unwrap());
    }

    #[test]
    fn the_largest_scan_in_a_zip_archive() {
        let plain = ply(PlyEncoding::BinaryLittleEndian);
        let readme = b"about the scan ".repeat(500);
        for packed in [false, true] {
            let files: [(&str, &[u8], bool); 4] = [
                ("readme.md", &readme, true),
                ("scans/small.xyz", b"1 2 3\n4 5 6\n", packed),
                ("scans/room.ply", &plain, packed),
                ("__MACOSX/._room.ply", &[1; 5000], packed),
            ];
            let cloud = read("scan.zip", zip(&files)).unwrap();
            assert_kept(&read("room.ply", &plain).unwrap(), &cloud);
            assert!(has_note(&cloud, "\"scans/room.ply\" is the largest of 2 scans"), "{:?}", cloud.notes);
        }
        // Some programs begin each name with the folder that they were called in.
        let mut dotted = zip(&[("~~small.xyz", b"1 2 3\n4 5 6\n", false)]);
        while let Some(at) = dotted.windows(2).position(|pair| pair == b"~~") {
            dotted[at..at + 2].copy_from_slice(b"./");
        }
        assert_eq!(read("a.zip", dotted).unwrap().len(), 2);
        assert!(message("a.zip", zip(&[("a.md", b"no scan", false)])).contains("without a scan"));
        let mut damaged = zip(&[("room.ply", &plain, false)]);
        damaged[60] ^= 1;
        assert!(message("a.zip", damaged).contains("checksum"));
        let inner = gzip(b"1 2 3\n");
        assert_eq!(read("a.zip", zip(&[("room.xyz.gz", &inner, false)])).unwrap().len(), 1);
    }
}

mod other_files {
    use super::*;

    #[test]
    fn are_named_by_what_they_are() {
        let tar = [vec![b'a'; 257], b"ustar".to_vec()].concat();
        for (bytes, name) in [
            (&b"BLENDER-v300"[..], "a Blender file"),
            (b"Kaydara FBX Binary  \0", "an FBX mesh"),
            (b"%PDF-1.7", "a PDF"),
            (b"pnts\x01\0\0\0", "a point cloud of 3D Tiles"),
            (b"\x89PNG\r\n\x1a\n", "a PNG picture"),
            (b"SQLite format 3\0", "a database of SQLite"),
            (b"<!DOCTYPE html><html>", "a web page"),
            (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
            (b"{\"frames\": []}", "a JSON file"),
            (&tar, "a tar archive"),
        ] {
            let error = message("a.xyz", bytes);
            assert!(error.contains(&format!("this is {name}; ")), "{error}");
        }
        assert!(
            message("a.sog", zip(&[("means_l.webp", b"RIFF", false)])).contains("this is a Gaussian splat file, SOG; ")
        );
        assert!(message("a.ksplat", [0_u8; 100]).contains("KSPLAT"));
        // The name of a mesh is no proof of its content.
        for name in ["a.obj", "a.stl", "a.splat"] {
            let error = message(name, "version https://git-lfs.github.com/spec/v1\n");
            assert!(error.contains("this is a pointer of Git LFS; "), "{error}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_name_that_is_not_utf8() {
        use std::os::unix::ffi::OsStrExt;
        let dir = dir();
        let path = dir.path().join(std::ffi::OsStr::from_bytes(b"caf\xe9.xyz"));
        fs::write(&path, "1 2 3\n4 5 6\n").unwrap();
        assert_eq!(PointCloud::read(&path).unwrap().len(), 2);
        let dest = path.with_extension("ply");
        write_with_fields(&path, &dest, &[Field::new("label", vec![1_u8, 2])]).unwrap();
        assert_eq!(PointCloud::read(&dest).unwrap().len(), 2);
    }
}
