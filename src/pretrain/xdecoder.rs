//! Native training of a small X-Decoder that labels pictures of rooms by words.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::prelude::*;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::augment::{Example, augment, segments};
use super::criterion::{Assignment, Segments, Weights, cell_criterion, criterion};
use super::error::{PretrainError, check_setting};
use super::figures::{add_ious, add_means};
use super::rooms::{Labelled, LabelledView, ScanViews, find_rooms, recorded_views, scan_views};
use super::run::{Factors, LoopSettings, Loss, StepContext, Task, config_text, settings_over, settings_text};
use super::view_pool::ViewPool;
use super::words::{CLASSES, class_of, draw_prompts, tokens, usual_prompts};
use crate::eval::metrics::Confusion;
use crate::images::draw::{LegendEntry, contact_sheet, overlay, palette};
use crate::images::{Rgb8Image, write_png};
use crate::labels::Preset;
use crate::labels::{classes_from_nyu40, nyu40_from_class};
use crate::lift::{Padding, View};
use crate::models::ModelError;
use crate::models::xdecoder::prompts::TEMPLATES;
use crate::models::xdecoder::{XDecoder, XDecoderConfig, initial_weights};
use crate::ops::conv2d::Precision;
use crate::ops::float_values;
use crate::ops::matmul::{Form, matmul};
use crate::ops::normalize_rows;
use crate::random::SplitMix64;
use crate::weights::{Dtype, HostTensor, StateDict, TensorSource as _};

/// File in a run's folder with pictures of the last validation, their labels and the truth.
pub const PREVIEW_FILE: &str = "preview.png";
/// Folder in a run's folder for the drawn views of scans.
const SCAN_VIEWS: &str = "scan-views";
/// Least number of pixels of a segment.
const FEWEST_PIXELS: usize = 30;
/// Number of pictures of each kind in the preview.
const PREVIEWED: usize = 3;
/// Opacity of the labels in the preview.
const OPACITY: f32 = 0.65;
/// Streams of random numbers: the choice of pictures, their changes, the words, and the initial cell weights.
const PICTURES: u64 = 1;
const CHANGES: u64 = 2;
const WORDS: u64 = 3;
const CELL_WEIGHTS: u64 = 4;
/// Matrix from mask features to the space of the text, `[mask_dim, dim_proj]`. Inference does not use it.
const CELL_EMBED: &str = "criterion.cell_embed";

/// Settings for training X-Decoder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct XDecoderSettings {
    /// Number of pictures in a step.
    pub batch: usize,
    /// Width and height of the pictures for the model.
    pub size: [usize; 2],
    /// Least and largest enlargement of a picture, relative to the size that fits.
    pub zoom: [f64; 2],
    /// Share of the steps, from the first on, in which each segment belongs to the query with its class's
    /// number. Afterwards matching decides. While masks are blunt, matching gives a class now to this query,
    /// now to that, and undoes what was learned.
    pub by_class_share: f64,
    /// Number of templates in a step. A class is the mean of its prompts in them.
    pub templates: usize,
    /// Share of pictures that are views of scans.
    pub scan_share: f64,
    /// Share of views below which a class counts as rare and is drawn more often, see [`ViewPool`]. Recorded
    /// views and views of scans are counted separately.
    pub rare_below: f64,
    /// Largest number of views of a scan.
    pub scan_views: usize,
    /// Width and height of views of scans.
    pub scan_size: [usize; 2],
    /// Number of pictures to validate on. Half of them are views of scans.
    pub validate_on: usize,
    /// Settings of the training loop.
    pub training: LoopSettings,
    /// Configuration of the model: widths and depths.
    pub model: XDecoderConfig,
}

impl Default for XDecoderSettings {
    fn default() -> Self {
        Self {
            batch: 8,
            size: [160, 128],
            zoom: [0.85, 1.7],
            by_class_share: 0.85,
            templates: 4,
            scan_share: 0.4,
            rare_below: 0.25,
            scan_views: 30,
            scan_size: [400, 300],
            validate_on: 60,
            training: LoopSettings { steps: 6500, learning_rate: 2e-3, warmup: 200, ..LoopSettings::default() },
            model: XDecoderConfig::small(),
        }
    }
}

impl XDecoderSettings {
    /// Reads settings from TOML. Settings that the text leaves out keep their defaults, in tables too.
    ///
    /// # Errors
    /// [`PretrainError::Config`].
    pub fn parse(text: &str) -> Result<Self, PretrainError> {
        settings_over(&Self::default(), text)
    }

    /// Checks that the settings make sense.
    ///
    /// # Errors
    /// [`PretrainError::Setting`], and [`ModelError::Config`] for the model's configuration.
    pub fn validate(&self) -> Result<(), PretrainError> {
        self.training.validate()?;
        self.model.validate().map_err(ModelError::from)?;
        let is_share = |share: f64| (0.0..=1.0).contains(&share);
        let divisor = self.model.size_divisibility;
        let is_size = self.size.iter().all(|&side| (1..=4096).contains(&side) && side.is_multiple_of(divisor));
        let [least, most] = self.zoom;
        let is_zoom = least >= 0.05 && most >= least && most <= 20.0;
        let is_scan_size = self.scan_size.iter().all(|side| (16..=4096).contains(side));
        let num_queries = self.model.decoder.num_queries;
        check_setting(
            "size",
            is_size,
            &format!("{:?}", self.size),
            "multiples of the model's size_divisibility, to 4096",
        )?;
        check_setting("batch", (1..=1024).contains(&self.batch), &self.batch, "1 to 1024")?;
        check_setting("templates", (1..=TEMPLATES.len()).contains(&self.templates), &self.templates, "1 to 81")?;
        check_setting("scan_share", is_share(self.scan_share), &self.scan_share, "0 to 1")?;
        check_setting("by_class_share", is_share(self.by_class_share), &self.by_class_share, "0 to 1")?;
        check_setting("rare_below", is_share(self.rare_below), &self.rare_below, "0 to 1")?;
        check_setting("zoom", is_zoom, &format!("{:?}", self.zoom), "two factors in ascending order, 0.05 to 20")?;
        check_setting("scan_size", is_scan_size, &format!("{:?}", self.scan_size), "16 to 4096")?;
        check_setting("decoder.num_queries", num_queries > CLASSES.len(), &num_queries, "more than classes")
    }
}

/// Training task for X-Decoder, see [`train`](super::run::train).
#[derive(Debug)]
pub struct XDecoderTask {
    settings: XDecoderSettings,
    recorded: ViewPool,
    scans: ViewPool,
    validation: Vec<LabelledView>,
    /// Number of recorded pictures at the front of `validation`.
    num_recorded: usize,
    device: Device,
}

impl XDecoderTask {
    /// Lists the rooms in `rooms/train` and `rooms/val`, and draws the missing views of their scans below
    /// `run`. `device` draws and validates. `progress` is called after every room.
    ///
    /// # Errors
    /// [`PretrainError`] if settings or rooms are invalid, or if drawing fails.
    pub fn new(
        settings: XDecoderSettings,
        rooms: &Path,
        run: &Path,
        device: &Device,
        progress: &mut dyn FnMut(f64),
    ) -> Result<Self, PretrainError> {
        settings.validate()?;
        let device = device.clone().without_autodiff();
        let asked = ScanViews { most: settings.scan_views, size: settings.scan_size };
        let [train, val] = ["train", "val"].map(|split| find_rooms(rooms, split));
        let splits: [(&str, Vec<PathBuf>); 2] = [("train", train?), ("val", val?)];
        let num_rooms = splits.iter().map(|(_, rooms)| rooms.len()).sum::<usize>();
        let mut done = 0;
        let mut found = Vec::new();
        for (split, rooms) in &splits {
            let (mut recorded, mut scans) = (Vec::new(), Vec::new());
            for room in rooms {
                recorded.extend(recorded_views(room)?);
                if settings.scan_share > 0.0 {
                    scans.extend(scan_views(room, &run.join(SCAN_VIEWS).join(split), asked, &device)?);
                }
                done += 1;
                progress(f64::from(done) / num_rooms as f64);
            }
            found.push((recorded, scans));
        }
        let (val_recorded, val_scans) = found.pop().unwrap_or_default();
        let (recorded, scans) = found.pop().unwrap_or_default();
        let half = settings.validate_on.div_ceil(2);
        let mut validation = spread(&val_recorded, half);
        let num_recorded = validation.len();
        validation.extend(spread(&val_scans, half));
        let [recorded, scans] = [recorded, scans].map(|views| ViewPool::new(views, settings.rare_below));
        Ok(Self { recorded: recorded?, scans: scans?, settings, validation, num_recorded, device })
    }

    /// Returns the numbers of pictures to learn from: recorded ones, and views of scans.
    #[must_use]
    pub fn num_views(&self) -> [usize; 2] {
        [self.recorded.len(), self.scans.len()]
    }

    /// Returns the shape of the matrix that takes mask features to the space of the text. Only training uses
    /// it.
    fn cell_embed_shape(&self) -> [usize; 2] {
        [self.settings.model.pixel_decoder.mask_dim, self.settings.model.dim_proj]
    }

    /// Returns one row of unit length for each class: the mean of its rows in all templates.
    fn mean_rows(&self, rows: Tensor<2>) -> Tensor<2> {
        let [_, dim] = rows.dims();
        let mean: Tensor<2> =
            rows.reshape([self.settings.templates, CLASSES.len() + 1, dim]).mean_dim(0).squeeze_dim(0);
        let norm = mean.clone().powi_scalar(2).sum_dim(1).sqrt();
        mean / (norm + 1e-7)
    }

    /// Returns the pictures of a step with their segments.
    fn batch(&self, context: &StepContext<'_>) -> Result<(Vec<f32>, Vec<Segments>), PretrainError> {
        let size = self.settings.size;
        let examples = (0..self.settings.batch as u64).into_par_iter().map(|i| {
            let mut choice = context.random(&[PICTURES, i]);
            let of_scan = choice.unit() < self.settings.scan_share && !self.scans.is_empty();
            let views = if of_scan { &self.scans } else { &self.recorded };
            let Some(view) = views.draw(&mut choice) else {
                return Err(PretrainError::Config("no view to learn from".to_owned()));
            };
            let picture = view.read()?;
            Ok(augment(&picture, size, self.settings.zoom, &mut context.random(&[CHANGES, i])))
        });
        let examples: Vec<Example> = examples.collect::<Result<_, PretrainError>>()?;
        let segments = examples.iter().map(|example| segments(&example.labels, size, FEWEST_PIXELS, class_of));
        let segments = segments.collect();
        Ok((examples.into_iter().flat_map(|example| example.pixels).collect(), segments))
    }
}

/// Shifts the text encoder's last norm so that the mean of all prompts is 0. Before training, all prompts are
/// nearly the same: their cosines are 0.98. With these, no class is distinguished from another for thousands
/// of steps.
fn center_texts(weights: &mut StateDict, config: &XDecoderConfig, device: &Device) -> Result<(), PretrainError> {
    const BIAS: &str = "ln_final.bias";
    let encoder = XDecoder::load_text_encoder(&mut weights.clone(), config, Precision::F32, device)?;
    let (mut sum, mut count) = (vec![0.0_f64; config.text.width], 0.0);
    let mut failed = None;
    let texts = usual_prompts();
    encoder.embed_prompts(&texts, &mut |name, hidden| {
        if name != "hidden" {
            return;
        }
        let [num_texts, length, width] = hidden.dims();
        match float_values(hidden.clone().slice([0..num_texts, length - 1..length, 0..width])) {
            Ok(rows) => {
                rows.chunks_exact(width).for_each(|row| sum.iter_mut().zip(row).for_each(|(s, x)| *s += f64::from(*x)));
                count += num_texts as f64;
            }
            Err(error) => failed = Some(error),
        }
    })?;
    if let Some(error) = failed {
        return Err(error.into());
    }
    for (_, bias) in weights.tensors.iter_mut().filter(|(key, _)| key.ends_with(BIAS)) {
        bias.data.iter_mut().zip(&sum).for_each(|(bias, sum)| *bias -= (sum / count) as f32);
    }
    Ok(())
}

/// Returns the mean cosine between different `rows` of unit length. It is near 1 if words are not
/// distinguished.
fn mean_cosine(rows: Tensor<2>) -> Result<f64, PretrainError> {
    let [num_rows, _] = rows.dims();
    let cosines = matmul(rows.clone(), rows, Form::RightTransposed)?;
    let sum = float_values(cosines.sum())?.first().copied().unwrap_or_default();
    Ok((f64::from(sum) - num_rows as f64) / (num_rows * num_rows.saturating_sub(1)).max(1) as f64)
}

/// Returns `count` of `views`, spread over all of them.
fn spread(views: &[LabelledView], count: usize) -> Vec<LabelledView> {
    let count = count.min(views.len());
    (0..count).map(|i| views[i * views.len() / count].clone()).collect()
}

impl Task for XDecoderTask {
    fn name(&self) -> &'static str {
        "xdecoder"
    }

    fn settings(&self) -> Result<String, PretrainError> {
        settings_text(&self.settings)
    }

    fn model_config(&self) -> Result<String, PretrainError> {
        config_text(&self.settings.model)
    }

    fn initial(&self, seed: u64) -> Result<StateDict, PretrainError> {
        let config = &self.settings.model;
        let mut weights = initial_weights(config, seed, &tokens(config.text.context_length));
        let shape = self.cell_embed_shape();
        let spread = (3.0 / shape[0] as f64).sqrt();
        let mut random = SplitMix64::stream(seed, &[CELL_WEIGHTS]);
        let data = (0..shape[0] * shape[1]).map(|_| (spread * (2.0 * random.unit() - 1.0)) as f32).collect();
        let tensor = HostTensor { shape: shape.to_vec(), dtype_in_file: Dtype::F32, data };
        weights.tensors.insert(CELL_EMBED.to_owned(), tensor);
        center_texts(&mut weights, config, &self.device)?;
        Ok(weights)
    }

    fn loss(&mut self, context: StepContext<'_>) -> Result<Loss, PretrainError> {
        let (pixels, segments) = self.batch(&context)?;
        let prompts = draw_prompts(self.settings.templates, &mut context.random(&[WORDS]));
        let [width, height] = self.settings.size;
        let is_young = (context.step as f64) < self.settings.by_class_share * context.num_steps as f64;
        let assignment = if is_young { Assignment::ByClass } else { Assignment::Matched };
        let parameters = context.parameters;
        let device = parameters.device().clone();
        let (model, _) = XDecoder::load(&mut *parameters, self.settings.model.clone(), Precision::F32, &device)?;
        let text = self.mean_rows(model.text_encoder.embed_texts_tracked(&prompts)?);
        let text_cosine = mean_cosine(text.clone().inner())?;
        let images = model.prepare(&pixels, [height, width])?;
        let scale = model.text_encoder.logit_scale_tracked();
        let (heads, mask_features) = model.forward_train(images, text.clone(), scale.clone())?;
        let weights = Weights { assignment, ..Weights::default() };
        let (of_heads, mut parts) = criterion(&heads, &segments, weights)?;

        let shape = self.cell_embed_shape();
        let Some(embed) = parameters.parameter(CELL_EMBED, &shape)? else {
            return Err(PretrainError::Config(format!("no parameter {CELL_EMBED}")));
        };
        let [batch, rows, columns, dim] = mask_features.dims();
        let features = mask_features.reshape([batch * rows * columns, dim]);
        let classes = normalize_rows(matmul(features, embed.reshape(shape), Form::Plain)?) * scale.reshape([1, 1]);
        let logits = matmul(classes, text.narrow(0, 0, CLASSES.len()), Form::RightTransposed)?;
        let logits = logits.reshape([batch, rows * columns, CLASSES.len()]);
        let (of_cells, of_cell) = cell_criterion(logits, &segments, weights)?;
        parts.extend(of_cell);
        parts.insert("text_cosine".to_owned(), text_cosine);
        Ok(Loss { total: of_heads + of_cells, parts })
    }

    fn factors(&self, key: &str, shape: &[usize]) -> Factors {
        // Rows of a table are looked up by number. Decay would shrink them for nothing.
        let is_table =
            ["embedding", "embedding.weight", "query_feat.weight", "query_embed.weight", "level_embed.weight"]
                .iter()
                .any(|end| key.ends_with(end));
        // Words are few and far simpler than pictures. Pictures learn classes only once words differ.
        let learning_rate = if key.contains("lang_encoder") { 2.0 } else { 1.0 };
        Factors { learning_rate, weight_decay: if shape.len() > 1 && !is_table { 1.0 } else { 0.0 } }
    }

    fn validate(
        &mut self,
        mut weights: StateDict,
        step: u64,
        folder: &Path,
    ) -> Result<BTreeMap<String, f64>, PretrainError> {
        let preset = Preset::SCANNET20;
        let (model, _) = XDecoder::load(&mut weights, self.settings.model.clone(), Precision::F32, &self.device)?;
        let text = model.embed_text(&preset.words())?;
        let nyu40 = nyu40_from_class(&preset).unwrap_or_default();
        let num_classes = preset.labels.len();
        let mut counts = [Confusion::new(num_classes)?, Confusion::new(num_classes)?];
        let mut rows = Vec::new();
        let colors = preset.colors.map_or_else(|| palette(num_classes), <[[u8; 3]]>::to_vec);
        for (i, view) in self.validation.iter().enumerate() {
            let longest = self.settings.model.image_size.unwrap_or_default() as usize;
            let Labelled { image, labels } = view.read()?.fitted(longest)?;
            let size = [image.height(), image.width()];
            let pixels: Vec<f32> = image.pixels().as_flattened().iter().map(|&value| f32::from(value)).collect();
            let queries = model.forward(model.prepare(&pixels, size)?, &text)?;
            let view = View::new(&queries, 0, &text, size, Padding::Cropped)
                .map_err(|error| PretrainError::Rooms { path: view.colors.clone(), message: error.to_string() })?;
            let found = view.label_from_pixel()?;
            let mut truth: Vec<i64> = labels.iter().map(|&label| i64::from(label)).collect();
            classes_from_nyu40(&mut truth, &nyu40, -1);
            let truth: Vec<i32> = truth.into_iter().map(|label| label as i32).collect();
            let is_scan = i >= self.num_recorded;
            counts[usize::from(is_scan)].add(&truth, &found, &[-1])?;
            let (first, len) = if is_scan {
                (self.num_recorded, self.validation.len() - self.num_recorded)
            } else {
                (0, self.num_recorded)
            };
            if (0..PREVIEWED).any(|k| i == first + (2 * k + 1) * len / (2 * PREVIEWED)) {
                let tinted = |labels: &[i32]| overlay(&image, labels, &colors, OPACITY);
                let row: [Rgb8Image; 3] = [image.clone(), tinted(&truth)?, tinted(&found)?];
                rows.push(row.to_vec());
            }
        }
        let mut all = counts[0].clone();
        all.merge(&counts[1])?;
        let mut figures = BTreeMap::new();
        for (name, counts) in [("", &all), ("_recorded", &counts[0]), ("_scans", &counts[1])] {
            add_means(&mut figures, name, counts)?;
        }
        add_ious(&mut figures, preset.labels, &all);
        if !rows.is_empty() {
            let legend = preset.labels.iter().zip(&colors).zip(all.classes()).filter(|(_, class)| class.union > 0);
            let total: u64 = all.counts().iter().sum();
            let entry = |((label, color), class): ((&&str, &[u8; 3]), crate::eval::metrics::ClassCounts)| LegendEntry {
                color: Some(*color),
                text: (*label).to_owned(),
                share: class.target as f64 / total.max(1) as f64,
            };
            let legend: Vec<LegendEntry> = legend.map(entry).collect();
            let miou = figures.get("val_miou").copied().unwrap_or_default();
            let caption = format!("step {step}, mean IoU {miou:.3}");
            let drawn = contact_sheet(&rows, &["picture", "truth", "found"], &legend, &caption)?;
            write_png(&folder.join(PREVIEW_FILE), &drawn)?;
        }
        Ok(figures)
    }

    fn main_figure(&self) -> &'static str {
        "val_miou"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_demos_model_runs_and_settings_are_read_back() {
        let settings = XDecoderSettings::default();
        settings.validate().unwrap();
        let text = toml::to_string(&settings).unwrap();
        assert_eq!(XDecoderSettings::parse(&text).unwrap(), settings);
        let other = XDecoderSettings::parse("batch = 2\n[training]\nsteps = 7\n").unwrap();
        assert_eq!((other.batch, other.training.steps, other.training.seed), (2, 7, 0));
        assert!(XDecoderSettings::parse("batches = 2").is_err());
        assert!(XDecoderSettings { size: [250, 192], ..settings }.validate().is_err());
    }

    #[test]
    fn views_are_spread_over_all() {
        let view = |i: usize| LabelledView { colors: i.to_string().into(), labels: PathBuf::new() };
        let views: Vec<LabelledView> = (0..10).map(view).collect();
        assert_eq!(spread(&views, 2), [view(0), view(5)]);
        assert_eq!(spread(&views, 20).len(), 10);
    }
}
