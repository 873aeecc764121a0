// Gradient by the row of every anchor: the sum of its targets' rows, each times its coefficient. One thread
// per (anchor, channel), channels fastest.
// `embedding` [num_rows, num_channels], `targets` and `coefficients` [num_anchors, num_targets], `grad`
// [num_anchors, num_channels].
#import shared/linear_id

const WG: u32 = 128u;

struct Params { num_anchors: u32, num_targets: u32, num_channels: u32 }

@group(0) @binding(0) var<storage, read> embedding: array<f32>;
@group(0) @binding(1) var<storage, read> targets: array<u32>;
@group(0) @binding(2) var<storage, read> coefficients: array<f32>;
@group(0) @binding(3) var<storage, read_write> grad: array<f32>;
@group(0) @binding(4) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
    let i = workgroup_index(wid, nwg) * WG + lid;
    if i >= params.num_anchors * params.num_channels {
        return;
    }
    let first = i / params.num_channels * params.num_targets;
    let channel = i % params.num_channels;
    var sum = 0.0;
    for (var j = first; j < first + params.num_targets; j++) {
        sum = fma(coefficients[j], embedding[targets[j] * params.num_channels + channel], sum);
    }
    grad[i] = sum;
}
