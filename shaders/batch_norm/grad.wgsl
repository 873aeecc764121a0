// Gradient of the input of a batch norm in training:
// weight / sqrt(variance + epsilon) * (g - mean(g) - x^ * mean(g * x^)), with g and x^ as in grad_sums.wgsl,
// whose totals are `sums` [2, num_channels]. With ADD also g itself, the residual's gradient.
// `factors` [3, num_channels] are mean, variance and weight: one buffer, for WebGPU promises eight bindings.
#import shared/linear_id

const WG: u32 = 256u;

struct Params { num_values: u32, num_channels: u32, num_rows: f32, epsilon: f32, relu: u32 }

@group(0) @binding(0) var<storage, read> grad: array<f32>;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> y: array<f32>;
@group(0) @binding(3) var<storage, read> factors: array<f32>;
@group(0) @binding(4) var<storage, read> sums: array<f32>;
@group(0) @binding(5) var<storage, read_write> grad_x: array<f32>;
#ifdef ADD
@group(0) @binding(6) var<storage, read_write> grad_residual: array<f32>;
@group(0) @binding(7) var<uniform> params: Params;
#else
@group(0) @binding(6) var<uniform> params: Params;
#endif

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
    let i = workgroup_index(wid, nwg) * WG + lid;
    if i >= params.num_values {
        return;
    }
    let channel = i % params.num_channels;
    let inverse = 1.0 / sqrt(factors[params.num_channels + channel] + params.epsilon);
    let normalized = (x[i] - factors[channel]) * inverse;
    let g = select(grad[i], 0.0, params.relu != 0u && y[i] <= 0.0);
    let mean_g = sums[channel] / params.num_rows;
    let mean_product = sums[params.num_channels + channel] / params.num_rows;
    grad_x[i] = factors[2u * params.num_channels + channel] * inverse * (g - mean_g - normalized * mean_product);
#ifdef ADD
    grad_residual[i] = g;
#endif
}
