// Triangles through every pixel: the nearest, of equally near ones the lowest index. A triangle is walked
// over the pixels of its bounding box by one thread if these are few, by a whole workgroup if they are
// many (LARGE). One source serves both, and the two stages of each: the same code gives the same depths
// each time, which the comparison in stage 1 relies on.
//   0  nearest: least depth of any triangle at the pixel
//   1  index: least index among the triangles at that depth
// Triangles with a corner twice are not drawn.
// With `large` 0 a workgroup takes WG triangles, with 1 a single one.
// `vertices` [num_vertices, 3], `triangles` [num_triangles, 3] with indices below num_vertices; the others
// [height, width], filled with 0xffffffff before stage 0, depths as the bits of positive floats.
#import shared/linear_id
#import shared/pinhole
#import shared/triangle

const WG: u32 = 256u;
// Pixels of a bounding box from which on a triangle is large.
const LARGE: i32 = 512;
const MAX_DEPTH: f32 = 3.0e38;

struct Params {
    num_triangles: u32, width: u32, height: u32, stage: u32, large: u32,
    focal_x: f32, focal_y: f32, principal_x: f32, principal_y: f32, ray_x: f32, ray_y: f32,
    xx: f32, xy: f32, xz: f32, yx: f32, yy: f32, yz: f32, zx: f32, zy: f32, zz: f32,
    center_x: f32, center_y: f32, center_z: f32,
    near: f32,
}

@group(0) @binding(0) var<storage, read> vertices: array<f32>;
@group(0) @binding(1) var<storage, read> triangles: array<u32>;
@group(0) @binding(2) var<storage, read_write> nearest: array<atomic<u32>>;
@group(0) @binding(3) var<storage, read_write> index: array<atomic<u32>>;
@group(0) @binding(4) var<uniform> params: Params;

// Least x and y, then largest x and y, of what was seen so far in the image.
var<private> bounds: vec4<f32>;

fn extend(p: vec3<f32>) {
    let inverse = 1.0 / p.z;
    let u = params.focal_x * (p.x * inverse) + params.principal_x;
    let v = params.focal_y * (p.y * inverse) + params.principal_y;
    bounds = vec4<f32>(min(bounds.x, u), min(bounds.y, v), max(bounds.z, u), max(bounds.w, v));
}

// The end of an edge that is in front of the near plane, and where the edge passes it.
fn extend_edge(p: vec3<f32>, q: vec3<f32>) {
    if p.z >= params.near {
        extend(p);
    }
    if (p.z >= params.near) != (q.z >= params.near) {
        let t = (params.near - p.z) / (q.z - p.z);
        extend(vec3<f32>(p.x + t * (q.x - p.x), p.y + t * (q.y - p.y), params.near));
    }
}

fn vertex(camera: Pinhole, i: u32) -> vec3<f32> {
    return to_camera(camera, vec3<f32>(vertices[3u * i], vertices[3u * i + 1u], vertices[3u * i + 2u]));
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
    let workgroup = workgroup_index(wid, nwg);
    let large = params.large == 1u;
    let i = select(workgroup * WG + lid, workgroup, large);
    if i >= params.num_triangles {
        return;
    }
    let camera = Pinhole(
        vec3<f32>(params.xx, params.xy, params.xz),
        vec3<f32>(params.yx, params.yy, params.yz),
        vec3<f32>(params.zx, params.zy, params.zz),
        vec3<f32>(params.center_x, params.center_y, params.center_z),
    );
    let corners = ascending(vec3<u32>(triangles[3u * i], triangles[3u * i + 1u], triangles[3u * i + 2u]));
    if corners.x == corners.y || corners.y == corners.z {
        return;
    }
    let t = Triangle(vertex(camera, corners.x), vertex(camera, corners.y), vertex(camera, corners.z));
    bounds = vec4<f32>(MAX_DEPTH, MAX_DEPTH, -MAX_DEPTH, -MAX_DEPTH);
    extend_edge(t.a, t.b);
    extend_edge(t.b, t.c);
    extend_edge(t.c, t.a);
    // A pixel more on every side than rounding can need.
    let size = vec2<f32>(f32(params.width), f32(params.height));
    let first = vec2<i32>(clamp(floor(bounds.xy) - 1.0, vec2<f32>(0.0), size));
    let last = vec2<i32>(clamp(ceil(bounds.zw) + 1.0, vec2<f32>(-1.0), size - 1.0));
    let box = last - first + 1;
    if box.x <= 0 || box.y <= 0 || (box.x * box.y >= LARGE) != large {
        return;
    }
    let start = select(0, i32(lid), large);
    let step = select(1, i32(WG), large);
    for (var k = start; k < box.x * box.y; k += step) {
        let x = first.x + k % box.x;
        let y = first.y + k / box.x;
        let direction = vec2<f32>((f32(x) - params.principal_x) * params.ray_x,
                                  (f32(y) - params.principal_y) * params.ray_y);
        let w = weights(t, direction);
        let inside = (w.x >= 0.0 && w.y >= 0.0 && w.z >= 0.0) || (w.x <= 0.0 && w.y <= 0.0 && w.z <= 0.0);
        let sum = w.x + w.y + w.z;
        if !inside || sum == 0.0 {
            continue;
        }
        let z = (w.x * t.a.z + w.y * t.b.z + w.z * t.c.z) / sum;
        if !(z >= params.near && z < MAX_DEPTH) {
            continue;
        }
        let pixel = u32(y) * params.width + u32(x);
        if params.stage == 0u {
            atomicMin(&nearest[pixel], bitcast<u32>(z));
        } else if atomicLoad(&nearest[pixel]) == bitcast<u32>(z) {
            atomicMin(&index[pixel], i);
        }
    }
}
