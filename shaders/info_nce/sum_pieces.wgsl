// Sum of the contributions of every piece, in sorted order; one workgroup per piece, one thread per channel. The
// first num_anchors * num_targets contributions are an anchor's row times a coefficient, to a target; the others
// the gradient by an anchor's row, to that row.
// `embedding` [num_rows, num_channels], `anchors` [num_anchors], `coefficients` [num_anchors, num_targets],
// `anchor_grad` [num_anchors, num_channels], `order` [num_anchors * num_targets + num_anchors], `piece_first`
// [num_pieces + 1], `sums` [num_pieces, num_channels].
#import shared/linear_id

const WG: u32 = 128u;

struct Params { num_anchors: u32, num_targets: u32, num_channels: u32, num_pieces: u32 }

@group(0) @binding(0) var<storage, read> embedding: array<f32>;
@group(0) @binding(1) var<storage, read> anchors: array<u32>;
@group(0) @binding(2) var<storage, read> coefficients: array<f32>;
@group(0) @binding(3) var<storage, read> anchor_grad: array<f32>;
@group(0) @binding(4) var<storage, read> order: array<u32>;
@group(0) @binding(5) var<storage, read> piece_first: array<u32>;
@group(0) @binding(6) var<storage, read_write> sums: array<f32>;
@group(0) @binding(7) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
    let piece = workgroup_index(wid, nwg);
    if piece >= params.num_pieces {
        return;
    }
    let first = piece_first[piece];
    let last = piece_first[piece + 1u];
    let num_to_targets = params.num_anchors * params.num_targets;
    for (var c = lid; c < params.num_channels; c += WG) {
        var sum = 0.0;
        for (var i = first; i < last; i++) {
            let entry = order[i];
            if entry < num_to_targets {
                let anchor = anchors[entry / params.num_targets];
                sum = fma(coefficients[entry], embedding[anchor * params.num_channels + c], sum);
            } else {
                sum += anchor_grad[(entry - num_to_targets) * params.num_channels + c];
            }
        }
        sums[piece * params.num_channels + c] = sum;
    }
}
