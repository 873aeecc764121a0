// fine_from_coarse[w, k] = the cell at place k of the coarse cell w, or -1. k = x + 2 y + 4 z, each the lowest
// bit of the fine cell's coordinate. One thread per coarse cell; its children lie together in the sorted order.
#import shared/linear_id
#import shared/place_in_parent

const WG: u32 = 64u;

struct Params { num_coarse: u32, num_fine: u32 }

@group(0) @binding(0) var<storage, read> coords: array<vec4<i32>>;
@group(0) @binding(1) var<storage, read> fine_from_sorted: array<u32>;
@group(0) @binding(2) var<storage, read> offsets: array<u32>;
@group(0) @binding(3) var<storage, read_write> fine_from_coarse: array<i32>;
@group(0) @binding(4) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
    let w = workgroup_index(wid, nwg) * WG + lid;
    if w >= params.num_coarse {
        return;
    }
    for (var k = 0u; k < 8u; k++) {
        fine_from_coarse[8u * w + k] = -1;
    }
    for (var i = offsets[w]; i < offsets[w + 1u]; i++) {
        let v = fine_from_sorted[i];
        if v < params.num_fine {
            fine_from_coarse[8u * w + place_in_parent(coords[v])] = i32(v);
        }
    }
}
