// Position of every voxel along a space-filling curve: the sort key (position low, high, batch). One thread
// per voxel. `coords` [num_voxels, 4] = (batch, x, y, z), x, y, z below 2^depth; `keys` [num_voxels, 3].
#import shared/linear_id
#import shared/morton

const WG: u32 = 256u;
const KEY_WORDS: u32 = 3u;

struct Params { num_voxels: u32, depth: u32, hilbert: u32, transposed: u32 }

@group(0) @binding(0) var<storage, read> coords: array<vec4<i32>>;
@group(0) @binding(1) var<storage, read_write> keys: array<u32>;
@group(0) @binding(2) var<uniform> params: Params;

// Skilling's transform (2004): afterwards the interleaved bits are the Gray code of the position.
fn to_gray_axes(position: vec3<u32>) -> vec3<u32> {
    var p = position;
    for (var bit = params.depth; bit > 0u; bit--) {
        let at = bit - 1u;
        let lower = (1u << at) - 1u;
        if ((p.x >> at) & 1u) != 0u {
            p.x ^= lower;
        }
        if ((p.y >> at) & 1u) != 0u {
            p.x ^= lower;
        } else {
            let differ = (p.x ^ p.y) & lower;
            p.x ^= differ;
            p.y ^= differ;
        }
        if ((p.z >> at) & 1u) != 0u {
            p.x ^= lower;
        } else {
            let differ = (p.x ^ p.z) & lower;
            p.x ^= differ;
            p.z ^= differ;
        }
    }
    return p;
}

// Each bit becomes the parity of itself and all above it in its word.
fn parity_from_top(word: u32) -> u32 {
    var w = word;
    w ^= w >> 1u;
    w ^= w >> 2u;
    w ^= w >> 4u;
    w ^= w >> 8u;
    return w ^ (w >> 16u);
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
    let i = workgroup_index(wid, nwg) * WG + lid;
    if i >= params.num_voxels {
        return;
    }
    let c = coords[i];
    var p = vec3<u32>(c.yzw);
    if params.transposed != 0u {
        p = p.yxz;
    }
    if params.hilbert != 0u {
        p = to_gray_axes(p);
    }
    // x owns the highest bit of each triple.
    var code = morton_code(p.zyx);
    if params.hilbert != 0u {
        let high = parity_from_top(code.y);
        // An odd number of ones above turns every bit of the low word.
        code = vec2<u32>(parity_from_top(code.x) ^ (0u - (high & 1u)), high);
    }
    keys[i * KEY_WORDS] = code.x;
    keys[i * KEY_WORDS + 1u] = code.y;
    keys[i * KEY_WORDS + 2u] = u32(c.x);
}
