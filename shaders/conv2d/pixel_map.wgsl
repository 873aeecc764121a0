// Which pixels a convolution joins, as a kernel map of sparse_conv: `other_from_pixel` [batch * height * width,
// kernel * kernel], -1 where there is none.
// Pixels are those of the result, and a tap's entry is the input pixel under it. With BACKWARD pixels are those
// of the input, and the entry is the pixel of the result that has it under this tap, the last tap first.
#import shared/linear_id

const WG: u32 = 64u;

struct Params {
    num_entries: u32, height: u32, width: u32, other_height: u32, other_width: u32,
    kernel: u32, stride: u32, padding: u32,
}

@group(0) @binding(0) var<storage, read_write> other_from_pixel: array<i32>;
@group(0) @binding(1) var<uniform> params: Params;

// Row or column of the other image, -1 outside.
fn other(at: u32, tap: u32, size: u32) -> i32 {
#ifdef BACKWARD
    let shifted = i32(at + params.padding) - i32(params.kernel - 1u - tap);
    if shifted < 0 || shifted % i32(params.stride) != 0 {
        return -1;
    }
    let found = shifted / i32(params.stride);
#else
    let found = i32(at * params.stride + tap) - i32(params.padding);
#endif
    return select(-1, found, found >= 0 && found < i32(size));
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
    let entry = workgroup_index(wid, nwg) * WG + lid;
    if entry >= params.num_entries {
        return;
    }
    let taps = params.kernel * params.kernel;
    let tap = entry % taps;
    let pixel = entry / taps;
    let line = pixel / params.width;
    let row = other(line % params.height, tap / params.kernel, params.other_height);
    let col = other(pixel % params.width, tap % params.kernel, params.other_width);
    let first = i32(line / params.height * params.other_height);
    other_from_pixel[entry] = select(-1, (first + row) * i32(params.other_width) + col, row >= 0 && col >= 0);
}
