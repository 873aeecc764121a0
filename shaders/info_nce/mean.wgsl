// Means over the anchors of the loss and of whether it was right, in one workgroup.
// `losses`, `correct` [num_anchors], `loss`, `accuracy` [1].
#import shared/sum_workgroup

struct Params { num_anchors: u32 }

@group(0) @binding(0) var<storage, read> losses: array<f32>;
@group(0) @binding(1) var<storage, read> correct: array<f32>;
@group(0) @binding(2) var<storage, read_write> loss: array<f32>;
@group(0) @binding(3) var<storage, read_write> accuracy: array<f32>;
@group(0) @binding(4) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(@builtin(local_invocation_index) lid: u32) {
    var sum_losses = 0.0;
    var sum_correct = 0.0;
    for (var i = lid; i < params.num_anchors; i += WG) {
        sum_losses += losses[i];
        sum_correct += correct[i];
    }
    let total_losses = sum_workgroup(sum_losses, lid);
    let total_correct = sum_workgroup(sum_correct, lid);
    if lid == 0u {
        loss[0] = total_losses / f32(params.num_anchors);
        accuracy[0] = total_correct / f32(params.num_anchors);
    }
}
