// coarse_from_fine[v, k] = the coarse cell of v where k is the place of v in it, else -1. k = x + 2 y + 4 z, each
// the lowest bit of the fine cell's coordinate. One thread per (v, k), k fastest.
#import shared/linear_id
#import shared/place_in_parent

const WG: u32 = 256u;

struct Params { num_fine: u32 }

@group(0) @binding(0) var<storage, read> coords: array<vec4<i32>>;
@group(0) @binding(1) var<storage, read> parent_from_fine: array<i32>;
@group(0) @binding(2) var<storage, read_write> coarse_from_fine: array<i32>;
@group(0) @binding(3) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
    let i = workgroup_index(wid, nwg) * WG + lid;
    if i >= 8u * params.num_fine {
        return;
    }
    let v = i / 8u;
    coarse_from_fine[i] = select(-1, parent_from_fine[v], place_in_parent(coords[v]) == i % 8u);
}
