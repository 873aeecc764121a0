// Products of matrices, one for each of a batch: out[b] = X[b] Y[b], where X [num_rows, depth] and Y [depth, num_cols]
// are stored as they are, or transposed: `x_row` and `x_depth` are the steps in memory from one row and from one term
// of X to the next, `y_depth` and `y_col` those of Y.
// A workgroup makes one tile of ROWS x COLS sums of one product, over the terms `first..first + num_terms`, and adds
// them to those of the launch before.
#import shared/linear_id
#import shared/gemm_tile

struct Params {
    num_products: u32, num_rows: u32, depth: u32, num_cols: u32,
    x_row: u32, x_depth: u32, y_depth: u32, y_col: u32,
    first: u32, num_terms: u32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> y: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;
@group(0) @binding(3) var<uniform> params: Params;

fn x_at(base: u32, row: u32, term: u32) -> f32 {
    if row >= params.num_rows || term >= params.depth {
        return 0.0;
    }
    return x[base + row * params.x_row + term * params.x_depth];
}

fn y_at(base: u32, term: u32, col: u32) -> f32 {
    if col >= params.num_cols || term >= params.depth {
        return 0.0;
    }
    return y[base + term * params.y_depth + col * params.y_col];
}

fn store(base: u32, row: u32, col: u32, sums: vec4<f32>) {
    if row >= params.num_rows {
        return;
    }
    for (var c = 0u; c < 4u; c++) {
        if col + c < params.num_cols {
            let at = base + row * params.num_cols + col + c;
            out[at] = select(0.0, out[at], params.first > 0u) + sums[c];
        }
    }
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
    let num_col_tiles = (params.num_cols + COLS - 1u) / COLS;
    let num_tiles = (params.num_rows + ROWS - 1u) / ROWS * num_col_tiles;
    let index = workgroup_index(wid, nwg);
    let product = index / num_tiles;
    let tile = index % num_tiles;
    let first_row = tile / num_col_tiles * ROWS;
    let first_col = tile % num_col_tiles * COLS;
    let x_base = product * params.num_rows * params.depth;
    let y_base = product * params.depth * params.num_cols;
    let end = select(0u, min(params.first + params.num_terms, params.depth), product < params.num_products);
    for (var term = params.first; term < end; term += DEPTH) {
        for (var i = lid; i < DEPTH * ROWS / 4u; i += WG) {
            // Consecutive threads read what is consecutive in memory.
            let by_row = params.x_depth != 1u;
            let d = select(i % DEPTH, i / (ROWS / 4u), by_row);
            let quad = select(i / DEPTH, i % (ROWS / 4u), by_row);
            let row = first_row + quad * 4u;
            x_tile[d * (ROWS / 4u) + quad] = vec4<f32>(
                x_at(x_base, row, term + d), x_at(x_base, row + 1u, term + d),
                x_at(x_base, row + 2u, term + d), x_at(x_base, row + 3u, term + d));
        }
        for (var i = lid; i < DEPTH * COLS / 4u; i += WG) {
            let by_col = params.y_depth != 1u;
            let d = select(i % DEPTH, i / (COLS / 4u), by_col);
            let quad = select(i / DEPTH, i % (COLS / 4u), by_col);
            let col = first_col + quad * 4u;
            weight_tile[d * (COLS / 4u) + quad] = vec4<f32>(
                y_at(y_base, term + d, col), y_at(y_base, term + d, col + 1u),
                y_at(y_base, term + d, col + 2u), y_at(y_base, term + d, col + 3u));
        }
        workgroupBarrier();
        multiply_tiles(lid / 8u, lid % 8u);
        workgroupBarrier();
    }
    if product >= params.num_products {
        return;
    }
    let out_base = product * params.num_rows * params.num_cols;
    let row = first_row + lid / 8u * 8u;
    let col = first_col + lid % 8u * 8u;
    for (var r = 0u; r < 8u; r++) {
        store(out_base, row + r, col, left[r]);
        store(out_base, row + r, col + 4u, right[r]);
    }
}
