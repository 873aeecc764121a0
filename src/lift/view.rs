//! One view: which query wins each pixel, and what that query says.
//!
//! A pixel's feature is one of at most 200 query embeddings, so a view is a number per pixel and a small table.

use rayon::prelude::*;

use crate::models::xdecoder::{Queries, TextEmbeddings};
use crate::ops::bicubic_antialias::cpu::resample;
use crate::ops::{OpError, float_values};

/// A pixel that no query claims.
pub const NO_QUERY: u16 = u16::MAX;
/// Queries whose masks are at full size at the same time.
const BLOCK_QUERIES: usize = 8;

/// What becomes of the part of a mask that lies on the padding of its image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Padding {
    /// It is cut off before the mask is resampled.
    #[default]
    Cropped,
    /// It stays, so masks are squeezed towards the upper left corner: as the published code has it.
    Kept,
}

/// Why a view could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ViewError {
    /// There are more queries than a pixel can number.
    #[error("{found} queries, expected at most {}", NO_QUERY)]
    TooManyQueries {
        /// How many there are.
        found: usize,
    },
    /// The image has no pixel, or not the size its masks are of.
    #[error("an image of {} x {} pixels does not belong to masks of {} x {}", image[1], image[0], masks[1], masks[0])]
    Size {
        /// Height and width of the image.
        image: [usize; 2],
        /// Height and width of the masks, a quarter of those of the padded image.
        masks: [usize; 2],
    },
    /// The device failed.
    #[error(transparent)]
    Op(#[from] OpError),
}

/// What X-Decoder says of the pixels of one image.
#[derive(Clone, Debug)]
pub struct View {
    /// Height and width.
    pub size: [usize; 2],
    /// The query that wins each pixel, row by row, [`NO_QUERY`] where its mask is below one half.
    pub query_from_pixel: Vec<u16>,
    /// Embeddings of unit length `[Q, D]`; a query's own divided by its length.
    pub embeddings: Vec<f32>,
    /// Logits `[Q, K]` of the labels, without the background: scale · cosine.
    pub logits: Vec<f32>,
    /// Labels, K.
    pub num_labels: usize,
}

impl View {
    /// From the objects' queries of image `index` of a batch, see
    /// [`Queries::without_class_token`]: each pixel goes to the query with the largest product of mask
    /// probability and confidence, the largest softmax value of its labels (the background counted in the
    /// softmax, but never the label). The rule is that of GeoPurify's lifting. `size` is the height and
    /// width of the image before padding; masks are resampled to it.
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
        let [_, num_queries, mask_height, mask_width] = queries.pred_masks.dims();
        if num_queries >= usize::from(NO_QUERY) {
            return Err(ViewError::TooManyQueries { found: num_queries });
        }
        let [height, width] = size;
        let cells = match padding {
            Padding::Cropped => size.map(|pixels| pixels.div_ceil(4)),
            Padding::Kept => [mask_height, mask_width],
        };
        if height * width == 0 || cells[0] > mask_height || cells[1] > mask_width {
            return Err(ViewError::Size { image: size, masks: [mask_height, mask_width] });
        }
        let masks = queries.pred_masks.clone().slice([index..index + 1, 0..num_queries, 0..cells[0], 0..cells[1]]);
        let masks = float_values(masks)?;
        let all_logits = float_values(queries.pred_logits.clone().slice_dim(0, index..index + 1))?;
        let mut embeddings = float_values(queries.mask_embed.clone().slice_dim(0, index..index + 1))?;
        let scores = confidences(&all_logits, num_queries);

        // Where padding was cut off, whole cells may reach over the image's edge by up to 3 pixels.
        let resampled = match padding {
            Padding::Cropped => cells.map(|cells| cells * 4),
            Padding::Kept => size,
        };
        let mut best = vec![f32::NEG_INFINITY; height * width];
        let mut query_from_pixel = vec![NO_QUERY; height * width];
        let blocks = masks.chunks(BLOCK_QUERIES * cells[0] * cells[1]).zip(scores.chunks(BLOCK_QUERIES)).enumerate();
        for (block, (masks, scores)) in blocks {
            let planes = resample(masks, (cells[0], cells[1]), (resampled[0], resampled[1]));
            let rows = best.par_chunks_mut(width).zip(query_from_pixel.par_chunks_mut(width)).enumerate();
            rows.for_each(|(y, (best, winners))| {
                for (q, score) in scores.iter().enumerate() {
                    let plane = &planes[(q * resampled[0] + y) * resampled[1]..][..width];
                    for ((best, winner), logit) in best.iter_mut().zip(winners.iter_mut()).zip(plane) {
                        let value = score / (1.0 + (-logit).exp());
                        if value > *best {
                            *best = value;
                            *winner = if *logit >= 0.0 { (block * BLOCK_QUERIES + q) as u16 } else { NO_QUERY };
                        }
                    }
                }
            });
        }

        let dim = embeddings.len() / num_queries.max(1);
        for row in embeddings.chunks_exact_mut(dim.max(1)) {
            let norm = row.iter().map(|x| x * x).sum::<f32>().sqrt().max(1e-12);
            row.iter_mut().for_each(|x| *x /= norm);
        }
        let text_rows = float_values(text.rows.clone())?;
        let num_labels = text.labels.len();
        let logit = |embedding: &[f32], label: &[f32]| {
            text.logit_scale * embedding.iter().zip(label).map(|(a, b)| a * b).sum::<f32>()
        };
        let labels = || text_rows.chunks_exact(dim.max(1)).take(num_labels);
        let logits = embeddings.chunks_exact(dim.max(1)).flat_map(|e| labels().map(move |label| logit(e, label)));
        let logits = logits.collect();
        Ok(Self { size, query_from_pixel, embeddings, logits, num_labels })
    }

    /// The best label of every query, `None` without labels.
    #[must_use]
    pub fn label_from_query(&self) -> Vec<Option<usize>> {
        let rows = self.logits.chunks_exact(self.num_labels.max(1));
        rows.map(|row| (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b]).then(b.cmp(&a)))).collect()
    }

    /// The label of every pixel, row by row; -1 where no query claims it.
    #[must_use]
    pub fn label_from_pixel(&self) -> Result<Vec<i32>, OpError> { Ok({
        let label_from_query = self.label_from_query();
        let label = |query: &u16| {
            let label = label_from_query.get(usize::from(*query)).copied().flatten();
            label.map_or(-1, |label| label as i32)
        };
        self.query_from_pixel.iter().map(label).collect() })
    }
}

/// Largest softmax value of every query's logits `[Q, K + 1]` among all but the last.
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
    use burn::prelude::*;

    use super::*;
    use crate::ops::float_tensor;

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
        assert_eq!(view.query_from_pixel[..8], [0, 0, 0, 0, 1, 1, 1, 1]);
        assert_eq!(view.label_from_pixel()[40..], [0, 0, 0, 0, 1, 1, 1, 1]);
        assert_eq!(view.embeddings, [1.0, 0.0, 0.0, 1.0]);
        assert_eq!(view.logits, [10.0, 0.0, 0.0, 10.0]);
    }

    #[test]
    fn a_pixel_whose_winner_has_half_a_mask_or_less_is_nobodys() {
        // The first query is so sure of its label that it wins where its own mask is off.
        let queries = queries([9.0, 0.0, 0.0, 0.0, 0.0, 9.0], 0.1);
        let view = View::new(&queries, 0, &text(), [6, 8], Padding::Cropped).unwrap();
        assert_eq!(view.label_from_pixel()[..8], [0, 0, 0, 0, -1, -1, -1, -1]);
    }

    #[test]
    fn kept_padding_squeezes_the_masks() {
        let device = Device::flex();
        // The first query has the upper row of cells, which is all of the image; the second has the padding.
        let masks = vec![8.0, 8.0, -8.0, -8.0, -8.0, -8.0, 8.0, 8.0];
        let queries = Queries { pred_masks: float_tensor(masks, [1, 2, 2, 2], &device), ..queries([0.0; 6], 1.0) };
        let cropped = View::new(&queries, 0, &text(), [4, 8], Padding::Cropped).unwrap();
        assert!(cropped.query_from_pixel.iter().all(|&q| q == 0));
        let kept = View::new(&queries, 0, &text(), [4, 8], Padding::Kept).unwrap();
        assert_eq!(kept.query_from_pixel[24], 1);
    }

    #[test]
    fn sizes_that_do_not_belong_together_are_refused() {
        let queries = queries([0.0; 6], 1.0);
        let error = View::new(&queries, 0, &text(), [16, 8], Padding::Cropped).unwrap_err();
        assert_eq!(error.to_string(), "an image of 8 x 16 pixels does not belong to masks of 2 x 2");
        assert!(View::new(&queries, 0, &text(), [0, 8], Padding::Kept).is_err());
    }
}
