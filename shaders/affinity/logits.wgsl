// logits[row, j] = sharpness * dot(embedding[first_row + row], embedding[neighbors[row, j]]). One
// thread per (row, j).
// `embedding` [num_voxels, num_channels], `neighbors` and `logits` [num_rows, k]; a neighbour that is no voxel, such
// as -1, is none.
#import shared/linear_id

const WG: u32 = 128u;

struct Params { num_rows: u32, num_voxels: u32, first_row: u32, k: u32, num_channels: u32, sharpness: f32 }

@group(0) @binding(0) var<storage, read> embedding: array<f32>;
@group(0) @binding(1) var<storage, read> neighbors: array<i32>;
@group(0) @binding(2) var<storage, read_write> logits: array<f32>;
@group(0) @binding(3) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
    let i = workgroup_index(wid, nwg) * WG + lid;
    if i >= params.num_rows * params.k {
        return;
    }
    let n = u32(neighbors[i]);
    if n >= params.num_voxels {
        logits[i] = 0.0;
        return;
    }
    let own = (params.first_row + i / params.k) * params.num_channels;
    let other = n * params.num_channels;
    var sum = 0.0;
    for (var c = 0u; c < params.num_channels; c++) {
        sum = fma(embedding[own + c], embedding[other + c], sum);
    }
    logits[i] = params.sharpness * sum;
}
