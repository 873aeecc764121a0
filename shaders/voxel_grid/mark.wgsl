// is_first[i] = 1 where the i-th point in sorted order opens a new voxel. One thread per point.
#import shared/linear_id

const WG: u32 = 256u;

struct Params { num_points: u32 }

@group(0) @binding(0) var<storage, read> coords: array<vec4<i32>>;
@group(0) @binding(1) var<storage, read> point_from_sorted: array<u32>;
@group(0) @binding(2) var<storage, read_write> is_first: array<u32>;
@group(0) @binding(3) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
    let i = workgroup_index(wid, nwg) * WG + lid;
    if i >= params.num_points {
        return;
    }
    var first = 1u;
    if i > 0u && all(coords[point_from_sorted[i]] == coords[point_from_sorted[i - 1u]]) {
        first = 0u;
    }
    is_first[i] = first;
}
