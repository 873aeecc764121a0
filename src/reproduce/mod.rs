//! The paper's tables, measured here, with its own figures beside ours.
//!
//! A table is a list of rows. A row says how it is measured: an evaluation, and maybe a training before it. Each of
//! these steps has a folder named by what it is. A finished step is not repeated, and one that was stopped continues.
//! So a run that was killed ends with the same files, byte for byte. Tables in one folder share their steps. What
//! lacks data or weights is a row that says what to get.

mod data;
mod error;
mod missing;
mod report;
mod settings;
mod table;
mod work;

use std::cell::RefCell;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value as Json, json};

use crate::distill::{self, usual_memory};
use crate::files::{Lock, remove_partials, write_atomic};
use crate::gpu::DeviceSelection;
use crate::images::write_png;
use crate::labels::Preset;
use crate::pretrain::openscene::LiftedSettings;
use crate::session::{ImageModelKind, Session, ViewSettings};
use crate::stages::Progress;
use crate::weights::bytes_sha256;

use data::Scenes;
use missing::pinned;
use report::Known;
use table::{Row, Step, Training, rows, steps};
use work::{Told, Work};

pub use data::DataFolder;
pub use error::ReproduceError;
pub use missing::Given;
pub use report::{Figures, ReportRow, ReproduceReport};
pub use table::{DataSet, Table, TableSettings, UnknownTable};

/// Settings of tables.
#[derive(Clone, Debug)]
pub struct ReproduceSettings {
    /// ScanNet and Matterport3D, as far as they are there.
    pub data: [Option<DataFolder>; 2],
    /// Numbers that decide which rows there are.
    pub tables: TableSettings,
    /// Training of students.
    pub training: distill::Config,
    /// Training of 3D networks.
    pub network: LiftedSettings,
    /// Settings of views.
    pub views: ViewSettings,
    /// Memory limit of a student's step in bytes. By default that of the first run in the folder.
    pub max_memory: Option<u64>,
    /// Number of scenes of a data set to measure at most.
    pub most_measured: Option<usize>,
    /// Weights.
    pub given: Given,
    /// Folder for prepared scenes.
    pub cache: PathBuf,
    /// Device.
    pub device: DeviceSelection,
}

/// A step of a table, in a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedStep {
    /// Its name, which is that of its folder.
    pub name: String,
    /// True if it is finished.
    pub is_done: bool,
}

/// What a run would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReproducePlan {
    /// Trainings and evaluations, in their order.
    pub steps: Vec<PlannedStep>,
    /// Evaluations that lack data or weights, and what they lack.
    pub lacking: Vec<(String, Vec<String>)>,
}

/// A table that is ready to be measured.
struct Ready {
    rows: Vec<Row>,
    scenes: [Option<Scenes>; 2],
    /// The evaluations, and what each lacks.
    steps: Vec<(Step, Vec<String>)>,
    settings: Map<String, Json>,
    max_memory: u64,
    /// Key of the settings that all steps depend on.
    key: String,
}

impl ReproduceSettings {
    fn presets(&self) -> [Preset; 2] {
        let usual = [Preset::SCANNET20, Preset::MATTERPORT21];
        DataSet::ALL.map(|data| self.data[data as usize].as_ref().map_or(usual[data as usize], |data| data.preset))
    }

    /// Checks everything that needs no work, and finds what rows lack.
    fn ready(&self, folder: &Path, table: Table) -> Result<Ready, ReproduceError> {
        self.check()?;
        let find = |data: DataSet| {
            let of = self.data[data as usize].as_ref();
            of.map(|of| Scenes::find(of, self.most_measured, self.training.seed, self.views.layout)).transpose()
        };
        let scenes = [find(DataSet::ScanNet)?, find(DataSet::Matterport)?];
        let session = Session::with(self.device, self.given.networks.clone())?;
        let before = settings::read(folder)?;
        let known_memory = before.get("max_memory").and_then(Json::as_u64);
        let max_memory = self.max_memory.or(known_memory).unwrap_or_else(|| usual_memory(session.device()));
        let common = self.common(max_memory, &session.device().name)?;
        let key = bytes_sha256(Json::Object(common.clone()).to_string().as_bytes());
        let settings = settings::joined(folder, before, self.all(common))?;
        let ablated = if scenes[0].is_none() && scenes[1].is_some() { DataSet::Matterport } else { DataSet::ScanNet };
        let rows = rows(table, &self.tables, self.presets(), ablated);
        let steps = steps(&rows).into_iter().map(|step| (step, self.given.lacks(step, &scenes))).collect();
        Ok(Ready { rows, scenes, steps, settings, max_memory, key })
    }

    fn check(&self) -> Result<(), ReproduceError> {
        let TableSettings { scenes, usual_scenes, .. } = &self.tables;
        if scenes.contains(&0) || *usual_scenes == 0 || self.most_measured == Some(0) {
            return Err(ReproduceError::Settings("numbers of scenes are 1 or more".to_owned()));
        }
        self.training.validate()?;
        Ok(self.network.validate()?)
    }

    /// Settings that all steps depend on.
    fn common(&self, max_memory: u64, device: &str) -> Result<Map<String, Json>, ReproduceError> {
        let networks = pinned(&self.given.networks, ImageModelKind::XDecoder);
        let xdecoder = networks.open_xdecoder().ok().map(|opened| opened.origin.sha256()).transpose()?;
        let sonata = networks.open_sonata().ok().map(|opened| opened.origin.sha256()).transpose()?;
        let common = json!({
            "geopurify": env!("CARGO_PKG_VERSION"), "training": self.training, "network": self.network,
            "views": self.views.key(), "max_memory": max_memory, "device": device,
            "weights": { "xdecoder": xdecoder, "sonata": sonata },
        });
        Ok(as_read(common))
    }

    /// All settings.
    fn all(&self, mut common: Map<String, Json>) -> Map<String, Json> {
        for data in DataSet::ALL {
            let of = self.data[data as usize].as_ref().map_or(Json::Null, DataFolder::to_json);
            common.insert(data.key().to_owned(), of);
        }
        common.insert("most_measured".to_owned(), self.most_measured.map_or_else(|| "all".into(), Json::from));
        common
    }
}

/// A table as it comes back from a file: its numbers are rounded as there.
fn as_read(value: Json) -> Map<String, Json> {
    match serde_json::from_str(&value.to_string()) {
        Ok(Json::Object(table)) => table,
        _ => Map::new(),
    }
}

impl Ready {
    fn work<'a>(&'a self, folder: &'a Path, settings: &'a ReproduceSettings) -> Work<'a> {
        Work {
            folder,
            scenes: self.scenes.each_ref().map(Option::as_ref),
            given: &settings.given,
            config: &settings.training,
            network: &settings.network,
            views: &settings.views,
            max_memory: self.max_memory,
            cache: &settings.cache,
            device: settings.device,
            key: &self.key,
            fingerprints: RefCell::default(),
        }
    }

    /// Trainings that evaluations need, each once.
    fn trainings(&self) -> Vec<Training> {
        let mut trainings: Vec<Training> = Vec::new();
        for training in
            self.steps.iter().filter(|(_, lacks)| lacks.is_empty()).filter_map(|(step, _)| step.way.training())
        {
            if !trainings.contains(&training) {
                trainings.push(training);
            }
        }
        trainings
    }
}

/// Says what [`reproduce`] would do in `folder`, without doing it.
///
/// # Errors
/// [`ReproduceError`].
pub fn plan(folder: &Path, table: Table, settings: &ReproduceSettings) -> Result<ReproducePlan, ReproduceError> {
    let ready = settings.ready(folder, table)?;
    let work = ready.work(folder, settings);
    let mut planned = ReproducePlan { steps: Vec::new(), lacking: Vec::new() };
    for training in ready.trainings() {
        planned.steps.push(PlannedStep { name: training.to_string(), is_done: work.is_trained(training)? });
    }
    for (step, lacks) in &ready.steps {
        if lacks.is_empty() {
            planned.steps.push(PlannedStep { name: step.to_string(), is_done: work.measured(*step)?.is_some() });
        } else {
            planned.lacking.push((step.to_string(), lacks.clone()));
        }
    }
    Ok(planned)
}

/// Names of a table's files: JSON, Markdown and picture.
#[must_use]
pub fn files_of(table: Table) -> [String; 3] {
    ["json", "md", "png"].map(|extension| format!("{table}.{extension}"))
}

/// Measures a table in `folder` and writes its [files](files_of), the JSON last. Steps that are finished there are
/// not repeated. Tells `say` of every step.
///
/// # Errors
/// [`ReproduceError`]. Everything finished before stays.
pub fn reproduce(
    folder: &Path,
    table: Table,
    settings: &ReproduceSettings,
    progress: &mut Progress<'_>,
    say: &mut dyn FnMut(&str),
) -> Result<ReproduceReport, ReproduceError> {
    let at = |source| ReproduceError::io(folder, source);
    std::fs::create_dir_all(folder).map_err(at)?;
    let _alone = Lock::of_folder(folder).map_err(at)?.ok_or_else(|| ReproduceError::Busy(folder.to_path_buf()))?;
    // The folder is locked, so what is half written is of a killed run.
    remove_partials(folder, Duration::ZERO).map_err(at)?;
    let ready = settings.ready(folder, table)?;
    settings::write(folder, &ready.settings)?;
    let work = ready.work(folder, settings);
    let mut known = Vec::new();
    let mut told = Told { progress, say };
    for (step, lacks) in &ready.steps {
        if !lacks.is_empty() {
            known.push((*step, Known::Lacks(lacks.clone())));
            continue;
        }
        let measured = match work.measured(*step)? {
            Some(measured) => measured,
            None => {
                if let Some(training) = step.way.training()
                    && !work.is_trained(training)?
                {
                    (told.say)(&format!("{training}: training"));
                    work.train(training, &mut told)?;
                }
                work.evaluate(*step, &mut told)?
            }
        };
        (told.say)(&format!("{step}: finished"));
        known.push((*step, Known::Measured(measured)));
    }
    let are_made = ready.scenes.iter().flatten().all(|scenes| scenes.are_made);
    let report = ReproduceReport::new(
        table,
        &settings.tables,
        settings.presets(),
        are_made && ready.scenes.iter().any(Option::is_some),
        ready.settings.clone(),
        &ready.rows,
        &known,
    )?;
    write(folder, table, &report)?;
    Ok(report)
}

fn write(folder: &Path, table: Table, report: &ReproduceReport) -> Result<(), ReproduceError> {
    let [json, markdown, picture] = files_of(table).map(|name| folder.join(name));
    write_png(&picture, &report.chart()?)?;
    let text = report.to_markdown();
    let written = write_atomic(&markdown, |out| out.write_all(text.as_bytes()));
    written.map_err(|source| ReproduceError::io(&markdown, source))?;
    let written = write_atomic(&json, |out| {
        serde_json::to_writer_pretty(&mut *out, report)?;
        out.write_all(b"\n")
    });
    written.map_err(|source| ReproduceError::io(&json, source))
}
