//! What a run spent its time and memory on.

use std::time::Instant;

use serde::Serialize;

/// How far a run is: called with the stage's name and the share done, 0 to 1.
pub type Progress<'a> = dyn FnMut(&'static str, f64) + 'a;

/// One line of the stage table.
#[derive(Clone, Debug, Serialize)]
pub struct Stage {
    /// Name of the stage.
    pub name: &'static str,
    /// Wall time in seconds.
    pub seconds: f64,
    /// Bytes the stage has to read and write at least; 0 where that is not counted.
    pub bytes: u64,
    /// Largest resident memory of the process up to the stage's end, where the system tells.
    pub peak_bytes: Option<u64>,
}

/// Times the stages of a run, in the order in which each was first reached, and passes their progress on.
///
/// Work that alternates (read a picture, encode it, read the next) adds up under its own names.
pub struct StageTimer<'p> {
    start: Instant,
    last: Instant,
    stages: Vec<Stage>,
    progress: Option<&'p mut Progress<'p>>,
}

impl Default for StageTimer<'_> {
    fn default() -> Self {
        let now = Instant::now();
        Self { start: now, last: now, stages: Vec::new(), progress: None }
    }
}

impl std::fmt::Debug for StageTimer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StageTimer").field("stages", &self.stages).finish_non_exhaustive()
    }
}

impl<'p> StageTimer<'p> {
    /// A timer that tells `progress` how far each stage is.
    #[must_use]
    pub fn with_progress(progress: &'p mut Progress<'p>) -> Self {
        Self { progress: Some(progress), ..Self::default() }
    }

    /// Forgets what was timed so far.
    pub fn restart(&mut self) {
        let now = Instant::now();
        (self.start, self.last) = (now, now);
        self.stages.clear();
    }

    /// Tells how far the stage `name` is, 0 to 1.
    pub fn progress(&mut self, name: &'static str, share: f64) {
        if let Some(progress) = &mut self.progress {
            progress(name, share);
        }
    }

    /// Runs `body` as the stage `name`. The body may tell what share of it is done.
    ///
    /// # Errors
    /// The error of `body`.
    pub fn run<T, E>(
        &mut self,
        name: &'static str,
        body: impl FnOnce(&mut dyn FnMut(f64)) -> Result<T, E>,
    ) -> Result<T, E> {
        self.last = Instant::now();
        self.progress(name, 0.0);
        let result = body(&mut |share| self.progress(name, share));
        self.progress(name, 1.0);
        self.lap(name);
        result
    }

    /// Counts the time since the last stage ended as the stage `name`.
    pub fn lap(&mut self, name: &'static str) {
        let now = Instant::now();
        let seconds = (now - self.last).as_secs_f64();
        self.last = now;
        let peak_bytes = peak_memory();
        match self.stages.iter_mut().find(|stage| stage.name == name) {
            Some(stage) => {
                stage.seconds += seconds;
                stage.peak_bytes = peak_bytes;
            }
            None => self.stages.push(Stage { name, seconds, bytes: 0, peak_bytes }),
        }
    }

    /// Says how many bytes the stage `name` has to read and write at least.
    pub fn bytes(&mut self, name: &str, bytes: usize) {
        if let Some(stage) = self.stages.iter_mut().find(|stage| stage.name == name) {
            stage.bytes = bytes as u64;
        }
    }

    /// Seconds since the start.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    /// The stages so far.
    #[must_use]
    pub fn stages(&self) -> &[Stage] {
        &self.stages
    }
}

/// Largest resident memory of this process so far in bytes, where the system tells (Linux).
#[must_use]
pub fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Bytes of memory that could be taken now without swapping, within what the process's control group allows, where the system
/// tells (Linux).
#[must_use]
pub fn available_memory() -> Option<u64> {
    let info = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = info.lines().find_map(|l| l.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    let number = |path: &str| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let of_group =
        number("/sys/fs/cgroup/memory.max").or_else(|| number("/sys/fs/cgroup/memory/memory.limit_in_bytes"));
    Some((kib * 1024).min(of_group.unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alternating_work_adds_up_under_its_name() {
        let mut timer = StageTimer::default();
        for name in ["read", "see", "read", "see", "write"] {
            timer.lap(name);
        }
        let names: Vec<_> = timer.stages().iter().map(|stage| stage.name).collect();
        assert_eq!(names, ["read", "see", "write"]);
        let total: f64 = timer.stages().iter().map(|stage| stage.seconds).sum();
        assert!(total > 0.0 && total <= timer.seconds());
    }
}
