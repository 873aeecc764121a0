//! Labelling the pixels of pictures.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::SessionError;
use super::image_model::{ImageModelKind, LoadedImageModel, OpenImageModel};
use super::labeller::{embed_words, note_of_unknown};
use super::networks::Networks;
use super::source::ViewSettings;
use crate::gpu::Selected;
use crate::images::draw::{Style, labelled_picture};
use crate::images::resize::{fitted, resize_bicubic};
use crate::images::{Orientation, Rgb8Image, read_image, write_picture};
use crate::lift::View;
use crate::models::xdecoder::{Queries, TextEmbeddings};
use crate::ops::float_values;
use crate::pipeline::{Compat, DensePicture, PictureView, SeenPictures};
use crate::stages::StageTimer;
use crate::weights::{Dtype, SafetensorsWriter, TensorSpec};

/// Pictures alone have no published code to follow.
const COMPAT: Compat = Compat::Fixed;

/// Options for labelling pictures.
#[derive(Clone, Debug, PartialEq)]
pub struct PictureOptions {
    /// Model that sees the pictures.
    pub image_model: ImageModelKind,
    /// Longer edge, in pixels, at which the model sees pictures; 0 keeps their size. `None` is the edge that
    /// suits the model.
    pub longest: Option<usize>,
    /// Style of the labelled pictures.
    pub style: Style,
    /// Memory for the model's temporary values, in bytes. Pictures of one size go through the model together
    /// as far as it allows.
    pub working_bytes: u64,
}

/// A picture and the files of its results.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PictureFiles {
    /// The picture.
    pub picture: PathBuf,
    /// File for the labelled picture: PNG, or JPEG if its name says so.
    pub output: PathBuf,
    /// File for what the model says (safetensors): of X-Decoder the masks, embeddings and logits of the queries, and
    /// the query of each pixel; of LSeg the features of the pixels, at the size at which it gives them.
    pub features: Option<PathBuf>,
}

/// Labels found in a picture.
#[derive(Clone, Debug, PartialEq)]
pub struct SegmentedPicture {
    /// The picture.
    pub picture: PathBuf,
    /// File of the labelled picture.
    pub output: PathBuf,
    /// Height and width of the picture.
    pub size: [usize; 2],
    /// Height and width at which the model saw it.
    pub seen_size: [usize; 2],
    /// Share of the pixels, for each word.
    pub shares: Vec<f64>,
}

impl SegmentedPicture {
    /// Share of the pixels without a label.
    #[must_use]
    pub fn unlabelled(&self) -> f64 {
        (1.0 - self.shares.iter().sum::<f64>()).max(0.0)
    }
}

/// Image model and embedded words. Labels any number of pictures.
pub struct Segmenter {
    model: LoadedImageModel,
    text: TextEmbeddings,
    options: PictureOptions,
    /// Longer edge at which the model sees pictures; 0 keeps their size.
    longest: usize,
    /// Words that the model never met in training.
    pub unknown: Vec<String>,
    /// Notes about the words, for the user.
    pub notes: Vec<String>,
}

/// A picture in full, and at the size that the model sees.
struct Picture<'a> {
    files: &'a PictureFiles,
    whole: Rgb8Image,
    seen_size: [usize; 2],
    seen: Vec<f32>,
}

impl Segmenter {
    pub(super) fn load(
        selected: &Selected,
        networks: &Networks,
        words: &[String],
        options: PictureOptions,
        timer: &mut StageTimer<'_>,
    ) -> Result<Self, SessionError> {
        let kind = options.image_model;
        let mut opened = OpenImageModel::open(&networks.with_demo(&[kind.network()]), kind)?;
        let (model, text_model) = opened.load(&selected.device)?;
        timer.lap("load the weights");
        let notes = Vec::from_iter(note_of_unknown(&text_model, words));
        let unknown = text_model.unknown_words(words).into_iter().map(str::to_owned).collect();
        let text = embed_words(&text_model, words, timer)?;
        timer.lap("embed the words");
        let usual = || opened.views(&ViewSettings::default()).size() as usize;
        let longest = options.longest.unwrap_or_else(usual);
        Ok(Self { model, text, options, longest, unknown, notes })
    }

    /// Labels `pictures` and writes their results. Calls `on_unreadable` with the error of each picture that
    /// cannot be read or is too large, and labels the others.
    ///
    /// # Errors
    /// [`SessionError::Seeing`] if the device fails, and errors of writing.
    pub fn segment(
        &self,
        pictures: &[PictureFiles],
        timer: &mut StageTimer<'_>,
        on_unreadable: &mut dyn FnMut(SessionError),
    ) -> Result<Vec<SegmentedPicture>, SessionError> {
        let mut results = Vec::with_capacity(pictures.len());
        let mut batch: Vec<Picture<'_>> = Vec::new();
        for files in pictures {
            let picture = match self.read(files) {
                Ok(picture) => picture,
                Err(error) => {
                    on_unreadable(error);
                    continue;
                }
            };
            timer.lap("read");
            if batch.first().is_some_and(|first| first.seen_size != picture.seen_size) {
                results.extend(self.see(std::mem::take(&mut batch), timer)?);
            }
            let views = self.model.model().views_in(self.options.working_bytes, picture.seen_size, COMPAT);
            batch.push(picture);
            if batch.len() >= views {
                results.extend(self.see(std::mem::take(&mut batch), timer)?);
            }
        }
        results.extend(self.see(batch, timer)?);
        Ok(results)
    }

    fn read<'a>(&self, files: &'a PictureFiles) -> Result<Picture<'a>, SessionError> {
        let whole = read_image(&files.picture, Orientation::Upright)?;
        let seen_size = fitted([whole.height(), whole.width()], self.longest);
        let bytes = self.model.model().view_bytes(seen_size, COMPAT);
        if bytes > self.options.working_bytes {
            return Err(SessionError::PictureTooLarge { path: files.picture.clone(), size: seen_size, bytes });
        }
        let seen = resize_bicubic(&whole, seen_size[1], seen_size[0])?;
        let seen = seen.pixels().as_flattened().iter().map(|&value| value.into()).collect();
        Ok(Picture { files, whole, seen_size, seen })
    }

    /// Runs pictures of one size through the model, then draws and writes each result.
    fn see(
        &self,
        pictures: Vec<Picture<'_>>,
        timer: &mut StageTimer<'_>,
    ) -> Result<Vec<SegmentedPicture>, SessionError> {
        let Some(seen_size) = pictures.first().map(|picture| picture.seen_size) else { return Ok(Vec::new()) };
        let Self { model, text, options, unknown, .. } = self;
        let title = |word: &String| if unknown.contains(word) { format!("{word} (unknown)") } else { word.clone() };
        let titles: Vec<String> = text.labels.iter().map(title).collect();
        let images = pictures.iter().flat_map(|picture| &picture.seen).copied().collect::<Vec<_>>();
        let seen = model.model().see(&images, seen_size, text, COMPAT).map_err(SessionError::Seeing)?;
        seen.wait().map_err(SessionError::Seeing)?;
        timer.lap("see");
        let mut found = Vec::with_capacity(pictures.len());
        for (index, Picture { files, whole, .. }) in pictures.into_iter().enumerate() {
            let view = seen.view(index, text, seen_size, COMPAT)?;
            let labels = view.label_from_pixel(text)?;
            let size = [whole.height(), whole.width()];
            let drawn = labelled_picture(&whole, &enlarged(&labels, seen_size, size), &titles, &options.style)?;
            let PictureFiles { picture, output, features } = files.clone();
            write_picture(&output, &drawn)?;
            if let Some(path) = features {
                if let (SeenPictures::Queries(queries), PictureView::Queries(view)) = (&seen, &view) {
                    write_queries(&path, queries, index, text, view)?;
                } else if let PictureView::Dense(picture) = &view {
                    write_dense(&path, picture, text)?;
                }
            }
            let mut counts = vec![0usize; text.labels.len()];
            labels.iter().filter_map(|&label| usize::try_from(label).ok()).for_each(|label| counts[label] += 1);
            let shares = counts.iter().map(|&count| count as f64 / labels.len() as f64).collect();
            found.push(SegmentedPicture { picture, output, size, seen_size, shares });
        }
        timer.lap("draw and write");
        Ok(found)
    }
}

/// Scales labels of `size` to another size. Each pixel takes the nearest label.
fn enlarged(labels: &[i32], size: [usize; 2], to: [usize; 2]) -> Vec<i32> {
    let nearest = |i: usize, axis: usize| (2 * i + 1) * size[axis] / (2 * to[axis]);
    let row = |y: usize| (0..to[1]).map(move |x| labels[nearest(y, 0) * size[1] + nearest(x, 1)]);
    (0..to[0]).flat_map(row).collect()
}

/// Writes the features of a picture's pixels in 16 bits, and the embeddings of the words.
fn write_dense(path: &Path, picture: &DensePicture, text: &TextEmbeddings) -> Result<(), SessionError> {
    let view = picture.view();
    let ([rows, columns], dim) = (view.grid, view.num_channels());
    let [num_words, words_dim] = text.rows.dims();
    let specs = [
        TensorSpec::new("features", Dtype::F16, [rows, columns, dim]),
        TensorSpec::new("text_embed", Dtype::F32, [num_words, words_dim]),
    ];
    let about =
        "features are of a grid whose corners are the corner pixels of the picture; the last text is the background";
    let metadata =
        [("words", text.labels.join(", ")), ("logit_scale", text.logit_scale.to_string()), ("about", about.to_owned())];
    let metadata: BTreeMap<_, _> = metadata.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    let mut file = SafetensorsWriter::create(path, &specs, &metadata)?;
    file.write_f32(view.values)?;
    file.write_f32(&float_values(text.rows.clone())?)?;
    file.finish()?;
    Ok(())
}

fn write_queries(
    path: &Path,
    queries: &Queries,
    index: usize,
    text: &TextEmbeddings,
    view: &View,
) -> Result<(), SessionError> {
    let [_, num_queries, _, _] = queries.pred_masks.dims();
    let cells = view.size().map(|pixels| pixels.div_ceil(4));
    let of_image = index..index + 1;
    let masks = queries.pred_masks.clone().slice([of_image.clone(), 0..num_queries, 0..cells[0], 0..cells[1]]);
    let [_, _, num_logits] = queries.pred_logits.dims();
    let [_, _, dim] = queries.mask_embed.dims();
    let f32_of = |name: &str, shape: &[usize]| TensorSpec::new(name, Dtype::F32, shape);
    let specs = [
        f32_of("pred_masks", &[num_queries, cells[0], cells[1]]),
        f32_of("mask_embed", &[num_queries, dim]),
        f32_of("pred_logits", &[num_queries, num_logits]),
        f32_of("text_embed", &[num_logits, dim]),
        TensorSpec::new("query_from_pixel", Dtype::I32, view.size()),
    ];
    let metadata = [
        ("words".to_owned(), text.labels.join(", ")),
        ("logit_scale".to_owned(), text.logit_scale.to_string()),
        (
            "about".to_owned(),
            "masks are logits of 4 x 4 pixels; query_from_pixel is -1 where no query claims one".to_owned(),
        ),
    ];
    let mut file = SafetensorsWriter::create(path, &specs, &metadata.into_iter().collect::<BTreeMap<_, _>>())?;
    file.write_f32(&float_values(masks)?)?;
    file.write_f32(&float_values(queries.mask_embed.clone().slice_dim(0, of_image.clone()))?)?;
    file.write_f32(&float_values(queries.pred_logits.clone().slice_dim(0, of_image))?)?;
    file.write_f32(&float_values(text.rows.clone())?)?;
    file.write_i32(&view.query_from_pixel()?)?;
    file.finish()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_enlarged_by_the_nearest() {
        assert_eq!(enlarged(&[1, 2], [1, 2], [2, 4]), [1, 1, 2, 2, 1, 1, 2, 2]);
        assert_eq!(enlarged(&[1, 2, 3, 4], [2, 2], [1, 1]), [4]);
    }
}
