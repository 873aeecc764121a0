// The label with the largest sum of logits over the views that see a point, over a block of labels; what the blocks
// before found is in `best_sum` and `consensus`. One thread per point, four labels at a time. `row_from_point`
// [num_views, num_points] (-1: not seen), `logits` [rows, num_labels], `best_sum`, `consensus` and `count`
// [num_points].
#import shared/linear_id

const WG: u32 = 64u;

struct Params { num_views: u32, num_points: u32, num_labels: u32, first_label: u32, end_label: u32 }

@group(0) @binding(0) var<storage, read> row_from_point: array<i32>;
@group(0) @binding(1) var<storage, read> logits: array<f32>;
@group(0) @binding(2) var<storage, read_write> best_sum: array<f32>;
@group(0) @binding(3) var<storage, read_write> consensus: array<i32>;
@group(0) @binding(4) var<storage, read_write> count: array<i32>;
@group(0) @binding(5) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
    let point = workgroup_index(wid, nwg) * WG + lid;
    if point >= params.num_points {
        return;
    }
    var highest = 0.0;
    var best = -1;
    if params.first_label > 0u {
        highest = best_sum[point];
        best = consensus[point];
    }
    let last = params.num_labels - 1u;
    for (var label = params.first_label; label < params.end_label; label += 4u) {
        var sums = vec4<f32>(0.0);
        var num_seen = 0;
        for (var v = 0u; v < params.num_views; v++) {
            let row = row_from_point[v * params.num_points + point];
            if row >= 0 {
                let at = u32(row) * params.num_labels;
                num_seen += 1;
                sums.x += logits[at + label];
                sums.y += logits[at + min(label + 1u, last)];
                sums.z += logits[at + min(label + 2u, last)];
                sums.w += logits[at + min(label + 3u, last)];
            }
        }
        if num_seen > 0 && (best < 0 || sums.x > highest) {
            best = i32(label);
            highest = sums.x;
        }
        // Labels past the last repeat it, and equal sums change nothing.
        if num_seen > 0 && sums.y > highest {
            best = i32(label + 1u);
            highest = sums.y;
        }
        if num_seen > 0 && sums.z > highest {
            best = i32(label + 2u);
            highest = sums.z;
        }
        if num_seen > 0 && sums.w > highest {
            best = i32(label + 3u);
            highest = sums.w;
        }
        count[point] = num_seen;
    }
    best_sum[point] = highest;
    consensus[point] = best;
}
