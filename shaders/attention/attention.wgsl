// Attention with the softmax taken as the keys come by (Milakov and Gimelshein 2018): scores exist for a
// tile of keys only. A workgroup takes QUERIES queries of one head, four threads each query: a quarter of
// a tile's scores, then a quarter of the channels.
// `q`, `out` [batch, num_queries, num_heads * head_dim], `k`, `v` [batch, num_keys, the same]; `blocked`
// [batch or 1, num_queries, num_keys]: not 0 where a query does not see a key.
#import shared/linear_id

const QUERIES: u32 = 16u;
const KEYS: u32 = 32u;
const MAX_HEAD_DIM: u32 = 64u;
const WG: u32 = 64u;
const NEVER: f32 = -3.4e38;

struct Params {
    batch: u32, num_queries: u32, num_keys: u32, num_heads: u32,
    head_dim: u32, causal: u32, per_image: u32, scale: f32,
}

@group(0) @binding(0) var<storage, read> q: array<f32>;
@group(0) @binding(1) var<storage, read> k: array<f32>;
@group(0) @binding(2) var<storage, read> v: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;
#ifdef BLOCKED
@group(0) @binding(4) var<storage, read> blocked: array<i32>;
@group(0) @binding(5) var<uniform> params: Params;
#else
@group(0) @binding(4) var<uniform> params: Params;
#endif

// Channels past head_dim are zeros in all of them.
var<workgroup> q_tile: array<vec4<f32>, 256>;  // [QUERIES, MAX_HEAD_DIM / 4]
var<workgroup> kv_tile: array<vec4<f32>, 512>; // [KEYS, MAX_HEAD_DIM / 4], the keys, then the values
var<workgroup> scores: array<f32, 512>;        // [QUERIES, KEYS]

fn first_value(image: u32, row: u32, num_rows: u32, head: u32) -> u32 {
    return ((image * num_rows + row) * params.num_heads + head) * params.head_dim;
}

// Loops are kept short by hand: Mesa's software driver ends all loops of an invocation after 65,535 rounds in
// total, and a view has thousands of keys.

fn q_at(first: u32, column: u32) -> vec4<f32> {
    var value = vec4<f32>(0.0);
    let channel = 4u * column;
    if channel < params.head_dim { value.x = q[first + channel]; }
    if channel + 1u < params.head_dim { value.y = q[first + channel + 1u]; }
    if channel + 2u < params.head_dim { value.z = q[first + channel + 2u]; }
    if channel + 3u < params.head_dim { value.w = q[first + channel + 3u]; }
    return value;
}

fn k_at(first: u32, column: u32) -> vec4<f32> {
    var value = vec4<f32>(0.0);
    let channel = 4u * column;
    if channel < params.head_dim { value.x = k[first + channel]; }
    if channel + 1u < params.head_dim { value.y = k[first + channel + 1u]; }
    if channel + 2u < params.head_dim { value.z = k[first + channel + 2u]; }
    if channel + 3u < params.head_dim { value.w = k[first + channel + 3u]; }
    return value;
}

fn v_at(first: u32, column: u32) -> vec4<f32> {
    var value = vec4<f32>(0.0);
    let channel = 4u * column;
    if channel < params.head_dim { value.x = v[first + channel]; }
    if channel + 1u < params.head_dim { value.y = v[first + channel + 1u]; }
    if channel + 2u < params.head_dim { value.z = v[first + channel + 2u]; }
    if channel + 3u < params.head_dim { value.w = v[first + channel + 3u]; }
    return value;
}

fn sees(image: u32, query: u32, key: u32) -> bool {
    if key >= params.num_keys || query >= params.num_queries {
        return false;
    }
#ifdef BLOCKED
    return blocked[(image * params.per_image * params.num_queries + query) * params.num_keys + key] == 0;
#else
    return params.causal == 0u || key <= query;
#endif
}

// The thread's sum of weights, and the mix of its sixteen channels.
var<private> total: f32;
var<private> mixed0: vec4<f32>;
var<private> mixed1: vec4<f32>;
var<private> mixed2: vec4<f32>;
var<private> mixed3: vec4<f32>;

fn add_key(row: u32, key: u32, quarter: u32) {
    let weight = vec4<f32>(scores[row * KEYS + key]);
    let at = key * (MAX_HEAD_DIM / 4u) + quarter * 4u;
    total += weight.x;
    mixed0 = fma(weight, kv_tile[at], mixed0);
    mixed1 = fma(weight, kv_tile[at + 1u], mixed1);
    mixed2 = fma(weight, kv_tile[at + 2u], mixed2);
    mixed3 = fma(weight, kv_tile[at + 3u], mixed3);
}

fn multiply(q_first: u32, k_first: u32, sum: vec4<f32>) -> vec4<f32> {
    let upper = fma(q_tile[q_first + 1u], kv_tile[k_first + 1u], fma(q_tile[q_first], kv_tile[k_first], sum));
    return fma(q_tile[q_first + 3u], kv_tile[k_first + 3u], fma(q_tile[q_first + 2u], kv_tile[k_first + 2u], upper));
}

fn store(first: u32, channel: u32, value: vec4<f32>) {
    if channel < params.head_dim { out[first + channel] = value.x; }
    if channel + 1u < params.head_dim { out[first + channel + 1u] = value.y; }
    if channel + 2u < params.head_dim { out[first + channel + 2u] = value.z; }
    if channel + 3u < params.head_dim { out[first + channel + 3u] = value.w; }
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
    let tiles = (params.num_queries + QUERIES - 1u) / QUERIES;
    let index = workgroup_index(wid, nwg);
    let head = index / tiles % params.num_heads;
    // The fold may start workgroups past the last image: they run on its data and store nothing.
    let image = min(index / tiles / params.num_heads, params.batch - 1u);
    let stores = index / tiles / params.num_heads < params.batch;
    let first_query = index % tiles * QUERIES;
    let columns = MAX_HEAD_DIM / 4u;
    for (var i = lid; i < QUERIES * columns; i += WG) {
        let query = first_query + i / columns;
        q_tile[i] = vec4<f32>(0.0);
        if query < params.num_queries {
            q_tile[i] = q_at(first_value(image, query, params.num_queries, head), i % columns) * params.scale;
        }
    }
    let row = lid / 4u;
    let quarter = lid % 4u;
    let query = first_query + row;
    var largest = NEVER;
    for (var first_key = 0u; first_key < params.num_keys; first_key += KEYS) {
        workgroupBarrier();
        for (var i = lid; i < KEYS * columns; i += WG) {
            let key = first_key + i / columns;
            kv_tile[i] = vec4<f32>(0.0);
            if key < params.num_keys {
                kv_tile[i] = k_at(first_value(image, key, params.num_keys, head), i % columns);
            }
        }
        workgroupBarrier();
        for (var j = 0u; j < KEYS / 4u; j++) {
            let key = quarter * (KEYS / 4u) + j;
            var score = NEVER;
            if sees(image, query, first_key + key) {
                var dot4 = vec4<f32>(0.0);
                let q_first = row * columns;
                let k_first = key * columns;
                dot4 = multiply(q_first, k_first, dot4);
                dot4 = multiply(q_first + 4u, k_first + 4u, dot4);
                dot4 = multiply(q_first + 8u, k_first + 8u, dot4);
                dot4 = multiply(q_first + 12u, k_first + 12u, dot4);
                score = dot4.x + dot4.y + dot4.z + dot4.w;
            }
            scores[row * KEYS + key] = score;
        }
        workgroupBarrier();
        let before = largest;
        for (var j = 0u; j < KEYS; j += 4u) {
            let at = row * KEYS + j;
            largest = max(largest, max(max(scores[at], scores[at + 1u]), max(scores[at + 2u], scores[at + 3u])));
        }
        workgroupBarrier();
        for (var j = 0u; j < KEYS / 4u; j++) {
            let at = row * KEYS + quarter * (KEYS / 4u) + j;
            scores[at] = select(exp(scores[at] - largest), 0.0, scores[at] == NEVER);
        }
        for (var i = lid; i < KEYS * columns; i += WG) {
            let key = first_key + i / columns;
            kv_tile[i] = vec4<f32>(0.0);
            if key < params.num_keys {
                kv_tile[i] = v_at(first_value(image, key, params.num_keys, head), i % columns);
            }
        }
        workgroupBarrier();
        let shrink = exp(before - largest);
        total *= shrink;
        mixed0 *= shrink;
        mixed1 *= shrink;
        mixed2 *= shrink;
        mixed3 *= shrink;
        for (var j = 0u; j < KEYS; j += 4u) {
            add_key(row, j, quarter);
            add_key(row, j + 1u, quarter);
            add_key(row, j + 2u, quarter);
            add_key(row, j + 3u, quarter);
        }
    }
    if !stores || query >= params.num_queries {
        return;
    }
    let first = first_value(image, query, params.num_queries, head);
    let inverse = select(1.0 / total, 0.0, total == 0.0);
    store(first, quarter * 16u, mixed0 * inverse);
    store(first, quarter * 16u + 4u, mixed1 * inverse);
    store(first, quarter * 16u + 8u, mixed2 * inverse);
    store(first, quarter * 16u + 12u, mixed3 * inverse);
}
