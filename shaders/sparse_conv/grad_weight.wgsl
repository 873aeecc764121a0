// Gradient of a sparse convolution's weight: grad_weight[k] = sum_v x[src_from_dst[v, k]]^T grad_out[v].
// The voxels are cut into slices, each with a sum of its own that sum_slices.wgsl adds up. A workgroup owns one
// tile of ROWS input channels by COLS output channels of one offset and slice, and walks the rows
// `first..first + num_rows` of its slice in order, going on from the sum of the launch before: no atomics, so
// the result does not depend on scheduling.
// Layouts as in forward.wgsl; `grad_out` [num_dst, num_out], `partial` [num_slices, kernel_volume, num_in, num_out].
#import shared/linear_id
#import shared/gemm_tile

struct Params {
    num_src: u32, num_dst: u32, num_in: u32, num_out: u32, kernel_volume: u32,
    num_slices: u32, slice_rows: u32, first: u32, num_rows: u32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> grad_out: array<f32>;
@group(0) @binding(2) var<storage, read> src_from_dst: array<i32>;
@group(0) @binding(3) var<storage, read_write> partial: array<f32>;
@group(0) @binding(4) var<uniform> params: Params;

var<workgroup> src: array<i32, DEPTH>;
var<workgroup> any_src: u32;

fn x_at(voxel: u32, channel: u32) -> f32 {
    if channel >= params.num_in {
        return 0.0;
    }
    return x[voxel * params.num_in + channel];
}

fn grad_at(voxel: u32, channel: u32) -> f32 {
    if channel >= params.num_out {
        return 0.0;
    }
    return grad_out[voxel * params.num_out + channel];
}

fn load(at: u32, row: u32, col: u32) -> vec4<f32> {
    var values = vec4<f32>();
    if row < params.num_in {
        for (var c = 0u; c < 4u; c++) {
            if col + c < params.num_out {
                values[c] = partial[at + row * params.num_out + col + c];
            }
        }
    }
    return values;
}

fn store(at: u32, row: u32, col: u32, sums: vec4<f32>) {
    if row >= params.num_in {
        return;
    }
    for (var c = 0u; c < 4u; c++) {
        if col + c < params.num_out {
            partial[at + row * params.num_out + col + c] = sums[c];
        }
    }
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
    let num_col_tiles = (params.num_out + COLS - 1u) / COLS;
    let num_tiles = (params.num_in + ROWS - 1u) / ROWS * num_col_tiles;
    let index = workgroup_index(wid, nwg);
    let tile = index % num_tiles;
    let matrix = index / num_tiles;
    let k = matrix % params.kernel_volume;
    let slice = matrix / params.kernel_volume;
    let inside = slice < params.num_slices;
    let first_row = tile / num_col_tiles * ROWS;
    let first_col = tile % num_col_tiles * COLS;
    let thread_row = lid / 8u;
    let thread_col = lid % 8u;
    let at = matrix * params.num_in * params.num_out;
    let row = first_row + thread_row * 8u;
    let col = first_col + thread_col * 8u;
    if inside && params.first > 0u {
        for (var r = 0u; r < 8u; r++) {
            left[r] = load(at, row + r, col);
            right[r] = load(at, row + r, col + 4u);
        }
    }

    let slice_end = min((slice + 1u) * params.slice_rows, params.num_dst);
    let begin = slice * params.slice_rows + params.first;
    let end = select(0u, min(begin + params.num_rows, slice_end), inside);
    for (var first = begin; first < end; first += DEPTH) {
        if lid < DEPTH {
            src[lid] = -1;
            if first + lid < end {
                let voxel = src_from_dst[(first + lid) * params.kernel_volume + k];
                src[lid] = select(-1, voxel, u32(voxel) < params.num_src);
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
        for (var i = lid; i < DEPTH * ROWS / 4u; i += WG) {
            let d = i / (ROWS / 4u);
            let channel = first_row + i % (ROWS / 4u) * 4u;
            var values = vec4<f32>();
            if src[d] >= 0 {
                let voxel = u32(src[d]);
                values = vec4<f32>(x_at(voxel, channel), x_at(voxel, channel + 1u), x_at(voxel, channel + 2u),
                                   x_at(voxel, channel + 3u));
            }
            x_tile[i] = values;
        }
        for (var i = lid; i < DEPTH * COLS / 4u; i += WG) {
            let d = i / (COLS / 4u);
            let channel = first_col + i % (COLS / 4u) * 4u;
            var values = vec4<f32>();
            if src[d] >= 0 {
                let voxel = first + d;
                values = vec4<f32>(grad_at(voxel, channel), grad_at(voxel, channel + 1u),
                                   grad_at(voxel, channel + 2u), grad_at(voxel, channel + 3u));
            }
            weight_tile[i] = values;
        }
        workgroupBarrier();
        multiply_tiles(thread_row, thread_col);
        workgroupBarrier();
    }
    if !inside {
        return;
    }
    for (var r = 0u; r < 8u; r++) {
        store(at, row + r, col, left[r]);
        store(at, row + r, col + 4u, right[r]);
    }
}
