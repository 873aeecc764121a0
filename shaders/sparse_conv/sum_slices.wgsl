// The sum over slices of what grad_weight.wgsl made, in ascending order.
// `partial` [num_slices, num_values], `grad_weight` [num_values].
#import shared/linear_id

const WG: u32 = 256u;

struct Params { num_values: u32, num_slices: u32 }

@group(0) @binding(0) var<storage, read> partial: array<f32>;
@group(0) @binding(1) var<storage, read_write> grad_weight: array<f32>;
@group(0) @binding(2) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
    let i = workgroup_index(wid, nwg) * WG + lid;
    if i >= params.num_values {
        return;
    }
    var sum = 0.0;
    for (var slice = 0u; slice < params.num_slices; slice++) {
        sum += partial[slice * params.num_values + i];
    }
    grad_weight[i] = sum;
}
