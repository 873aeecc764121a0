// Closes gaps between points. A pixel is a gap if it is empty or if something far behind its surroundings
// shows through them: looking along the 8 directions, a nearer pixel comes within `reach` pixels in at
// least 7 of them. Directions that leave the image count as well, but at least 3 nearer pixels must be
// found, 4 where one direction has none. Where the pixel is empty anything is nearer, elsewhere what has
// less than `leak` times its depth. A gap takes depth and index of the nearest of those pixels in the
// image, of equals the one in the direction that comes first: right, right down, down, and on around.
// One thread per pixel; reads one pair of images, writes the other. Depths are bits of floats; where
// the index is 0xffffffff the pixel is empty, whatever its depth, and gets the depth 0.
#import shared/linear_id

const WG: u32 = 256u;
const EMPTY: u32 = 0xffffffffu;

struct Params { width: u32, height: u32, reach: u32, leak: f32 }

@group(0) @binding(0) var<storage, read> depth: array<u32>;
@group(0) @binding(1) var<storage, read> index: array<u32>;
@group(0) @binding(2) var<storage, read_write> filled_depth: array<u32>;
@group(0) @binding(3) var<storage, read_write> filled_index: array<u32>;
@group(0) @binding(4) var<uniform> params: Params;

// 0 1 1 1 0 -1 -1 -1, and around again.
fn sign_of(eighth: u32) -> i32 {
    let e = eighth % 8u;
    return i32(e > 0u && e < 4u) - i32(e > 4u);
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
    let pixel = workgroup_index(wid, nwg) * WG + lid;
    if pixel >= params.width * params.height {
        return;
    }
    let at = vec2<i32>(i32(pixel % params.width), i32(pixel / params.width));
    let empty = index[pixel] == EMPTY;
    let limit = bitcast<f32>(depth[pixel]) * params.leak;
    var found = 0u;
    var missed = 0u;
    var best = pixel;
    var best_distance = EMPTY;
    for (var direction = 0u; direction < 8u && missed < 2u; direction++) {
        let step = vec2<i32>(sign_of(direction + 2u), sign_of(direction));
        let diagonal = 1u + (direction & 1u);
        missed += 1u;
        for (var k = 1u; k <= params.reach; k++) {
            let q = at + step * i32(k);
            if q.x < 0 || q.y < 0 || q.x >= i32(params.width) || q.y >= i32(params.height) {
                missed -= 1u;
                break;
            }
            let other = u32(q.y) * params.width + u32(q.x);
            if index[other] != EMPTY && (empty || bitcast<f32>(depth[other]) < limit) {
                missed -= 1u;
                found += 1u;
                let distance = diagonal * k * k;
                if distance < best_distance {
                    best_distance = distance;
                    best = other;
                }
                break;
            }
        }
    }
    if missed > 1u || found < 3u + missed {
        best = pixel;
    }
    filled_index[pixel] = index[best];
    filled_depth[pixel] = select(depth[best], 0u, index[best] == EMPTY);
}
