// voxel_from_query[i] = index of the voxel at queries[i], or -1. One thread per query.
#import shared/linear_id
#import shared/hash_lookup

const WG: u32 = 256u;

struct Params { num_queries: u32, mask: u32 }

@group(0) @binding(0) var<storage, read> table: array<u32>;
@group(0) @binding(1) var<storage, read> coords: array<vec4<i32>>;
@group(0) @binding(2) var<storage, read> queries: array<vec4<i32>>;
@group(0) @binding(3) var<storage, read_write> voxel_from_query: array<i32>;
@group(0) @binding(4) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
    let i = workgroup_index(wid, nwg) * WG + lid;
    if i < params.num_queries {
        voxel_from_query[i] = hash_lookup(queries[i], params.mask);
    }
}
