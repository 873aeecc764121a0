// The colour of every pixel: the corners' colours by their weights where the ray meets the triangle,
// which is interpolation in space and not in the image. One thread per pixel.
// `vertices` [num_vertices, 3], `triangles` [num_triangles, 3], `colors` [num_vertices, channels], `index`
// [height, width], which is no triangle from num_triangles on, out [height, width, channels], 0 where there is
// none.
#import shared/linear_id
#import shared/pinhole
#import shared/triangle

const WG: u32 = 256u;

struct Params {
    num_triangles: u32, num_channels: u32, width: u32, height: u32,
    principal_x: f32, principal_y: f32, ray_x: f32, ray_y: f32,
    xx: f32, xy: f32, xz: f32, yx: f32, yy: f32, yz: f32, zx: f32, zy: f32, zz: f32,
    center_x: f32, center_y: f32, center_z: f32,
}

@group(0) @binding(0) var<storage, read> vertices: array<f32>;
@group(0) @binding(1) var<storage, read> triangles: array<u32>;
@group(0) @binding(2) var<storage, read> colors: array<f32>;
@group(0) @binding(3) var<storage, read> index: array<u32>;
@group(0) @binding(4) var<storage, read_write> out: array<f32>;
@group(0) @binding(5) var<uniform> params: Params;

fn vertex(camera: Pinhole, i: u32) -> vec3<f32> {
    return to_camera(camera, vec3<f32>(vertices[3u * i], vertices[3u * i + 1u], vertices[3u * i + 2u]));
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
    let pixel = workgroup_index(wid, nwg) * WG + lid;
    if pixel >= params.width * params.height {
        return;
    }
    let i = index[pixel];
    if i >= params.num_triangles {
        for (var channel = 0u; channel < params.num_channels; channel++) {
            out[pixel * params.num_channels + channel] = 0.0;
        }
        return;
    }
    let camera = Pinhole(
        vec3<f32>(params.xx, params.xy, params.xz),
        vec3<f32>(params.yx, params.yy, params.yz),
        vec3<f32>(params.zx, params.zy, params.zz),
        vec3<f32>(params.center_x, params.center_y, params.center_z),
    );
    let corners = ascending(vec3<u32>(triangles[3u * i], triangles[3u * i + 1u], triangles[3u * i + 2u]));
    let t = Triangle(vertex(camera, corners.x), vertex(camera, corners.y), vertex(camera, corners.z));
    let direction = vec2<f32>((f32(pixel % params.width) - params.principal_x) * params.ray_x,
                              (f32(pixel / params.width) - params.principal_y) * params.ray_y);
    var w = weights(t, direction);
    w = w / (w.x + w.y + w.z);
    for (var channel = 0u; channel < params.num_channels; channel++) {
        let a = colors[corners.x * params.num_channels + channel];
        let b = colors[corners.y * params.num_channels + channel];
        let c = colors[corners.z * params.num_channels + channel];
        out[pixel * params.num_channels + channel] = w.x * a + w.y * b + w.z * c;
    }
}
