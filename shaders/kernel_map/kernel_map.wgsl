// src_from_dst[v, k] = voxel at coords[v] + offset(k) in the same batch, or -1, for a cubic kernel of
// odd size. k = (dx + r) + size * (dy + r) + size^2 * (dz + r), x fastest (MinkowskiEngine's order).
// One thread per (v, k), k fastest.
#import shared/linear_id
#import shared/hash_lookup

const WG: u32 = 256u;

struct Params { num_voxels: u32, kernel_size: u32, mask: u32 }

@group(0) @binding(0) var<storage, read> table: array<u32>;
@group(0) @binding(1) var<storage, read> coords: array<vec4<i32>>;
@group(0) @binding(2) var<storage, read_write> src_from_dst: array<i32>;
@group(0) @binding(3) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
    let i = workgroup_index(wid, nwg) * WG + lid;
    let size = params.kernel_size;
    let volume = size * size * size;
    if i >= params.num_voxels * volume {
        return;
    }
    let k = i % volume;
    let radius = i32(size / 2u);
    let offset = vec3<i32>(i32(k % size), i32((k / size) % size), i32(k / (size * size))) - vec3<i32>(radius);
    src_from_dst[i] = hash_lookup(coords[i / volume] + vec4<i32>(0, offset), params.mask);
}
