// The least similar of every anchor's neighbours, without itself and its positive, ascending by (similarity,
// row); -1 where there are too few. One workgroup per anchor, one thread per neighbour.
// `features` [num_points, num_channels], `norms` [num_points], `anchors`, `positive` [num_anchors], `neighbors`
// [num_anchors, k] with -1 for none, `negatives` [num_anchors, num_negatives].
#import shared/linear_id
#import shared/min_norm
#import shared/sort_workgroup

struct Params { num_anchors: u32, num_channels: u32, k: u32, num_negatives: u32 }

@group(0) @binding(0) var<storage, read> features: array<f32>;
@group(0) @binding(1) var<storage, read> norms: array<f32>;
@group(0) @binding(2) var<storage, read> anchors: array<i32>;
@group(0) @binding(3) var<storage, read> positive: array<i32>;
@group(0) @binding(4) var<storage, read> neighbors: array<i32>;
@group(0) @binding(5) var<storage, read_write> negatives: array<u32>;
@group(0) @binding(6) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
    let anchor = workgroup_index(wid, nwg);
    if anchor >= params.num_anchors {
        return;
    }
    values[lid] = LARGEST;
    indices[lid] = NONE;
    values[WG + lid] = LARGEST;
    indices[WG + lid] = NONE;
    if lid < params.k {
        let neighbor = neighbors[anchor * params.k + lid];
        if neighbor >= 0 && neighbor != anchors[anchor] && neighbor != positive[anchor] {
            let own = u32(anchors[anchor]) * params.num_channels;
            let other = u32(neighbor) * params.num_channels;
            var sum = 0.0;
            for (var c = 0u; c < params.num_channels; c++) {
                sum = fma(features[own + c], features[other + c], sum);
            }
            values[lid] = sum / max(norms[neighbor], MIN_NORM);
            indices[lid] = u32(neighbor);
        }
    }
    sort_workgroup(lid);
    if lid < params.num_negatives {
        negatives[anchor * params.num_negatives + lid] = indices[lid];
    }
}
