// What the views agree on, one thread per point: the label of the largest sum of logits, the TOP views with the
// largest logit of it, and the softmax of those. Labels are summed one after the other, so that no array grows
// with their number.
// `query_from_point` [num_views, num_points] (-1: not seen), `logits` [num_views, num_queries, num_labels],
// `consensus` [num_points], `view`, `agreement`, `weights` [num_points, TOP].
#import shared/linear_id

const TOP: u32 = 3u;
const WG: u32 = 64u;

struct Params { num_views: u32, num_points: u32, num_queries: u32, num_labels: u32 }

@group(0) @binding(0) var<storage, read> query_from_point: array<i32>;
@group(0) @binding(1) var<storage, read> logits: array<f32>;
@group(0) @binding(2) var<storage, read_write> consensus: array<i32>;
@group(0) @binding(3) var<storage, read_write> view: array<i32>;
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
    var best_sum = 0.0;
    var best = -1;
    for (var label = 0u; label < params.num_labels; label++) {
        var sum = 0.0;
        var seen = false;
        for (var v = 0u; v < params.num_views; v++) {
            let query = query_from_point[v * params.num_points + point];
            if query >= 0 {
                seen = true;
                sum += logits[(v * params.num_queries + u32(query)) * params.num_labels + label];
            }
        }
        if seen && (best < 0 || sum > best_sum) {
            best = i32(label);
            best_sum = sum;
        }
    }
    consensus[point] = best;
    // Three places, best first; a later view must be better to come before an earlier one.
    var views = vec3<i32>(-1);
    var scores = vec3<f32>(0.0);
    if best >= 0 {
        for (var v = 0u; v < params.num_views; v++) {
            let query = query_from_point[v * params.num_points + point];
            if query < 0 {
                continue;
            }
            let score = logits[(v * params.num_queries + u32(query)) * params.num_labels + u32(best)];
            if views.x < 0 || score > scores.x {
                views = vec3<i32>(i32(v), views.xy);
                scores = vec3<f32>(score, scores.xy);
            } else if views.y < 0 || score > scores.y {
                views = vec3<i32>(views.x, i32(v), views.y);
                scores = vec3<f32>(scores.x, score, scores.y);
            } else if views.z < 0 || score > scores.z {
                views.z = i32(v);
                scores.z = score;
            }
        }
    }
    let shares = select(vec3<f32>(0.0), exp(scores - vec3<f32>(scores.x)), views >= vec3<i32>(0));
    let total = max(shares.x + shares.y + shares.z, 1e-30);
    for (var i = 0u; i < TOP; i++) {
        view[point * TOP + i] = views[i];
        agreement[point * TOP + i] = scores[i];
        weights[point * TOP + i] = shares[i] / total;
    }
}
