//! Assignment of least cost.

/// Returns a different column for each row of `costs [rows, columns]`, so that the sum of costs is least.
/// This is the Hungarian algorithm by shortest augmenting paths with potentials (Jonker and Volgenant, "A
/// shortest augmenting path algorithm for dense and sparse linear assignment problems", 1987), in O(rows² ·
/// columns).
///
/// Returns `None` if there are more rows than columns, or if `costs` has another length. A cost that is NaN
/// or infinite counts as very large.
#[must_use]
pub fn assign(costs: &[f32], rows: usize, columns: usize) -> Option<Vec<usize>> {
    const LARGE: f64 = 1e18;
    if rows > columns || costs.len() != rows * columns {
        return None;
    }
    let cost = |row: usize, column: usize| {
        let cost = f64::from(costs[row * columns + column]);
        if cost.is_finite() { cost } else { LARGE }
    };
    // Row 0 and column 0 are the starts of paths, and stand for no real row or column.
    let (mut of_row, mut of_column) = (vec![0.0; rows + 1], vec![0.0; columns + 1]);
    let mut row_from_column = vec![0_usize; columns + 1];
    for row in 1..=rows {
        row_from_column[0] = row;
        let mut column = 0;
        let mut least = vec![f64::INFINITY; columns + 1];
        let mut came_from = vec![0_usize; columns + 1];
        let mut is_done = vec![false; columns + 1];
        while row_from_column[column] != 0 {
            is_done[column] = true;
            let at = row_from_column[column];
            let (mut step, mut next) = (f64::INFINITY, 0);
            for other in 1..=columns {
                if is_done[other] {
                    continue;
                }
                let reduced = cost(at - 1, other - 1) - of_row[at] - of_column[other];
                if reduced < least[other] {
                    least[other] = reduced;
                    came_from[other] = column;
                }
                if least[other] < step {
                    step = least[other];
                    next = other;
                }
            }
            for other in 0..=columns {
                if is_done[other] {
                    of_row[row_from_column[other]] += step;
                    of_column[other] -= step;
                } else {
                    least[other] -= step;
                }
            }
            column = next;
        }
        while column != 0 {
            let before = came_from[column];
            row_from_column[column] = row_from_column[before];
            column = before;
        }
    }
    let mut column_from_row = vec![0; rows];
    for (column, &row) in row_from_column.iter().enumerate().skip(1) {
        if row > 0 {
            column_from_row[row - 1] = column - 1;
        }
    }
    Some(column_from_row)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SplitMix64;

    /// Returns the least cost of all assignments of the rows from `row` on to free columns.
    fn brute_force(costs: &[f32], columns: usize, row: usize, free: &mut Vec<bool>) -> f64 {
        if row * columns == costs.len() {
            return 0.0;
        }
        let mut least = f64::INFINITY;
        for column in 0..columns {
            if std::mem::replace(&mut free[column], false) {
                let rest = brute_force(costs, columns, row + 1, free);
                least = least.min(f64::from(costs[row * columns + column]) + rest);
                free[column] = true;
            }
        }
        least
    }

    #[test]
    fn no_assignment_costs_less() {
        let mut random = SplitMix64::new(11);
        for (rows, columns) in [(1, 1), (1, 5), (3, 3), (4, 6), (6, 7), (7, 7)] {
            for round in 0..40 {
                // Every other round has ties.
                let mut cost = || if round % 2 == 0 { random.below(4) as f32 - 1.0 } else { random.unit() as f32 };
                let costs: Vec<f32> = (0..rows * columns).map(|_| cost()).collect();
                let found = assign(&costs, rows, columns).unwrap();
                let mut seen = found.clone();
                seen.sort_unstable();
                seen.dedup();
                assert_eq!(seen.len(), rows);
                let sum: f64 = found.iter().enumerate().map(|(r, &c)| f64::from(costs[r * columns + c])).sum();
                let least = brute_force(&costs, columns, 0, &mut vec![true; columns]);
                assert!((sum - least).abs() < 1e-6, "{rows} x {columns}: {sum}, not {least}");
            }
        }
    }

    #[test]
    fn what_cannot_be_assigned_is_refused() {
        assert_eq!(assign(&[1.0, 2.0], 2, 1), None);
        assert_eq!(assign(&[1.0], 1, 2), None);
        assert_eq!(assign(&[], 0, 4), Some(Vec::new()));
        assert_eq!(assign(&[f32::NAN, 1.0], 1, 2), Some(vec![1]));
    }
}
