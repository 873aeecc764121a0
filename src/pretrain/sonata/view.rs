//! The part of a scan that a step sees, disturbed as scans are.

use std::f64::consts::TAU;

use crate::models::sonata::{Cloud, GRID_METRES, Prepared, RowOrder, SonataError, transform};
use crate::random::SplitMix64;

use crate::pretrain::scan::LabelledScan;

/// Weight of a height difference in the distance to the middle of a part, so that parts reach farther
/// sideways.
const HEIGHT_WEIGHT: f32 = 0.5;
/// Largest share of points that are left out one by one.
const MAX_DROPPED: f64 = 0.3;
/// Largest number of balls that are left out.
const MAX_HOLES: usize = 4;
/// Least and largest radius of these balls, in metres.
const HOLE_METRES: [f64; 2] = [0.05, 0.25];
/// Largest deviation of positions, in metres.
const MAX_JITTER_METRES: f64 = 0.004;
/// Largest deviation of the normals' components.
const MAX_TILT: f64 = 0.1;
/// Largest deviation of colours, out of 255.
const MAX_COLOR_NOISE: f64 = 8.0;
/// Largest rotation of one copy against another, in radians.
const MAX_TURN: f64 = 0.2;
/// Largest shifts of a part along x, y and z, in metres. They place it somewhere in a larger scan.
const MAX_SHIFT_METRES: [f64; 3] = [4.0, 4.0, 0.1];
/// Least and largest factor of a part's size.
const SCALE: [f64; 2] = [0.9, 1.1];
/// Probability that a part has no colours.
const COLORLESS: f64 = 0.1;
/// Probability that a part has shades of grey only.
const GRAY: f64 = 0.1;

/// A part of a scan as voxels.
#[derive(Clone, Debug)]
pub struct Shown {
    /// Voxels and features, as the encoder takes them.
    pub prepared: Prepared,
    /// Point of the scan that stands for each voxel, `[V]`.
    pub points: Vec<u32>,
}

/// Returns the `max_points` points of `scan` around a random point, in random order. The object is drawn
/// first, then the point, so that small objects are seen as often as large ones.
pub fn part(scan: &LabelledScan, max_points: usize, random: &mut SplitMix64) -> Vec<u32> {
    let object = random.below(scan.spans_room.len()) as u32;
    let of_object: Vec<usize> = (0..scan.points.len()).filter(|&i| scan.instances[i] == object).collect();
    let middle = scan.points[of_object[random.below(of_object.len())]];
    let distance = |p: &[f32; 3]| {
        let [x, y, z] = [0, 1, 2].map(|axis| p[axis] - middle[axis]);
        x * x + y * y + HEIGHT_WEIGHT * HEIGHT_WEIGHT * z * z
    };
    let mut order: Vec<(f32, u32)> = scan.points.iter().map(distance).zip(0..).collect();
    let count = max_points.clamp(1, order.len());
    order.select_nth_unstable_by(count - 1, |a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let mut kept: Vec<u32> = order[..count].iter().map(|&(_, point)| point).collect();
    kept.sort_unstable();
    random.permutation(count).into_iter().map(|i| kept[i]).collect()
}

/// Pose and light that all copies of a part share, as a whole scan does.
#[derive(Clone, Debug)]
pub struct Setting {
    angle: f64,
    mirror: f64,
    scale: f64,
    /// Factor of each channel, and the value added to all.
    gain: [f64; 3],
    offset: f64,
    /// Share of grey in a colour.
    gray: f64,
}

impl Setting {
    /// Draws any direction, mirrored or not, and any light. One time in ten there are no colours, one time in
    /// ten only shades of grey.
    pub fn draw(random: &mut SplitMix64) -> Self {
        let mut between = |[least, most]: [f64; 2]| least + (most - least) * random.unit();
        let (angle, mirror, scale) = (between([0.0, TAU]), between([-1.0, 1.0]), between(SCALE));
        let kind = between([0.0, 1.0]);
        let light = between([0.7, 1.3]);
        let gain = [0; 3].map(|_| light * between([0.88, 1.12]));
        let (offset, gray) = (between([-20.0, 20.0]), between([0.0, 0.5]));
        let (gain, offset) = if kind < COLORLESS { ([0.0; 3], 0.0) } else { (gain, offset) };
        let gray = if kind < COLORLESS + GRAY { 1.0 } else { gray };
        Self { angle, mirror: 1.0_f64.copysign(mirror), scale, gain, offset, gray }
    }

    /// True if there are colours or shades of grey.
    fn is_lit(&self) -> bool {
        self.gain[0] > 0.0
    }

    fn color(&self, color: [f64; 3], noise: [f64; 3]) -> [f32; 3] {
        let gray = color.iter().sum::<f64>() / 3.0;
        [0, 1, 2].map(|i| {
            let value = (1.0 - self.gray) * color[i] + self.gray * gray;
            (self.gain[i] * value + self.offset + noise[i]).clamp(0.0, 255.0) as f32
        })
    }
}

/// Shows the points `part` of `scan` in a `setting`, as another scan of the same place would. They are
/// rotated a little more, moved and thinned, have holes, and have slight errors in positions, normals and
/// colours.
///
/// # Errors
/// As [`transform`].
pub fn disturbed(
    scan: &LabelledScan,
    part: &[u32],
    setting: &Setting,
    random: &mut SplitMix64,
) -> Result<Shown, SonataError> {
    let mut between = |[least, most]: [f64; 2]| least + (most - least) * random.unit();
    let (sin, cos) = (setting.angle + between([-MAX_TURN, MAX_TURN])).sin_cos();
    let Setting { mirror, scale, .. } = *setting;
    let shift = MAX_SHIFT_METRES.map(|most| between([-most, most]) as f32);
    let rows = [[scale * cos * mirror, -scale * sin, 0.0], [scale * sin * mirror, scale * cos, 0.0], [0.0, 0.0, scale]];
    let turn = |v: [f32; 3]| rows.map(|row| row.iter().zip(v).map(|(a, x)| a * f64::from(x)).sum::<f64>());
    let dropped = between([0.0, MAX_DROPPED]);
    let jitter = between([0.0, MAX_JITTER_METRES]);
    let tilt = between([0.0, MAX_TILT]);
    let color_noise = if setting.is_lit() { between([0.0, MAX_COLOR_NOISE]) } else { 0.0 };
    let num_holes = random.below(MAX_HOLES + 1);
    let holes: Vec<([f32; 3], f32)> = (0..num_holes)
        .map(|_| {
            let middle = scan.points[part[random.below(part.len())] as usize];
            (middle, (HOLE_METRES[0] + (HOLE_METRES[1] - HOLE_METRES[0]) * random.unit()) as f32)
        })
        .collect();
    let is_gone = |p: &[f32; 3]| {
        let sq_dist = |middle: &[f32; 3]| (0..3).map(|axis| (p[axis] - middle[axis]).powi(2)).sum::<f32>();
        holes.iter().any(|(middle, radius)| sq_dist(middle) < radius * radius)
    };
    let kept: Vec<u32> = part
        .iter()
        .copied()
        .filter(|&point| random.unit() >= dropped && !is_gone(&scan.points[point as usize]))
        .collect();
    // In a small part, the holes may take everything.
    let kept = if kept.is_empty() { part.to_vec() } else { kept };
    let (mut points, mut colors, mut normals) = (Vec::new(), Vec::new(), Vec::new());
    for &point in &kept {
        let point = point as usize;
        let mut noise = |deviation: f64| deviation * random.nearly_normal();
        let position = turn(scan.points[point]);
        points.push(position.map(|x| (x + noise(jitter)) as f32));
        let turned = turn(scan.normals[point]).map(|x| x / scale + noise(tilt));
        let length = turned.iter().map(|x| x * x).sum::<f64>().sqrt().max(1e-6);
        normals.push(turned.map(|x| (x / length) as f32));
        let noise = [0; 3].map(|_| noise(color_noise));
        colors.push(setting.color(scan.colors[point].map(f64::from), noise));
    }
    let lowest = points.iter().fold(f32::INFINITY, |lowest, p| lowest.min(p[2]));
    let cloud = Cloud { points: &points, colors: &colors, normals: &normals };
    let mut prepared = transform(cloud, GRID_METRES, RowOrder::Morton)?;
    for [x, y, z, ..] in &mut prepared.features {
        *x += shift[0];
        *y += shift[1];
        *z += lowest + shift[2];
    }
    let points = prepared.point_from_voxel.iter().map(|&i| kept[i as usize]).collect();
    Ok(Shown { prepared, points })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A floor of 2 x 2 m and a small object on it.
    fn scan() -> LabelledScan {
        let floor = (0..10_000).map(|i| [(i % 100) as f32 * 0.02, (i / 100) as f32 * 0.02, 0.0]);
        let thing = (0..25).map(|i| [1.5 + (i % 5) as f32 * 0.02, 0.5 + (i / 5) as f32 * 0.02, 0.3]);
        let points: Vec<[f32; 3]> = floor.chain(thing).collect();
        LabelledScan {
            name: "floor".to_owned(),
            colors: points.iter().map(|p| if p[2] > 0.0 { [255, 0, 0] } else { [90, 100, 110] }).collect(),
            normals: vec![[0.0, 0.0, 1.0]; points.len()],
            classes: vec![2; points.len()],
            instances: points.iter().map(|p| u32::from(p[2] > 0.0)).collect(),
            spans_room: vec![true, false],
            points,
        }
    }

    #[test]
    fn a_part_is_what_is_near_and_things_are_seen_as_often_as_floors() {
        let scan = scan();
        let mut num_with_thing = 0;
        for seed in 0..40 {
            let kept = part(&scan, 600, &mut SplitMix64::new(seed));
            assert_eq!(kept, part(&scan, 600, &mut SplitMix64::new(seed)));
            let mut sorted = kept.clone();
            sorted.sort_unstable();
            sorted.dedup();
            assert_eq!(sorted.len(), 600);
            assert_ne!(kept, sorted);
            // 600 points of 4 cm² lie within 0.3 m of a point in the middle, and within more of one at an
            // edge.
            let span = |axis: usize| {
                let values = || kept.iter().map(|&point| scan.points[point as usize][axis]);
                values().fold(f32::MIN, f32::max) - values().fold(f32::MAX, f32::min)
            };
            assert!(span(0) < 1.2 && span(1) < 1.2, "{} x {}", span(0), span(1));
            num_with_thing += usize::from(kept.iter().any(|&point| scan.instances[point as usize] == 1));
        }
        assert!(num_with_thing >= 15, "{num_with_thing}");
        assert_eq!(part(&scan, usize::MAX, &mut SplitMix64::new(1)).len(), scan.points.len());
    }

    #[test]
    fn copies_differ_and_keep_their_points() {
        let scan = scan();
        let kept = part(&scan, usize::MAX, &mut SplitMix64::new(1));
        let mut random = SplitMix64::new(2);
        let setting = Setting::draw(&mut random);
        let [first, second] = [0; 2].map(|_| disturbed(&scan, &kept, &setting, &mut random).unwrap());
        assert_ne!(first.prepared.features, second.prepared.features);
        for shown in [first, second] {
            let num_voxels = shown.points.len();
            assert!(num_voxels > 4000 && num_voxels < 10_025, "{num_voxels}");
            assert_eq!((shown.prepared.voxels.len(), shown.prepared.features.len()), (num_voxels, num_voxels));
            let mut heights = [[0.0_f32; 2]; 2];
            for (&point, &[_, _, z, r, g, b, i, j, k]) in shown.points.iter().zip(&shown.prepared.features) {
                let length = (i * i + j * j + k * k).sqrt();
                assert!((length - 1.0).abs() < 1e-4 && k > 0.3);
                assert!([r, g, b].iter().all(|x| (0.0..=1.0).contains(x)));
                let [sum, count] = &mut heights[scan.instances[point as usize] as usize];
                (*sum, *count) = (*sum + z, *count + 1.0);
            }
            // The object may have vanished into a hole.
            let [floor, thing] = heights.map(|[sum, count]| sum / count);
            assert!(
                floor.abs() < 0.12 && (thing.is_nan() || (0.26..0.34).contains(&(thing - floor))),
                "{floor} {thing}"
            );
        }
    }
}
