//! `geopurify study`: what each part of the method is worth on rooms that nothing was learned from.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::labelling::embed_words;
use super::progress::Bars;
use super::segment::{OpenXDecoder, XDecoderArgs};
use super::table::table;
use super::teacher::{TeacherArgs, frozen_models};
use super::train::{PreparedBy, Preparer, cache_folder, fingerprint, words_of};
use super::viewing::{Look, Opened, Placed, Source, ViewingArgs};
use crate::distill::{self, Config, SceneFile};
use crate::eval::labels::{Truth, nyu40_from_class, read_labels};
use crate::eval::metrics::Protocol;
use crate::eval::scenes::{LabelledScene, find_scenes};
use crate::eval::study::{
    CHART_FILE, JSON_FILE, LiftedRoom, MARKDOWN_FILE, RoomPoints, StudyEvent, StudyOrigin, StudyReport, StudyRooms,
    StudySettings, StudyWords, study,
};
use crate::gpu::{DeviceSelection, Selected, select};
use crate::models::xdecoder::{TextEmbeddings, XDecoder};
use crate::pipeline::{Weights, look, voxel_size};
use crate::purify::{self, FeatureSource as _, Voxelized, voxel_means};
use crate::query::presets::Preset;
use crate::stages::Laps;
use crate::weights::{bytes_sha256, file_sha256};

/// Changes when what is computed of a room does.
const ROOM_VERSION: u32 = 1;
/// Property of the points that holds the labels.
const LABEL_FIELD: &str = "label";

/// Arguments of `study`.
#[derive(clap::Args, Debug)]
pub(super) struct StudyArgs {
    /// Rooms as `synth` makes them, in folders train, val and test
    #[arg(long, value_name = "DIR")]
    rooms: PathBuf,
    /// Folder for the students, the results and the table. What is done there is not done again
    #[arg(short, long, value_name = "OUT")]
    output: PathBuf,
    /// Classes: scannet20 (whose last, "other", is not counted), matterport21
    #[arg(long, value_name = "NAME", default_value = "scannet20")]
    preset: Preset,
    /// Students of each kind
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    seeds: u32,
    /// From how many rooms students learn; the largest is the usual one
    #[arg(long, value_name = "N,..", value_delimiter = ',', default_value = "5,10,20,50")]
    scenes: Vec<usize>,
    /// T, as the paper counts: affinities are applied T + 1 times
    #[arg(long, value_name = "T,..", value_delimiter = ',', default_value = "1,18,36")]
    iterations: Vec<usize>,
    /// T beside these that are tried on validation rooms, for learned affinities and for baselines
    #[arg(long, value_name = "T,..", value_delimiter = ',', default_value = "0,2,4,8,12,24,54")]
    candidates: Vec<usize>,
    /// Most rooms to measure [default: all of DIR/test]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    test_rooms: Option<u32>,
    /// Most rooms to choose settings by, of DIR/val
    #[arg(long, value_name = "N", default_value_t = 5)]
    validation_rooms: u32,
    /// Steps of the optimizer, the same for all students but for whole epochs
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    steps: u32,
    /// Channels within the students
    #[arg(long, value_name = "N", default_value_t = 64)]
    hidden: usize,
    /// Channels of their embeddings
    #[arg(long, value_name = "N", default_value_t = 64)]
    embed: usize,
    /// Anchors of a training scene
    #[arg(long, value_name = "N", default_value_t = 2048)]
    anchors: usize,
    /// Settings of training beside these (TOML), as `train --config` takes them
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Memory for a step, in MiB; of rooms that need more, parts are taken
    #[arg(long, value_name = "MIB", default_value_t = 256, value_parser = clap::value_parser!(u64).range(1..=1 << 30))]
    max_memory: u64,
    /// Neighbours per voxel, 1 to 128
    #[arg(long, default_value_t = purify::Settings::default().neighbors)]
    neighbors: usize,
    /// Folder for what is computed of rooms once [default: training in the cache folder of the user]
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    #[command(flatten)]
    viewing: ViewingArgs,
    #[command(flatten)]
    teacher: TeacherArgs,
    #[command(flatten)]
    xdecoder: XDecoderArgs,
    /// auto, gpu, cpu, or an adapter's index as `geopurify devices` lists it
    #[arg(long, env = "GEOPURIFY_DEVICE", default_value_t)]
    device: DeviceSelection,
    /// Print the table as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &StudyArgs) -> Result<()> {
    let settings = settings(args)?;
    let training = found(&args.rooms.join("train"), settings.most_scenes())?;
    settings.check(training.len())?;
    let test = found(&args.rooms.join("test"), args.test_rooms.map_or(usize::MAX, |n| n as usize))?;
    let held_out = args.rooms.join("val");
    let validation = match args.validation_rooms as usize {
        count if count > 0 && held_out.is_dir() => found(&held_out, count)?,
        _ => {
            eprintln!("note: no validation rooms: nothing is chosen for the baselines");
            Vec::new()
        }
    };
    let protocol = Protocol::of_preset(&args.preset);
    let labels: Vec<String> = args.preset.labels[..protocol.num_classes].iter().map(|&l| l.to_owned()).collect();
    let selected = select(args.device)?;
    eprintln!("device: {} ({})", selected.name, selected.why);

    let (xdecoder, teacher) = &frozen_models(&args.xdecoder, &args.teacher);
    let prepared_by = PreparedBy { viewing: &args.viewing, xdecoder, teacher, cache: args.cache.as_deref() };
    let mut preparer = Preparer::new(&prepared_by, words_of(Some(args.preset))?, &settings.training, &selected)?;
    let mut rooms = StudyRooms::default();
    for scene in &training {
        let prepared = preparer.prepare(&source(scene)).with_context(|| scene.name.clone())?;
        let [mut prepared] = <[SceneFile; 1]>::try_from(prepared)
            .map_err(|files| anyhow::anyhow!("{}: {} scenes in a recording, expected one", scene.name, files.len()))?;
        prepared.name.clone_from(&scene.name);
        rooms.training.push(prepared);
    }
    drop(preparer);

    let mut lifter = Lifter::new(&prepared_by, args.preset, &settings, &labels, &selected)?;
    for (scenes, files) in [(&validation, &mut rooms.validation), (&test, &mut rooms.test)] {
        for scene in scenes {
            files.push(lifter.lifted(scene).with_context(|| scene.name.clone())?);
        }
    }
    let rows = lifter.text.rows.clone().slice_dim(0, 0..labels.len());
    let origins = [("xdecoder", &lifter.opened.origin), ("sonata", &teacher.open()?.origin)];
    let weights = origins
        .into_iter()
        .map(|(model, origin)| Ok(Weights { model, source: origin.source.clone(), sha256: origin.sha256()? }))
        .collect::<Result<_>>()?;
    let origin = StudyOrigin { weights, device: selected.name.clone() };
    drop(lifter);

    let words = StudyWords { labels: &labels, rows, protocol };
    let mut shown = Shown { bars: Bars::new(), is_terminal: std::io::stderr().is_terminal() };
    let report = study(&args.output, &settings, &rooms, &words, &origin, &selected.device, &mut |event| {
        shown.show(event);
    })?;
    shown.bars.finish();
    print(args, &report)
}

fn settings(args: &StudyArgs) -> Result<StudySettings> {
    let base = match &args.config {
        Some(path) => {
            let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
            Config::parse(&text, None).with_context(|| path.display().to_string())?
        }
        None => Config::of(distill::Preset::Paper),
    };
    let training = Config { hidden_dim: args.hidden, embed_dim: args.embed, anchors: args.anchors, ..base };
    training.validate()?;
    Ok(StudySettings {
        seeds: args.seeds as usize,
        scenes: args.scenes.clone(),
        iterations: args.iterations.clone(),
        candidates: args.candidates.clone(),
        kernels: StudySettings::usual_kernels(),
        sharpness: StudySettings::USUAL_SHARPNESS.to_vec(),
        steps: args.steps as usize,
        training,
        max_memory: args.max_memory << 20,
        purify: purify::Settings {
            neighbors: args.neighbors,
            working_bytes: (args.viewing.working_memory as usize) << 20,
            ..purify::Settings::default()
        },
    })
}

/// The first scenes of a folder.
fn found(folder: &Path, most: usize) -> Result<Vec<LabelledScene>> {
    let mut scenes = find_scenes(folder)?;
    scenes.truncate(most);
    Ok(scenes)
}

/// A scan in its recording, where it has one.
fn source(scene: &LabelledScene) -> Source {
    match &scene.recording {
        Some(recording) => Source::ScanInRecording { scan: scene.scan.clone(), recording: recording.clone() },
        None => Source::Scan(scene.scan.clone()),
    }
}

/// Looks at rooms, or finds them looked at.
struct Lifter<'a> {
    viewing: ViewingArgs,
    settings: &'a StudySettings,
    protocol: Protocol,
    selected: &'a Selected,
    opened: OpenXDecoder,
    xdecoder: XDecoder,
    text: TextEmbeddings,
    nyu40: Option<Vec<i64>>,
    /// What rooms depend on beside the scene.
    key: Value,
    folder: PathBuf,
}

impl<'a> Lifter<'a> {
    fn new(
        args: &PreparedBy<'_>,
        preset: Preset,
        settings: &'a StudySettings,
        labels: &[String],
        selected: &'a Selected,
    ) -> Result<Self> {
        let mut bars = Bars::new();
        bars.show("load weights", 0.0);
        let mut opened = args.xdecoder.open()?;
        let xdecoder = opened.load(&selected.device)?;
        let text = embed_words(&xdecoder, labels, &mut bars)?;
        bars.finish();
        let (protocol, nyu40) = (Protocol::of_preset(&preset), nyu40_from_class(&preset));
        let viewing = args.viewing.for_model(&xdecoder.config);
        let key = json!({
            "version": ROOM_VERSION, "geopurify": env!("CARGO_PKG_VERSION"), "labels": labels, "protocol": protocol,
            "nyu40": nyu40, "viewing": viewing.key(), "xdecoder": opened.origin.sha256()?,
            "config": opened.config, "precision": format!("{:?}", opened.precision), "device": selected.name,
        });
        let folder = cache_folder(args.cache)?;
        Ok(Self { viewing, settings, protocol, selected, opened, xdecoder, text, nyu40, key, folder })
    }

    fn lifted(&mut self, scene: &LabelledScene) -> Result<SceneFile> {
        let source = source(scene);
        let mut key = self.key.clone();
        key["source"] = fingerprint(&source)?;
        key["truth"] = file_sha256(&scene.labels)?.into();
        let key = bytes_sha256(key.to_string().as_bytes());
        let file = SceneFile { path: self.folder.join(format!("{key}.safetensors")), name: scene.name.clone(), key };
        if LiftedRoom::is_whole(&file.path) {
            eprintln!("{}: looked at before", file.name);
            return Ok(file);
        }
        let mut laps = Laps::default();
        let room = self.look(scene, &source, &mut laps)?;
        room.write(&file.path)?;
        eprintln!(
            "{}: {} points in {} voxels, {} views looked at, {:.1} s",
            file.name,
            room.points.truth.len(),
            room.voxelized.coords.len(),
            room.views,
            laps.seconds()
        );
        Ok(file)
    }

    fn look(&self, scene: &LabelledScene, source: &Source, laps: &mut Laps) -> Result<LiftedRoom> {
        let protocol = &self.protocol;
        let labels = read_labels(&scene.labels, LABEL_FIELD)?;
        let truth = Truth::new(&scene.labels, labels, self.nyu40.as_deref(), &[], protocol)?;
        let Opened::Scan(scan, dataset) = source.open(&self.viewing, laps)? else {
            bail!("{}: a recording, not a scan", source.path().display());
        };
        truth.check(&scene.scan, scan.cloud.len())?;
        let device = &self.selected.device;
        let mut bars = Bars::new();
        let placed = Placed::new(&scan, Look::of(dataset.as_deref()), &self.viewing, device)?;
        let options = self.viewing.look_options();
        let mut progress = |stage: &'static str, share: f64| bars.show(stage, share);
        let (lifted, report) = look(
            &scan,
            placed.views(),
            &placed.renderer,
            &self.xdecoder,
            &self.text,
            &options,
            device,
            laps,
            &mut progress,
            &mut |_| Ok(()),
        )?;
        let settings = purify::Settings { voxel_size: voxel_size(&scan).0, ..self.settings.purify };
        let voxelized = voxel_means(&scan.to_purify(), &lifted, settings, device, &mut progress)?;
        let is_label = |label: i32| usize::try_from(label).is_ok_and(|label| label < protocol.num_classes);
        let label: Vec<i32> = lifted.consensus.iter().map(|&label| if is_label(label) { label } else { -1 }).collect();
        Ok(LiftedRoom {
            num_channels: lifted.num_channels(),
            voxelized: Voxelized { voxel_from_point: scan.for_all_points(voxelized.voxel_from_point, -1), ..voxelized },
            points: RoomPoints { lifted_label: scan.for_all_points(label, -1), truth: truth.classes(protocol) },
            views: report.looked_at,
        })
    }
}

/// The study on standard error: bars where there is a terminal, and a line for what is done.
struct Shown {
    bars: Bars,
    is_terminal: bool,
}

impl Shown {
    fn show(&mut self, event: &StudyEvent<'_>) {
        match event {
            StudyEvent::Training { event: distill::Event::Step { report, num_steps, .. }, .. } if self.is_terminal => {
                self.bars.show("train", report.step as f64 / *num_steps as f64);
            }
            StudyEvent::Training { run, event: distill::Event::Note(note) } => log::info!("{run}: {note}"),
            StudyEvent::Training { .. } => {}
            StudyEvent::Trained { run, seconds } => {
                self.bars.finish();
                eprintln!("{run}: {}", took("trained", *seconds));
            }
            StudyEvent::Measured { way, room, seconds } => {
                if seconds.is_some() {
                    eprintln!("{room}, {way}: {}", took("measured", *seconds));
                }
            }
        }
    }
}

fn took(done: &str, seconds: Option<f64>) -> String {
    seconds.map_or_else(|| format!("{done} before"), |seconds| format!("{done} in {seconds:.1} s"))
}

fn print(args: &StudyArgs, report: &StudyReport) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string(report)?)?;
        return Ok(());
    }
    let count = |value: Option<usize>| value.map_or_else(String::new, |value| value.to_string());
    let rows: Vec<Vec<String>> = report
        .rows
        .iter()
        .map(|row| {
            vec![
                row.group.to_owned(),
                row.name.clone(),
                count(row.iterations),
                count(row.scenes),
                format!("{:.2} %", 100.0 * row.mean_iou.mean),
                format!("{:.2}", 100.0 * row.mean_iou.deviation),
                format!("{:+.2}", row.gain.mean),
                format!("{:+.2} to {:+.2}", row.gain.least, row.gain.most),
            ]
        })
        .collect();
    let header = ["what", "", "T", "scenes", "mIoU", "deviation", "gain", "least to largest"];
    write!(out, "{}", table(&header, &rows))?;
    for name in [JSON_FILE, MARKDOWN_FILE, CHART_FILE] {
        writeln!(out, "{}", args.output.join(name).display())?;
    }
    Ok(())
}
