//! `geopurify info`: describes the contents of scans, recordings, and folders of them.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::json;

use super::infer::refuse_results;
use super::shown::{json_line, plain};
use super::{info_recording, info_scenes};
use crate::cloud::{PointCloud, Splats};

/// Arguments of `geopurify info`.
#[derive(Debug, clap::Args)]
pub(super) struct InfoArgs {
    /// Folders or files of recordings, data sets, and scans: PLY, LAS, LAZ, PCD, E57, PTX, OBJ, glTF, STL, OFF, Gaussian
    /// splats or text, also packed with gzip or zip
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Print JSON, one object per file and line
    #[arg(long)]
    json: bool,
}

/// Prints the contents of each file. A file that cannot be read is reported on standard error and makes the
/// exit code 1. The others are read all the same.
///
/// # Errors
/// If standard output cannot be written.
pub(super) fn run(args: &InfoArgs) -> anyhow::Result<ExitCode> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    let mut code = ExitCode::SUCCESS;
    for path in &args.files {
        match describe(path, args.json) {
            Ok(json) if args.json => writeln!(out, "{json}")?,
            Ok(text) => writeln!(out, "{}", plain(&text))?,
            Err(error) => {
                code = ExitCode::FAILURE;
                if args.json {
                    let failure = json!({ "file": path.to_string_lossy(), "error": error.to_string() });
                    writeln!(out, "{}", json_line(&failure)?)?;
                }
                eprintln!("error: {}", plain(&error.to_string()));
            }
        }
    }
    out.flush()?;
    Ok(code)
}

/// Describes a folder of scenes, a recording or a scan, as text or as one line of JSON.
fn describe(path: &Path, is_json: bool) -> anyhow::Result<String> {
    refuse_results(path)?;
    if let Some(scenes) = info_scenes::scenes_in(path) {
        return Ok(match is_json {
            true => json_line(&info_scenes::json(path, &scenes))?,
            false => info_scenes::text(path, &scenes),
        });
    }
    if info_recording::is_recording(path) {
        return info_recording::describe(path, is_json);
    }
    let cloud = PointCloud::read(path)?;
    Ok(if is_json { json_line(&as_json(path, &cloud))? } else { as_text(path, &cloud) })
}

fn extent((lo, hi): ([f64; 3], [f64; 3])) -> [f64; 3] {
    std::array::from_fn(|axis| hi[axis] - lo[axis])
}

fn as_json(path: &Path, cloud: &PointCloud) -> serde_json::Value {
    let bounds = cloud.bounds();
    let unit = cloud.guess_unit();
    let attributes: Vec<_> = (cloud.attributes.iter())
        .map(|a| {
            let range = a.data.range();
            json!({
                "name": a.name,
                "type": a.data.scalar_type().name(),
                "min": range.map(|r| r.0),
                "max": range.map(|r| r.1),
            })
        })
        .collect();
    json!({
        "file": path.to_string_lossy(),
        "format": cloud.format.to_string(),
        "points": cloud.len(),
        "finite_points": cloud.num_finite(),
        "set_aside": cloud.aside.len(),
        "organized": cloud.organized.map(|(width, height)| [width, height]),
        "faces": cloud.faces.len(),
        "colors": cloud.colors.is_some(),
        "normals": cloud.normals.is_some(),
        "splats": cloud.splats.as_ref().map(splats_as_json),
        "min": bounds.map(|b| b.0),
        "max": bounds.map(|b| b.1),
        "extent": bounds.map(extent),
        "spacing": cloud.spacing(),
        "crs": cloud.crs,
        "unit": unit.unit.map(|u| u.to_string()),
        "unit_stated": unit.stated,
        "map_coordinates": unit.map_coordinates,
        "unit_reason": unit.reason,
        "up": cloud.up,
        "attributes": attributes,
        "notes": cloud.notes,
    })
}

fn splats_as_json(splats: &Splats) -> serde_json::Value {
    json!({ "median_deviation": median(&splats.deviation), "median_opacity": median(&splats.opacity) })
}

/// The middle of the values; NaN if there are none.
fn median(values: &[f32]) -> f64 {
    let mut values = values.to_vec();
    let middle = values.len() / 2;
    match values.get(middle) {
        Some(_) => (*values.select_nth_unstable_by(middle, f32::total_cmp).1).into(),
        None => f64::NAN,
    }
}

fn as_text(path: &Path, cloud: &PointCloud) -> String {
    let mut lines = vec![path.display().to_string()];
    // Names and notes come from the file, which may hold the control sequences of a terminal.
    let plain = |text: &str| text.replace(char::is_control, "\u{fffd}");
    let mut line = |key: &str, value: String| lines.push(format!("  {key:<11}{}", plain(&value)));
    line("format", cloud.format.to_string());
    let finite = cloud.num_finite();
    line(
        "points",
        match cloud.len() {
            n if n == finite => n.to_string(),
            n => format!("{n}, {finite} of them finite"),
        },
    );
    if !cloud.aside.is_empty() {
        line("set aside", format!("{} points (the notes say why)", cloud.aside.len()));
    }
    if let Some((width, height)) = cloud.organized {
        line("organised", format!("{width} x {height}"));
    }
    if !cloud.faces.is_empty() {
        line("triangles", cloud.faces.len().to_string());
    }
    let has = |present| if present { "yes" } else { "no" };
    line("colours", has(cloud.colors.is_some()).into());
    line("normals", has(cloud.normals.is_some()).into());
    if let Some(splats) = &cloud.splats {
        let [size, opacity] = [&splats.deviation, &splats.opacity].map(|values| number(median(values)));
        line("splats", format!("half of them up to {size} large, half of them up to {opacity} opaque"));
    }
    let triple = |[x, y, z]: [f64; 3]| format!("{} {} {}", number(x), number(y), number(z));
    if let Some(bounds) = cloud.bounds() {
        line("min", triple(bounds.0));
        line("max", triple(bounds.1));
        line("extent", triple(extent(bounds)));
    }
    if let Some(spacing) = cloud.spacing() {
        line("spacing", format!("{} (median distance to the nearest neighbour)", number(spacing)));
    }
    if let Some(crs) = &cloud.crs {
        line("crs", crs.clone());
    }
    let unit = cloud.guess_unit();
    let name = unit.unit.map_or_else(|| "unknown".into(), |u| u.to_string());
    let how = if unit.stated || unit.unit.is_none() { "" } else { "probably " };
    let map = if unit.map_coordinates { ", map coordinates" } else { "" };
    line("unit", format!("{how}{name}{map} ({})", unit.reason));
    if let Some(up) = cloud.up {
        line("up", format!("{} (the file says so)", triple(up)));
    }
    for attribute in &cloud.attributes {
        let ty = attribute.data.scalar_type().name();
        let range = match attribute.data.range() {
            Some((lo, hi)) if lo == hi => format!("all {}", number(lo)),
            Some((lo, hi)) => format!("{} to {}", number(lo), number(hi)),
            None => "no finite values".into(),
        };
        line("attribute", format!("{} ({ty}) {range}", attribute.name));
    }
    for note in &cloud.notes {
        line("note", note.clone());
    }
    lines.join("\n")
}

/// Formats a number with at most six decimals and without trailing zeros. Very small and very large numbers
/// get an exponent.
fn number(x: f64) -> String {
    if x != 0.0 && !(1e-4..1e12).contains(&x.abs()) {
        return format!("{x:.3e}");
    }
    let text = format!("{x:.6}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".into() } else { text.into() }
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn numbers() {
        assert_eq!(number(0.0), "0");
        assert_eq!(number(-0.0), "0");
        assert_eq!(number(2.5), "2.5");
        assert_eq!(number(636_000.25), "636000.25");
        assert_eq!(number(1e-7), "1.000e-7");
        assert_eq!(number(f64::NAN), "NaN");
    }
}
