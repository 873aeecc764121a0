// One level: next = GELU(depthwise convolution of context), and next * gate joins the sum (the first
// level begins it). A thread per value; zeros outside the image.
// `context`, `next`, `sum` [images, height, width, num_channels], `kernels` [taps of all levels,
// num_channels], `gates` [images, height, width, num_gates].
#import shared/linear_id
#import shared/activation

const WG: u32 = 128u;

struct Params {
    num_values: u32, height: u32, width: u32, num_channels: u32,
    kernel: u32, first_tap: u32, level: u32, num_gates: u32,
}

@group(0) @binding(0) var<storage, read> context: array<f32>;
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
    let x = pixel % params.width;
    let y = pixel / params.width % params.height;
    let reach = params.kernel / 2u;
    // The kernel's rows and columns that lie inside the image.
    let first_row = reach - min(reach, y);
    let last_row = min(params.kernel, params.height + reach - y);
    let first_col = reach - min(reach, x);
    let last_col = min(params.kernel, params.width + reach - x);
    var value = 0.0;
    for (var row = first_row; row < last_row; row++) {
        for (var col = first_col; col < last_col; col++) {
            let src = pixel + row * params.width + col - reach * params.width - reach;
            let tap = params.first_tap + row * params.kernel + col;
            value += context[src * params.num_channels + channel] * kernels[tap * params.num_channels + channel];
        }
    }
    value = gelu(value);
    next[i] = value;
    var before = 0.0;
    if params.level > 0u {
        before = sum[i];
    }
    sum[i] = before + value * gates[pixel * params.num_gates + params.level];
}
