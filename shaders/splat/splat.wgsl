// Points as discs that face the camera; one thread per point, which walks over the pixels of its disc.
// A pixel belongs, among the points on its front surface, to the one whose centre is nearest in the
// image, of equals to the lowest index. Four launches find it, told apart by `stage` and not by the
// source: the same code gives the same bits each time, which the comparisons rely on.
//   0  nearest: least depth of any disc on the pixel
//   1  closest: least squared distance in the image among points at most `slack` radii behind that depth
//   2  index:   least index among those at that distance
//   3  nearest: the depth of that point
// Depths are positive, so their bits are ordered like themselves. Image coordinates are rounded to
// 1/SUBPIXELS of a pixel: distances are whole numbers.
// `points` [num_points, 3], `radii` [num_points] in the points' unit, below 0 for points that are not drawn;
// the others [height, width], filled with 0xffffffff before stage 0.
#import shared/linear_id
#import shared/pinhole

const WG: u32 = 256u;
const SUBPIXELS: i32 = 16;
const SUBPIXEL_BITS: u32 = 4u;
// In subpixels. A disc of the least radius holds a pixel's centre wherever it lies.
const MIN_RADIUS: i32 = 12;
const MAX_RADIUS: i32 = 512;
// Below the bits of an infinite depth.
const MAX_DEPTH: f32 = 3.0e38;

struct Params {
    num_points: u32, width: u32, height: u32, stage: u32,
    focal_x: f32, focal_y: f32, principal_x: f32, principal_y: f32,
    xx: f32, xy: f32, xz: f32, yx: f32, yy: f32, yz: f32, zx: f32, zy: f32, zz: f32,
    center_x: f32, center_y: f32, center_z: f32,
    near: f32, slack: f32,
}

@group(0) @binding(0) var<storage, read> points: array<f32>;
@group(0) @binding(1) var<storage, read> radii: array<f32>;
@group(0) @binding(2) var<storage, read_write> nearest: array<atomic<u32>>;
@group(0) @binding(3) var<storage, read_write> closest: array<atomic<u32>>;
@group(0) @binding(4) var<storage, read_write> index: array<atomic<u32>>;
@group(0) @binding(5) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
    let i = workgroup_index(wid, nwg) * WG + lid;
    if i >= params.num_points || !(radii[i] >= 0.0) {
        return;
    }
    let camera = Pinhole(
        vec3<f32>(params.xx, params.xy, params.xz),
        vec3<f32>(params.yx, params.yy, params.yz),
        vec3<f32>(params.zx, params.zy, params.zz),
        vec3<f32>(params.center_x, params.center_y, params.center_z),
    );
    let p = to_camera(camera, vec3<f32>(points[3u * i], points[3u * i + 1u], points[3u * i + 2u]));
    if !(p.z >= params.near && p.z < MAX_DEPTH) {
        return;
    }
    let inverse = 1.0 / p.z;
    let u = params.focal_x * (p.x * inverse) + params.principal_x;
    let v = params.focal_y * (p.y * inverse) + params.principal_y;
    let reach = params.focal_x * (radii[i] * inverse) * f32(SUBPIXELS);
    let radius = i32(clamp(reach, f32(MIN_RADIUS), f32(MAX_RADIUS)));
    let margin = f32(MAX_RADIUS / SUBPIXELS + 1);
    if !(u > -margin && u < f32(params.width) + margin && v > -margin && v < f32(params.height) + margin) {
        return;
    }
    let at = vec2<i32>(floor(vec2<f32>(u, v) * f32(SUBPIXELS) + 0.5));
    let first = max((at - radius + SUBPIXELS - 1) >> vec2<u32>(SUBPIXEL_BITS), vec2<i32>(0));
    let last = min((at + radius) >> vec2<u32>(SUBPIXEL_BITS), vec2<i32>(i32(params.width), i32(params.height)) - 1);
    let depth = bitcast<u32>(p.z);
    let front = p.z - params.slack * radii[i];
    for (var y = first.y; y <= last.y; y++) {
        let dy = y * SUBPIXELS - at.y;
        for (var x = first.x; x <= last.x; x++) {
            let dx = x * SUBPIXELS - at.x;
            let distance = u32(dx * dx + dy * dy);
            if distance > u32(radius * radius) {
                continue;
            }
            let pixel = u32(y) * params.width + u32(x);
            if params.stage == 0u {
                atomicMin(&nearest[pixel], depth);
                continue;
            }
            if params.stage == 3u {
                if atomicLoad(&index[pixel]) == i {
                    atomicStore(&nearest[pixel], depth);
                }
                continue;
            }
            if !(front <= bitcast<f32>(atomicLoad(&nearest[pixel]))) {
                continue;
            }
            if params.stage == 1u {
                atomicMin(&closest[pixel], distance);
            } else if atomicLoad(&closest[pixel]) == distance {
                atomicMin(&index[pixel], i);
            }
        }
    }
}
