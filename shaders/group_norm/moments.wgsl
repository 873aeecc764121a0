// Mean and 1 / sqrt(variance + epsilon) of every group of channels of every image, one workgroup each.
// `x` [num_images, num_pixels, num_channels], `statistics` [num_images * num_groups, 2].
#import shared/linear_id
#import shared/sum_workgroup

struct Params { num_images: u32, num_pixels: u32, num_channels: u32, num_groups: u32, epsilon: f32 }

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> statistics: array<f32>;
@group(0) @binding(2) var<uniform> params: Params;

// Compensated: a thread of a large map adds up tens of thousands of values.
var<private> sum: f32;
var<private> lost: f32;

fn add(first: u32, i: u32, count: u32, width: u32, center: f32, squared: bool) {
    if i < count {
        let d = x[first + i / width * params.num_channels + i % width] - center;
        let term = select(d, d * d, squared) - lost;
        let next = sum + term;
        lost = (next - sum) - term;
        sum = next;
    }
}

fn add_all(inside: bool, first: u32, count: u32, width: u32, lid: u32, center: f32, squared: bool) {
    sum = 0.0;
    lost = 0.0;
    if !inside {
        return;
    }
    // Eight at a time: Mesa's software driver ends all loops of an invocation after 65,535 rounds.
    for (var i = lid; i < count; i += 8u * WG) {
        add(first, i, count, width, center, squared);
        add(first, i + WG, count, width, center, squared);
        add(first, i + 2u * WG, count, width, center, squared);
        add(first, i + 3u * WG, count, width, center, squared);
        add(first, i + 4u * WG, count, width, center, squared);
        add(first, i + 5u * WG, count, width, center, squared);
        add(first, i + 6u * WG, count, width, center, squared);
        add(first, i + 7u * WG, count, width, center, squared);
    }
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
    let index = workgroup_index(wid, nwg);
    let inside = index < params.num_images * params.num_groups;
    let width = params.num_channels / params.num_groups;
    let first = index / params.num_groups * params.num_pixels * params.num_channels
        + index % params.num_groups * width;
    let count = params.num_pixels * width;
    add_all(inside, first, count, width, lid, 0.0, false);
    let mean = sum_workgroup(sum, lid) / f32(count);
    add_all(inside, first, count, width, lid, mean, true);
    let variance = sum_workgroup(sum, lid) / f32(count);
    if inside && lid == 0u {
        statistics[2u * index] = mean;
        statistics[2u * index + 1u] = 1.0 / sqrt(variance + params.epsilon);
    }
}
