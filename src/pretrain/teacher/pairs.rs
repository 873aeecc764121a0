//! Which cells shall look alike, and which not.

use crate::random::SplitMix64;

/// Share of a cell's voxels that must be of one object for the cell to count.
const MIN_SHARE: f32 = 0.75;
/// Up to where a cell is near, and up to where it is another object's for certain, in metres.
pub const NEAR_METRES: f32 = 0.5;
const AROUND_METRES: f32 = 1.0;
/// Draws of a positive before any other cell of the object is taken.
const DRAWS: usize = 8;

/// A cell of the encoder's result.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cell {
    /// The copy of the scan that it is of.
    pub copy: u32,
    /// The object that most of its voxels belong to.
    pub instance: u32,
    /// Their share.
    pub share: f32,
    /// Mean position of its voxels in the scan itself, in metres.
    pub position: [f32; 3],
}

/// Rows of cells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pairs {
    /// `[A]`.
    pub anchors: Vec<i32>,
    /// `[A]`, each of its anchor's object.
    pub positives: Vec<i32>,
    /// `[A, M]`, each of another object: the near ones first.
    pub negatives: Vec<i32>,
}

/// The object with most entries among those of each cell, and its share: `cell_from_entry [N]`, `instances [N]`. The lower
/// number of two with equally many; a cell without entries has a share of 0.
pub fn majority(cell_from_entry: &[i32], instances: impl Iterator<Item = u32>, num_cells: usize) -> Vec<(u32, f32)> {
    let mut entries: Vec<(i32, u32)> = cell_from_entry.iter().copied().zip(instances).collect();
    entries.sort_unstable();
    let mut found = vec![(0, 0.0); num_cells];
    for of_cell in entries.chunk_by(|a, b| a.0 == b.0) {
        let largest = of_cell.chunk_by(|a, b| a.1 == b.1).rev().max_by_key(|of_instance| of_instance.len());
        if let (Some(largest), Ok(cell)) = (largest, usize::try_from(of_cell[0].0)) {
            found[cell] = (largest[0].1, largest.len() as f32 / of_cell.len() as f32);
        }
    }
    found
}

/// Draws `num_anchors` anchors with a positive and `num_negatives` negatives each, see
/// [`TeacherTask`](super::TeacherTask) for how; `spans_room` tells of each object whether it goes around the room. `None`
/// where there are no two cells of an object besides one of another.
#[must_use]
pub fn draw_pairs(
    cells: &[Cell],
    spans_room: &[bool],
    [num_anchors, num_negatives]: [usize; 2],
    random: &mut SplitMix64,
) -> Option<Pairs> {
    let usable: Vec<i32> = (0..cells.len() as i32).filter(|&i| cells[i as usize].share >= MIN_SHARE).collect();
    let cell = |row: i32| &cells[row as usize];
    let mut members = vec![Vec::new(); spans_room.len()];
    usable.iter().for_each(|&row| members[cell(row).instance as usize].push(row));
    let is_alone = members.iter().filter(|rows| !rows.is_empty()).count() < 2;
    // Large objects are seen more often, but less than in proportion to their surface.
    let weight = |rows: &Vec<i32>| if rows.len() < 2 { 0.0 } else { (rows.len() as f64).sqrt() };
    let total: f64 = members.iter().map(weight).sum();
    if is_alone || total == 0.0 {
        return None;
    }
    let mut pairs = Pairs { anchors: Vec::new(), positives: Vec::new(), negatives: Vec::new() };
    let (mut near, mut others, mut any) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..num_anchors {
        let mut left = random.unit() * total;
        let chosen = members.iter().filter(|rows| rows.len() > 1).find(|rows| {
            left -= weight(rows);
            left < 0.0
        });
        // Rounding may leave nothing for the last.
        let Some(rows) = chosen.or_else(|| members.iter().rfind(|rows| rows.len() > 1)) else { continue };
        let at = random.below(rows.len());
        let anchor = rows[at];
        let own = cell(anchor);
        let wants_other_copy = random.below(2) == 1;
        let mut positive = rows[(at + 1 + random.below(rows.len() - 1)) % rows.len()];
        for _ in 0..DRAWS {
            if (cell(positive).copy != own.copy) == wants_other_copy {
                break;
            }
            positive = rows[(at + 1 + random.below(rows.len() - 1)) % rows.len()];
        }
        [&mut near, &mut others, &mut any].into_iter().for_each(Vec::clear);
        for &row in usable.iter().filter(|&&row| cell(row).instance != own.instance) {
            let other = cell(row);
            let sq_dist: f32 = (0..3).map(|axis| (other.position[axis] - own.position[axis]).powi(2)).sum();
            if sq_dist <= NEAR_METRES * NEAR_METRES {
                near.push(row);
            }
            let spans = spans_room[own.instance as usize] || spans_room[other.instance as usize];
            if spans || sq_dist <= AROUND_METRES * AROUND_METRES {
                others.push(row);
            }
            any.push(row);
        }
        let others = if others.is_empty() { &any } else { &others };
        let near = if near.is_empty() { others } else { &near };
        pairs.anchors.push(anchor);
        pairs.positives.push(positive);
        for i in 0..num_negatives {
            let of = if i < num_negatives / 2 { near } else { others };
            pairs.negatives.push(of[random.below(of.len())]);
        }
    }
    Some(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(copy: u32, instance: u32, x: f32) -> Cell {
        Cell { copy, instance, share: 1.0, position: [x, 0.0, 0.0] }
    }

    #[test]
    fn the_most_frequent_object_is_a_cells() {
        let found = majority(&[0, 1, 0, 0, 1, 3], [5, 2, 4, 5, 1, 7].into_iter(), 4);
        assert_eq!(found, [(5, 2.0 / 3.0), (1, 0.5), (0, 0.0), (7, 1.0)]);
    }

    #[test]
    fn pairs_are_of_their_objects_and_far_things_are_left_out() {
        // A floor, two things beside each other, one far away, in two copies.
        let mut cells = Vec::new();
        for copy in 0..2 {
            cells.extend((0..40).map(|i| cell(copy, 0, i as f32 * 0.1)));
            cells.extend((0..4).map(|i| cell(copy, 1, 0.1 + i as f32 * 0.05)));
            cells.extend((0..4).map(|i| cell(copy, 2, 0.4 + i as f32 * 0.05)));
            cells.extend((0..4).map(|i| cell(copy, 3, 3.0 + i as f32 * 0.05)));
            cells.push(Cell { share: 0.6, ..cell(copy, 1, 0.2) });
        }
        let spans = [true, false, false, false];
        let draw = |seed| draw_pairs(&cells, &spans, [400, 6], &mut SplitMix64::new(seed)).unwrap();
        let pairs = draw(1);
        assert_eq!(pairs, draw(1));
        assert_ne!(pairs, draw(2));
        let of = |row: i32| &cells[row as usize];
        let (mut across, mut counts) = (0, [0; 4]);
        for (i, (&anchor, &positive)) in pairs.anchors.iter().zip(&pairs.positives).enumerate() {
            let own = of(anchor);
            counts[own.instance as usize] += 1;
            across += usize::from(own.copy != of(positive).copy);
            assert!(anchor != positive && own.instance == of(positive).instance && own.share == 1.0);
            for (k, &negative) in pairs.negatives[i * 6..][..6].iter().enumerate() {
                let other = of(negative);
                let distance = (own.position[0] - other.position[0]).abs();
                assert!(other.instance != own.instance && other.share == 1.0);
                // Every cell here has a near one, but those of the floor beyond all things.
                assert!(k >= 3 || distance <= NEAR_METRES + 1e-6 || own.instance == 0, "{own:?} {other:?}");
                assert!(distance < AROUND_METRES || own.instance == 0 || other.instance == 0, "{own:?} {other:?}");
            }
        }
        assert!((150..250).contains(&across), "{across}");
        // By the root of 80 and 8.
        assert!(counts[0] > counts[1] && counts[0] < 5 * counts[1] && counts[3] > 30, "{counts:?}");
    }

    #[test]
    fn one_object_alone_teaches_nothing() {
        let cells = [cell(0, 0, 0.0), cell(0, 0, 0.1), Cell { share: 0.5, ..cell(0, 1, 0.1) }];
        assert!(draw_pairs(&cells, &[false, false], [4, 4], &mut SplitMix64::new(1)).is_none());
        assert!(draw_pairs(&[], &[false, false], [4, 4], &mut SplitMix64::new(1)).is_none());
    }
}
