// Sort key of every point, one thread each: (Morton code low, high, batch), or with LEXICOGRAPHIC
// (z, y, x, batch), least significant word first.
// `coords` [num_points, 4] = (batch, x, y, z), 0 <= x, y, z < 2^21; `keys` [num_points, KEY_WORDS].
#import shared/linear_id
#import shared/morton

const WG: u32 = 256u;
#ifdef LEXICOGRAPHIC
const KEY_WORDS: u32 = 4u;
#else
const KEY_WORDS: u32 = 3u;
#endif

struct Params { num_points: u32 }

@group(0) @binding(0) var<storage, read> coords: array<vec4<i32>>;
@group(0) @binding(1) var<storage, read_write> keys: array<u32>;
@group(0) @binding(2) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
    let i = workgroup_index(wid, nwg) * WG + lid;
    if i >= params.num_points {
        return;
    }
    let c = coords[i];
#ifdef LEXICOGRAPHIC
    keys[i * KEY_WORDS] = u32(c.w);
    keys[i * KEY_WORDS + 1u] = u32(c.z);
    keys[i * KEY_WORDS + 2u] = u32(c.y);
    keys[i * KEY_WORDS + 3u] = u32(c.x);
#else
    let code = morton_code(vec3<u32>(c.yzw));
    keys[i * KEY_WORDS] = code.x;
    keys[i * KEY_WORDS + 1u] = code.y;
    keys[i * KEY_WORDS + 2u] = u32(c.x);
#endif
}
