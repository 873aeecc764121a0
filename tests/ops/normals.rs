//! Normals of known surfaces, and of any points against the twin.

use geopurify::gpu::shaders;
use geopurify::ops::knn::knn_points;
use geopurify::ops::normals::{Orientation, normals};
use geopurify::ops::{float_tensor, float_values, int_tensor};

use crate::common::{Random, devices};
use crate::helpers::twin::{against_twin, sizes};
use crate::helpers::voxels::surface;

#[test]
fn normals_of_a_tilted_plane_and_a_sphere() {
    let mut random = Random(12);
    let n = 500;
    let tilted = [0.6_f32, 0.0, 0.8];
    let plane: Vec<f32> = (0..n)
        .flat_map(|_| {
            let (u, v) = (random.signed(), random.signed());
            [0.8 * u + 100.0, v - 40.0, -0.6 * u + 3.0]
        })
        .collect();
    let sphere: Vec<f32> = (0..n)
        .flat_map(|_| {
            let p = [random.signed(), random.signed(), random.signed()];
            let norm = p.iter().map(|v| v * v).sum::<f32>().sqrt();
            p.map(|v| v / norm)
        })
        .collect();
    for (name, device) in devices() {
        let run = |points: &[f32], orientation| {
            let points = float_tensor(points.to_vec(), [points.len() / 3, 3], &device);
            let neighbors = knn_points(points.clone(), 16, false, 0..points.dims()[0]).unwrap().index;
            float_values(normals(points, neighbors, 0, orientation).unwrap()).unwrap()
        };
        for normal in run(&plane, Orientation::Up).chunks_exact(3) {
            let along: f32 = normal.iter().zip(tilted).map(|(a, b)| a * b).sum();
            assert!(along > 1.0 - 1e-4, "{name}: {normal:?}");
        }
        let inward = run(&sphere, Orientation::Viewpoint([0.0; 3]));
        let mut agree = 0.0;
        for (normal, point) in inward.chunks_exact(3).zip(sphere.chunks_exact(3)) {
            let along: f32 = normal.iter().zip(point).map(|(a, b)| a * b).sum();
            assert!(along <= 0.0, "{name}: {normal:?} at {point:?} looks away from the view point");
            agree -= along / n as f32;
        }
        assert!(agree > 0.98, "{name}: {agree}");
        // One point, and coincident ones: the documented answer.
        assert_eq!(run(&[1.0, 2.0, 3.0], Orientation::Up), [0.0, 0.0, 1.0], "{name}");
        assert_eq!(run(&[1.0; 30], Orientation::Up), [0.0, 0.0, 1.0].repeat(10), "{name}");
    }
}

#[test]
fn normals_equal_the_twin() {
    for n in sizes(shaders::normals::normals::WG) {
        let points: Vec<f32> =
            surface(n, 13).chunks_exact(4).flat_map(|c| [c[1] as f32, c[2] as f32, c[3] as f32]).collect();
        let mut random = Random(14);
        let neighbors: Vec<i32> = (0..n * 9).map(|_| random.below(n + 1) as i32 - 1).collect();
        against_twin(
            |device| {
                let points = float_tensor(points.clone(), [n, 3], device);
                let neighbors = int_tensor(neighbors.clone(), [n, 9], device);
                let view = Orientation::Viewpoint([3.0, 5.0, 900.0]);
                // The last rows on their own are the last rows of all.
                let first = n / 3;
                let part = normals(points.clone(), neighbors.clone().slice([first..n, 0..9]), first, view).unwrap();
                let all = float_values(normals(points, neighbors, 0, view).unwrap()).unwrap();
                assert_eq!(float_values(part).unwrap(), all[3 * first..]);
                all
            },
            |name, found, twin| {
                for (i, (a, b)) in found.chunks_exact(3).zip(twin.chunks_exact(3)).enumerate() {
                    let along: f32 = a.iter().zip(b).map(|(a, b)| a * b).sum();
                    // Random neighbours make near-ties of the two smallest variances rare, not impossible.
                    assert!(along > 0.999, "{name}, {n} points, point {i}: {a:?} {b:?}");
                }
            },
        );
    }
}
