//! A labelled scan and its files.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::SessionError;
use super::beside::is_result;
use super::labeller::Labeller;
use super::placed::{Placed, ViewSource};
use crate::counted::counted;
use crate::files::{LEFTOVER, remove_partials};
use crate::images::write_png;
use crate::labels::which_are_stuff;
use crate::objects::{self, Catalogue};
use crate::pipeline::{
    FusedFeatures, Inferred, Models, OnView, Options, ResultOptions, Results, Scene, Summary, Turned, contact_sheet,
    infer, occupied_neighbors, voxel_size_for_purification, write_legend,
};
use crate::query::Predictions;
use crate::query::saved::About;
use crate::stages::{StageTimer, peak_memory};

/// Name of the contact sheet in a folder of results.
const SHEET_FILE: &str = "sheet.png";

/// A scan with its labels.
pub struct Labelled<'a> {
    pub(super) labeller: &'a Labeller<'a>,
    pub(super) scene: &'a Scene,
    /// Its views and cameras.
    pub placed: Placed<'a>,
    /// Labels of voxels and points.
    pub inferred: Inferred,
    /// Options that were used.
    pub options: Options,
    /// Notes for the user.
    pub notes: Vec<String>,
}

/// Files written by [`Labelled::save`].
#[derive(Clone, Debug)]
pub struct SavedResults {
    /// Labelled scan, contact sheet and summary.
    pub files: Vec<PathBuf>,
    /// Content of the summary.
    pub summary: Summary,
}

impl Labeller<'_> {
    /// Labels `scene` with the views of `source`. Calls `on_view` with every view.
    ///
    /// # Errors
    /// [`SessionError::Pipeline`], [`SessionError::Op`].
    pub fn label<'a>(
        &'a self,
        scene: &'a Scene,
        source: ViewSource<'a>,
        timer: &mut StageTimer<'_>,
        on_view: &mut OnView<'_>,
    ) -> Result<Labelled<'a>, SessionError> {
        let device = &self.selected.device;
        let mut notes: Vec<String> = self.notes.iter().chain(&scene.notes).cloned().collect();
        timer.progress("place cameras", 0.0);
        let placed = Placed::new(scene, source, &self.views, device)?;
        notes.extend(placed.notes.iter().cloned());
        timer.lap("place cameras");

        let turn = self.views.compat.turn(placed.cameras.turn);
        let choose = || voxel_size_for_purification(&scene.turned(turn), self.views.compat);
        let (voxel, why) = self.options.voxel.map_or_else(choose, |voxel| (voxel, None));
        notes.extend(why);
        let options = self.options.of_pipeline(voxel, turn, &self.views, self.plan.iterations);
        let fused = self.fused_of(scene)?;
        let models = Models {
            encoders: self.encoders.with(&self.options, fused.as_ref())?,
            affinities: self.plan.affinities.with(self.student.as_ref()),
            text: &self.text,
            num_labels: self.words.labels.len(),
        };
        let inferred = infer(placed.views(scene), &models, &options, device, timer, on_view)?;
        notes.extend(inferred.notes.iter().chain(&inferred.purified.report.notes).cloned());
        notes.extend(notes_of(&inferred, placed.recording().is_some()));
        Ok(Labelled { labeller: self, scene, placed, inferred, options, notes })
    }
}

impl Labeller<'_> {
    /// Reads the fused features of a scan, if there are to be any.
    fn fused_of(&self, scene: &Scene) -> Result<Option<FusedFeatures>, SessionError> {
        let Some(place) = &self.options.fused else { return Ok(None) };
        let file = FusedFeatures::file_of(place, scene.path.as_deref().unwrap_or(Path::new("")));
        let [_, num_channels] = self.text.rows.dims();
        Ok(Some(FusedFeatures::read(&file, scene.num_points(), num_channels)?))
    }
}

/// Too few points are seen if more than one in so many is in no view.
const FEW_SEEN: usize = 5;

/// Notes about the views, which are those of a recording or drawn, for the user.
fn notes_of(inferred: &Inferred, is_recorded: bool) -> Vec<String> {
    let views = &inferred.views;
    let mut notes = Vec::new();
    if views.views == 0 {
        return notes;
    }
    if views.without_points > 0 {
        notes.push(format!(
            "{} of {} left out: too few points or nothing found",
            views.without_points,
            counted(views.views, "view")
        ));
    }
    if let Some(error) = &views.first_error {
        notes.push(format!("{} could not be read, the first: {error}", counted(views.unreadable, "frame")));
    }
    if views.without_depth > 0 {
        notes.push(format!(
            "{} without a depth map: depth drawn from the scan decided which points are seen",
            counted(views.without_depth, "frame")
        ));
    }
    let share = |points: usize| 100.0 * points as f64 / views.points.max(1) as f64;
    notes.push(format!(
        "{:.1} % of the points are in at least one view, {:.1} % in three",
        share(views.points - views.unseen_points),
        share(views.points_in_three)
    ));
    if views.unseen_points > 0 {
        notes.push(format!(
            "{} of {} points are in no view: they get the feature of the nearest point that is seen",
            views.unseen_points, views.points
        ));
    }
    if views.unseen_points * FEW_SEEN > views.points {
        let why = match is_recorded {
            true => "the recording shows only a part of the scan",
            false => "--scene, --up and --views change where the scan is looked at from",
        };
        notes.push(format!("warning: more than a fifth of the points are in no view; {why}"));
    }
    notes
}

impl Labelled<'_> {
    /// Label, score and margin of every point with a position.
    #[must_use]
    pub fn of_point(&self) -> Predictions {
        self.inferred.of_point()
    }

    /// Splits the labels into objects. The labels `stuff` are left whole; `None` for the usual ones.
    #[must_use]
    pub fn objects(&self, stuff: Option<&[String]>) -> objects::Found {
        let names = &self.labeller.words.labels;
        let is_stuff = which_are_stuff(names, stuff);
        objects::find(&self.inferred.object_input(self.scene, names, &is_stuff, self.placed.cameras.up))
    }

    /// Writes the results into `folder`: the labelled scan, its objects, the features for later queries, the contact
    /// sheet, and `summary.json`. Makes the folder if it is missing. Every file is written completely or not
    /// at all.
    ///
    /// # Errors
    /// [`SessionError::Io`], [`SessionError::Pipeline`], [`SessionError::Image`].
    pub fn save(&self, folder: &Path, timer: &mut StageTimer<'_>) -> Result<SavedResults, SessionError> {
        self.save_as(folder, &ResultOptions::default(), timer)
    }

    /// Does the same as [`save`](Self::save). `scan` decides how the labelled scan is written.
    ///
    /// # Errors
    /// The same as [`save`](Self::save).
    pub fn save_as(
        &self,
        folder: &Path,
        scan: &ResultOptions,
        timer: &mut StageTimer<'_>,
    ) -> Result<SavedResults, SessionError> {
        let Self { labeller, scene, placed, inferred, options, notes } = self;
        let mut notes = notes.clone();
        std::fs::create_dir_all(folder).map_err(|source| SessionError::Io { path: folder.to_path_buf(), source })?;
        timer.progress("objects", 0.0);
        let found = self.objects(scan.stuff.as_deref());
        timer.lap("objects");
        timer.progress("write", 0.0);
        let results = Results::new(scene, inferred, &labeller.words.labels, &labeller.words.colors);
        let (mut classes, area_from) = results.classes();
        for class in classes.iter_mut().filter(|class| class.label >= 0) {
            class.known = !labeller.unknown.contains(&class.name);
        }
        let (mut files, scan_notes) = results.write_scans(folder, &classes, &found, scan)?;
        let scan_file = files[0].clone();
        notes.extend(scan_notes);
        files.push(write_legend(folder, &classes, results.area_unit())?);
        let num_objects = found.objects.len();
        let up = placed.cameras.up.to_array();
        files.extend(Catalogue::new(found.objects.clone(), up, scene.metres_per_unit()).write(folder)?);
        timer.progress("write", 0.3);
        let origin = &labeller.text_origin;
        let turned = scene.turned(options.turn);
        let about = About {
            scan: scan_file.file_name().map_or_else(PathBuf::new, PathBuf::from),
            voxel_size: options.purify.voxel_size,
            origin: options
                .purify
                .voxel_transform
                .is_none()
                .then(|| lattice_origin(&turned, options.purify.voxel_size)),
            voxel_axes: options.turn.transpose().to_cols_array_2d(),
            up: placed.cameras.up.to_array(),
            text: labeller.weights[0].model.to_owned(),
            weights: origin.source.clone(),
            config: labeller.text_config.as_ref().and_then(|path| path.canonicalize().ok()),
            weights_bytes: origin.bytes,
            weights_sha256: labeller.weights[0].sha256.clone(),
            words: labeller.words.all(),
        };
        results.write_features(folder, &about)?;
        timer.lap("write");
        timer.progress("draw", 0.6);
        let columns: [(&str, &[i32]); 2] =
            [("lifted", &inferred.lifted_label), ("purified", &results.of_point().label)];
        let cameras = placed.shown_from();
        let picture = contact_sheet(scene, &placed.appearance, &placed.renderer, &cameras, &columns, &classes)?;
        let sheet_file = folder.join(SHEET_FILE);
        write_png(&sheet_file, &picture)?;
        timer.lap("draw");

        let used = &labeller.options;
        let settings = json!({
            "words": labeller.words.labels, "background": labeller.words.background, "threshold": used.threshold,
            "compat": used.views.compat.to_string(), "seed": used.seed, "size": labeller.views.size(),
            "views": used.views.max_views, "purify": options.purify, "affinities": labeller.plan.affinities.to_json(),
            "method": labeller.plan.method.to_string(),
            "image_model": labeller.image_model().map(|model| model.to_string()),
            "share": used.share, "turns": used.turns,
            "ensemble": used.ensemble.map(|rule| rule.to_string()), "repeats": used.repeats,
            "fused": used.fused.as_ref().map(|place| place.to_string_lossy()),
        });
        let summary = Summary {
            geopurify: env!("CARGO_PKG_VERSION"),
            scan: scene.path.clone(),
            recording: placed.recording().map(Path::to_path_buf),
            output: scan_file.clone(),
            classes,
            area_from,
            area_unit: results.area_unit(),
            settings,
            weights: labeller.weights.clone(),
            views: inferred.views.clone(),
            points: scene.num_points(),
            voxels: inferred.purified.coords.len(),
            objects: num_objects,
            voxel_neighbors: occupied_neighbors(turned.positions(), options.purify.voxel_size),
            device: labeller.selected.name.clone(),
            notes,
            stages: timer.stages().to_vec(),
            seconds: timer.seconds(),
            peak_memory_bytes: peak_memory(),
        };
        let summary_file = summary.write(folder)?;
        files.extend([sheet_file, summary_file]);
        remove_stale(folder, &files, scene.path.as_deref())?;
        Ok(SavedResults { files, summary })
    }
}

/// Corner of the first voxel, in the scan's coordinates. The voxels are cells of a lattice through the origin of
/// the turned scan.
fn lattice_origin(turned: &Turned<'_>, voxel_size: f64) -> [f64; 3] {
    let least = |axis: usize| turned.positions().iter().map(|p| p[axis]).fold(f64::INFINITY, f64::min);
    turned.in_scan(std::array::from_fn(|axis| (least(axis) * voxel_size.recip()).floor() * voxel_size))
}

/// Removes what an earlier run left in a folder of results beside the new `files`: answers to questions, which
/// are about its labels, scans in another format, and half a file of a killed run. The scan that was labelled
/// stays.
fn remove_stale(folder: &Path, files: &[PathBuf], scan: Option<&Path>) -> Result<(), SessionError> {
    let io = |path: &Path| {
        let path = path.to_path_buf();
        move |source| SessionError::Io { path, source }
    };
    for entry in std::fs::read_dir(folder).map_err(io(folder))? {
        let path = entry.map_err(io(folder))?.path();
        let is_scan = scan.is_some_and(|scan| scan.canonicalize().ok() == path.canonicalize().ok());
        if is_result(&path) && path.is_file() && !files.contains(&path) && !is_scan {
            std::fs::remove_file(&path).map_err(io(&path))?;
        }
    }
    remove_partials(folder, LEFTOVER).map_err(io(folder))
}
