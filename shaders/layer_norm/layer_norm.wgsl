// Layer norm of every row, one workgroup each: of x, with ADD of x + other; with RESIDUAL the result is
// residual + scale * norm(x). `x`, `out`, `other`, `residual` [num_rows, num_channels], the rest
// [num_channels].
#import shared/linear_id
#import shared/sum_workgroup

struct Params { num_rows: u32, num_channels: u32, epsilon: f32 }

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> weight: array<f32>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;
#ifdef ADD
@group(0) @binding(4) var<storage, read> other: array<f32>;
@group(0) @binding(5) var<uniform> params: Params;
#else
#ifdef RESIDUAL
@group(0) @binding(4) var<storage, read> residual: array<f32>;
@group(0) @binding(5) var<storage, read> scale: array<f32>;
@group(0) @binding(6) var<uniform> params: Params;
#else
@group(0) @binding(4) var<uniform> params: Params;
#endif
#endif

fn value_at(at: u32) -> f32 {
#ifdef ADD
    return x[at] + other[at];
#else
    return x[at];
#endif
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
    let row = workgroup_index(wid, nwg);
    let inside = row < params.num_rows;
    let first = row * params.num_channels;
    var sum = 0.0;
    if inside {
        for (var c = lid; c < params.num_channels; c += WG) {
            sum += value_at(first + c);
        }
    }
    let mean = sum_workgroup(sum, lid) / f32(params.num_channels);
    var squares = 0.0;
    if inside {
        for (var c = lid; c < params.num_channels; c += WG) {
            let d = value_at(first + c) - mean;
            squares += d * d;
        }
    }
    let variance = sum_workgroup(squares, lid) / f32(params.num_channels);
    let inverse = 1.0 / sqrt(variance + params.epsilon);
    if !inside {
        return;
    }
    for (var c = lid; c < params.num_channels; c += WG) {
        let normal = (value_at(first + c) - mean) * inverse * weight[c] + bias[c];
#ifdef RESIDUAL
        out[first + c] = residual[first + c] + scale[c] * normal;
#else
        out[first + c] = normal;
#endif
    }
}
