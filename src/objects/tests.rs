use super::*;
use glam::DVec3;

/// Spacing of the points of test scans, one voxel each.
const STEP: f64 = 0.03;

#[derive(Default)]
struct Made {
    positions: Vec<[f64; 3]>,
    features: Vec<f32>,
    labels: Vec<i32>,
}

impl Made {
    /// Adds the surface of a box with its lowest corner at `low`, turned about z.
    fn cuboid(&mut self, low: [f64; 3], size: [f64; 3], yaw: f64, label: i32, feature: [f32; 2]) {
        let count = size.map(|x| (x / STEP).round() as usize);
        for x in 0..=count[0] {
            for y in 0..=count[1] {
                for z in 0..=count[2] {
                    let at = [x, y, z];
                    if (0..3).any(|axis| at[axis] == 0 || at[axis] == count[axis]) {
                        let p: [f64; 3] = std::array::from_fn(|i| at[i] as f64 / count[i] as f64 * size[i]);
                        let (sin, cos) = yaw.sin_cos();
                        let turned = [p[0] * cos - p[1] * sin, p[0] * sin + p[1] * cos, p[2]];
                        self.positions.push(std::array::from_fn(|i| low[i] + turned[i]));
                        self.features.extend(feature);
                        self.labels.push(label);
                    }
                }
            }
        }
    }

    fn found(&self, how: fn(&Input<'_>) -> Found) -> Found {
        let voxels: Vec<i32> = (0..self.positions.len() as i32).collect();
        how(&Input {
            positions: &self.positions,
            colors: None,
            voxel_from_point: &voxels,
            features: &self.features,
            num_channels: 2,
            labels: &self.labels,
            scores: &vec![0.5; voxels.len()],
            names: &["wall".to_owned(), "chair".to_owned(), "sofa".to_owned()],
            is_stuff: &[true],
            up: [0.0, 0.0, 1.0],
            metre: 1.0,
        })
    }
}

const A: [f32; 2] = [1.0, 0.0];
/// Cosine 0.96 with `A`: another colour of one thing.
const ALIKE: [f32; 2] = [0.96, 0.28];

#[test]
fn touching_boxes_part_where_the_border_is_narrow() {
    let mut made = Made::default();
    made.cuboid([0.0; 3], [0.6, 0.6, 0.6], 0.0, 1, A);
    // They touch at a corner of the height of four points.
    made.cuboid([0.63, 0.57, 0.0], [0.6, 0.6, 0.6], 0.0, 1, A);
    assert_eq!(made.found(baseline).objects.len(), 1);
    let found = made.found(find);
    assert_eq!(found.objects.len(), 2);
    let half = made.labels.len() / 2;
    let first = found.of_voxel[..half].iter().filter(|&&object| object == found.of_voxel[0]).count();
    assert!(first as f64 > 0.95 * half as f64, "{first} of {half}");
    assert!(found.objects.iter().all(|object| object.name == "chair" && (object.score - 0.5).abs() < 1e-6));
}

#[test]
fn boxes_of_different_features_part() {
    let mut made = Made::default();
    made.cuboid([0.0; 3], [0.6, 0.6, 0.6], 0.0, 1, A);
    made.cuboid([0.63, 0.0, 0.0], [0.6, 0.6, 0.6], 0.0, 1, [0.0, 1.0]);
    assert_eq!(made.found(baseline).objects.len(), 1);
    assert_eq!(made.found(find).objects.len(), 2);
}

#[test]
fn a_sofa_in_two_colours_stays_whole_even_with_two_labels() {
    for second in [2, 1] {
        let mut made = Made::default();
        made.cuboid([0.0; 3], [0.9, 0.8, 0.6], 0.0, 2, A);
        made.cuboid([0.93, 0.0, 0.0], [0.6, 0.8, 0.6], 0.0, second, ALIKE);
        let found = made.found(find);
        assert_eq!(found.objects.len(), 1, "{second}");
        assert_eq!((found.objects[0].label, &*found.objects[0].name), (2, "sofa"));
    }
}

#[test]
fn stuff_stays_whole_and_specks_join_what_they_touch() {
    let mut made = Made::default();
    made.cuboid([0.0; 3], [1.2, 0.06, 0.9], 0.0, 0, A);
    made.cuboid([4.0, 0.0, 0.0], [1.2, 0.06, 0.9], 0.0, 0, A);
    // A speck on a wall, and one in the air.
    made.labels[40..44].fill(1);
    made.cuboid([2.0, 2.0, 2.0], [0.03, 0.03, 0.03], 0.0, 1, A);
    let found = made.found(find);
    assert_eq!(found.objects.len(), 1);
    assert_eq!((found.of_voxel[41], found.of_voxel[found.of_voxel.len() - 1]), (0, -1));
    assert!(made.found(baseline).objects.len() > 2);
}

#[test]
fn a_fragment_joins_across_a_small_gap_only() {
    for (gap, expected) in [(0.08, 1), (0.3, 2)] {
        let mut made = Made::default();
        made.cuboid([0.0; 3], [0.6, 0.6, 0.6], 0.0, -1, A);
        made.cuboid([0.6 + gap, 0.0, 0.0], [0.3, 0.3, 0.3], 0.0, -1, A);
        let found = made.found(find);
        assert_eq!(found.objects.len(), expected, "{gap}");
        assert!(found.objects.iter().all(|object| object.label == -1 && object.name == UNLABELLED));
    }
}

#[test]
fn a_turned_cuboid_has_its_heading_and_size() {
    let (yaw, size) = (0.5, [1.2, 0.6, 0.9]);
    let mut made = Made::default();
    made.cuboid([3.0, -2.0, 0.1], size, yaw, 2, A);
    let found = made.found(find);
    let bounds = found.objects[0].bounds;
    assert!((0..3).all(|axis| (bounds.size[axis] - size[axis]).abs() < 0.02), "{bounds:?}");
    assert!((bounds.yaw - yaw).abs() < 0.02, "{bounds:?}");
    let (sin, cos) = yaw.sin_cos();
    let center = DVec3::new(3.0 + 0.6 * cos - 0.3 * sin, -2.0 + 0.6 * sin + 0.3 * cos, 0.55);
    assert!(DVec3::from_array(bounds.center).distance(center) < 0.02, "{bounds:?}");
    let corner = DVec3::new(3.0, -2.0, 0.1);
    let nearest = bounds.corners().map(|c| DVec3::from_array(c).distance(corner)).into_iter().fold(9.0, f64::min);
    assert!(nearest < 0.03, "{nearest}");
}

#[test]
fn inputs_that_do_not_fit_are_no_panic() {
    let (empty, names) = (Found::default(), Vec::new());
    let input = Input {
        positions: &[[f64::NAN; 3], [1e300; 3], [0.0; 3]],
        colors: Some(&[]),
        voxel_from_point: &[7, -1],
        features: &[],
        num_channels: 3,
        labels: &[],
        scores: &[],
        names: &names,
        is_stuff: &[],
        up: [0.0; 3],
        metre: 0.0,
    };
    assert_eq!(find(&input), empty);
    let input = Input { labels: &[5, -9, 5], voxel_from_point: &[0, 1, 2], ..input };
    assert_eq!(find(&input).of_voxel.len(), 3);
    assert_eq!(baseline(&Input { positions: &[[0.0; 3]], ..input }).objects.len(), 1);
}

#[test]
fn a_catalogue_is_read_as_written_and_others_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut made = Made::default();
    made.cuboid([0.0; 3], [0.6, 0.6, 0.6], 0.0, 1, A);
    let catalogue = Catalogue::new(made.found(find).objects, [0.0, 0.0, 1.0], Some(1.0));
    let [json, csv] = catalogue.write(folder.path()).unwrap();
    assert_eq!(Catalogue::read(folder.path()).unwrap().objects.len(), 1);
    assert!(std::fs::read_to_string(csv).unwrap().lines().nth(1).unwrap().starts_with("0,1,\"chair\",0.5,"));
    let text = std::fs::read_to_string(&json).unwrap();
    for (from, to, told) in [
        ("\"version\": 1", "\"version\": 2", "version 2, expected 1"),
        ("\"id\": 0", "\"id\": 3", "has the id 3, expected 0"),
        ("\"label\": 1", "\"label\": -4", "the label -4"),
        ("\"size\"", "\"sizes\"", "missing field `size`"),
        ("{", "[", "objects.json"),
    ] {
        let hostile = text.replacen(from, to, 1);
        assert_ne!(hostile, text);
        std::fs::write(&json, hostile).unwrap();
        let error = Catalogue::read(folder.path()).unwrap_err().to_string();
        assert!(error.contains(told), "{error}");
    }
}
