//! Curves over a common axis, with ticks, names and a legend.

use std::iter::zip;
use std::ops::Range;
use std::sync::Once;

use image::{Rgb, RgbImage, imageops};
use plotters::coord::Shift;
use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint};
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::register_font;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::legend::{BACKGROUND, BOLDNESS, SHARE_COLOR, TEXT_COLOR};
use super::mix;
use super::text::{Face, regular_font};
use crate::images::{ImageError, Rgb8Image, area};

/// The name under which the font is known to `plotters`.
const FONT: &str = "geopurify";

const GRID_COLOR: [u8; 3] = [232, 232, 236];
const FRAME_COLOR: [u8; 3] = [172, 172, 178];

/// A chart is drawn this many times as wide and high, and then reduced: the strokes of `plotters` have hard edges.
const FINE: i32 = 4;

// Lengths, in pixels of the large picture.
const TITLE_SIZE: i32 = 22 * FINE;
const TEXT_SIZE: i32 = 16 * FINE;
const MARGIN: i32 = 20 * FINE;
const GAP: i32 = 9 * FINE;
const TICK: i32 = 4 * FINE;
/// Heights in pixels: title and legend, an axis' name above its plot, the ticks below a plot, and values and name
/// below the last plot.
const HEAD: i32 = 46 * FINE;
const NAME: i32 = 26 * FINE;
const BELOW: i32 = 26 * FINE;
const FOOT: i32 = 52 * FINE;
/// Length of a line in the legend, in pixels.
const SAMPLE: i32 = 22 * FINE;
/// Space that one tick's label wants along its axis.
const TICK_ROOM: [i32; 2] = [110 * FINE, 46 * FINE];
/// Smallest plot that is drawn.
const SMALLEST: i32 = 24 * FINE;

/// Largest number that f64 and tick labels tell apart from its neighbours.
const LARGEST: f64 = 1e15;

type Area<'a> = DrawingArea<BitMapBackend<'a>, Shift>;
type Drawn<T = ()> = Result<T, DrawingAreaErrorKind<<BitMapBackend<'static> as DrawingBackend>::ErrorType>>;

/// How values become heights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Evenly.
    Linear,
    /// By their logarithm; what is not positive is not drawn.
    Log,
}

impl Scale {
    /// The quantity that is even along the axis: the value, or its logarithm to the base 10.
    fn even(self, value: f64) -> f64 {
        if self == Self::Log { value.log10() } else { value }
    }

    /// The value at a place that [`Self::even`] gave.
    fn value(self, even: f64) -> f64 {
        if self == Self::Log { 10_f64.powf(even) } else { even }
    }
}

/// A line through points.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    /// Its name in the legend. A curve without a name has no line there.
    pub name: String,
    /// Its colour.
    pub color: [u8; 3],
    /// 0 is invisible, 1 hides what is below.
    pub opacity: f32,
    /// Thickness in pixels.
    pub width: f32,
    /// True if every point has a dot.
    pub dots: bool,
    /// (x, y); points that are not finite are left out.
    pub points: Vec<[f64; 2]>,
}

/// A vertical axis with its curves.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    /// Text above the axis.
    pub name: String,
    /// How values become heights.
    pub scale: Scale,
    /// Later ones are drawn over earlier ones, and all over those that are fainter.
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
    /// Text above the plots.
    pub title: String,
    /// Name of the horizontal axis.
    pub x_name: String,
    /// The plots from top to bottom.
    pub panels: Vec<Panel>,
}

impl Chart {
    /// Draws the chart. Axes span their curves; without any point they are empty.
    ///
    /// # Errors
    /// [`ImageError::Size`] unless there are 1 to [`MAX_PIXELS`](crate::images::MAX_PIXELS) pixels, 16 drawn for each of the
    /// picture's; [`ImageError::Chart`] if `plotters` fails.
    pub fn draw(&self, width: usize, height: usize) -> Result<Rgb8Image, ImageError> {
        let [wide, high] = [width, height].map(|length| length.saturating_mul(FINE as usize));
        area(wide, high)?;
        let mut large = RgbImage::from_pixel(wide as u32, high as u32, Rgb(BACKGROUND));
        let canvas = BitMapBackend::with_buffer(&mut large, (wide as u32, high as u32)).into_drawing_area();
        self.draw_on(&canvas).map_err(|error| ImageError::Chart { message: error.to_string() })?;
        drop(canvas);
        let reduced = imageops::thumbnail(&large, width as u32, height as u32);
        Rgb8Image::new(width, height, reduced.pixels().map(|pixel| pixel.0).collect())
    }

    fn draw_on(&self, canvas: &Area) -> Drawn {
        static REGISTERED: Once = Once::new();
        // A font that cannot be read is missed by the first text.
        REGISTERED.call_once(|| {
            let _ = register_font(FONT, FontStyle::Normal, regular_font());
        });
        let (width, height) = size(canvas);
        self.draw_head(canvas, width)?;

        let below = |panel: usize| if panel + 1 == self.panels.len() { FOOT + MARGIN } else { BELOW };
        let fixed: i32 = HEAD + (0..self.panels.len()).map(|panel| NAME + below(panel)).sum::<i32>();
        let total: f32 = self.panels.iter().map(|panel| panel.height).sum();
        let share = |panel: &Panel| ((height - fixed) as f32 * panel.height / total.max(f32::MIN_POSITIVE)) as i32;
        let heights: Vec<i32> = self.panels.iter().map(share).collect();

        let rulers: Vec<(Ruler, Option<Ruler>)> = zip(&self.panels, &heights)
            .map(|(panel, &height)| (panel.left.ruler(height), panel.right.as_ref().map(|axis| axis.ruler(height))))
            .collect();
        let mut left = 0;
        let mut right = MARGIN;
        for rulers in &rulers {
            left = left.max(rulers.0.room(canvas)?);
            right = right.max(rulers.1.as_ref().map_or(Ok(0), |ruler| ruler.room(canvas))?);
        }
        let plot_width = width - 2 * MARGIN - left - right;
        let all = self.axes().flat_map(|axis| axis.visible()).map(|[x, _]| x);
        let x = Ruler::of(all, Scale::Linear, false, plot_width / TICK_ROOM[0]);
        if heights.iter().any(|&height| height.min(plot_width) < SMALLEST) {
            return Ok(());
        }
        let (_, mut rest) = canvas.split_vertically(HEAD);
        for (i, panel) in self.panels.iter().enumerate() {
            let (area, next) = rest.split_vertically(NAME + heights[i] + below(i));
            let last = (i + 1 == self.panels.len()).then_some(self.x_name.as_str());
            panel.draw(
                &area.margin(0, 0, MARGIN, MARGIN),
                [&x, &rulers[i].0],
                rulers[i].1.as_ref(),
                [left, right],
                last,
            )?;
            rest = next;
        }
        Ok(())
    }

    fn axes(&self) -> impl Iterator<Item = &Axis> {
        self.panels.iter().flat_map(|panel| [Some(&panel.left), panel.right.as_ref()]).flatten()
    }

    /// The title to the left, the legend to the right of it.
    fn draw_head(&self, canvas: &Area, width: i32) -> Drawn {
        let middle = MARGIN + TITLE_SIZE / 2;
        let at_middle = Pos::new(HPos::Left, VPos::Center);
        // What has no glyph of its own is left out here.
        let face = Face { size: TITLE_SIZE as f32, boldness: BOLDNESS };
        let title = face.shortened(&self.title, (width - 2 * MARGIN).max(0) as f32 / 2.0);
        let style = text(TITLE_SIZE, TEXT_COLOR).pos(at_middle);
        canvas.draw_text(&title, &style, (MARGIN, middle))?;
        let end = MARGIN + text_width(canvas, &title, &style)? + 3 * GAP;

        let style = text(TEXT_SIZE, TEXT_COLOR).pos(at_middle);
        let mut x = width - MARGIN;
        let named: Vec<&Curve> = self.axes().flat_map(|axis| &axis.curves).filter(|c| !c.name.is_empty()).collect();
        for curve in named.into_iter().rev() {
            x -= text_width(canvas, &curve.name, &style)?;
            if x - GAP - SAMPLE < end {
                break;
            }
            canvas.draw_text(&curve.name, &style, (x, middle))?;
            x -= GAP;
            let line = [(x - SAMPLE, middle), (x, middle)];
            canvas.draw(&PathElement::new(line, curve.stroke()))?;
            if curve.dots {
                canvas.draw(&Circle::new((x - SAMPLE / 2, middle), curve.dot(), curve.stroke().filled()))?;
            }
            x -= SAMPLE + 5 * GAP / 2;
        }
        Ok(())
    }
}

impl Panel {
    /// Draws the plot. `rooms` are the widths of what is left and right of it.
    fn draw(
        &self,
        area: &Area,
        [x, left]: [&Ruler; 2],
        right: Option<&Ruler>,
        rooms: [i32; 2],
        x_name: Option<&str>,
    ) -> Drawn {
        let names = Pos::new(HPos::Left, VPos::Center);
        let grey = text(TEXT_SIZE, SHARE_COLOR);
        area.draw_text(&self.left.name, &grey.pos(names), (rooms[0], NAME / 2))?;
        let mut chart = ChartBuilder::on(area)
            .margin_top(NAME)
            .margin_bottom(if x_name.is_some() { MARGIN } else { BELOW - TICK })
            .set_label_area_size(LabelAreaPosition::Left, rooms[0])
            .set_label_area_size(LabelAreaPosition::Right, rooms[1])
            .set_label_area_size(LabelAreaPosition::Bottom, if x_name.is_some() { FOOT } else { TICK })
            .build_cartesian_2d(x.clone(), left.clone())?
            .set_secondary_coord(x.clone(), right.unwrap_or(left).clone());
        chart
            .configure_mesh()
            .bold_line_style(solid(GRID_COLOR).stroke_width(FINE as u32))
            .axis_style(solid(FRAME_COLOR).stroke_width(FINE as u32))
            .label_style(grey.clone())
            .set_all_tick_mark_size(TICK)
            .x_label_formatter(&|&tick| if x_name.is_some() { x.label(tick) } else { String::new() })
            .y_label_formatter(&|&tick| left.label(tick))
            .x_desc(x_name.unwrap_or_default())
            .draw()?;
        if let (Some(axis), Some(right)) = (&self.right, right) {
            let color = axis.curves.first().map_or(SHARE_COLOR, |curve| mix(curve.color, [0; 3], 0.25));
            let style = text(TEXT_SIZE, color);
            let end = Pos::new(HPos::Right, VPos::Center);
            area.draw_text(&axis.name, &style.pos(end), (size(area).0 - rooms[1], NAME / 2))?;
            chart
                .configure_secondary_axes()
                .axis_style(solid(FRAME_COLOR).stroke_width(FINE as u32))
                .label_style(style)
                .set_all_tick_mark_size(TICK)
                .y_label_formatter(&|&tick| right.label(tick))
                .draw()?;
        }
        for curve in self.left.in_order() {
            let places = self.left.places(curve);
            chart.draw_series(curve.lines(&places))?;
            chart.draw_series(curve.circles(&places))?;
        }
        for (axis, curve) in self.right.iter().flat_map(|axis| axis.in_order().map(move |curve| (axis, curve))) {
            let places = axis.places(curve);
            chart.draw_secondary_series(curve.lines(&places))?;
            chart.draw_secondary_series(curve.circles(&places))?;
        }
        Ok(())
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

    fn ruler(&self, length: i32) -> Ruler {
        Ruler::of(self.visible().map(|[_, y]| y), self.scale, true, length / TICK_ROOM[1])
    }

    /// The curves, faint ones first.
    fn in_order(&self) -> impl Iterator<Item = &Curve> {
        let faint = |curve: &&Curve| curve.opacity < 1.0;
        self.curves.iter().filter(faint).chain(self.curves.iter().filter(move |curve| !faint(curve)))
    }

    fn places(&self, curve: &Curve) -> Vec<(f64, f64)> {
        curve.points.iter().filter(|point| self.shows(point)).map(|&[x, y]| (x, y)).collect()
    }
}

impl Curve {
    /// How its lines look. Its colour is mixed with the ground's, so that lines that cross are not darker there.
    fn stroke(&self) -> ShapeStyle {
        solid(mix(BACKGROUND, self.color, self.opacity))
            .stroke_width((self.width * FINE as f32).round().max(1.0) as u32)
    }

    /// Radius of its dots.
    fn dot(&self) -> i32 {
        ((self.width + 1.5) * FINE as f32).round() as i32
    }

    /// Each line by itself: the outline of a long path would cross itself.
    fn lines(&self, places: &[(f64, f64)]) -> impl Iterator<Item = PathElement<(f64, f64)>> {
        places.windows(2).map(move |pair| PathElement::new(pair, self.stroke()))
    }

    /// Draws discs: the round joints of lines, or dots.
    fn circles(&self, places: &[(f64, f64)]) -> impl Iterator<Item = Circle<(f64, f64), i32>> {
        let radius = if self.dots || places.len() == 1 { self.dot() } else { self.stroke().stroke_width as i32 / 2 };
        places.iter().map(move |&place| Circle::new(place, radius, self.stroke().filled()))
    }
}

/// The values an axis shows, and its ticks.
#[derive(Clone)]
struct Ruler {
    scale: Scale,
    /// Ends, in the unit that is even along the axis.
    low: f64,
    high: f64,
    ticks: Vec<f64>,
    /// From tick to tick, where all are equally far apart.
    step: Option<f64>,
}

impl Ruler {
    /// Spans all values, with a little space around them if there is to be `room`, and about `count` ticks.
    fn of(values: impl Iterator<Item = f64>, scale: Scale, room: bool, count: i32) -> Self {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for even in values.map(|value| scale.even(value)) {
            (low, high) = (low.min(even), high.max(even));
        }
        if low > high {
            (low, high) = (0.0, 1.0);
        }
        // A single value is in the middle of something.
        let least = match scale {
            Scale::Log => 0.02,
            Scale::Linear if high == 0.0 => 1.0,
            Scale::Linear => 0.05 * high.abs(),
        };
        if high - low < 0.02 * least {
            let middle = 0.5 * (low + high);
            (low, high) = (middle - least, middle + least);
        }
        if room {
            let space = 0.04 * (high - low);
            // What starts at nothing keeps its foot on the axis.
            low = if scale == Scale::Linear && low >= 0.0 && low < space { 0.0 } else { low - space };
            high += space;
        }
        let count = (count + 1).clamp(2, 11) as usize;
        if scale == Scale::Log && high - low >= 0.9 {
            return Self { scale, low, high, ticks: decades(low, high, count), step: None };
        }
        let ticks = RangedCoordf64::from(scale.value(low)..scale.value(high)).key_points(count);
        let step = ticks.windows(2).map(|pair| pair[1] - pair[0]).next();
        Self { scale, low, high, ticks, step }
    }

    /// Width of the widest label beside the axis, with its tick.
    fn room(&self, canvas: &Area) -> Drawn<i32> {
        let style = text(TEXT_SIZE, SHARE_COLOR);
        let mut widest = 0;
        for &tick in &self.ticks {
            widest = widest.max(text_width(canvas, &self.label(tick), &style)?);
        }
        Ok(widest + 3 * TICK)
    }

    /// The text of a tick.
    fn label(&self, tick: f64) -> String {
        label(tick, self.step.unwrap_or(tick.abs()))
    }
}

impl Ranged for Ruler {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, pixels: (i32, i32)) -> i32 {
        RangedCoordf64::from(self.low..self.high).map(&self.scale.even(*value), pixels)
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        self.ticks.clone()
    }

    fn range(&self) -> Range<f64> {
        self.scale.value(self.low)..self.scale.value(self.high)
    }
}

/// Powers of ten between the logarithms `low` and `high`, with twice and five times them where there are few.
fn decades(low: f64, high: f64, count: usize) -> Vec<f64> {
    let factors: &[f64] = if 3.0 * (high - low) <= count as f64 { &[1.0, 2.0, 5.0] } else { &[1.0] };
    let each = ((high - low) / count as f64).ceil().max(1.0) as i32;
    let powers = (low.floor() as i32..=high.ceil() as i32).filter(|power| power.rem_euclid(each) == 0);
    let values = powers.flat_map(|power| factors.iter().map(move |factor| factor * 10_f64.powi(power)));
    values.filter(|value| (low - 1e-9..=high + 1e-9).contains(&value.log10())).collect()
}

/// A tick's value, with the digits that `step` asks for.
fn label(value: f64, step: f64) -> String {
    if value == 0.0 {
        return "0".into();
    }
    // A step of 0.1 may be a little less.
    let power = (step.log10() + 1e-9).floor();
    // Small steps around a value that is not small are read more easily in full.
    if (step < 1.5e-4 && (value.abs() < 0.1 || step < 1e-6)) || value.abs() >= 1e9 {
        let digits = (value.abs().log10().floor() - power).clamp(0.0, 6.0) as usize;
        return format!("{value:.digits$e}").replace('-', "−");
    }
    let digits = (-power).clamp(0.0, 6.0) as usize;
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

fn solid([red, green, blue]: [u8; 3]) -> ShapeStyle {
    RGBColor(red, green, blue).into()
}

fn text(size: i32, [red, green, blue]: [u8; 3]) -> TextStyle<'static> {
    (FONT, size).into_font().color(&RGBColor(red, green, blue))
}

fn text_width(canvas: &Area, text: &str, style: &TextStyle) -> Drawn<i32> {
    Ok(canvas.estimate_text_size(text, style)?.0 as i32)
}

fn size(area: &Area) -> (i32, i32) {
    let (width, height) = area.dim_in_pixel();
    (width as i32, height as i32)
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
            let ruler = Ruler::of([low, high].into_iter(), scale, false, 5);
            ruler.ticks.iter().map(|&tick| ruler.label(tick)).collect::<Vec<_>>()
        };
        assert_eq!(labels(0.0, 1.0, Scale::Linear), ["0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(labels(0.0, 20_000.0, Scale::Linear), ["0", "5,000", "10,000", "15,000", "20,000"]);
        assert_eq!(labels(-2.0, 2.0, Scale::Linear), ["−2", "−1", "0", "1", "2"]);
        assert_eq!(labels(1e-6, 1e-3, Scale::Log), ["1e−6", "1e−5", "1e−4", "0.001"]);
        assert_eq!(labels(0.5, 5.0, Scale::Log), ["0.5", "1", "2", "5"]);
        assert_eq!(labels(1.98, 2.42, Scale::Log), ["2.0", "2.1", "2.2", "2.3", "2.4"]);
        assert!((2..12).contains(&labels(1e-12, 1e12, Scale::Log).len()));
    }

    #[test]
    fn a_single_value_is_a_dot_in_the_middle() {
        for (scale, value) in [(Scale::Linear, 0.0), (Scale::Linear, 3e-4), (Scale::Linear, -7e5), (Scale::Log, 4.2)] {
            let ruler = Ruler::of([value].into_iter(), scale, true, 5);
            assert_eq!(ruler.map(&value, (0, 1000)), 500, "{value}");
            assert!(ruler.ticks.len() >= 3, "{value}: {:?}", ruler.ticks);
            let image = chart(scale, &[[9.0, value]]).draw(400, 300).unwrap();
            let red = red(&image);
            let (first, last) = (red.iter().min().unwrap(), red.iter().max().unwrap());
            assert!((4..9).contains(&(last[0] - first[0])) && first[0].abs_diff(210) < 20, "{first:?} {last:?}");
            assert!(first[1].abs_diff(145) < 20, "{first:?}");
        }
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
                    assert_eq!(chart.draw(width, height).unwrap(), image);
                    assert_eq!((image.width(), image.height()), (width, height));
                }
            }
        }
        assert!(chart(Scale::Linear, &[]).draw(0, 5).is_err());
    }
}
