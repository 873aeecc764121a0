// Cross entropy of every anchor over its targets, the first of which is the right one: logits are the dot product
// over the temperature. One workgroup per anchor.
// `embedding` [num_rows, num_channels], `anchors` [num_anchors], `targets` and `coefficients` [num_anchors,
// num_targets], `losses` and `correct` [num_anchors]. The coefficients are the derivative of the mean loss by the dot
// products.
#import shared/linear_id
#import shared/sum_workgroup

const SMALLEST: f32 = -3.4028235e38;

struct Params { num_anchors: u32, num_targets: u32, num_channels: u32, temperature: f32 }

@group(0) @binding(0) var<storage, read> embedding: array<f32>;
@group(0) @binding(1) var<storage, read> anchors: array<u32>;
@group(0) @binding(2) var<storage, read> targets: array<u32>;
@group(0) @binding(3) var<storage, read_write> coefficients: array<f32>;
@group(0) @binding(4) var<storage, read_write> losses: array<f32>;
@group(0) @binding(5) var<storage, read_write> correct: array<f32>;
@group(0) @binding(6) var<uniform> params: Params;

var<workgroup> positive_logit: f32;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
    let anchor = workgroup_index(wid, nwg);
    if anchor >= params.num_anchors {
        return;
    }
    let first = anchor * params.num_targets;
    let own = anchors[anchor] * params.num_channels;
    var largest = SMALLEST;
    for (var j = lid; j < params.num_targets; j += WG) {
        let other = targets[first + j] * params.num_channels;
        var dot = 0.0;
        for (var c = 0u; c < params.num_channels; c++) {
            dot = fma(embedding[own + c], embedding[other + c], dot);
        }
        let logit = dot / params.temperature;
        coefficients[first + j] = logit;
        if j == 0u {
            positive_logit = logit;
        } else {
            largest = max(largest, logit);
        }
    }
    partial[lid] = largest;
    workgroupBarrier();
    for (var stride = WG / 2u; stride > 0u; stride /= 2u) {
        if lid < stride {
            partial[lid] = max(partial[lid], partial[lid + stride]);
        }
        workgroupBarrier();
    }
    let largest_negative = partial[0];
    let positive = positive_logit;
    workgroupBarrier();
    largest = max(largest_negative, positive);
    var sum = 0.0;
    for (var j = lid; j < params.num_targets; j += WG) {
        let weight = exp(coefficients[first + j] - largest);
        coefficients[first + j] = weight;
        sum += select(weight, 0.0, j == 0u);
    }
    let negatives = sum_workgroup(sum, lid);
    let total = negatives + exp(positive - largest);
    let scale = 1.0 / (total * f32(params.num_anchors) * params.temperature);
    for (var j = lid; j < params.num_targets; j += WG) {
        // For the positive p - 1, as the sum of the others: without cancellation.
        coefficients[first + j] = scale * select(coefficients[first + j], -negatives, j == 0u);
    }
    if lid == 0u {
        losses[anchor] = log(total) + largest - positive;
        correct[anchor] = select(0.0, 1.0, positive > largest_negative);
    }
}
