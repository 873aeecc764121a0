// Gradients of bias and weight over blocks of rows, the first of two stages: sums of g and of g * x^,
// g the gradient where the ReLU let pass, x^ the normalised input. Layouts as in normalize.wgsl; `y` is the
// result of the forward pass, `partial` [num_blocks, 2, num_channels].
#import shared/linear_id
#import shared/column_sums

struct Params { num_rows: u32, num_channels: u32, epsilon: f32, relu: u32 }

@group(0) @binding(0) var<storage, read> grad: array<f32>;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> y: array<f32>;
@group(0) @binding(3) var<storage, read> statistics: array<f32>;
@group(0) @binding(4) var<storage, read_write> partial: array<f32>;
@group(0) @binding(5) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
    let num_tiles = (params.num_channels + CHANNELS - 1u) / CHANNELS;
    let index = workgroup_index(wid, nwg);
    let block = index / num_tiles;
    let channel = index % num_tiles * CHANNELS + lid % CHANNELS;
    let first_row = block * BLOCK_ROWS;
    var sum = 0.0;
    var sum_normalized = 0.0;
    if channel < params.num_channels && first_row < params.num_rows {
        let end = min(first_row + BLOCK_ROWS, params.num_rows);
        let mean = statistics[channel];
        let inverse = 1.0 / sqrt(statistics[params.num_channels + channel] + params.epsilon);
        for (var row = first_row + lid / CHANNELS; row < end; row += LANES) {
            let i = row * params.num_channels + channel;
            let g = select(grad[i], 0.0, params.relu != 0u && y[i] <= 0.0);
            sum += g;
            sum_normalized += g * ((x[i] - mean) * inverse);
        }
    }
    let total = sum_lanes(sum, lid);
    let total_normalized = sum_lanes(sum_normalized, lid);
    if lid < CHANNELS && channel < params.num_channels && first_row < params.num_rows {
        partial[2u * block * params.num_channels + channel] = total;
        partial[(2u * block + 1u) * params.num_channels + channel] = total_normalized;
    }
}
