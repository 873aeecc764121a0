// The second stage of sums over rows: totals[first + c] = scale * sum_b partial[b, c], the blocks in
// ascending order, compensated. `partial` [num_blocks, num_sums].
#import shared/linear_id

const WG: u32 = 64u;

struct Params { num_blocks: u32, num_sums: u32, first: u32, scale: f32 }

@group(0) @binding(0) var<storage, read> partial: array<f32>;
@group(0) @binding(1) var<storage, read_write> totals: array<f32>;
@group(0) @binding(2) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
    let c = workgroup_index(wid, nwg) * WG + lid;
    if c >= params.num_sums {
        return;
    }
    var sum = 0.0;
    var lost = 0.0;
    for (var b = 0u; b < params.num_blocks; b++) {
        let term = partial[b * params.num_sums + c] - lost;
        let next = sum + term;
        lost = (next - sum) - term;
        sum = next;
    }
    totals[params.first + c] = sum * params.scale;
}
