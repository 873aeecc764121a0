// One level: next = GELU(depthwise convolution of source), and next * gate joins the sum (the first
// level begins it). A thread per value; zeros outside the image.
// `source`, `next`, `sum` [images, height, width, num_channels], `kernels` [taps of all levels,
// num_channels], `gates` [images, height, width, num_gates].
#import shared/linear_id
#import shared/activation
#import shared/depthwise

const WG: u32 = 128u;

struct Params {
    num_values: u32, height: u32, width: u32, num_channels: u32,
    kernel: u32, first_tap: u32, level: u32, num_gates: u32,
}

@group(0) @binding(0) var<storage, read> source: array<f32>;
@group(0) @binding(1) var<storage, read> kernels: array<f32>;
@group(0) @binding(2) var<storage, read> gates: array<f32>;
@group(0) @binding(3) var<storage, read_write> next: array<f32>;
@group(0) @binding(4) var<storage, read_write> sum: array<f32>;
@group(0) @binding(5) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
    let i = workgroup_index(wid, nwg) * WG + lid;
    if i >= params.num_values {
        return;
    }
    let channel = i % params.num_channels;
    let pixel = i / params.num_channels;
    let value = gelu(depthwise(pixel, channel, params.first_tap));
    next[i] = value;
    var before = 0.0;
    if params.level > 0u {
        before = sum[i];
    }
    sum[i] = before + value * gates[pixel * params.num_gates + params.level];
}
