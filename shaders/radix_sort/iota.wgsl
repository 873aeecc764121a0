// order[i] = i: the order before the first pass.
#import shared/linear_id

const WG: u32 = 256u;

struct Params { num_keys: u32 }

@group(0) @binding(0) var<storage, read_write> order: array<u32>;
@group(0) @binding(1) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
    let i = workgroup_index(wid, nwg) * WG + lid;
    if i < params.num_keys {
        order[i] = i;
    }
}
