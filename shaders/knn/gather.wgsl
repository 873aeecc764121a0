// Codes and positions in sorted order, so that the search reads them in runs. One thread per position.
#import shared/linear_id
#import shared/positions

const WG: u32 = 256u;

struct Params { num_positions: u32 }

@group(0) @binding(0) var<storage, read> positions: array<Scalar>;
@group(0) @binding(1) var<storage, read> codes: array<vec2<u32>>;
@group(0) @binding(2) var<storage, read> position_from_sorted: array<u32>;
@group(0) @binding(3) var<storage, read_write> sorted_codes: array<vec2<u32>>;
@group(0) @binding(4) var<storage, read_write> sorted_positions: array<Scalar>;
@group(0) @binding(5) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
    let i = workgroup_index(wid, nwg) * WG + lid;
    if i >= params.num_positions {
        return;
    }
    let position = position_from_sorted[i];
    sorted_codes[i] = codes[position];
    for (var axis = 0u; axis < 3u; axis++) {
        sorted_positions[3u * i + axis] = positions[3u * position + axis];
    }
}
