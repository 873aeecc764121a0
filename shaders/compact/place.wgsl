// Brings every position to its place: those that have an index to the front, the others behind, both in their order. One
// thread per position. `scanned` [num_positions + 1] is the prefix sum of the marks, its last word their number,
// `position_from_place` and `place_from_position` [num_positions], `num_present` [1].
#import shared/linear_id

const WG: u32 = 256u;

struct Params { num_positions: u32 }

@group(0) @binding(0) var<storage, read> scanned: array<u32>;
@group(0) @binding(1) var<storage, read_write> position_from_place: array<i32>;
@group(0) @binding(2) var<storage, read_write> place_from_position: array<i32>;
@group(0) @binding(3) var<storage, read_write> num_present: array<i32>;
@group(0) @binding(4) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
    let i = workgroup_index(wid, nwg) * WG + lid;
    if i >= params.num_positions {
        return;
    }
    let total = scanned[params.num_positions];
    let before = scanned[i];
    let is_present = scanned[i + 1u] > before;
    let place = select(total + i - before, before, is_present);
    position_from_place[place] = i32(i);
    place_from_position[i] = i32(place);
    if i == 0u {
        num_present[0] = i32(total);
    }
}
