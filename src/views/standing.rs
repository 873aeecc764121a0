//! Places to stand in a scan, found by its floors and its free space.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use glam::Vec3;
use rayon::prelude::*;

/// Standing height, in metres.
const EYE_HEIGHT: f32 = 1.5;
/// Share of the headroom below a low ceiling at which the eyes are.
const LOW_CEILING: f32 = 0.65;
/// Smallest and largest headroom of a place to stand, in metres.
const HEADROOM: [f32; 2] = [0.9, 8.0];
/// Smallest distance of a place from everything else, in metres.
const CLEARANCE: f32 = 0.35;
/// Largest distance of a wall that encloses a place, in metres.
const WALL_DISTANCE: f32 = 20.0;
/// Smallest share of horizontal directions that must end at a wall for a place inside a room.
const ENCLOSED: f32 = 0.5;
/// Mean share of such directions from which a room is closed.
const CLOSED: f32 = 0.9;
/// Smallest floor area to stand on, in square metres and as a share of the footprint: within walls, and
/// where walls are missing.
const FLOOR_AREA: f32 = 1.0;
const FLOOR_SHARE: f32 = 0.05;
const OPEN_FLOOR_AREA: f32 = 0.4;
const OPEN_FLOOR_SHARE: f32 = 0.1;
/// Smallest and largest extent in metres of a scan that is a room without walls around it.
const OPEN_EXTENT: [f32; 2] = [1.5, 12.0];
/// Largest distance in metres between the points of a room. In a coarser scan walls are no obstacles.
const COARSE: f32 = 0.2;
/// Largest share of a scan that lies below its floor.
const BELOW_FLOOR: f32 = 0.1;
/// Smallest share of a scan that is above the floor of an upper storey.
const ABOVE_FLOOR: f32 = 0.05;
/// Smallest area of a floor, as a share of the largest level surface.
const FLOOR_OF_LARGEST: f32 = 0.25;
/// Largest difference in metres between heights of one floor. A real one may be tilted by a few degrees.
const UNEVEN: f32 = 0.3;
/// Smallest distance between two storeys, in metres.
const STOREY: f32 = 1.9;
/// Steps back from the edge of the floor, in metres. The camera of a single frame stood there.
const STEPS_BACK: [f32; 4] = [0.6, 1.2, 1.8, 2.4];
/// Largest number of cubes along an axis of the grid.
const MOST_CELLS: usize = 256;
/// Number of horizontal directions that are examined.
const DIRECTIONS: u8 = 32;

/// Sites of a scan, in a frame with z up.
#[derive(Clone, Copy)]
pub(super) struct Surfaces<'a> {
    pub(super) positions: &'a [Vec3],
    /// Normals on either side.
    pub(super) normals: &'a [Vec3],
    pub(super) weights: &'a [f32],
    /// Bounds of nearly all sites.
    pub(super) bounds: [Vec3; 2],
    /// Edge of a cube of the grid, and the distance between the points, at least.
    pub(super) cell: f32,
    pub(super) spacing: f32,
    /// Number of units per metre.
    pub(super) unit: f32,
}

/// Places to stand.
pub(super) struct Standing {
    /// Eyes above a floor.
    pub(super) inside: Vec<Vec3>,
    /// Eyes beyond the edge of the floor, with a free view onto it.
    pub(super) aside: Vec<Vec3>,
    /// True if floor, walls and free space are those of a room.
    pub(super) is_room: bool,
}

impl Standing {
    /// Finds places to stand. Unless `anywhere`, those in a large room are within its walls.
    pub(super) fn find(surfaces: &Surfaces<'_>, anywhere: bool) -> Self {
        let grid = Occupancy::new(surfaces);
        let floors = grid.floors(surfaces);
        let mut inside = grid.eyes(&floors);
        let area = |eyes: &[Vec3]| grid.area_below(eyes) / (grid.unit * grid.unit);
        let footprint = grid.footprint() / (grid.unit * grid.unit);
        let walls: Vec<f32> = inside.par_iter().map(|eye| grid.walls_around(*eye)).collect();
        let within = inside.iter().zip(&walls).filter(|(_, walls)| **walls >= ENCLOSED);
        let enclosed: Vec<Vec3> = within.map(|(eye, _)| *eye).collect();
        let is_fine = surfaces.spacing < COARSE * surfaces.unit;
        let has_walls = is_fine && area(&enclosed) >= FLOOR_AREA.max(FLOOR_SHARE * footprint);
        let size = (surfaces.bounds[1] - surfaces.bounds[0]) / surfaces.unit;
        let is_open_room = is_fine
            && (OPEN_EXTENT[0]..=OPEN_EXTENT[1]).contains(&size.max_element())
            && area(&inside) >= OPEN_FLOOR_AREA.max(OPEN_FLOOR_SHARE * footprint)
            && floors.first().is_some_and(|floor| grid.share_below(surfaces, *floor) <= BELOW_FLOOR);
        if has_walls && !is_open_room && !anywhere {
            inside = enclosed;
        }
        let is_room = has_walls || is_open_room;
        // Beside a closed room, whose windows let look through, nobody stands.
        let is_closed = walls.iter().sum::<f32>() >= CLOSED * walls.len() as f32;
        let aside = if is_closed || !(is_room || anywhere) { Vec::new() } else { grid.aside(&inside) };
        Self { inside, aside, is_room }
    }
}

/// Grid of cubes, which records the occupied ones, and those with a level surface.
struct Occupancy {
    low: Vec3,
    cell: f32,
    unit: f32,
    size: [usize; 3],
    occupied: Vec<bool>,
    level: Vec<bool>,
    /// Number of occupied cubes below each corner of the cubes, along all axes.
    below: Vec<u32>,
}

impl Occupancy {
    fn new(surfaces: &Surfaces<'_>) -> Self {
        let [low, high] = surfaces.bounds;
        let cell = surfaces.cell.max((high - low).max_element() / (MOST_CELLS - 1) as f32);
        // Floor and walls lie in the middle of their cubes, so that their noise does not decide in which.
        let low = low - 0.5 * cell;
        let size = ((high - low) / cell).to_array().map(|cells| (cells as usize).min(MOST_CELLS - 1) + 1);
        let empty = vec![false; size.iter().product()];
        let (occupied, below) = (empty.clone(), Vec::new());
        let mut grid = Self { low, cell, unit: surfaces.unit, size, occupied, level: empty, below };
        for (position, normal) in surfaces.positions.iter().zip(surfaces.normals) {
            if let Some(at) = grid.at(*position) {
                grid.occupied[at] = true;
                grid.level[at] |= normal.z.abs() > 0.9;
            }
        }
        grid.below = grid.counts_below();
        grid
    }

    fn corner(&self, [x, y, z]: [usize; 3]) -> usize {
        (x * (self.size[1] + 1) + y) * (self.size[2] + 1) + z
    }

    fn counts_below(&self) -> Vec<u32> {
        let mut below = vec![0; self.size.iter().map(|cells| cells + 1).product()];
        let mut occupied = self.occupied.iter();
        for x in 0..self.size[0] {
            for y in 0..self.size[1] {
                let mut column = 0;
                for z in 0..self.size[2] {
                    column += u32::from(occupied.next() == Some(&true));
                    let before = |x, y| below[self.corner([x, y, z + 1])];
                    let others = before(x, y + 1) + before(x + 1, y) - before(x, y);
                    below[self.corner([x + 1, y + 1, z + 1])] = others + column;
                }
            }
        }
        below
    }

    /// Returns the index of the cube at a position; `None` outside the grid.
    fn at(&self, position: Vec3) -> Option<usize> {
        let c = (position - self.low) / self.cell;
        if c.min_element() < 0.0 {
            return None;
        }
        let [x, y, z] = c.to_array().map(|c| c as usize);
        (x < self.size[0] && y < self.size[1] && z < self.size[2]).then(|| (x * self.size[1] + y) * self.size[2] + z)
    }

    fn is_occupied(&self, position: Vec3) -> bool {
        self.at(position).is_some_and(|at| self.occupied[at])
    }

    /// Returns a length in whole cubes, bounded by what the largest grid has.
    fn cells(&self, metres: f32) -> usize {
        // A length of exactly so many cubes must not lose one by rounding.
        ((metres * self.unit / self.cell + 1e-3) as usize).min(MOST_CELLS)
    }

    fn columns<'a>(&self, cubes: &'a [bool]) -> impl Iterator<Item = &'a [bool]> {
        cubes.chunks_exact(self.size[2])
    }

    /// Returns the area of all columns with an occupied cube.
    fn footprint(&self) -> f32 {
        self.columns(&self.occupied).filter(|column| column.contains(&true)).count() as f32 * self.cell * self.cell
    }

    /// Returns the area of the columns in which there are `eyes`.
    fn area_below(&self, eyes: &[Vec3]) -> f32 {
        let column = |eye: &Vec3| ((eye.truncate() - self.low.truncate()) / self.cell).as_ivec2();
        let columns: BTreeSet<[i32; 2]> = eyes.iter().map(|eye| column(eye).to_array()).collect();
        columns.len() as f32 * self.cell * self.cell
    }

    /// Returns the heights of the floors, lowest first: layers that are level in many columns, each a storey
    /// above the one before.
    fn floors(&self, surfaces: &Surfaces<'_>) -> Vec<usize> {
        let height = self.size[2];
        let reach = self.cells(UNEVEN).min(height);
        let area: Vec<usize> =
            (0..height).map(|z| self.columns(&self.level).filter(|column| column[z]).count()).collect();
        // A tilted floor takes several layers.
        let wide: Vec<usize> =
            (0..height).map(|z| area[z..(z + 1 + reach).min(height)].iter().sum::<usize>()).collect();
        let largest = wide.iter().copied().max().unwrap_or(0);
        let storey = self.cells(STOREY).max(1);
        let mut floors: Vec<usize> = Vec::new();
        let mut z = 0;
        while z < height {
            if largest > 0 && wide[z] as f32 >= FLOOR_OF_LARGEST * largest as f32 {
                // The layer with most of it. A level surface with nothing above it is a ceiling or a roof.
                let layers = z..(z + 1 + reach).min(height);
                let best = layers.max_by_key(|&z| (area[z], Reverse(z))).unwrap_or(z);
                if floors.is_empty() || 1.0 - self.share_below(surfaces, best + 3 * reach) >= ABOVE_FLOOR {
                    floors.push(best);
                }
                z = best + storey;
            } else {
                z += 1;
            }
        }
        floors
    }

    /// Returns the share of the sites clearly below a floor.
    fn share_below(&self, surfaces: &Surfaces<'_>, floor: usize) -> f32 {
        let below = self.low.z + floor as f32 * self.cell - UNEVEN * self.unit;
        let sites = || surfaces.positions.iter().zip(surfaces.weights);
        let total: f32 = surfaces.weights.iter().sum();
        sites().filter(|(p, _)| p.z < below).map(|(_, weight)| weight).sum::<f32>() / total
    }

    /// Returns places at eye height above the floors. They have headroom, and nothing is near.
    fn eyes(&self, floors: &[usize]) -> Vec<Vec3> {
        let height = self.size[2];
        let uneven = self.cells(UNEVEN).max(1);
        let mut eyes: Vec<Vec3> = Vec::new();
        for (i, column) in self.columns(&self.level).enumerate() {
            let occupied = &self.occupied[i * height..(i + 1) * height];
            let headroom = |ground: usize| {
                // A floor may be two layers thick.
                let head = (ground + 2..height).find(|&z| occupied[z]);
                head.map_or(f32::INFINITY, |head| (head - ground - 1) as f32 * self.cell / self.unit)
            };
            for &floor in floors {
                let near = floor.saturating_sub(uneven)..(floor + uneven + 2).min(height);
                // The ceiling of the storey below may be near, too, but has no headroom.
                let ground = near.filter(|&z| column[z]).find(|&z| headroom(z) >= HEADROOM[0]);
                let Some(ground) = ground.filter(|&z| !(HEADROOM[1]..f32::INFINITY).contains(&headroom(z))) else {
                    continue;
                };
                let above = self.cells(EYE_HEIGHT.min(LOW_CEILING * headroom(ground))).max(1);
                let corner = Vec3::new((i / self.size[1]) as f32, (i % self.size[1]) as f32, (ground + above) as f32);
                let eye = self.low + (corner + 0.5) * self.cell;
                if self.is_clear(eye) {
                    eyes.push(eye);
                }
            }
        }
        eyes
    }

    /// Returns true if nothing is near.
    fn is_clear(&self, eye: Vec3) -> bool {
        let reach = (CLEARANCE * self.unit / self.cell).floor().max(1.0);
        let center = ((eye - self.low) / self.cell).floor();
        let end = |offset: f32| (center + offset).to_array().map(|cells| cells.max(0.0) as usize);
        let (low, high) = (end(-reach), end(reach + 1.0));
        let within = |end: [usize; 3]| [0, 1, 2].map(|axis| end[axis].min(self.size[axis]));
        let ([x0, y0, z0], [x1, y1, z1]) = (within(low), within(high));
        let below = |x, y, z| self.below[self.corner([x, y, z])];
        let upper = |z| below(x1, y1, z) + below(x0, y0, z) - below(x0, y1, z) - below(x1, y0, z);
        upper(z1) == upper(z0)
    }

    /// Returns places a few steps back from `eyes`, where there is no floor but nothing in the way either.
    fn aside(&self, eyes: &[Vec3]) -> Vec<Vec3> {
        let mut aside = Vec::new();
        let apart = self.cells(0.3).max(1);
        for eye in eyes.iter().step_by(apart * apart) {
            for direction in horizontal(DIRECTIONS / 2) {
                for back in STEPS_BACK {
                    let place = *eye + direction * back * self.unit;
                    if !self.is_clear(place) {
                        break;
                    }
                    let foot = place.with_z(self.low.z);
                    let height = |z: usize| Vec3::Z * (z as f32 + 0.5) * self.cell;
                    if !(0..self.size[2]).any(|z| self.is_occupied(foot + height(z))) {
                        aside.push(place);
                    }
                }
            }
        }
        aside
    }

    /// Returns the share of horizontal directions that end at an obstacle.
    fn walls_around(&self, eye: Vec3) -> f32 {
        // Beyond the grid there are none.
        let steps = self.cells(WALL_DISTANCE).min(self.size[0] + self.size[1]);
        // Also a little above and below the horizon, because walls have windows.
        let heights = [0.0, 2.0, -2.0].map(|cells| Vec3::Z * cells * self.cell);
        let blocked = |direction: &Vec3| {
            (1..=steps)
                .map(|step| eye + *direction * (step as f32 * self.cell))
                .any(|p| heights.iter().any(|height| self.is_occupied(p + *height)))
        };
        horizontal(DIRECTIONS).filter(blocked).count() as f32 / f32::from(DIRECTIONS)
    }
}

/// Returns horizontal directions all around.
fn horizontal(turns: u8) -> impl Iterator<Item = Vec3> {
    (0..turns).map(move |turn| {
        let yaw = f32::from(turn) / f32::from(turns) * std::f32::consts::TAU;
        Vec3::new(yaw.cos(), yaw.sin(), 0.0)
    })
}
