//! `geopurify objects`: lists the objects of a labelled scan.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

use super::outputs::check_folder;
use super::shown::json_lines;
use super::table::table;
use crate::counted::counted;
use crate::objects::{Catalogue, FILE_NAME, Object, write_boxes};

/// Arguments of `objects`.
#[derive(clap::Args, Debug)]
pub(super) struct ObjectsArgs {
    /// Folder of results from `infer`
    results: PathBuf,
    /// Also write the boxes as a mesh (PLY) in the colours of the objects
    #[arg(long, value_name = "FILE")]
    export: Option<PathBuf>,
    /// Print the catalogue as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &ObjectsArgs) -> Result<()> {
    let shown = args.results.display();
    if !args.results.join(FILE_NAME).is_file() {
        bail!("{shown}: no {FILE_NAME}; give a folder that `geopurify infer` wrote, or label the scan again");
    }
    if let Some(path) = &args.export {
        if path.extension().is_none_or(|extension| extension != "ply") {
            bail!("{}: boxes are written as PLY; end the name in .ply", path.display());
        }
        check_folder(path)?;
    }
    let read = Catalogue::read(&args.results);
    let catalogue = read.context("label the scan again with `geopurify infer`")?;
    if let Some(path) = &args.export {
        write_boxes(path, &catalogue.objects)?;
    }
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", json_lines(&catalogue)?)?;
        return Ok(());
    }
    let numbers = |p: [f64; 3]| format!("{:.2} {:.2} {:.2}", p[0], p[1], p[2]);
    let row = |object: &Object| {
        vec![
            object.id.to_string(),
            object.name.clone(),
            format!("{:.3}", object.score),
            object.points.to_string(),
            numbers(object.bounds.center),
            numbers(object.bounds.size),
            format!("{:.0}", object.bounds.yaw.to_degrees()),
        ]
    };
    let rows: Vec<_> = catalogue.objects.iter().map(row).collect();
    write!(out, "{}", table(&["id", "name", "score", "points", "centre", "size", "heading"], &rows))?;
    writeln!(out, "{}", counted(rows.len(), "object"))?;
    if let Some(path) = &args.export {
        writeln!(out, "{}", path.display())?;
    }
    Ok(())
}
