//! Level places of a model where things may stand.

use std::collections::BTreeMap;

use glam::{Vec2, Vec3, vec2};

use crate::synth::mesh::{Bounds, Mesh};

/// Side of the cells in which places are looked for, in metres.
const CELL: f32 = 0.02;
/// Most cells along a side.
const MOST_CELLS: usize = 160;
/// Triangles within this height belong to one level, in metres.
const SAME: f32 = 0.012;
/// Space above a place that has to be free, in metres.
const FREE: f32 = 0.14;
/// Least width and depth of a place, in metres.
const LEAST: Vec2 = vec2(0.16, 0.12);
/// Most levels of a model.
const MOST_LEVELS: usize = 12;

/// A level rectangle of a model.
#[derive(Clone, Copy, Debug)]
pub(in crate::synth) struct Level {
    pub min: Vec2,
    pub max: Vec2,
    pub z: f32,
    /// Space above, in metres.
    pub room: f32,
}

/// Cells over a model, seen from above.
struct Grid {
    origin: Vec2,
    cell: Vec2,
    width: usize,
    height: usize,
}

impl Grid {
    fn over(bounds: &Bounds) -> Self {
        let size = bounds.size().truncate();
        let [width, height] = [size.x, size.y].map(|side| ((side / CELL).ceil() as usize).clamp(1, MOST_CELLS));
        Self {
            origin: bounds.min.truncate(),
            cell: vec2(size.x / width as f32, size.y / height as f32).max(Vec2::splat(1e-4)),
            width,
            height,
        }
    }

    /// Calls `visit` with the cells whose middle a triangle covers.
    fn covered(&self, [a, b, c]: [Vec2; 3], mut visit: impl FnMut(usize)) {
        let area = (b - a).perp_dot(c - a);
        if area.abs() < 1e-12 {
            return;
        }
        let (low, high) = (self.place(a.min(b).min(c)), self.place(a.max(b).max(c)));
        for y in low.1..=high.1 {
            for x in low.0..=high.0 {
                let p = self.origin + (vec2(x as f32, y as f32) + 0.5) * self.cell;
                let weights = [(b - p).perp_dot(c - p), (c - p).perp_dot(a - p), (a - p).perp_dot(b - p)];
                if weights.iter().all(|weight| weight * area.signum() >= -1e-9) {
                    visit(y * self.width + x);
                }
            }
        }
    }

    fn place(&self, at: Vec2) -> (usize, usize) {
        let cell = ((at - self.origin) / self.cell).floor().max(Vec2::ZERO);
        ((cell.x as usize).min(self.width - 1), (cell.y as usize).min(self.height - 1))
    }
}

/// Returns the level places of a model, from the highest to the lowest: for each height the largest rectangle that
/// is covered, with nothing right above.
pub(super) fn levels(mesh: &Mesh) -> Vec<Level> {
    let bounds = mesh.bounds();
    let grid = Grid::over(&bounds);
    let corners = |triangle: &[u32; 3]| triangle.map(|corner| mesh.positions[corner as usize]);
    let mut of_height: BTreeMap<i32, Vec<[Vec3; 3]>> = BTreeMap::new();
    for triangle in &mesh.triangles {
        let normal = mesh.area_normal(*triangle);
        if normal.z > 0.97 * normal.length() {
            let [a, b, c] = corners(triangle);
            of_height.entry(-(a.z.max(b.z).max(c.z) / SAME).round() as i32).or_default().push([a, b, c]);
        }
    }
    let points = samples(mesh);
    let mut found = Vec::new();
    for triangles in of_height.values() {
        let area: f32 = triangles.iter().map(|[a, b, c]| 0.5 * (*b - *a).cross(*c - *a).length()).sum();
        if area < LEAST.x * LEAST.y || found.len() >= MOST_LEVELS {
            continue;
        }
        let z = triangles.iter().flatten().map(|p| p.z).fold(f32::NEG_INFINITY, f32::max);
        let mut free = vec![false; grid.width * grid.height];
        for triangle in triangles {
            grid.covered(triangle.map(Vec3::truncate), |cell| free[cell] = true);
        }
        let above = |least: f32, most: f32| points.iter().filter(move |p| p.z > z + least && p.z < z + most);
        for point in above(0.012, FREE) {
            let (x, y) = grid.place(point.truncate());
            free[y * grid.width + x] = false;
        }
        let Some([x0, y0, x1, y1]) = largest(&free, grid.width) else { continue };
        let corner = |x: usize, y: usize| grid.origin + vec2(x as f32, y as f32) * grid.cell;
        let (min, max) = (corner(x0, y0), corner(x1, y1));
        if (max - min).cmplt(LEAST).any() {
            continue;
        }
        let over = |p: &&Vec3| p.truncate().cmpgt(min).all() && p.truncate().cmplt(max).all();
        let room = above(0.012, 3.0).filter(over).map(|p| p.z - z).fold(0.6, f32::min);
        found.push(Level { min, max, z, room });
    }
    found
}

/// Returns points of the whole surface, not much farther apart than cells are wide.
fn samples(mesh: &Mesh) -> Vec<Vec3> {
    let mut points = Vec::new();
    for triangle in &mesh.triangles {
        let [a, b, c] = triangle.map(|corner| mesh.positions[corner as usize]);
        let steps = ((b - a).length().max((c - a).length()).max((c - b).length()) / CELL).ceil().clamp(1.0, 100.0);
        for i in 0..=steps as usize {
            for j in 0..=steps as usize - i {
                points.push(a + (b - a) * (i as f32 / steps) + (c - a) * (j as f32 / steps));
            }
        }
    }
    points
}

/// Returns the largest rectangle of true cells: first column and row, and those after the last.
fn largest(cells: &[bool], width: usize) -> Option<[usize; 4]> {
    let mut heights = vec![0_usize; width];
    let mut best: Option<([usize; 4], usize)> = None;
    for (y, row) in cells.chunks_exact(width).enumerate() {
        for (height, &cell) in heights.iter_mut().zip(row) {
            *height = if cell { *height + 1 } else { 0 };
        }
        for x in 0..width {
            let mut lowest = usize::MAX;
            for (end, &height) in heights.iter().enumerate().skip(x) {
                lowest = lowest.min(height);
                if lowest == 0 {
                    break;
                }
                let area = lowest * (end + 1 - x);
                if best.is_none_or(|(_, most)| area > most) {
                    best = Some(([x, y + 1 - lowest, end + 1, y + 1], area));
                }
            }
        }
    }
    best.map(|(rectangle, _)| rectangle)
}

#[cfg(test)]
mod tests {
    use glam::vec3;

    use super::*;
    use crate::synth::mesh::Builder;

    #[test]
    fn the_largest_rectangle_is_found() {
        let cells: Vec<bool> = "..xx. .xxxx .xxxx x.xx.".bytes().filter(|b| *b != b' ').map(|b| b == b'x').collect();
        assert_eq!(largest(&cells, 5), Some([1, 1, 5, 3]));
        assert_eq!(largest(&[false; 6], 3), None);
    }

    #[test]
    fn shelves_have_levels_and_what_stands_on_a_desk_is_in_the_way() {
        let mut b = Builder::new(1);
        for z in [0.1, 0.5, 0.9] {
            b.cuboid(vec3(-0.4, 0.0, z), vec3(0.4, 0.3, z + 0.02));
        }
        // A box covers the left half of the top.
        b.cuboid(vec3(-0.4, 0.0, 0.92), vec3(0.0, 0.3, 1.2));
        let found = levels(&b.mesh);
        let heights: Vec<f32> = found.iter().map(|level| level.z).collect();
        let is_near = |(found, expected): (&f32, f32)| (found - expected).abs() < 1e-5;
        assert!(heights.len() == 4 && heights.iter().zip([1.2, 0.92, 0.52, 0.12]).all(is_near), "{heights:?}");
        assert!(found[1].min.x > -0.03 && found[1].max.x > 0.37, "{:?}", found[1]);
        assert!((found[2].room - 0.38).abs() < 0.01 && (found[3].room - 0.38).abs() < 0.01, "{found:?}");
    }
}
