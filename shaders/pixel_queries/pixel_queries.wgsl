// The query that wins each pixel, over a block of queries; what the blocks before found is in `best` and
// `query_from_pixel`. One thread per pixel. `stretched` [num_queries, mask_height, width] holds the block's
// masks resampled along their rows; the second pass, along the columns, is summed here, so that no mask exists at
// the picture's size. `confidences` [all queries], `first` [height], `weights` [height, num_taps], `best` and
// `query_from_pixel` [height, width].
#import shared/linear_id

const WG: u32 = 128u;
const LEAST: f32 = -3.4028235e38;

struct Params { num_pixels: u32, width: u32, mask_height: u32, num_taps: u32, first_query: u32, num_queries: u32 }

@group(0) @binding(0) var<storage, read> stretched: array<f32>;
@group(0) @binding(1) var<storage, read> confidences: array<f32>;
@group(0) @binding(2) var<storage, read> first: array<u32>;
@group(0) @binding(3) var<storage, read> weights: array<f32>;
@group(0) @binding(4) var<storage, read_write> best: array<f32>;
@group(0) @binding(5) var<storage, read_write> query_from_pixel: array<i32>;
@group(0) @binding(6) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
    let pixel = workgroup_index(wid, nwg) * WG + lid;
    if pixel >= params.num_pixels {
        return;
    }
    let row = pixel / params.width;
    let column = pixel % params.width;
    let start = first[row];
    var highest = LEAST;
    var winner = -1;
    if params.first_query > 0u {
        highest = best[pixel];
        winner = query_from_pixel[pixel];
    }
    for (var q = 0u; q < params.num_queries; q++) {
        let confidence = confidences[params.first_query + q];
        // No product is above this, since a probability is at most 1.
        if !(max(confidence, 0.0) > highest) {
            continue;
        }
        var logit = 0.0;
        for (var t = 0u; t < params.num_taps; t++) {
            let at = (q * params.mask_height + start + t) * params.width + column;
            logit += weights[row * params.num_taps + t] * stretched[at];
        }
        let value = confidence / (1.0 + exp(-logit));
        if value > highest {
            highest = value;
            winner = select(-1, i32(params.first_query + q), logit >= 0.0);
        }
    }
    best[pixel] = highest;
    query_from_pixel[pixel] = winner;
}
