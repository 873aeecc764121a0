// Empties the table. One thread per slot.
#import shared/linear_id
#import shared/hash

const WG: u32 = 256u;

struct Params { capacity: u32 }

@group(0) @binding(0) var<storage, read_write> table: array<u32>;
@group(0) @binding(1) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
    let i = workgroup_index(wid, nwg) * WG + lid;
    if i < params.capacity {
        table[i] = EMPTY;
    }
}
