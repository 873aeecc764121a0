//! Distance between neighbouring points.

use super::finite;

/// Points whose neighbours are searched.
const SAMPLES: usize = 2000;
/// Most points per cell before a finer grid is used: crowded cells make each search slow.
const CROWDED: usize = 48;
/// Most points that the search may examine, per point of the cloud, and a constant on top. Scans need less
/// than half. Without a limit a cloud with points at all scales would take very long.
const WORK_PER_POINT: usize = 16;
const WORK: usize = 20_000_000;
/// Rings of cells searched around a point before the grid is made coarser.
const RINGS: i64 = 2;

/// See [`super::PointCloud::spacing`].
pub(super) fn estimate(points: &[[f64; 3]]) -> Option<f64> {
    let count = points.iter().filter(|p| finite(p)).count();
    let step = count.div_ceil(SAMPLES).max(1);
    let mut samples: Vec<[f64; 3]> = (points.iter().filter(|p| finite(p))).step_by(step).copied().collect();
    // Gaps are often stored as zeros. These are many points in one place, and each would examine all the
    // others.
    // Random order, so that the points examined first represent all of them.
    samples.sort_unstable_by_key(|p| (mix(p.map(f64::to_bits)), p.map(f64::to_bits)));
    samples.dedup();
    let mut cell = first_cell(&samples, count)?;
    let mut open: Vec<[f64; 3]> = samples;
    let mut found: Vec<f64> = Vec::new();
    let total = open.len();
    let mut finer = 0;
    let mut work = points.len().saturating_mul(WORK_PER_POINT).saturating_add(WORK);
    // The outermost tenth cannot change the median, so the loop ends when most samples have a neighbour.
    for _ in 0..40 {
        work = work.saturating_sub(points.len());
        if work == 0 {
            break;
        }
        let grid = Grid::new(points, cell);
        let mut crowd: Vec<usize> = open.iter().map(|p| grid.bucket(grid.cell_of(p)).len()).collect();
        crowd.sort_unstable();
        let typical = crowd.get(crowd.len() / 2).copied().unwrap_or(0);
        if typical > CROWDED && finer < 16 && found.is_empty() {
            finer += 1;
            cell *= if typical > 8 * CROWDED { 0.125 } else { 0.5 };
            continue;
        }
        open.retain(|p| match grid.nearest(points, p, &mut work) {
            Some(distance) => {
                found.push(distance);
                false
            }
            None => true,
        });
        if open.len() * 10 <= total {
            break;
        }
        cell *= 4.0;
        if !cell.is_finite() {
            break;
        }
    }
    found.sort_unstable_by(f64::total_cmp);
    // Samples without a distance so far are farther from their neighbours than all others. This does not
    // hold if the work limit ended the search.
    let middle = if work > 0 { total / 2 } else { found.len() / 2 };
    found.get(middle).or(found.last()).copied()
}

/// First cell size: the spacing of the same number of points on a square as large as the bulk of the cloud.
fn first_cell(samples: &[[f64; 3]], count: usize) -> Option<f64> {
    let mut extent: Vec<f64> = (0..3)
        .map(|axis| {
            let mut values: Vec<f64> = samples.iter().filter_map(|p| p.get(axis)).copied().collect();
            values.sort_unstable_by(f64::total_cmp);
            // A few stray points far away must not set the scale.
            let low = values.get(values.len() / 20).copied().unwrap_or(0.0);
            let high = values.get(values.len() - values.len().div_ceil(20)).copied().unwrap_or(0.0);
            let whole = values.last().zip(values.first()).map_or(0.0, |(b, a)| b - a);
            if high > low { high - low } else { whole }
        })
        .collect();
    extent.sort_unstable_by(f64::total_cmp);
    let largest = extent.last().copied().filter(|&e| e > 0.0 && e.is_finite())?;
    Some(largest / (count as f64).sqrt().max(1.0))
}

fn mix(values: [u64; 3]) -> u64 {
    let step = |hash: u64, x: u64| (hash ^ x).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23);
    let hash = values.into_iter().fold(0, step);
    hash ^ (hash >> 31)
}

/// Points sorted into cubes; a hash spreads the cubes over a table.
struct Grid {
    cell: f64,
    mask: u64,
    /// Start of each bucket in `order`; one entry more than there are buckets.
    starts: Vec<u32>,
    order: Vec<u32>,
}

impl Grid {
    fn new(points: &[[f64; 3]], cell: f64) -> Self {
        let buckets = points.len().next_power_of_two().clamp(16, 1 << 30);
        let mut grid = Self { cell, mask: buckets as u64 - 1, starts: vec![0; buckets + 1], order: Vec::new() };
        // Counting sort: counts the points per bucket, adds the counts up, then places the points from the
        // back.
        let each = || (0..u32::MAX).zip(points).filter(|(_, p)| finite(p));
        for (_, p) in each() {
            let hash = grid.hash(grid.cell_of(p));
            if let Some(size) = grid.starts.get_mut(hash) {
                *size += 1;
            }
        }
        let mut sum = 0;
        for start in &mut grid.starts {
            sum += *start;
            *start = sum;
        }
        grid.order = vec![0; sum as usize];
        for (i, p) in each() {
            let hash = grid.hash(grid.cell_of(p));
            if let Some(start) = grid.starts.get_mut(hash) {
                *start -= 1;
                if let Some(slot) = grid.order.get_mut(*start as usize) {
                    *slot = i;
                }
            }
        }
        grid
    }

    fn cell_of(&self, p: &[f64; 3]) -> [i64; 3] {
        // The cast saturates, so absurd coordinates share the outermost cell.
        p.map(|x| (x / self.cell).floor() as i64)
    }

    fn hash(&self, cell: [i64; 3]) -> usize {
        (mix(cell.map(|x| x as u64)) & self.mask) as usize
    }

    fn bucket(&self, cell: [i64; 3]) -> &[u32] {
        let hash = self.hash(cell);
        let bound = |i| self.starts.get(i).map_or(0, |&s| s as usize);
        self.order.get(bound(hash)..bound(hash + 1)).unwrap_or_default()
    }

    /// Distance to the nearest other point. `None` if the cells nearby do not decide it, or `work` is used
    /// up.
    fn nearest(&self, points: &[[f64; 3]], p: &[f64; 3], work: &mut usize) -> Option<f64> {
        let [x, y, z] = self.cell_of(p);
        let mut best = f64::INFINITY;
        for ring in 0..=RINGS {
            for dx in -ring..=ring {
                for dy in -ring..=ring {
                    for dz in -ring..=ring {
                        if dx.abs().max(dy.abs()).max(dz.abs()) != ring {
                            continue;
                        }
                        let cell = [x.saturating_add(dx), y.saturating_add(dy), z.saturating_add(dz)];
                        let bucket = self.bucket(cell);
                        if *work <= bucket.len() {
                            *work = 0;
                            return None;
                        }
                        *work -= bucket.len();
                        for q in bucket.iter().filter_map(|&i| points.get(i as usize)) {
                            let d2: f64 = p.iter().zip(q).map(|(a, b)| (a - b) * (a - b)).sum();
                            if d2 > 0.0 && d2 < best {
                                best = d2;
                            }
                        }
                    }
                }
            }
            // Every point beyond this ring is at least this far away.
            if best.sqrt() <= ring as f64 * self.cell {
                return Some(best.sqrt());
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::estimate;

    fn plane(side: usize, step: f64) -> Vec<[f64; 3]> {
        (0..side * side).map(|i| [(i % side) as f64 * step, (i / side) as f64 * step, 0.0]).collect()
    }

    #[test]
    fn regular_plane() {
        for step in [1e-3, 0.25, 40.0] {
            let spacing = estimate(&plane(60, step)).unwrap();
            assert!((spacing / step - 1.0).abs() < 1e-9, "{spacing} for {step}");
        }
    }

    #[test]
    fn outliers_gaps_and_duplicates() {
        let mut points = plane(60, 0.1);
        points.extend(points.clone());
        points.push([1e7, -1e7, 1e7]);
        points.push([f64::NAN; 3]);
        points.extend([[5e5, 5e5, 5e5]; 50]);
        let spacing = estimate(&points).unwrap();
        assert!((spacing - 0.1).abs() < 1e-9, "{spacing}");
    }

    #[test]
    fn gaps_stored_as_zeros() {
        let mut points = vec![[0.0; 3]; 1_000_000];
        points.extend(plane(300, 0.1).iter().map(|p| [p[0] + 1.0, p[1] + 1.0, 1.0]));
        let spacing = estimate(&points).unwrap();
        assert!((spacing - 0.1).abs() < 1e-9, "{spacing}");
    }

    #[test]
    fn all_scales_at_once() {
        // Each coordinate of any size, as in a file that is not what its header says.
        let mut state = 1_u64;
        let mut number = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            f64::from(f32::from_bits((state >> 32) as u32))
        };
        let points: Vec<_> = (0..300_000).map(|_| [number(), number(), number()]).collect();
        assert!(estimate(&points).is_none_or(|spacing| spacing > 0.0));
    }

    #[test]
    fn map_coordinates() {
        let points: Vec<_> = plane(50, 0.5).iter().map(|p| [p[0] + 6e5, p[1] + 5e6, 400.0]).collect();
        assert!((estimate(&points).unwrap() - 0.5).abs() < 1e-6);
    }

    #[test]
    fn too_few() {
        assert_eq!(estimate(&[]), None);
        assert_eq!(estimate(&[[1.0; 3]]), None);
        assert_eq!(estimate(&[[1.0; 3]; 9]), None);
        assert_eq!(estimate(&[[0.0; 3], [3.0, 4.0, 0.0]]), Some(5.0));
        assert_eq!(estimate(&[[f64::NAN; 3]; 2]), None);
        assert!(estimate(&[[-f64::MAX; 3], [f64::MAX; 3]]).is_none_or(f64::is_infinite));
    }
}
