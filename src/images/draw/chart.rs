//! Curves over a common axis, with ticks, names and a legend.

use super::legend::{BACKGROUND, BOLDNESS, SHARE_COLOR, TEXT_COLOR};
use super::mix;
use super::text::{CAP_HEIGHT, Face};
use crate::images::{ImageError, Rgb8Image};

const GRID_COLOR: [u8; 3] = [232, 232, 236];
const FRAME_COLOR: [u8; 3] = [172, 172, 178];

const TITLE_SIZE: f32 = 20.0;
const TEXT_SIZE: f32 = 14.0;

// Lengths in pixels.
const MARGIN: usize = 20;
const GAP: usize = 9;
const TICK: usize = 4;
const PANEL_GAP: usize = 26;
/// Space that one tick's label wants along its axis.
const TICK_ROOM: [usize; 2] = [110, 46];

/// Smallest plot that is drawn.
const SMALLEST: usize = 24;

/// Largest number that f64 and tick labels tell apart from its neighbours.
const LARGEST: f64 = 1e15;

/// How values become heights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Evenly.
    Linear,
    /// By their logarithm; what is not positive is not drawn.
    Log,
}

/// A line through points.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    /// What the legend calls it; nothing for a curve that has no line there.
    pub name: String,
    /// Its colour.
    pub color: [u8; 3],
    /// 0 is invisible, 1 hides what is below.
    pub opacity: f32,
    /// Thickness in pixels.
    pub width: f32,
    /// Whether every point has a dot.
    pub dots: bool,
    /// (x, y); points that are not finite are left out.
    pub points: Vec<[f64; 2]>,
}

/// A vertical axis with its curves.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    /// What is written above it.
    pub name: String,
    /// How values become heights.
    pub scale: Scale,
    /// Later ones are drawn over earlier ones.
    pub curves: Vec<Curve>,
}

/// One plot.
#[derive(Clone, Debug, PartialEq)]
pub struct Panel {
    /// Its share of the height, in any unit.
    pub height: f32,
    /// The axis to the left.
    pub left: Axis,
    /// The axis to the right, if there is a second one.
    pub right: Option<Axis>,
}

/// Plots one below the other, over the same horizontal axis.
#[derive(Clone, Debug, PartialEq)]
pub struct Chart {
    /// What is written above.
    pub title: String,
    /// What the horizontal axis is called.
    pub x_name: String,
    /// The plots from top to bottom.
    pub panels: Vec<Panel>,
}

impl Chart {
    /// Draws the chart. Axes span their curves; without any point they are empty.
    ///
    /// # Errors
    /// [`ImageError::Size`] unless there are 1 to [`MAX_PIXELS`](crate::images::MAX_PIXELS) pixels.
    pub fn draw(&self, width: usize, height: usize) -> Result<Rgb8Image, ImageError> {
        let mut image = Rgb8Image::filled(width, height, BACKGROUND)?;
        let title = Face { size: TITLE_SIZE, boldness: 0.03 };
        let text = Face { size: TEXT_SIZE, boldness: BOLDNESS };
        let axes = || self.panels.iter().flat_map(|panel| [Some(&panel.left), panel.right.as_ref()]).flatten();

        let all = axes().flat_map(|axis| axis.visible());
        let x_span = Span::of(all.map(|[x, _]| x), Scale::Linear, false);
        let left_room = self.panels.iter().map(|panel| label_width(text, &panel.left, 200)).max().unwrap_or(0);
        let rights = self.panels.iter().filter_map(|panel| panel.right.as_ref());
        let right_room = rights.map(|axis| label_width(text, axis, 200)).max().unwrap_or(0);
        let left = MARGIN + left_room + TICK + GAP;
        let right = width.saturating_sub(MARGIN + right_room.max(MARGIN) + TICK + GAP);

        let top = MARGIN + TITLE_SIZE as usize;
        let shown = title.shortened(&self.title, width.saturating_sub(2 * MARGIN) as f32 / 2.0);
        title.ink(&shown, 0).paint(&mut image, (MARGIN as i32, top as i32), TEXT_COLOR, 1.0);
        let legend_left = MARGIN as f32 + title.width(&shown) + 3.0 * GAP as f32;
        draw_legend(&mut image, text, axes(), legend_left, [width.saturating_sub(MARGIN), top]);

        let name_height = TEXT_SIZE as usize + GAP;
        let bottom = height.saturating_sub(MARGIN + 2 * name_height + TICK);
        let gaps = self.panels.len().saturating_sub(1) * PANEL_GAP;
        let room = bottom.saturating_sub(top + GAP + self.panels.len() * name_height + gaps) as f32;
        let total: f32 = self.panels.iter().map(|panel| panel.height).sum();
        let mut y = top + GAP;
        for (i, panel) in self.panels.iter().enumerate() {
            let plot_height = (room * panel.height / total.max(f32::MIN_POSITIVE)) as usize;
            let plot = Plot { left, right, top: y + name_height, bottom: y + name_height + plot_height };
            if plot.right < plot.left + SMALLEST || plot_height < SMALLEST {
                return Ok(image);
            }
            let is_last = i + 1 == self.panels.len();
            plot.draw(&mut image, text, panel, &x_span, is_last.then_some(self.x_name.as_str()));
            y = plot.bottom + PANEL_GAP;
        }
        Ok(image)
    }
}

impl Axis {
    /// The points that have a place.
    fn visible(&self) -> impl Iterator<Item = [f64; 2]> {
        self.curves.iter().flat_map(|curve| &curve.points).copied().filter(|point| self.shows(point))
    }

    fn shows(&self, [x, y]: &[f64; 2]) -> bool {
        x.abs() <= LARGEST && y.abs() <= LARGEST && (self.scale == Scale::Linear || *y > 0.0)
    }

    fn span(&self) -> Span {
        Span::of(self.visible().map(|[_, y]| y), self.scale, true)
    }
}

fn label_width(face: Face, axis: &Axis, length: usize) -> usize {
    let ticks = axis.span().ticks(length, TICK_ROOM[1]);
    ticks.iter().map(|(_, label)| face.width(label).ceil() as usize).max().unwrap_or(0)
}

/// The values an axis shows.
struct Span {
    scale: Scale,
    /// Ends, as the scale has them: logarithms to the base 10 or values.
    low: f64,
    high: f64,
}

impl Span {
    /// Of all values, with a little space around them if there is to be `room`.
    fn of(values: impl Iterator<Item = f64>, scale: Scale, room: bool) -> Self {
        let scaled = |value: f64| if scale == Scale::Log { value.log10() } else { value };
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values.map(scaled) {
            (low, high) = (low.min(value), high.max(value));
        }
        if low > high {
            (low, high) = (0.0, 1.0);
        }
        // A single value is in the middle of something.
        let least = if scale == Scale::Log { 0.02 } else { 1e-6_f64.max(low.abs() * 1e-3) };
        if high - low < least {
            let middle = 0.5 * (low + high);
            (low, high) = (middle - least, middle + least);
        }
        if room {
            let space = 0.04 * (high - low);
            // What starts at nothing keeps its foot on the axis.
            low = if scale == Scale::Linear && low >= 0.0 && low < space { 0.0 } else { low - space };
            high += space;
        }
        Self { scale, low, high }
    }

    /// Where a value is, 0 to 1.
    fn at(&self, value: f64) -> f64 {
        let scaled = if self.scale == Scale::Log { value.log10() } else { value };
        (scaled - self.low) / (self.high - self.low)
    }

    /// Round values and what they are called, as many as fit `length` pixels at `room` pixels each.
    fn ticks(&self, length: usize, room: usize) -> Vec<(f64, String)> {
        let most = (length / room).clamp(2, 10);
        if self.scale == Scale::Log && self.high - self.low >= 0.9 {
            return self.decades(most);
        }
        let ends = match self.scale {
            Scale::Linear => [self.low, self.high],
            Scale::Log => [10_f64.powf(self.low), 10_f64.powf(self.high)],
        };
        let step = round_step((ends[1] - ends[0]) / most as f64);
        let first = (ends[0] / step - 1e-9).ceil();
        let values = (0..=2 * most).map(|i| (first + i as f64) * step);
        values.take_while(|value| *value <= ends[1] + 1e-9 * step).map(|value| (value, label(value, step))).collect()
    }

    /// Powers of ten, with twice and five times them where there are few.
    fn decades(&self, most: usize) -> Vec<(f64, String)> {
        let decades = self.high - self.low;
        let within = |power: i32, factor: f64| {
            let value = factor * 10_f64.powi(power);
            ((-1e-9..=1.0 + 1e-9).contains(&self.at(value))).then(|| (value, label(value, value)))
        };
        let powers = self.low.floor() as i32..=self.high.ceil() as i32;
        let factors: &[f64] = if decades * 3.0 <= most as f64 { &[1.0, 2.0, 5.0] } else { &[1.0] };
        let each = (decades / most as f64).ceil().max(1.0) as i32;
        powers
            .filter(|power| power.rem_euclid(each) == 0)
            .flat_map(|power| factors.iter().filter_map(move |&factor| within(power, factor)))
            .collect()
    }
}

/// The next of 1, 2 and 5 times a power of ten.
fn round_step(step: f64) -> f64 {
    let power = 10_f64.powf(step.log10().floor());
    let factor = [1.0, 2.0, 5.0].into_iter().find(|factor| factor * power >= step * (1.0 - 1e-9));
    factor.unwrap_or(10.0) * power
}

/// A tick's value, with the digits that `step` asks for.
fn label(value: f64, step: f64) -> String {
    if value == 0.0 {
        return "0".into();
    }
    // Small steps around a value that is not small are read more easily in full.
    if (step < 1e-3 && (value.abs() < 0.1 || step < 1e-6)) || value.abs() >= 1e9 {
        let digits = (value.abs().log10().floor() - step.log10().floor()).clamp(0.0, 6.0) as usize;
        return format!("{value:.digits$e}").replace('-', "−");
    }
    let digits = (-step.log10().floor()).clamp(0.0, 6.0) as usize;
    let plain = format!("{:.digits$}", value.abs());
    let whole = plain.split('.').next().unwrap_or_default().len();
    let grouped = plain.char_indices().fold(String::new(), |mut text, (i, c)| {
        if i > 0 && i < whole && (whole - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(c);
        text
    });
    if value < 0.0 { format!("−{grouped}") } else { grouped }
}

fn draw_legend<'a>(
    image: &mut Rgb8Image,
    face: Face,
    axes: impl Iterator<Item = &'a Axis>,
    left: f32,
    [right, baseline]: [usize; 2],
) {
    const SAMPLE: f32 = 22.0;
    let named: Vec<&Curve> = axes.flat_map(|axis| &axis.curves).filter(|curve| !curve.name.is_empty()).collect();
    let mut x = right as f32;
    let middle = baseline as f32 - CAP_HEIGHT * face.size / 2.0;
    for curve in named.into_iter().rev() {
        x -= face.width(&curve.name);
        if x - SAMPLE - (GAP as f32) < left {
            return;
        }
        face.ink(&curve.name, 0).paint(image, (x.round() as i32, baseline as i32), TEXT_COLOR, 1.0);
        x -= GAP as f32;
        let mut strokes = Strokes::new(
            [(x - SAMPLE) as usize, baseline - face.size as usize],
            SAMPLE as usize + 1,
            face.size as usize + 2,
        );
        strokes.line([x - SAMPLE + 2.0, middle], [x - 2.0, middle], curve.width.max(2.0));
        if curve.dots {
            strokes.dot([x - SAMPLE / 2.0, middle], curve.width + 1.5);
        }
        strokes.paint(image, curve.color, curve.opacity);
        x -= SAMPLE + 2.5 * GAP as f32;
    }
}

/// The pixels of one plot.
struct Plot {
    left: usize,
    right: usize,
    top: usize,
    bottom: usize,
}

impl Plot {
    fn draw(&self, image: &mut Rgb8Image, face: Face, panel: &Panel, x_span: &Span, x_name: Option<&str>) {
        let [width, height] = [self.right - self.left, self.bottom - self.top];
        let half_cap = (CAP_HEIGHT * face.size / 2.0).round() as i32;
        let left_span = panel.left.span();
        let row = |span: &Span, value: f64| self.bottom as f64 - span.at(value) * height as f64;
        let column = |value: f64| self.left as f64 + x_span.at(value) * width as f64;

        let x_ticks = x_span.ticks(width, TICK_ROOM[0]);
        for (value, _) in &x_ticks {
            vertical(image, column(*value) as usize, self.top..self.bottom, GRID_COLOR);
        }
        for (value, label) in left_span.ticks(height, TICK_ROOM[1]) {
            let y = row(&left_span, value);
            horizontal(image, y as usize, self.left..self.right, GRID_COLOR);
            horizontal(image, y as usize, self.left - TICK..self.left, FRAME_COLOR);
            let x = (self.left - TICK - GAP / 2) as f32 - face.width(&label);
            face.ink(&label, 0).paint(image, (x.round() as i32, y as i32 + half_cap), SHARE_COLOR, 1.0);
        }
        let name_baseline = (self.top - GAP) as i32;
        face.ink(&panel.left.name, 0).paint(image, (self.left as i32, name_baseline), SHARE_COLOR, 1.0);
        for axis in [Some(&panel.left), panel.right.as_ref()].into_iter().flatten() {
            let span = axis.span();
            for curve in &axis.curves {
                let places: Vec<[f32; 2]> = curve
                    .points
                    .iter()
                    .filter(|point| axis.shows(point))
                    .map(|&[x, y]| [column(x) as f32, row(&span, y) as f32])
                    .collect();
                self.draw_curve(image, curve, &places);
            }
        }
        if let Some(right) = &panel.right {
            let span = right.span();
            let color = right.curves.first().map_or(SHARE_COLOR, |curve| mix(curve.color, [0; 3], 0.25));
            for (value, label) in span.ticks(height, TICK_ROOM[1]) {
                let y = row(&span, value);
                horizontal(image, y as usize, self.right..self.right + TICK, FRAME_COLOR);
                let x = (self.right + TICK + GAP / 2 + 1) as i32;
                face.ink(&label, 0).paint(image, (x, y as i32 + half_cap), color, 1.0);
            }
            let x = self.right as f32 - face.width(&right.name);
            face.ink(&right.name, 0).paint(image, (x.round() as i32, name_baseline), color, 1.0);
            vertical(image, self.right, self.top..self.bottom, FRAME_COLOR);
        }
        vertical(image, self.left, self.top..self.bottom, FRAME_COLOR);
        horizontal(image, self.bottom, self.left..self.right + 1, FRAME_COLOR);
        let Some(x_name) = x_name else { return };
        let line = TEXT_SIZE as usize + GAP;
        for (value, label) in &x_ticks {
            let x = column(*value);
            vertical(image, x as usize, self.bottom..self.bottom + TICK, FRAME_COLOR);
            let left = x as f32 - face.width(label) / 2.0;
            face.ink(label, 0).paint(
                image,
                (left.round() as i32, (self.bottom + TICK + line) as i32 - 4),
                SHARE_COLOR,
                1.0,
            );
        }
        let x = (self.left + self.right) as f32 / 2.0 - face.width(x_name) / 2.0;
        face.ink(x_name, 0).paint(
            image,
            (x.round() as i32, (self.bottom + TICK + 2 * line) as i32 - 2),
            SHARE_COLOR,
            1.0,
        );
    }

    fn draw_curve(&self, image: &mut Rgb8Image, curve: &Curve, places: &[[f32; 2]]) {
        // Room for half a line beyond the plot, whose frame is drawn over it.
        let reach = curve.width.ceil() as usize + 3;
        let corner = [self.left.saturating_sub(reach), self.top.saturating_sub(reach)];
        let mut strokes = Strokes::new(corner, self.right + 2 * reach - self.left, self.bottom + 2 * reach - self.top);
        let drawn = thinned(places);
        if let [only] = drawn.as_slice() {
            strokes.dot(*only, curve.width + 1.0);
        }
        for pair in drawn.windows(2) {
            strokes.line(pair[0], pair[1], curve.width);
        }
        if curve.dots {
            drawn.iter().for_each(|&place| strokes.dot(place, curve.width + 1.5));
        }
        strokes.paint(image, curve.color, curve.opacity);
    }
}

/// Of the places in one column of pixels the first, the lowest, the highest and the last: a line through them covers the
/// same pixels as one through all.
fn thinned(places: &[[f32; 2]]) -> Vec<[f32; 2]> {
    let mut out = Vec::new();
    for run in places.chunk_by(|a, b| a[0].floor() == b[0].floor()) {
        if run.len() <= 4 {
            out.extend(run);
            continue;
        }
        let extreme = |sign: f32| (0..run.len()).max_by(|&a, &b| (sign * run[a][1]).total_cmp(&(sign * run[b][1])));
        let mut kept = [Some(0), extreme(-1.0), extreme(1.0), Some(run.len() - 1)];
        kept.sort_unstable();
        let mut last = None;
        for i in kept.into_iter().flatten() {
            if last != Some(i) {
                out.push(run[i]);
            }
            last = Some(i);
        }
    }
    out
}

/// How much of each pixel lines cover, so that lines that cross are not darker there.
struct Strokes {
    corner: [usize; 2],
    width: usize,
    coverage: Vec<f32>,
}

impl Strokes {
    fn new(corner: [usize; 2], width: usize, height: usize) -> Self {
        Self { corner, width, coverage: vec![0.0; width * height] }
    }

    fn line(&mut self, from: [f32; 2], to: [f32; 2], width: f32) {
        let half = width / 2.0;
        let along = [to[0] - from[0], to[1] - from[1]];
        let sq_length = along[0] * along[0] + along[1] * along[1];
        self.cover([from, to], half, |[x, y]| {
            let off = [x - from[0], y - from[1]];
            let share = if sq_length > 0.0 { (off[0] * along[0] + off[1] * along[1]) / sq_length } else { 0.0 };
            let share = share.clamp(0.0, 1.0);
            (off[0] - share * along[0]).hypot(off[1] - share * along[1])
        });
    }

    fn dot(&mut self, middle: [f32; 2], radius: f32) {
        self.cover([middle, middle], radius, |[x, y]| (x - middle[0]).hypot(y - middle[1]));
    }

    /// Covers what is nearer than `reach` by `distance`, within the box around `ends`.
    fn cover(&mut self, ends: [[f32; 2]; 2], reach: f32, distance: impl Fn([f32; 2]) -> f32) {
        let height = self.coverage.len() / self.width.max(1);
        let range = |axis: usize, size: usize| {
            let (low, high) = (ends[0][axis].min(ends[1][axis]), ends[0][axis].max(ends[1][axis]));
            let corner = self.corner[axis] as f32;
            // Casting saturates below at 0.
            let first = (low - reach - 1.0 - corner).floor() as usize;
            first.min(size)..(((high + reach + 1.0 - corner).ceil() as usize).min(size))
        };
        let (columns, rows) = (range(0, self.width), range(1, height));
        for row in rows {
            for column in columns.clone() {
                let center = [column + self.corner[0], row + self.corner[1]].map(|at| at as f32 + 0.5);
                let coverage = (reach + 0.5 - distance(center)).clamp(0.0, 1.0);
                let known = &mut self.coverage[row * self.width + column];
                *known = known.max(coverage);
            }
        }
    }

    fn paint(&self, image: &mut Rgb8Image, color: [u8; 3], opacity: f32) {
        let (width, height) = (image.width(), image.height());
        for (row, coverages) in self.coverage.chunks_exact(self.width.max(1)).enumerate() {
            for (column, &coverage) in coverages.iter().enumerate() {
                let (x, y) = (self.corner[0] + column, self.corner[1] + row);
                if coverage > 0.0 && x < width && y < height {
                    let pixel = &mut image.pixels_mut()[y * width + x];
                    *pixel = mix(*pixel, color, coverage * opacity);
                }
            }
        }
    }
}

fn horizontal(image: &mut Rgb8Image, y: usize, columns: std::ops::Range<usize>, color: [u8; 3]) {
    columns.for_each(|x| set(image, x, y, color));
}

fn vertical(image: &mut Rgb8Image, x: usize, rows: std::ops::Range<usize>, color: [u8; 3]) {
    rows.for_each(|y| set(image, x, y, color));
}

fn set(image: &mut Rgb8Image, x: usize, y: usize, color: [u8; 3]) {
    if x < image.width() && y < image.height() {
        let at = y * image.width() + x;
        image.pixels_mut()[at] = color;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(points: &[[f64; 2]]) -> Curve {
        Curve {
            name: "loss".into(),
            color: [200, 0, 0],
            opacity: 1.0,
            width: 2.0,
            dots: false,
            points: points.to_vec(),
        }
    }

    fn chart(scale: Scale, points: &[[f64; 2]]) -> Chart {
        let left = Axis { name: "loss".into(), scale, curves: vec![curve(points)] };
        let panel = Panel { height: 1.0, left, right: None };
        Chart { title: "a run".into(), x_name: "step".into(), panels: vec![panel] }
    }

    fn red(image: &Rgb8Image) -> Vec<[usize; 2]> {
        let pixels = image.pixels().iter().enumerate();
        let red = pixels.filter(|(_, pixel)| **pixel == [200, 0, 0]);
        // Without the legend's sample.
        red.map(|(i, _)| [i % image.width(), i / image.width()]).filter(|at| at[1] > 50).collect()
    }

    #[test]
    fn a_line_goes_where_its_points_are() {
        let image = chart(Scale::Linear, &[[0.0, 0.0], [100.0, 10.0]]).draw(400, 300).unwrap();
        let red = red(&image);
        let (first, last) = (red.iter().min().unwrap(), red.iter().max().unwrap());
        // From the lower left to the upper right, and halfway in the middle.
        assert!(first[0] < 80 && first[1] > 200 && last[0] > 320 && last[1] < 90, "{first:?} {last:?}");
        let middle = [(first[0] + last[0]) / 2, (first[1] + last[1]) / 2];
        assert!(red.iter().any(|at| at[0].abs_diff(middle[0]) < 3 && at[1].abs_diff(middle[1]) < 3));
        // On a logarithmic axis equal factors are equal heights.
        let image = chart(Scale::Log, &[[0.0, 1.0], [1.0, 10.0], [2.0, 100.0]]).draw(400, 300).unwrap();
        let log = super::tests::red(&image);
        let (first, last) = (log.iter().min().unwrap(), log.iter().max().unwrap());
        let middle = [(first[0] + last[0]) / 2, (first[1] + last[1]) / 2];
        assert!(log.iter().any(|at| at[0].abs_diff(middle[0]) < 3 && at[1].abs_diff(middle[1]) < 3));
    }

    #[test]
    fn ticks_are_round_and_within() {
        let labels = |low: f64, high: f64, scale| {
            let span = Span::of([low, high].into_iter(), scale, false);
            span.ticks(300, 50).into_iter().map(|(_, label)| label).collect::<Vec<_>>()
        };
        assert_eq!(labels(0.0, 1.0, Scale::Linear), ["0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(labels(0.0, 20_000.0, Scale::Linear), ["0", "5,000", "10,000", "15,000", "20,000"]);
        assert_eq!(labels(-2.0, 2.0, Scale::Linear), ["−2", "−1", "0", "1", "2"]);
        assert_eq!(labels(1e-6, 1e-3, Scale::Log), ["1e−6", "1e−5", "1e−4", "0.001"]);
        assert_eq!(labels(0.5, 5.0, Scale::Log), ["0.5", "1", "2", "5"]);
        assert_eq!(labels(2.0, 2.4, Scale::Log), ["2.0", "2.1", "2.2", "2.3", "2.4"]);
        assert!((2..12).contains(&labels(1e-12, 1e12, Scale::Log).len()));
    }

    #[test]
    fn many_points_draw_as_few() {
        let points: Vec<[f32; 2]> = (0..100_000).map(|i| [i as f32 / 500.0, (i % 97) as f32]).collect();
        let few = thinned(&points);
        assert!(few.len() <= 4 * 200, "{}", few.len());
        for run in few.chunk_by(|a, b| a[0].floor() == b[0].floor()) {
            assert!(run.iter().any(|place| place[1] == 0.0) && run.iter().any(|place| place[1] == 96.0));
        }
        assert_eq!(thinned(&points[..3]), points[..3]);
    }

    #[test]
    fn any_points_and_any_size_can_be_drawn() {
        let odd =
            [[0.0, f64::NAN], [f64::INFINITY, 1.0], [1.0, -1.0], [2.0, 1e300], [3.0, 1e-300], [4.0, 5.0], [4.0, 6.0]];
        for scale in [Scale::Linear, Scale::Log] {
            for points in
                [&odd[..], &odd[..1], &[], &[[7.0, 3.0]], &[[7.0, 0.0], [7.0, 0.0]], &[[-1e15, 1e15], [1e15, -1e15]]]
            {
                let mut chart = chart(scale, points);
                chart.panels[0].right = Some(chart.panels[0].left.clone());
                chart.title = "椅子 🪑 \u{202e}\0".repeat(50);
                chart.panels.push(chart.panels[0].clone());
                for (width, height) in [(1, 1), (60, 900), (900, 60), (400, 300)] {
                    let image = chart.draw(width, height).unwrap();
                    assert_eq!((image.width(), image.height()), (width, height));
                }
            }
        }
        assert!(chart(Scale::Linear, &[]).draw(0, 5).is_err());
    }
}
