//! Ablation: measures the contribution of each part of the method on rooms that were not used for training or
//! tuning.
//!
//! Students are trained for every seed, number of scenes and choice of negatives. Then each of them purifies
//! the same lifted features of every held-out room. Two baselines that learn nothing do the same. The
//! constants of a baseline are chosen on validation rooms, never on those that are measured. The sharpness of
//! learned affinities is chosen there too; the published value is also measured. So are the constants of the
//! baseline that learned affinities are multiplied by.

mod error;
mod lifting;
mod measure;
mod report;
mod room;
mod rooms;
mod students;

use std::path::{Path, PathBuf};
use std::time::Instant;

use burn::prelude::*;
use serde::Serialize;
use serde_json::json;

use crate::distill::{self, SceneFile};
use crate::eval::metrics::{AbsentClasses, Confusion};
use crate::files::{Lock, write_atomic};
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
pub use rooms::{LabelledRooms, PreparedRooms, prepare_rooms};
pub use students::{Negatives, StudentRun, TrainedStudent};

/// Version of result files. Results of another version are computed again.
const FORMAT: u32 = 2;
const RESULTS_FOLDER: &str = "results";
/// The T of the paper. If it is among the given ones, all comparisons use it, except those of T itself.
const USUAL_ITERATIONS: usize = 18;

/// Settings of an ablation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AblationSettings {
    /// Number of students of each kind. Their seeds are 0, 1, ….
    pub seeds: usize,
    /// Numbers of training scenes, ascending. The largest is the usual one.
    pub scenes: Vec<usize>,
    /// Values of T in the table, ascending, counted as in the paper: A is applied T + 1 times, as published.
    pub iterations: Vec<usize>,
    /// Further values of T. The best T on validation rooms is chosen among all.
    pub candidates: Vec<usize>,
    /// Candidate constants of the kernel of colour and normal. For each T the best are chosen on validation
    /// rooms.
    pub kernels: Vec<ColorNormal>,
    /// Candidate sharpness of learned affinities, in addition to that of `purify`. For each T the best is
    /// chosen on validation rooms.
    pub sharpness: Vec<f32>,
    /// Approximate number of optimizer steps per student. It is rounded to whole epochs of its scenes.
    pub steps: usize,
    /// All other training settings.
    pub training: distill::Config,
    /// Memory limit of a step in bytes. Scenes that need more are cropped.
    pub max_memory: u64,
    /// Source of the number of neighbours, the sharpness and the memory for temporary values. The rest is not
    /// used.
    pub purify: purify::Settings,
}

impl AblationSettings {
    /// Default grid of kernel constants: standard deviations of colour, and scales of 1 − |cosine|.
    #[must_use]
    pub fn usual_kernels() -> Vec<ColorNormal> {
        let of_color =
            |color_sigma| [0.02, 0.05, 0.1, 0.3].map(move |normal_scale| ColorNormal { color_sigma, normal_scale });
        [0.05, 0.1, 0.2, 0.4].into_iter().flat_map(of_color).collect()
    }

    /// Default candidates of the sharpness of learned affinities, in addition to the published 20.
    pub const USUAL_SHARPNESS: [f32; 3] = [10.0, 30.0, 40.0];

    /// Default numbers of training scenes, as far as there are so many.
    pub const USUAL_SCENES: [usize; 4] = [5, 10, 20, 50];

    /// The [`USUAL_SCENES`](Self::USUAL_SCENES) that `num_training` scenes allow; all scenes if they are fewer.
    #[must_use]
    pub fn usual_scenes(num_training: usize) -> Vec<usize> {
        let fitting: Vec<usize> = Self::USUAL_SCENES.into_iter().filter(|&count| count <= num_training).collect();
        if fitting.is_empty() { vec![num_training] } else { fitting }
    }

    /// All values of sharpness that are measured: that of `purify`, then the others.
    #[must_use]
    pub fn all_sharpness(&self) -> Vec<f32> {
        let usual = self.purify.sharpness;
        [usual].into_iter().chain(self.sharpness.iter().copied().filter(|&other| other != usual)).collect()
    }

    /// All values of T that are measured, ascending.
    #[must_use]
    pub fn all_iterations(&self) -> Vec<usize> {
        let mut all: Vec<usize> = self.iterations.iter().chain(&self.candidates).copied().collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// The T of all comparisons except those of T: the paper's 18, or else the middle one.
    #[must_use]
    pub fn usual_iterations(&self) -> usize {
        let middle = self.iterations.get(self.iterations.len() / 2).copied().unwrap_or(USUAL_ITERATIONS);
        if self.iterations.contains(&USUAL_ITERATIONS) { USUAL_ITERATIONS } else { middle }
    }

    /// Number of training scenes of the usual student.
    #[must_use]
    pub fn most_scenes(&self) -> usize {
        self.scenes.iter().copied().max().unwrap_or(0)
    }

    /// Checks that the settings are valid for this number of training scenes.
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
            return Err(AblationError::settings("expected numbers of scenes and T in ascending order"));
        }
        let most = self.most_scenes();
        if most > num_training {
            return Err(AblationError::settings(format!(
                "{most} training scenes were asked for, but there are only {num_training}"
            )));
        }
        Ok(())
    }
}

/// Prepared rooms. Training scenes are files of [`TrainingScene::write`](distill::TrainingScene::write), the
/// others of [`LiftedRoom::write`]. The key of a file identifies its sources.
#[derive(Clone, Debug, Default)]
pub struct AblationRooms {
    /// Training scenes.
    pub training: Vec<SceneFile>,
    /// Validation rooms, on which settings are chosen.
    pub validation: Vec<SceneFile>,
    /// Test rooms, which are measured.
    pub test: Vec<SceneFile>,
}

/// Words by which rooms are labelled.
pub struct AblationWords<'a> {
    /// Labels, class by class.
    pub labels: &'a [String],
    /// `[K, C]`: embeddings of the labels by the vision-language model.
    pub rows: Tensor<2>,
    /// Protocol by which labels are counted.
    pub protocol: Protocol,
}

/// Networks and device of an ablation.
#[derive(Clone, Debug)]
pub struct AblationOrigin {
    /// Weights of the networks.
    pub weights: Vec<Weights>,
    /// Name of the device.
    pub device: String,
}

/// Inputs of an ablation.
#[derive(Clone, Copy)]
pub struct AblationInputs<'a> {
    /// Rooms.
    pub rooms: &'a AblationRooms,
    /// Words by which they are labelled.
    pub words: &'a AblationWords<'a>,
    /// Networks and device.
    pub origin: &'a AblationOrigin,
}

/// Event of an ablation.
#[derive(Debug)]
pub enum AblationEvent<'a> {
    /// A student is being trained.
    Training {
        /// The student.
        run: StudentRun,
        /// Event of its training.
        event: &'a distill::Event<'a>,
    },
    /// A student is ready.
    Trained {
        /// The student.
        run: StudentRun,
        /// Training time in seconds; `None` if it was trained before.
        seconds: Option<f64>,
    },
    /// A room was purified and counted.
    Measured {
        /// Name of the affinities.
        way: &'a str,
        /// Name of the room.
        room: &'a str,
        /// Time in seconds; `None` if it was measured before.
        seconds: Option<f64>,
    },
}

/// Affinities to be measured, with a name for files and messages.
enum Way<'a> {
    /// The lifted features without purification.
    Plain,
    Uniform,
    ColorNormal(ColorNormal),
    /// A student, with the sharpness of its affinities.
    Student(&'a LoadedStudent, f32),
    /// A student with the published sharpness, times a kernel of colour and normal.
    Combined(&'a LoadedStudent, ColorNormal),
}

struct LoadedStudent {
    run: StudentRun,
    student: Student,
    config: StudentConfig,
    about: TrainedStudent,
}

impl Way<'_> {
    /// Name for files and messages. It leaves out the sharpness if that is `usual`.
    fn name(&self, usual: f32) -> String {
        match self {
            Self::Plain => "unpurified".to_owned(),
            Self::Uniform => "uniform".to_owned(),
            Self::ColorNormal(kernel) => kernel_name(*kernel),
            Self::Combined(student, kernel) => format!("{}-{}", student.run, kernel_name(*kernel)),
            Self::Student(student, sharpness) if *sharpness == usual => student.run.to_string(),
            Self::Student(student, sharpness) => format!("{}-sharpness-{sharpness}", student.run),
        }
    }

    /// Key of everything that results depend on.
    fn key(&self) -> serde_json::Value {
        match self {
            Self::Plain => "unpurified".into(),
            Self::Uniform => "uniform".into(),
            Self::ColorNormal(kernel) => json!(kernel),
            Self::Student(student, sharpness) => json!({ "student": student.about.sha256, "sharpness": sharpness }),
            Self::Combined(student, kernel) => json!({ "student": student.about.sha256, "kernel": kernel }),
        }
    }
}

fn kernel_name(ColorNormal { color_sigma, normal_scale }: ColorNormal) -> String {
    format!("color-normal-{color_sigma}-{normal_scale}")
}

/// Counts over all rooms of a split: one matrix per T, or the two of [`Way::Plain`].
type Totals = Vec<Confusion>;

struct Ablation<'a, 'e> {
    folder: &'a Path,
    settings: &'a AblationSettings,
    words: &'a AblationWords<'a>,
    device: &'a Device,
    device_name: &'a str,
    on_event: &'e mut dyn FnMut(&AblationEvent<'_>),
}

/// Runs the ablation in `folder`. Trains and measures everything that is not done yet. Writes the table as
/// [`JSON_FILE`] and [`MARKDOWN_FILE`], and the picture [`CHART_FILE`]. An ablation that was stopped
/// continues where it was.
///
/// # Errors
/// [`AblationError`]. Everything finished before stays.
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
    let _alone = Lock::of_folder(folder).map_err(at)?.ok_or_else(taken)?;
    let mut ablation = Ablation { folder, settings, words, device, device_name: &origin.device, on_event };

    let mut students = Vec::new();
    for run in settings.runs() {
        students.push(ablation.student(run, &rooms.training)?);
    }
    let choice = ablation.choose(&rooms.validation, &students)?;
    let kernels = choice.all_kernels();
    let combined: Vec<(&LoadedStudent, ColorNormal)> = students
        .iter()
        .filter(|student| student.run.is_usual(settings))
        .flat_map(|student| choice.all_combined().into_iter().map(move |kernel| (student, kernel)))
        .collect();
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
    ways.extend(combined.iter().map(|&(student, kernel)| Way::Combined(student, kernel)));
    let totals = ablation.measure("test", &rooms.test, &ways)?;
    let (baselines, of_students) = totals.split_at(2 + kernels.len());
    let measured = report::Measured {
        unpurified: &baselines[0],
        uniform: &baselines[1],
        kernels: kernels.iter().copied().zip(&baselines[2..]).collect(),
        students: learned
            .iter()
            .zip(of_students)
            .map(|(&(student, sharpness), of_t)| (student.run, sharpness, of_t))
            .collect(),
        combined: combined
            .iter()
            .zip(&of_students[learned.len()..])
            .map(|(&(student, kernel), of_t)| (student.run, kernel, of_t))
            .collect(),
    };
    let about = students.iter().map(|student| student.about.clone()).collect();
    let report = AblationReport::new(settings, rooms, words, origin, choice, about, &measured)?;
    ablation.write(&report)?;
    Ok(report)
}

impl Ablation<'_, '_> {
    /// Measures all `ways` on all `rooms`. Returns for each way the sums over the rooms.
    fn measure(&mut self, split: &str, rooms: &[SceneFile], ways: &[Way<'_>]) -> Result<Vec<Totals>, AblationError> {
        let (iterations, usual) = (self.settings.all_iterations(), self.settings.purify.sharpness);
        let applications: Vec<usize> = iterations.iter().map(|t| t + 1).collect();
        let mut totals: Vec<Totals> = Vec::new();
        for room in rooms {
            let words = &self.words.rows;
            let mut bench = Bench::new(&room.path, self.settings, self.words.protocol.clone(), words, self.device);
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
                            Way::Combined(LoadedStudent { student, config, .. }, kernel) => {
                                let affinities = Affinities::Combined { student, config: *config, kernel: *kernel };
                                bench.purified(affinities, usual, &applications)?
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

    /// Chooses the best constants on the validation rooms, or the usual ones if there are no such rooms.
    fn choose(&mut self, rooms: &[SceneFile], students: &[LoadedStudent]) -> Result<Choice, AblationError> {
        let iterations = self.settings.all_iterations();
        if rooms.is_empty() {
            let (kernel, sharpness) = (ColorNormal::default(), self.settings.purify.sharpness);
            return Ok(Choice {
                kernels: iterations.iter().map(|&t| (t, kernel)).collect(),
                combined: iterations.iter().map(|&t| (t, kernel)).collect(),
                sharpness: iterations.iter().map(|&t| (t, sharpness)).collect(),
                best: None,
            });
        }
        let usual: Vec<&LoadedStudent> =
            students.iter().filter(|student| student.run.is_usual(self.settings)).collect();
        let (kernels, sharpness) = (self.settings.kernels.clone(), self.settings.all_sharpness());
        let mut ways = vec![Way::Uniform];
        ways.extend(kernels.iter().map(|&kernel| Way::ColorNormal(kernel)));
        // Students of one sharpness are adjacent.
        ways.extend(sharpness.iter().flat_map(|&sharpness| usual.iter().map(move |&of| Way::Student(of, sharpness))));
        // And so are those of one kernel.
        ways.extend(kernels.iter().flat_map(|&kernel| usual.iter().map(move |&of| Way::Combined(of, kernel))));
        let totals = self.measure("validation", rooms, &ways)?;
        let mean_iou = |confusion: &Confusion| -> Result<f64, AblationError> {
            let scores = confusion.scores(&self.words.protocol.all(), AbsentClasses::Zero)?;
            Ok(scores.mean_iou.unwrap_or(0.0))
        };
        let scores: Vec<Vec<f64>> =
            totals.iter().map(|of_t| of_t.iter().map(mean_iou).collect()).collect::<Result<_, _>>()?;
        let (uniform, rest) = scores.split_at(1);
        let (of_kernels, rest) = rest.split_at(kernels.len());
        let (of_students, of_combined) = rest.split_at(sharpness.len() * usual.len());
        let sum = |scores: &[Vec<f64>], at: usize, t: usize| {
            scores[at * usual.len()..][..usual.len()].iter().map(|of_t| of_t[t]).sum::<f64>()
        };
        let of_sharpness = |sharpness: usize, t: usize| sum(of_students, sharpness, t);
        let of_product = |kernel: usize, t: usize| sum(of_combined, kernel, t);
        let best = |of_t: &dyn Fn(usize) -> f64| iterations[first_largest(iterations.len(), of_t)];
        let best_kernel = |t: usize| first_largest(kernels.len(), &|kernel| of_kernels[kernel][t]);
        let best_kernels: Vec<usize> = (0..iterations.len()).map(best_kernel).collect();
        let sharpest = |t: usize| first_largest(sharpness.len(), &|sharpness| of_sharpness(sharpness, t));
        let best_sharpness: Vec<usize> = (0..iterations.len()).map(sharpest).collect();
        let best_product = |t: usize| first_largest(kernels.len(), &|kernel| of_product(kernel, t));
        let best_products: Vec<usize> = (0..iterations.len()).map(best_product).collect();
        Ok(Choice {
            combined: iterations.iter().zip(&best_products).map(|(&t, &kernel)| (t, kernels[kernel])).collect(),
            kernels: iterations.iter().zip(&best_kernels).map(|(&t, &kernel)| (t, kernels[kernel])).collect(),
            sharpness: iterations.iter().zip(&best_sharpness).map(|(&t, &place)| (t, sharpness[place])).collect(),
            best: Some([
                best(&|t| of_sharpness(best_sharpness[t], t)),
                best(&|t| uniform[0][t]),
                best(&|t| of_kernels[best_kernels[t]][t]),
                best(&|t| of_product(best_products[t], t)),
            ]),
        })
    }

    /// Writes all files. The JSON file is written last.
    fn write(&self, report: &AblationReport) -> Result<(), AblationError> {
        write_png(&self.folder.join(CHART_FILE), &report.chart()?)?;
        let path = self.folder.join(MARKDOWN_FILE);
        let text = report.to_markdown();
        write_atomic(&path, |out| std::io::Write::write_all(out, text.as_bytes()))
            .map_err(|source| AblationError::Write { path, source })?;
        write_json(&self.folder.join(JSON_FILE), |out| serde_json::to_writer_pretty(out, report))
    }
}

/// Index below `count` with the largest value; the first of equal ones.
fn first_largest(count: usize, value: &dyn Fn(usize) -> f64) -> usize {
    (1..count).fold(0, |best, i| if value(i) > value(best) { i } else { best })
}
