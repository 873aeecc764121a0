//! Strays: few points far outside a scan. They must not decide its size, nor where it is looked at from.

use glam::Vec3;
use rayon::prelude::*;

/// At most one point in this many is a stray at one end of an axis.
const MOST: usize = 100;
/// Width of the empty space before strays, relative to the size of the rest.
const GAP: f32 = 1.0;

/// Bounds of a scan without its strays.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Core {
    low: Vec3,
    high: Vec3,
}

impl Core {
    /// Finds the bounds. Along an axis at most one point in 100 is a stray at either end. An empty space, at
    /// least as wide as all the rest is large, must lie before it.
    pub(super) fn of(points: &[[f32; 3]]) -> Self {
        let beyond = points.len() / MOST;
        let ends: Vec<[Vec<f32>; 2]> = (0..3).into_par_iter().map(|axis| ends(points, axis, beyond)).collect();
        let inner = Vec3::from_array([0, 1, 2].map(|axis| ends[axis][1][0] + ends[axis][0][0]));
        let size = inner.length();
        let reach = |end: &[f32]| {
            let step = |pair: &[f32]| pair[1] - pair[0] > GAP * size;
            let gap = end.windows(2).position(step).filter(|_| size > 0.0);
            gap.map_or(f32::INFINITY, |before| end[before])
        };
        let limits = |side: usize| Vec3::from_array([0, 1, 2].map(|axis| reach(&ends[axis][side])));
        Self { low: -limits(0), high: limits(1) }
    }

    /// Returns false for strays.
    pub(super) fn contains(&self, point: [f32; 3]) -> bool {
        let p = Vec3::from_array(point);
        p.cmpge(self.low).all() && p.cmple(self.high).all()
    }
}

/// Returns the `beyond + 1` smallest values along an axis, negated, and the largest, each from the inside
/// outwards.
fn ends(points: &[[f32; 3]], axis: usize, beyond: usize) -> [Vec<f32>; 2] {
    let mut values: Vec<f32> = points.iter().map(|p| p[axis]).collect();
    let end = |values: &mut Vec<f32>, sign: f32| {
        if values.is_empty() {
            return vec![0.0];
        }
        let first = values.len() - 1 - beyond;
        values.select_nth_unstable_by(first, |a, b| (sign * a).total_cmp(&(sign * b)));
        let mut end: Vec<f32> = values[first..].iter().map(|value| sign * value).collect();
        end.sort_unstable_by(f32::total_cmp);
        end
    };
    [end(&mut values, -1.0), end(&mut values, 1.0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strays(points: &[[f32; 3]]) -> Vec<usize> {
        let core = Core::of(points);
        (0..points.len()).filter(|&i| !core.contains(points[i])).collect()
    }

    /// 1,000 points on a floor of 4 x 3 m.
    fn floor() -> Vec<[f32; 3]> {
        (0..1000).map(|i| [(i % 40) as f32 * 0.1 - 1500.0, (i / 40) as f32 * 0.12 - 1500.0, -1.0]).collect()
    }

    #[test]
    fn few_points_beyond_a_wide_empty_space_are_strays() {
        let mut points = floor();
        assert_eq!(strays(&points), [0; 0]);
        points.push([1500.0, 1500.0, 1.0]);
        points.push([-1499.0, -1499.0, 800.0]);
        points.push([-1499.0, -1600.0, -1.0]);
        assert_eq!(strays(&points), [1000, 1001, 1002]);
    }

    #[test]
    fn near_or_many_points_are_none() {
        // A lamp post 5 m away, as far as the floor is large.
        let mut points = floor();
        points.push([-1499.0, -1493.0, -1.0]);
        assert_eq!(strays(&points), [0; 0]);
        // A second scan far away.
        let mut points = floor();
        points.extend((0..20).map(|i| [900.0, 0.0, i as f32 * 0.1]));
        assert_eq!(strays(&points), [0; 0]);
        // All in one place, and nothing at all.
        let mut points = vec![[1.0; 3]; 500];
        points.push([9.0; 3]);
        assert_eq!(strays(&points), [0; 0]);
        assert_eq!(strays(&[]), [0; 0]);
        assert_eq!(strays(&[[0.0; 3], [1e38, -1e38, 1e38]]), [0; 0]);
    }
}
