// Softmax of every row over its present neighbours; those that are no voxel, such as -1, weigh 0. One
// workgroup per row, one thread per neighbour. `neighbors`, `logits`, `weights` [num_rows, k].
#import shared/linear_id

const WG: u32 = 128u;

struct Params { num_rows: u32, num_voxels: u32, k: u32 }

@group(0) @binding(0) var<storage, read> neighbors: array<i32>;
@group(0) @binding(1) var<storage, read> logits: array<f32>;
@group(0) @binding(2) var<storage, read_write> weights: array<f32>;
@group(0) @binding(3) var<uniform> params: Params;

var<workgroup> partial: array<f32, WG>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
    let row = workgroup_index(wid, nwg);
    let at = row * params.k + lid;
    let inside = row < params.num_rows && lid < params.k;
    var present = false;
    var logit = -3.4028235e38;
    if inside {
        present = u32(neighbors[at]) < params.num_voxels;
        if present {
            logit = logits[at];
        }
    }
    partial[lid] = logit;
    workgroupBarrier();
    for (var stride = WG / 2u; stride > 0u; stride /= 2u) {
        if lid < stride {
            partial[lid] = max(partial[lid], partial[lid + stride]);
        }
        workgroupBarrier();
    }
    let largest = partial[0];
    workgroupBarrier();
    var weight = 0.0;
    if present {
        weight = exp(logit - largest);
    }
    partial[lid] = weight;
    workgroupBarrier();
    for (var stride = WG / 2u; stride > 0u; stride /= 2u) {
        if lid < stride {
            partial[lid] += partial[lid + stride];
        }
        workgroupBarrier();
    }
    if inside {
        weights[at] = select(0.0, weight / partial[0], present);
    }
}
