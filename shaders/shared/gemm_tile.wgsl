// The core of a tiled matrix product: a workgroup of WG threads makes ROWS x COLS sums, a thread 8 x 8
// of them. Fill `x_tile` and `weight_tile`, barrier, call `multiply_tiles`, barrier.
const ROWS: u32 = 64u;
const COLS: u32 = 64u;
const DEPTH: u32 = 16u;
const WG: u32 = 64u;

var<workgroup> x_tile: array<vec4<f32>, 256>;      // [DEPTH, ROWS / 4]
var<workgroup> weight_tile: array<vec4<f32>, 256>; // [DEPTH, COLS / 4]
// Sums of the thread's rows, by its first and its last four columns.
var<private> left: array<vec4<f32>, 8>;
var<private> right: array<vec4<f32>, 8>;

fn multiply_tiles(thread_row: u32, thread_col: u32) {
    for (var d = 0u; d < DEPTH; d++) {
        let upper = x_tile[d * (ROWS / 4u) + thread_row * 2u];
        let lower = x_tile[d * (ROWS / 4u) + thread_row * 2u + 1u];
        let l = weight_tile[d * (COLS / 4u) + thread_col * 2u];
        let r = weight_tile[d * (COLS / 4u) + thread_col * 2u + 1u];
        left[0] = fma(upper.xxxx, l, left[0]);
        left[1] = fma(upper.yyyy, l, left[1]);
        left[2] = fma(upper.zzzz, l, left[2]);
        left[3] = fma(upper.wwww, l, left[3]);
        left[4] = fma(lower.xxxx, l, left[4]);
        left[5] = fma(lower.yyyy, l, left[5]);
        left[6] = fma(lower.zzzz, l, left[6]);
        left[7] = fma(lower.wwww, l, left[7]);
        right[0] = fma(upper.xxxx, r, right[0]);
        right[1] = fma(upper.yyyy, r, right[1]);
        right[2] = fma(upper.zzzz, r, right[2]);
        right[3] = fma(upper.wwww, r, right[3]);
        right[4] = fma(lower.xxxx, r, right[4]);
        right[5] = fma(lower.yyyy, r, right[5]);
        right[6] = fma(lower.zzzz, r, right[6]);
        right[7] = fma(lower.wwww, r, right[7]);
    }
}
