//! Evaluation and selection, which run on the host whatever the device is.

use burn::tensor::Device;
use geopurify::distill::kmeans::kmeans;
use geopurify::distill::select::{SceneMetrics, SelectSettings, keep, pick, scores, select};
use geopurify::eval::metrics::{AbsentClasses, ClassCounts, Confusion};
use serde_json::Value;

use crate::Line;
use crate::case::Case;
use crate::ops::{compare, equal};

/// Allowed difference of a mean from `config.expected`, as that states.
const OF_MEANS: f64 = 1e-6;

/// How much larger than scikit-learn's the inertia may be: its own seeds differ by more.
const OF_INERTIA: f64 = 0.05;

fn numbers<T: serde::de::DeserializeOwned>(value: &Value) -> Vec<T> {
    serde_json::from_value(value.clone()).expect("a list of numbers")
}

fn close(tensor: String, found: f64, expected: &Value, allowed: f64) -> Line {
    let expected = expected.as_f64().expect("a number");
    Line { tensor, found: (found - expected).abs(), allowed }
}

pub(crate) fn metrics(case: &Case, _: &Device) -> Vec<Line> {
    let config = &case.config;
    let num_classes = config["classes"].as_u64().unwrap() as usize;
    let ignore: Vec<i32> = numbers(&config["ignore_labels"]);
    let mut confusion = Confusion::new(num_classes).unwrap();
    for scene in 0..config["scenes"].as_u64().unwrap() {
        let [labels, predictions] = ["label", "pred"].map(|what| case.i32(&format!("in.{what}{scene}")).1);
        confusion.add(&labels, &predictions, &ignore).unwrap();
    }
    let classes = confusion.classes();
    let counts = |count: fn(&ClassCounts) -> u64| classes.iter().map(|c| count(c) as i32).collect::<Vec<_>>();
    // A class that occurs nowhere counts as 0 there.
    let figures = |figure: fn(ClassCounts) -> Option<f64>| {
        classes.iter().map(|&c| figure(c).unwrap_or(0.0) as f32).collect::<Vec<_>>()
    };
    let mut lines = vec![
        equal("out.intersection", &counts(|c| c.intersection), &case.i32("out.intersection").1),
        equal("out.union", &counts(|c| c.union), &case.i32("out.union").1),
        equal("out.target", &counts(|c| c.target), &case.i32("out.target").1),
        compare(case, "out.iou", &figures(ClassCounts::iou)),
        compare(case, "out.acc", &figures(ClassCounts::accuracy)),
    ];
    let foreground: Vec<usize> = (2..num_classes).collect();
    let selections = [
        ("all", (0..num_classes).collect()),
        ("base", numbers(&config["base"])),
        ("novel", numbers(&config["novel"])),
        ("foreground_not_in_the_code", foreground),
    ];
    for (name, selection) in selections {
        let found = confusion.scores(&selection, AbsentClasses::Zero).unwrap();
        let expected = &config["expected"][name];
        for (key, found) in [("mIoU", found.mean_iou), ("mAcc", found.mean_accuracy), ("allAcc", found.all_accuracy)] {
            lines.push(close(format!("{name}.{key}"), found.unwrap(), &expected[key], OF_MEANS));
        }
    }
    lines
}

pub(crate) fn scene_metrics(case: &Case, _: &Device) -> Vec<Line> {
    let config = &case.config;
    let num_classes = config["classes"].as_u64().unwrap() as usize;
    let ignore = config["ignore"].as_i64().unwrap();
    let allowed = 1e-9;
    let mut lines = Vec::new();
    for (scene, expected) in config["expected"].as_array().unwrap().iter().enumerate() {
        let labels = case.i32(&format!("in.labels{scene}")).1;
        let labels = labels.into_iter().map(i64::from);
        let found = SceneMetrics::of_labels("scene", labels, num_classes, &[ignore]).unwrap();
        let name = |what: &str| format!("{what}{scene}");
        match (found, expected) {
            (None, Value::Null) => lines.push(equal(&name("dropped"), &[true], &[true])),
            (None, _) | (Some(_), Value::Null) => lines.push(equal(&name("dropped"), &[true], &[false])),
            (Some(found), expected) => {
                lines.push(equal(&name("histogram"), &found.histogram, &numbers(&expected["histogram"])));
                let present = found.num_present() as u64;
                lines.push(equal(&name("Nc"), &[present], &[expected["Nc"].as_u64().unwrap()]));
                lines.push(close(name("Hc"), found.entropy(), &expected["Hc"], allowed));
            }
        }
    }
    lines
}

/// The filter, the scores and, for the reference's clusters, the selection must be the reference's. Our clusters only have to
/// be as good, since their numbers and borders follow from a random start.
pub(crate) fn select_scenes(case: &Case, _: &Device) -> Vec<Line> {
    let config = &case.config;
    let names: Vec<String> = numbers(&config["names"]);
    let (shape, histograms) = case.i32("in.histogram");
    let rows = histograms.chunks_exact(shape[1]).zip(&names);
    let scenes: Vec<SceneMetrics> = rows
        .map(|(row, name)| SceneMetrics { scene: name.clone(), histogram: row.iter().map(|&n| n as u64).collect() })
        .collect();
    let present: Vec<i32> = scenes.iter().map(|scene| scene.num_present() as i32).collect();
    let entropy: Vec<f32> = scenes.iter().map(|scene| scene.entropy() as f32).collect();
    let (kept, [median_present, median_entropy]) = keep(&scenes);
    let gamma = config["gamma"].as_f64().unwrap();
    let score = scores(&scenes, &kept, gamma);
    let [clusters, subset, seed] = ["k", "subset", "random_state"].map(|key| config[key].as_u64().unwrap());

    let given: Vec<usize> = case.i32("in.cluster_labels").1.iter().map(|&label| label as usize).collect();
    let picked: Vec<usize> = pick(&given, &score, clusters as usize, subset as usize);
    let picked_rows: Vec<i32> = picked.iter().map(|&i| kept[i] as i32).collect();

    let features: Vec<f64> = kept.iter().flat_map(|&i| &scenes[i].histogram).map(|&count| count as f64).collect();
    let inertia = config["inertia"].as_f64().unwrap();
    let single = kmeans(&features, shape[1], clusters as usize, 1, seed).unwrap();
    let settings = SelectSettings { subset: subset as usize, clusters: clusters as usize, gamma, seed };
    let ours = select(&scenes, &settings).unwrap();
    let expected: Vec<String> = numbers(&config["selected"]);
    let ours_names = ours.selected.iter().map(|&i| &scenes[ours.kept[i].scene].scene);
    let overlap = ours_names.filter(|name| expected.contains(name)).count();
    println!(
        "{}: inertia {:.4e} (one run {:.4e}, scikit-learn {inertia:.4e}), {overlap} of {} scenes are scikit-learn's",
        case.name,
        ours.inertia,
        single.inertia,
        expected.len()
    );
    let as_f32 = score.iter().map(|&score| score as f32).collect::<Vec<_>>();
    vec![
        equal("in.Nc", &present, &case.i32("in.Nc").1),
        compare(case, "out.entropy_from_histogram", &entropy),
        close("median_Nc".into(), median_present, &config["median_Nc"], 0.0),
        close("median_Hc".into(), median_entropy, &config["median_Hc"], 1e-12),
        equal("out.kept", &kept.iter().map(|&i| i as i32).collect::<Vec<_>>(), &case.i32("out.kept").1),
        compare(case, "out.score", &as_f32),
        equal("out.selected_given_labels", &picked_rows, &case.i32("out.selected_given_labels").1),
        Line { tensor: "inertia".into(), found: (ours.inertia / inertia - 1.0).max(0.0), allowed: OF_INERTIA },
        equal("selected", &[ours.selected.len()], &[subset as usize]),
    ]
}
