//! The command line, with one file per subcommand. Results go to stdout, progress and logs to stderr.

#[cfg(feature = "lab")]
mod ablation;
mod affinities;
#[cfg(feature = "train")]
mod cache;
mod devices;
mod encode;
mod eval;
mod infer;
mod info;
mod info_recording;
mod info_scenes;
mod label_ids;
mod labelling;
mod manual;
mod networks;
mod numbers;
mod objects;
mod outputs;
#[cfg(feature = "lab")]
mod prepare;
#[cfg(feature = "lab")]
mod pretrain;
mod progress;
mod purify;
mod query;
#[cfg(feature = "lab")]
mod reproduce;
mod say;
mod segment;
#[cfg(feature = "train")]
mod select;
mod shown;
mod signals;
#[cfg(feature = "lab")]
mod synth;
mod table;
#[cfg(feature = "train")]
mod train;
#[cfg(feature = "lab")]
mod train_network;
#[cfg(feature = "viewer")]
mod view;
mod viewing;
mod weights;
mod words;

use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use shown::plain;

/// Open-vocabulary 3D segmentation on any Vulkan GPU, or on the CPU
#[derive(Parser, Debug)]
#[command(name = "geopurify", version, propagate_version = true)]
struct Cli {
    #[command(flatten)]
    say: say::SayArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Label every point of scans and recordings by words
    Infer(Box<infer::InferArgs>),
    /// Label the pixels of pictures by words
    Segment(segment::SegmentArgs),
    /// Find things by text in a scan that `infer` has labelled
    Query(query::QueryArgs),
    /// List the objects in a scan that `infer` has labelled
    Objects(objects::ObjectsArgs),
    /// Look at a labelled scan in the browser, and ask it for words
    #[cfg(feature = "viewer")]
    View(Box<view::ViewArgs>),
    /// Train a student from scans and recordings, without labels
    #[cfg(feature = "train")]
    Train(Box<train::TrainArgs>),
    /// Choose the scenes to train on
    #[cfg(feature = "train")]
    Select(select::SelectArgs),
    /// Train the image model or the teacher on synthetic rooms
    #[cfg(feature = "lab")]
    Pretrain(pretrain::PretrainArgs),
    /// Measure labels against the true labels of scenes
    Eval(Box<eval::EvalArgs>),
    /// Measure how much each part of the method contributes
    #[cfg(feature = "lab")]
    Ablation(Box<ablation::AblationArgs>),
    /// Measure the paper's tables, with its own figures beside ours
    #[cfg(feature = "lab")]
    Reproduce(Box<reproduce::ReproduceArgs>),
    /// Unpack ScanNet or Matterport3D downloads into scenes
    #[cfg(feature = "lab")]
    Prepare(prepare::PrepareArgs),
    /// Generate synthetic rooms with labels and recorded views
    #[cfg(feature = "lab")]
    Synth(synth::SynthArgs),
    /// Describe the contents of a scan
    Info(info::InfoArgs),
    /// Compute Sonata's features for a scan
    Encode(encode::EncodeArgs),
    /// Purify features that you have for a scan's points
    Purify(purify::PurifyArgs),
    /// Import, fetch, list and verify weights of the networks
    Weights(weights::WeightsArgs),
    /// List the devices that can run the networks
    Devices(devices::DevicesArgs),
    /// Print completions for a shell
    Completions(manual::CompletionsArgs),
    /// Write manual pages into a folder
    Man(manual::ManArgs),
}

/// Parses the arguments and runs the subcommand. The exit code is 0 for success, 1 for failure, 2 for wrong
/// arguments.
#[must_use]
pub fn main() -> ExitCode {
    without_display();
    let matches = manual::by_task(Cli::command()).get_matches();
    let cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("error")).init();
    // A killed run leaves no half-written file.
    if let Err(error) = signals::handle() {
        log::warn!("an interrupted run may leave half-written files, as signals cannot be handled: {error}");
    }
    cli.say.apply();
    run(&cli.command).unwrap_or_else(|error| {
        if is_closed_pipe(&error) {
            return ExitCode::SUCCESS;
        }
        eprintln!("error: {}", told_once(&error));
        ExitCode::FAILURE
    })
}

/// Keeps graphics libraries from complaining on machines without a display. They look for a display's socket
/// in the folder that this variable names.
fn without_display() {
    #[cfg(unix)]
    if std::env::var_os("XDG_RUNTIME_DIR").is_none() {
        // SAFETY: no other thread runs yet.
        unsafe { std::env::set_var("XDG_RUNTIME_DIR", std::env::temp_dir()) };
    }
}

/// True if the reader of standard output has stopped, as `head` does. That is no fault.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe)
}

fn run(command: &Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Infer(args) => return infer::run(args),
        Command::Segment(args) => return segment::run(args),
        Command::Query(args) => query::run(args)?,
        Command::Objects(args) => objects::run(args)?,
        #[cfg(feature = "viewer")]
        Command::View(args) => return view::run(args),
        #[cfg(feature = "lab")]
        Command::Train(args) if args.trains_network() => train_network::run(args)?,
        #[cfg(feature = "train")]
        Command::Train(args) => train::run(args)?,
        #[cfg(feature = "train")]
        Command::Select(args) => select::run(args)?,
        #[cfg(feature = "lab")]
        Command::Pretrain(args) => pretrain::run(args)?,
        Command::Eval(args) => return eval::run(args),
        #[cfg(feature = "lab")]
        Command::Ablation(args) => ablation::run(args)?,
        #[cfg(feature = "lab")]
        Command::Reproduce(args) => return reproduce::run(args),
        #[cfg(feature = "lab")]
        Command::Prepare(args) => return prepare::run(args),
        #[cfg(feature = "lab")]
        Command::Synth(args) => synth::run(args)?,
        Command::Info(args) => return info::run(args),
        Command::Encode(args) => encode::run(args)?,
        Command::Purify(args) => purify::run(args)?,
        Command::Weights(args) => return weights::run(args),
        Command::Devices(args) => devices::run(args)?,
        Command::Completions(args) => manual::completions(args)?,
        Command::Man(args) => manual::pages(args)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes the chain of an error as one line. Errors of the library end in their cause, so a cause is left out
/// if the text already ends in it. Control characters are escaped.
fn told_once(error: &anyhow::Error) -> String {
    let told = error.chain().map(ToString::to_string).fold(String::new(), |mut text, cause| {
        if !text.ends_with(&cause) {
            let separator = if text.is_empty() { "" } else { ": " };
            text.push_str(separator);
            text.push_str(&cause);
        }
        text
    });
    plain(&told).into_owned()
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
