// Sparse convolution as an implicit GEMM: out[v] = sum_k x[src_from_dst[v, k]] . weight[k] (+ bias).
// A workgroup makes a tile of ROWS output rows by COLS output channels, a thread 8 x 8 of it. Kernel
// offsets at which no row of the tile has a neighbour are skipped whole; Morton-ordered voxels make
// that common. A neighbour that is no voxel, such as -1, contributes nothing.
// With TRANSPOSED, the gradient of `x`: out[u] = sum_k x[src_from_dst[u, k]] . weight[K - 1 - k]^T, for the map
// of a voxel set is its own inverse under reversal of k; `weight` is then [kernel_volume, num_out, num_in].
// `x` [num_src, num_in], `weight` [kernel_volume, num_in, num_out], `src_from_dst` [num_dst,
// kernel_volume], `out` [num_dst, num_out].
#import shared/linear_id
#import shared/gemm_tile

struct Params { num_src: u32, num_dst: u32, num_in: u32, num_out: u32, kernel_volume: u32 }

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> weight: array<f32>;
@group(0) @binding(2) var<storage, read> src_from_dst: array<i32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;
#ifdef BIAS
@group(0) @binding(4) var<storage, read> bias: array<f32>;
@group(0) @binding(5) var<uniform> params: Params;
#else
@group(0) @binding(4) var<uniform> params: Params;
#endif

var<workgroup> src: array<i32, ROWS>;
var<workgroup> any_src: u32;

fn x_at(row: u32, channel: u32) -> f32 {
    let voxel = src[row];
    if voxel < 0 || channel >= params.num_in {
        return 0.0;
    }
    return x[u32(voxel) * params.num_in + channel];
}

fn weight_at(k: u32, channel: u32, col: u32) -> f32 {
    if channel >= params.num_in || col >= params.num_out {
        return 0.0;
    }
#ifdef TRANSPOSED
    return weight[((params.kernel_volume - 1u - k) * params.num_out + col) * params.num_in + channel];
#else
    return weight[(k * params.num_in + channel) * params.num_out + col];
#endif
}

fn store(row: u32, col: u32, sums: vec4<f32>) {
    if row >= params.num_dst {
        return;
    }
    for (var c = 0u; c < 4u; c++) {
        if col + c < params.num_out {
#ifdef BIAS
            out[row * params.num_out + col + c] = sums[c] + bias[col + c];
#else
            out[row * params.num_out + col + c] = sums[c];
#endif
        }
    }
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
    let num_col_tiles = (params.num_out + COLS - 1u) / COLS;
    let tile = workgroup_index(wid, nwg);
    let first_row = (tile / num_col_tiles) * ROWS;
    let first_col = (tile % num_col_tiles) * COLS;
    let thread_row = lid / 8u;
    let thread_col = lid % 8u;

    for (var k = 0u; k < params.kernel_volume; k++) {
        if lid < ROWS {
            src[lid] = -1;
            if first_row + lid < params.num_dst {
                let voxel = src_from_dst[(first_row + lid) * params.kernel_volume + k];
                src[lid] = select(-1, voxel, u32(voxel) < params.num_src);
            }
        }
        workgroupBarrier();
        if lid == 0u {
            any_src = 0u;
            for (var r = 0u; r < ROWS; r++) {
                if src[r] >= 0 {
                    any_src = 1u;
                    break;
                }
            }
        }
        if workgroupUniformLoad(&any_src) == 0u {
            continue;
        }
        for (var depth = 0u; depth < params.num_in; depth += DEPTH) {
            for (var i = lid; i < DEPTH * ROWS / 4u; i += WG) {
                // Consecutive threads read consecutive channels of one row.
                let row = i / DEPTH * 4u;
                let channel = depth + i % DEPTH;
                x_tile[i % DEPTH * (ROWS / 4u) + i / DEPTH] = vec4<f32>(
                    x_at(row, channel), x_at(row + 1u, channel), x_at(row + 2u, channel), x_at(row + 3u, channel));
            }
            for (var i = lid; i < DEPTH * COLS / 4u; i += WG) {
#ifdef TRANSPOSED
                let at = i % DEPTH * (COLS / 4u) + i / DEPTH;
#else
                let at = i;
#endif
                // Consecutive threads read consecutive values of a row of the weight.
                let channel = depth + at / (COLS / 4u);
                let col = first_col + at % (COLS / 4u) * 4u;
                weight_tile[at] = vec4<f32>(weight_at(k, channel, col), weight_at(k, channel, col + 1u),
                                           weight_at(k, channel, col + 2u), weight_at(k, channel, col + 3u));
            }
            workgroupBarrier();
            multiply_tiles(thread_row, thread_col);
            workgroupBarrier();
        }
    }
    let row = first_row + thread_row * 8u;
    let col = first_col + thread_col * 8u;
    for (var r = 0u; r < 8u; r++) {
        store(row + r, col, left[r]);
        store(row + r, col + 4u, right[r]);
    }
}
