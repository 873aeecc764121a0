// Dense 2D convolution as an implicit GEMM, channels last, with bias and activation. A linear layer is
// its 1 x 1 case. Pixels outside the image are zeros.
// `x` [batch, height, width, num_in], `panels` [num_out / COLS, kernel * kernel * num_in, COLS] (two
// 16-bit values to a word with HALF), `bias` [num_out], `out` [num_rows, num_out].
#import shared/linear_id
#import shared/gemm_tile
#import shared/activation

const RELU: u32 = 1u;
const GELU: u32 = 2u;
const QUICK_GELU: u32 = 3u;

struct Params {
    num_rows: u32, num_in: u32, num_out: u32,
    height: u32, width: u32, out_height: u32, out_width: u32,
    kernel: u32, stride: u32, padding: u32, activation: u32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
#ifdef HALF
@group(0) @binding(1) var<storage, read> panels: array<u32>;
#else
@group(0) @binding(1) var<storage, read> panels: array<f32>;
#endif
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;
@group(0) @binding(4) var<uniform> params: Params;

// Pixel of each row at the present tap, -1 outside the image.
var<workgroup> src: array<i32, ROWS>;

fn src_of(row: u32, tap: u32) -> i32 {
    if row >= params.num_rows {
        return -1;
    }
    let pixels = params.out_height * params.out_width;
    let image = row / pixels;
    let y = row % pixels / params.out_width * params.stride + tap / params.kernel;
    let x = row % params.out_width * params.stride + tap % params.kernel;
    if y < params.padding || x < params.padding
        || y - params.padding >= params.height || x - params.padding >= params.width {
        return -1;
    }
    return i32((image * params.height + y - params.padding) * params.width + x - params.padding);
}

fn x_at(row: u32, channel: u32) -> f32 {
    let pixel = src[row];
    if pixel < 0 || channel >= params.num_in {
        return 0.0;
    }
    return x[u32(pixel) * params.num_in + channel];
}

fn panels_at(index: u32) -> vec4<f32> {
#ifdef HALF
    return vec4<f32>(unpack2x16float(panels[index / 2u]), unpack2x16float(panels[index / 2u + 1u]));
#else
    return vec4<f32>(panels[index], panels[index + 1u], panels[index + 2u], panels[index + 3u]);
#endif
}

fn activate(v: f32) -> f32 {
    switch params.activation {
        case RELU: { return max(v, 0.0); }
        case GELU: { return gelu(v); }
        case QUICK_GELU: { return quick_gelu(v); }
        default: { return v; }
    }
}

fn store(row: u32, col: u32, sums: vec4<f32>) {
    if row >= params.num_rows {
        return;
    }
    for (var c = 0u; c < 4u; c++) {
        if col + c < params.num_out {
            out[row * params.num_out + col + c] = activate(sums[c] + bias[col + c]);
        }
    }
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
    let num_col_tiles = (params.num_out + COLS - 1u) / COLS;
    let tile = workgroup_index(wid, nwg);
    let first_row = (tile / num_col_tiles) * ROWS;
    let panel = tile % num_col_tiles;
    let taps = params.kernel * params.kernel;
    let thread_row = lid / 8u;
    let thread_col = lid % 8u;
    for (var tap = 0u; tap < taps; tap++) {
        src[lid] = src_of(first_row + lid, tap);
        workgroupBarrier();
        let first_of_tap = (panel * taps + tap) * params.num_in;
        for (var depth = 0u; depth < params.num_in; depth += DEPTH) {
            for (var i = lid; i < DEPTH * ROWS / 4u; i += WG) {
                // Consecutive threads read consecutive channels of one row.
                let row = i / DEPTH * 4u;
                let channel = depth + i % DEPTH;
                x_tile[i % DEPTH * (ROWS / 4u) + i / DEPTH] = vec4<f32>(
                    x_at(row, channel), x_at(row + 1u, channel), x_at(row + 2u, channel), x_at(row + 3u, channel));
            }
            for (var i = lid; i < DEPTH * COLS / 4u; i += WG) {
                let channel = depth + i / (COLS / 4u);
                weight_tile[i] = vec4<f32>(0.0);
                if channel < params.num_in {
                    weight_tile[i] = panels_at((first_of_tap + channel) * COLS + i % (COLS / 4u) * 4u);
                }
            }
            workgroupBarrier();
            multiply_tiles(thread_row, thread_col);
            workgroupBarrier();
        }
    }
    let row = first_row + thread_row * 8u;
    let col = panel * COLS + thread_col * 8u;
    for (var r = 0u; r < 8u; r++) {
        store(row + r, col, left[r]);
        store(row + r, col + 4u, right[r]);
    }
}
