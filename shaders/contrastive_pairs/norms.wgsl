// Euclidean length of every row of `features` [num_rows, num_channels], one workgroup each.
#import shared/linear_id
#import shared/sum_workgroup

struct Params { num_rows: u32, num_channels: u32 }

@group(0) @binding(0) var<storage, read> features: array<f32>;
@group(0) @binding(1) var<storage, read_write> norms: array<f32>;
@group(0) @binding(2) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
    let row = workgroup_index(wid, nwg);
    let inside = row < params.num_rows;
    var squares = 0.0;
    if inside {
        for (var c = lid; c < params.num_channels; c += WG) {
            let value = features[row * params.num_channels + c];
            squares += value * value;
        }
    }
    let total = sum_workgroup(squares, lid);
    if inside && lid == 0u {
        norms[row] = sqrt(total);
    }
}
