// One index map after another: c_from_a[i] = c_from_b[b_from_a[i]], -1 where either is none. One thread per
// value. `c_from_b` [num_b], `b_from_a` and `c_from_a` [num_a].
#import shared/linear_id

const WG: u32 = 256u;

struct Params { num_a: u32, num_b: u32 }

@group(0) @binding(0) var<storage, read> c_from_b: array<i32>;
@group(0) @binding(1) var<storage, read> b_from_a: array<i32>;
@group(0) @binding(2) var<storage, read_write> c_from_a: array<i32>;
@group(0) @binding(3) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
    let i = workgroup_index(wid, nwg) * WG + lid;
    if i >= params.num_a {
        return;
    }
    // A negative index is a large one without its sign.
    let b = u32(b_from_a[i]);
    var c = -1;
    if b < params.num_b {
        c = max(c_from_b[b], -1);
    }
    c_from_a[i] = c;
}
