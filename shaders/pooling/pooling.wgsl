// One application of the affinity matrix: pooled[row] = sum_j weights[row, j] * x[neighbors[row, j]],
// j ascending. A neighbour that is no voxel, such as -1, is none. A row without any neighbour keeps its own value. One thread per (row, channel),
// channels fastest. `x` [num_voxels, num_channels]; `neighbors`, `weights` [num_rows, k]; `pooled`
// [num_rows, num_channels] for the rows first_row .. first_row + num_rows.
#import shared/linear_id

const WG: u32 = 256u;

struct Params { num_voxels: u32, num_rows: u32, first_row: u32, k: u32, num_channels: u32 }

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> neighbors: array<i32>;
@group(0) @binding(2) var<storage, read> weights: array<f32>;
@group(0) @binding(3) var<storage, read_write> pooled: array<f32>;
@group(0) @binding(4) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
    let i = workgroup_index(wid, nwg) * WG + lid;
    if i >= params.num_rows * params.num_channels {
        return;
    }
    let row = i / params.num_channels;
    let channel = i % params.num_channels;
    var sum = 0.0;
    var any_neighbor = false;
    for (var j = 0u; j < params.k; j++) {
        let n = u32(neighbors[row * params.k + j]);
        if n < params.num_voxels {
            any_neighbor = true;
            sum = fma(weights[row * params.k + j], x[n * params.num_channels + channel], sum);
        }
    }
    if !any_neighbor {
        sum = x[(params.first_row + row) * params.num_channels + channel];
    }
    pooled[i] = sum;
}
