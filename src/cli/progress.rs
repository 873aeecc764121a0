//! Progress on standard error. [`Bars`] shows one bar per stage, and a finished stage leaves a line with its
//! time. [`StepBar`] counts the steps of a training.

use std::io::{IsTerminal as _, stderr};
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};

use super::shown::plain;

/// The bar of a training, which counts its steps. It is shown only on a terminal.
pub(super) struct StepBar {
    pub(super) bar: ProgressBar,
    pub(super) is_terminal: bool,
}

impl StepBar {
    pub(super) fn new(num_steps: u64) -> Self {
        let bar = ProgressBar::new(num_steps);
        // The template is a constant, and a bar without a style is better than none.
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}") {
            bar.set_style(style);
        }
        Self { bar, is_terminal: stderr().is_terminal() }
    }

    /// Prints a line, above the bar if there is one.
    pub(super) fn say(&self, line: &str) {
        let line = plain(line);
        if self.is_terminal { self.bar.println(line) } else { eprintln!("{line}") }
    }
}

impl Drop for StepBar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Number of steps of a bar.
const STEPS: u64 = 1000;

/// The progress bars of a run. They are shown only on a terminal.
pub(super) struct Bars {
    current: Option<(&'static str, Instant, ProgressBar)>,
}

impl Bars {
    pub(super) fn new() -> Self {
        Self { current: None }
    }

    /// Shows that the share `share` of `stage` is done, 0 to 1. A new stage ends the one before.
    pub(super) fn show(&mut self, stage: &'static str, share: f64) {
        if self.current.as_ref().is_none_or(|(name, _, _)| *name != stage) {
            self.finish();
            let bar = ProgressBar::new(STEPS).with_message(stage);
            // The template is a constant, and a bar without a style is better than none.
            if let Ok(style) = ProgressStyle::with_template("{msg:14} {bar:40} {percent:>3}% {elapsed}") {
                bar.set_style(style);
            }
            self.current = Some((stage, Instant::now(), bar));
        }
        if let Some((_, _, bar)) = &self.current {
            bar.set_position((share * STEPS as f64) as u64);
        }
    }

    /// Ends the bar and prints a line.
    pub(super) fn say(&mut self, line: &str) {
        self.finish();
        eprintln!("{}", plain(line));
    }

    /// Ends the bar. On a terminal, a line with the stage and its time stays.
    pub(super) fn finish(&mut self) {
        if let Some((stage, start, bar)) = self.current.take() {
            if !bar.is_hidden() && start.elapsed().as_secs_f64() >= 0.1 {
                bar.println(format!("{stage:14} {:.1} s", start.elapsed().as_secs_f64()));
            }
            bar.finish_and_clear();
        }
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        self.finish();
    }
}
