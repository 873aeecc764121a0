//! Choice of the cells whose features should be similar, and of those that should differ.

use crate::random::SplitMix64;

/// Least share of a cell's voxels that must belong to one object for the cell to count.
const MIN_SHARE: f32 = 0.6;
/// Largest distance between cells that are beside each other, in metres.
const BESIDE_METRES: f32 = 0.25;
/// Largest distance between cells that are near each other, in metres.
const NEAR_METRES: f32 = 0.5;
/// Largest distance of other objects whose cells may always be negatives, in metres.
const AROUND_METRES: f32 = 1.0;
/// Least cosine between the normals of two cells that face the same way.
const SAME_WAY: f32 = 0.7;
/// One in this many positives comes from anywhere in the part.
const ANYWHERE: usize = 4;
/// Number of draws before the wanted kind of cell is given up.
const DRAWS: usize = 8;

/// A cell of the encoder's output.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cell {
    /// Copy of the scan that the cell belongs to.
    pub copy: u32,
    /// Object of most of its voxels.
    pub instance: u32,
    /// Share of these voxels.
    pub share: f32,
    /// Mean position of its voxels in the undisturbed scan, in metres.
    pub position: [f32; 3],
    /// Direction that most of it faces in the undisturbed scan; of unit length or zero.
    pub normal: [f32; 3],
}

/// Anchors, positives and negatives, as numbers of cells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pairs {
    /// Anchors, `[A]`.
    pub anchors: Vec<i32>,
    /// Positives, `[A]`: a cell of each anchor's object.
    pub positives: Vec<i32>,
    /// Negatives, `[A, M]`: cells of other objects. Those beside the anchor come first, then those near it,
    /// then the others.
    pub negatives: Vec<i32>,
}

/// Returns for each cell the object with most of its entries, and its share, from `cell_from_entry [N]` and
/// `instances [N]`. If two objects are equal, the lower number wins. A cell without entries has a share of 0.
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

/// Draws `num_anchors` anchors, each with a positive and `num_negatives` negatives;
/// [`SonataTask`](super::SonataTask) describes how. `spans_room` is true for each object that goes around the
/// room. Returns `None` unless there are two cells of one object and one of another.
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
    members.retain(|rows| rows.len() > 1);
    // Large objects are drawn more often, but less than in proportion to their surface.
    let weight = |rows: &Vec<i32>| (rows.len() as f64).sqrt();
    let total: f64 = members.iter().map(weight).sum();
    let largest = members.iter().max_by_key(|rows| rows.len()).filter(|_| !is_alone)?;
    let mut pairs = Pairs { anchors: Vec::new(), positives: Vec::new(), negatives: Vec::new() };
    let mut around = Around::default();
    for _ in 0..num_anchors {
        let is_at_border = random.below(2) == 0;
        let mut draw = || {
            let mut left = random.unit() * total;
            let chosen = members.iter().find(|rows| {
                left -= weight(rows);
                left < 0.0
            });
            // Rounding may leave nothing for the last object.
            let rows = chosen.unwrap_or(largest);
            (rows, random.below(rows.len()))
        };
        let (mut rows, mut at) = draw();
        around.look(cells, &usable, spans_room, rows[at]);
        for _ in 1..DRAWS {
            if !is_at_border || !around.beside.is_empty() {
                break;
            }
            (rows, at) = draw();
            around.look(cells, &usable, spans_room, rows[at]);
        }
        let anchor = rows[at];
        let (is_beside, is_other_copy) = (random.below(ANYWHERE) > 0, random.below(2) == 0);
        let mut draw = || rows[(at + 1 + random.below(rows.len() - 1)) % rows.len()];
        let fits = |row: i32| {
            (cell(row).copy != cell(anchor).copy) == is_other_copy && is_alike(cell(row), cell(anchor), spans_room)
        };
        let mut positive = draw();
        for _ in 1..DRAWS {
            if fits(positive) {
                break;
            }
            positive = draw();
        }
        if (is_beside || !fits(positive)) && !around.own.is_empty() {
            positive = around.own[random.below(around.own.len())];
        }
        let others = if around.others.is_empty() { &around.any } else { &around.others };
        let near = if around.near.is_empty() { others } else { &around.near };
        let beside = if around.beside.is_empty() { near } else { &around.beside };
        pairs.anchors.push(anchor);
        pairs.positives.push(positive);
        for i in 0..num_negatives {
            let of = match 4 * i / num_negatives {
                0 | 1 => beside,
                2 => near,
                _ => others,
            };
            pairs.negatives.push(of[random.below(of.len())]);
        }
    }
    Some(pairs)
}

/// True if two cells of one object should be similar. Cells of an object that goes around the room must face
/// the same way.
fn is_alike(a: &Cell, b: &Cell, spans_room: &[bool]) -> bool {
    let cosine: f32 = a.normal.iter().zip(&b.normal).map(|(x, y)| x * y).sum();
    cosine >= SAME_WAY || !spans_room[a.instance as usize]
}

/// Cells around an anchor.
#[derive(Debug, Default)]
struct Around {
    /// Cells of its own object, beside it.
    own: Vec<i32>,
    /// Cells of other objects beside it.
    beside: Vec<i32>,
    /// Cells of other objects near it.
    near: Vec<i32>,
    /// Cells of other objects that are around it, or that differ from its own wherever they are.
    others: Vec<i32>,
    /// Cells of other objects.
    any: Vec<i32>,
}

impl Around {
    fn look(&mut self, cells: &[Cell], usable: &[i32], spans_room: &[bool], anchor: i32) {
        let Self { own, beside, near, others, any } = self;
        [&mut *own, &mut *beside, &mut *near, &mut *others, &mut *any].into_iter().for_each(Vec::clear);
        let middle = &cells[anchor as usize];
        for &row in usable {
            let cell = &cells[row as usize];
            let sq_dist: f32 = (0..3).map(|axis| (cell.position[axis] - middle.position[axis]).powi(2)).sum();
            let within = |metres: f32| sq_dist <= metres * metres;
            if cell.instance == middle.instance {
                if row != anchor && within(BESIDE_METRES) && is_alike(cell, middle, spans_room) {
                    own.push(row);
                }
                continue;
            }
            if within(BESIDE_METRES) {
                beside.push(row);
            }
            if within(NEAR_METRES) {
                near.push(row);
            }
            if within(AROUND_METRES) || spans_room[middle.instance as usize] || spans_room[cell.instance as usize] {
                others.push(row);
            }
            any.push(row);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(copy: u32, instance: u32, x: f32) -> Cell {
        Cell { copy, instance, share: 1.0, position: [x, 0.0, 0.0], normal: [0.0, 0.0, 1.0] }
    }

    #[test]
    fn the_most_frequent_object_is_a_cells() {
        let found = majority(&[0, 1, 0, 0, 1, 3], [5, 2, 4, 5, 1, 7].into_iter(), 4);
        assert_eq!(found, [(5, 2.0 / 3.0), (1, 0.5), (0, 0.0), (7, 1.0)]);
    }

    #[test]
    fn pairs_are_of_their_objects_and_far_things_are_left_out() {
        // A floor, two objects beside each other, and one far away, in two copies.
        let mut cells = Vec::new();
        for copy in 0..2 {
            cells.extend((0..40).map(|i| cell(copy, 0, i as f32 * 0.1)));
            cells.extend((0..4).map(|i| cell(copy, 1, 0.1 + i as f32 * 0.05)));
            cells.extend((0..4).map(|i| cell(copy, 2, 0.4 + i as f32 * 0.05)));
            cells.extend((0..4).map(|i| cell(copy, 3, 3.0 + i as f32 * 0.05)));
            cells.push(Cell { share: 0.55, ..cell(copy, 1, 0.2) });
        }
        let spans = [true, false, false, false];
        let draw = |seed| draw_pairs(&cells, &spans, [400, 8], &mut SplitMix64::new(seed)).unwrap();
        let pairs = draw(1);
        assert_eq!(pairs, draw(1));
        assert_ne!(pairs, draw(2));
        let of = |row: i32| &cells[row as usize];
        let (mut across, mut beside, mut counts) = (0, 0, [0; 4]);
        for (i, (&anchor, &positive)) in pairs.anchors.iter().zip(&pairs.positives).enumerate() {
            let own = of(anchor);
            let distance = |row: i32| (own.position[0] - of(row).position[0]).abs();
            counts[own.instance as usize] += 1;
            across += usize::from(own.copy != of(positive).copy);
            beside += usize::from(distance(positive) <= BESIDE_METRES);
            assert!(anchor != positive && own.instance == of(positive).instance && own.share == 1.0);
            for (k, &negative) in pairs.negatives[i * 8..][..8].iter().enumerate() {
                let other = of(negative);
                assert!(other.instance != own.instance && other.share == 1.0);
                // Every cell of an object has the floor beside it.
                let most = [BESIDE_METRES, BESIDE_METRES, NEAR_METRES, f32::MAX][k / 2];
                assert!(own.instance == 0 || distance(negative) <= most, "{own:?} {other:?}");
                let is_far = distance(negative) > AROUND_METRES;
                assert!(!is_far || own.instance == 0 || other.instance == 0, "{own:?} {other:?}");
            }
        }
        assert!((150..250).contains(&across) && beside > 330 && beside < 400, "{across} {beside}");
        // In proportion to the root of 80 and 8, except for cells of the floor that should be at a border and
        // are not.
        assert!(counts[0] > counts[1] && counts[0] < 5 * counts[1] && counts[3] > 30, "{counts:?}");
    }

    #[test]
    fn walls_that_face_each_other_are_no_positives() {
        let facing = |copy, x: f32, y| Cell { normal: [0.0, y, 0.0], ..cell(copy, 0, x) };
        let mut cells: Vec<Cell> = (0..40).map(|i| facing(i % 2, i as f32 * 0.05, 1.0)).collect();
        cells.extend((0..40).map(|i| facing(i % 2, i as f32 * 0.05, -1.0)));
        cells.extend((0..4).map(|i| cell(i % 2, 1, i as f32 * 0.05)));
        let pairs = draw_pairs(&cells, &[true, false], [200, 4], &mut SplitMix64::new(1)).unwrap();
        for (&anchor, &positive) in pairs.anchors.iter().zip(&pairs.positives) {
            assert_eq!(cells[anchor as usize].normal, cells[positive as usize].normal);
        }
    }

    #[test]
    fn one_object_alone_teaches_nothing() {
        let cells = [cell(0, 0, 0.0), cell(0, 0, 0.1), Cell { share: 0.5, ..cell(0, 1, 0.1) }];
        assert!(draw_pairs(&cells, &[false, false], [4, 4], &mut SplitMix64::new(1)).is_none());
        assert!(draw_pairs(&[], &[false, false], [4, 4], &mut SplitMix64::new(1)).is_none());
    }
}
