// Sums of every channel over blocks of rows, the first of two stages: of x, or with CENTERED of
// (x - mean)^2. A workgroup takes CHANNELS channels of one block; the order of the sum is fixed.
// `x` [num_rows, num_channels], `statistics` [2, num_channels] with the mean first, `partial`
// [num_blocks, num_channels].
#import shared/linear_id
#import shared/column_sums

struct Params { num_rows: u32, num_channels: u32 }

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> partial: array<f32>;
#ifdef CENTERED
@group(0) @binding(2) var<storage, read> statistics: array<f32>;
@group(0) @binding(3) var<uniform> params: Params;
#else
@group(0) @binding(2) var<uniform> params: Params;
#endif

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
    let num_tiles = (params.num_channels + CHANNELS - 1u) / CHANNELS;
    let index = workgroup_index(wid, nwg);
    let block = index / num_tiles;
    let channel = index % num_tiles * CHANNELS + lid % CHANNELS;
    let first_row = block * BLOCK_ROWS;
    var sum = 0.0;
    if channel < params.num_channels && first_row < params.num_rows {
        let end = min(first_row + BLOCK_ROWS, params.num_rows);
        for (var row = first_row + lid / CHANNELS; row < end; row += LANES) {
            let value = x[row * params.num_channels + channel];
#ifdef CENTERED
            let d = value - statistics[channel];
            sum += d * d;
#else
            sum += value;
#endif
        }
    }
    let total = sum_lanes(sum, lid);
    if lid < CHANNELS && channel < params.num_channels && first_row < params.num_rows {
        partial[block * params.num_channels + channel] = total;
    }
}
