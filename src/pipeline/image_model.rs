//! The models that give pictures features: one whose queries have embeddings, and one with a feature for every pixel.
//! What follows does not ask which of them it was.

use burn::prelude::*;
use rayon::prelude::*;

use super::{Compat, PipelineError};
use crate::lift::{DenseView, View};
use crate::models::lseg::LSeg;
use crate::models::xdecoder::{Queries, TextEmbeddings, XDecoder};
use crate::ops::bilinear::Corners;
use crate::ops::bilinear::cpu::axis;
use crate::ops::{OpError, float_values};
use crate::query::ensemble::scores;

/// A model that gives pictures features in a space of words.
#[derive(Clone, Copy)]
pub enum ImageModel<'a> {
    /// X-Decoder: masks of queries that have embeddings.
    XDecoder(&'a XDecoder),
    /// LSeg: a feature for every pixel.
    LSeg(&'a LSeg),
}

impl ImageModel<'_> {
    /// Its name as a stage of a run.
    pub(super) fn stage(self) -> &'static str {
        match self {
            Self::XDecoder(_) => "x-decoder",
            Self::LSeg(_) => "lseg",
        }
    }

    /// Estimates the working memory in bytes for one picture of `size` (height, width), without the weights.
    #[must_use]
    pub fn view_bytes(self, size: [usize; 2], compat: Compat) -> u64 {
        match self {
            Self::XDecoder(model) => model.view_bytes(size),
            Self::LSeg(model) => model.view_bytes(compat.dense_grid(size)),
        }
    }

    /// Number of pictures of `size` that fit into one batch: within `budget` bytes of working memory and the device's
    /// largest buffer, at least 1.
    #[must_use]
    pub fn views_in(self, budget: u64, size: [usize; 2], compat: Compat) -> usize {
        match self {
            Self::XDecoder(model) => model.views_in(budget, size),
            Self::LSeg(model) => model.views_in(budget, compat.dense_grid(size)),
        }
    }

    /// Runs the model on pictures of one `size` (height, width), RGB in 0..255, `[B, H, W, 3]` flat. `text` are the
    /// words to look for. The result stays on the device.
    ///
    /// # Errors
    /// [`OpError::Value`] if the number of values does not fit the size, or the error of a layer that does not fit the
    /// device.
    pub fn see(
        self,
        pictures: &[f32],
        size: [usize; 2],
        text: &TextEmbeddings,
        compat: Compat,
    ) -> Result<SeenPictures, OpError> {
        Ok(match self {
            Self::XDecoder(model) => SeenPictures::Queries(model.forward(model.prepare(pictures, size)?, text)?),
            Self::LSeg(model) => SeenPictures::Dense(model.features_on(pictures, size, compat.dense_grid(size))?),
        })
    }
}

/// What an image model says about a batch of pictures, on the device.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "one exists at a time")]
pub enum SeenPictures {
    /// Masks and embeddings of queries.
    Queries(Queries),
    /// Features of pixels, `[B, rows, columns, C]`.
    Dense(Tensor<4>),
}

impl SeenPictures {
    /// Waits until the device has the result.
    ///
    /// # Errors
    /// [`OpError::Device`].
    pub fn wait(&self) -> Result<(), OpError> {
        match self {
            Self::Queries(queries) => float_values(queries.pred_logits.clone())?,
            Self::Dense(features) => float_values(features.clone().slice([0..1, 0..1, 0..1]))?,
        };
        Ok(())
    }

    /// What the model says about picture `index` of the batch, which has `size` (height, width).
    ///
    /// # Errors
    /// [`PipelineError::View`], [`PipelineError::Op`].
    pub fn view(
        &self,
        index: usize,
        text: &TextEmbeddings,
        size: [usize; 2],
        compat: Compat,
    ) -> Result<PictureView, PipelineError> {
        match self {
            Self::Queries(queries) => {
                Ok(PictureView::Queries(View::new(queries, index, text, size, compat.padding())?))
            }
            Self::Dense(features) => Ok(PictureView::Dense(DensePicture::new(features, index, size)?)),
        }
    }
}

/// What an image model says about a picture.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "one exists at a time")]
pub enum PictureView {
    /// A query for every pixel, and its embedding.
    Queries(View),
    /// A feature for every pixel.
    Dense(DensePicture),
}

impl PictureView {
    /// Label of every pixel, row by row, by the words that the model looked for; -1 for none of them.
    ///
    /// # Errors
    /// [`OpError::Device`]; [`OpError::Value`] for words of other channels.
    pub fn label_from_pixel(&self, text: &TextEmbeddings) -> Result<Vec<i32>, OpError> {
        match self {
            Self::Queries(view) => view.label_from_pixel(),
            Self::Dense(picture) => picture.label_from_pixel(text),
        }
    }
}

/// Features of a picture's pixels, at the size at which the model gives them.
#[derive(Clone, Debug)]
pub struct DensePicture {
    /// Height and width of the picture.
    size: [usize; 2],
    /// Rows and columns of the features.
    grid: [usize; 2],
    /// `[rows · columns, C]`.
    values: Vec<f32>,
}

impl DensePicture {
    /// Reads those of picture `index` from `features [B, rows, columns, C]`.
    fn new(features: &Tensor<4>, index: usize, size: [usize; 2]) -> Result<Self, OpError> {
        let [num_pictures, rows, columns, _] = features.dims();
        if index >= num_pictures || rows * columns * size[0] * size[1] == 0 {
            let message = format!("picture {index} of {num_pictures}, {rows} x {columns} features for {size:?} pixels");
            return Err(OpError::Value { op: "view", message });
        }
        let values = float_values(features.clone().slice_dim(0, index..index + 1))?;
        Ok(Self { size, grid: [rows, columns], values })
    }

    /// The features, for a lifter.
    #[must_use]
    pub fn view(&self) -> DenseView<'_> {
        DenseView { grid: self.grid, values: &self.values }
    }

    /// Label of every pixel: the word with the largest product with the pixel's feature, the first of equal ones; -1 if
    /// that is the background. Products are resampled in place of features, which gives the same numbers.
    fn label_from_pixel(&self, text: &TextEmbeddings) -> Result<Vec<i32>, OpError> {
        let (num_labels, [num_words, words_dim]) = (text.labels.len(), text.rows.dims());
        let found = self.view().num_channels();
        if found != words_dim {
            let message = format!("features of {found} channels, the words have {words_dim}");
            return Err(OpError::Value { op: "view", message });
        }
        let scores = scores(&self.values, &text.rows)?;
        let ([height, width], [rows, columns]) = (self.size, self.grid);
        let (above, left) = (axis(rows, height, Corners::Aligned), axis(columns, width, Corners::Aligned));
        let mut label_from_pixel = vec![-1; height * width];
        label_from_pixel.par_chunks_mut(width).enumerate().for_each_init(
            || vec![0.0; num_words],
            |of_pixel, (y, labels)| {
                for (x, label) in labels.iter_mut().enumerate() {
                    of_pixel.fill(0.0);
                    for (row, row_weight) in above.taps(y) {
                        for (column, weight) in left.taps(x) {
                            let weight = row_weight * weight;
                            let of_cell = &scores[(row * columns + column) * num_words..][..num_words];
                            of_pixel.iter_mut().zip(of_cell).for_each(|(score, x)| *score += weight * x);
                        }
                    }
                    let best =
                        (1..num_words).fold(0, |best, word| if of_pixel[word] > of_pixel[best] { word } else { best });
                    *label = if best < num_labels { best as i32 } else { -1 };
                }
            },
        );
        Ok(label_from_pixel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::float_tensor;

    #[test]
    fn pixels_take_the_word_of_the_features_between_which_they_are() {
        let device = Device::flex();
        // Left is the first word, right the background; between them both fade.
        let features = float_tensor(vec![0.0, 0.0, 2.0, 0.0, 0.0, 2.0, 2.0, 0.0], [2, 1, 2, 2], &device);
        let rows = float_tensor(vec![1.0, 0.0, 0.0, 1.0], [2, 2], &device);
        let text = TextEmbeddings { labels: vec!["lamp".to_owned()], rows, logit_scale: 1.0 };
        let seen = SeenPictures::Dense(features);
        let view = seen.view(1, &text, [2, 4], Compat::Fixed).unwrap();
        assert_eq!(view.label_from_pixel(&text).unwrap(), [-1, -1, 0, 0, -1, -1, 0, 0]);
        let error = seen.view(2, &text, [2, 4], Compat::Fixed).unwrap_err().to_string();
        assert!(error.contains("picture 2 of 2"), "{error}");
        assert!(seen.view(0, &text, [0, 4], Compat::Fixed).is_err());
        let narrow = TextEmbeddings { rows: float_tensor(vec![1.0], [1, 1], &device), ..text };
        let error = view.label_from_pixel(&narrow).unwrap_err().to_string();
        assert!(error.contains("features of 2 channels, the words have 1"), "{error}");
    }
}
