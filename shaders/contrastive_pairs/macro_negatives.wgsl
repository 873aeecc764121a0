// The list of least similar rows without the positive, one thread per (anchor, negative). The list has one
// row more than there are negatives.
// `least_row` [num_anchors, num_negatives + 1], `positive` [num_anchors], `negatives` [num_anchors, num_negatives].
#import shared/linear_id

const WG: u32 = 128u;

struct Params { num_anchors: u32, num_negatives: u32 }

@group(0) @binding(0) var<storage, read> least_row: array<i32>;
@group(0) @binding(1) var<storage, read> positive: array<i32>;
@group(0) @binding(2) var<storage, read_write> negatives: array<i32>;
@group(0) @binding(3) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
    let i = workgroup_index(wid, nwg) * WG + lid;
    if i >= params.num_anchors * params.num_negatives {
        return;
    }
    let anchor = i / params.num_negatives;
    let place = i % params.num_negatives;
    let first = anchor * (params.num_negatives + 1u);
    var from_list = first + place;
    for (var j = 0u; j <= place; j++) {
        if least_row[first + j] == positive[anchor] {
            from_list = first + place + 1u;
        }
    }
    negatives[i] = least_row[from_list];
}
