//! Connected parts of the points of a class. They stand for its objects where nothing else tells them apart.

use std::collections::HashMap;

/// Distance in metres from which on points of a class are of two parts.
pub const APART: f64 = 0.2;

/// Cells per [`APART`]. Cells are linked if some points in them could be nearer than that.
const CELLS: i64 = 4;

type Cell = [i64; 3];

/// Returns the part of every point `[N]`, numbered within its class, -1 for points without a class or a position.
/// `positions [N]` are in metres, `class_of_point [N]` is -1 for none.
///
/// Points of a class in two parts are [`APART`] or more from each other. The opposite isn't exact: points of one part
/// may be linked over up to 1.5 times that distance.
#[must_use]
pub fn parts(positions: &[[f64; 3]], class_of_point: &[i32]) -> Vec<i64> {
    let edge = APART / CELLS as f64;
    let cell_of = |p: &[f64; 3]| p.iter().all(|x| x.is_finite()).then(|| p.map(|x| (x / edge).floor() as i64));
    let mut cells: HashMap<(i32, Cell), usize> = HashMap::new();
    let mut order = Vec::new();
    let points = positions.iter().zip(class_of_point).map(|(p, &class)| {
        let cell = cell_of(p).filter(|_| class >= 0)?;
        Some(*cells.entry((class, cell)).or_insert_with(|| {
            order.push((class, cell));
            order.len() - 1
        }))
    });
    let cell_from_point: Vec<Option<usize>> = points.collect();
    let near = offsets();
    let mut part_of_cell = vec![-1_i64; order.len()];
    let mut num_parts: HashMap<i32, i64> = HashMap::new();
    let mut open = Vec::new();
    for first in 0..order.len() {
        if part_of_cell[first] >= 0 {
            continue;
        }
        let class = order[first].0;
        let count = num_parts.entry(class).or_insert(0);
        let part = *count;
        *count += 1;
        part_of_cell[first] = part;
        open.push(first);
        while let Some(cell) = open.pop() {
            let (_, at) = order[cell];
            for offset in &near {
                let other: Cell = std::array::from_fn(|axis| at[axis].saturating_add(offset[axis]));
                let Some(&other) = cells.get(&(class, other)) else { continue };
                if part_of_cell[other] < 0 {
                    part_of_cell[other] = part;
                    open.push(other);
                }
            }
        }
    }
    cell_from_point.into_iter().map(|cell| cell.map_or(-1, |cell| part_of_cell[cell])).collect()
}

/// Steps to the cells that may hold a point nearer than [`APART`] to one in the cell itself.
fn offsets() -> Vec<Cell> {
    let axis = || -CELLS..=CELLS;
    let all = axis().flat_map(|x| axis().flat_map(move |y| axis().map(move |z| [x, y, z])));
    let gap = |step: i64| (step.abs() - 1).max(0).pow(2);
    all.filter(|step| step.iter().map(|&step| gap(step)).sum::<i64>() < CELLS * CELLS && *step != [0; 3]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A row of points along x, 3 cm apart.
    fn row(from: f64, count: usize) -> impl Iterator<Item = [f64; 3]> {
        (0..count).map(move |i| [from + 0.03 * i as f64, 1.0, -0.4])
    }

    #[test]
    fn parts_are_as_far_apart_as_said() {
        // From 0 to 0.57; from 0.72, 15 cm on; from 1.64, 35 cm on.
        let positions: Vec<[f64; 3]> = row(0.0, 20).chain(row(0.72, 20)).chain(row(1.64, 5)).collect();
        let found = parts(&positions, &[3; 45]);
        assert!(found[..40].iter().all(|part| *part == 0) && found[40..].iter().all(|part| *part == 1), "{found:?}");
    }

    #[test]
    fn classes_are_numbered_apart_and_other_points_left_out() {
        let mut positions: Vec<[f64; 3]> = row(0.0, 6).collect();
        positions[3] = [f64::NAN; 3];
        positions.push([1e300, 0.0, 0.0]);
        assert_eq!(parts(&positions, &[0, 0, 1, 1, -1, 0, 0]), [0, 0, 0, -1, -1, 0, 1]);
        assert!(parts(&[], &[]).is_empty());
    }
}
