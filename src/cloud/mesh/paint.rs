//! Colours of vertices from the colours of faces and from pictures.

use std::rc::Rc;

use glam::DVec3;

use super::refine::Pieces;
use super::{GREY, Look, Mesh};
use crate::images::Rgb8Image;

/// What a picture shows outside of its borders.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Wrap {
    /// The picture again.
    #[default]
    Repeat,
    /// The picture in a mirror.
    Mirror,
    /// The pixels of the border.
    Clamp,
}

/// A picture on a surface.
#[derive(Clone, Debug)]
pub(crate) struct Skin {
    pub picture: Rc<Rgb8Image>,
    /// Factors of red, green and blue, in linear light.
    pub factor: [f32; 3],
    /// Across and down.
    pub wrap: [Wrap; 2],
}

impl Skin {
    pub(in crate::cloud) fn new(picture: Rc<Rgb8Image>) -> Self {
        Self { picture, factor: [1.0; 3], wrap: [Wrap::Repeat; 2] }
    }

    /// Colour of the pixel at a place.
    fn at(&self, place: [f32; 2]) -> [u8; 3] {
        let (width, height) = (self.picture.width(), self.picture.height());
        let x = pixel(place[0], width, self.wrap[0]);
        let y = pixel(place[1], height, self.wrap[1]);
        let color = self.picture.pixels().get(y * width + x).copied().unwrap_or(GREY);
        if self.factor == [1.0; 3] {
            return color;
        }
        std::array::from_fn(|channel| to_srgb(to_linear(color[channel]) * self.factor[channel]))
    }
}

fn pixel(place: f32, size: usize, wrap: Wrap) -> usize {
    let inside = match wrap {
        _ if (0.0..=1.0).contains(&place) => place,
        Wrap::Repeat => place.rem_euclid(1.0),
        Wrap::Mirror => 1.0 - (place.rem_euclid(2.0) - 1.0).abs(),
        Wrap::Clamp => place.clamp(0.0, 1.0),
    };
    // A place that is no number becomes 0.
    ((inside * size as f32) as usize).min(size.saturating_sub(1))
}

/// Linear light, 0 to 1, of a stored value.
fn to_linear(value: u8) -> f32 {
    let x = f32::from(value) / 255.0;
    if x <= 0.040_45 { x / 12.92 } else { ((x + 0.055) / 1.055).powf(2.4) }
}

/// Stored value of linear light.
pub(super) fn to_srgb(light: f32) -> u8 {
    let light = light.clamp(0.0, 1.0);
    let x = if light <= 0.003_130_8 { light * 12.92 } else { 1.055 * light.powf(1.0 / 2.4) - 0.055 };
    (x * 255.0).round() as u8
}

/// Colour of the surface beside a vertex, in one triangle.
#[derive(Clone, Copy, Default)]
struct Sample {
    color: [u8; 3],
    /// Angle of the triangle at the vertex, in parts of a half turn of 255.
    weight: u8,
}

/// Places within a triangle where the colour beside its first corner is looked up, as weights of the
/// corners. They lie nearer to this corner than to the others.
const BESIDE: [[f32; 3]; 3] = [[0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.6, 0.1, 0.3]];

/// Returns a colour for each vertex: among the colours of the triangles around it the one that is nearest
/// to their mean. So no colour is made that the surface does not have.
pub(super) fn colors_of_vertices(mesh: &Mesh, pieces: Option<&Pieces>) -> Vec<[u8; 3]> {
    let cloud = &mesh.cloud;
    let triangles = pieces.map_or(&cloud.faces, |pieces| &pieces.triangles);
    let parent = |triangle: usize| match pieces {
        Some(pieces) => pieces.parents.get(triangle).map_or(0, |&parent| parent as usize),
        None => triangle,
    };
    let look = |triangle: usize| mesh.looks.get(parent(triangle)).copied().unwrap_or(Look::Vertices);
    let mut starts = vec![0_usize; cloud.len() + 1];
    for (i, triangle) in triangles.iter().enumerate() {
        if look(i) != Look::Vertices {
            triangle.iter().for_each(|&vertex| starts[vertex as usize + 1] += 1);
        }
    }
    let mut sum = 0;
    for start in &mut starts {
        sum += *start;
        *start = sum;
    }
    let mut samples = vec![Sample::default(); sum];
    let mut ends = starts.clone();
    for (i, &triangle) in triangles.iter().enumerate() {
        let look = look(i);
        if look == Look::Vertices {
            continue;
        }
        let corners = triangle.map(|vertex| DVec3::from(cloud.positions[vertex as usize]));
        let places = match look {
            Look::Skin(_) => places_of(mesh, parent(i), corners),
            _ => [[0.0; 2]; 3],
        };
        for k in 0..3 {
            let turned = [k, (k + 1) % 3, (k + 2) % 3];
            let [at, next, last] = turned.map(|k| corners[k]);
            let angle = (next - at).angle_between(last - at);
            let weight = ((angle / std::f64::consts::PI * 255.0).round() as u8).max(1);
            let color = match look {
                Look::Flat(color) => color,
                Look::Skin(skin) => beside(mesh, skin, turned.map(|k| places[k])),
                Look::Vertices => GREY,
            };
            let end = &mut ends[triangle[k] as usize];
            samples[*end] = Sample { color, weight };
            *end += 1;
        }
    }
    (0..cloud.len())
        .map(|vertex| {
            let own = cloud.colors.as_ref().and_then(|colors| colors.get(vertex)).copied();
            chosen(&samples[starts[vertex]..ends[vertex]]).or(own).unwrap_or(GREY)
        })
        .collect()
}

/// The sample that is nearest to the mean of all. Of about equal ones the last counts.
fn chosen(samples: &[Sample]) -> Option<[u8; 3]> {
    let mut mean = [0.0; 3];
    let mut total = 0.0;
    for sample in samples {
        let weight = f32::from(sample.weight);
        total += weight;
        (0..3).for_each(|channel| mean[channel] += weight * f32::from(sample.color[channel]));
    }
    let mut best = (f32::INFINITY, None);
    for sample in samples {
        let off = |channel: usize| mean[channel] / total - f32::from(sample.color[channel]);
        let distance: f32 = (0..3).map(|channel| off(channel).powi(2)).sum();
        if distance <= best.0 * 1.05 + 1.0 {
            best = (distance.min(best.0), Some(sample.color));
        }
    }
    best.1
}

/// Places of the corners of a piece of triangle `parent` in its picture.
fn places_of(mesh: &Mesh, parent: usize, corners: [DVec3; 3]) -> [[f32; 2]; 3] {
    let (Some(face), Some(places)) = (mesh.cloud.faces.get(parent), mesh.places.get(parent)) else {
        return [[0.0; 2]; 3];
    };
    let [a, b, c] = face.map(|vertex| DVec3::from(mesh.cloud.positions[vertex as usize]));
    if corners == [a, b, c] {
        return *places;
    }
    let normal = (b - a).cross(c - a);
    let double_area = normal.length_squared();
    corners.map(|at| {
        let part = |from: DVec3, to: DVec3| (from - at).cross(to - at).dot(normal) / double_area;
        let weights = [part(b, c), part(c, a), part(a, b)].map(|weight| weight.clamp(0.0, 1.0));
        let sum: f64 = weights.iter().sum();
        let mix = |axis: usize| (0..3).map(|k| weights[k] / sum * f64::from(places[k][axis])).sum::<f64>() as f32;
        if sum > 0.0 { [mix(0), mix(1)] } else { places[0] }
    })
}

/// Colour of a picture beside the first corner of a triangle.
fn beside(mesh: &Mesh, skin: u32, places: [[f32; 2]; 3]) -> [u8; 3] {
    let Some(skin) = mesh.skins.get(skin as usize) else { return GREY };
    let colors = BESIDE.map(|weights| {
        skin.at(std::array::from_fn(|axis| (0..3).map(|corner| weights[corner] * places[corner][axis]).sum()))
    });
    std::array::from_fn(|channel| {
        let sum: u32 = colors.iter().map(|color| u32::from(color[channel])).sum();
        ((sum + 1) / 3) as u8
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_outside_of_a_picture() {
        let cases = [
            (0.25, 1, 1, 1),
            (1.0, 3, 3, 3),
            (1.25, 1, 3, 3),
            (-0.25, 3, 1, 0),
            (-1.25, 3, 3, 0),
            (f32::NAN, 0, 0, 0),
            (f32::INFINITY, 0, 0, 3),
        ];
        for (place, repeat, mirror, clamp) in cases {
            let found = [Wrap::Repeat, Wrap::Mirror, Wrap::Clamp].map(|wrap| pixel(place, 4, wrap));
            assert_eq!(found, [repeat, mirror, clamp], "{place}");
        }
    }

    #[test]
    fn linear_light_and_back() {
        for value in 0..=255 {
            assert_eq!(to_srgb(to_linear(value)), value);
        }
        // Half the light is not half the stored value.
        assert_eq!((to_srgb(0.5), to_srgb(2.0), to_srgb(f32::NAN)), (188, 255, 0));
    }

    #[test]
    fn a_vertex_takes_a_colour_that_is_there() {
        let sample = |color, weight| Sample { color, weight };
        let (red, blue) = ([200, 30, 30], [30, 30, 200]);
        assert_eq!(chosen(&[sample(red, 64), sample(blue, 192)]), Some(blue));
        assert_eq!(chosen(&[sample(red, 192), sample(blue, 64)]), Some(red));
        assert_eq!(chosen(&[sample(red, 128), sample(blue, 64), sample(blue, 64)]), Some(blue));
        assert_eq!(chosen(&[sample(blue, 128), sample(red, 128)]), Some(red));
        assert_eq!(chosen(&[]), None);
    }
}
