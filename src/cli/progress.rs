//! Progress on standard error. [`Bars`] shows one bar per stage, and a finished stage leaves a line with its
//! time. [`StepBar`] counts the steps of a training. Without a terminal, a long stage prints a line now and
//! then.

use std::io::{IsTerminal as _, stderr};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::say;
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
        if self.is_terminal && !say::is_quiet() { self.bar.println(plain(line)) } else { say::line(line) }
    }
}

impl Drop for StepBar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Number of steps of a bar.
const STEPS: u64 = 1000;

/// Time between two lines about one stage, without a terminal.
const PAUSE: Duration = Duration::from_secs(10);

/// The progress bars of a run. Without a terminal they are lines.
pub(super) struct Bars {
    current: Option<(&'static str, Instant, ProgressBar)>,
    is_terminal: bool,
    /// When something was last printed.
    last_line: Instant,
}

impl Bars {
    pub(super) fn new() -> Self {
        Self { current: None, is_terminal: stderr().is_terminal(), last_line: Instant::now() }
    }

    /// Shows that the share `share` of `stage` is done, 0 to 1. A new stage ends the one before.
    pub(super) fn show(&mut self, stage: &'static str, share: f64) {
        if !self.is_terminal {
            if self.last_line.elapsed() >= PAUSE {
                self.last_line = Instant::now();
                say::line(&line(stage, share));
            }
            return;
        }
        if say::is_quiet() {
            return;
        }
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
        say::line(line);
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

/// A line about a stage of which the share `share` is done.
fn line(stage: &str, share: f64) -> String {
    if share > 0.0 { format!("{stage}: {:.0} %", 100.0 * share) } else { format!("{stage} ...") }
}

impl Drop for Bars {
    fn drop(&mut self) {
        self.finish();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_stage_says_how_far_it_is() {
        assert_eq!(line("encode views", 0.354), "encode views: 35 %");
        assert_eq!(line("load weights", 0.0), "load weights ...");
    }
}
