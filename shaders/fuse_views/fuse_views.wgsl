// The rows that speak most for the label the views agree on, one thread per point: the TOP largest logits of
// it, one per view, and the softmax of those. `row_from_point` [num_views, num_points] (-1: not seen), `logits`
// [rows, num_labels], `consensus` [num_points], `row`, `agreement`, `weights` [num_points, TOP].
#import shared/linear_id

const TOP: u32 = 3u;
const WG: u32 = 64u;

struct Params { num_views: u32, num_points: u32, num_labels: u32 }

@group(0) @binding(0) var<storage, read> row_from_point: array<i32>;
@group(0) @binding(1) var<storage, read> logits: array<f32>;
@group(0) @binding(2) var<storage, read> consensus: array<i32>;
@group(0) @binding(3) var<storage, read_write> row: array<i32>;
@group(0) @binding(4) var<storage, read_write> agreement: array<f32>;
@group(0) @binding(5) var<storage, read_write> weights: array<f32>;
@group(0) @binding(6) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
    let point = workgroup_index(wid, nwg) * WG + lid;
    if point >= params.num_points {
        return;
    }
    let label = consensus[point];
    // Three places, best first; a later view must be better to come before an earlier one.
    var rows = vec3<i32>(-1);
    var scores = vec3<f32>(0.0);
    if label >= 0 {
        for (var v = 0u; v < params.num_views; v++) {
            let candidate = row_from_point[v * params.num_points + point];
            if candidate < 0 {
                continue;
            }
            let score = logits[u32(candidate) * params.num_labels + u32(label)];
            if rows.x < 0 || score > scores.x {
                rows = vec3<i32>(candidate, rows.xy);
                scores = vec3<f32>(score, scores.xy);
            } else if rows.y < 0 || score > scores.y {
                rows = vec3<i32>(rows.x, candidate, rows.y);
                scores = vec3<f32>(scores.x, score, scores.y);
            } else if rows.z < 0 || score > scores.z {
                rows.z = candidate;
                scores.z = score;
            }
        }
    }
    let shares = select(vec3<f32>(0.0), exp(scores - vec3<f32>(scores.x)), rows >= vec3<i32>(0));
    let total = max(shares.x + shares.y + shares.z, 1e-30);
    for (var i = 0u; i < TOP; i++) {
        row[point * TOP + i] = rows[i];
        agreement[point * TOP + i] = scores[i];
        weights[point * TOP + i] = shares[i] / total;
    }
}
