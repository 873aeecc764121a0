// out = (sum + global * last gate) / divisor. `sum`, `out` [images, num_pixels, num_channels], `global`
// [images, num_channels], `gates` [images, num_pixels, num_gates].
#import shared/linear_id

const WG: u32 = 128u;

struct Params { num_values: u32, num_pixels: u32, num_channels: u32, num_gates: u32, divisor: f32 }

@group(0) @binding(0) var<storage, read> sum: array<f32>;
@group(0) @binding(1) var<storage, read> global: array<f32>;
@group(0) @binding(2) var<storage, read> gates: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;
@group(0) @binding(4) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
    let i = workgroup_index(wid, nwg) * WG + lid;
    if i >= params.num_values {
        return;
    }
    let pixel = i / params.num_channels;
    let channel = i % params.num_channels;
    let mean = global[pixel / params.num_pixels * params.num_channels + channel];
    out[i] = (sum[i] + mean * gates[pixel * params.num_gates + params.num_gates - 1u]) / params.divisor;
}
