//! Lifting beyond the golden cases: points that no view sees, views past the memory budget, and views that do not
//! fit.

use burn::tensor::Device;
use geopurify::gpu::{Limits, with_limits};
use geopurify::lift::{LiftError, Lifted, Lifter, View};
use geopurify::ops::project::{Camera, Visibility, project_unhidden};
use geopurify::ops::{int_tensor, int_values};
use geopurify::purify::FeatureSource as _;

use crate::camera::{CAMERA, points, tensor};
use crate::common::everywhere;

const SIZE: [usize; 2] = [60, 80];

/// A view whose left half has query 0, whose right half has none.
fn half_view(num_queries: usize, device: &Device) -> View {
    view(|i| if i % 80 < 40 { 0 } else { -1 }, num_queries, device)
}

/// Two channels and three labels.
fn view(query: impl Fn(usize) -> i32, num_queries: usize, device: &Device) -> View {
    let embeddings = (0..num_queries * 2).map(|i| i as f32 + 1.0).collect();
    let logits = (0..num_queries * 3).map(|i| i as f32).collect();
    let query_from_pixel = int_tensor((0..SIZE[0] * SIZE[1]).map(query).collect(), SIZE, device);
    View::from_parts(query_from_pixel, embeddings, logits, num_queries).unwrap()
}

#[test]
fn points_without_a_query_or_a_view_take_the_nearest() {
    everywhere(|name, device| {
        // Left and right of the middle in sight, and one behind the camera, nearest to the right one.
        let at = vec![[2.0, 0.3, 0.0], [2.0, -0.3, 0.0], [-2.0, -0.4, 0.0]];
        let mut lifter = Lifter::new(at, Visibility::default(), device);
        let projection = lifter.see(CAMERA, CAMERA, &vec![2.0; 60 * 80]).unwrap();
        assert_eq!(projection.num_visible(), 2, "{name}");
        let report = lifter.add(&projection, &half_view(2, device)).unwrap();
        assert_eq!((report.num_visible, report.num_filled), (2, 1), "{name}");
        assert_eq!(lifter.query_from_point(0).unwrap(), [Some(0), Some(0), None], "{name}");
        // Two bytes a point, and the one row that is used.
        assert_eq!(lifter.bytes_in_memory(), 3 * 2 + (2 + 3) * 4, "{name}");
        let lifted = lifter.finish().unwrap();
        assert_eq!((lifted.consensus.clone(), lifted.num_unseen), (vec![2, 2, -1], 1), "{name}");
        assert_eq!(lifted.num_views_of_point, [1, 1, 0], "{name}");
        assert_eq!(lifted.read(0..2).unwrap(), [1.0, 2.0, 1.0, 2.0, 1.0, 2.0], "{name}");
        assert_eq!(lifted.read(1..2).unwrap(), [2.0, 2.0, 2.0], "{name}");
    });
}

#[test]
fn a_depth_camera_of_its_own_says_only_what_is_hidden() {
    // The picture has twice as many pixels each way, and more at its upper and lower edge.
    let color = Camera { focal: [100.0, 80.0], center: [80.0, 80.0], width: 160, height: 160, ..CAMERA };
    let cases: [([f32; 3], i32); 8] = [
        ([2.0, 0.0, 0.0], 80 * 160 + 80),
        ([2.0, 0.4, 0.5], 60 * 160 + 60),
        // Within the border of the depth map, which counts, and of the picture, which does not.
        ([2.0, 1.4, 0.0], 80 * 160 + 10),
        ([2.0, 1.44, 0.0], -1),
        // In the picture, outside the depth map.
        ([2.0, 0.0, 1.6], -1),
        // Hidden, too near, behind both.
        ([2.3, 0.0, 0.0], -1),
        ([1.8, 0.0, 0.0], -1),
        ([-2.0, 0.0, 0.0], -1),
    ];
    let at: Vec<[f32; 3]> = cases.iter().map(|case| case.0).collect();
    let expected: Vec<i32> = cases.iter().map(|case| case.1).collect();
    everywhere(|name, device| {
        let lifter = Lifter::new(at.clone(), Visibility::default(), device);
        let projection = lifter.see(color, CAMERA, &vec![2.0; 60 * 80]).unwrap();
        assert_eq!(projection.pixel_from_point().unwrap(), expected, "{name}");
        assert_eq!(projection.num_visible(), 3, "{name}");
        let error = lifter.see(color, CAMERA, &vec![2.0; 160 * 160]).unwrap_err();
        assert_eq!(error.to_string(), "the depth map has 25600 pixels, the camera 80 x 60", "{name}");
        // Seen at any depth, but not from behind.
        let found = project_unhidden(tensor(&at, device), color, 10).unwrap();
        let unhidden = [12880, 9660, 12810, -1, 16 * 160 + 80, 12880, 12880, -1];
        assert_eq!(int_values(found).unwrap(), unhidden, "{name}");
    });
}

/// Six views of the same points, each with queries of its own.
fn six_views(budget: Option<u64>, device: &Device) -> Lifter {
    let at = points(900, 2.0, 3);
    let mut lifter = Lifter::new(at, Visibility { depth_tolerance: 0.6, ..Visibility::default() }, device);
    if let Some(budget) = budget {
        lifter = lifter.with_memory_budget(budget);
    }
    for v in 0..6 {
        let depth = vec![1.0 + 0.1 * v as f32; 60 * 80];
        let projection = lifter.see(CAMERA, CAMERA, &depth).unwrap();
        let pixels = |i: usize| if i % 7 == v { -1 } else { (i / 80 / 4 + v) as i32 };
        lifter.add(&projection, &view(pixels, 20 + v, device)).unwrap();
    }
    assert_eq!(lifter.num_views(), 6);
    lifter
}

fn all_of(lifted: &Lifted) -> (Vec<f32>, Vec<i32>, Vec<u32>, usize) {
    let features = lifted.read(0..lifted.num_channels()).unwrap();
    let (consensus, counts) = (lifted.consensus.clone(), lifted.num_views_of_point.clone());
    (features, consensus, counts, lifted.num_unseen)
}

#[test]
fn views_past_the_memory_budget_go_to_a_file_and_change_nothing() {
    everywhere(|name, device| {
        let lifter = six_views(None, device);
        assert_eq!(lifter.bytes_spilled(), 0, "{name}");
        let queries: Vec<_> = (0..6).map(|v| lifter.query_from_point(v).unwrap()).collect();
        let counts: Vec<usize> = queries.iter().map(|queries| queries.iter().flatten().count()).collect();
        assert!(counts.iter().all(|count| *count > 20), "{name}: {counts:?}");
        assert!(lifter.query_from_point(6).unwrap().is_empty(), "{name}");
        let whole = lifter.bytes_in_memory();
        let expected = all_of(&lifter.finish().unwrap());
        assert!(expected.3 > 0, "{name}: some points are seen by no view");
        // Nothing, about half, and all but the last in memory.
        for (budget, spilled) in [(0, 6..7), (whole / 2, 2..5), (whole - 1, 1..2)] {
            let lifter = six_views(Some(budget), device);
            let bytes = lifter.bytes_spilled();
            assert!(bytes.is_multiple_of(900 * 2) && spilled.contains(&(bytes / 900 / 2)), "{name}, {budget}: {bytes}");
            assert_eq!(bytes + lifter.bytes_in_memory(), whole, "{name}, {budget}");
            let found: Vec<_> = (0..6).map(|v| lifter.query_from_point(v).unwrap()).collect();
            assert_eq!(found, queries, "{name}");
            // With buffers that hold a few points of all views at a time as well.
            let limits = Limits { max_binding_bytes: 16_000, max_workgroups: 65_535 };
            let lifted = if budget == 0 { with_limits(limits, || lifter.finish()) } else { lifter.finish() };
            assert_eq!(all_of(&lifted.unwrap()), expected, "{name}, {budget}");
        }
    });
}

/// The folder of temporary files is that of the process, so this one starts itself anew with another.
#[cfg(unix)]
#[test]
fn a_temporary_file_that_cannot_be_written_is_named() {
    const MARK: &str = "GEOPURIFY_TEST_SPILL";
    if std::env::var_os(MARK).is_some() {
        let device = Device::flex();
        let mut lifter = Lifter::new(vec![[2.0, 0.3, 0.0]], Visibility::default(), &device).with_memory_budget(0);
        let projection = lifter.see(CAMERA, CAMERA, &vec![2.0; 60 * 80]).unwrap();
        let error = lifter.add(&projection, &half_view(2, &device)).unwrap_err();
        assert!(matches!(&error, LiftError::Spill { bytes: 2, .. }), "{error:?}");
        assert!(error.to_string().starts_with("2 bytes of views are past the memory budget"), "{error}");
        assert!(error.to_string().contains("/dev/null/nowhere"), "{error}");
        assert_eq!(lifter.num_views(), 0);
        return;
    }
    let status = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "lift::a_temporary_file_that_cannot_be_written_is_named"])
        .env(MARK, "1")
        .env("TMPDIR", "/dev/null/nowhere")
        .output()
        .unwrap();
    assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stdout));
}

#[test]
fn views_that_do_not_fit_are_refused_or_add_nothing() {
    everywhere(|name, device| {
        let at = vec![[2.0, 0.3, 0.0], [2.0, -0.3, 0.0]];
        let mut lifter = Lifter::new(at, Visibility::default(), device);
        let error = lifter.see(CAMERA, CAMERA, &[1.0; 7]).unwrap_err();
        assert_eq!(error.to_string(), "the depth map has 7 pixels, the camera 80 x 60");
        let projection = lifter.see(CAMERA, CAMERA, &vec![2.0; 60 * 80]).unwrap();
        let small = View::from_parts(int_tensor(vec![0; 48], [6, 8], device), vec![1.0; 2], vec![1.0; 3], 1).unwrap();
        assert!(lifter.add(&projection, &small).unwrap_err().to_string().starts_with("the view has 48 pixels"));
        // Views in which no query claims anything, or no point is in sight.
        assert_eq!(lifter.add(&projection, &view(|_| -1, 2, device)).unwrap().num_filled, 0, "{name}");
        assert_eq!(lifter.add(&projection, &view(|_| -5, 0, device)).unwrap().num_visible, 2, "{name}");
        let dark = lifter.see(CAMERA, CAMERA, &vec![0.0; 60 * 80]).unwrap();
        assert_eq!(lifter.add(&dark, &half_view(2, device)).unwrap().num_visible, 0, "{name}");
        assert_eq!((lifter.num_views(), lifter.bytes_in_memory()), (0, 0), "{name}");
        lifter.add(&projection, &half_view(2, device)).unwrap();
        // Views may have different numbers of queries, but not of channels or labels.
        lifter.add(&projection, &half_view(3, device)).unwrap();
        let pixels = int_tensor(vec![0; 60 * 80], SIZE, device);
        let narrow = View::from_parts(pixels, vec![1.0; 1], vec![1.0; 3], 1).unwrap();
        let error = lifter.add(&projection, &narrow).unwrap_err();
        assert_eq!(error.to_string(), "a view has [1, 3] channels and labels, the first view has [2, 3]");
        let other = Lifter::new(vec![[2.0, 0.3, 0.0]], Visibility::default(), device);
        let projection = other.see(CAMERA, CAMERA, &vec![2.0; 60 * 80]).unwrap();
        let error = lifter.add(&projection, &half_view(2, device)).unwrap_err();
        assert_eq!(error.to_string(), "the projection is of 1 points, the scan has 2");
        assert_eq!(lifter.finish().unwrap().num_views_of_point, [2, 2], "{name}");

        let error = other.finish().unwrap_err();
        assert!(error.to_string().contains("none of the 0 views sees any of the 1 points"), "{error}");
        let mut empty = Lifter::new(Vec::new(), Visibility::default(), device);
        let projection = empty.see(CAMERA, CAMERA, &vec![2.0; 60 * 80]).unwrap();
        assert_eq!(empty.add(&projection, &half_view(2, device)).unwrap().num_visible, 0, "{name}");
        assert!(empty.finish().is_err(), "{name}");
    });
}
