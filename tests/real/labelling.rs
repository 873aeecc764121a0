//! Labelling of real scans and recordings, and on every graphics adapter.

use std::fs;
use std::path::Path;

use geopurify::cloud::PointCloud;

use crate::corner::corner;
use crate::labelling_runs::{check_results, succeed, summary, text, write_corner, write_recording};

/// Real scans and recordings, labelled by networks that know nothing: what is tested is that everything runs, and that
/// every point gets an answer.
pub(crate) fn runs_end_to_end(data: &Path) {
    let folder = tempfile::tempdir().unwrap();
    let scans =
        ["pcd/livingroom_fragment.pcd", "pcd/office1.pcd", "ply/livingroom_mesh_binary.ply", "las/autzen_trim.laz"];
    for name in scans {
        let (scan, results) = (data.join(name), folder.path().join(name));
        succeed(&["infer", text(&scan), "-o", text(&results), "--views", "6"]);
        let source = PointCloud::read(&scan).unwrap();
        let labelled = check_results(&results, source.len(), 20);
        let same = |(a, b): (&[f64; 3], &[f64; 3])| {
            (0..3).all(|axis| a[axis] == b[axis] || (a[axis].is_nan() && b[axis].is_nan()))
        };
        assert!(source.positions.iter().zip(&labelled.positions).all(same), "{name}");
        let extension = if name.ends_with("laz") { "laz" } else { "ply" };
        assert!(summary(&results)["output"].as_str().unwrap().ends_with(extension));
    }
    for (name, least_points) in
        [("icl-redwood-rgbd5", 20_000), ("tum-fr1-desk-5", 10_000), ("colmap-text-4", 1039), ("nerfstudio-1", 10)]
    {
        let (recording, results) = (data.join(name), folder.path().join(name));
        succeed(&["infer", "--rgbd", text(&recording), "-o", text(&results)]);
        let points = summary(&results)["points"].as_u64().unwrap() as usize;
        assert!(points >= least_points, "{name}: {points}");
        check_results(&results, points, 20);
    }
    let (recording, results) = (data.join("realsense-noposes-4"), folder.path().join("realsense"));
    let (_, err) = succeed(&["infer", text(&recording), "-o", text(&results)]);
    assert!(err.contains("no poses: 4 of its 4 frames are labelled, each alone"), "{err}");
    assert_eq!(fs::read_dir(&results).unwrap().count(), 4);
}

pub(crate) fn every_adapter_gives_the_labels_of_the_host() {
    let adapters = geopurify::gpu::adapters();
    assert!(!adapters.is_empty(), "no graphics adapter: install a Vulkan driver, or set GEOPURIFY_DEVICE=cpu");
    let folder = tempfile::tempdir().unwrap();
    let recording = folder.path().join("recording");
    write_recording(&recording, 3);
    let (scan, host) = (folder.path().join("corner.ply"), folder.path().join("host"));
    write_corner(&scan);
    let with = |views: &[&str], device: &str, results: &Path| {
        let arguments = ["infer", text(&scan), "--words", "floor, wall, box", "--size", "192", "-o", text(results)];
        succeed(&[&arguments[..], views, &["--device", device]].concat());
        let labelled = check_results(results, corner(0.03).len(), 3);
        let label = &labelled.attribute("label").unwrap().data;
        (0..labelled.len()).map(|i| label.get_f64(i).unwrap() as i32).collect::<Vec<_>>()
    };
    for views in [&["--views", "2"][..], &["--rgbd", text(&recording)]] {
        let expected = with(views, "cpu", &host);
        for adapter in &adapters {
            let found =
                with(views, &adapter.index.to_string(), &folder.path().join(format!("adapter{}", adapter.index)));
            // Products are summed in another order, so a pixel whose two best queries are equal may go to the other.
            let same = found.iter().zip(&expected).filter(|(a, b)| a == b).count();
            assert!(same * 100 >= expected.len() * 99, "{}: {same} of {}", adapter.name, expected.len());
        }
    }
}
