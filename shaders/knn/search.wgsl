// Exact K nearest neighbours by grid search. Sorted by Morton code, the positions of a cell of any
// level (side 2^level) are one run, found by binary search: a grid of every cell size at no memory.
// A query starts at the level whose own cell holds min_in_cell positions, looks through the 3 x 3 x 3
// cells around it, and is done when its K-th distance is below its distance to the border of that
// block; otherwise it goes one level up. One thread per query; K best in a binary heap.
// Order of a row: ascending (squared distance, index). Missing neighbours: -1 and FARTHEST.
// `sorted_codes` [N, 2], `position_from_sorted` [N], `sorted_positions` [N, 3], out [num_queries, k]
// for the positions first_query .. first_query + num_queries in their original numbering, or with BETWEEN for
// the positions `queries` [num_queries, 3], which are not among those searched.
#import shared/linear_id
#import shared/morton
#import shared/positions

const WG: u32 = 64u;
const MAX_K: u32 = 128u;
const MAX_LEVEL: u32 = 21u;

struct Params {
    num_positions: u32, k: u32, include_self: u32, min_in_cell: u32, first_query: u32, num_queries: u32,
    origin_x: f32, origin_y: f32, origin_z: f32, cells_per_unit: f32,
}

@group(0) @binding(0) var<storage, read> sorted_codes: array<vec2<u32>>;
@group(0) @binding(1) var<storage, read> position_from_sorted: array<u32>;
@group(0) @binding(2) var<storage, read> sorted_positions: array<Scalar>;
@group(0) @binding(3) var<storage, read_write> index: array<i32>;
@group(0) @binding(4) var<storage, read_write> sq_dist: array<Scalar>;
#ifdef BETWEEN
@group(0) @binding(5) var<storage, read> queries: array<f32>;
@group(0) @binding(6) var<uniform> params: Params;
#else
@group(0) @binding(5) var<uniform> params: Params;
#endif

var<private> heap_dist: array<Scalar, MAX_K>;
var<private> heap_index: array<u32, MAX_K>;
var<private> heap_len: u32;

// Does (dist_a, index_a) come after (dist_b, index_b)?
fn after(dist_a: Scalar, index_a: u32, dist_b: Scalar, index_b: u32) -> bool {
    return dist_a > dist_b || (dist_a == dist_b && index_a > index_b);
}

// The heap's walks are written out step by step, and candidates come in fours: Mesa's software driver ends
// all loops of an invocation after 65,535 rounds in total, which a walk per candidate would use up.

// The place to which (dist, idx) goes from `at` on its way down: a child's, which moves up, or it stays.
fn down(at: u32, len: u32, dist: Scalar, idx: u32) -> u32 {
    var child = 2u * at + 1u;
    if child >= len {
        return at;
    }
    if child + 1u < len
        && after(heap_dist[child + 1u], heap_index[child + 1u], heap_dist[child], heap_index[child]) {
        child += 1u;
    }
    if !after(heap_dist[child], heap_index[child], dist, idx) {
        return at;
    }
    heap_dist[at] = heap_dist[child];
    heap_index[at] = heap_index[child];
    return child;
}

// Puts (dist, idx) into the root's place of a heap of `len`: at most log2(MAX_K) steps down.
fn replace_root(len: u32, dist: Scalar, idx: u32) {
    var at = down(0u, len, dist, idx);
    at = down(at, len, dist, idx);
    at = down(at, len, dist, idx);
    at = down(at, len, dist, idx);
    at = down(at, len, dist, idx);
    at = down(at, len, dist, idx);
    at = down(at, len, dist, idx);
    heap_dist[at] = dist;
    heap_index[at] = idx;
}

// The place to which (dist, idx) goes from `at` on its way up.
fn up(at: u32, dist: Scalar, idx: u32) -> u32 {
    if at == 0u {
        return at;
    }
    let parent = (at - 1u) / 2u;
    if !after(dist, idx, heap_dist[parent], heap_index[parent]) {
        return at;
    }
    heap_dist[at] = heap_dist[parent];
    heap_index[at] = heap_index[parent];
    return parent;
}

fn offer(dist: Scalar, idx: u32) {
    if heap_len < params.k {
        var at = up(heap_len, dist, idx);
        heap_len += 1u;
        at = up(at, dist, idx);
        at = up(at, dist, idx);
        at = up(at, dist, idx);
        at = up(at, dist, idx);
        at = up(at, dist, idx);
        at = up(at, dist, idx);
        heap_dist[at] = dist;
        heap_index[at] = idx;
    } else if after(heap_dist[0], heap_index[0], dist, idx) {
        replace_root(heap_len, dist, idx);
    }
}

// Offers the sorted position `i`, if it is before `end`.
fn consider(p: Position, query: u32, i: u32, end: u32) {
    if i >= end {
        return;
    }
    let idx = position_from_sorted[i];
    if idx != query || params.include_self == 1u {
        let other = Position(sorted_positions[3u * i], sorted_positions[3u * i + 1u], sorted_positions[3u * i + 2u]);
        offer(sq_distance(p, other), idx);
    }
}

// Number of codes below `code`.
fn lower_bound(code: vec2<u32>) -> u32 {
    var first = 0u;
    var last = params.num_positions;
    while first < last {
        let middle = first + (last - first) / 2u;
        if code_less(sorted_codes[middle], code) {
            first = middle + 1u;
        } else {
            last = middle;
        }
    }
    return first;
}

// Run of sorted positions in a cell of side 2^level.
fn cell_run(cell: vec3<u32>, level: u32) -> vec2<u32> {
    let start = morton_code(cell << vec3<u32>(level));
    var end = start;
    let bit = 3u * level;
    if bit < 32u {
        end.x += 1u << bit;
        if end.x < start.x {
            end.y += 1u;
        }
    } else {
        end.y += 1u << (bit - 32u);
    }
    return vec2<u32>(lower_bound(start), lower_bound(end));
}

fn quantize(p: Position) -> vec3<u32> {
#ifdef VOXELS
    return vec3<u32>(p);
#else
    let origin = vec3<f32>(params.origin_x, params.origin_y, params.origin_z);
    return vec3<u32>(clamp((p - origin) * params.cells_per_unit, vec3<f32>(0.0), vec3<f32>(1048575.0)));
#endif
}

// Is every position outside the block around `cell` farther than the K-th neighbour?
fn is_final(p: Position, cell: vec3<u32>, level: u32) -> bool {
    if heap_len < params.k {
        return false;
    }
    let worst = heap_dist[0];
    let num_cells = 1u << (MAX_LEVEL - level);
    for (var axis = 0u; axis < 3u; axis++) {
#ifdef VOXELS
        let q = u32(p[axis]);
        if cell[axis] > 0u {
            let gap = min(q - ((cell[axis] - 1u) << level) + 1u, MAX_DIFFERENCE);
            if u32(worst) >= min(gap * gap, 0x7fffffffu) { return false; }
        }
        if cell[axis] + 2u < num_cells {
            let gap = min(((cell[axis] + 2u) << level) - q, MAX_DIFFERENCE);
            if u32(worst) >= min(gap * gap, 0x7fffffffu) { return false; }
        }
#else
        // A quarter of a finest cell is more than what f32 can lose in a coordinate below 2^20.
        let t = (p[axis] - vec3<f32>(params.origin_x, params.origin_y, params.origin_z)[axis]) * params.cells_per_unit;
        if cell[axis] > 0u {
            let gap = (t - f32((cell[axis] - 1u) << level) - 0.25) / params.cells_per_unit;
            if !(gap > 0.0 && worst < gap * gap * 0.99999) { return false; }
        }
        if cell[axis] + 2u < num_cells {
            let gap = (f32((cell[axis] + 2u) << level) - t - 0.25) / params.cells_per_unit;
            if !(gap > 0.0 && worst < gap * gap * 0.99999) { return false; }
        }
#endif
    }
    return true;
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
#ifdef BETWEEN
    let query = workgroup_index(wid, nwg) * WG + lid;
    if query >= params.num_queries {
        return;
    }
    let p = Position(queries[3u * query], queries[3u * query + 1u], queries[3u * query + 2u]);
#else
    // Neighbouring threads take neighbouring cells, whatever the numbering of the positions.
    let sorted = workgroup_index(wid, nwg) * WG + lid;
    if sorted >= params.num_positions {
        return;
    }
    let query = position_from_sorted[sorted];
    if query < params.first_query || query >= params.first_query + params.num_queries {
        return;
    }
    let p = Position(sorted_positions[3u * sorted], sorted_positions[3u * sorted + 1u],
                     sorted_positions[3u * sorted + 2u]);
#endif
    let q = quantize(p);

    var level = 0u;
    loop {
        let run = cell_run(q >> vec3<u32>(level), level);
        if run.y - run.x >= params.min_in_cell || level == MAX_LEVEL {
            break;
        }
        level += 1u;
    }
    loop {
        heap_len = 0u;
        var num_seen = 0u;
        let cell = q >> vec3<u32>(level);
        let num_cells = 1u << (MAX_LEVEL - level);
        for (var neighbor = 0u; neighbor < 27u; neighbor++) {
            let offset = vec3<u32>(neighbor % 3u, (neighbor / 3u) % 3u, neighbor / 9u);
            // Unsigned wrap-around sends cells below zero past num_cells as well.
            let at = cell + offset - vec3<u32>(1u);
            if any(at >= vec3<u32>(num_cells)) {
                continue;
            }
            let run = cell_run(at, level);
            num_seen += run.y - run.x;
            for (var i = run.x; i < run.y; i += 4u) {
                consider(p, query, i, run.y);
                consider(p, query, i + 1u, run.y);
                consider(p, query, i + 2u, run.y);
                consider(p, query, i + 3u, run.y);
            }
        }
        if num_seen == params.num_positions || is_final(p, cell, level) {
            break;
        }
        level += 1u;
    }
    // Heap sort in place: the largest goes to the end.
    let found = heap_len;
    for (var len = found; len > 1u; len--) {
        let dist = heap_dist[0];
        let idx = heap_index[0];
        replace_root(len - 1u, heap_dist[len - 1u], heap_index[len - 1u]);
        heap_dist[len - 1u] = dist;
        heap_index[len - 1u] = idx;
    }
    let row = (query - params.first_query) * params.k;
    for (var i = 0u; i < params.k; i++) {
        if i < found {
            index[row + i] = i32(heap_index[i]);
            sq_dist[row + i] = heap_dist[i];
        } else {
            index[row + i] = -1;
            sq_dist[row + i] = FARTHEST;
        }
    }
}
