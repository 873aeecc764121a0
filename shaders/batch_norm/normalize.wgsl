// (x - mean) / sqrt(variance + epsilon) * weight + bias, with ADD plus `residual`, then max(., 0) where
// asked for. `x`, `residual`, `out` [num_rows, num_channels], `statistics` [2, num_channels]: mean, variance.
#import shared/linear_id

const WG: u32 = 256u;

struct Params { num_values: u32, num_channels: u32, epsilon: f32, relu: u32 }

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> statistics: array<f32>;
@group(0) @binding(2) var<storage, read> weight: array<f32>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read_write> out: array<f32>;
#ifdef ADD
@group(0) @binding(5) var<storage, read> residual: array<f32>;
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
    let scale = weight[channel] / sqrt(statistics[params.num_channels + channel] + params.epsilon);
    var value = (x[i] - statistics[channel]) * scale + bias[channel];
#ifdef ADD
    value += residual[i];
#endif
    // Not max, which may lose a NaN: a run that has diverged shows it.
    if params.relu != 0u && value < 0.0 {
        value = 0.0;
    }
    out[i] = value;
}
