//! Queries in a labelled scan.

use std::path::{Path, PathBuf};

use burn::prelude::Tensor;
use glam::DVec3;

use super::SessionError;
use super::labeller::{Words, note_of_unknown};
use super::networks::{Network, Networks, OpenText};
use super::text::TextModel;
use crate::cloud::{Field, PointCloud, Unit};
use crate::gpu::Selected;
use crate::images::draw::heat_color;
use crate::images::write_png;
use crate::ops::float_values;
use crate::pipeline::{HeatViews, PipelineError, SQUARE_METRES, SUMMARY_FILE, Scene};
use crate::query::regions::{Region, regions, usual_level};
use crate::query::saved::{FILE_NAME, Saved};
use crate::query::{Comparison, compare};
use crate::stages::StageTimer;

/// Scores below the first quantile get the coldest colour, those above the second the hottest.
const COLDEST: f64 = 0.05;
const HOTTEST: f64 = 0.999;
/// Least cosine of two words of one meaning, such as sofa and couch. Such words do not compete.
const SAME_MEANING: f32 = 0.9;
/// Least number of voxels that make a place.
const FEW_VOXELS: usize = 8;

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

/// Voxels that answer a question.
struct Found {
    /// `[V]`: true for the voxels.
    is_found: Vec<bool>,
    level: f32,
    nearest: bool,
}

impl Found {
    /// Takes the voxels that are nearer to the question than to the other words. If there are none, or if a
    /// level is given, it takes those with a cosine of that level, by default [`usual_level`].
    fn new(comparison: &Comparison, level: Option<f32>) -> Self {
        let Comparison { score, margin } = comparison;
        let is_nearest: Vec<bool> = margin.iter().map(|&margin| margin > 0.0).collect();
        if level.is_none() && is_nearest.iter().filter(|nearest| **nearest).count() >= FEW_VOXELS {
            let scores = score.iter().zip(&is_nearest).filter(|(_, nearest)| **nearest).map(|(&score, _)| score);
            return Self { level: scores.fold(f32::INFINITY, f32::min), is_found: is_nearest, nearest: true };
        }
        let level = level.unwrap_or_else(|| usual_level(score));
        Self { is_found: score.iter().map(|&score| score >= level).collect(), level, nearest: false }
    }
}

/// Embeds a question and the words that compete with it, in this order. Returns these words too.
fn embed(encoder: &TextModel, question: &str, words: &[String]) -> Result<(Tensor<2>, Vec<String>), SessionError> {
    let usual = Words::new([question]).background;
    let mut others: Vec<String> = Vec::new();
    for word in words.iter().chain(&usual) {
        // A question may be a word of the labelling, or say more: "red sofa".
        let is_within = word.split_whitespace().all(|part| question.split_whitespace().any(|own| own == part));
        if !is_within && !others.contains(word) {
            others.push(word.clone());
        }
    }
    let others: Vec<String> = {
        let unknown = encoder.unknown_words(&others);
        others.iter().filter(|word| !unknown.contains(&word.as_str())).cloned().collect()
    };
    let asked = std::iter::once(question).chain(others.iter().map(String::as_str));
    let labels: Vec<String> = asked.map(|word| encoder.prompt(word)).collect();
    let rows = encoder.embed_labels(&labels)?;
    let [_, num_channels] = rows.dims();
    let values = float_values(rows.clone())?;
    let cosine = |row: &[f32]| row.iter().zip(&values).map(|(a, b)| a * b).sum::<f32>();
    let cosines: Vec<f32> = values.chunks_exact(num_channels.max(1)).map(cosine).collect();
    let kept: Vec<usize> = (0..labels.len()).filter(|&row| row == 0 || cosines[row] < SAME_MEANING).collect();
    let competing = kept[1..].iter().map(|&row| others[row - 1].clone()).collect();
    let rows = Tensor::cat(kept.iter().map(|&row| rows.clone().slice_dim(0, row..row + 1)).collect(), 0);
    Ok((rows, competing))
}

pub(super) fn ask(
    selected: &Selected,
    networks: &Networks,
    results: &Path,
    question: &str,
    level: Option<f32>,
    timer: &mut StageTimer<'_>,
) -> Result<Answer, SessionError> {
    let question = question.split_whitespace().collect::<Vec<_>>().join(" ");
    if question.is_empty() {
        return Err(SessionError::NoQuestion);
    }
    let features = results.join(FILE_NAME);
    if !features.is_file() {
        return Err(SessionError::NoResults { folder: results.to_path_buf() });
    }
    let saved = Saved::read(&features)?;
    let mut networks = networks.clone();
    let about = &saved.about;
    let text = [Network::Clip, Network::LSeg].into_iter().find(|network| about.text == network.name());
    let text = text.unwrap_or(Network::XDecoder);
    let choice = networks.choice_mut(text);
    if choice.weights.is_none() {
        choice.weights = Some(PathBuf::from(&about.weights));
        choice.config = choice.config.take().or_else(|| about.config.clone());
    }
    let opened = OpenText::open(&networks, text, saved.num_channels)?;
    timer.lap("read features");

    // For the same file that the run used, comparing the length is enough. Another file must be hashed.
    let origin = opened.origin().clone();
    let is_same_source = origin.source == about.weights && origin.bytes == about.weights_bytes;
    let is_same = || Ok::<_, SessionError>(is_same_source || origin.sha256()? == about.weights_sha256);
    // Reads and draws the scan while the words go through the model.
    let scan_path = results.join(&saved.about.scan);
    let up = DVec3::from_array(saved.about.up);
    let mut notes = Vec::new();
    let (text, (scene, views), is_same) = std::thread::scope(|threads| {
        let scene = threads.spawn(|| {
            let scene = Scene::read(&scan_path)?;
            let views = HeatViews::new(&scene, up, &selected.device)?;
            Ok::<_, PipelineError>((scene, views))
        });
        let is_same = threads.spawn(is_same);
        let text = opened.load(&selected.device).and_then(|encoder| {
            notes.extend(note_of_unknown(&encoder, std::slice::from_ref(&question)));
            embed(&encoder, &question, &saved.about.words)
        });
        let scene = scene.join().map_err(|_| SessionError::Thread)?;
        let is_same = is_same.join().map_err(|_| SessionError::Thread)?;
        Ok::<_, SessionError>((text?, scene?, is_same?))
    })?;
    if !is_same {
        let (made_with, sha256) = (saved.about.weights, saved.about.weights_sha256);
        return Err(SessionError::OtherWeights { features, made_with, sha256, given: origin.source });
    }
    if scene.cloud.len() != saved.voxel_from_point.len() {
        let (points, features) = (scene.cloud.len(), saved.voxel_from_point.len());
        return Err(SessionError::OtherScan { scan: scan_path, points, features });
    }
    let (text, competing) = text;
    let [_, words] = text.dims();
    if words != saved.num_channels {
        return Err(SessionError::OtherChannels { features, found: saved.num_channels, words });
    }
    timer.lap("embed words");

    let comparison = compare(&saved.features, &text)?;
    let Found { is_found, level, nearest } = Found::new(&comparison, level);
    let Comparison { score, .. } = comparison;
    let places = regions(&score, &is_found, level, &scene.cloud.positions, &saved.voxel_from_point);
    timer.lap("score");
    let heat = Heat::new(&score);
    let voxels = || saved.voxel_from_point.iter().map(|&voxel| usize::try_from(voxel).ok());
    let found = voxels().map(|voxel| voxel.is_some_and(|voxel| is_found[voxel])).collect();
    let score = voxels().map(|voxel| voxel.map_or(f32::NAN, |voxel| score[voxel])).collect();
    let known = notes.is_empty();
    let unit = if has_metres(results) { scene.unit() } else { None };
    Ok(Answer { unit, question, known, competing, nearest, places, level, score, notes, found, heat, scene, views })
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
        let mut sorted = score.to_vec();
        sorted.sort_unstable_by(f32::total_cmp);
        let at = |share: f64| sorted.get(((sorted.len().max(1) - 1) as f64 * share) as usize).copied().unwrap_or(0.0);
        Self { low: at(COLDEST), high: at(HOTTEST), best: at(1.0) }
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
    fn the_nearest_voxels_are_found_else_the_most_similar() {
        // Nine tenths of the scan are the wall that was asked for: all of it is one answer.
        let dominant = Comparison {
            score: (0..100).map(|i| if i < 90 { 0.7 + 0.001 * (i % 7) as f32 } else { 0.2 }).collect(),
            margin: (0..100).map(|i| if i < 90 { 0.3 } else { -0.4 }).collect(),
        };
        let found = Found::new(&dominant, None);
        assert_eq!((found.is_found.iter().filter(|is| **is).count(), found.level, found.nearest), (90, 0.7, true));
        assert_eq!(Found::new(&dominant, Some(0.7035)).is_found.iter().filter(|is| **is).count(), 38);
        // Nothing is nearer to the question than to other words.
        let absent = Comparison { margin: vec![-0.1; 100], ..dominant };
        let found = Found::new(&absent, None);
        assert!(!found.nearest && found.level > 0.7);
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
