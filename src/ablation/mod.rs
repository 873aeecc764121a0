//! Ablation: what each part of the method is worth on rooms that nothing was learned or chosen from.
//!
//! Students are trained for every seed, number of scenes and choice of negatives; then the same lifted features of every
//! held-out room are purified by each of them, and by the two baselines that learn nothing. What a baseline can be set to is
//! chosen on validation rooms, never on those that are measured; so is the sharpness of learned affinities, beside the
//! published one.

mod error;
mod lifting;
mod measure;
mod report;
mod room;
mod students;

use std::path::{Path, PathBuf};
use std::time::Instant;

use burn::prelude::*;
use serde::Serialize;
use serde_json::json;

use crate::distill::{self, SceneFile};
use crate::eval::metrics::{AbsentClasses, Confusion};
use crate::files::{lock, write_atomic};
use crate::images::write_png;
use crate::labels::Protocol;
use crate::models::student::{Student, StudentConfig};
use crate::pipeline::Weights;
use crate::purify::{self, Affinities, ColorNormal};
use crate::weights::bytes_sha256;

pub use error::AblationError;
pub use lifting::RoomLifter;
use measure::{Bench, RoomCounts, write_json};
pub use report::{AblationReport, CHART_FILE, Choice, Figure, JSON_FILE, MARKDOWN_FILE, Row};
pub use room::{LiftedRoom, RoomPoints};
pub use students::{Negatives, StudentRun, TrainedStudent};

/// Of the results: those of another format are done again.
const FORMAT: u32 = 2;
const RESULTS_FOLDER: &str = "results";
/// The T that the paper uses, and all comparisons but those of T where it is among those asked for.
const USUAL_ITERATIONS: usize = 18;

/// What an ablation tries.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AblationSettings {
    /// Students of each kind: their seeds are 0, 1, ….
    pub seeds: usize,
    /// Numbers of scenes that students learn from, ascending; the largest is the usual one.
    pub scenes: Vec<usize>,
    /// T of the rows, ascending, as the paper counts: A is applied T + 1 times, as published.
    pub iterations: Vec<usize>,
    /// T beside these, among which the best is chosen on validation rooms.
    pub candidates: Vec<usize>,
    /// Constants of the kernel of colour and normal among which the best are chosen on validation rooms, for each T.
    pub kernels: Vec<ColorNormal>,
    /// Sharpness of learned affinities beside that of `purify`, among which the best is chosen there too, for each T.
    pub sharpness: Vec<f32>,
    /// Steps of the optimizer, for each student about as many: whole epochs of its scenes.
    pub steps: usize,
    /// Everything else of training.
    pub training: distill::Config,
    /// Bytes that a step may take; of scenes that need more, parts are taken.
    pub max_memory: u64,
    /// Neighbours and sharpness, and the memory for temporary values; the rest is not used.
    pub purify: purify::Settings,
}

impl AblationSettings {
    /// The grid of constants that is usual: standard deviations of colour, and scales of 1 − |cosine|.
    #[must_use]
    pub fn usual_kernels() -> Vec<ColorNormal> {
        let of_color =
            |color_sigma| [0.02, 0.05, 0.1, 0.3].map(move |normal_scale| ColorNormal { color_sigma, normal_scale });
        [0.05, 0.1, 0.2, 0.4].into_iter().flat_map(of_color).collect()
    }

    /// What is usually tried for the sharpness of learned affinities, beside the published 20.
    pub const USUAL_SHARPNESS: [f32; 3] = [10.0, 30.0, 40.0];

    /// Every sharpness of learned affinities that is tried: that of `purify`, then the others.
    #[must_use]
    pub fn all_sharpness(&self) -> Vec<f32> {
        let usual = self.purify.sharpness;
        [usual].into_iter().chain(self.sharpness.iter().copied().filter(|&other| other != usual)).collect()
    }

    /// Every T that is measured, ascending.
    #[must_use]
    pub fn all_iterations(&self) -> Vec<usize> {
        let mut all: Vec<usize> = self.iterations.iter().chain(&self.candidates).copied().collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// The T of all comparisons but those of T: the paper's 18, else the middle one.
    #[must_use]
    pub fn usual_iterations(&self) -> usize {
        let middle = self.iterations.get(self.iterations.len() / 2).copied().unwrap_or(USUAL_ITERATIONS);
        if self.iterations.contains(&USUAL_ITERATIONS) { USUAL_ITERATIONS } else { middle }
    }

    /// The scenes of the usual student.
    #[must_use]
    pub fn most_scenes(&self) -> usize {
        self.scenes.iter().copied().max().unwrap_or(0)
    }

    /// Fails for what cannot be studied with so many training scenes.
    ///
    /// # Errors
    /// [`AblationError::Settings`].
    pub fn check(&self, num_training: usize) -> Result<(), AblationError> {
        let is_ascending = |values: &[usize]| values.windows(2).all(|pair| pair[0] < pair[1]);
        let counts = [self.seeds, self.scenes.len(), self.iterations.len(), self.kernels.len(), self.steps];
        if counts.contains(&0) || self.scenes.contains(&0) {
            return Err(AblationError::settings(
                "expected 1 or more seeds, steps, kernels and T, and numbers of scenes from 1 on",
            ));
        }
        if !is_ascending(&self.scenes) || !is_ascending(&self.iterations) {
            return Err(AblationError::settings("expected numbers of scenes and T that ascend"));
        }
        let most = self.most_scenes();
        if most > num_training {
            return Err(AblationError::settings(format!(
                "{most} training scenes are asked for, there are {num_training}"
            )));
        }
        Ok(())
    }
}

/// Rooms that are ready: training scenes as [`TrainingScene::write`](distill::TrainingScene::write) wrote them, the others as
/// [`LiftedRoom::write`]. A file's key says what it was made of.
#[derive(Clone, Debug, Default)]
pub struct AblationRooms {
    /// To learn from.
    pub training: Vec<SceneFile>,
    /// To choose by.
    pub validation: Vec<SceneFile>,
    /// To measure.
    pub test: Vec<SceneFile>,
}

/// What rooms are labelled by.
pub struct AblationWords<'a> {
    /// The labels, class by class.
    pub labels: &'a [String],
    /// `[K, C]` the labels as the vision-language model embeds them.
    pub rows: Tensor<2>,
    /// How labels are counted.
    pub protocol: Protocol,
}

/// Where an ablation runs, and with what.
#[derive(Clone, Debug)]
pub struct AblationOrigin {
    /// Networks as they were used.
    pub weights: Vec<Weights>,
    /// Name of the device.
    pub device: String,
}

/// What an ablation is made of.
#[derive(Clone, Copy)]
pub struct AblationInputs<'a> {
    /// The rooms.
    pub rooms: &'a AblationRooms,
    /// What they are labelled by.
    pub words: &'a AblationWords<'a>,
    /// Where it runs, and with what.
    pub origin: &'a AblationOrigin,
}

/// What happens in an ablation.
#[derive(Debug)]
pub enum AblationEvent<'a> {
    /// A student is in training.
    Training {
        /// Which.
        run: StudentRun,
        /// What happens there.
        event: &'a distill::Event<'a>,
    },
    /// A student is trained.
    Trained {
        /// Which.
        run: StudentRun,
        /// Seconds it took; `None` for one that was there.
        seconds: Option<f64>,
    },
    /// A room was purified and counted.
    Measured {
        /// By what.
        way: &'a str,
        /// The room.
        room: &'a str,
        /// Seconds it took; `None` for what was there.
        seconds: Option<f64>,
    },
}

/// A way to weigh neighbours, with a name for files and messages.
enum Way<'a> {
    /// The features as they were lifted.
    Plain,
    Uniform,
    ColorNormal(ColorNormal),
    /// With the sharpness of its affinities.
    Student(&'a LoadedStudent, f32),
}

struct LoadedStudent {
    run: StudentRun,
    student: Student,
    config: StudentConfig,
    about: TrainedStudent,
}

impl Way<'_> {
    /// `usual` is the sharpness that is not named.
    fn name(&self, usual: f32) -> String {
        match self {
            Self::Plain => "unpurified".to_owned(),
            Self::Uniform => "uniform".to_owned(),
            Self::ColorNormal(ColorNormal { color_sigma, normal_scale }) => {
                format!("color-normal-{color_sigma}-{normal_scale}")
            }
            Self::Student(student, sharpness) if *sharpness == usual => student.run.to_string(),
            Self::Student(student, sharpness) => format!("{}-sharpness-{sharpness}", student.run),
        }
    }

    /// What results depend on.
    fn key(&self) -> serde_json::Value {
        match self {
            Self::Plain => "unpurified".into(),
            Self::Uniform => "uniform".into(),
            Self::ColorNormal(kernel) => json!(kernel),
            Self::Student(student, sharpness) => json!({ "student": student.about.sha256, "sharpness": sharpness }),
        }
    }
}

/// What was counted over all rooms of a split: a matrix for each T, or the two of [`Way::Plain`].
type Totals = Vec<Confusion>;

struct Ablation<'a, 'e> {
    folder: &'a Path,
    settings: &'a AblationSettings,
    words: &'a AblationWords<'a>,
    device: &'a Device,
    device_name: &'a str,
    on_event: &'e mut dyn FnMut(&AblationEvent<'_>),
}

/// Runs the ablation in `folder`: trains what is not trained yet, measures what is not measured yet, and writes the table as
/// [`JSON_FILE`] and [`MARKDOWN_FILE`] with the picture [`CHART_FILE`]. An ablation that was stopped goes on where it was.
///
/// # Errors
/// [`AblationError`]. What was finished before stays.
pub fn ablation(
    folder: &Path,
    settings: &AblationSettings,
    inputs: AblationInputs<'_>,
    device: &Device,
    on_event: &mut dyn FnMut(&AblationEvent<'_>),
) -> Result<AblationReport, AblationError> {
    let AblationInputs { rooms, words, origin } = inputs;
    settings.check(rooms.training.len())?;
    if rooms.test.is_empty() {
        return Err(AblationError::settings("no room to measure"));
    }
    let at = |source| AblationError::Write { path: folder.to_path_buf(), source };
    std::fs::create_dir_all(folder).map_err(at)?;
    let taken = || AblationError::settings(format!("{}: another process runs an ablation here", folder.display()));
    let _alone = lock(folder).map_err(at)?.ok_or_else(taken)?;
    let mut ablation = Ablation { folder, settings, words, device, device_name: &origin.device, on_event };

    let mut students = Vec::new();
    for run in settings.runs() {
        students.push(ablation.student(run, &rooms.training)?);
    }
    let choice = ablation.choose(&rooms.validation, &students)?;
    let kernels = choice.all_kernels();
    let mut ways = vec![Way::Plain, Way::Uniform];
    ways.extend(kernels.iter().map(|&kernel| Way::ColorNormal(kernel)));
    let mut learned: Vec<(&LoadedStudent, f32)> = Vec::new();
    for student in &students {
        let is_asked = |sharpness: &f32| {
            *sharpness == settings.purify.sharpness
                || student.run.is_usual(settings) && choice.sharpness.iter().any(|(_, chosen)| chosen == sharpness)
        };
        learned.extend(settings.all_sharpness().into_iter().filter(is_asked).map(|sharpness| (student, sharpness)));
    }
    ways.extend(learned.iter().map(|&(student, sharpness)| Way::Student(student, sharpness)));
    let totals = ablation.measure("test", &rooms.test, &ways)?;
    let measured = report::Measured {
        unpurified: &totals[0],
        uniform: &totals[1],
        kernels: kernels.iter().copied().zip(&totals[2..]).collect(),
        students: learned
            .iter()
            .zip(&totals[2 + kernels.len()..])
            .map(|(&(student, sharpness), of_t)| (student.run, sharpness, of_t))
            .collect(),
    };
    let about = students.iter().map(|student| student.about.clone()).collect();
    let report = AblationReport::new(settings, rooms, words, origin, choice, about, &measured)?;
    ablation.write(&report)?;
    Ok(report)
}

impl Ablation<'_, '_> {
    /// Everything of `ways` over all `rooms`, of each way the sums over the rooms.
    fn measure(&mut self, split: &str, rooms: &[SceneFile], ways: &[Way<'_>]) -> Result<Vec<Totals>, AblationError> {
        let (iterations, usual) = (self.settings.all_iterations(), self.settings.purify.sharpness);
        let applications: Vec<usize> = iterations.iter().map(|t| t + 1).collect();
        let mut totals: Vec<Totals> = Vec::new();
        for room in rooms {
            let words = &self.words.rows;
            let mut bench = Bench::new(&room.path, self.settings, self.words.protocol, words, self.device);
            for (i, way) in ways.iter().enumerate() {
                let start = Instant::now();
                let name = way.name(usual);
                let (path, key) = (self.result_file(split, &name, room)?, self.key(room, way, &iterations));
                let num_counts = if matches!(way, Way::Plain) { 2 } else { iterations.len() };
                let before = RoomCounts::read(&path, &key, num_counts);
                let is_new = before.is_none();
                let found = match before {
                    Some(found) => found,
                    None => {
                        let counts = match way {
                            Way::Plain => bench.plain()?,
                            Way::Uniform => bench.purified(Affinities::Uniform, usual, &applications)?,
                            Way::ColorNormal(kernel) => {
                                bench.purified(Affinities::ColorNormal(*kernel), usual, &applications)?
                            }
                            Way::Student(LoadedStudent { student, config, .. }, sharpness) => {
                                let affinities = Affinities::Learned { student, config: *config };
                                bench.purified(affinities, *sharpness, &applications)?
                            }
                        };
                        let found = RoomCounts { key, room: room.name.clone(), counts };
                        found.write(&path)?;
                        found
                    }
                };
                let seconds = is_new.then(|| start.elapsed().as_secs_f64());
                (self.on_event)(&AblationEvent::Measured { way: &name, room: &room.name, seconds });
                let confusions = found.confusions()?;
                match totals.get_mut(i) {
                    None => totals.push(confusions),
                    Some(sums) => {
                        for (sum, confusion) in sums.iter_mut().zip(&confusions) {
                            sum.merge(confusion)?;
                        }
                    }
                }
            }
        }
        Ok(totals)
    }

    fn result_file(&self, split: &str, way: &str, room: &SceneFile) -> Result<PathBuf, AblationError> {
        let folder = self.folder.join(RESULTS_FOLDER).join(split).join(way);
        std::fs::create_dir_all(&folder).map_err(|source| AblationError::Write { path: folder.clone(), source })?;
        Ok(folder.join(format!("{}.json", room.name)))
    }

    fn key(&self, room: &SceneFile, way: &Way<'_>, iterations: &[usize]) -> String {
        let neighbors = self.settings.purify.neighbors;
        let key = json!({
            "format": FORMAT, "geopurify": env!("CARGO_PKG_VERSION"), "room": room.key, "way": way.key(),
            "iterations": iterations, "neighbors": neighbors, "device": self.device_name,
        });
        bytes_sha256(key.to_string().as_bytes())
    }

    /// What is best on the validation rooms; what is usual where there are none.
    fn choose(&mut self, rooms: &[SceneFile], students: &[LoadedStudent]) -> Result<Choice, AblationError> {
        let iterations = self.settings.all_iterations();
        if rooms.is_empty() {
            let (kernel, sharpness) = (ColorNormal::default(), self.settings.purify.sharpness);
            return Ok(Choice {
                kernels: iterations.iter().map(|&t| (t, kernel)).collect(),
                sharpness: iterations.iter().map(|&t| (t, sharpness)).collect(),
                best: None,
            });
        }
        let usual: Vec<&LoadedStudent> =
            students.iter().filter(|student| student.run.is_usual(self.settings)).collect();
        let (kernels, sharpness) = (self.settings.kernels.clone(), self.settings.all_sharpness());
        let mut ways = vec![Way::Uniform];
        ways.extend(kernels.iter().map(|&kernel| Way::ColorNormal(kernel)));
        // Those of one sharpness stand together.
        ways.extend(sharpness.iter().flat_map(|&sharpness| usual.iter().map(move |&of| Way::Student(of, sharpness))));
        let totals = self.measure("validation", rooms, &ways)?;
        let mean_iou = |confusion: &Confusion| -> Result<f64, AblationError> {
            let scores = confusion.scores(&self.words.protocol.all(), AbsentClasses::Zero)?;
            Ok(scores.mean_iou.unwrap_or(0.0))
        };
        let scores: Vec<Vec<f64>> =
            totals.iter().map(|of_t| of_t.iter().map(mean_iou).collect()).collect::<Result<_, _>>()?;
        let (uniform, rest) = scores.split_at(1);
        let (of_kernels, of_students) = rest.split_at(kernels.len());
        let of_sharpness = |sharpness: usize, t: usize| {
            of_students[sharpness * usual.len()..][..usual.len()].iter().map(|of_t| of_t[t]).sum::<f64>()
        };
        let best = |of_t: &dyn Fn(usize) -> f64| iterations[first_largest(iterations.len(), of_t)];
        let best_kernel = |t: usize| first_largest(kernels.len(), &|kernel| of_kernels[kernel][t]);
        let best_kernels: Vec<usize> = (0..iterations.len()).map(best_kernel).collect();
        let sharpest = |t: usize| first_largest(sharpness.len(), &|sharpness| of_sharpness(sharpness, t));
        let best_sharpness: Vec<usize> = (0..iterations.len()).map(sharpest).collect();
        Ok(Choice {
            kernels: iterations.iter().zip(&best_kernels).map(|(&t, &kernel)| (t, kernels[kernel])).collect(),
            sharpness: iterations.iter().zip(&best_sharpness).map(|(&t, &place)| (t, sharpness[place])).collect(),
            best: Some([
                best(&|t| of_sharpness(best_sharpness[t], t)),
                best(&|t| uniform[0][t]),
                best(&|t| of_kernels[best_kernels[t]][t]),
            ]),
        })
    }

    /// Writes everything; last the file that machines read.
    fn write(&self, report: &AblationReport) -> Result<(), AblationError> {
        write_png(&self.folder.join(CHART_FILE), &report.chart()?)?;
        let path = self.folder.join(MARKDOWN_FILE);
        let text = report.to_markdown();
        write_atomic(&path, |out| std::io::Write::write_all(out, text.as_bytes()))
            .map_err(|source| AblationError::Write { path, source })?;
        write_json(&self.folder.join(JSON_FILE), |out| serde_json::to_writer_pretty(out, report))
    }
}

/// Of 0..`count` the first with the largest value.
fn first_largest(count: usize, value: &dyn Fn(usize) -> f64) -> usize {
    (1..count).fold(0, |best, i| if value(i) > value(best) { i } else { best })
}
