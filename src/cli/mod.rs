//! The command line: one file per subcommand. Results go to stdout, progress and logs to stderr.

mod affinities;
mod devices;
mod encode;
mod eval;
mod infer;
mod info;
mod labelling;
mod prepare;
mod pretrain;
mod progress;
mod purify;
mod query;
mod segment;
mod select;
mod study;
mod synth;
mod table;
mod teacher;
mod train;
mod viewing;
mod weights;
mod words;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::files;

/// Open-vocabulary 3D segmentation on any Vulkan GPU, or on none.
#[derive(Parser, Debug)]
#[command(name = "geopurify", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// List the devices work can run on, and which one is taken
    Devices(devices::DevicesArgs),
    /// Give the points of a scan the features of Sonata, and show them as colours
    Encode(encode::EncodeArgs),
    /// Say how good the labelling is, on scenes whose labels are known
    Eval(Box<eval::EvalArgs>),
    /// Label every point of scans and recordings, by words
    Infer(Box<infer::InferArgs>),
    /// Say what a scan holds
    Info(info::InfoArgs),
    /// Unpack ScanNet or Matterport3D once, as they are downloaded
    Prepare(prepare::PrepareArgs),
    /// Train the image model or the teacher themselves, at small widths, on rooms that `synth` made
    Pretrain(pretrain::PretrainArgs),
    /// Clean the features of a scan's points by geometry
    Purify(purify::PurifyArgs),
    /// Find something in a scan that `infer` has labelled
    Query(query::QueryArgs),
    /// Label what pictures show, by words
    Segment(segment::SegmentArgs),
    /// Choose the scenes to train on, by what they hold
    Select(select::SelectArgs),
    /// Say what each part of the method is worth on rooms that nothing was learned from
    Study(Box<study::StudyArgs>),
    /// Make furnished rooms with labels and recorded views, to train on and to measure with
    Synth(synth::SynthArgs),
    /// Train a student from scans and recordings, without labels
    Train(Box<train::TrainArgs>),
    /// Keep the networks' weights ready: import, list, verify, fetch, remove
    Weights(weights::WeightsArgs),
}

/// Parses the arguments and runs the subcommand. 0: done, 1: failed, 2: wrong arguments.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("error")).init();
    // A killed run leaves no half-written file: 130 is what shells expect of an interrupted program.
    let handled = ctrlc::set_handler(|| files::exit_without_partials(130));
    if let Err(error) = handled {
        log::warn!("signals are not handled: {error}");
    }
    let result = match &cli.command {
        Command::Devices(args) => devices::run(args).map(|()| ExitCode::SUCCESS),
        Command::Encode(args) => encode::run(args).map(|()| ExitCode::SUCCESS),
        Command::Eval(args) => eval::run(args),
        Command::Infer(args) => infer::run(args),
        Command::Info(args) => info::run(args),
        Command::Prepare(args) => prepare::run(args),
        Command::Pretrain(args) => pretrain::run(args).map(|()| ExitCode::SUCCESS),
        Command::Purify(args) => purify::run(args).map(|()| ExitCode::SUCCESS),
        Command::Query(args) => query::run(args).map(|()| ExitCode::SUCCESS),
        Command::Segment(args) => segment::run(args),
        Command::Select(args) => select::run(args).map(|()| ExitCode::SUCCESS),
        Command::Study(args) => study::run(args).map(|()| ExitCode::SUCCESS),
        Command::Synth(args) => synth::run(args).map(|()| ExitCode::SUCCESS),
        Command::Train(args) => train::run(args).map(|()| ExitCode::SUCCESS),
        Command::Weights(args) => weights::run(args),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {}", told_once(&error));
        ExitCode::FAILURE
    })
}

/// The chain of an error in one line. An error of the library says its cause itself, so a cause that the text
/// ends in already is not said again.
fn told_once(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |mut text, cause| {
        if !text.ends_with(&cause) {
            let separator = if text.is_empty() { "" } else { ": " };
            text.push_str(separator);
            text.push_str(&cause);
        }
        text
    })
}

#[cfg(test)]
mod tests {
    use super::told_once;

    #[test]
    fn a_cause_is_told_once() {
        let cause = std::io::Error::other("no such file");
        let said = anyhow::Error::new(cause).context("a.ply: cannot open: no such file");
        assert_eq!(told_once(&said), "a.ply: cannot open: no such file");
        assert_eq!(told_once(&said.context("purifying")), "purifying: a.ply: cannot open: no such file");
    }
}
