//! Colours for features: their first three principal components.

use rayon::prelude::*;

/// Directions of the subspace iteration. More than three, because convergence depends on the ratio to the
/// last one.
const DIRECTIONS: usize = 8;
/// Steps of the subspace iteration.
const STEPS: usize = 16;
/// Most rows used to find the components, spread evenly.
const MAX_ROWS: usize = 16_384;
/// Rows per task, whose products are summed in f32.
const TASK_ROWS: usize = 256;
/// Share of the rows clipped at either end of the colour range.
const CLIPPED: f64 = 0.01;
/// Sweeps of Jacobi's method.
const SWEEPS: usize = 12;

/// Returns a colour for every row of `features [M, channels]`. Red, green and blue are its first three
/// principal components, each scaled from its lowest to its highest percentile. A row counts `weights [M]`
/// times.
///
/// The components come from a subspace iteration (Rutishauser 1970) over at most 16,384 rows, spread evenly.
/// Signs are chosen so that the largest loading of each component is positive. So the colours do not depend
/// on chance.
#[must_use]
pub fn principal_colors(features: &[f32], channels: usize, weights: &[f32]) -> Vec<[u8; 3]> {
    if channels == 0 || weights.is_empty() {
        return vec![[128; 3]; weights.len()];
    }
    let step = weights.len().div_ceil(MAX_ROWS);
    let rows: Vec<usize> = (0..weights.len()).step_by(step).collect();
    let data = Centered::new(features, channels, weights, rows);
    let directions = data.principal();
    let mut colors = vec![[128; 3]; weights.len()];
    for (i, direction) in directions.iter().take(3).enumerate() {
        let offset: f64 = direction.iter().zip(&data.mean).map(|(a, b)| a * b).sum();
        let score = |row: &[f32]| row.iter().zip(direction).map(|(&x, d)| f64::from(x) * d).sum::<f64>() - offset;
        let scores: Vec<f64> = features.par_chunks_exact(channels).map(score).collect();
        let mut sorted = scores.clone();
        sorted.par_sort_unstable_by(f64::total_cmp);
        let at = |share: f64| sorted[((sorted.len() - 1) as f64 * share).round() as usize];
        let (low, high) = (at(CLIPPED), at(1.0 - CLIPPED));
        if high > low {
            for (color, score) in colors.iter_mut().zip(scores) {
                color[i] = (255.0 * ((score - low) / (high - low)).clamp(0.0, 1.0)).round() as u8;
            }
        }
    }
    colors
}

/// Weighted rows minus their mean.
struct Centered<'a> {
    features: &'a [f32],
    channels: usize,
    weights: &'a [f32],
    rows: Vec<usize>,
    mean: Vec<f64>,
}

type Columns = Vec<Vec<f64>>;

impl<'a> Centered<'a> {
    fn new(features: &'a [f32], channels: usize, weights: &'a [f32], rows: Vec<usize>) -> Self {
        let mut mean = vec![0.0; channels];
        let total: f64 = rows.iter().map(|&row| f64::from(weights[row])).sum();
        for &row in &rows {
            let values = &features[row * channels..][..channels];
            let weight = f64::from(weights[row]) / total.max(f64::MIN_POSITIVE);
            mean.iter_mut().zip(values).for_each(|(mean, &x)| *mean += weight * f64::from(x));
        }
        Self { features, channels, weights, rows, mean }
    }

    /// Orthonormal directions of the largest variances, in descending order of variance.
    fn principal(&self) -> Columns {
        let count = DIRECTIONS.min(self.channels);
        let mut state = 1_u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as f64 / f64::from(1 << 30) - 1.0
        };
        let mut directions: Columns = (0..count).map(|_| (0..self.channels).map(|_| random()).collect()).collect();
        orthonormalize(&mut directions);
        for _ in 0..STEPS {
            directions = self.covariance_times(&directions);
            orthonormalize(&mut directions);
        }
        // Within the subspace the covariance is small enough for Jacobi's method.
        let images = self.covariance_times(&directions);
        let mut small = [[0.0; DIRECTIONS]; DIRECTIONS];
        for (i, direction) in directions.iter().enumerate() {
            for (j, image) in images.iter().enumerate() {
                small[i][j] = dot(direction, image);
            }
        }
        let (values, vectors) = jacobi(small);
        let mut order: Vec<usize> = (0..count).collect();
        order.sort_by(|&a, &b| values[b].total_cmp(&values[a]));
        let turned = |&at: &usize| {
            let mut direction = vec![0.0; self.channels];
            for (i, part) in directions.iter().enumerate() {
                direction.iter_mut().zip(part).for_each(|(sum, x)| *sum += vectors[i][at] * x);
            }
            let largest = direction.iter().copied().fold(0.0_f64, |a, b| if b.abs() > a.abs() { b } else { a });
            if largest < 0.0 {
                direction.iter_mut().for_each(|x| *x = -*x);
            }
            direction
        };
        order.iter().map(turned).collect()
    }

    /// Σ weight · x (xᵀ d) over the centred rows x, for each direction d. Sums are in f32 within a task;
    /// tasks are added in order in f64.
    fn covariance_times(&self, directions: &Columns) -> Columns {
        let lanes: Vec<[f32; DIRECTIONS]> = (0..self.channels)
            .map(|c| std::array::from_fn(|i| directions.get(i).map_or(0.0, |direction| direction[c] as f32)))
            .collect();
        let part = |rows: &[usize]| {
            let mut sums = vec![[0.0_f32; DIRECTIONS]; self.channels];
            let mut centered = vec![0.0_f32; self.channels];
            for &row in rows {
                let values = &self.features[row * self.channels..][..self.channels];
                for ((to, &x), mean) in centered.iter_mut().zip(values).zip(&self.mean) {
                    *to = (f64::from(x) - mean) as f32;
                }
                let mut scores = [0.0_f32; DIRECTIONS];
                for (x, lane) in centered.iter().zip(&lanes) {
                    scores.iter_mut().zip(lane).for_each(|(score, d)| *score += x * d);
                }
                scores.iter_mut().for_each(|score| *score *= self.weights[row]);
                for (sum, x) in sums.iter_mut().zip(&centered) {
                    sum.iter_mut().zip(&scores).for_each(|(sum, score)| *sum += x * score);
                }
            }
            sums
        };
        let parts: Vec<Vec<[f32; DIRECTIONS]>> = self.rows.par_chunks(TASK_ROWS).map(part).collect();
        let mut out = vec![vec![0.0; self.channels]; directions.len()];
        for part in parts {
            for (c, sums) in part.iter().enumerate() {
                out.iter_mut().zip(sums).for_each(|(out, &sum)| out[c] += f64::from(sum));
            }
        }
        out
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Gram-Schmidt process, run twice to remove rounding errors. Linearly dependent columns become 0.
fn orthonormalize(columns: &mut Columns) {
    for i in 0..columns.len() {
        let (before, rest) = columns.split_at_mut(i);
        let column = &mut rest[0];
        let length = dot(column, column).sqrt();
        for _ in 0..2 {
            for other in before.iter() {
                let along = dot(column, other);
                column.iter_mut().zip(other).for_each(|(x, other)| *x -= along * other);
            }
        }
        let left = dot(column, column).sqrt();
        let factor = if left > 1e-12 * length && left > 0.0 { 1.0 / left } else { 0.0 };
        column.iter_mut().for_each(|x| *x *= factor);
    }
}

/// Eigenvalues of a symmetric matrix, and its eigenvectors as columns, by cyclic rotations.
fn jacobi<const N: usize>(mut a: [[f64; N]; N]) -> ([f64; N], [[f64; N]; N]) {
    let mut vectors = [[0.0; N]; N];
    (0..N).for_each(|i| vectors[i][i] = 1.0);
    for _ in 0..SWEEPS {
        for (p, q) in (0..N).flat_map(|p| (p + 1..N).map(move |q| (p, q))) {
            if a[p][q] == 0.0 {
                continue;
            }
            let theta = (a[q][q] - a[p][p]) / (2.0 * a[p][q]);
            let t = theta.signum() / (theta.abs() + theta.hypot(1.0));
            let (c, s) = (1.0 / t.hypot(1.0), t / t.hypot(1.0));
            for row in a.iter_mut().chain(&mut vectors) {
                (row[p], row[q]) = (c * row[p] - s * row[q], s * row[p] + c * row[q]);
            }
            let (row_p, row_q) = (a[p], a[q]);
            a[p] = std::array::from_fn(|k| c * row_p[k] - s * row_q[k]);
            a[q] = std::array::from_fn(|k| s * row_p[k] + c * row_q[k]);
        }
    }
    (std::array::from_fn(|i| a[i][i]), vectors)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows with known first components: `scores` along three fixed orthonormal directions, and a little
    /// noise.
    fn rows(scores: &[[f64; 3]], channels: usize) -> Vec<f32> {
        let mut directions: Columns =
            (0..3).map(|i| (0..channels).map(|c| ((c * (i + 2) + i) as f64 * 0.7).sin()).collect()).collect();
        orthonormalize(&mut directions);
        let value = |scores: &[f64; 3], r: usize, c: usize| {
            let noise = ((r * 31 + c * 17) % 13) as f64 * 1e-5;
            (5.0 + noise + (0..3).map(|i| scores[i] * directions[i][c]).sum::<f64>()) as f32
        };
        scores
            .iter()
            .enumerate()
            .flat_map(|(r, s)| (0..channels).map(move |c| (s, r, c)))
            .map(|(s, r, c)| value(s, r, c))
            .collect()
    }

    #[test]
    fn colors_follow_the_components_in_the_order_of_their_variance() {
        let wave = |i: usize, f: f64| (i as f64 * f).sin();
        let scores: Vec<[f64; 3]> =
            (0..400).map(|i| [4.0 * wave(i, 0.37), 2.0 * wave(i, 0.11), wave(i, 0.73)]).collect();
        let colors = principal_colors(&rows(&scores, 40), 40, &[1.0; 400]);
        for axis in 0..3 {
            let pairs: Vec<(f64, f64)> =
                scores.iter().zip(&colors).map(|(s, color)| (s[axis], f64::from(color[axis]))).collect();
            let n = pairs.len() as f64;
            let mean = pairs.iter().fold((0.0, 0.0), |m, p| (m.0 + p.0 / n, m.1 + p.1 / n));
            let sum = |f: &dyn Fn(f64, f64) -> f64| pairs.iter().map(|p| f(p.0 - mean.0, p.1 - mean.1)).sum::<f64>();
            let correlation = sum(&|a, b| a * b) / (sum(&|a, _| a * a) * sum(&|_, b| b * b)).sqrt();
            assert!(correlation.abs() > 0.98, "axis {axis}: {correlation}");
        }
        assert_eq!(colors, principal_colors(&rows(&scores, 40), 40, &[1.0; 400]));
    }

    #[test]
    fn what_does_not_vary_is_grey() {
        assert_eq!(principal_colors(&[2.0; 12], 4, &[1.0; 3]), [[128; 3]; 3]);
        assert_eq!(principal_colors(&[1.0, 2.0], 2, &[1.0]), [[128; 3]]);
        assert!(principal_colors(&[], 4, &[]).is_empty());
        let one = principal_colors(&[0.0, 1.0, 2.0], 1, &[1.0; 3]);
        assert_eq!((one[0][0], one[2][0], one[1][1]), (0, 255, 128));
    }

    #[test]
    fn jacobi_finds_the_axes_of_a_known_matrix() {
        let (values, vectors) = jacobi([[2.0, 1.0, 0.0], [1.0, 2.0, 0.0], [0.0, 0.0, 5.0]]);
        let mut sorted = values;
        sorted.sort_by(f64::total_cmp);
        assert!(sorted.iter().zip([1.0, 3.0, 5.0]).all(|(a, b)| (a - b).abs() < 1e-12));
        for i in 0..3 {
            let column: Vec<f64> = (0..3).map(|r| vectors[r][i]).collect();
            let image = [2.0 * column[0] + column[1], column[0] + 2.0 * column[1], 5.0 * column[2]];
            assert!((0..3).all(|r| (image[r] - values[i] * column[r]).abs() < 1e-12));
        }
    }
}
