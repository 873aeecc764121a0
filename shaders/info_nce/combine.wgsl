// Gradient by every row: the sum of its pieces, 0 where it has none. One thread per (row, channel), channels
// fastest. `sums` [num_pieces, num_channels], `piece_offsets` [num_rows + 1], `grad` [num_rows, num_channels].
#import shared/linear_id

const WG: u32 = 128u;

struct Params { num_rows: u32, num_channels: u32 }

@group(0) @binding(0) var<storage, read> sums: array<f32>;
@group(0) @binding(1) var<storage, read> piece_offsets: array<u32>;
@group(0) @binding(2) var<storage, read_write> grad: array<f32>;
@group(0) @binding(3) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
    let i = workgroup_index(wid, nwg) * WG + lid;
    if i >= params.num_rows * params.num_channels {
        return;
    }
    let row = i / params.num_channels;
    var sum = 0.0;
    for (var piece = piece_offsets[row]; piece < piece_offsets[row + 1u]; piece++) {
        sum += sums[piece * params.num_channels + i % params.num_channels];
    }
    grad[i] = sum;
}
