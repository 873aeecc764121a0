//! A reproduced table, as JSON, as Markdown and as a picture. It has no times: the same results give the same bytes.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::{Map, Value as Json};

use super::error::ReproduceError;
use super::table::{DataSet, Row, Source, Step, Table, TableSettings, Way};
use super::work::Measured;
use crate::counted::counted;
use crate::eval::metrics::AbsentClasses;
use crate::eval::openscene::OpenSceneScores;
use crate::eval::published::Published;
use crate::images::draw::{Bars, bars, class_color};
use crate::images::{ImageError, Rgb8Image};
use crate::labels::{Preset, Protocol};

const CHART_WIDTH: usize = 1100;

/// Figures of a row, 0 to 1. Classes that occur nowhere count as 0, as in the published code, unless they are said to
/// be left out.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Figures {
    /// Mean intersection over union.
    pub mean_iou: Option<f64>,
    /// Mean accuracy.
    pub mean_accuracy: Option<f64>,
    /// Mean intersection over union of the classes that occur.
    pub mean_iou_present: Option<f64>,
    /// Mean intersection over union without wall, floor and ceiling.
    pub foreground_mean_iou: Option<f64>,
}

impl Figures {
    fn of(measured: &Measured, step: Step, preset: Preset) -> Result<Self, ReproduceError> {
        let confusion = measured.counts.to_confusion()?;
        let protocol = Protocol::of_preset(&preset);
        let all = protocol.all();
        let zero = confusion.scores(&all, AbsentClasses::Zero)?;
        let present = confusion.scores(&all, AbsentClasses::Skipped)?;
        let foreground = confusion.scores(&protocol.foreground(), AbsentClasses::Zero)?;
        let (mean_iou, mean_accuracy) = match step.way {
            // Their own evaluation counts so.
            Way::OpenScene | Way::CuaO3d => {
                let scores = OpenSceneScores::of(&confusion);
                (Some(scores.mean_iou), Some(scores.mean_accuracy))
            }
            _ => (zero.mean_iou, zero.mean_accuracy),
        };
        Ok(Self {
            mean_iou,
            mean_accuracy,
            mean_iou_present: present.mean_iou,
            foreground_mean_iou: foreground.mean_iou.filter(|_| !protocol.background.is_empty()),
        })
    }
}

/// Row of a reproduced table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ReportRow {
    /// Part of the table.
    pub group: String,
    /// Name of the row.
    pub name: String,
    /// Folder of its evaluation, if it can be measured.
    pub step: Option<String>,
    /// Figures that were measured here.
    pub figures: Option<Figures>,
    /// Number of scenes that were measured.
    pub num_scenes: usize,
    /// Scenes that its student or 3D network learned from here.
    pub trained_on: Vec<String>,
    /// Scenes that were left out because no view shows enough of them.
    pub skipped: Vec<String>,
    /// Scenes that failed.
    pub failed: Vec<String>,
    /// What it lacks, with the way to get it.
    pub lacks: Vec<String>,
    /// Published figures, in percent.
    pub published: Option<Published>,
}

/// A reproduced table.
#[derive(Clone, Debug, Serialize)]
pub struct ReproduceReport {
    /// Version of this program.
    pub geopurify: &'static str,
    /// Name of the table.
    pub table: String,
    /// True if all scenes are made rooms, and no scenes of the data sets.
    pub made_rooms: bool,
    /// Settings, with the hashes of the weights and the device.
    pub settings: Map<String, Json>,
    /// T, and numbers of training scenes.
    pub usual: [usize; 2],
    /// Rows of the table.
    pub rows: Vec<ReportRow>,
}

/// What is known of a row.
pub(super) enum Known {
    Measured(Measured),
    Lacks(Vec<String>),
}

impl ReproduceReport {
    /// Puts a table together. `known` has an entry for each step of `rows`.
    pub(super) fn new(
        table: Table,
        tables: &TableSettings,
        presets: [Preset; 2],
        made_rooms: bool,
        settings: Map<String, Json>,
        rows: &[Row],
        known: &[(Step, Known)],
    ) -> Result<Self, ReproduceError> {
        let row = |row: &Row| -> Result<ReportRow, ReproduceError> {
            let empty = ReportRow {
                group: row.group.clone(),
                name: row.name.clone(),
                step: None,
                figures: None,
                num_scenes: 0,
                trained_on: Vec::new(),
                skipped: Vec::new(),
                failed: Vec::new(),
                lacks: Vec::new(),
                published: row.published,
            };
            let step = match row.source {
                Source::PublishedOnly(reason) => return Ok(ReportRow { lacks: vec![reason.to_owned()], ..empty }),
                Source::Measured(step) => step,
            };
            let empty = ReportRow { step: Some(step.to_string()), ..empty };
            Ok(match known.iter().find(|(other, _)| *other == step).map(|(_, known)| known) {
                None => empty,
                Some(Known::Lacks(lacks)) => ReportRow { lacks: lacks.clone(), ..empty },
                Some(Known::Measured(measured)) => ReportRow {
                    figures: Some(Figures::of(measured, step, presets[step.data as usize])?),
                    num_scenes: measured.num_scenes,
                    trained_on: measured.trained_on.clone(),
                    skipped: measured.skipped.clone(),
                    failed: measured.failed.clone(),
                    ..empty
                },
            })
        };
        Ok(Self {
            geopurify: env!("CARGO_PKG_VERSION"),
            table: table.to_string(),
            made_rooms,
            settings,
            usual: [tables.usual_iterations, tables.usual_scenes],
            rows: rows.iter().map(row).collect::<Result<_, _>>()?,
        })
    }

    /// True if a scene failed.
    #[must_use]
    pub fn has_failures(&self) -> bool {
        self.rows.iter().any(|row| !row.failed.is_empty())
    }

    /// The parts of the table, each with its rows and the number of the first.
    fn groups(&self) -> Vec<(usize, &[ReportRow])> {
        let mut first = 1;
        let groups = self.rows.chunk_by(|a, b| a.group == b.group);
        let numbered = groups.map(|rows| {
            let at = first;
            first += rows.len();
            (at, rows)
        });
        numbered.collect()
    }

    /// The table as Markdown.
    #[must_use]
    pub fn to_markdown(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = self.write_markdown(&mut text);
        text
    }

    fn write_markdown(&self, out: &mut String) -> std::fmt::Result {
        let [usual_iterations, usual_scenes] = self.usual;
        writeln!(out, "# The {} table\n", self.table)?;
        if self.made_rooms {
            writeln!(
                out,
                "**These are made rooms, not the data sets.** Rooms of `synth` stand in for them, so the figures say nothing about \
                 the data sets and cannot be compared with the published ones beside them.\n"
            )?;
        }
        writeln!(
            out,
            "Percent. A class that occurs nowhere counts as 0, as in the published code; *present* leaves it out. f-: without wall, \
             floor and ceiling. T counts as in the paper: the affinities are applied T + 1 times. Unless a row says otherwise, \
             T is {usual_iterations} and {usual_scenes} scenes were learned from."
        )?;
        for (first, rows) in self.groups() {
            let Some(head) = rows.first() else { continue };
            write!(out, "\n## {}\n\n", head.group)?;
            writeln!(out, "| | | mIoU | mIoU, present | mAcc | f-mIoU | published mIoU | published mAcc |")?;
            writeln!(out, "|---:|---|---:|---:|---:|---:|---:|---:|")?;
            for (number, row) in (first..).zip(rows) {
                let figure = |of: fn(&Figures) -> Option<f64>| percent(row.figures.as_ref().and_then(of));
                let published = |of: fn(&Published) -> Option<f64>| {
                    let value = row.published.as_ref().and_then(of);
                    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.1}"))
                };
                writeln!(
                    out,
                    "| {number} | {} | {} | {} | {} | {} | {} | {} |",
                    row.name,
                    figure(|figures| figures.mean_iou),
                    figure(|figures| figures.mean_iou_present),
                    figure(|figures| figures.mean_accuracy),
                    figure(|figures| figures.foreground_mean_iou),
                    published(|published| published.mean_iou),
                    published(|published| published.mean_accuracy),
                )?;
            }
        }
        self.write_lacking(out)?;
        self.write_how(out)
    }

    /// Writes what rows lack. Rows that lack the same are told together.
    fn write_lacking(&self, out: &mut String) -> std::fmt::Result {
        let mut lacking: Vec<(&[String], Vec<usize>)> = Vec::new();
        for (number, row) in (1..).zip(&self.rows).filter(|(_, row)| !row.lacks.is_empty()) {
            match lacking.iter_mut().find(|(lacks, _)| *lacks == row.lacks) {
                Some((_, numbers)) => numbers.push(number),
                None => lacking.push((&row.lacks, vec![number])),
            }
        }
        if lacking.is_empty() {
            return Ok(());
        }
        write!(out, "\n## What rows lack\n\n")?;
        for (lacks, numbers) in lacking {
            let numbers: Vec<String> = numbers.iter().map(ToString::to_string).collect();
            let rows = if numbers.len() == 1 { "Row" } else { "Rows" };
            writeln!(out, "- {rows} {}: {}.", numbers.join(", "), lacks.join("; "))?;
        }
        Ok(())
    }

    fn write_how(&self, out: &mut String) -> std::fmt::Result {
        write!(out, "\n## How\n\n")?;
        let mut told: Vec<String> = Vec::new();
        for row in &self.rows {
            if row.figures.is_none() {
                continue;
            }
            let left_out = match (row.skipped.len(), row.failed.len()) {
                (0, 0) => String::new(),
                (skipped, failed) => format!(", without {skipped} that no view shows and {failed} that failed"),
            };
            let line = format!("{}: {} measured{left_out}.", row.group, counted(row.num_scenes, "scene"));
            if !told.contains(&line) {
                writeln!(out, "- {line}")?;
                told.push(line);
            }
        }
        for data in DataSet::ALL {
            if let Some(Json::Object(of_data)) = self.settings.get(data.key()) {
                let text = |name: &str| of_data.get(name).and_then(Json::as_str).unwrap_or_default();
                writeln!(out, "- {data}: {}, classes of {}.", text("folder"), text("preset"))?;
            }
        }
        let mut sources: Vec<&str> = Vec::new();
        for published in self.rows.iter().filter_map(|row| row.published.as_ref()) {
            if !sources.contains(&published.source) {
                writeln!(out, "- Published figures, {}: {}.", published.method, published.source)?;
                sources.push(published.source);
            }
        }
        let device = self.settings.get("device").and_then(Json::as_str).unwrap_or_default();
        writeln!(out, "- geopurify {} on {device}.", self.geopurify)?;
        if let Some(Json::Object(weights)) = self.settings.get("weights") {
            for (model, weights) in weights {
                writeln!(out, "- {model}: {}.", weights.as_str().unwrap_or("none"))?;
            }
        }
        Ok(())
    }

    /// Draws the mean IoU of every row, measured and published, as bars: a plot for each part of the table.
    ///
    /// # Errors
    /// [`ImageError`] of drawing.
    pub fn chart(&self) -> Result<Rgb8Image, ImageError> {
        let series = [("measured here", class_color(0)), ("published", class_color(1))];
        let values = |row: &ReportRow| {
            let measured = row.figures.and_then(|figures| figures.mean_iou);
            vec![measured.map(|share| 100.0 * share), row.published.and_then(|published| published.mean_iou)]
        };
        let full = self.rows.iter().flat_map(values).flatten().fold(1.0, f64::max);
        let mut pixels = Vec::new();
        for (_, rows) in self.groups() {
            let title = rows.first().map_or("", |row| &row.group);
            let bars_of = |row: &ReportRow| Bars { name: row.name.clone(), values: values(row) };
            let all: Vec<Bars> = rows.iter().map(bars_of).collect();
            pixels
                .extend(bars(&format!("{title}: mean IoU, percent"), &series, &all, full, CHART_WIDTH)?.into_pixels());
        }
        Rgb8Image::new(CHART_WIDTH, pixels.len() / CHART_WIDTH, pixels)
    }
}

fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "–".to_owned(), |share| format!("{:.2}", 100.0 * share))
}
