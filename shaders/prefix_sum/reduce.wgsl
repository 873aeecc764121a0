// Sum of every block of BLOCK values: first half of a reduce-then-scan prefix sum (Blelloch 1990).
// One workgroup per block. `values` holds num_values words, `block_sums` one word per block.
#import shared/linear_id

const WG: u32 = 256u;
const PER_THREAD: u32 = 8u;
const BLOCK: u32 = 2048u;

struct Params { num_values: u32 }

@group(0) @binding(0) var<storage, read> values: array<u32>;
@group(0) @binding(1) var<storage, read_write> block_sums: array<u32>;
@group(0) @binding(2) var<uniform> params: Params;

var<workgroup> partial: array<u32, WG>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
    let block = workgroup_index(wid, nwg);
    var sum = 0u;
    for (var i = 0u; i < PER_THREAD; i++) {
        let at = block * BLOCK + i * WG + lid;
        if at < params.num_values {
            sum += values[at];
        }
    }
    partial[lid] = sum;
    workgroupBarrier();
    for (var stride = WG / 2u; stride > 0u; stride /= 2u) {
        if lid < stride {
            partial[lid] += partial[lid + stride];
        }
        workgroupBarrier();
    }
    if lid == 0u && block * BLOCK < params.num_values {
        block_sums[block] = partial[0];
    }
}
