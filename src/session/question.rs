//! Queries in a labelled scan.

use std::path::Path;

use glam::DVec3;

use super::SessionError;
use super::asker::{OpenAsker, VoxelAnswer, single_spaced};
use super::networks::Networks;
use crate::cloud::{Field, PointCloud, Unit};
use crate::gpu::Selected;
use crate::images::draw::heat_color;
use crate::images::write_png;
use crate::pipeline::{HeatViews, PipelineError, SQUARE_METRES, SUMMARY_FILE, Scene};
use crate::query::heat_range;
use crate::query::regions::{Region, regions};
use crate::query::saved::{FILE_NAME, Saved};
use crate::stages::StageTimer;

/// Places of an object in a scan.
pub struct Answer {
    /// The question, with single spaces between words.
    pub question: String,
    /// False if the model never met a word of the question in training, so that the answer means little.
    pub known: bool,
    /// Words with which the question competed: those of the labelling and the background, without those of
    /// the same meaning.
    pub competing: Vec<String>,
    /// True if the places are nearer to the question than to every competing word. False if no place is, or if
    /// a level was given: the places are then the most similar ones.
    pub nearest: bool,
    /// Connected places that were found, best first.
    pub places: Vec<Region>,
    /// Least cosine of a voxel that was found.
    pub level: f32,
    /// `[N]`: cosine of every point with the question; NaN for points without a position.
    pub score: Vec<f32>,
    /// Notes for the user.
    pub notes: Vec<String>,
    /// Unit of the coordinates; `None` if unknown.
    pub unit: Option<Unit>,
    /// `[N]`: true for the points of the places.
    found: Vec<bool>,
    heat: Heat,
    scene: Scene,
    views: HeatViews,
}

pub(super) fn ask(
    selected: &Selected,
    networks: &Networks,
    results: &Path,
    question: &str,
    level: Option<f32>,
    timer: &mut StageTimer<'_>,
) -> Result<Answer, SessionError> {
    let question = single_spaced(question);
    if question.is_empty() {
        return Err(SessionError::NoQuestion);
    }
    let features = results.join(FILE_NAME);
    if !features.is_file() {
        return Err(SessionError::NoResults { folder: results.to_path_buf() });
    }
    let saved = Saved::read(&features)?;
    let scan_path = results.join(&saved.about.scan);
    let up = DVec3::from_array(saved.about.up);
    let opened = OpenAsker::open(networks, results, saved)?;
    timer.lap("read features");

    // Reads and draws the scan while the words go through the model.
    let (asker, answer, scene, views) = std::thread::scope(|threads| {
        let scene = threads.spawn(|| {
            let scene = Scene::read(&scan_path)?;
            let views = HeatViews::new(&scene, up, &selected.device)?;
            Ok::<_, PipelineError>((scene, views))
        });
        let answered = opened.load(&selected.device).and_then(|mut asker| {
            let answer = asker.ask(&question, level)?;
            Ok((asker, answer))
        });
        let scene = scene.join().map_err(|_| SessionError::Thread)?;
        let ((asker, answer), (scene, views)) = (answered?, scene?);
        Ok::<_, SessionError>((asker, answer, scene, views))
    })?;
    let saved = asker.saved();
    if scene.cloud.len() != saved.voxel_from_point.len() {
        let (points, features) = (scene.cloud.len(), saved.voxel_from_point.len());
        return Err(SessionError::OtherScan { scan: scan_path, points, features });
    }
    timer.lap("compare with words");

    let VoxelAnswer { question, known, competing, nearest, level, score, found: is_found, notes } = answer;
    let places = regions(&score, &is_found, level, &scene.cloud.positions, &saved.voxel_from_point);
    timer.lap("find places");
    let heat = Heat::new(&score);
    let voxels = || saved.voxel_from_point.iter().map(|&voxel| usize::try_from(voxel).ok());
    let found = voxels().map(|voxel| voxel.is_some_and(|voxel| is_found[voxel])).collect();
    let score = voxels().map(|voxel| voxel.map_or(f32::NAN, |voxel| score[voxel])).collect();
    let unit = unit_of(results, &scene);
    Ok(Answer { unit, question, known, competing, nearest, places, level, score, notes, found, heat, scene, views })
}

/// Unit of the coordinates of a labelled scan in the folder `results`; `None` if the labelling did not know it.
#[must_use]
pub fn unit_of(results: &Path, scene: &Scene) -> Option<Unit> {
    if has_metres(results) { scene.unit() } else { None }
}

/// True unless the summary of the labelling says that the unit of the scan was unknown to it.
fn has_metres(results: &Path) -> bool {
    let summary = std::fs::read(results.join(SUMMARY_FILE)).ok();
    let summary = summary.and_then(|text| serde_json::from_slice::<serde_json::Value>(&text).ok());
    summary.is_none_or(|summary| summary["area_unit"].as_str().is_none_or(|unit| unit == SQUARE_METRES))
}

impl Answer {
    /// The largest cosine.
    #[must_use]
    pub fn best(&self) -> f32 {
        self.heat.best
    }

    /// File name made from the question: letters and digits of any script, dashes for everything else.
    #[must_use]
    pub fn slug(&self) -> String {
        slug(&self.question)
    }

    /// The question for people. It says so if the model does not know it, or if nothing is nearest to it.
    #[must_use]
    pub fn title(&self) -> String {
        match (self.known, self.nearest) {
            (false, _) => format!("{} (unknown to the model)", self.question),
            (true, false) => format!("{} (the most similar places)", self.question),
            (true, true) => self.question.clone(),
        }
    }

    /// Writes the scan as PLY in heat colours, with the cosine of every point as `score`.
    ///
    /// # Errors
    /// [`SessionError::Pipeline`].
    pub fn write_cloud(&self, path: &Path) -> Result<(), SessionError> {
        let color = |&score: &f32| if score.is_finite() { self.heat.color(score) } else { [0; 3] };
        let cloud = PointCloud {
            positions: self.scene.cloud.positions.clone(),
            colors: Some(self.score.iter().map(color).collect()),
            normals: self.scene.cloud.normals.clone(),
            faces: self.scene.cloud.faces.clone(),
            ..PointCloud::default()
        };
        cloud.write_ply(path, &[Field::new("score", self.score.clone())]).map_err(PipelineError::from)?;
        Ok(())
    }

    /// Draws the heat map from good viewpoints and writes it as PNG.
    ///
    /// # Errors
    /// [`SessionError::Pipeline`], [`SessionError::Image`].
    pub fn write_picture(&self, path: &Path) -> Result<(), SessionError> {
        let with_position = self.score.iter().zip(0..).filter(|(_, i)| self.scene.cloud.is_used(*i));
        let shown = with_position.map(|(&score, i)| (self.heat.color(score), self.found[i]));
        let (colors, found): (Vec<[u8; 3]>, Vec<bool>) = shown.unzip();
        let picture = self.views.picture(&colors, &found, &self.title(), [self.heat.low, self.heat.high])?;
        Ok(write_png(path, &picture)?)
    }
}

/// Maps scores to colours.
struct Heat {
    low: f32,
    high: f32,
    best: f32,
}

impl Heat {
    fn new(score: &[f32]) -> Self {
        let ([low, high], best) = heat_range(score);
        Self { low, high, best }
    }

    fn color(&self, score: f32) -> [u8; 3] {
        let span = self.high - self.low;
        heat_color(if span > 0.0 { ((score - self.low) / span).clamp(0.0, 1.0) } else { 0.0 })
    }
}

fn slug(question: &str) -> String {
    let mut slug = String::new();
    for character in question.to_lowercase().chars() {
        if character.is_alphanumeric() {
            slug.push(character);
        } else if !slug.ends_with('-') {
            slug.push('-');
        }
        // File systems allow 255 bytes.
        if slug.len() > 100 {
            break;
        }
    }
    let slug = slug.trim_matches('-');
    if slug.is_empty() { "question".to_owned() } else { slug.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_name_files_in_any_script() {
        assert_eq!(slug("Something to sit on?"), "something-to-sit-on");
        assert_eq!(slug("椅子 или стул"), "椅子-или-стул");
        assert_eq!(slug("../.."), "question");
        assert!(slug(&"long ".repeat(100)).len() < 120);
    }

    #[test]
    fn heat_spans_the_scores() {
        let heat = Heat::new(&(0..=1000).map(|i| i as f32 / 1000.0).collect::<Vec<_>>());
        assert_eq!((heat.low, heat.high, heat.best), (0.05, 0.999, 1.0));
        assert_eq!(heat.color(-3.0), heat_color(0.0));
        assert_eq!(heat.color(1.0), heat_color(1.0));
        assert_eq!(Heat::new(&[0.3]).color(0.3), heat_color(0.0));
    }
}
