//! What a command tells people on standard error, by `-q` and `-v`. Results go to standard output.

use std::sync::atomic::{AtomicU8, Ordering};

use super::shown::plain;

const QUIET: u8 = 0;
const USUAL: u8 = 1;
const VERBOSE: u8 = 2;

static LOUDNESS: AtomicU8 = AtomicU8::new(USUAL);

/// How much a command tells, apart from errors and results.
#[derive(clap::Args, Clone, Copy, Debug)]
pub(super) struct SayArgs {
    /// Print results and errors only: no notes, no progress
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// Also print time and memory of every stage
    #[arg(short, long, global = true, visible_alias = "profile")]
    verbose: bool,
}

impl SayArgs {
    /// Decides for the whole process.
    pub(super) fn apply(self) {
        let loudness = match (self.quiet, self.verbose) {
            (true, _) => QUIET,
            (false, true) => VERBOSE,
            (false, false) => USUAL,
        };
        LOUDNESS.store(loudness, Ordering::Relaxed);
    }
}

/// True with `-q`.
pub(super) fn is_quiet() -> bool {
    LOUDNESS.load(Ordering::Relaxed) == QUIET
}

/// True with `-v`.
pub(super) fn is_verbose() -> bool {
    LOUDNESS.load(Ordering::Relaxed) == VERBOSE
}

/// Prints a line, unless the command is to be quiet.
pub(super) fn line(text: &str) {
    if !is_quiet() {
        eprintln!("{}", plain(text));
    }
}

/// Prints a note, unless the command is to be quiet. A warning stays one.
pub(super) fn note(text: &str) {
    if text.starts_with("warning: ") { line(text) } else { line(&format!("note: {text}")) }
}
