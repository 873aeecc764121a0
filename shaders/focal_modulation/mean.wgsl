// GELU of the mean over all pixels, per image and channel. A workgroup takes COLS channels, its threads
// every fourth pixel each. `context` [num_images, num_pixels, num_channels], `global` [num_images,
// num_channels].
#import shared/linear_id
#import shared/activation

const COLS: u32 = 32u;
const WG: u32 = 128u;
const STEP: u32 = 4u; // WG / COLS

struct Params { num_images: u32, num_pixels: u32, num_channels: u32 }

@group(0) @binding(0) var<storage, read> context: array<f32>;
@group(0) @binding(1) var<storage, read_write> global: array<f32>;
@group(0) @binding(2) var<uniform> params: Params;

var<workgroup> partial: array<f32, WG>;

// Compensated: a thread of a large map adds up thousands of values.
var<private> sum: f32;
var<private> lost: f32;

fn add(image: u32, pixel: u32, channel: u32) {
    if pixel < params.num_pixels {
        let term = context[(image * params.num_pixels + pixel) * params.num_channels + channel] - lost;
        let next = sum + term;
        lost = (next - sum) - term;
        sum = next;
    }
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
    let col_tiles = (params.num_channels + COLS - 1u) / COLS;
    let index = workgroup_index(wid, nwg);
    let image = index / col_tiles;
    let channel = index % col_tiles * COLS + lid % COLS;
    let inside = image < params.num_images && channel < params.num_channels;
    if inside {
        // Eight at a time: Mesa's software driver ends all loops of an invocation after 65,535 rounds.
        for (var pixel = lid / COLS; pixel < params.num_pixels; pixel += 8u * STEP) {
            add(image, pixel, channel);
            add(image, pixel + STEP, channel);
            add(image, pixel + 2u * STEP, channel);
            add(image, pixel + 3u * STEP, channel);
            add(image, pixel + 4u * STEP, channel);
            add(image, pixel + 5u * STEP, channel);
            add(image, pixel + 6u * STEP, channel);
            add(image, pixel + 7u * STEP, channel);
        }
    }
    partial[lid] = sum;
    workgroupBarrier();
    if inside && lid < COLS {
        let total = partial[lid] + partial[lid + COLS] + partial[lid + 2u * COLS] + partial[lid + 3u * COLS];
        global[image * params.num_channels + channel] = gelu(total / f32(params.num_pixels));
    }
}
