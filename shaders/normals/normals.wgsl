// Normal of every point: the direction of least variance among its neighbours and itself (PCA, Hoppe
// et al. 1992), by eight cyclic Jacobi sweeps on the 3 x 3 covariance, turned towards the view point
// or, without one, upwards. One thread per point.
// `points` [N, 3]; `neighbors` [num_rows, k] (not a point, such as -1: none) and `normals` [num_rows, 3] of the points from
// first_row on.
#import shared/linear_id

const WG: u32 = 64u;
const SWEEPS: u32 = 8u;

struct Params { num_points: u32, num_rows: u32, first_row: u32, k: u32, has_viewpoint: u32, view_x: f32, view_y: f32, view_z: f32 }

@group(0) @binding(0) var<storage, read> points: array<f32>;
@group(0) @binding(1) var<storage, read> neighbors: array<i32>;
@group(0) @binding(2) var<storage, read_write> normals: array<f32>;
@group(0) @binding(3) var<uniform> params: Params;

fn point(i: u32) -> vec3<f32> {
    return vec3<f32>(points[3u * i], points[3u * i + 1u], points[3u * i + 2u]);
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
    let i = workgroup_index(wid, nwg) * WG + lid;
    if i >= params.num_rows {
        return;
    }
    let p = point(params.first_row + i);
    // Differences to the point itself: coordinates far from the origin lose nothing.
    var count = 1.0;
    var sum = vec3<f32>(0.0);
    for (var j = 0u; j < params.k; j++) {
        let n = u32(neighbors[i * params.k + j]);
        if n < params.num_points {
            sum += point(n) - p;
            count += 1.0;
        }
    }
    let mean = sum / count;
    var a: mat3x3<f32> = mat3x3<f32>();
    for (var j = 0u; j <= params.k; j++) {
        var d = -mean;
        if j < params.k {
            let n = u32(neighbors[i * params.k + j]);
            if n >= params.num_points {
                continue;
            }
            d = point(n) - p - mean;
        }
        a[0] += d.x * d;
        a[1] += d.y * d;
        a[2] += d.z * d;
    }
    let scale = a[0][0] + a[1][1] + a[2][2];
    var normal = vec3<f32>(0.0, 0.0, 1.0);
    if count >= 3.0 && scale > 0.0 {
        for (var column = 0u; column < 3u; column++) {
            a[column] /= scale;
        }
        var v = mat3x3<f32>(1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0);
        for (var sweep = 0u; sweep < SWEEPS; sweep++) {
            for (var pair = 0u; pair < 3u; pair++) {
                let r = select(0u, 1u, pair == 2u);
                let s = select(2u, 1u, pair == 0u);
                let off = a[r][s];
                if abs(off) < 1e-30 {
                    continue;
                }
                let theta = (a[s][s] - a[r][r]) / (2.0 * off);
                let t = select(-1.0, 1.0, theta >= 0.0) / (abs(theta) + sqrt(theta * theta + 1.0));
                let cosine = 1.0 / sqrt(t * t + 1.0);
                let sine = t * cosine;
                let o = 3u - r - s;
                let arr = a[r][r] - t * off;
                let ass = a[s][s] + t * off;
                let aro = cosine * a[r][o] - sine * a[s][o];
                let aso = sine * a[r][o] + cosine * a[s][o];
                a[r][r] = arr;
                a[s][s] = ass;
                a[r][s] = 0.0;
                a[s][r] = 0.0;
                a[r][o] = aro;
                a[o][r] = aro;
                a[s][o] = aso;
                a[o][s] = aso;
                let vr = cosine * v[r] - sine * v[s];
                v[s] = sine * v[r] + cosine * v[s];
                v[r] = vr;
            }
        }
        var least = 0u;
        if a[1][1] < a[least][least] {
            least = 1u;
        }
        if a[2][2] < a[least][least] {
            least = 2u;
        }
        normal = normalize(v[least]);
    }
    var flip = false;
    if params.has_viewpoint == 1u {
        flip = dot(normal, vec3<f32>(params.view_x, params.view_y, params.view_z) - p) < 0.0;
    } else if normal.z != 0.0 {
        flip = normal.z < 0.0;
    } else if normal.y != 0.0 {
        flip = normal.y < 0.0;
    } else {
        flip = normal.x < 0.0;
    }
    if flip {
        normal = -normal;
    }
    normals[3u * i] = normal.x;
    normals[3u * i + 1u] = normal.y;
    normals[3u * i + 2u] = normal.z;
}
