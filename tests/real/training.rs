//! Training on real scans and recordings.

use std::fs;
use std::path::Path;

use crate::training_runs::{SETTINGS, fixture, text};

pub(crate) fn learns(data: &Path) {
    let fixture = fixture();
    let (list, held_out, config) =
        (fixture.path("real.txt"), fixture.path("real-held-out.txt"), fixture.path("real.toml"));
    fs::write(&list, "icl-redwood-rgbd5\ntum-fr1-desk-5\nrealsense-noposes-4\npcd/livingroom_fragment.pcd\n").unwrap();
    fs::write(&held_out, "ply/livingroom_mesh_binary.ply\n").unwrap();
    fs::write(&config, SETTINGS.replace("epochs = 3", "epochs = 8")).unwrap();
    let lists = ["--scenes", text(&list), "--validation", text(&held_out), "--data", text(data)];
    fixture.succeed("real", &[&lists[..], &["--config", text(&config)]].concat());
    // Three frames without poses, as many as views are asked for, are three scenes.
    let losses = fixture.losses("real");
    assert_eq!(losses.len(), 8 * 6);
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    let (first, last) = (mean(&losses[..6]), mean(&losses[42..]));
    assert!(last < 0.95 * first, "the loss went from {first} to {last}");
}
