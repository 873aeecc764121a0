//! `geopurify select`: chooses the scenes to train on.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Result, bail};

use super::label_ids::LabelIds;
use super::numbers::finite;
use super::outputs::check_folder;
use super::say;
use super::table::table;
use crate::counted::counted;
use crate::distill::label_counts::{CountSettings, count_labels};
use crate::distill::select::{
    Kept, SceneMetrics, SelectError, SelectSettings, Selection, read_table, select, write_list, write_selection,
    write_table,
};
use crate::labels::{LabelsError, Preset};
use crate::session::part_of;

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
    #[arg(long, default_value_t = SelectSettings::default().gamma, value_parser = finite::<f64>, allow_negative_numbers = true)]
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
    let inputs: Vec<PathBuf> = args.inputs.iter().map(|input| part_to_learn_from(input)).collect::<Result<_>>()?;
    let scenes = match inputs.as_slice() {
        [input] if is_table(input) => read_table(input)?,
        inputs if inputs.iter().any(|input| is_table(input)) => {
            bail!("a table lists all scenes: give it alone, or give scans and folders without it")
        }
        inputs => count(args, inputs)?,
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

/// The training part of a data set with parts.
fn part_to_learn_from(input: &Path) -> Result<PathBuf> {
    let part = part_of(input, "train")?;
    if part != input {
        say::note(&format!("{} has parts: scenes of {} are chosen", input.display(), part.display()));
    }
    Ok(part)
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
        check_folder(output)?;
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

/// Counts the labels of scans. Prints which of them have none.
fn count(args: &SelectArgs, inputs: &[PathBuf]) -> Result<Vec<SceneMetrics>> {
    let settings = CountSettings {
        num_classes: args.classes.0,
        ignore: args.ignore.clone(),
        label_ids: args.label_ids.into(),
        field: args.field.clone(),
    };
    let counted = count_labels(inputs, &settings).map_err(with_way_out)?;
    for name in counted.left_out {
        say::note(&format!("scene '{name}' has no label that counts and is left out"));
    }
    Ok(counted.scenes)
}

/// Adds to an error the options that help.
fn with_way_out(error: SelectError) -> anyhow::Error {
    match &error {
        SelectError::Labels(LabelsError::NoField { .. }) => {
            anyhow::anyhow!("{error}; name the labels' property with --field")
        }
        SelectError::NoScans { .. } => anyhow::anyhow!("{error}; name the labelled scans one by one"),
        SelectError::TooFewClasses { path, num_classes } => anyhow::anyhow!(
            "{}: NYU40's labels give 20 classes, but --classes is {num_classes}; use --label-ids class to count the labels as they are",
            path.display()
        ),
        SelectError::LabelInScan { .. } => anyhow::anyhow!(
            "{error}: say how many classes there are with --classes, which labels do not count with --ignore, and that \
             labels are NYU40's with --label-ids nyu40"
        ),
        _ => error.into(),
    }
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
        "{}; {} of them with {median_present} classes and {median_entropy:.4} bits or more (the medians), in {}",
        counted(scenes.len(), "scene"),
        kept.len(),
        counted(*num_clusters, "cluster")
    )?;
    if selected.len() < args.subset {
        writeln!(
            out,
            "note: {} instead of {}: {}",
            counted(selected.len(), "scene"),
            args.subset,
            why_fewer(args.subset, kept.len(), *num_clusters)
        )?;
    }
    writeln!(out, "{}\n{}", args.output.display(), list.display())?;
    Ok(())
}

/// Why fewer than `subset` scenes are selected of those `kept`.
fn why_fewer(subset: usize, kept: usize, num_clusters: usize) -> String {
    if kept < subset {
        format!(
            "only scenes with as many classes and as much entropy as the median or more are taken, and {kept} have both"
        )
    } else {
        format!(
            "a cluster gives {} at most, and some have fewer; fewer --clusters give more",
            subset.div_ceil(num_clusters.max(1))
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_for_fewer_scenes_is_the_true_one() {
        assert!(why_fewer(20, 1, 1).ends_with("and 1 have both"));
        assert_eq!(why_fewer(4, 6, 3), "a cluster gives 2 at most, and some have fewer; fewer --clusters give more");
    }

    #[test]
    fn classes_are_a_number_or_a_set() {
        let count = |text: &str| text.parse::<Classes>().map(|classes| classes.0);
        assert_eq!((count("21"), count("scannet200")), (Ok(21), Ok(200)));
        assert!(count("0").is_err() && count("70000").is_err() && count("-1").is_err());
        assert!(count("nyu").unwrap_err().contains("matterport21"));
    }
}
