// Depthwise convolution with bias, channels last, a thread per value. `source`, `out` [images, height,
// width, num_channels], `kernels` [kernel * kernel, num_channels], `bias` [num_channels].
#import shared/linear_id
#import shared/depthwise

const WG: u32 = 128u;

struct Params { num_values: u32, height: u32, width: u32, num_channels: u32, kernel: u32 }

@group(0) @binding(0) var<storage, read> source: array<f32>;
@group(0) @binding(1) var<storage, read> kernels: array<f32>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;
@group(0) @binding(4) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
    let i = workgroup_index(wid, nwg) * WG + lid;
    if i >= params.num_values {
        return;
    }
    let channel = i % params.num_channels;
    out[i] = depthwise(i / params.num_channels, channel, 0u) + bias[channel];
}
