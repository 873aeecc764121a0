// Morton code of every position, on the voxel grid itself (VOXELS) or on a cubic grid of 2^20 cells
// per axis laid over the points. One thread per position. `positions` [num_positions, 3], `codes`
// [num_positions, 2] (low, high).
#import shared/linear_id
#import shared/morton
#import shared/positions

const WG: u32 = 256u;
const CELLS: f32 = 1048575.0;

struct Params { num_positions: u32, origin_x: f32, origin_y: f32, origin_z: f32, cells_per_unit: f32 }

@group(0) @binding(0) var<storage, read> positions: array<Scalar>;
@group(0) @binding(1) var<storage, read_write> codes: array<vec2<u32>>;
@group(0) @binding(2) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
    let i = workgroup_index(wid, nwg) * WG + lid;
    if i >= params.num_positions {
        return;
    }
    let p = Position(positions[3u * i], positions[3u * i + 1u], positions[3u * i + 2u]);
#ifdef VOXELS
    let cell = vec3<u32>(p);
#else
    let origin = vec3<f32>(params.origin_x, params.origin_y, params.origin_z);
    let cell = vec3<u32>(clamp((p - origin) * params.cells_per_unit, vec3<f32>(0.0), vec3<f32>(CELLS)));
#endif
    codes[i] = morton_code(cell);
}
