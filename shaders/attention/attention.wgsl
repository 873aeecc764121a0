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
        var value = vec4<f32>(0.0);
        if query < params.num_queries {
            let first = first_value(image, query, params.num_queries, head);
            for (var c = 0u; c < 4u; c++) {
                let channel = i % columns * 4u + c;
                if channel < params.head_dim {
                    value[c] = q[first + channel] * params.scale;
                }
            }
        }
        q_tile[i] = value;
    }
    let row = lid / 4u;
    let quarter = lid % 4u;
    let query = first_query + row;
    var largest = NEVER;
    var total = 0.0;
    var mixed: array<vec4<f32>, 4>;
    for (var first_key = 0u; first_key < params.num_keys; first_key += KEYS) {
        workgroupBarrier();
        for (var i = lid; i < KEYS * columns; i += WG) {
            let key = first_key + i / columns;
            var value = vec4<f32>(0.0);
            if key < params.num_keys {
                let first = first_value(image, key, params.num_keys, head);
                for (var c = 0u; c < 4u; c++) {
                    let channel = i % columns * 4u + c;
                    if channel < params.head_dim {
                        value[c] = k[first + channel];
                    }
                }
            }
            kv_tile[i] = value;
        }
        workgroupBarrier();
        for (var j = 0u; j < KEYS / 4u; j++) {
            let key = quarter * (KEYS / 4u) + j;
            var score = NEVER;
            if sees(image, query, first_key + key) {
                var dot4 = vec4<f32>(0.0);
                for (var c = 0u; c < columns; c++) {
                    dot4 = fma(q_tile[row * columns + c], kv_tile[key * columns + c], dot4);
                }
                score = dot4.x + dot4.y + dot4.z + dot4.w;
            }
            scores[row * KEYS + key] = score;
        }
        workgroupBarrier();
        let before = largest;
        for (var j = 0u; j < KEYS; j++) {
            largest = max(largest, scores[row * KEYS + j]);
        }
        workgroupBarrier();
        for (var j = 0u; j < KEYS / 4u; j++) {
            let at = row * KEYS + quarter * (KEYS / 4u) + j;
            scores[at] = select(exp(scores[at] - largest), 0.0, scores[at] == NEVER);
        }
        for (var i = lid; i < KEYS * columns; i += WG) {
            let key = first_key + i / columns;
            var value = vec4<f32>(0.0);
            if key < params.num_keys {
                let first = first_value(image, key, params.num_keys, head);
                for (var c = 0u; c < 4u; c++) {
                    let channel = i % columns * 4u + c;
                    if channel < params.head_dim {
                        value[c] = v[first + channel];
                    }
                }
            }
            kv_tile[i] = value;
        }
        workgroupBarrier();
        let shrink = exp(before - largest);
        total *= shrink;
        for (var c = 0u; c < 4u; c++) {
            mixed[c] *= shrink;
        }
        for (var j = 0u; j < KEYS; j++) {
            let weight = scores[row * KEYS + j];
            total += weight;
            for (var c = 0u; c < 4u; c++) {
                mixed[c] = fma(vec4<f32>(weight), kv_tile[j * columns + quarter * 4u + c], mixed[c]);
            }
        }
    }
    if !stores || query >= params.num_queries {
        return;
    }
    let first = first_value(image, query, params.num_queries, head);
    let inverse = select(1.0 / total, 0.0, total == 0.0);
    for (var c = 0u; c < 16u; c++) {
        let channel = quarter * 16u + c;
        if channel < params.head_dim {
            out[first + channel] = mixed[c / 4u][c % 4u] * inverse;
        }
    }
}
