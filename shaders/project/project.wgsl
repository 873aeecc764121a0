// The pixel at which a point is seen, -1 where it is not. One thread per point. With UNHIDDEN nothing hides a point.
// `points` [num_points, 3], `depth` [height, width], `pixel_from_point` [num_points].
#import shared/linear_id

const WG: u32 = 256u;

struct Params {
    // The rows of world to camera.
    xx: f32, xy: f32, xz: f32, xt: f32,
    yx: f32, yy: f32, yz: f32, yt: f32,
    zx: f32, zy: f32, zz: f32, zt: f32,
    focal_x: f32, focal_y: f32, center_x: f32, center_y: f32,
    depth_tolerance: f32, num_points: u32, width: u32, height: u32,
    border: u32,
}

@group(0) @binding(0) var<storage, read> points: array<f32>;
@group(0) @binding(1) var<storage, read_write> pixel_from_point: array<i32>;
#ifdef UNHIDDEN
@group(0) @binding(2) var<uniform> params: Params;
#else
@group(0) @binding(2) var<storage, read> depth: array<f32>;
@group(0) @binding(3) var<uniform> params: Params;
#endif

fn inside(at: f32, size: u32) -> bool {
    return at >= f32(params.border) && at < f32(size) - f32(params.border);
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
    let i = workgroup_index(wid, nwg) * WG + lid;
    if i >= params.num_points {
        return;
    }
    let p = vec3<f32>(points[3u * i], points[3u * i + 1u], points[3u * i + 2u]);
    let z = params.zx * p.x + params.zy * p.y + params.zz * p.z + params.zt;
    pixel_from_point[i] = -1;
    if !(z > 0.0) {
        return;
    }
    let x = params.xx * p.x + params.xy * p.y + params.xz * p.z + params.xt;
    let y = params.yx * p.x + params.yy * p.y + params.yz * p.z + params.yt;
    let column = round(x * params.focal_x / z + params.center_x);
    let row = round(y * params.focal_y / z + params.center_y);
    if !(inside(column, params.width) && inside(row, params.height)) {
        return;
    }
    let pixel = u32(row) * params.width + u32(column);
#ifdef UNHIDDEN
    pixel_from_point[i] = i32(pixel);
#else
    let seen = depth[pixel];
    if abs(seen - z) <= params.depth_tolerance * seen {
        pixel_from_point[i] = i32(pixel);
    }
#endif
}
