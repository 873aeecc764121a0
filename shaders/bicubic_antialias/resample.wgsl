// Weighted sums along one axis: out[o, i, j] = sum_t x[first_outer + o, first[i] + t, j] * weights[i, t].
// `x` [.., num_in, inner], `out` [outer, num_out, inner], `first` [num_out], `weights` [num_out, num_taps].
#import shared/linear_id

const WG: u32 = 128u;

struct Params { num_values: u32, num_in: u32, num_out: u32, inner: u32, num_taps: u32, first_outer: u32 }

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> first: array<i32>;
@group(0) @binding(2) var<storage, read> weights: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;
@group(0) @binding(4) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
    let i = workgroup_index(wid, nwg) * WG + lid;
    if i >= params.num_values {
        return;
    }
    let inner = i % params.inner;
    let position = i / params.inner % params.num_out;
    let outer = params.first_outer + i / params.inner / params.num_out;
    let start = u32(first[position]);
    var sum = 0.0;
    for (var t = 0u; t < params.num_taps; t++) {
        let at = (outer * params.num_in + start + t) * params.inner + inner;
        sum += x[at] * weights[position * params.num_taps + t];
    }
    out[i] = sum;
}
