// Attention within patches of voxels, the softmax taken as the keys come by (Milakov and Gimelshein 2018). A
// workgroup takes one head and QUERIES slots of a patch, a thread one of them: its query, its mix and the
// scores of four keys stay in registers; a tile of keys and values is shared.
// `qkv` [num_voxels, 3, num_heads, head_dim]; `voxel_from_slot` [num_patches, patch_size]: v where a slot is
// voxel v's own, -1 - v where v is a key there alone; a slot that names
// no voxel holds the last one, as a key alone. `out` [num_voxels, num_heads, head_dim].
#import shared/linear_id

const QUERIES: u32 = 64u;
const TILE: u32 = 256u; // vec4s of a tile: 4 KiB
// Groups of four channels that a head has room for; those past head_dim are zeros.
#ifdef WIDE
const VECS: u32 = 16u;
#else
const VECS: u32 = 4u;
#endif
const KEYS: u32 = TILE / VECS;
const NEVER: f32 = -3.4e38;

struct Params { num_voxels: u32, num_patches: u32, patch_size: u32, num_heads: u32, head_dim: u32, scale: f32 }

@group(0) @binding(0) var<storage, read> qkv: array<f32>;
@group(0) @binding(1) var<storage, read> voxel_from_slot: array<i32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;
@group(0) @binding(3) var<uniform> params: Params;

var<workgroup> keys: array<vec4<f32>, TILE>;   // [KEYS, VECS]
var<workgroup> values: array<vec4<f32>, TILE>; // the same

var<private> query: array<vec4<f32>, VECS>;
var<private> mixed: array<vec4<f32>, VECS>;

// First value of a head of q (0), k (1) or v (2) of the voxel in a slot, its own or not.
fn first_value(slot: i32, part: u32, head: u32) -> u32 {
    let voxel = min(u32(select(slot, -1 - slot, slot < 0)), params.num_voxels - 1u);
    return ((voxel * 3u + part) * params.num_heads + head) * params.head_dim;
}

fn load(first: u32, channel: u32) -> vec4<f32> {
    var value = vec4<f32>(0.0);
    if channel < params.head_dim { value.x = qkv[first + channel]; }
    if channel + 1u < params.head_dim { value.y = qkv[first + channel + 1u]; }
    if channel + 2u < params.head_dim { value.z = qkv[first + channel + 2u]; }
    if channel + 3u < params.head_dim { value.w = qkv[first + channel + 3u]; }
    return value;
}

fn store(first: u32, channel: u32, value: vec4<f32>) {
    if channel < params.head_dim { out[first + channel] = value.x; }
    if channel + 1u < params.head_dim { out[first + channel + 1u] = value.y; }
    if channel + 2u < params.head_dim { out[first + channel + 2u] = value.z; }
    if channel + 3u < params.head_dim { out[first + channel + 3u] = value.w; }
}

// Loops over channels go four groups at a time, and those over keys four keys: Mesa's software driver ends all
// loops of an invocation after 65,535 rounds in total.

fn score(key: u32) -> f32 {
    var sums = vec4<f32>(0.0);
    let first = key * VECS;
    for (var c = 0u; c < VECS; c += 4u) {
        sums = fma(query[c], keys[first + c], sums);
        sums = fma(query[c + 1u], keys[first + c + 1u], sums);
        sums = fma(query[c + 2u], keys[first + c + 2u], sums);
        sums = fma(query[c + 3u], keys[first + c + 3u], sums);
    }
    return sums.x + sums.y + sums.z + sums.w;
}

fn mix(at: u32, first: u32, shrink: f32, weights: vec4<f32>) {
    var sum = mixed[at] * shrink;
    sum = fma(weights.xxxx, values[first + at], sum);
    sum = fma(weights.yyyy, values[first + VECS + at], sum);
    sum = fma(weights.zzzz, values[first + 2u * VECS + at], sum);
    mixed[at] = fma(weights.wwww, values[first + 3u * VECS + at], sum);
}

@compute @workgroup_size(QUERIES)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
    let blocks = (params.patch_size + QUERIES - 1u) / QUERIES;
    let index = workgroup_index(wid, nwg);
    let head = index / blocks % params.num_heads;
    // The fold may start workgroups past the last patch: they run on its data and store nothing.
    let patch_index = min(index / blocks / params.num_heads, params.num_patches - 1u);
    let first_slot = patch_index * params.patch_size;
    let own_slot = index % blocks * QUERIES + lid;
    var slot = -1;
    if own_slot < params.patch_size && index / blocks / params.num_heads < params.num_patches {
        let voxel = voxel_from_slot[first_slot + own_slot];
        slot = select(-1, voxel, u32(voxel) < params.num_voxels);
    }
    let first_query = first_value(max(slot, 0), 0u, head);
    for (var c = 0u; c < VECS; c++) {
        query[c] = load(first_query, 4u * c) * params.scale;
        mixed[c] = vec4<f32>(0.0);
    }
    var largest = NEVER;
    var total = 0.0;
    for (var first_key = 0u; first_key < params.patch_size; first_key += KEYS) {
        workgroupBarrier();
        for (var i = lid; i < TILE; i += QUERIES) {
            let key = first_key + i / VECS;
            keys[i] = vec4<f32>(0.0);
            values[i] = vec4<f32>(0.0);
            if key < params.patch_size {
                let of_key = voxel_from_slot[first_slot + key];
                keys[i] = load(first_value(of_key, 1u, head), i % VECS * 4u);
                values[i] = load(first_value(of_key, 2u, head), i % VECS * 4u);
            }
        }
        workgroupBarrier();
        let present = min(KEYS, params.patch_size - first_key);
        for (var key = 0u; key < present; key += 4u) {
            var scores = vec4<f32>(score(key), score(key + 1u), score(key + 2u), score(key + 3u));
            scores = select(scores, vec4<f32>(NEVER), vec4<u32>(key) + vec4<u32>(0u, 1u, 2u, 3u) >= vec4<u32>(present));
            let before = largest;
            largest = max(max(largest, max(scores.x, scores.y)), max(scores.z, scores.w));
            let shrink = exp(before - largest);
            let weights = exp(scores - vec4<f32>(largest));
            total = fma(total, shrink, weights.x + weights.y + weights.z + weights.w);
            for (var c = 0u; c < VECS; c += 4u) {
                mix(c, key * VECS, shrink, weights);
                mix(c + 1u, key * VECS, shrink, weights);
                mix(c + 2u, key * VECS, shrink, weights);
                mix(c + 3u, key * VECS, shrink, weights);
            }
        }
    }
    if slot < 0 {
        return;
    }
    let first = (u32(slot) * params.num_heads + head) * params.head_dim;
    let inverse = 1.0 / total;
    for (var c = 0u; c < VECS; c++) {
        store(first, 4u * c, mixed[c] * inverse);
    }
}
