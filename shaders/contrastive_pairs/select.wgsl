// Takes a block of similarities into the running selection of every anchor: the list_len least similar rows,
// ascending by (similarity, row), and the most similar one, the anchor itself left out. Blocks come in
// ascending order of their rows, so a later row that only equals a kept one never replaces it.
// One workgroup per anchor. Values that may enter the list wait beside it until there is no room for more; then both
// are sorted and the least kept.
// `similarities` [num_anchors, num_columns]; `least`, `least_row` [num_anchors, list_len]; `most`, `most_row`
// [num_anchors]; these four are read unless this is the first block.
#import shared/linear_id
#import shared/sort_workgroup

// Longest list; as many values can wait.
const LIST: u32 = 128u;

struct Params { num_anchors: u32, num_columns: u32, first_row: u32, list_len: u32, first_block: u32 }

@group(0) @binding(0) var<storage, read> similarities: array<f32>;
@group(0) @binding(1) var<storage, read> anchors: array<u32>;
@group(0) @binding(2) var<storage, read_write> least: array<f32>;
@group(0) @binding(3) var<storage, read_write> least_row: array<u32>;
@group(0) @binding(4) var<storage, read_write> most: array<f32>;
@group(0) @binding(5) var<storage, read_write> most_row: array<u32>;
@group(0) @binding(6) var<uniform> params: Params;

var<workgroup> arrivals: atomic<u32>;
var<workgroup> num_arrivals: u32;

// Keeps the least of the list and of the `num_waiting` values beside it.
fn merge(num_waiting: u32, lid: u32) {
    if lid >= num_waiting {
        values[LIST + lid] = LARGEST;
        indices[LIST + lid] = NONE;
    }
    sort_workgroup(lid);
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
    let anchor = workgroup_index(wid, nwg);
    if anchor >= params.num_anchors {
        return;
    }
    let own = anchors[anchor];
    values[lid] = LARGEST;
    indices[lid] = NONE;
    var best = -LARGEST;
    var best_row = NONE;
    if params.first_block == 0u {
        if lid < params.list_len {
            values[lid] = least[anchor * params.list_len + lid];
            indices[lid] = least_row[anchor * params.list_len + lid];
        }
        if lid == 0u {
            best = most[anchor];
            best_row = most_row[anchor];
        }
    }
    workgroupBarrier();
    var threshold = values[params.list_len - 1u];
    var num_waiting = 0u;
    for (var first = 0u; first < params.num_columns; first += WG) {
        let row = params.first_row + first + lid;
        let present = first + lid < params.num_columns && row != own;
        var similarity = LARGEST;
        if present {
            similarity = similarities[anchor * params.num_columns + first + lid];
            if similarity > best {
                best = similarity;
                best_row = row;
            }
        }
        if lid == 0u {
            atomicStore(&arrivals, 0u);
        }
        workgroupBarrier();
        let enters = present && similarity < threshold;
        var slot = 0u;
        if enters {
            slot = atomicAdd(&arrivals, 1u);
        }
        workgroupBarrier();
        if lid == 0u {
            num_arrivals = atomicLoad(&arrivals);
        }
        let num_new = workgroupUniformLoad(&num_arrivals);
        if num_new == 0u {
            continue;
        }
        if num_waiting + num_new > LIST {
            merge(num_waiting, lid);
            num_waiting = 0u;
            threshold = values[params.list_len - 1u];
        }
        // The slot depends on scheduling, the sorted list does not.
        if enters {
            values[LIST + num_waiting + slot] = similarity;
            indices[LIST + num_waiting + slot] = row;
        }
        num_waiting += num_new;
    }
    workgroupBarrier();
    merge(num_waiting, lid);
    if lid < params.list_len {
        least[anchor * params.list_len + lid] = values[lid];
        least_row[anchor * params.list_len + lid] = indices[lid];
    }
    // Negated, the largest comes first, and the lower row before its equals.
    workgroupBarrier();
    values[lid] = -best;
    indices[lid] = best_row;
    for (var stride = WG / 2u; stride > 0u; stride /= 2u) {
        workgroupBarrier();
        if lid < stride && precedes(lid + stride, lid) {
            values[lid] = values[lid + stride];
            indices[lid] = indices[lid + stride];
        }
    }
    if lid == 0u {
        most[anchor] = -values[0];
        most_row[anchor] = indices[0];
    }
}
