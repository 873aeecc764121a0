// Digit histogram per tile: first stage of a stable least-significant-digit radix sort of indices by
// keys of several words. Keys stay where they are; only the order moves between passes. One
// workgroup per tile of TILE elements, PER_THREAD consecutive ones per thread.
// `keys` [num_keys, key_words]; `order` [num_keys] from the previous pass; `counts` [DIGITS, num_tiles].
#import shared/linear_id

const WG: u32 = 64u;
const PER_THREAD: u32 = 8u;
const TILE: u32 = 512u;
const DIGITS: u32 = 16u;
const DIGIT_BITS: u32 = 4u;

struct Params { num_keys: u32, num_tiles: u32, key_words: u32, word: u32, shift: u32 }

@group(0) @binding(0) var<storage, read> keys: array<u32>;
@group(0) @binding(1) var<storage, read> order: array<u32>;
@group(0) @binding(2) var<storage, read_write> counts: array<u32>;
@group(0) @binding(3) var<uniform> params: Params;

var<workgroup> tile_counts: array<atomic<u32>, DIGITS>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
    let tile = workgroup_index(wid, nwg);
    if lid < DIGITS {
        atomicStore(&tile_counts[lid], 0u);
    }
    workgroupBarrier();
    for (var i = 0u; i < PER_THREAD; i++) {
        let at = tile * TILE + lid * PER_THREAD + i;
        if at < params.num_keys {
            let key = keys[order[at] * params.key_words + params.word];
            atomicAdd(&tile_counts[(key >> params.shift) & (DIGITS - 1u)], 1u);
        }
    }
    workgroupBarrier();
    if lid < DIGITS && tile < params.num_tiles {
        counts[lid * params.num_tiles + tile] = atomicLoad(&tile_counts[lid]);
    }
}
