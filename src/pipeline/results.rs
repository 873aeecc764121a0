//! The result files of a run: the labelled scan, the features, and a summary as JSON.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use glam::Vec3;
use serde::Serialize;

use super::areas::surface_areas;
use super::{Inferred, PipelineError, Scene, ViewReport};
use crate::cloud::{Field, Format, write_with_fields};
use crate::files::{csv_quoted, lossy, write_atomic};
use crate::images::draw::UNLABELLED_COLOR;
use crate::labels::UNCLASSIFIED;
use crate::objects::Found;
use crate::ops::present;
use crate::query::Predictions;
use crate::query::saved::{self, About};
use crate::stages::Stage;

/// Name of the summary in the folder of results.
pub const SUMMARY_FILE: &str = "summary.json";
/// Unit of areas if metres per unit of the scan are known.
pub const SQUARE_METRES: &str = "square metres";
/// Name of the legend in the folder of results.
const LEGEND_NAME: &str = "legend.csv";

/// One line of the legend.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Class {
    /// Value of `label` in the labelled scan; -1 for unlabelled points.
    pub label: i32,
    /// Name of the label.
    pub name: String,
    /// False if the model never met the word in training, so that its points mean little.
    pub known: bool,
    /// Red, green, blue.
    pub color: [u8; 3],
    /// Number of points.
    pub points: usize,
    /// Share of the points that have a position, 0 to 1.
    pub share: f64,
    /// Surface area in square metres, or in squares of the scan's unit if metres per unit are unknown.
    pub area: f64,
    /// Mean cosine of its points with the word; 0 without points.
    pub mean_score: f64,
}

/// Weights that a run used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Weights {
    /// Name of the network.
    pub model: &'static str,
    /// File, or name in the store.
    pub source: String,
    /// SHA-256 of the file from which they were imported, or of the file itself.
    pub sha256: String,
}

/// Summary of a run, `summary.json`: all that is not in the scan.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Version of this program.
    pub geopurify: &'static str,
    /// Scan that was read; `None` if it was fused from a recording.
    #[serde(serialize_with = "lossy::optional")]
    pub scan: Option<PathBuf>,
    /// Recording with the views; `None` if views were drawn of the scan.
    #[serde(serialize_with = "lossy::optional")]
    pub recording: Option<PathBuf>,
    /// Labelled scan, in the same folder.
    #[serde(serialize_with = "lossy::path")]
    pub output: PathBuf,
    /// Legend: all labels, then unlabelled points.
    pub classes: Vec<Class>,
    /// Source of areas: triangles, or the surface that the points stand for.
    pub area_from: &'static str,
    /// Unit of areas.
    pub area_unit: &'static str,
    /// Settings of the run.
    pub settings: serde_json::Value,
    /// Weights of the run.
    pub weights: Vec<Weights>,
    /// How many views were used, and why others were left out.
    pub views: ViewReport,
    /// Number of points.
    pub points: usize,
    /// Number of voxels.
    pub voxels: usize,
    /// Number of objects, which `objects.json` lists.
    pub objects: usize,
    /// Mean number of occupied cells among the 26 around a voxel.
    pub voxel_neighbors: f64,
    /// Device on which it ran.
    pub device: String,
    /// Notes for the user.
    pub notes: Vec<String>,
    /// Times and memory of the stages.
    pub stages: Vec<Stage>,
    /// Total time in seconds.
    pub seconds: f64,
    /// Peak resident memory, if the system reports it.
    pub peak_memory_bytes: Option<u64>,
}

/// Labels of a scan, to be written into a folder.
pub struct Results<'a> {
    scene: &'a Scene,
    inferred: &'a Inferred,
    names: &'a [String],
    colors: &'a [[u8; 3]],
    of_point: Predictions,
}

/// Colours of a labelled scan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ScanColors {
    /// Two files: one in the scan's colours, one in those of the labels.
    #[default]
    Both,
    /// One file in the scan's colours.
    Scan,
    /// One file in the colours of the labels.
    Labels,
}

/// Options of the results.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResultOptions {
    /// Its colours.
    pub colors: ScanColors,
    /// For LAS and LAZ: the ASPRS class of each label, which replaces the classification of the points.
    pub classification: Option<Vec<u8>>,
    /// Labels that are left whole, as walls are; `None` for the usual ones.
    pub stuff: Option<Vec<String>>,
}

impl Class {
    /// Line of a legend: number, colour and name.
    fn line(&self) -> String {
        let [red, green, blue] = self.color;
        format!("label {} color {red} {green} {blue} name {}", self.label, self.title())
    }

    /// Its name for people. It says so if the model does not know the word.
    #[must_use]
    pub fn title(&self) -> String {
        if self.known { self.name.clone() } else { format!("{} (unknown)", self.name) }
    }
}

impl<'a> Results<'a> {
    /// `names` and `colors` belong to the labels, in their order.
    #[must_use]
    pub fn new(scene: &'a Scene, inferred: &'a Inferred, names: &'a [String], colors: &'a [[u8; 3]]) -> Self {
        Self { scene, inferred, names, colors, of_point: inferred.of_point() }
    }

    /// Object of every point with a position, -1 for none.
    fn object_of_point(&self, objects: &Found) -> Vec<i32> {
        let of_voxel = &objects.of_voxel;
        let of_point = |&voxel: &i32| present(voxel, of_voxel.len()).map_or(-1, |voxel| of_voxel[voxel]);
        self.inferred.purified.voxel_from_point.iter().map(of_point).collect()
    }

    /// Label, score and margin of every point with a position.
    #[must_use]
    pub fn of_point(&self) -> &Predictions {
        &self.of_point
    }

    fn color(&self, label: i32) -> [u8; 3] {
        usize::try_from(label).ok().and_then(|label| self.colors.get(label)).copied().unwrap_or(UNLABELLED_COLOR)
    }

    /// Legend: one line per label in their order, and one for unlabelled points. Also returns the source of
    /// areas.
    #[must_use]
    pub fn classes(&self) -> (Vec<Class>, &'static str) {
        let unlabelled = (-1, "unlabelled".to_owned());
        let labels = (0..).zip(self.names.iter().cloned()).chain([unlabelled]);
        let mut classes: Vec<Class> = labels
            .map(|(label, name)| {
                let color = self.color(label);
                Class { label, name, known: true, color, points: 0, share: 0.0, area: 0.0, mean_score: 0.0 }
            })
            .collect();
        let (areas, area_from) = self.areas();
        let last = classes.len() - 1;
        for ((&label, &score), area) in self.of_point.label.iter().zip(&self.of_point.score).zip(areas) {
            let class = &mut classes[usize::try_from(label).unwrap_or(last).min(last)];
            class.points += 1;
            class.area += area;
            class.mean_score += f64::from(score);
        }
        let square_metres = self.scene.metres_per_unit().unwrap_or(1.0).powi(2);
        for class in &mut classes {
            class.share = class.points as f64 / self.scene.num_points() as f64;
            class.area *= square_metres;
            class.mean_score /= class.points.max(1) as f64;
        }
        (classes, area_from)
    }

    /// Unit of the areas of [`classes`](Self::classes).
    #[must_use]
    pub fn area_unit(&self) -> &'static str {
        if self.scene.metres_per_unit().is_some() { SQUARE_METRES } else { "squares of the scan's unit" }
    }

    /// Surface area per point, in squares of the scan's unit, and its source.
    fn areas(&self) -> (Vec<f64>, &'static str) {
        let points = self.scene.points();
        if !self.scene.faces().is_empty() {
            let mut areas = vec![0.0; points.len()];
            for face in self.scene.faces() {
                let [a, b, c] = face.map(|corner| Vec3::from_array(points[corner as usize]).as_dvec3());
                let third = (b - a).cross(c - a).length() / 6.0;
                face.iter().for_each(|&corner| areas[corner as usize] += third);
            }
            return (areas, "triangles");
        }
        (surface_areas(self.scene.positions(), self.scene.cloud.spacing()), "points")
    }

    /// Writes the scan with `label`, `instance`, `score` and `margin` into `folder`: in its own colours as `labelled`, in
    /// the colours of the labels as `labels-coloured`. It keeps its format if that can hold them (PLY, LAS,
    /// LAZ), otherwise it becomes PLY. `classes` is the legend, which the files hold too; `objects` are those of the
    /// voxels. Returns the files and notes about changes.
    ///
    /// # Errors
    /// [`PipelineError::Cloud`].
    pub fn write_scans(
        &self,
        folder: &Path,
        classes: &[Class],
        objects: &Found,
        options: &ResultOptions,
    ) -> Result<(Vec<PathBuf>, Vec<String>), PipelineError> {
        let cloud = &self.scene.cloud;
        let extension = match cloud.format {
            Format::Las { .. } => "las",
            Format::Laz { .. } | Format::Copc { .. } => "laz",
            _ => "ply",
        };
        let label = self.scene.for_all_points(self.of_point.label.clone(), -1);
        let colors: Vec<[u8; 3]> = label.iter().map(|&label| self.color(label)).collect();
        let mut notes = Vec::new();
        let mut fields = Vec::new();
        if let Some(codes) = &options.classification {
            let code = |&label: &i32| usize::try_from(label).ok().and_then(|label| codes.get(label)).copied();
            let codes: Vec<u8> = label.iter().map(|label| code(label).unwrap_or(UNCLASSIFIED)).collect();
            if extension == "ply" {
                notes.push("classes of ASPRS are for LAS and LAZ only: this scan gets none".to_owned());
            } else {
                fields.push(Field::classification(codes));
            }
        }
        let legend = classes.iter().map(Class::line).collect();
        fields.push(Field::new("label", label).explained("number of the word; -1: none", legend));
        let instance = self.scene.for_all_points(self.object_of_point(objects), -1);
        fields.push(Field::new("instance", instance).explained("number of the object; -1: none", Vec::new()));
        let score = self.scene.for_all_points(self.of_point.score.clone(), 0.0);
        fields.push(Field::new("score", score).explained("cosine with the word", Vec::new()));
        let margin = self.scene.for_all_points(self.of_point.margin.clone(), 0.0);
        fields.push(Field::new("margin", margin).explained("score less the next word's", Vec::new()));

        let mut files = Vec::new();
        if options.colors != ScanColors::Labels {
            files.push(folder.join(format!("labelled.{extension}")));
            notes.extend(self.write_with(&files[0], &fields)?);
        }
        if options.colors != ScanColors::Scan {
            // Points of LAS without colours have no place for them.
            let extension = if cloud.colors.is_some() { extension } else { "ply" };
            let path = folder.join(format!("labels-coloured.{extension}"));
            fields.extend(Field::colors(&colors));
            if extension == "ply" {
                fields.retain(|field| !field.as_classification);
            }
            let changes = self.write_with(&path, &fields)?;
            // The notes about the second file are those about the first.
            if files.is_empty() {
                notes.extend(changes);
            }
            files.push(path);
        }
        Ok((files, notes))
    }

    fn write_with(&self, path: &Path, fields: &[Field]) -> Result<Vec<String>, PipelineError> {
        Ok(match &self.scene.path {
            Some(source) => write_with_fields(source, path, fields)?,
            None => self.scene.cloud.write_ply(path, fields)?,
        })
    }

    /// Writes the purified features for later queries, see [`saved`].
    ///
    /// # Errors
    /// [`PipelineError::Saved`].
    pub fn write_features(&self, folder: &Path, about: &About) -> Result<PathBuf, PipelineError> {
        let path = folder.join(saved::FILE_NAME);
        let purified = &self.inferred.purified;
        let voxel_from_point = self.scene.for_all_points(purified.voxel_from_point.clone(), -1);
        let lifted = self.scene.for_all_points(self.inferred.lifted_label.clone(), -1);
        saved::write(&path, about, &purified.features, &purified.coords, &voxel_from_point, &lifted)?;
        Ok(path)
    }
}

/// Writes the legend `classes` into `folder` as `legend.csv`.
///
/// # Errors
/// [`PipelineError::Write`].
pub fn write_legend(folder: &Path, classes: &[Class], area_unit: &str) -> Result<PathBuf, PipelineError> {
    let path = folder.join(LEGEND_NAME);
    write_atomic(&path, |out| {
        writeln!(out, "label,name,known,red,green,blue,points,share,area,area_unit,mean_score")?;
        for class in classes {
            let Class { label, name, known, color: [red, green, blue], points, share, area, mean_score } = class;
            let name = csv_quoted(name);
            writeln!(
                out,
                "{label},{name},{known},{red},{green},{blue},{points},{share},{area},{area_unit},{mean_score}"
            )?;
        }
        Ok(())
    })
    .map_err(|source| PipelineError::Write { path: path.clone(), source })?;
    Ok(path)
}

impl Summary {
    /// Writes `summary.json` into `folder`.
    ///
    /// # Errors
    /// [`PipelineError::Write`].
    pub fn write(&self, folder: &Path) -> Result<PathBuf, PipelineError> {
        let path = folder.join(SUMMARY_FILE);
        let failed = |source| PipelineError::Write { path: path.clone(), source };
        write_atomic(&path, |out| {
            serde_json::to_writer_pretty(&mut *out, self)?;
            out.write_all(b"\n")
        })
        .map_err(failed)?;
        Ok(path)
    }
}
