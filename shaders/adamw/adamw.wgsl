// One step of AdamW on one parameter. All arrays [num_values]; the new values go into buffers of their own.
#import shared/linear_id

const WG: u32 = 256u;

struct Params {
    num_values: u32, keep: f32, one_minus_beta1: f32, beta2: f32, one_minus_beta2: f32,
    step_size: f32, sqrt_correction2: f32, epsilon: f32,
}

@group(0) @binding(0) var<storage, read> param: array<f32>;
@group(0) @binding(1) var<storage, read> grad: array<f32>;
@group(0) @binding(2) var<storage, read> exp_avg: array<f32>;
@group(0) @binding(3) var<storage, read> exp_avg_sq: array<f32>;
@group(0) @binding(4) var<storage, read_write> new_param: array<f32>;
@group(0) @binding(5) var<storage, read_write> new_exp_avg: array<f32>;
@group(0) @binding(6) var<storage, read_write> new_exp_avg_sq: array<f32>;
@group(0) @binding(7) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
    let i = workgroup_index(wid, nwg) * WG + lid;
    if i >= params.num_values {
        return;
    }
    let g = grad[i];
    let m = exp_avg[i] + params.one_minus_beta1 * (g - exp_avg[i]);
    let v = params.beta2 * exp_avg_sq[i] + params.one_minus_beta2 * g * g;
    let denominator = sqrt(v) / params.sqrt_correction2 + params.epsilon;
    new_param[i] = param[i] * params.keep - params.step_size * (m / denominator);
    new_exp_avg[i] = m;
    new_exp_avg_sq[i] = v;
}
