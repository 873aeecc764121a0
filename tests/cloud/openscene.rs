//! Scenes of OpenScene's prepared data, with pickles of NumPy's own.

use std::path::{Path, PathBuf};

use geopurify::cloud::{AttributeData, Format, PointCloud};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/cloud/openscene").join(name)
}

const POSITIONS: [[f64; 3]; 6] =
    [[0.0; 3], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.25, -2.5, 0.125], [3.0, 2.0, 1.0]];
const COLORS: [[u8; 3]; 6] = [[0, 128, 255], [255, 0, 0], [10, 20, 30], [1, 2, 3], [200, 100, 50], [127, 128, 129]];

#[test]
fn a_scene_of_scannet_has_colours_and_labels() {
    let cloud = PointCloud::read(&file("scannet.pth")).unwrap();
    assert_eq!((cloud.positions.as_slice(), cloud.colors.as_deref()), (&POSITIONS[..], Some(&COLORS[..])));
    assert_eq!((cloud.format, cloud.normals.is_none()), (Format::OpenScene, true));
    let labels = &cloud.attribute("label").unwrap().data;
    // -100 is the old number for none.
    assert_eq!(*labels, AttributeData::from(vec![0_i32, 1, 19, 255, 7, 255]));
    assert!(cloud.notes.iter().any(|note| note.contains("-1 to 1")), "{:?}", cloud.notes);
}

#[test]
fn other_forms_are_read_too() {
    let cloud = PointCloud::read(&file("matterport.pth")).unwrap();
    assert_eq!((cloud.positions.as_slice(), cloud.colors.as_deref()), (&POSITIONS[..], Some(&COLORS[..])));
    assert_eq!(cloud.normals.as_deref(), Some(&[[0.0, 0.0, 1.0]; 6][..]));
    assert_eq!(cloud.attribute("label").unwrap().data, AttributeData::from(vec![0_i32, 20, 255, 3, 4, 5]));
    let cloud = PointCloud::read(&file("nuscenes.pth")).unwrap();
    assert_eq!((cloud.positions.as_slice(), cloud.colors.as_deref()), (&POSITIONS[..], None));
}

#[test]
fn what_is_no_scene_is_said() {
    let message = |path: &Path| PointCloud::read(path).unwrap_err().to_string();
    let unlike = message(&file("unlike.pth"));
    assert!(unlike.contains("labels is an array of [5]; expected an array of 6 numbers"), "{unlike}");
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/geopurify/student_tiny_module.pth");
    let weights = message(&golden);
    assert!(weights.contains("the file holds a dict, not a tuple of arrays"), "{weights}");
}

#[test]
fn damage_is_refused_wherever_it_is() {
    let bytes = std::fs::read(file("scannet.pth")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("scene.pth");
    for length in (40..bytes.len()).step_by(7) {
        std::fs::write(&path, &bytes[..length]).unwrap();
        assert!(PointCloud::read(&path).is_err(), "cut at {length}");
    }
    // Any other byte: no panic, and never more points than there are.
    for at in 40..bytes.len() {
        for flipped in [0x01, 0x80, 0xff] {
            let mut damaged = bytes.clone();
            damaged[at] ^= flipped;
            std::fs::write(&path, damaged).unwrap();
            assert!(PointCloud::read(&path).map_or(0, |cloud| cloud.len()) <= 6, "byte {at}");
        }
    }
}
