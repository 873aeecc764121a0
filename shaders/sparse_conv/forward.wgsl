// Sparse convolution as an implicit GEMM: out[v] = sum_k x[src_from_dst[v, k]] . weight[k] (+ bias).
// A workgroup makes a tile of ROWS output rows by COLS output channels, a thread 4 x 4 of it. Kernel
// offsets at which no row of the tile has a neighbour are skipped whole; Morton-ordered voxels make
// that common. A missing neighbour (-1) contributes nothing.
// `x` [num_src, num_in], `weight` [kernel_volume, num_in, num_out], `src_from_dst` [num_dst,
// kernel_volume], `out` [num_dst, num_out].
#import shared/linear_id

const ROWS: u32 = 64u;
const COLS: u32 = 64u;
const DEPTH: u32 = 16u;
const WG: u32 = 256u;

struct Params { num_dst: u32, num_in: u32, num_out: u32, kernel_volume: u32 }

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
var<workgroup> x_tile: array<f32, 1024>;      // [DEPTH, ROWS]
var<workgroup> weight_tile: array<f32, 1024>; // [DEPTH, COLS]

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
    let num_col_tiles = (params.num_out + COLS - 1u) / COLS;
    let tile = workgroup_index(wid, nwg);
    let first_row = (tile / num_col_tiles) * ROWS;
    let first_col = (tile % num_col_tiles) * COLS;
    let thread_row = (lid / 16u) * 4u;
    let thread_col = (lid % 16u) * 4u;
    var acc: array<vec4<f32>, 4>;

    for (var k = 0u; k < params.kernel_volume; k++) {
        if lid < ROWS {
            src[lid] = -1;
            if first_row + lid < params.num_dst {
                src[lid] = src_from_dst[(first_row + lid) * params.kernel_volume + k];
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
            for (var i = lid; i < DEPTH * ROWS; i += WG) {
                // Consecutive threads read consecutive channels of one row.
                let row = i / DEPTH;
                let channel = depth + i % DEPTH;
                var value = 0.0;
                if src[row] >= 0 && channel < params.num_in {
                    value = x[u32(src[row]) * params.num_in + channel];
                }
                x_tile[(i % DEPTH) * ROWS + row] = value;
            }
            for (var i = lid; i < DEPTH * COLS; i += WG) {
                let channel = depth + i / COLS;
                let col = first_col + i % COLS;
                var value = 0.0;
                if channel < params.num_in && col < params.num_out {
                    value = weight[(k * params.num_in + channel) * params.num_out + col];
                }
                weight_tile[i] = value;
            }
            workgroupBarrier();
            for (var d = 0u; d < DEPTH; d++) {
                let w = d * COLS + thread_col;
                let b = vec4<f32>(weight_tile[w], weight_tile[w + 1u], weight_tile[w + 2u], weight_tile[w + 3u]);
                let a = d * ROWS + thread_row;
                acc[0] = fma(vec4<f32>(x_tile[a]), b, acc[0]);
                acc[1] = fma(vec4<f32>(x_tile[a + 1u]), b, acc[1]);
                acc[2] = fma(vec4<f32>(x_tile[a + 2u]), b, acc[2]);
                acc[3] = fma(vec4<f32>(x_tile[a + 3u]), b, acc[3]);
            }
            workgroupBarrier();
        }
    }
    for (var r = 0u; r < 4u; r++) {
        let row = first_row + thread_row + r;
        if row >= params.num_dst {
            break;
        }
        for (var c = 0u; c < 4u; c++) {
            let col = first_col + thread_col + c;
            if col < params.num_out {
                var value = acc[r][c];
#ifdef BIAS
                value += bias[col];
#endif
                out[row * params.num_out + col] = value;
            }
        }
    }
}
