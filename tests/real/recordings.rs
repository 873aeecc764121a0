//! Recordings of many programs: layout, poses, depth and conventions.

use std::path::Path;

use geopurify::views::check::{Reading, Verdict, check};
use geopurify::views::fuse::{FuseOptions, fuse};
use geopurify::views::{Dataset, Intrinsics, Layout, OpenOptions, PoseConvention, detect, open};
use glam::DVec3;

fn opened(path: &Path) -> Box<dyn Dataset> {
    open(path, &OpenOptions::default()).unwrap_or_else(|error| panic!("{error}"))
}

fn all(dataset: &dyn Dataset) -> Vec<usize> {
    (0..dataset.len()).collect()
}

pub(crate) fn are_read_checked_and_fused(data: &Path) {
    // Not by a macro: what those print is hidden where a test passes.
    let say = |line: &str| eprintln!("views: {line}");
    let read = |name: &str, layout: Layout| {
        let path = data.join(name);
        assert_eq!(detect(&path).unwrap_or_else(|error| panic!("{error}")), layout, "{name}");
        let dataset = opened(&path);
        say(&format!("{name}: {layout}, {}; {}", dataset.counts(), dataset.conventions()));
        dataset
    };
    let fused = |dataset: &dyn Dataset| {
        fuse(dataset, &all(dataset), &FuseOptions { voxel: 0.01, ..FuseOptions::default() }).unwrap()
    };
    let posed = |name: &str, dataset: &dyn Dataset, extent: [f64; 3]| {
        let checked = check(dataset).unwrap();
        say(&format!("{name}: {checked}"));
        assert_eq!(checked.verdict, Verdict::Confirmed, "{name}: {checked}");
        assert!((0.003..0.007).contains(&checked.agreement.median_error), "{name}: {checked}");
        let inverse = Reading::Convention(PoseConvention::OPENCV_WORLD_TO_CAMERA);
        let inverse = checked.others.iter().find(|(reading, _)| *reading == inverse).unwrap().1;
        assert!((0.02..0.06).contains(&inverse.median_error), "{name}: {inverse}");
        assert!(checked.plausible_depth && checked.depth_factor.is_none(), "{name}: {checked}");
        let fused = fused(dataset);
        say(&format!("{name}: {}", fused.report));
        let (low, high) = fused.cloud.bounds().unwrap();
        for axis in 0..3 {
            assert!((high[axis] - low[axis] - extent[axis]).abs() < 0.1, "{name}: {low:?} to {high:?}");
        }
    };

    let icl = read("icl-redwood-rgbd5", Layout::Redwood);
    assert_eq!((icl.len(), icl.counts().posed, icl.counts().with_depth), (5, 5, 5));
    posed("icl-redwood-rgbd5", &*icl, [1.53, 1.56, 2.63]);

    let tum = read("tum-fr1-desk-5", Layout::Tum);
    assert_eq!((tum.len(), tum.counts().posed, tum.counts().with_depth), (5, 5, 5));
    assert_eq!(tum.frames()[0].color, Intrinsics::new(640, 480, 517.3, 516.5, 318.6, 255.3).unwrap());
    posed("tum-fr1-desk-5", &*tum, [1.63, 1.54, 1.22]);

    let colmap = read("colmap-text-4", Layout::Colmap);
    assert_eq!((colmap.len(), colmap.counts().posed, colmap.counts().with_depth), (4, 4, 0));
    assert_eq!(colmap.frames()[0].color, Intrinsics::new(1919, 1079, 1847.53, 1847.53, 959.0, 539.0).unwrap());
    // The sparse points are where the pictures see them.
    let points = colmap.points().unwrap().unwrap();
    assert_eq!(points.len(), 1039);
    let frame = &colmap.frames()[0];
    let picture = colmap.color(0).unwrap();
    let mut differences = Vec::new();
    for (position, color) in points.positions.iter().zip(points.colors.as_ref().unwrap()) {
        let Some([x, y]) = frame.color.pixel(frame.pose.unwrap().to_camera(DVec3::from_array(*position))) else {
            continue;
        };
        let seen = picture.pixels()[y * picture.width() + x];
        differences.push(seen.iter().zip(color).map(|(a, b)| a.abs_diff(*b)).max().unwrap());
    }
    differences.sort_unstable();
    say(&format!(
        "colmap-text-4: {} points in the first picture, median difference {}",
        differences.len(),
        differences[differences.len() / 2]
    ));
    assert!(differences.len() > 700 && differences[differences.len() / 2] < 25);

    let nerfstudio = read("nerfstudio-1", Layout::Nerfstudio);
    assert_eq!((nerfstudio.len(), nerfstudio.counts().posed), (1, 1));
    assert_eq!(nerfstudio.frames()[0].color, Intrinsics::new(50, 50, 50.0, 50.0, 24.5, 24.5).unwrap());
    // The camera of this scene looks at its origin.
    let ahead = nerfstudio.frames()[0].pose.unwrap().to_camera(DVec3::ZERO);
    assert!(ahead.z > 3.0 && ahead.truncate().length() < 0.3 * ahead.z, "{ahead}");

    let realsense = read("realsense-noposes-4", Layout::Images);
    assert_eq!((realsense.len(), realsense.counts().posed, realsense.counts().with_depth), (4, 0, 4));
    let alone = fuse(&*realsense, &[0], &FuseOptions::default()).unwrap();
    assert!(alone.cloud.len() > 1000, "{}", alone.report);
}
