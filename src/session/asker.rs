//! Saved features with their text encoder, open for any number of questions.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use burn::prelude::{Device, Tensor};

use super::SessionError;
use super::labeller::{LABELS_AT_ONCE, Words, note_of_unknown};
use super::networks::{Network, Networks, OpenText};
use super::text::TextModel;
use crate::ops::float_values;
use crate::query::regions::usual_level;
use crate::query::saved::{FILE_NAME, Saved};
use crate::query::{Comparison, Predictions, compare, predict};

/// Least cosine of two words of one meaning, such as sofa and couch. Such words do not compete.
const SAME_MEANING: f32 = 0.9;
/// Least number of voxels that make a place.
const FEW_VOXELS: usize = 8;
/// Most embeddings of words that are kept.
const MOST_KEPT: usize = 4096;

/// Saved features and their opened text encoder, which is not loaded yet.
pub(super) struct OpenAsker {
    saved: Saved,
    features: PathBuf,
    text: OpenText,
}

/// Saved features of a scan, and the text encoder that they are compared with. It answers any number of
/// questions, and embeds every word once.
pub struct Asker {
    saved: Saved,
    features: PathBuf,
    encoder: TextModel,
    /// `[1, C]` of each label that was asked for.
    rows: HashMap<String, Tensor<2>>,
}

/// What the voxels of a scan say about a question.
#[derive(Clone, Debug)]
pub struct VoxelAnswer {
    /// The question, with single spaces between words.
    pub question: String,
    /// False if the model never met a word of the question in training, so that the answer means little.
    pub known: bool,
    /// Words with which the question competed: those of the labelling and the background, without those of
    /// the same meaning.
    pub competing: Vec<String>,
    /// True if the voxels that were found are nearer to the question than to every competing word. False if
    /// none is, or if a level was given: they are then the most similar ones.
    pub nearest: bool,
    /// Least cosine of a voxel that was found.
    pub level: f32,
    /// `[V]`: cosine with the question.
    pub score: Vec<f32>,
    /// `[V]`: true for the voxels that were found.
    pub found: Vec<bool>,
    /// Notes for the user.
    pub notes: Vec<String>,
}

/// New labels of a scan's voxels.
#[derive(Clone, Debug)]
pub struct VoxelLabels {
    /// Label, score and margin of every voxel.
    pub of_voxel: Predictions,
    /// For each label: false if the model never met the word in training.
    pub known: Vec<bool>,
    /// Notes for the user.
    pub notes: Vec<String>,
}

impl OpenAsker {
    /// Opens the text encoder of the features that were saved in `folder`.
    pub(super) fn open(networks: &Networks, folder: &Path, saved: Saved) -> Result<Self, SessionError> {
        let mut networks = networks.clone();
        let about = &saved.about;
        let text = [Network::Clip, Network::LSeg].into_iter().find(|network| about.text == network.name());
        let text = text.unwrap_or(Network::XDecoder);
        let choice = networks.choice_mut(text);
        if choice.weights.is_none() {
            choice.weights = Some(PathBuf::from(&about.weights));
            choice.config = choice.config.take().or_else(|| about.config.clone());
        }
        let text = OpenText::open(&networks, text, saved.num_channels)?;
        Ok(Self { saved, features: folder.join(FILE_NAME), text })
    }

    /// Loads the encoder. Compares its weights with those that the features were made with.
    ///
    /// # Errors
    /// [`SessionError::OtherWeights`], and errors of loading.
    pub(super) fn load(self, device: &Device) -> Result<Asker, SessionError> {
        let Self { saved, features, text } = self;
        let about = &saved.about;
        // For the same file that the run used, comparing the length is enough. Another file must be hashed.
        let origin = text.origin().clone();
        let is_same_source = origin.source == about.weights && origin.bytes == about.weights_bytes;
        let (encoder, is_same) = std::thread::scope(|threads| {
            let is_same =
                threads.spawn(|| Ok::<_, SessionError>(is_same_source || origin.sha256()? == about.weights_sha256));
            let encoder = text.load(device);
            (encoder, is_same.join().unwrap_or(Err(SessionError::Thread)))
        });
        let encoder = encoder?;
        if !is_same? {
            let (made_with, sha256) = (saved.about.weights, saved.about.weights_sha256);
            return Err(SessionError::OtherWeights { features, made_with, sha256, given: origin.source });
        }
        Ok(Asker { saved, features, encoder, rows: HashMap::new() })
    }
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

impl Asker {
    /// The saved features, with the scan they belong to.
    #[must_use]
    pub fn saved(&self) -> &Saved {
        &self.saved
    }

    /// Compares all voxels with `question`. Voxels with a cosine of at least `level` count as found; the default is what
    /// is nearer to the question than to the words of the labelling and the background.
    ///
    /// # Errors
    /// [`SessionError::NoQuestion`], [`SessionError::OtherChannels`], [`SessionError::Op`].
    pub fn ask(&mut self, question: &str, level: Option<f32>) -> Result<VoxelAnswer, SessionError> {
        let question = single_spaced(question);
        if question.is_empty() {
            return Err(SessionError::NoQuestion);
        }
        let notes = Vec::from_iter(note_of_unknown(&self.encoder, std::slice::from_ref(&question)));
        let (text, competing) = self.embed_with_others(&question)?;
        let comparison = compare(&self.saved.features, &text)?;
        let Found { is_found: found, level, nearest } = Found::new(&comparison, level);
        let known = notes.is_empty();
        Ok(VoxelAnswer { question, known, competing, nearest, level, score: comparison.score, found, notes })
    }

    /// Labels all voxels by other words.
    ///
    /// # Errors
    /// [`SessionError::NoQuestion`] without words, [`SessionError::OtherChannels`], [`SessionError::Op`].
    pub fn label(&mut self, words: &Words) -> Result<VoxelLabels, SessionError> {
        if words.labels.is_empty() {
            return Err(SessionError::NoQuestion);
        }
        let all = words.all();
        let text = Tensor::cat(self.embed(&all)?, 0);
        let of_voxel = predict(&self.saved.features, &text, words.labels.len(), None)?;
        let unknown = self.encoder.unknown_words(&words.labels);
        let known = words.labels.iter().map(|word| !unknown.contains(&word.as_str())).collect();
        Ok(VoxelLabels { of_voxel, known, notes: Vec::from_iter(note_of_unknown(&self.encoder, &words.labels)) })
    }

    /// Embeds words, one row `[1, C]` for each.
    fn embed(&mut self, words: &[String]) -> Result<Vec<Tensor<2>>, SessionError> {
        let labels: Vec<String> = words.iter().map(|word| self.encoder.prompt(word)).collect();
        if self.rows.len() + labels.len() > MOST_KEPT {
            self.rows.clear();
        }
        let mut missing: Vec<String> = Vec::new();
        for label in &labels {
            if !self.rows.contains_key(label) && !missing.contains(label) {
                missing.push(label.clone());
            }
        }
        for labels in missing.chunks(LABELS_AT_ONCE) {
            let rows = self.encoder.embed_labels(labels)?;
            let [_, words] = rows.dims();
            let found = self.saved.num_channels;
            if words != found {
                return Err(SessionError::OtherChannels { features: self.features.clone(), found, words });
            }
            for (row, label) in labels.iter().enumerate() {
                self.rows.insert(label.clone(), rows.clone().slice_dim(0, row..row + 1));
            }
        }
        Ok(labels.iter().filter_map(|label| self.rows.get(label).cloned()).collect())
    }

    /// Embeds a question and the words that compete with it, in this order. Returns these words too.
    fn embed_with_others(&mut self, question: &str) -> Result<(Tensor<2>, Vec<String>), SessionError> {
        let usual = Words::new([question]).background;
        let mut others: Vec<String> = Vec::new();
        for word in self.saved.about.words.iter().chain(&usual) {
            // A question may be a word of the labelling, or say more: "red sofa".
            let is_within = word.split_whitespace().all(|part| question.split_whitespace().any(|own| own == part));
            if !is_within && !others.contains(word) {
                others.push(word.clone());
            }
        }
        let others: Vec<String> = {
            let unknown = self.encoder.unknown_words(&others);
            others.iter().filter(|word| !unknown.contains(&word.as_str())).cloned().collect()
        };
        let asked: Vec<String> = std::iter::once(question.to_owned()).chain(others.iter().cloned()).collect();
        let rows = self.embed(&asked)?;
        let values = float_values(Tensor::cat(rows.clone(), 0))?;
        let num_channels = self.saved.num_channels;
        let (own, _) = values.split_at(num_channels.min(values.len()));
        let cosine = |row: &[f32]| row.iter().zip(own).map(|(a, b)| a * b).sum::<f32>();
        let cosines: Vec<f32> = values.chunks_exact(num_channels).map(cosine).collect();
        let kept: Vec<usize> = (0..rows.len()).filter(|&row| row == 0 || cosines[row] < SAME_MEANING).collect();
        let competing = kept[1..].iter().map(|&row| others[row - 1].clone()).collect();
        Ok((Tensor::cat(kept.iter().map(|&row| rows[row].clone()).collect(), 0), competing))
    }
}

/// The words of a text with single spaces between them.
pub(super) fn single_spaced(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
