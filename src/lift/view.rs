//! One view: the query that wins each pixel, and the embedding and logits of each query.
//!
//! The feature of a pixel is one of a few hundred query embeddings. So a view is one number per pixel and a
//! small table.

use burn::prelude::*;

use crate::models::xdecoder::{Queries, TextEmbeddings};
use crate::ops::pixel_queries::{Sizes, pixel_queries};
use crate::ops::{OpError, ShapeCheck, float_tensor, float_values, int_values, plain_int};

/// Most queries of a view.
pub const MAX_QUERIES: usize = u16::MAX as usize;

/// Handling of the part of a mask that lies on the padding of its image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Padding {
    /// The padding is cut off before the mask is resampled.
    #[default]
    Cropped,
    /// The padding is kept, as in the published code. So masks are squeezed towards the upper left corner.
    Kept,
}

/// Error of making a view.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ViewError {
    /// There are more queries than a pixel's number can hold.
    #[error("{found} queries, expected at most {MAX_QUERIES}")]
    TooManyQueries {
        /// Number of queries.
        found: usize,
    },
    /// The image has no pixels, or its size does not fit its masks.
    #[error("an image of {} x {} pixels does not belong to masks of {} x {}", image[1], image[0], masks[1], masks[0])]
    Size {
        /// Height and width of the image.
        image: [usize; 2],
        /// Height and width of the masks; they are a quarter of those of the padded image.
        masks: [usize; 2],
    },
    /// The size of a table does not fit the number of queries.
    #[error("{found} {what} do not belong to {num_queries} queries")]
    Table {
        /// Name of the table: embeddings or logits.
        what: &'static str,
        /// Number of values.
        found: usize,
        /// Number of queries.
        num_queries: usize,
    },
    /// A pixel refers to a query that does not exist.
    #[error("a pixel has query {found}, expected one below {num_queries}")]
    UnknownQuery {
        /// Number of the query.
        found: i32,
        /// Number of queries.
        num_queries: usize,
    },
    /// The device failed.
    #[error(transparent)]
    Op(#[from] OpError),
}

/// Output of a model for one image: one query per pixel, one embedding and logits per query. The pixels stay
/// on the device.
#[derive(Clone, Debug)]
pub struct View {
    size: [usize; 2],
    /// `[H · W]`: query of every pixel, -1 if no query claims it.
    query_from_pixel: Tensor<1, Int>,
    num_queries: usize,
    embeddings: Vec<f32>,
    logits: Vec<f32>,
}

impl View {
    /// Makes a view from X-Decoder's object queries of image `index` of a batch, see
    /// [`Queries::without_class_token`].
    ///
    /// Each pixel goes to the query with the largest product of mask probability and confidence. The
    /// confidence is the largest softmax value of the query's labels. The background counts in the softmax,
    /// but is never the label. This is the rule of GeoPurify's lifting. `size` is the height and width of the
    /// image before padding; masks are resampled to it.
    ///
    /// # Errors
    /// [`ViewError`].
    pub fn new(
        queries: &Queries,
        index: usize,
        text: &TextEmbeddings,
        size: [usize; 2],
        padding: Padding,
    ) -> Result<Self, ViewError> {
        let [num_images, num_queries, mask_height, mask_width] = queries.pred_masks.dims();
        let mut shapes = ShapeCheck::new("view");
        let num_texts = text.labels.len() + 1;
        shapes.check(
            "pred_logits",
            queries.pred_logits.dims(),
            [num_images.into(), num_queries.into(), num_texts.into()],
        )?;
        shapes.check("mask_embed", queries.mask_embed.dims(), [num_images.into(), num_queries.into(), "D".into()])?;
        shapes.check("text", text.rows.dims(), [num_texts.into(), "D".into()])?;
        if index >= num_images {
            return Err(shapes.value(format!("image {index} of {num_images}")).into());
        }
        if num_queries > MAX_QUERIES {
            return Err(ViewError::TooManyQueries { found: num_queries });
        }
        let cells = match padding {
            Padding::Cropped => size.map(|pixels| pixels.div_ceil(4)),
            Padding::Kept => [mask_height, mask_width],
        };
        if size[0] * size[1] == 0 || cells[0] > mask_height || cells[1] > mask_width {
            return Err(ViewError::Size { image: size, masks: [mask_height, mask_width] });
        }
        let of_image = index..index + 1;
        let masks = queries.pred_masks.clone().slice([of_image.clone(), 0..num_queries, 0..cells[0], 0..cells[1]]);
        let all_logits = float_values(queries.pred_logits.clone().slice_dim(0, of_image.clone()))?;
        let mut embeddings = float_values(queries.mask_embed.clone().slice_dim(0, of_image))?;
        let confidences = float_tensor(confidences(&all_logits, num_queries), [num_queries], &masks.device());
        // After the padding is cut off, whole cells may extend over the image's edge by up to 3 pixels.
        let resampled = match padding {
            Padding::Cropped => cells.map(|cells| cells * 4),
            Padding::Kept => size,
        };
        let masks = masks.reshape([num_queries, cells[0], cells[1]]);
        let query_from_pixel = pixel_queries(masks, confidences, Sizes { resampled, picture: size })?;

        let dim = embeddings.len() / num_queries.max(1);
        for row in embeddings.chunks_exact_mut(dim.max(1)) {
            let norm = row.iter().map(|x| x * x).sum::<f32>().sqrt().max(1e-12);
            row.iter_mut().for_each(|x| *x /= norm);
        }
        let text_rows = float_values(text.rows.clone())?;
        let logit = |embedding: &[f32], label: &[f32]| {
            text.logit_scale * embedding.iter().zip(label).map(|(a, b)| a * b).sum::<f32>()
        };
        let labels = || text_rows.chunks_exact(dim.max(1)).take(text.labels.len());
        let logits = embeddings.chunks_exact(dim.max(1)).flat_map(|e| labels().map(move |label| logit(e, label)));
        let logits = logits.collect();
        Ok(Self { size, query_from_pixel: query_from_pixel.flatten(0, 1), num_queries, embeddings, logits })
    }

    /// Makes a view from the output of any model. `query_from_pixel [H, W]` is negative where no query claims
    /// a pixel. `embeddings [Q, D]` become features unchanged. `logits [Q, K]` are of the labels by which
    /// views are weighed against each other. A model without labels gives all queries the same logit.
    ///
    /// # Errors
    /// [`ViewError::TooManyQueries`], [`ViewError::Table`], [`ViewError::UnknownQuery`]; [`ViewError::Op`].
    pub fn from_parts(
        query_from_pixel: Tensor<2, Int>,
        embeddings: Vec<f32>,
        logits: Vec<f32>,
        num_queries: usize,
    ) -> Result<Self, ViewError> {
        if num_queries > MAX_QUERIES {
            return Err(ViewError::TooManyQueries { found: num_queries });
        }
        for (what, found) in [("embeddings", embeddings.len()), ("logits", logits.len())] {
            let belongs = if num_queries == 0 { found == 0 } else { found.is_multiple_of(num_queries) };
            if !belongs {
                return Err(ViewError::Table { what, found, num_queries });
            }
        }
        let size = query_from_pixel.dims();
        let query_from_pixel = plain_int(query_from_pixel).flatten(0, 1);
        if size[0] * size[1] > 0 {
            let found = int_values(query_from_pixel.clone().max())?[0];
            if found >= num_queries as i32 {
                return Err(ViewError::UnknownQuery { found, num_queries });
            }
        }
        Ok(Self { size, query_from_pixel, num_queries, embeddings, logits })
    }

    /// Height and width in pixels.
    #[must_use]
    pub fn size(&self) -> [usize; 2] {
        self.size
    }

    /// Number of queries, Q.
    #[must_use]
    pub fn num_queries(&self) -> usize {
        self.num_queries
    }

    /// Number of channels of an embedding, D.
    #[must_use]
    pub fn num_channels(&self) -> usize {
        self.embeddings.len() / self.num_queries.max(1)
    }

    /// Number of labels, K.
    #[must_use]
    pub fn num_labels(&self) -> usize {
        self.logits.len() / self.num_queries.max(1)
    }

    /// Embeddings `[Q, D]`; those of X-Decoder have unit length.
    #[must_use]
    pub fn embeddings(&self) -> &[f32] {
        &self.embeddings
    }

    /// Logits `[Q, K]` of the labels, without the background; those of X-Decoder are scale · cosine.
    #[must_use]
    pub fn logits(&self) -> &[f32] {
        &self.logits
    }

    /// Query of every pixel `[H · W]`, on the device; negative where no query claims it.
    pub(super) fn query_from_pixel_tensor(&self) -> Tensor<1, Int> {
        self.query_from_pixel.clone()
    }

    /// Query that wins each pixel, row by row; -1 where its mask is below one half. Reads the values from the
    /// device.
    ///
    /// # Errors
    /// [`OpError::Device`].
    pub fn query_from_pixel(&self) -> Result<Vec<i32>, OpError> {
        int_values(self.query_from_pixel.clone())
    }

    /// Best label of every query; `None` without labels.
    #[must_use]
    pub fn label_from_query(&self) -> Vec<Option<usize>> {
        let rows = self.logits.chunks_exact(self.num_labels().max(1));
        rows.map(|row| (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b]).then(b.cmp(&a)))).collect()
    }

    /// Label of every pixel, row by row; -1 where no query claims it. Reads the pixels from the device.
    ///
    /// # Errors
    /// [`OpError::Device`].
    pub fn label_from_pixel(&self) -> Result<Vec<i32>, OpError> {
        let label_from_query = self.label_from_query();
        let label = |query: i32| {
            let label = usize::try_from(query).ok().and_then(|query| label_from_query.get(query).copied().flatten());
            label.map_or(-1, |label| label as i32)
        };
        Ok(self.query_from_pixel()?.into_iter().map(label).collect())
    }
}

/// For each query, the largest softmax value of its logits `[Q, K + 1]`, the last one excepted.
fn confidences(logits: &[f32], num_queries: usize) -> Vec<f32> {
    let num_labels = logits.len() / num_queries.max(1);
    let confidence = |row: &[f32]| {
        let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let total: f32 = row.iter().map(|x| (x - largest).exp()).sum();
        let best = row[..row.len() - 1].iter().copied().fold(f32::NEG_INFINITY, f32::max);
        (best - largest).exp() / total
    };
    logits.chunks_exact(num_labels.max(1)).map(confidence).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::int_tensor;

    /// Two queries on an image of 6 x 8 pixels, padded to 8 x 8: one has the left half, the other the right.
    fn queries(logits: [f32; 6], strength: f32) -> Queries {
        let device = Device::flex();
        let side = |x: usize| if x < 1 { strength } else { -strength };
        let masks: Vec<f32> = (0..8).map(|i| if i < 4 { side(i % 2) } else { -side(i % 2) }).collect();
        Queries {
            pred_logits: float_tensor(logits.to_vec(), [1, 2, 3], &device),
            pred_masks: float_tensor(masks, [1, 2, 2, 2], &device),
            mask_embed: float_tensor(vec![3.0, 0.0, 0.0, 2.0], [1, 2, 2], &device),
        }
    }

    fn text() -> TextEmbeddings {
        let rows = float_tensor(vec![1.0, 0.0, 0.0, 1.0, 0.6, 0.8], [3, 2], &Device::flex());
        TextEmbeddings { labels: vec!["left".to_owned(), "right".to_owned()], rows, logit_scale: 10.0 }
    }

    #[test]
    fn each_half_goes_to_its_query_and_label() {
        let queries = queries([5.0, 0.0, 0.0, 0.0, 5.0, 0.0], 8.0);
        let view = View::new(&queries, 0, &text(), [6, 8], Padding::Cropped).unwrap();
        assert_eq!(view.query_from_pixel().unwrap()[..8], [0, 0, 0, 0, 1, 1, 1, 1]);
        assert_eq!(view.label_from_pixel().unwrap()[40..], [0, 0, 0, 0, 1, 1, 1, 1]);
        assert_eq!(view.embeddings(), [1.0, 0.0, 0.0, 1.0]);
        assert_eq!(view.logits(), [10.0, 0.0, 0.0, 10.0]);
    }

    #[test]
    fn a_pixel_whose_winner_has_half_a_mask_or_less_is_nobodys() {
        // The first query is so confident of its label that it wins even outside its own mask.
        let queries = queries([9.0, 0.0, 0.0, 0.0, 0.0, 9.0], 0.1);
        let view = View::new(&queries, 0, &text(), [6, 8], Padding::Cropped).unwrap();
        assert_eq!(view.label_from_pixel().unwrap()[..8], [0, 0, 0, 0, -1, -1, -1, -1]);
    }

    #[test]
    fn kept_padding_squeezes_the_masks() {
        let device = Device::flex();
        // The first query has the upper row of cells, which is the whole image; the second has the padding.
        let masks = vec![8.0, 8.0, -8.0, -8.0, -8.0, -8.0, 8.0, 8.0];
        let queries = Queries { pred_masks: float_tensor(masks, [1, 2, 2, 2], &device), ..queries([0.0; 6], 1.0) };
        let cropped = View::new(&queries, 0, &text(), [4, 8], Padding::Cropped).unwrap();
        assert!(cropped.query_from_pixel().unwrap().iter().all(|&q| q == 0));
        let kept = View::new(&queries, 0, &text(), [4, 8], Padding::Kept).unwrap();
        assert_eq!(kept.query_from_pixel().unwrap()[24], 1);
    }

    #[test]
    fn sizes_that_do_not_belong_together_are_refused() {
        let queries = queries([0.0; 6], 1.0);
        let error = View::new(&queries, 0, &text(), [16, 8], Padding::Cropped).unwrap_err();
        assert_eq!(error.to_string(), "an image of 8 x 16 pixels does not belong to masks of 2 x 2");
        assert!(View::new(&queries, 0, &text(), [0, 8], Padding::Kept).is_err());
    }

    #[test]
    fn parts_that_do_not_belong_together_are_refused() {
        let pixels = |query| int_tensor(vec![-1, query], [1, 2], &Device::flex());
        let view = View::from_parts(pixels(1), vec![0.0; 6], vec![0.0; 2], 2).unwrap();
        assert_eq!((view.num_queries(), view.num_channels(), view.num_labels()), (2, 3, 1));
        assert_eq!(view.label_from_pixel().unwrap(), [-1, 0]);
        let error = |query, embeddings, logits, num_queries| {
            View::from_parts(pixels(query), vec![0.0; embeddings], vec![0.0; logits], num_queries)
                .unwrap_err()
                .to_string()
        };
        assert_eq!(error(2, 6, 2, 2), "a pixel has query 2, expected one below 2");
        assert_eq!(error(1, 5, 2, 2), "5 embeddings do not belong to 2 queries");
        assert_eq!(error(1, 6, 3, 2), "3 logits do not belong to 2 queries");
        assert_eq!(error(-1, 1, 0, 0), "1 embeddings do not belong to 0 queries");
        assert_eq!(error(0, 0, 0, 0), "a pixel has query 0, expected one below 0");
        assert_eq!(error(0, 0, 0, 65_536), "65536 queries, expected at most 65535");
        assert!(View::from_parts(int_tensor(Vec::new(), [0, 2], &Device::flex()), Vec::new(), Vec::new(), 0).is_ok());
    }
}
