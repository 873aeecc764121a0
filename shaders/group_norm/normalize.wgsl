// Normalises by the statistics of `moments`; then max(., 0) where asked for, and with UPSAMPLED plus
// `coarse` [num_images, height / 2, width / 2, num_channels], its pixels repeated in both directions.
// `x`, `out` [num_images, height, width, num_channels].
#import shared/linear_id

const WG: u32 = 256u;

struct Params { num_values: u32, height: u32, width: u32, num_channels: u32, num_groups: u32, relu: u32 }

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> statistics: array<f32>;
@group(0) @binding(2) var<storage, read> weight: array<f32>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read_write> out: array<f32>;
#ifdef UPSAMPLED
@group(0) @binding(5) var<storage, read> coarse: array<f32>;
@group(0) @binding(6) var<uniform> params: Params;
#else
@group(0) @binding(5) var<uniform> params: Params;
#endif

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
    let i = workgroup_index(wid, nwg) * WG + lid;
    if i >= params.num_values {
        return;
    }
    let channel = i % params.num_channels;
    let pixel = i / params.num_channels;
    let image = pixel / (params.height * params.width);
    let group = image * params.num_groups + channel / (params.num_channels / params.num_groups);
    var value = (x[i] - statistics[2u * group]) * statistics[2u * group + 1u] * weight[channel] + bias[channel];
    if params.relu != 0u {
        value = max(value, 0.0);
    }
#ifdef UPSAMPLED
    let y = pixel / params.width % params.height / 2u;
    let x = pixel % params.width / 2u;
    value += coarse[((image * (params.height / 2u) + y) * (params.width / 2u) + x) * params.num_channels + channel];
#endif
    out[i] = value;
}
