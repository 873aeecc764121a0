// Mean of the features of each segment's points, summed in ascending point order so that the result
// does not depend on the device's scheduling; with MAX the largest. One thread per (segment, channel),
// channels fastest.
// `features` [num_points, num_channels]; `offsets` [num_segments + 1] into `point_from_sorted`
// [num_sorted]. Offsets past its end are its end, and a point that does not exist is left out of its segment.
#import shared/linear_id

const WG: u32 = 256u;
#ifdef MAX
const LOWEST: f32 = -3.4028234e38;
#endif

struct Params { num_points: u32, num_sorted: u32, num_segments: u32, num_channels: u32 }

@group(0) @binding(0) var<storage, read> features: array<f32>;
@group(0) @binding(1) var<storage, read> point_from_sorted: array<u32>;
@group(0) @binding(2) var<storage, read> offsets: array<u32>;
@group(0) @binding(3) var<storage, read_write> reduced: array<f32>;
@group(0) @binding(4) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
    let i = workgroup_index(wid, nwg) * WG + lid;
    if i >= params.num_segments * params.num_channels {
        return;
    }
    let segment = i / params.num_channels;
    let channel = i % params.num_channels;
    let first = offsets[segment];
    let last = offsets[segment + 1u];
#ifdef MAX
    var value = LOWEST;
#else
    var value = 0.0;
#endif
    for (var at = first; at < min(last, params.num_sorted); at++) {
        let point = point_from_sorted[at];
        if point >= params.num_points {
            continue;
        }
        let next = features[point * params.num_channels + channel];
#ifdef MAX
        value = max(value, next);
#else
        value += next;
#endif
    }
#ifdef MAX
    reduced[i] = value;
#else
    reduced[i] = value / f32(last - first);
#endif
}
