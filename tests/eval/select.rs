//! Selecting scenes: tables in and out, labelled scans, and the command as a user runs it.

use std::path::{Path, PathBuf};

use geopurify::cloud::{AttributeData, Field, PointCloud};
use geopurify::distill::select::{
    SceneMetrics, SelectError, SelectSettings, keep, read_table, scores, select, write_list, write_selection,
    write_table,
};
use geopurify::weights::SafetensorsFile;

use crate::program::{failure, geopurify, stdout};

/// The metrics of ScanNet's 312 validation scenes, as published.
fn published() -> Vec<SceneMetrics> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/geopurify/select");
    let json: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(folder.join("case.json")).unwrap()).unwrap();
    let names: Vec<String> = serde_json::from_value(json["config"]["names"].clone()).unwrap();
    let file = SafetensorsFile::open(folder.join("tensors.safetensors")).unwrap();
    let histograms = file.tensor("in.histogram").unwrap().to_i64().unwrap();
    let rows = histograms.chunks_exact(21).zip(names);
    rows.map(|(row, scene)| SceneMetrics { scene, histogram: row.iter().map(|&n| n as u64).collect() }).collect()
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn path(&self, name: &str) -> String {
        self.at(name).to_str().unwrap().to_owned()
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.at(name)).unwrap()
    }

    /// A scan whose points have these labels.
    fn scan(&self, name: &str, labels: impl Into<AttributeData>) {
        let data = labels.into();
        let positions = (0..data.len()).map(|i| [i as f64, 0.0, 0.0]).collect();
        let cloud = PointCloud { positions, ..PointCloud::default() };
        std::fs::create_dir_all(self.at(name).parent().unwrap()).unwrap();
        cloud.write_ply(&self.at(name), &[Field::new("label", data)]).unwrap();
    }
}

/// A table as NumPy and pandas print it: histograms in quotes, over several lines.
fn as_numpy(scenes: &[SceneMetrics]) -> String {
    let mut text = "scene\tNc\tHc\tfull_histogram\n".to_owned();
    for scene in scenes {
        let counts: Vec<String> = scene.histogram.iter().map(|count| format!("{count:5}.")).collect();
        let lines: Vec<String> = counts.chunks(10).map(|line| line.join(" ")).collect();
        let (present, entropy) = (scene.num_present(), scene.entropy());
        text += &format!("{}\t{present}\t{entropy}\t\"[{}]\"\n", scene.scene, lines.join("\n "));
    }
    text
}

#[test]
fn tables_read_back_as_they_were_written() {
    let folder = Folder::new();
    let scenes = published();
    write_table(&folder.at("ours.tsv"), &scenes).unwrap();
    assert_eq!(read_table(&folder.at("ours.tsv")).unwrap(), scenes);
    assert_eq!(folder.read("ours.tsv").lines().count(), scenes.len() + 1);
    std::fs::write(folder.at("numpy.tsv"), as_numpy(&scenes)).unwrap();
    assert_eq!(read_table(&folder.at("numpy.tsv")).unwrap(), scenes);
    // Columns by name, in any order, with others between and line ends of any system; scenes without points are dropped.
    std::fs::write(folder.at("other.tsv"), "\u{feff}room\thistogram\tscene\r\n1\t1 2 0\ta b\r\n2\t0 0 0\tempty\r\n")
        .unwrap();
    let expected = SceneMetrics { scene: "a b".into(), histogram: vec![1, 2, 0] };
    assert_eq!(read_table(&folder.at("other.tsv")).unwrap(), [expected]);
    let odd = [SceneMetrics { scene: "a\t\"b\"\nc".into(), histogram: vec![1, 2] }];
    write_table(&folder.at("odd.tsv"), &odd).unwrap();
    assert_eq!(read_table(&folder.at("odd.tsv")).unwrap(), odd);
}

#[test]
fn faulty_tables_are_told_by_line() {
    let folder = Folder::new();
    let header = "scene\tNc\tHc\tfull_histogram\n";
    let cases = [
        (String::new(), "no column 'scene'"),
        ("scene\tNb\tPn\n".into(), "no column 'full_histogram' among [\"scene\", \"Nb\", \"Pn\"]"),
        (format!("{header}a\t1\t0\t[3. 0.]\n\t1\t0\t[3. 0.]\n"), "line 3: the scene has no name"),
        (format!("{header}a\t1\t0\n"), "line 2, scene 'a': no histogram"),
        (format!("{header}a\t1\t0\t[3. ... 0.]\n"), "'...' in the histogram"),
        (format!("{header}a\t2\t0\t[3. 0.]\n"), "Nc is 2; the histogram gives 1"),
        (format!("{header}a\t2\t0.5\t[3. 3.]\n"), "Hc is 0.5; the histogram gives 1"),
        (format!("{header}a\t2\tnan\t[3. 3.]\n"), "Hc is NaN"),
        (format!("{header}a\t2\t1\t\"[3. 3.]\n"), "line 2: a quote is not closed"),
        (format!("{header}a\tmany\t1\t[3. 3.]\n"), "Nc is 'many'; expected a number"),
    ];
    for (text, expected) in cases {
        std::fs::write(folder.at("table.tsv"), text).unwrap();
        let message = read_table(&folder.at("table.tsv")).unwrap_err().to_string();
        assert!(message.contains("table.tsv") && message.contains(expected), "{expected}: {message}");
    }
    std::fs::write(folder.at("binary.tsv"), [0xff, 0xfe, b'\t', 0, b'\n']).unwrap();
    assert!(matches!(read_table(&folder.at("binary.tsv")), Err(SelectError::Io { .. })));
    assert!(matches!(read_table(&folder.at("none.tsv")), Err(SelectError::Io { .. })));
}

#[test]
fn a_selection_is_varied_and_the_same_for_a_seed() {
    let scenes = published();
    let settings = SelectSettings::default();
    let selection = select(&scenes, &settings).unwrap();
    assert_eq!(select(&scenes, &settings).unwrap(), selection);
    assert_eq!((selection.kept.len(), selection.num_clusters, selection.selected.len()), (143, 21, 20));
    let (kept, _) = keep(&scenes);
    assert_eq!(selection.kept.iter().map(|kept| kept.scene).collect::<Vec<_>>(), kept);
    assert_eq!(selection.kept.iter().map(|kept| kept.score).collect::<Vec<_>>(), scores(&scenes, &kept, 1.0));
    // The best of each cluster but the last, in the order of their scores.
    let selected: Vec<_> = selection.selected.iter().map(|&i| selection.kept[i]).collect();
    for (cluster, selected) in selected.iter().enumerate() {
        assert_eq!(selected.cluster, cluster);
        let members = selection.kept.iter().filter(|kept| kept.cluster == cluster);
        assert!(members.into_iter().all(|member| member.score <= selected.score));
    }
    assert!(selected.windows(2).all(|pair| pair[0].score >= pair[1].score));
    assert!(selection.kept.iter().filter(|kept| kept.cluster == 20).all(|kept| kept.score <= selected[19].score));

    // Two scenes a cluster, and one more of the first two.
    let settings = SelectSettings { subset: 12, clusters: 5, ..settings };
    let selection = select(&scenes, &settings).unwrap();
    let of_cluster = |id| selection.selected.iter().filter(|&&i| selection.kept[i].cluster == id).count();
    assert_eq!((0..5).map(of_cluster).collect::<Vec<_>>(), [3, 3, 2, 2, 2]);
    // As many clusters as scenes at most; alike scenes are one cluster.
    let few = &scenes[..4];
    let selection = select(few, &SelectSettings { clusters: 100, ..settings }).unwrap();
    assert_eq!(selection.num_clusters, selection.kept.len());
    let alike: Vec<_> = (0..6).map(|i| SceneMetrics { scene: i.to_string(), histogram: vec![4, 4] }).collect();
    let selection = select(&alike, &SelectSettings { subset: 3, clusters: 4, ..settings }).unwrap();
    assert_eq!((selection.num_clusters, selection.selected.as_slice()), (1, &[0, 1, 2][..]));
}

#[test]
fn results_are_whole_or_not_there() {
    let folder = Folder::new();
    let scenes = published();
    let selection = select(&scenes, &SelectSettings::default()).unwrap();
    write_selection(&folder.at("out.tsv"), &scenes, &selection).unwrap();
    write_list(&folder.at("out.txt"), &scenes, &selection).unwrap();
    let text = folder.read("out.tsv");
    assert_eq!(text.lines().next(), Some("scene\tscore\tcluster\tNc\tHc"));
    let list = folder.read("out.txt");
    for ((line, name), &at) in text.lines().skip(1).zip(list.lines()).zip(&selection.selected) {
        let cells: Vec<&str> = line.split('\t').collect();
        let kept = selection.kept[at];
        let metrics = &scenes[kept.scene];
        assert_eq!((cells[0], name), (metrics.scene.as_str(), metrics.scene.as_str()));
        assert_eq!(cells[1].parse::<f64>().unwrap(), kept.score);
        assert_eq!(
            (cells[2], cells[3]),
            (kept.cluster.to_string().as_str(), metrics.num_present().to_string().as_str())
        );
        assert_eq!(cells[4].parse::<f64>().unwrap(), metrics.entropy());
    }
    assert_eq!((text.lines().count(), list.lines().count()), (21, 20));
    assert!(write_selection(&folder.at("no/out.tsv"), &scenes, &selection).is_err());
}

#[test]
fn the_command_selects_from_a_table() {
    let folder = Folder::new();
    std::fs::write(folder.at("metrics.tsv"), as_numpy(&published())).unwrap();
    let (table, out) = (folder.path("metrics.tsv"), folder.path("out.tsv"));
    let text = stdout(&geopurify(&["select", &table, "-o", &out]));
    for expected in
        ["scene", "score", "312 scenes; 143 of them with 8 classes and 2.3277 bits", "21 clusters", "out.txt"]
    {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    let first = (folder.read("out.tsv"), folder.read("out.txt"));
    assert_eq!(first.1.lines().count(), 20);
    assert!(first.1.lines().all(|name| name.starts_with("scene0") && text.contains(name)));
    stdout(&geopurify(&["select", &table, "-o", &out, "--metrics-out", &folder.path("again.tsv")]));
    assert_eq!((folder.read("out.tsv"), folder.read("out.txt")), first);
    // What it writes it reads.
    stdout(&geopurify(&["select", &folder.path("again.tsv"), "-o", &out]));
    assert_eq!(folder.read("out.tsv"), first.0);
    // 60 scenes of 50 clusters: most have only one to give.
    let text = stdout(&geopurify(&["select", &table, "-o", &out, "--subset", "60", "--clusters", "50"]));
    assert!(text.contains("scenes instead of 60") && text.contains("fewer --clusters"), "{text}");
}

#[test]
fn the_command_counts_the_labels_of_scans() {
    let folder = Folder::new();
    // Numbers of classes.
    folder.scan("scans/a.ply", vec![0_u8, 0, 1, 1, 255]);
    folder.scan("scans/b.ply", vec![0_u8, 1, 2, 2]);
    folder.scan("scans/empty.ply", vec![255_u8, 255]);
    let (scans, out, metrics) = (folder.path("scans"), folder.path("out.tsv"), folder.path("metrics.tsv"));
    let run =
        ["select", &scans, "-o", &out, "--metrics-out", &metrics, "--classes", "3", "--clusters", "1", "--subset", "1"];
    let output = geopurify(&run);
    stdout(&output);
    assert!(String::from_utf8_lossy(&output.stderr).contains("'empty' has no label that counts"));
    assert_eq!(folder.read("metrics.tsv"), "scene\tNc\tHc\tfull_histogram\na\t2\t1\t[2 2 0]\nb\t3\t1.5\t[1 1 2]\n");
    assert_eq!(folder.read("out.txt"), "b\n");

    // ScanNet's folders: other PLY files beside the labelled ones, and NYU40's numbers.
    folder.scan("scannet/s0/s0_vh_clean_2.labels.ply", vec![1_u16, 2, 39, 40, 0, 13]);
    folder.scan("scannet/s0/s0_vh_clean_2.ply", vec![9_u16]);
    folder.scan("scannet/s1/s1_vh_clean_2.labels.ply", vec![1_u16, 16, 16]);
    let scannet = folder.path("scannet");
    stdout(&geopurify(&["select", &scannet, "-o", &out, "--metrics-out", &metrics]));
    let rows = read_table(&folder.at("metrics.tsv")).unwrap();
    let counted = |row: &SceneMetrics| {
        row.histogram.iter().enumerate().filter(|(_, n)| **n > 0).map(|(i, &n)| (i, n)).collect::<Vec<_>>()
    };
    assert_eq!((rows.len(), rows[0].scene.as_str(), rows[0].histogram.len()), (2, "s0_vh_clean_2", 20));
    assert_eq!(counted(&rows[0]), [(0, 1), (1, 1), (19, 1)]);
    assert_eq!(counted(&rows[1]), [(0, 1), (13, 2)]);
    // As they are, with what NYU40 has for unlabelled left out.
    let raw = ["--label-ids", "class", "--classes", "41", "--ignore", "0"];
    stdout(&geopurify(&[&["select", &scannet, "-o", &out, "--metrics-out", &metrics], &raw[..]].concat()));
    assert_eq!(
        counted(&read_table(&folder.at("metrics.tsv")).unwrap()[0]),
        [(1, 1), (2, 1), (13, 1), (39, 1), (40, 1)]
    );
}

#[test]
fn of_a_data_set_the_training_part_is_selected_from() {
    let folder = Folder::new();
    folder.scan("data/train/a/a_vh_clean_2.labels.ply", vec![1_u16, 2, 3]);
    folder.scan("data/test/b/b_vh_clean_2.labels.ply", vec![1_u16, 2, 3]);
    let (data, out, metrics) = (folder.path("data"), folder.path("out.tsv"), folder.path("metrics.tsv"));
    stdout(&geopurify(&["select", &data, "-o", &out, "--metrics-out", &metrics]));
    let rows = read_table(&folder.at("metrics.tsv")).unwrap();
    assert_eq!(rows.iter().map(|row| &*row.scene).collect::<Vec<_>>(), ["a_vh_clean_2"]);
    std::fs::rename(folder.at("data/train"), folder.at("data/val")).unwrap();
    let message = failure(&["select", &data, "-o", &out]);
    assert!(message.contains("no train in this folder; it has val and test"), "{message}");
}

#[test]
fn the_command_says_what_to_do() {
    let folder = Folder::new();
    let out = folder.path("out.tsv");
    folder.scan("a.ply", vec![0_i32, 25, -1]);
    folder.scan("b/a.ply", vec![0_i32]);
    folder.scan("half.ply", vec![0.5_f32]);
    folder.scan("all.ply", vec![255_u8]);
    folder.scan("s.labels.ply", vec![41_u8]);
    std::fs::create_dir(folder.at("empty")).unwrap();
    std::fs::write(folder.at("table.tsv"), "scene\tfull_histogram\na\t[1 2]\n").unwrap();
    let (a, table) = (folder.path("a.ply"), folder.path("table.tsv"));
    let (half, all, scannet) = (folder.path("half.ply"), folder.path("all.ply"), folder.path("s.labels.ply"));
    let (empty, none, same) = (folder.path("empty"), folder.path("none.ply"), folder.path("b/a.ply"));
    let plain = folder.path("out.csv");
    let lost = folder.path("no/out.tsv");
    let cases: [(&[&str], &str); 14] = [
        (&[&a, "-o", &out], "label 25; expected 0 to 19: say how many classes there are with --classes"),
        (&[&a, "-o", &out, "--classes", "40"], "label -1"),
        (&[&a, "-o", &out, "--field", "class"], "name the labels' property with --field"),
        (&[&half, "-o", &out], "expected whole numbers"),
        (&[&all, "-o", &out], "no scene has a labelled point"),
        (&[&scannet, "-o", &out], "label 41; expected NYU40's 0 to 40"),
        (&[&scannet, "-o", &out, "--classes", "3"], "--label-ids class"),
        (&[&empty, "-o", &out], "no PLY file"),
        (&[&none, "-o", &out], "none.ply"),
        (&[&a, &same, "-o", &out], "both are scene 'a'"),
        (&[&table, &a, "-o", &out], "give it alone"),
        (&[&table, "-o", &plain], "name it .tsv"),
        (&[&table, "-o", &table], "would replace the input"),
        (&[&table, "-o", &lost], "no such folder"),
    ];
    for (arguments, expected) in cases {
        let message = failure(&[&["select"], arguments].concat());
        assert!(message.contains(expected), "{expected}: {message}");
        assert!(!folder.at("out.tsv").exists() && !folder.at("out.txt").exists(), "{expected}");
    }
    let message = failure(&["select", &table, "-o", &out, "--metrics-out", &out]);
    assert!(message.contains("name two"), "{message}");
    let message = failure(&["select", &table, "-o", &out, "--clusters", "0"]);
    assert!(message.contains("number of clusters is 0"), "{message}");
    assert_eq!(folder.read("table.tsv"), "scene\tfull_histogram\na\t[1 2]\n");
    assert_eq!(geopurify(&["select", &table, "-o", &out, "--classes", "none"]).status.code(), Some(2));
    // Labels between which only the ignored ones are out of range.
    stdout(&geopurify(&["select", &a, "-o", &out, "--ignore", "-1,25"]));
}
