// Gradient of a sparse convolution's weight: grad_weight[k] = sum_v x[src_from_dst[v, k]]^T grad_out[v].
// A workgroup owns one tile of ROWS input channels by COLS output channels of one offset and walks
// all voxels in order: no atomics, so the sum does not depend on scheduling.
// Layouts as in forward.wgsl; `grad_out` [num_dst, num_out], `grad_weight` like `weight`.
#import shared/linear_id

const ROWS: u32 = 64u;
const COLS: u32 = 64u;
const DEPTH: u32 = 16u;
const WG: u32 = 256u;

struct Params { num_dst: u32, num_in: u32, num_out: u32, kernel_volume: u32 }

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> grad_out: array<f32>;
@group(0) @binding(2) var<storage, read> src_from_dst: array<i32>;
@group(0) @binding(3) var<storage, read_write> grad_weight: array<f32>;
@group(0) @binding(4) var<uniform> params: Params;

var<workgroup> src: array<i32, DEPTH>;
var<workgroup> any_src: u32;
var<workgroup> x_tile: array<f32, 1024>;    // [DEPTH voxels, ROWS input channels]
var<workgroup> grad_tile: array<f32, 1024>; // [DEPTH voxels, COLS output channels]

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
    let num_row_tiles = (params.num_in + ROWS - 1u) / ROWS;
    let num_col_tiles = (params.num_out + COLS - 1u) / COLS;
    let tile = workgroup_index(wid, nwg);
    let k = tile / (num_row_tiles * num_col_tiles);
    let first_row = ((tile / num_col_tiles) % num_row_tiles) * ROWS;
    let first_col = (tile % num_col_tiles) * COLS;
    let thread_row = (lid / 16u) * 4u;
    let thread_col = (lid % 16u) * 4u;
    let in_kernel = k < params.kernel_volume;
    var acc: array<vec4<f32>, 4>;

    for (var first = 0u; first < params.num_dst; first += DEPTH) {
        if lid < DEPTH {
            src[lid] = -1;
            if in_kernel && first + lid < params.num_dst {
                src[lid] = src_from_dst[(first + lid) * params.kernel_volume + k];
            }
        }
        workgroupBarrier();
        if lid == 0u {
            any_src = 0u;
            for (var r = 0u; r < DEPTH; r++) {
                if src[r] >= 0 {
                    any_src = 1u;
                    break;
                }
            }
        }
        if workgroupUniformLoad(&any_src) == 0u {
            continue;
        }
        for (var i = lid; i < DEPTH * ROWS; i += WG) {
            let voxel = i / ROWS;
            let channel = first_row + i % ROWS;
            var value = 0.0;
            if src[voxel] >= 0 && channel < params.num_in {
                value = x[u32(src[voxel]) * params.num_in + channel];
            }
            x_tile[i] = value;
        }
        for (var i = lid; i < DEPTH * COLS; i += WG) {
            let voxel = i / COLS;
            let col = first_col + i % COLS;
            var value = 0.0;
            if src[voxel] >= 0 && col < params.num_out {
                value = grad_out[(first + voxel) * params.num_out + col];
            }
            grad_tile[i] = value;
        }
        workgroupBarrier();
        for (var d = 0u; d < DEPTH; d++) {
            let g = d * COLS + thread_col;
            let b = vec4<f32>(grad_tile[g], grad_tile[g + 1u], grad_tile[g + 2u], grad_tile[g + 3u]);
            let a = d * ROWS + thread_row;
            acc[0] = fma(vec4<f32>(x_tile[a]), b, acc[0]);
            acc[1] = fma(vec4<f32>(x_tile[a + 1u]), b, acc[1]);
            acc[2] = fma(vec4<f32>(x_tile[a + 2u]), b, acc[2]);
            acc[3] = fma(vec4<f32>(x_tile[a + 3u]), b, acc[3]);
        }
        workgroupBarrier();
    }
    if !in_kernel {
        return;
    }
    for (var r = 0u; r < 4u; r++) {
        let row = first_row + thread_row + r;
        if row >= params.num_in {
            break;
        }
        for (var c = 0u; c < 4u; c++) {
            let col = first_col + thread_col + c;
            if col < params.num_out {
                grad_weight[(k * params.num_in + row) * params.num_out + col] = acc[r][c];
            }
        }
    }
}
