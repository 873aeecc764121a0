// Numbers the voxels and links them with their points. One thread per point, in sorted order.
// `num_before` [num_points + 1]: exclusive prefix sum of `is_first`; its last word is num_voxels.
// Out: `voxel_coords` [num_voxels, 4], `offsets` [num_voxels + 1] into the sorted points.
#import shared/linear_id

const WG: u32 = 256u;

struct Params { num_points: u32 }

@group(0) @binding(0) var<storage, read> coords: array<vec4<i32>>;
@group(0) @binding(1) var<storage, read> point_from_sorted: array<u32>;
@group(0) @binding(2) var<storage, read> num_before: array<u32>;
@group(0) @binding(3) var<storage, read_write> voxel_from_point: array<u32>;
@group(0) @binding(4) var<storage, read_write> voxel_coords: array<vec4<i32>>;
@group(0) @binding(5) var<storage, read_write> offsets: array<u32>;
@group(0) @binding(6) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
    let i = workgroup_index(wid, nwg) * WG + lid;
    if i >= params.num_points {
        return;
    }
    let point = point_from_sorted[i];
    let voxel = num_before[i + 1u] - 1u;
    voxel_from_point[point] = voxel;
    if num_before[i + 1u] != num_before[i] {
        voxel_coords[voxel] = coords[point];
        offsets[voxel] = i;
    }
    if i + 1u == params.num_points {
        offsets[voxel + 1u] = params.num_points;
    }
}
