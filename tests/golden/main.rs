//! Every golden case, on every device: `cargo test --release --test golden`.
//!
//! `GEOPURIFY_GOLDEN` is the directory (default `tests/golden`), `GEOPURIFY_GOLDEN_ONLY` keeps the
//! cases whose path contains it, `GEOPURIFY_DEVICE` names one device. A line per tensor: case, device,
//! tensor, difference, tolerance, `ok` or `FAIL`. Fails on any miss, on a case it does not know, and
//! where nothing was compared.

mod case;
#[path = "../common/mod.rs"]
mod common;
mod lift;
mod manifest;
mod ops;
mod training;
mod xdecoder;

use std::process::ExitCode;

use burn::tensor::Device;
use case::{Case, cases, golden_root};
use geopurify::gpu::{AdapterKind, adapters};

/// Operations of later releases: their cases are listed as `not yet` and neither pass nor fail.
const NOT_YET_SUPPORTED: &[&str] = &[
    // Evaluation over scenes and the pairs of training.
    "contrastive_pairs",
    "metrics",
    "scene_metrics",
    "select_scenes",
    // Sonata. Its checkpoint cases share the op's name with the student's, which are supported.
    "serialization",
    "transform",
    "padding",
    "attention",
    "block",
    "gridpool",
    "sonata",
    "checkpoint of sonata",
];

/// Cases of hundreds of billions of operations and more, which a software adapter takes minutes for: their
/// stages are compared there one by one, the whole on the host and on hardware. `GEOPURIFY_GOLDEN_LONG` runs
/// them everywhere.
const TOO_LONG_IN_SOFTWARE: &[&str] = &["xdecoder/text_full", "xdecoder/forward_full"];

/// One compared tensor.
pub struct Line {
    pub tensor: String,
    /// The measured difference.
    pub found: f64,
    /// The largest difference allowed; 0 asks for equality.
    pub allowed: f64,
}

fn main() -> ExitCode {
    let root = golden_root();
    let only = std::env::var("GEOPURIFY_GOLDEN_ONLY").unwrap_or_default();
    let cases: Vec<Case> = cases(&root).into_iter().filter(|case| case.name.contains(&only)).collect();
    let devices = common::devices();
    let long_too = std::env::var_os("GEOPURIFY_GOLDEN_LONG").is_some();
    let software: Vec<String> = adapters()
        .into_iter()
        .filter(|adapter| adapter.kind == AdapterKind::Software && !long_too)
        .map(|adapter| adapter.name)
        .collect();
    let (mut passed, mut failed, mut not_yet, mut not_run) = (0, 0, 0, 0);
    for case in &cases {
        let Some(run) = runner(case) else {
            let op = op_name(case);
            if NOT_YET_SUPPORTED.contains(&op.as_str()) {
                println!("{} ({op}) not yet", case.name);
                not_yet += 1;
            } else {
                println!("{} has the unknown op '{op}' FAIL", case.name);
                failed += 1;
            }
            continue;
        };
        for (name, device) in &devices {
            if software.contains(name) && TOO_LONG_IN_SOFTWARE.iter().any(|long| case.name.ends_with(long)) {
                println!("{} {} not run: minutes on a software adapter", case.name, name.replace(' ', "_"));
                not_run += 1;
                continue;
            }
            let lines = std::panic::catch_unwind(|| run(case, device)).unwrap_or_else(|_| {
                // The message is on stderr already.
                vec![Line { tensor: "(panicked)".to_owned(), found: f64::NAN, allowed: 0.0 }]
            });
            if lines.is_empty() {
                println!("{} {name} compares nothing FAIL", case.name);
                failed += 1;
            }
            for line in lines {
                // Phrased so that a NaN fails.
                let ok = line.found <= line.allowed;
                let verdict = if ok { "ok" } else { "FAIL" };
                let device = name.replace(' ', "_");
                println!("{} {device} {} {:.3e} {:.1e} {verdict}", case.name, line.tensor, line.found, line.allowed);
                if ok { passed += 1 } else { failed += 1 }
            }
        }
    }
    if passed + failed == 0 {
        eprintln!("no golden case compared under {} (GEOPURIFY_GOLDEN_ONLY is '{only}')", root.display());
        failed += 1;
    }
    println!("{not_yet} cases not yet supported, {not_run} not run on a software adapter");
    println!("golden: {passed} passed, {failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The op as the list above names it: sonata's checkpoints are told from the student's by their config.
fn op_name(case: &Case) -> String {
    match case.op.as_str() {
        "checkpoint" if case.config.get("enc_depths").is_some() => "checkpoint of sonata".to_owned(),
        op => op.to_owned(),
    }
}

type Runner = fn(&Case, &Device) -> Vec<Line>;

fn runner(case: &Case) -> Option<Runner> {
    Some(match op_name(case).as_str() {
        "voxelize" => ops::voxelize,
        "minkconv" => ops::minkconv,
        "submconv" => ops::submconv,
        "knn" => ops::knn,
        "pooling" => ops::pooling,
        "student_eval" => ops::student_eval,
        "checkpoint" => ops::student_checkpoint,
        "student_train" => training::student_train,
        "adamw" => training::adamw,
        "lr_schedule" => training::lr_schedule,
        "evaluate_scene" => ops::evaluate_scene,
        "lift_xdecoder" => lift::lift_xdecoder,
        "image_prep" => xdecoder::image_prep,
        "clip_tokenize" => xdecoder::clip_tokenize,
        "text_embeddings" => xdecoder::text_embeddings,
        "focal_backbone" => xdecoder::focal_backbone,
        "pixel_decoder" => xdecoder::pixel_decoder,
        "decoder" => xdecoder::decoder,
        "forward_seg_all" => xdecoder::forward_seg_all,
        "bicubic_antialias" => xdecoder::bicubic_antialias,
        _ => return None,
    })
}
