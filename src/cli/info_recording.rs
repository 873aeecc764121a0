//! `geopurify info` for recordings.

use std::path::Path;

use serde_json::{Value, json};

use super::shown::json_line;
use crate::views::check::{PoseCheck, Verdict};
use crate::views::{Dataset, Intrinsics, OpenOptions, detect, open_checked};

/// Returns true for folders and for files that are recordings. A folder that is none is named by
/// [`describe`].
pub(super) fn is_recording(path: &Path) -> bool {
    path.is_dir() || detect(path).is_ok()
}

/// Describes a recording, as text or as one line of JSON.
///
/// # Errors
/// As for [`open_checked`].
pub(super) fn describe(path: &Path, as_json: bool) -> anyhow::Result<String> {
    let opened = open_checked(path, &OpenOptions::default())?;
    let dataset = &*opened.dataset;
    let applied = opened.applied.map(|reading| reading.to_string());
    let check = opened.check.as_ref();
    Ok(match as_json {
        true => json_line(&json(path, dataset, check, applied))?,
        false => text(path, dataset, check, applied),
    })
}

/// The cameras of the first picture and of the first depth map.
fn cameras(dataset: &dyn Dataset) -> (Option<Intrinsics>, Option<Intrinsics>) {
    let color = dataset.frames().first().map(|frame| frame.color);
    (color, dataset.frames().iter().find_map(|frame| frame.depth))
}

fn size(camera: &Intrinsics) -> String {
    format!("{} x {}", camera.width, camera.height)
}

fn depth_unit(dataset: &dyn Dataset) -> String {
    let units = dataset.conventions().depth_units_per_meter;
    units.map_or_else(|| "metres".into(), |units| format!("1/{units} m"))
}

fn text(path: &Path, dataset: &dyn Dataset, check: Option<&PoseCheck>, applied: Option<String>) -> String {
    let mut lines = vec![path.display().to_string()];
    // Names and notes come from files, which may hold the control sequences of a terminal.
    let plain = |text: &str| text.replace(char::is_control, "\u{fffd}");
    let mut line = |key: &str, value: String| lines.push(format!("  {key:<12}{}", plain(&value)));
    line("recording", format!("{} ({})", dataset.layout(), dataset.layout().expects()));
    line("frames", dataset.counts().to_string());
    let (color, depth) = cameras(dataset);
    if let Some(color) = color {
        line("pictures", size(&color));
        line("camera", color.to_string());
    }
    if let Some(depth) = depth {
        line("depth", format!("{}, whole numbers count {}", size(&depth), depth_unit(dataset)));
    }
    line("conventions", dataset.conventions().to_string());
    if let Some(check) = check {
        line("check", check.to_string());
        if check.median_depth > 0.0 {
            line("distance", format!("{:.2} m (median depth)", check.median_depth));
        }
    }
    if let Some(reading) = applied {
        line("poses", format!("read as {reading}"));
    }
    for note in dataset.notes() {
        line("note", note.clone());
    }
    lines.join("\n")
}

fn json(path: &Path, dataset: &dyn Dataset, check: Option<&PoseCheck>, applied: Option<String>) -> Value {
    let counts = dataset.counts();
    let (color, depth) = cameras(dataset);
    let camera = |camera: Intrinsics| {
        let Intrinsics { width, height, fx, fy, cx, cy } = camera;
        json!({ "width": width, "height": height, "fx": fx, "fy": fy, "cx": cx, "cy": cy })
    };
    let check = check.map(|check| {
        let verdict = match check.verdict {
            Verdict::Confirmed => "confirmed",
            Verdict::Contradicted(_) => "contradicted",
            Verdict::Undecided(_) => "undecided",
        };
        json!({
            "verdict": verdict,
            "text": check.to_string(),
            "read_as": applied,
            "depth_factor": check.depth_factor,
            "median_depth": check.median_depth,
        })
    });
    json!({
        "file": path.to_string_lossy(),
        "format": "recording",
        "layout": dataset.layout().name(),
        "frames": counts.frames,
        "posed": counts.posed,
        "invalid_poses": counts.invalid_poses,
        "with_depth": counts.with_depth,
        "missing_pictures": counts.missing_color,
        "missing_depth": counts.missing_depth,
        "camera": color.map(camera),
        "depth_camera": depth.map(camera),
        "depth_units_per_meter": dataset.conventions().depth_units_per_meter,
        "metric": dataset.conventions().metric,
        "conventions": dataset.conventions().to_string(),
        "check": check,
        "notes": dataset.notes(),
    })
}
