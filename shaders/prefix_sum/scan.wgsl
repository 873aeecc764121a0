// Exclusive prefix sum within every block of BLOCK values, started at the block's own offset: second
// half of a reduce-then-scan prefix sum. One workgroup per block, PER_THREAD consecutive values per
// thread. `scanned` has num_values + 1 words; the last one is the total.
#import shared/linear_id

const WG: u32 = 256u;
const PER_THREAD: u32 = 8u;
const BLOCK: u32 = 2048u;

struct Params { num_values: u32 }

@group(0) @binding(0) var<storage, read> values: array<u32>;
@group(0) @binding(1) var<storage, read> block_offsets: array<u32>;
@group(0) @binding(2) var<storage, read_write> scanned: array<u32>;
@group(0) @binding(3) var<uniform> params: Params;

var<workgroup> partial: array<u32, WG>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
    let block = workgroup_index(wid, nwg);
    let first = block * BLOCK + lid * PER_THREAD;
    var sum = 0u;
    for (var i = 0u; i < PER_THREAD; i++) {
        if first + i < params.num_values {
            sum += values[first + i];
        }
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
    if block * BLOCK >= params.num_values {
        return;
    }
    var running = block_offsets[block] + partial[lid] - sum;
    for (var i = 0u; i < PER_THREAD; i++) {
        if first + i < params.num_values {
            scanned[first + i] = running;
            running += values[first + i];
            if first + i + 1u == params.num_values {
                scanned[params.num_values] = running;
            }
        }
    }
}
