//! `geopurify select`: chooses the scenes to train on.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use rayon::prelude::*;

use super::label_ids::LabelIds;
use super::table::table;
use crate::distill::select::{
    Kept, SceneMetrics, SelectError, SelectSettings, Selection, read_table, select, write_list, write_selection,
    write_table,
};
use crate::labels::{LabelsError, Preset, SCANNET_LABELS, classes_from_nyu40, is_scannets, nyu40, read_labels};

/// Number of folder levels that are searched: a folder of scenes, with a folder for each scene.
const DEPTH: usize = 3;

/// Arguments of `select`.
#[derive(clap::Args, Debug)]
pub(super) struct SelectArgs {
    /// Labelled scans, or folders with labelled PLY files (only ScanNet's NAME.labels.ply if there are any);
    /// or one table of scenes (.tsv) with the columns scene and full_histogram, as --metrics-out writes it
    #[arg(required = true, value_name = "SCAN|FOLDER|TABLE")]
    inputs: Vec<PathBuf>,
    /// Output table: scene, score, cluster, Nc, Hc. The names alone go beside it as .txt, for `train
    /// --scenes`
    #[arg(short, long, value_name = "FILE.tsv")]
    output: PathBuf,
    /// Number of scenes to select
    #[arg(long, default_value_t = SelectSettings::default().subset)]
    subset: usize,
    /// Number of clusters into which the scenes are divided by their classes
    #[arg(long, default_value_t = SelectSettings::default().clusters)]
    clusters: usize,
    /// Weight of the number of classes, relative to the entropy
    #[arg(long, default_value_t = SelectSettings::default().gamma, allow_negative_numbers = true)]
    gamma: f64,
    /// Seed for the first centres of the clusters
    #[arg(long, default_value_t = SelectSettings::default().seed)]
    seed: u64,
    /// Number of classes, with labels from 0 up, or the name of a label set
    #[arg(long, value_name = "N|SET", default_value = "scannet20")]
    classes: Classes,
    /// Labels to ignore
    #[arg(long, value_name = "LABEL,..", value_delimiter = ',', default_value = "255", allow_hyphen_values = true)]
    ignore: Vec<i64>,
    /// Meaning of the label numbers: class (numbers of classes), or nyu40, from which ScanNet's 20 classes
    /// are taken [auto: nyu40 for ScanNet's NAME.labels.ply, else class]
    #[arg(long, value_enum, default_value_t = LabelIds::Auto)]
    label_ids: LabelIds,
    /// Property of a scan's points that holds the labels
    #[arg(long, value_name = "NAME", default_value = "label")]
    field: String,
    /// Also write the counts, as a table that `select` reads
    #[arg(long, value_name = "FILE.tsv")]
    metrics_out: Option<PathBuf>,
}

/// Number of classes.
#[derive(Clone, Copy, Debug)]
struct Classes(usize);

impl FromStr for Classes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const MOST: usize = 1 << 16;
        match text.parse() {
            Ok(count) if (1..=MOST).contains(&count) => Ok(Self(count)),
            Ok(_) => Err(format!("expected 1 to {MOST} classes")),
            Err(_) => match text.parse::<Preset>() {
                Ok(preset) => Ok(Self(preset.labels.len())),
                Err(error) => Err(format!("not a number, and {error}")),
            },
        }
    }
}

pub(super) fn run(args: &SelectArgs) -> Result<()> {
    let list = outputs(args)?;
    let scenes = match args.inputs.as_slice() {
        [input] if is_table(input) => read_table(input)?,
        inputs if inputs.iter().any(|input| is_table(input)) => {
            bail!("a table lists all scenes: give it alone, or give scans and folders without it")
        }
        inputs => count_labels(args, inputs)?,
    };
    if let Some(path) = &args.metrics_out {
        write_table(path, &scenes)?;
    }
    let SelectArgs { subset, clusters, gamma, seed, .. } = *args;
    let selection = select(&scenes, &SelectSettings { subset, clusters, gamma, seed })?;
    write_selection(&args.output, &scenes, &selection)?;
    write_list(&list, &scenes, &selection)?;
    report(args, &scenes, &selection, &list)
}

fn is_table(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("tsv")) && !path.is_dir()
}

/// Checks the paths of all outputs. Returns the path of the list of names.
fn outputs(args: &SelectArgs) -> Result<PathBuf> {
    let list = args.output.with_extension("txt");
    if !is_table(&args.output) {
        bail!(
            "{}: the selection is a table; name it .tsv. The list of names goes beside it as .txt",
            args.output.display()
        );
    }
    for output in [Some(&args.output), Some(&list), args.metrics_out.as_ref()].into_iter().flatten() {
        if let Some(folder) = output.parent().filter(|f| !f.as_os_str().is_empty() && !f.is_dir()) {
            bail!("{}: no such folder for the output", folder.display());
        }
        let same = |input: &&PathBuf| matches!((input.canonicalize(), output.canonicalize()), (Ok(a), Ok(b)) if a == b);
        if let Some(input) = args.inputs.iter().find(same) {
            bail!("{}: the output would replace the input; name another file", input.display());
        }
    }
    if args.metrics_out.as_ref().is_some_and(|path| *path == args.output || *path == list) {
        bail!("{}: --metrics-out and -o are the same file; name two", args.output.display());
    }
    Ok(list)
}

/// Returns the metrics of every labelled scan, in the order of their names. Scans without a counted label are
/// left out.
fn count_labels(args: &SelectArgs, inputs: &[PathBuf]) -> Result<Vec<SceneMetrics>> {
    let mut files: BTreeMap<String, PathBuf> = BTreeMap::new();
    for input in inputs {
        let found = if input.is_dir() { labelled_files(input)? } else { vec![input.clone()] };
        for path in found {
            let name = scene_name(&path);
            if let Some(other) = files.insert(name.clone(), path.clone()).filter(|other| *other != path) {
                bail!(
                    "{} and {}: both are scene '{name}'; expected a name of its own for each",
                    other.display(),
                    path.display()
                );
            }
        }
    }
    let files: Vec<(String, PathBuf)> = files.into_iter().collect();
    let counted = files.par_iter().map(|(name, path)| count_file(args, name, path)).collect::<Result<Vec<_>>>()?;
    let mut scenes = Vec::new();
    for (metrics, (name, _)) in counted.into_iter().zip(&files) {
        match metrics {
            Some(metrics) => scenes.push(metrics),
            None => eprintln!("note: scene '{name}' has no label that counts and is left out"),
        }
    }
    Ok(scenes)
}

/// Returns the labelled PLY files below `folder`, in the order of their names: only ScanNet's, if there are
/// any.
fn labelled_files(folder: &Path) -> Result<Vec<PathBuf>> {
    fn walk(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<()> {
        let mut entries: Vec<PathBuf> = std::fs::read_dir(folder)
            .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
            .with_context(|| folder.display().to_string())?;
        entries.sort();
        for path in entries {
            if path.is_dir() {
                if depth > 1 {
                    walk(&path, depth - 1, found)?;
                }
            } else if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("ply")) {
                found.push(path);
            }
        }
        Ok(())
    }
    let mut found = Vec::new();
    walk(folder, DEPTH, &mut found)?;
    if found.iter().any(|path| is_scannets(path)) {
        found.retain(|path| is_scannets(path));
    }
    if found.is_empty() {
        bail!(
            "{}: no PLY file in it or {} folders down; name the labelled scans one by one",
            folder.display(),
            DEPTH - 1
        );
    }
    Ok(found)
}

/// Returns a scene's name: the file's name without its ending.
fn scene_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    match name.strip_suffix(SCANNET_LABELS) {
        Some(name) => name.to_owned(),
        None => path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned(),
    }
}

/// Adds to an error the option that names the labels' property.
fn name_the_field(error: LabelsError) -> anyhow::Error {
    match error {
        LabelsError::NoField { .. } => anyhow::anyhow!("{error}; name the labels' property with --field"),
        other => other.into(),
    }
}

fn count_file(args: &SelectArgs, scene: &str, path: &Path) -> Result<Option<SceneMetrics>> {
    let mut labels = read_labels(path, &args.field).map_err(name_the_field)?;
    let is_nyu40 = args.label_ids.are_nyu40(path);
    let Classes(num_classes) = args.classes;
    if is_nyu40 && num_classes < nyu40::SCANNET20.len() {
        bail!(
            "{}: NYU40's labels give 20 classes, but --classes is {num_classes}; use --label-ids class to count the labels as they are",
            path.display()
        );
    }
    let mut ignore = args.ignore.clone();
    if is_nyu40 {
        // Outside the values of every label set, so that it is not mistaken for a class.
        const OTHER: i64 = i64::MIN;
        ignore.push(OTHER);
        classes_from_nyu40(&mut labels, &nyu40::SCANNET20.map(i64::from), OTHER);
    }
    let counted = SceneMetrics::of_labels(scene, labels, num_classes, &ignore);
    counted.map_err(|error| match error {
        SelectError::Label { point, label, .. } => anyhow::anyhow!(
            "{}: point {point} has the label {label}; expected {}: say how many classes there are with --classes, which \
             labels do not count with --ignore, and that labels are NYU40's with --label-ids nyu40",
            path.display(),
            if is_nyu40 { format!("NYU40's 0 to {}", nyu40::LARGEST) } else { format!("0 to {}", num_classes - 1) },
        ),
        other => other.into(),
    })
}

fn report(args: &SelectArgs, scenes: &[SceneMetrics], selection: &Selection, list: &Path) -> Result<()> {
    let Selection { median_present, median_entropy, kept, num_clusters, selected, .. } = selection;
    let rows: Vec<Vec<String>> = (1..)
        .zip(selected)
        .map(|(i, &at)| {
            let Kept { scene, score, cluster } = kept[at];
            let metrics = &scenes[scene];
            vec![
                format!("{i}"),
                metrics.scene.clone(),
                format!("{score:.4}"),
                cluster.to_string(),
                metrics.num_present().to_string(),
                format!("{:.4}", metrics.entropy()),
            ]
        })
        .collect();
    let mut out = std::io::stdout().lock();
    write!(out, "{}", table(&["", "scene", "score", "cluster", "Nc", "Hc"], &rows))?;
    writeln!(
        out,
        "{} scenes; {} of them with {median_present} classes and {median_entropy:.4} bits or more (the medians), in {num_clusters} clusters",
        scenes.len(),
        kept.len(),
    )?;
    if selected.len() < args.subset {
        writeln!(
            out,
            "note: {} scenes instead of {}: a cluster gives {} at most, and some have fewer; fewer --clusters give more",
            selected.len(),
            args.subset,
            args.subset.div_ceil(*num_clusters),
        )?;
    }
    writeln!(out, "{}\n{}", args.output.display(), list.display())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scenes_are_called_as_their_files() {
        let name = |path: &str| scene_name(Path::new(path));
        assert_eq!(name("a/scene0000_00_vh_clean_2.labels.ply"), "scene0000_00_vh_clean_2");
        assert_eq!(name("room.v2.ply"), "room.v2");
        assert_eq!(name("room"), "room");
    }

    #[test]
    fn classes_are_a_number_or_a_set() {
        let count = |text: &str| text.parse::<Classes>().map(|classes| classes.0);
        assert_eq!((count("21"), count("scannet200")), (Ok(21), Ok(200)));
        assert!(count("0").is_err() && count("70000").is_err() && count("-1").is_err());
        assert!(count("nyu").unwrap_err().contains("matterport21"));
    }
}
