// 1 for every index that is not none, else 0: what the prefix sum counts. One thread per position.
#import shared/linear_id

const WG: u32 = 256u;

struct Params { num_positions: u32 }

@group(0) @binding(0) var<storage, read> index: array<i32>;
@group(0) @binding(1) var<storage, read_write> marks: array<u32>;
@group(0) @binding(2) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
    let i = workgroup_index(wid, nwg) * WG + lid;
    if i < params.num_positions {
        marks[i] = u32(index[i] >= 0);
    }
}
