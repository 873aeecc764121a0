//! Progress on standard error. [`Bars`] shows one bar per stage, and a finished stage leaves a line with its
//! time. [`StepBar`] counts the steps of a training. Without a terminal, a long stage prints a line now and
//! then.

use std::io::{IsTerminal as _, stderr};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::say;
use super::shown::plain;

/// Progress of a training, which counts its steps: a bar on a terminal, else lines from time to time, also while
/// a step takes long.
pub(super) struct StepBar {
    bar: Option<ProgressBar>,
    steps: Arc<Mutex<Steps>>,
    /// The thread that prints the lines. It ends when the sender is dropped.
    printer: Option<(Sender<()>, JoinHandle<()>)>,
}

/// The steps of a training.
struct Steps {
    done: u64,
    all: u64,
    message: String,
    /// The step of the last line.
    printed: Option<u64>,
    last_line: Instant,
    start: Instant,
}

impl StepBar {
    pub(super) fn new(all: u64) -> Self {
        let now = Instant::now();
        let steps = Steps { done: 0, all, message: String::new(), printed: None, last_line: now, start: now };
        let steps = Arc::new(Mutex::new(steps));
        if say::is_quiet() {
            return Self { bar: None, steps, printer: None };
        }
        if stderr().is_terminal() {
            let bar = ProgressBar::new(all);
            // The template is a constant, and a bar without a style is better than none.
            if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed} {msg}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(TICK);
            return Self { bar: Some(bar), steps, printer: None };
        }
        let (stop, stopped) = channel::<()>();
        let shared = Arc::clone(&steps);
        let work = move || {
            while matches!(stopped.recv_timeout(PAUSE), Err(RecvTimeoutError::Timeout)) {
                shared.lock().unwrap_or_else(PoisonError::into_inner).print_if_due();
            }
        };
        Self { bar: None, steps, printer: Some((stop, std::thread::spawn(work))) }
    }

    /// Shows that `done` steps are done. `message` is about the last of them.
    pub(super) fn show(&self, done: u64, message: String) {
        if let Some(bar) = &self.bar {
            bar.set_position(done);
            bar.set_message(message);
            return;
        }
        let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        (steps.done, steps.message) = (done, message);
        if done == steps.all {
            steps.print();
        }
    }

    /// Prints a line, above the bar if there is one.
    pub(super) fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.println(plain(line)),
            None => say::line(line),
        }
    }
}

impl Drop for StepBar {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        if let Some((stop, printer)) = self.printer.take() {
            drop(stop);
            // The thread only prints, so there is nothing to do if it failed.
            let _ = printer.join();
        }
    }
}

impl Steps {
    /// Prints a line if there is a new step, or if nothing was printed for long.
    fn print_if_due(&mut self) {
        if self.done < self.all && (self.printed != Some(self.done) || self.last_line.elapsed() >= LONG_PAUSE) {
            self.print();
        }
    }

    fn print(&mut self) {
        say::line(&self.line(self.start.elapsed()));
        self.printed = Some(self.done);
        self.last_line = Instant::now();
    }

    fn line(&self, since: Duration) -> String {
        let Self { done, all, message, .. } = self;
        match message.is_empty() {
            true => format!("the first step is not done yet, {} so far", duration(since.as_secs_f64())),
            false => format!("{done}/{all} {message}"),
        }
    }
}

/// What is known of a step, for people.
pub(super) fn step_message(loss: f64, learning_rate: f64, seconds: f64, remaining: f64) -> String {
    format!("loss {loss:.4}  rate {learning_rate:.2e}  {seconds:.2} s a step  {} left", duration(remaining))
}

/// Formats seconds as hours, minutes and seconds.
fn duration(seconds: f64) -> String {
    let seconds = Duration::try_from_secs_f64(seconds).unwrap_or_default().as_secs();
    match (seconds / 3600, seconds / 60 % 60) {
        (0, 0) => format!("{seconds} s"),
        (0, minutes) => format!("{minutes} min {:02} s", seconds % 60),
        (hours, minutes) => format!("{hours} h {minutes:02} min"),
    }
}

/// Number of steps of a bar.
const STEPS: u64 = 1000;

/// Time between two lines about one stage, without a terminal.
const PAUSE: Duration = Duration::from_secs(10);

/// Time between two lines about one step of a training.
const LONG_PAUSE: Duration = Duration::from_secs(60);

/// Time between two drawings of a bar.
const TICK: Duration = Duration::from_millis(500);

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
    fn durations_are_for_people() {
        assert_eq!(duration(59.9), "59 s");
        assert_eq!(duration(61.0), "1 min 01 s");
        assert_eq!(duration(7322.0), "2 h 02 min");
        assert_eq!(duration(f64::NAN), "0 s");
    }

    #[test]
    fn a_training_says_how_far_it_is_before_its_first_step_too() {
        let now = Instant::now();
        let steps =
            |done, message: String| Steps { done, all: 100, message, printed: None, last_line: now, start: now };
        assert_eq!(
            steps(0, String::new()).line(Duration::from_secs(70)),
            "the first step is not done yet, 1 min 10 s so far"
        );
        let message = step_message(1.25, 1e-3, 0.5, 49.5);
        assert_eq!(steps(1, message).line(Duration::ZERO), "1/100 loss 1.2500  rate 1.00e-3  0.50 s a step  49 s left");
    }

    #[test]
    fn a_long_stage_says_how_far_it_is() {
        assert_eq!(line("encode views", 0.354), "encode views: 35 %");
        assert_eq!(line("load weights", 0.0), "load weights ...");
    }
}
