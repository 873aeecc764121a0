//! Every golden case, on every device: `cargo test --release --test golden`, a part of them by `-- student`.
//!
//! `GEOPURIFY_GOLDEN` names the folders of all cases, separated as in `PATH`. Where it is not set, the small ones in
//! `tests/golden` are compared, and the others counted as ignored. `GEOPURIFY_DEVICE` names one device. A line per
//! tensor: its name, the difference, the tolerance, `ok` or `FAIL`.

mod case;
mod clip;
#[path = "../common/mod.rs"]
mod common;
mod distill;
mod evaluation;
mod import;
mod lift;
mod lseg;
mod manifest;
mod openscene;
mod ops;
mod sonata;
mod training;
mod xdecoder;

use std::process::ExitCode;
use std::sync::Arc;

use burn::tensor::Device;
use case::{Case, cases, golden_roots};
use geopurify::gpu::{AdapterKind, adapters};
use libtest_mimic::{Arguments, Failed, Trial};

/// Cases of hundreds of billions of operations and more, which a software adapter takes minutes for: their
/// stages are compared there one by one, the whole on the host and on hardware. `GEOPURIFY_GOLDEN_LONG` runs
/// them everywhere.
const TOO_LONG_IN_SOFTWARE: &[&str] =
    &["xdecoder/text_full", "xdecoder/forward_full", "lseg/network_full", "lseg/view_full", "lseg/lift_scene"];

/// The cases that are too large for the repository, a path a line.
const FULL_CASES: &str = include_str!("full_cases.txt");

/// One compared tensor.
pub struct Line {
    /// Name of the tensor.
    pub tensor: String,
    /// The measured difference.
    pub found: f64,
    /// The largest difference allowed; 0 asks for equality.
    pub allowed: f64,
}

fn main() -> ExitCode {
    // A case uses every core by itself, and the lines of one stay together.
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    libtest_mimic::run(&arguments, trials()).exit_code()
}

fn trials() -> Vec<Trial> {
    let roots = golden_roots();
    let all_wanted = std::env::var_os("GEOPURIFY_GOLDEN").is_some();
    let long_too = std::env::var_os("GEOPURIFY_GOLDEN_LONG").is_some();
    let software: Vec<String> = adapters()
        .into_iter()
        .filter(|adapter| adapter.kind == AdapterKind::Software && !long_too)
        .map(|adapter| adapter.name)
        .collect();
    let cases: Vec<Arc<Case>> = cases(&roots).into_iter().map(Arc::new).collect();
    assert!(!cases.is_empty(), "no golden case under {roots:?}");
    let devices = common::devices();
    let mut trials = import::trials(&roots, all_wanted);
    for case in &cases {
        for (name, device) in &devices {
            let too_long = software.contains(name) && TOO_LONG_IN_SOFTWARE.iter().any(|long| case.name.ends_with(long));
            let kind = if too_long { "minutes in software, wants GEOPURIFY_GOLDEN_LONG" } else { "" };
            let (of, on) = (case.clone(), device.clone());
            let trial = Trial::test(format!("{} on {name}", case.name), move || compare(&of, &on));
            trials.push(trial.with_kind(kind).with_ignored_flag(too_long));
        }
    }
    for name in FULL_CASES.lines().filter(|name| cases.iter().all(|case| case.name != *name)) {
        trials.push(missing(name, all_wanted));
    }
    trials
}

/// Fails where all cases are wanted, and is ignored elsewhere.
fn missing(name: &str, all_wanted: bool) -> Trial {
    let trial = Trial::test(name, || Err("GEOPURIFY_GOLDEN names no folder that has it".into()));
    trial.with_kind(if all_wanted { "" } else { "wants GEOPURIFY_GOLDEN" }).with_ignored_flag(!all_wanted)
}

fn compare(case: &Case, device: &Device) -> Result<(), Failed> {
    let run = runner(case).ok_or_else(|| format!("the op '{}' is unknown", op_name(case)))?;
    let lines = run(case, device);
    if lines.is_empty() {
        return Err("compares nothing".into());
    }
    let mut missed = Vec::new();
    println!();
    for line in lines {
        // Phrased so that a NaN fails.
        let ok = line.found <= line.allowed;
        let verdict = if ok { "ok" } else { "FAIL" };
        let text = format!("{} {:.3e} {:.1e} {verdict}", line.tensor, line.found, line.allowed);
        println!("  {text}");
        if !ok {
            missed.push(text);
        }
    }
    if missed.is_empty() { Ok(()) } else { Err(missed.join("\n").into()) }
}

/// The op by name: sonata's checkpoints are told from the student's by their config.
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
        "metrics" => evaluation::metrics,
        "scene_metrics" => evaluation::scene_metrics,
        "select_scenes" => evaluation::select_scenes,
        "contrastive_pairs" => distill::contrastive_pairs,
        "lift_xdecoder" => lift::lift_xdecoder,
        "image_prep" => xdecoder::image_prep,
        "clip_tokenize" => xdecoder::clip_tokenize,
        "text_embeddings" => xdecoder::text_embeddings,
        "focal_backbone" => xdecoder::focal_backbone,
        "pixel_decoder" => xdecoder::pixel_decoder,
        "decoder" => xdecoder::decoder,
        "forward_seg_all" => xdecoder::forward_seg_all,
        "bicubic_antialias" => xdecoder::bicubic_antialias,
        "serialization" => sonata::serialization,
        "transform" => sonata::transform,
        "padding" => sonata::padding,
        "attention" => sonata::attention,
        "block" => sonata::block,
        "gridpool" => sonata::gridpool,
        "sonata" => sonata::sonata,
        "mink_conv" => openscene::mink_conv,
        "mink_conv_up" => openscene::mink_conv_up,
        "mink_unet" => openscene::mink_unet,
        "openscene_labels" => openscene::labels,
        "openscene_metrics" => openscene::metrics,
        "openscene_checkpoint" => openscene::checkpoint,
        "checkpoint of sonata" => sonata::checkpoint,
        "clip_text" => clip::clip_text,
        "bilinear" => lseg::bilinear,
        "lseg_network" => lseg::network,
        "lseg_logits" => lseg::logits,
        "lseg_checkpoint" => lseg::checkpoint,
        "lseg_view" => lseg::view,
        "lift_lseg" => lseg::lift,
        "clip_checkpoint" => clip::clip_checkpoint,
        _ => return None,
    })
}
