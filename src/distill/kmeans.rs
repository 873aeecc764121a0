//! k-means on points of any dimension. A seed gives the same result on every machine.

use rayon::prelude::*;

use crate::random::SplitMix64;

/// Most iterations of a run; it usually settles within 30.
const MAX_ROUNDS: usize = 300;

/// Error of clustering points.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KMeansError {
    /// The number of values is not a multiple of the row length.
    #[error("{values} values in rows of {num_channels}; expected whole rows of 1 or more")]
    Shape {
        /// Number of values.
        values: usize,
        /// Values per row.
        num_channels: usize,
    },
    /// There are more clusters than points, or none.
    #[error("{clusters} clusters of {points} points; expected 1 to {points}")]
    Clusters {
        /// Number of clusters.
        clusters: usize,
        /// Number of points.
        points: usize,
    },
    /// A value is NaN or infinite.
    #[error("point {0} has a value that is not finite")]
    NotFinite(usize),
}

/// Clusters of points.
#[derive(Clone, Debug, PartialEq)]
pub struct KMeans {
    /// Cluster centers `[k, C]`.
    pub centers: Vec<f64>,
    /// Cluster of each point `[N]`. If fewer than k points are distinct, some clusters are empty.
    pub cluster_from_point: Vec<usize>,
    /// Sum of the squared distances of the points from their centers.
    pub inertia: f64,
}

/// Clusters `points [N, C]` around `clusters` centers. Does `restarts` runs (at least one) and returns the
/// one with the smallest inertia.
///
/// Each run starts with greedy k-means++ (Arthur and Vassilvitskii, SODA 2007). Each center is the best of
/// `2 + ln k` candidates, drawn by their squared distance from the centers so far. Then Lloyd's iterations
/// move the centers until no point changes its cluster. A cluster that loses its last point gets the point
/// farthest from its center. Points equally far from two centers go to the first. Sums run in the order of
/// the points, in f64, so a seed gives one result.
///
/// # Errors
/// [`KMeansError`] if the shape is wrong, there are fewer points than clusters, or a value is not finite.
pub fn kmeans<T: Copy + Into<f64> + Sync>(
    points: &[T],
    num_channels: usize,
    clusters: usize,
    restarts: usize,
    seed: u64,
) -> Result<KMeans, KMeansError> {
    let points = Points::new(points, num_channels)?;
    if clusters == 0 || clusters > points.len() {
        return Err(KMeansError::Clusters { clusters, points: points.len() });
    }
    let mut random = SplitMix64::new(seed);
    let mut best = run(&points, clusters, &mut random);
    for _ in 1..restarts {
        let other = run(&points, clusters, &mut random);
        if other.inertia < best.inertia {
            best = other;
        }
    }
    Ok(best)
}

/// Nearest of the centers `centers [k, C]` for each of `points [N, C]`; the first of equally near ones.
///
/// # Errors
/// [`KMeansError`] if a shape is wrong, there is no center, or a value of a point is not finite.
pub fn assign<T: Copy + Into<f64> + Sync>(
    points: &[T],
    num_channels: usize,
    centers: &[f64],
) -> Result<Vec<usize>, KMeansError> {
    let points = Points::new(points, num_channels)?;
    if centers.is_empty() || !centers.len().is_multiple_of(num_channels) {
        return Err(KMeansError::Shape { values: centers.len(), num_channels });
    }
    Ok(points.nearest(centers).into_iter().map(|(cluster, _)| cluster).collect())
}

/// Rows of finite values.
struct Points<'a, T> {
    values: &'a [T],
    num_channels: usize,
}

impl<'a, T: Copy + Into<f64> + Sync> Points<'a, T> {
    fn new(values: &'a [T], num_channels: usize) -> Result<Self, KMeansError> {
        if num_channels == 0 || !values.len().is_multiple_of(num_channels) {
            return Err(KMeansError::Shape { values: values.len(), num_channels });
        }
        match values.iter().position(|&x| !x.into().is_finite()) {
            Some(at) => Err(KMeansError::NotFinite(at / num_channels)),
            None => Ok(Self { values, num_channels }),
        }
    }

    fn len(&self) -> usize {
        self.values.len() / self.num_channels
    }

    fn row(&self, point: usize) -> &'a [T] {
        &self.values[point * self.num_channels..][..self.num_channels]
    }

    fn wide(&self, point: usize) -> Vec<f64> {
        self.row(point).iter().map(|&x| x.into()).collect()
    }

    /// Nearest center of each point, and the squared distance from it.
    fn nearest(&self, centers: &[f64]) -> Vec<(usize, f64)> {
        let nearest = |row: &[T]| {
            let mut best = (0, f64::INFINITY);
            for (cluster, center) in centers.chunks_exact(self.num_channels).enumerate() {
                let distance = sq_distance(row, center);
                if distance < best.1 {
                    best = (cluster, distance);
                }
            }
            best
        };
        self.values.par_chunks_exact(self.num_channels).map(nearest).collect()
    }

    fn sq_distances(&self, center: &[f64]) -> Vec<f64> {
        self.values.par_chunks_exact(self.num_channels).map(|row| sq_distance(row, center)).collect()
    }
}

/// Squared distance, in eight parallel sums that a processor adds at once.
fn sq_distance<T: Copy + Into<f64>>(row: &[T], center: &[f64]) -> f64 {
    let mut sums = [0.0; 8];
    let (rows, centers) = (row.chunks_exact(8), center.chunks_exact(8));
    let rest = rows.remainder().iter().zip(centers.remainder());
    let rest: f64 = rest.map(|(&x, c)| (x.into() - c).powi(2)).sum();
    for (row, center) in rows.zip(centers) {
        for ((sum, &x), c) in sums.iter_mut().zip(row).zip(center) {
            let difference = x.into() - c;
            *sum += difference * difference;
        }
    }
    sums.iter().sum::<f64>() + rest
}

fn run<T: Copy + Into<f64> + Sync>(points: &Points<'_, T>, clusters: usize, random: &mut SplitMix64) -> KMeans {
    let mut centers = first_centers(points, clusters, random);
    let mut nearest = points.nearest(&centers);
    for _ in 0..MAX_ROUNDS {
        fill_empty(&mut nearest, clusters);
        centers = middles(points, &nearest, centers);
        let next = points.nearest(&centers);
        let settled = next.iter().zip(&nearest).all(|(a, b)| a.0 == b.0);
        nearest = next;
        if settled {
            break;
        }
    }
    let inertia = nearest.iter().map(|(_, distance)| distance).sum();
    KMeans { centers, cluster_from_point: nearest.into_iter().map(|(cluster, _)| cluster).collect(), inertia }
}

/// Chooses the first centers by greedy k-means++.
fn first_centers<T: Copy + Into<f64> + Sync>(
    points: &Points<'_, T>,
    clusters: usize,
    random: &mut SplitMix64,
) -> Vec<f64> {
    let candidates = 2 + (clusters as f64).ln() as usize;
    let mut centers = points.wide(random.below(points.len()));
    let mut distance = points.sq_distances(&centers);
    for _ in 1..clusters {
        let total: f64 = distance.iter().sum();
        let mut best: Option<(f64, usize, Vec<f64>)> = None;
        for _ in 0..candidates {
            let point = drawn(&distance, total, random);
            let mut closer = points.sq_distances(&points.wide(point));
            closer.iter_mut().zip(&distance).for_each(|(new, old)| *new = new.min(*old));
            let sum: f64 = closer.iter().sum();
            if best.as_ref().is_none_or(|(known, ..)| sum < *known) {
                best = Some((sum, point, closer));
            }
        }
        if let Some((_, point, closer)) = best {
            centers.extend(points.wide(point));
            distance = closer;
        }
    }
    centers
}

/// Draws an index with a probability proportional to its weight. If rounding runs past the end, returns the
/// last index with a weight.
fn drawn(weights: &[f64], total: f64, random: &mut SplitMix64) -> usize {
    let mut left = random.unit() * total;
    let mut last = 0;
    for (i, &weight) in weights.iter().enumerate() {
        if weight > 0.0 {
            last = i;
            if left < weight {
                break;
            }
            left -= weight;
        }
    }
    last
}

/// Gives each empty cluster the point farthest from its center, if any point is away from its center.
fn fill_empty(nearest: &mut [(usize, f64)], clusters: usize) {
    let mut sizes = vec![0_usize; clusters];
    nearest.iter().for_each(|&(cluster, _)| sizes[cluster] += 1);
    for empty in 0..clusters {
        if sizes[empty] > 0 {
            continue;
        }
        // Takes the first of the farthest, so that the order of comparison does not matter.
        let farthest = nearest.iter().enumerate().filter(|(_, (cluster, _))| sizes[*cluster] > 1);
        let farthest = farthest.max_by(|(i, a), (j, b)| a.1.total_cmp(&b.1).then(j.cmp(i))).map(|(point, _)| point);
        if let Some(point) = farthest.filter(|&point| nearest[point].1 > 0.0) {
            sizes[nearest[point].0] -= 1;
            sizes[empty] = 1;
            nearest[point] = (empty, 0.0);
        }
    }
}

/// Mean of each cluster's points. An empty cluster keeps its center.
fn middles<T: Copy + Into<f64> + Sync>(
    points: &Points<'_, T>,
    nearest: &[(usize, f64)],
    mut centers: Vec<f64>,
) -> Vec<f64> {
    let num_channels = points.num_channels;
    let mut sums = vec![0.0; centers.len()];
    let mut sizes = vec![0_usize; centers.len() / num_channels];
    for (point, &(cluster, _)) in nearest.iter().enumerate() {
        sizes[cluster] += 1;
        let sum = &mut sums[cluster * num_channels..][..num_channels];
        sum.iter_mut().zip(points.row(point)).for_each(|(sum, &x)| *sum += x.into());
    }
    let rows = centers.chunks_exact_mut(num_channels).zip(sums.chunks_exact(num_channels)).zip(sizes);
    for ((center, sum), size) in rows {
        if size > 0 {
            center.iter_mut().zip(sum).for_each(|(center, sum)| *center = sum / size as f64);
        }
    }
    centers
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three clouds of 40 points in 11 dimensions, far apart.
    fn clouds() -> Vec<f32> {
        let mut random = SplitMix64::new(5);
        (0..120)
            .flat_map(|i| (0..11).map(move |c| (i, c)).collect::<Vec<_>>())
            .map(|(i, c)| if c % 3 == i % 3 { 10.0 } else { 0.0 } + random.unit() as f32)
            .collect()
    }

    #[test]
    fn clouds_are_found_and_a_seed_gives_one_result() {
        let points = clouds();
        let found = kmeans(&points, 11, 3, 4, 7).unwrap();
        for i in 0..120 {
            assert_eq!(found.cluster_from_point[i], found.cluster_from_point[i % 3], "{i}");
        }
        // The inertia follows the definition, with the means as centers.
        let mut inertia = 0.0;
        for (row, &cluster) in points.chunks(11).zip(&found.cluster_from_point) {
            inertia +=
                row.iter().zip(&found.centers[cluster * 11..]).map(|(x, c)| (f64::from(*x) - c).powi(2)).sum::<f64>();
        }
        assert!((inertia - found.inertia).abs() < 1e-9 * inertia, "{inertia} {}", found.inertia);
        assert_eq!(kmeans(&points, 11, 3, 4, 7).unwrap(), found);
        assert_eq!(assign(&points, 11, &found.centers).unwrap(), found.cluster_from_point);
    }

    #[test]
    fn more_restarts_are_never_worse() {
        let mut random = SplitMix64::new(2);
        let points: Vec<f64> = (0..600).map(|_| random.unit()).collect();
        let inertia = |restarts| kmeans(&points, 3, 17, restarts, 3).unwrap().inertia;
        assert!(inertia(10) <= inertia(3) && inertia(3) <= inertia(1));
        // On a line the best clustering is known.
        let line = kmeans(&[0.0, 1.0, 10.0, 11.0, 20.0, 21.0], 1, 3, 5, 0).unwrap();
        assert!((line.inertia - 1.5).abs() < 1e-12, "{line:?}");
    }

    #[test]
    fn as_many_clusters_as_points_and_equal_points() {
        let found = kmeans(&[3.0, 1.0, 2.0], 1, 3, 1, 0).unwrap();
        assert_eq!(found.inertia, 0.0);
        let mut clusters = found.cluster_from_point.clone();
        clusters.sort_unstable();
        assert_eq!(clusters, [0, 1, 2]);
        let found = kmeans(&[2.0_f32; 8], 2, 3, 2, 0).unwrap();
        assert_eq!((found.inertia, found.centers), (0.0, vec![2.0; 6]));
    }

    #[test]
    fn empty_clusters_take_the_farthest_point() {
        let mut nearest = [(0, 1.0), (0, 9.0), (0, 9.0), (2, 50.0)];
        fill_empty(&mut nearest, 3);
        assert_eq!(nearest, [(0, 1.0), (1, 0.0), (0, 9.0), (2, 50.0)]);
    }

    #[test]
    fn faults_are_named() {
        let error = |points: &[f64], channels, k| kmeans(points, channels, k, 1, 0).unwrap_err();
        assert_eq!(error(&[0.0; 5], 2, 1), KMeansError::Shape { values: 5, num_channels: 2 });
        assert_eq!(error(&[0.0; 4], 0, 1), KMeansError::Shape { values: 4, num_channels: 0 });
        assert_eq!(error(&[0.0; 4], 2, 3), KMeansError::Clusters { clusters: 3, points: 2 });
        assert_eq!(error(&[0.0; 4], 2, 0), KMeansError::Clusters { clusters: 0, points: 2 });
        assert_eq!(error(&[0.0, 0.0, f64::NAN, 0.0], 2, 1), KMeansError::NotFinite(1));
        assert!(assign(&[0.0], 1, &[]).is_err() && assign(&[0.0; 2], 2, &[0.0; 3]).is_err());
    }
}
