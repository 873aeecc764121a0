//! Lifting: from queries of views to features of points.

use burn::tensor::Device;
use geopurify::lift::{Lifter, Padding, View};
use geopurify::models::xdecoder::{Queries, TextEmbeddings};
use geopurify::ops::project::{Camera, Visibility};
use geopurify::purify::FeatureSource as _;

use crate::Line;
use crate::case::Case;
use crate::ops::{compare, equal, floats};

pub(crate) fn lift_xdecoder(case: &Case, device: &Device) -> Vec<Line> {
    let (_, points) = case.f32("in.points");
    let points: Vec<[f32; 3]> = points.as_chunks::<3>().0.to_vec();
    let (n, mut lines) = (points.len(), Vec::new());
    let [width, height]: [usize; 2] = serde_json::from_value(case.config["img_dim"].clone()).unwrap();
    let intrinsics = case.f32("in.intrinsics").1;
    let (focal, center) = ([intrinsics[0], intrinsics[5]], [intrinsics[2], intrinsics[6]]);
    let camera = Camera::centered(focal, center, [height, width]);
    let [fx, fy] = camera.focal;
    let scaled = [
        [fx, 0.0, camera.center[0], 0.0],
        [0.0, fy, camera.center[1], 0.0],
        [0.0, 0.0, 1.0, 0.0],
        [0.0, 0.0, 0.0, 1.0],
    ];
    lines.push(compare(case, "mid.scaled_intrinsics", scaled.as_flattened()));

    let (text_shape, text) = case.f32("in.text_embed");
    let unit = |row: &[f32]| {
        let norm = row.iter().map(|x| x * x).sum::<f32>().sqrt();
        row.iter().map(|x| x / norm).collect::<Vec<_>>()
    };
    let mut rows: Vec<f32> = text.chunks_exact(text_shape[1]).flat_map(unit).collect();
    lines.push(compare(case, "out.text_features", &rows));
    // The background's row, which lifting never reads.
    rows.resize(rows.len() + text_shape[1], 0.0);
    let text = TextEmbeddings {
        labels: vec![String::new(); text_shape[0]],
        rows: geopurify::ops::float_tensor(rows, [text_shape[0] + 1, text_shape[1]], device),
        logit_scale: case.f32("in.logit_scale").1[0],
    };
    let queries = Queries {
        pred_logits: floats(case, "in.pred_logits", device),
        pred_masks: floats::<4>(case, "in.pred_masks", device),
        mask_embed: floats(case, "in.mask_embed", device),
    };
    let (_, transforms) = case.f32("in.world_view_transform");
    let (_, depth) = case.i32("in.depth_mm");
    let visibility = Visibility {
        border: case.config["cut_boundary"].as_u64().unwrap() as usize,
        depth_tolerance: case.config["visibility_threshold"].as_f64().unwrap() as f32,
    };
    let mut lifter = Lifter::new(points, visibility, device);
    let (mut mapping, mut found_queries, mut filled) = (Vec::new(), Vec::new(), Vec::new());
    for (v, (transform, depth)) in transforms.chunks_exact(16).zip(depth.chunks_exact(width * height)).enumerate() {
        // Stored transposed.
        let row = |r: usize| std::array::from_fn(|c| transform[c * 4 + r]);
        let camera = Camera { world_to_camera: [row(0), row(1), row(2)], ..camera };
        let depth: Vec<f32> = depth.iter().map(|&mm| mm as f32 / 1000.0).collect();
        let projection = lifter.see(camera, camera, &depth).unwrap();
        let pixel_from_point = projection.pixel_from_point().unwrap();
        for &pixel in &pixel_from_point {
            let seen = pixel >= 0;
            mapping.extend(if seen { [pixel / width as i32, pixel % width as i32, 1] } else { [0; 3] });
        }
        let view = View::new(&queries, v, &text, [height, width], Padding::Kept).unwrap();
        let report = lifter.add(&projection, &view).unwrap();
        assert_eq!(report.num_visible, projection.num_visible());
        let queries = lifter.query_from_point(v).unwrap();
        let query_from_pixel = view.query_from_pixel().unwrap();
        found_queries.extend(queries.iter().map(|query| query.map_or(-1, |query| query as i32)));
        let claimed = |pixel: i32| query_from_pixel[pixel as usize] >= 0;
        filled.extend(pixel_from_point.iter().map(|&pixel| i32::from(pixel >= 0 && !claimed(pixel))));
        if v == 0 && case.tensors.names().iter().any(|name| name == "mid.view0_features") {
            let dim = text_shape[1];
            let features =
                queries.iter().flatten().flat_map(|&query| &view.embeddings()[query * dim..(query + 1) * dim]);
            lines.push(compare(case, "mid.view0_features", &features.copied().collect::<Vec<_>>()));
        }
    }
    // Rows and columns of points that are not seen mean nothing.
    let (_, mut expected) = case.i32("out.mapping");
    for pixel in expected.as_chunks_mut::<3>().0.iter_mut().filter(|pixel| pixel[2] == 0) {
        *pixel = [0; 3];
    }
    lines.push(equal("out.mapping", &mapping, &expected));
    lines.push(equal("mid.query", &found_queries, &case.i32("mid.query").1));
    lines.push(equal("mid.filled", &filled, &case.i32("mid.filled").1));

    let lifted = lifter.finish().unwrap();
    lines.push(equal("mid.consensus", &lifted.consensus, &case.i32("mid.consensus").1));
    let counts: Vec<i32> = lifted.num_views_of_point.iter().map(|&count| count as i32).collect();
    lines.push(equal("mid.view_count", &counts, &case.i32("mid.view_count").1));
    // Points that no view sees copy another's weights, which the case leaves at 0.
    let mut weights = lifted.weights.clone();
    (0..n).filter(|&i| lifted.consensus[i] < 0).for_each(|i| weights[i] = [0.0; 3]);
    lines.push(compare(case, "mid.agreement_top", lifted.agreement.as_flattened()));
    lines.push(compare(case, "mid.fusion_weights", weights.as_flattened()));
    lines.push(compare(case, "out.scene_features", &lifted.read(0..lifted.num_channels()).unwrap()));
    lines
}
