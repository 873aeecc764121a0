// Moves every index to its place for one digit: last stage of a stable radix sort pass. Ranks inside
// a tile come from per-thread digit counts scanned over (digit, thread), so equal digits keep their
// order. Layouts as in count.wgsl; `offsets` is the exclusive prefix sum of its `counts`.
#import shared/linear_id

const WG: u32 = 64u;
const PER_THREAD: u32 = 8u;
const TILE: u32 = 512u;
const DIGITS: u32 = 16u;

struct Params { num_keys: u32, num_tiles: u32, key_words: u32, word: u32, shift: u32 }

@group(0) @binding(0) var<storage, read> keys: array<u32>;
@group(0) @binding(1) var<storage, read> order: array<u32>;
@group(0) @binding(2) var<storage, read> offsets: array<u32>;
@group(0) @binding(3) var<storage, read_write> next_order: array<u32>;
@group(0) @binding(4) var<uniform> params: Params;

var<workgroup> ranks: array<u32, 1024>; // [DIGITS, WG]
var<workgroup> partial: array<u32, WG>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
    let tile = workgroup_index(wid, nwg);
    for (var d = 0u; d < DIGITS; d++) {
        ranks[d * WG + lid] = 0u;
    }
    var digits: array<u32, PER_THREAD>;
    for (var i = 0u; i < PER_THREAD; i++) {
        let at = tile * TILE + lid * PER_THREAD + i;
        if at < params.num_keys {
            let key = keys[order[at] * params.key_words + params.word];
            digits[i] = (key >> params.shift) & (DIGITS - 1u);
            ranks[digits[i] * WG + lid] += 1u;
        }
    }
    workgroupBarrier();
    // Exclusive scan over all DIGITS * WG counts, DIGITS consecutive ones per thread.
    var sum = 0u;
    for (var i = 0u; i < DIGITS; i++) {
        let count = ranks[lid * DIGITS + i];
        ranks[lid * DIGITS + i] = sum;
        sum += count;
    }
    partial[lid] = sum;
    workgroupBarrier();
    for (var stride = 1u; stride < WG; stride *= 2u) {
        var below = 0u;
        if lid >= stride {
            below = partial[lid - stride];
        }
        workgroupBarrier();
        partial[lid] += below;
        workgroupBarrier();
    }
    for (var i = 0u; i < DIGITS; i++) {
        ranks[lid * DIGITS + i] += partial[lid] - sum;
    }
    workgroupBarrier();
    var digit_starts: array<u32, DIGITS>;
    for (var d = 0u; d < DIGITS; d++) {
        digit_starts[d] = ranks[d * WG];
    }
    workgroupBarrier();
    for (var i = 0u; i < PER_THREAD; i++) {
        let at = tile * TILE + lid * PER_THREAD + i;
        if at < params.num_keys {
            let d = digits[i];
            let rank = ranks[d * WG + lid] - digit_starts[d];
            ranks[d * WG + lid] += 1u;
            next_order[offsets[d * params.num_tiles + tile] + rank] = order[at];
        }
    }
}
