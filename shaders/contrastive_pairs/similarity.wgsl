// Similarity of every anchor to a block of rows: their dot product divided by the row's length. The
// anchor's own length is left out, since it changes no order within a row of the result.
// A workgroup makes a tile of ROWS anchors by COLS rows, a thread 8 x 8 of it. Every sum runs over the channels
// in order, so equal rows have equal similarities.
// `features` [num_points, num_channels], `norms` [num_points], `anchors` [num_anchors], `similarities`
// [num_anchors, num_columns], column c being the row first_row + c.
#import shared/linear_id
#import shared/gemm_tile
#import shared/min_norm

struct Params { num_anchors: u32, num_channels: u32, first_row: u32, num_columns: u32 }

@group(0) @binding(0) var<storage, read> features: array<f32>;
@group(0) @binding(1) var<storage, read> norms: array<f32>;
@group(0) @binding(2) var<storage, read> anchors: array<u32>;
@group(0) @binding(3) var<storage, read_write> similarities: array<f32>;
@group(0) @binding(4) var<uniform> params: Params;

fn anchor_at(anchor: u32, channel: u32) -> f32 {
    if anchor >= params.num_anchors || channel >= params.num_channels {
        return 0.0;
    }
    return features[anchors[anchor] * params.num_channels + channel];
}

fn row_at(column: u32, channel: u32) -> f32 {
    if column >= params.num_columns || channel >= params.num_channels {
        return 0.0;
    }
    return features[(params.first_row + column) * params.num_channels + channel];
}

fn store(anchor: u32, column: u32, sums: vec4<f32>) {
    if anchor >= params.num_anchors {
        return;
    }
    for (var c = 0u; c < 4u; c++) {
        if column + c < params.num_columns {
            let norm = max(norms[params.first_row + column + c], MIN_NORM);
            similarities[anchor * params.num_columns + column + c] = sums[c] / norm;
        }
    }
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
    let num_column_tiles = (params.num_columns + COLS - 1u) / COLS;
    let tile = workgroup_index(wid, nwg);
    let first_anchor = (tile / num_column_tiles) * ROWS;
    let first_column = (tile % num_column_tiles) * COLS;
    for (var depth = 0u; depth < params.num_channels; depth += DEPTH) {
        for (var i = lid; i < DEPTH * ROWS / 4u; i += WG) {
            // Consecutive threads read consecutive channels of one row.
            let anchor = first_anchor + i / DEPTH * 4u;
            let column = first_column + i / DEPTH * 4u;
            let channel = depth + i % DEPTH;
            let at = i % DEPTH * (ROWS / 4u) + i / DEPTH;
            x_tile[at] = vec4<f32>(anchor_at(anchor, channel), anchor_at(anchor + 1u, channel),
                                   anchor_at(anchor + 2u, channel), anchor_at(anchor + 3u, channel));
            weight_tile[at] = vec4<f32>(row_at(column, channel), row_at(column + 1u, channel),
                                        row_at(column + 2u, channel), row_at(column + 3u, channel));
        }
        workgroupBarrier();
        multiply_tiles(lid / 8u, lid % 8u);
        workgroupBarrier();
    }
    let anchor = first_anchor + lid / 8u * 8u;
    let column = first_column + lid % 8u * 8u;
    for (var r = 0u; r < 8u; r++) {
        store(anchor + r, column, left[r]);
        store(anchor + r, column + 4u, right[r]);
    }
}
