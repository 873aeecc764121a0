// GELU of the mean over all pixels, per image and channel. A workgroup takes COLS channels, its threads
// every fourth pixel each. `context` [num_images, num_pixels, num_channels], `global` [num_images,
// num_channels].
#import shared/linear_id
#import shared/activation

const COLS: u32 = 32u;
const WG: u32 = 128u;

struct Params { num_images: u32, num_pixels: u32, num_channels: u32 }

@group(0) @binding(0) var<storage, read> context: array<f32>;
@group(0) @binding(1) var<storage, read_write> global: array<f32>;
@group(0) @binding(2) var<uniform> params: Params;

var<workgroup> partial: array<f32, WG>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
    let col_tiles = (params.num_channels + COLS - 1u) / COLS;
    let index = workgroup_index(wid, nwg);
    let image = index / col_tiles;
    let channel = index % col_tiles * COLS + lid % COLS;
    let inside = image < params.num_images && channel < params.num_channels;
    // Compensated: a thread of a large map adds up thousands of values.
    var sum = 0.0;
    var lost = 0.0;
    if inside {
        for (var pixel = lid / COLS; pixel < params.num_pixels; pixel += WG / COLS) {
            let term = context[(image * params.num_pixels + pixel) * params.num_channels + channel] - lost;
            let next = sum + term;
            lost = (next - sum) - term;
            sum = next;
        }
    }
    partial[lid] = sum;
    workgroupBarrier();
    if inside && lid < COLS {
        let total = partial[lid] + partial[lid + COLS] + partial[lid + 2u * COLS] + partial[lid + 3u * COLS];
        global[image * params.num_channels + channel] = gelu(total / f32(params.num_pixels));
    }
}
