//! Selection of training scenes: varied ones that differ from each other.
//!
//! GeoPurify (ICLR 2026) keeps scenes with many, evenly spread classes. It clusters their class histograms
//! and takes the best few scenes of each cluster.

use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::kmeans::{KMeansError, kmeans};
use crate::files::{csv_quoted, write_atomic};
use crate::labels::LabelsError;

/// Number of runs of k-means; the best one is used.
const RESTARTS: usize = 10;

/// Most difference between a table's entropy and that of its histogram. Tables are sometimes printed with
/// fewer digits.
const ENTROPY_TOLERANCE: f64 = 1e-3;

/// Most classes of a histogram.
const MAX_CLASSES: usize = 1 << 16;

/// Error of selecting scenes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SelectError {
    /// A label is neither a class nor ignored.
    #[error("point {point} of scene '{scene}' has the label {label}; expected 0 to {last}, or one of the ignored {ignore:?}", last = num_classes.saturating_sub(1))]
    Label {
        /// Name of the scene.
        scene: String,
        /// Index of the point.
        point: usize,
        /// Label of the point.
        label: i64,
        /// Number of classes.
        num_classes: usize,
        /// Labels that are not counted.
        ignore: Vec<i64>,
    },
    /// A label in a scan is neither a class nor ignored.
    #[error("{}: point {point} has the label {label}; expected {expected}", .path.display())]
    LabelInScan {
        /// The scan.
        path: PathBuf,
        /// Index of the point.
        point: usize,
        /// Label of the point.
        label: i64,
        /// Labels it may have.
        expected: String,
    },
    /// NYU40's labels need more classes than are counted.
    #[error("{}: NYU40's labels give 20 classes, but {num_classes} are counted", .path.display())]
    TooFewClasses {
        /// The scan.
        path: PathBuf,
        /// Number of classes that are counted.
        num_classes: usize,
    },
    /// Two files belong to scenes of the same name.
    #[error("{} and {}: both are scene '{scene}'; expected a name of its own for each", .first.display(), .second.display())]
    SameName {
        /// A file.
        first: PathBuf,
        /// Another file.
        second: PathBuf,
        /// Name of their scenes.
        scene: String,
    },
    /// A folder has no labelled scans.
    #[error("{}: no PLY file in it or {levels} folders down", .folder.display())]
    NoScans {
        /// The folder.
        folder: PathBuf,
        /// Number of levels below it that were searched.
        levels: usize,
    },
    /// The labels of a scan cannot be read.
    #[error(transparent)]
    Labels(#[from] LabelsError),
    /// A table has a wrong format.
    #[error("{}: {message}", .path.display())]
    Table {
        /// The file.
        path: PathBuf,
        /// Reason, with the line.
        message: String,
    },
    /// The operating system refused to read or write a file.
    #[error("{}: cannot {action}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Action that failed, as a verb.
        action: &'static str,
        /// Error of the system.
        #[source]
        source: io::Error,
    },
    /// Histograms of different lengths cannot be compared.
    #[error("scene '{scene}' has a histogram of {found} classes; expected {expected}, as the first scene has")]
    Histogram {
        /// Name of the scene.
        scene: String,
        /// Length of its histogram.
        found: usize,
        /// Length of the first scene's histogram.
        expected: usize,
    },
    /// Two scenes have the same name.
    #[error("scene '{0}' occurs twice; expected a different name for each scene")]
    Twice(String),
    /// No scene has a labelled point.
    #[error("no scene has a labelled point; there is nothing to select from")]
    NoScenes,
    /// A setting is 0 or not finite.
    #[error("{what} is {found}; expected {expected}")]
    Setting {
        /// Name of the setting.
        what: &'static str,
        /// Its value.
        found: String,
        /// Values it may have.
        expected: &'static str,
    },
    /// The histograms cannot be clustered.
    #[error(transparent)]
    KMeans(#[from] KMeansError),
}

/// Class histogram of a scene.
#[derive(Clone, Debug, PartialEq)]
pub struct SceneMetrics {
    /// Name of the scene.
    pub scene: String,
    /// Number of points of each class.
    pub histogram: Vec<u64>,
}

impl SceneMetrics {
    /// Counts the labels 0..`num_classes` of a scene, without those in `ignore`. Returns `None` if no point
    /// is left.
    ///
    /// # Errors
    /// [`SelectError::Label`] for any other label.
    pub fn of_labels(
        scene: &str,
        labels: impl IntoIterator<Item = i64>,
        num_classes: usize,
        ignore: &[i64],
    ) -> Result<Option<Self>, SelectError> {
        let mut histogram = vec![0_u64; num_classes];
        for (point, label) in labels.into_iter().enumerate() {
            if ignore.contains(&label) {
                continue;
            }
            let count = usize::try_from(label).ok().and_then(|class| histogram.get_mut(class));
            *count.ok_or_else(|| SelectError::Label {
                scene: scene.to_owned(),
                point,
                label,
                num_classes,
                ignore: ignore.to_vec(),
            })? += 1;
        }
        let is_empty = histogram.iter().all(|&count| count == 0);
        Ok((!is_empty).then(|| Self { scene: scene.to_owned(), histogram }))
    }

    /// Nc: number of classes that occur.
    #[must_use]
    pub fn num_present(&self) -> usize {
        self.histogram.iter().filter(|&&count| count > 0).count()
    }

    /// Hc: Shannon entropy of the classes, in bits.
    #[must_use]
    pub fn entropy(&self) -> f64 {
        let total = self.histogram.iter().map(|&count| count as f64).sum::<f64>();
        let shares = self.histogram.iter().filter(|&&count| count > 0).map(|&count| count as f64 / total);
        shares.fold(0.0, |entropy, share| entropy - share * share.log2())
    }
}

/// Settings of the selection.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SelectSettings {
    /// Number of scenes wanted.
    pub subset: usize,
    /// Number of clusters; at most the number of kept scenes.
    pub clusters: usize,
    /// Weight of the number of classes relative to the entropy.
    pub gamma: f64,
    /// Seed of the clusters' starts.
    pub seed: u64,
}

impl Default for SelectSettings {
    /// The published settings.
    fn default() -> Self {
        Self { subset: 20, clusters: 21, gamma: 1.0, seed: 42 }
    }
}

/// A scene that passed the filter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Kept {
    /// Index of the scene.
    pub scene: usize,
    /// Entropy plus gamma times the number of classes, each scaled to 0..1 over the kept scenes.
    pub score: f64,
    /// Cluster of the scene.
    pub cluster: usize,
}

/// Result of a selection.
#[derive(Clone, Debug, PartialEq)]
pub struct Selection {
    /// Median number of classes.
    pub median_present: f64,
    /// Median entropy in bits.
    pub median_entropy: f64,
    /// Scenes that passed the filter, in their order.
    pub kept: Vec<Kept>,
    /// Sum of squared distances of their histograms from the cluster means.
    pub inertia: f64,
    /// Number of clusters that have scenes.
    pub num_clusters: usize,
    /// Indices into `kept`, in the order of selection.
    pub selected: Vec<usize>,
}

/// Selects scenes in four steps. [`keep`] keeps scenes whose number of classes and entropy are both at least
/// the median. k-means clusters their histograms of raw counts. [`scores`] scores them. [`pick`] takes the
/// best few of each cluster.
///
/// Clusters are numbered by their best score. So the order in which k-means found them affects neither their
/// numbers nor which of them give one scene less. (The published code uses the arbitrary numbers of k-means.)
///
/// # Errors
/// [`SelectError`] if there is no scene, a name or the length of a histogram does not fit, or a setting is 0
/// or not finite.
pub fn select(scenes: &[SceneMetrics], settings: &SelectSettings) -> Result<Selection, SelectError> {
    check(scenes, settings)?;
    let (kept, [median_present, median_entropy]) = keep(scenes);
    let features: Vec<f64> = kept.iter().flat_map(|&i| &scenes[i].histogram).map(|&count| count as f64).collect();
    let clusters = settings.clusters.min(kept.len());
    let found = kmeans(&features, scenes[0].histogram.len(), clusters, RESTARTS, settings.seed)?;
    let score = scores(scenes, &kept, settings.gamma);
    let (cluster, num_clusters) = by_best_score(&found.cluster_from_point, &score);
    let selected = pick(&cluster, &score, num_clusters, settings.subset);
    let kept = kept.iter().zip(score).zip(cluster).map(|((&scene, score), cluster)| Kept { scene, score, cluster });
    Ok(Selection {
        median_present,
        median_entropy,
        kept: kept.collect(),
        inertia: found.inertia,
        num_clusters,
        selected,
    })
}

fn check(scenes: &[SceneMetrics], settings: &SelectSettings) -> Result<(), SelectError> {
    let setting = |what, found: String, expected| Err(SelectError::Setting { what, found, expected });
    if settings.subset == 0 {
        return setting("the number of scenes", "0".into(), "1 or more");
    }
    if settings.clusters == 0 {
        return setting("the number of clusters", "0".into(), "1 or more");
    }
    if !settings.gamma.is_finite() {
        return setting("gamma", settings.gamma.to_string(), "a finite number");
    }
    let expected = scenes.first().ok_or(SelectError::NoScenes)?.histogram.len();
    let mut names = BTreeSet::new();
    for SceneMetrics { scene, histogram } in scenes {
        if histogram.len() != expected {
            return Err(SelectError::Histogram { scene: scene.clone(), found: histogram.len(), expected });
        }
        if !names.insert(scene) {
            return Err(SelectError::Twice(scene.clone()));
        }
    }
    Ok(())
}

/// Scenes whose number of classes and entropy are both at least the median over all scenes. Also returns the
/// two medians.
#[must_use]
pub fn keep(scenes: &[SceneMetrics]) -> (Vec<usize>, [f64; 2]) {
    let present: Vec<f64> = scenes.iter().map(|scene| scene.num_present() as f64).collect();
    let entropy: Vec<f64> = scenes.iter().map(SceneMetrics::entropy).collect();
    let medians = [median(&present), median(&entropy)];
    let kept = (0..scenes.len()).filter(|&i| present[i] >= medians[0] && entropy[i] >= medians[1]);
    (kept.collect(), medians)
}

/// Median: the middle value, or the mean of the two in the middle; 0 for an empty slice.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match (sorted.get(middle), sorted.len() % 2) {
        (None, _) => 0.0,
        (Some(&value), 1) => value,
        (Some(&value), _) => 0.5 * (sorted[middle - 1] + value),
    }
}

/// Scores of the `kept` scenes: entropy plus `gamma` times the number of classes, each scaled to 0..1 over
/// these scenes. A figure that is the same for all of them counts 0.
#[must_use]
pub fn scores(scenes: &[SceneMetrics], kept: &[usize], gamma: f64) -> Vec<f64> {
    let scaled = |figure: &dyn Fn(&SceneMetrics) -> f64| {
        let values: Vec<f64> = kept.iter().map(|&i| figure(&scenes[i])).collect();
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let span = if high > low { high - low } else { 1.0 };
        values.into_iter().map(move |value| (value - low) / span).collect::<Vec<_>>()
    };
    let (entropy, present) = (scaled(&SceneMetrics::entropy), scaled(&|scene| scene.num_present() as f64));
    entropy.into_iter().zip(present).map(|(entropy, present)| entropy + gamma * present).collect()
}

/// Renumbers clusters by their best score, and counts those that have scenes.
fn by_best_score(cluster: &[usize], score: &[f64]) -> (Vec<usize>, usize) {
    let mut order: Vec<usize> = (0..cluster.len()).collect();
    order.sort_by(|&a, &b| score[b].total_cmp(&score[a]));
    let mut found: Vec<usize> = Vec::new();
    for scene in order {
        if !found.contains(&cluster[scene]) {
            found.push(cluster[scene]);
        }
    }
    let renamed = cluster.iter().filter_map(|old| found.iter().position(|known| known == old)).collect();
    (renamed, found.len())
}

/// Picks the best scenes of each cluster: `subset` divided by the number of clusters, rounded down. The first
/// `subset` mod `num_clusters` clusters give one more. A cluster with too few scenes gives all it has, so the
/// selection may be smaller.
///
/// Returns indices in the order of clusters and, within a cluster, of falling score. Equal scores keep their
/// order.
#[must_use]
pub fn pick(cluster: &[usize], score: &[f64], num_clusters: usize, subset: usize) -> Vec<usize> {
    let mut selected = Vec::new();
    for id in 0..num_clusters {
        let mut members: Vec<usize> = (0..cluster.len()).filter(|&i| cluster[i] == id).collect();
        members.sort_by(|&a, &b| score[b].total_cmp(&score[a]));
        let share = subset / num_clusters + usize::from(id < subset % num_clusters);
        selected.extend(members.into_iter().take(share));
    }
    selected
}

/// Reads a table of scenes: tab-separated, with a header line, then one scene per row.
///
/// Columns are found by their names, so their order does not matter. Other columns are ignored.
///
/// | column | content |
/// |---|---|
/// | `scene` | the scene's name |
/// | `full_histogram` or `histogram` | points of each class, separated by spaces; brackets are optional |
/// | `Nc`, `Hc` | optional; checked against the histogram, from which they follow |
///
/// Published tables hold histograms as NumPy prints them, in quotes and over several lines. An example is
/// `"[47119. 0.\n 12.]"`. These are read too. Scenes whose histogram is all zero are left out.
///
/// # Errors
/// [`SelectError::Io`] and [`SelectError::Table`].
pub fn read_table(path: &Path) -> Result<Vec<SceneMetrics>, SelectError> {
    let table = |message: String| SelectError::Table { path: path.to_path_buf(), message };
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|source| SelectError::Io { path: path.into(), action: "read", source })?;
    let mut rows = rows(text.trim_start_matches('\u{feff}')).map_err(table)?.into_iter();
    let (_, header) = rows.next().unwrap_or_default();
    let column = |names: &[&str]| header.iter().position(|name| names.contains(&name.trim()));
    let missing = |what: &str| {
        table(format!(
            "no column '{what}' among {header:?}; expected a tab-separated table with the columns scene and full_histogram"
        ))
    };
    let scene_column = column(&["scene"]).ok_or_else(|| missing("scene"))?;
    let histogram_column = column(&["full_histogram", "histogram"]).ok_or_else(|| missing("full_histogram"))?;
    let (present_column, entropy_column) = (column(&["Nc"]), column(&["Hc"]));
    let mut scenes = Vec::new();
    for (line, row) in rows {
        let cell = |column: usize| row.get(column).map(|cell| cell.trim()).filter(|cell| !cell.is_empty());
        let scene = cell(scene_column).ok_or_else(|| table(format!("line {line}: the scene has no name")))?;
        let wrong = |what: String| table(format!("line {line}, scene '{scene}': {what}"));
        let text = cell(histogram_column).ok_or_else(|| wrong("no histogram".into()))?;
        let histogram = parse_histogram(text).map_err(&wrong)?;
        let metrics = SceneMetrics { scene: scene.to_owned(), histogram };
        for (column, name, expected, tolerance) in [
            (present_column, "Nc", metrics.num_present() as f64, 0.0),
            (entropy_column, "Hc", metrics.entropy(), ENTROPY_TOLERANCE),
        ] {
            let Some(text) = column.and_then(cell) else { continue };
            let stated: f64 = text.parse().map_err(|_| wrong(format!("{name} is '{text}'; expected a number")))?;
            // Written so that a NaN fails the check.
            let agrees = (stated - expected).abs() <= tolerance;
            if !agrees {
                return Err(wrong(format!("{name} is {stated}; the histogram gives {expected}")));
            }
        }
        if metrics.num_present() > 0 {
            scenes.push(metrics);
        }
    }
    Ok(scenes)
}

/// Rows of a tab-separated text, with the lines in which they start. A cell in double quotes may contain
/// tabs, line ends and doubled quotes. Empty lines are skipped.
fn rows(text: &str) -> Result<Vec<(usize, Vec<String>)>, String> {
    let mut rows = Vec::new();
    let (mut line, mut first_line) = (1, 1);
    let (mut row, mut cell) = (Vec::new(), String::new());
    let mut quoted_since = None;
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        line += usize::from(c == '\n');
        match c {
            '"' if quoted_since.is_some() => {
                if characters.next_if_eq(&'"').is_some() {
                    cell.push('"');
                } else {
                    quoted_since = None;
                }
            }
            _ if quoted_since.is_some() => cell.push(c),
            '"' if cell.is_empty() => quoted_since = Some(line),
            '\t' => row.push(std::mem::take(&mut cell)),
            '\r' if characters.peek() == Some(&'\n') => {}
            '\n' => {
                if !row.is_empty() || !cell.is_empty() {
                    row.push(std::mem::take(&mut cell));
                    rows.push((first_line, std::mem::take(&mut row)));
                }
                first_line = line;
            }
            _ => cell.push(c),
        }
    }
    if let Some(line) = quoted_since {
        return Err(format!("line {line}: a quote is not closed"));
    }
    if !row.is_empty() || !cell.is_empty() {
        row.push(cell);
        rows.push((first_line, row));
    }
    Ok(rows)
}

fn parse_histogram(text: &str) -> Result<Vec<u64>, String> {
    let inner = text.trim().trim_start_matches('[').trim_end_matches(']');
    let count = |word: &str| {
        let value: f64 = word.parse().ok()?;
        (value >= 0.0 && value.fract() == 0.0 && value <= (1_u64 << 53) as f64).then_some(value as u64)
    };
    let counts: Vec<u64> = inner
        .split(|c: char| c.is_whitespace() || c == ',')
        .filter(|word| !word.is_empty())
        .map(|word| count(word).ok_or_else(|| format!("'{word}' in the histogram; expected whole counts of points")))
        .collect::<Result<_, _>>()?;
    match counts.len() {
        1..=MAX_CLASSES => Ok(counts),
        len => Err(format!("a histogram of {len} classes; expected 1 to {MAX_CLASSES}")),
    }
}

/// Writes scenes as a table for [`read_table`], with the columns `scene`, `Nc`, `Hc` and `full_histogram` of
/// the published tables. The counts are in brackets on one line.
///
/// # Errors
/// [`SelectError::Io`]; the old file then stays unchanged.
pub fn write_table(path: &Path, scenes: &[SceneMetrics]) -> Result<(), SelectError> {
    let rows = scenes.iter().map(|metrics| {
        let counts: Vec<String> = metrics.histogram.iter().map(u64::to_string).collect();
        let (present, entropy) = (metrics.num_present().to_string(), metrics.entropy().to_string());
        vec![metrics.scene.clone(), present, entropy, format!("[{}]", counts.join(" "))]
    });
    write_rows(path, &["scene", "Nc", "Hc", "full_histogram"], rows)
}

/// Writes the selected scenes in the order of selection, with the columns `scene`, `score`, `cluster`, `Nc`
/// and `Hc`.
///
/// # Errors
/// [`SelectError::Io`]; the old file then stays unchanged.
pub fn write_selection(path: &Path, scenes: &[SceneMetrics], selection: &Selection) -> Result<(), SelectError> {
    let rows = selection.selected.iter().map(|&i| {
        let Kept { scene, score, cluster } = selection.kept[i];
        let metrics = &scenes[scene];
        let (present, entropy) = (metrics.num_present().to_string(), metrics.entropy().to_string());
        vec![metrics.scene.clone(), score.to_string(), cluster.to_string(), present, entropy]
    });
    write_rows(path, &["scene", "score", "cluster", "Nc", "Hc"], rows)
}

/// Writes the names of the selected scenes in the order of selection, one per line.
///
/// # Errors
/// [`SelectError::Io`]; the old file then stays unchanged.
pub fn write_list(path: &Path, scenes: &[SceneMetrics], selection: &Selection) -> Result<(), SelectError> {
    let names = selection.selected.iter().map(|&i| format!("{}\n", scenes[selection.kept[i].scene].scene));
    write_text(path, &names.collect::<String>())
}

fn write_rows(path: &Path, header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> Result<(), SelectError> {
    let cell = |text: &String| match text.contains(['\t', '\n', '\r', '"']) {
        true => csv_quoted(text),
        false => text.clone(),
    };
    let mut text = header.join("\t") + "\n";
    for row in rows {
        text += &(row.iter().map(cell).collect::<Vec<_>>().join("\t") + "\n");
    }
    write_text(path, &text)
}

fn write_text(path: &Path, text: &str) -> Result<(), SelectError> {
    let written = write_atomic(path, |out| out.write_all(text.as_bytes()));
    written.map_err(|source| SelectError::Io { path: path.into(), action: "write", source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scene(name: &str, histogram: &[u64]) -> SceneMetrics {
        SceneMetrics { scene: name.to_owned(), histogram: histogram.to_vec() }
    }

    #[test]
    fn labels_are_counted_without_the_ignored() {
        let metrics = SceneMetrics::of_labels("a", [0, 0, 255, 2, 2, 255], 3, &[255]).unwrap().unwrap();
        assert_eq!((metrics.histogram.as_slice(), metrics.num_present()), (&[2, 0, 2][..], 2));
        assert_eq!(metrics.entropy(), 1.0);
        assert_eq!(SceneMetrics::of_labels("a", [255, 255], 3, &[255]).unwrap(), None);
        let error = SceneMetrics::of_labels("a", [0, 3], 3, &[255]).unwrap_err().to_string();
        assert_eq!(error, "point 1 of scene 'a' has the label 3; expected 0 to 2, or one of the ignored [255]");
        assert!(SceneMetrics::of_labels("a", [-1], 3, &[]).is_err());
    }

    #[test]
    fn medians_filter_and_scores_span_what_is_kept() {
        assert_eq!((median(&[3.0, 1.0, 2.0]), median(&[4.0, 1.0, 2.0, 3.0]), median(&[])), (2.0, 2.5, 0.0));
        let scenes = [
            scene("one class", &[8, 0, 0, 0]),
            scene("two", &[4, 4, 0, 0]),
            scene("four, uneven", &[13, 1, 1, 1]),
            scene("four", &[2, 2, 2, 2]),
            scene("three", &[3, 3, 3, 0]),
        ];
        // Medians: 3 classes, 1 bit; the uneven scene has less than a bit.
        let (kept, medians) = keep(&scenes);
        assert_eq!((kept.as_slice(), medians), (&[3, 4][..], [3.0, 1.0]));
        assert_eq!(scores(&scenes, &kept, 0.5), [1.5, 0.0]);
        assert_eq!(scores(&scenes, &[3], 1.0), [0.0]);
    }

    #[test]
    fn clusters_share_the_subset() {
        let (cluster, score) = ([0, 1, 0, 2, 1, 0, 2], [0.1, 0.5, 0.9, 0.3, 0.5, 0.2, 0.4]);
        assert_eq!(pick(&cluster, &score, 3, 3), [2, 1, 6]);
        // The first clusters give one more; equal scores keep their order.
        assert_eq!(pick(&cluster, &score, 3, 5), [2, 5, 1, 4, 6]);
        assert_eq!(pick(&cluster, &score, 3, 2), [2, 1]);
        // A cluster cannot give more than it has.
        assert_eq!(pick(&cluster, &score, 3, 9), [2, 5, 0, 1, 4, 6, 3]);
        assert!(pick(&[], &[], 0, 5).is_empty());
        assert_eq!(by_best_score(&[4, 4, 0, 2], &[0.0, 0.3, 0.9, 0.1]), (vec![1, 1, 0, 2], 3));
    }

    #[test]
    fn histograms_are_read_as_they_are_printed() {
        assert_eq!(
            parse_histogram("[47119. 17476.     0.\n     0. 1.2000e+05]").unwrap(),
            [47119, 17476, 0, 0, 120_000]
        );
        assert_eq!(parse_histogram("1 2 3").unwrap(), [1, 2, 3]);
        assert_eq!(parse_histogram("[1, 2, 3]").unwrap(), [1, 2, 3]);
        for wrong in ["", "[]", "[1. ... 2.]", "[1.5]", "[-1]", "[nan]", "[inf]", "[1e300]"] {
            assert!(parse_histogram(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn rows_are_split_at_tabs_outside_quotes() {
        let rows =
            |text| rows(text).map(|rows| rows.into_iter().map(|(line, row)| (line, row.join("|"))).collect::<Vec<_>>());
        let row = |line, text: &str| (line, text.to_owned());
        assert_eq!(
            rows("a\tb\r\n\n1\t\"x\n\t\"\"y\"\n2\t").unwrap(),
            [row(1, "a|b"), row(3, "1|x\n\t\"y"), row(5, "2|")]
        );
        assert_eq!(rows("5\" wide\t\"\"").unwrap(), [row(1, "5\" wide|")]);
        assert!(rows("").unwrap().is_empty());
        assert_eq!(rows("a\n\"b\n").unwrap_err(), "line 2: a quote is not closed");
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let good = [scene("a", &[1, 1]), scene("b", &[2, 3])];
        let message =
            |scenes: &[SceneMetrics], settings: SelectSettings| select(scenes, &settings).unwrap_err().to_string();
        let settings = SelectSettings::default();
        assert!(message(&[], settings).contains("nothing to select from"));
        assert!(message(&[good[0].clone(), scene("b", &[1])], settings).contains("'b' has a histogram of 1 classes"));
        assert!(message(&[good[0].clone(), good[0].clone()], settings).contains("'a' occurs twice"));
        assert!(message(&good, SelectSettings { subset: 0, ..settings }).contains("number of scenes is 0"));
        assert!(message(&good, SelectSettings { clusters: 0, ..settings }).contains("number of clusters is 0"));
        assert!(message(&good, SelectSettings { gamma: f64::NAN, ..settings }).contains("gamma"));
    }
}
