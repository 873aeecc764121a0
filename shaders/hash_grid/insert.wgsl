// Puts every voxel into the table by linear probing. Equal coordinates share a slot and the lowest
// index wins, so lookups do not depend on the order of insertion. One thread per voxel.
#import shared/linear_id
#import shared/hash

const WG: u32 = 256u;

struct Params { num_voxels: u32, mask: u32 }

@group(0) @binding(0) var<storage, read> coords: array<vec4<i32>>;
@group(0) @binding(1) var<storage, read_write> table: array<atomic<u32>>;
@group(0) @binding(2) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
    let i = workgroup_index(wid, nwg) * WG + lid;
    if i >= params.num_voxels {
        return;
    }
    let c = coords[i];
    var slot = hash_slot(c, params.mask);
    loop {
        let claim = atomicCompareExchangeWeak(&table[slot], EMPTY, i);
        if claim.exchanged {
            break;
        }
        // A weak exchange may fail on an empty slot: try the same slot again.
        if claim.old_value != EMPTY {
            if all(coords[claim.old_value] == c) {
                atomicMin(&table[slot], i);
                break;
            }
            slot = (slot + 1u) & params.mask;
        }
    }
}
