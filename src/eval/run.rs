//! The loop over the scenes of an evaluation. It can be stopped at any time: finished scenes are not repeated.

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use super::evaluation::{Evaluation, EvaluationError};
use super::report::{Failure, Missing, Report, SceneResult, Skipped};
use super::scenes::LabelledScene;
use crate::files::{Lock, is_full, remove_partials};
use crate::session::Labeller;

/// Event of an evaluation. Scenes are numbered from 1.
#[derive(Debug)]
pub enum SceneEvent<'a> {
    /// Note about a recording.
    Note(&'a str),
    /// A scene is evaluated.
    Done {
        /// Number of the scene.
        number: usize,
        /// Its result.
        result: &'a SceneResult,
        /// True if it was computed now, false if it was there.
        is_new: bool,
    },
    /// A scene was left out, because no view shows enough of it.
    Skipped {
        /// Number of the scene.
        number: usize,
        /// The scene and the reason.
        skipped: &'a Skipped,
    },
    /// A scene failed. The others go on.
    Failed(&'a Failure),
}

/// Result of an evaluation.
#[derive(Clone, Debug)]
pub struct Evaluated {
    /// The report.
    pub report: Report,
    /// Files of the report.
    pub files: Vec<PathBuf>,
    /// Number of scenes that were computed now.
    pub num_new: usize,
    /// Time that these took, in seconds.
    pub seconds: f64,
}

impl Evaluation {
    /// Takes the report's folder for this process as long as the value lives, and removes what a killed run left half
    /// written.
    ///
    /// # Errors
    /// [`EvaluationError::Busy`], [`EvaluationError::Lock`].
    pub fn lock(&self) -> Result<Lock, EvaluationError> {
        let at = |source| EvaluationError::Lock { path: self.output().to_path_buf(), source };
        let lock = Lock::of_folder(self.output()).map_err(at)?;
        let lock = lock.ok_or_else(|| EvaluationError::Busy(self.output().to_path_buf()))?;
        remove_partials(self.output(), Duration::ZERO).map_err(at)?;
        Ok(lock)
    }

    /// Evaluates `scenes` and writes the report. One bad scene does not stop the others: it is in the report with the
    /// text that `told` makes of its error.
    ///
    /// # Errors
    /// [`EvaluationError::DiskFull`], [`EvaluationError::NoneEvaluated`], and errors of the report.
    pub fn run(
        self,
        scenes: &[LabelledScene],
        labeller: &Labeller<'_>,
        told: &dyn Fn(EvaluationError) -> String,
        on_event: &mut dyn FnMut(SceneEvent<'_>),
    ) -> Result<Evaluated, EvaluationError> {
        let evaluation = self.with_labeller(labeller);
        let (mut results, mut missing) = (Vec::new(), Missing::default());
        let (mut num_new, mut seconds) = (0, 0.0);
        for (number, scene) in (1..).zip(scenes) {
            let found = evaluation.result(scene, labeller, &mut |note| on_event(SceneEvent::Note(note)));
            match found {
                Ok((result, is_new)) => {
                    on_event(SceneEvent::Done { number, result: &result, is_new });
                    if is_new {
                        num_new += 1;
                        seconds += result.seconds;
                    }
                    results.push(result);
                }
                Err(error) if error.is_without_views() => {
                    let skipped = Skipped { scene: scene.name.clone(), reason: error.to_string() };
                    on_event(SceneEvent::Skipped { number, skipped: &skipped });
                    missing.skipped.push(skipped);
                }
                Err(error) => {
                    let is_full = is_disk_full(&error);
                    let failure = Failure { scene: scene.name.clone(), error: told(error) };
                    on_event(SceneEvent::Failed(&failure));
                    if is_full {
                        return Err(EvaluationError::DiskFull);
                    }
                    missing.failed.push(failure);
                }
            }
        }
        if results.is_empty() {
            return Err(EvaluationError::NoneEvaluated(scenes.len()));
        }
        let report = evaluation.report(labeller, &results, missing)?;
        let files = evaluation.write(&report)?;
        Ok(Evaluated { report, files, num_new, seconds })
    }
}

fn is_disk_full(error: &EvaluationError) -> bool {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.downcast_ref::<std::io::Error>().is_some_and(is_full) {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_known_by_its_cause() {
        let failed = |kind: std::io::ErrorKind| EvaluationError::Folder { path: PathBuf::new(), source: kind.into() };
        assert!(is_disk_full(&failed(std::io::ErrorKind::StorageFull)));
        assert!(!is_disk_full(&failed(std::io::ErrorKind::NotFound)));
    }
}
