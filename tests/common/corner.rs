//! A furnished corner of a room, for tests that need a scan.

use geopurify::cloud::PointCloud;
use glam::DVec3;

/// A corner of 3 x 3 x 2 m with a box in it; colours by surface, `step` metres between points.
pub(crate) fn corner(step: f64) -> PointCloud {
    let mut cloud = PointCloud::default();
    let (mut colors, mut normals) = (Vec::new(), Vec::new());
    let mut side = |from: [f64; 3], u: [f64; 3], v: [f64; 3], normal: [f32; 3], color: [u8; 3]| {
        let length = |a: [f64; 3]| DVec3::from(a).length();
        let (nu, nv) = ((length(u) / step) as usize, (length(v) / step) as usize);
        for (i, j) in (0..nu).flat_map(|i| (0..nv).map(move |j| (i, j))) {
            let (s, t) = ((i as f64 + 0.5) / nu as f64, (j as f64 + 0.5) / nv as f64);
            cloud.positions.push(std::array::from_fn(|a| from[a] + s * u[a] + t * v[a]));
            colors.push(color);
            normals.push(normal);
        }
    };
    side([0.0; 3], [3.0, 0.0, 0.0], [0.0, 3.0, 0.0], [0.0, 0.0, 1.0], [150, 110, 70]);
    side([0.0; 3], [3.0, 0.0, 0.0], [0.0, 0.0, 2.0], [0.0, 1.0, 0.0], [220, 215, 200]);
    side([0.0; 3], [0.0, 3.0, 0.0], [0.0, 0.0, 2.0], [1.0, 0.0, 0.0], [200, 210, 220]);
    let (low, top) = ([0.8, 0.8, 0.0], [0.8, 0.8, 0.6]);
    side(top, [0.9, 0.0, 0.0], [0.0, 0.9, 0.0], [0.0, 0.0, 1.0], [190, 50, 40]);
    side([1.7, 0.8, 0.0], [0.0, 0.9, 0.0], [0.0, 0.0, 0.6], [1.0, 0.0, 0.0], [170, 40, 30]);
    side([0.8, 1.7, 0.0], [0.9, 0.0, 0.0], [0.0, 0.0, 0.6], [0.0, 1.0, 0.0], [160, 45, 35]);
    side(low, [0.9, 0.0, 0.0], [0.0, 0.0, 0.6], [0.0, -1.0, 0.0], [150, 40, 30]);
    cloud.colors = Some(colors);
    cloud.normals = Some(normals);
    cloud
}
