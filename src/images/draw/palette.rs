//! Colours of classes.

/// Twelve colours chosen by hand. Each further one was chosen as far as possible, in Oklab space, from those
/// before and from black, grey and white. None is too pale or too dark to be seen as a tint over a photo.
const COLORS: [[u8; 3]; 64] = [
    [58, 124, 236],
    [242, 122, 30],
    [44, 166, 80],
    [220, 70, 170],
    [248, 204, 56],
    [36, 184, 180],
    [132, 82, 220],
    [216, 46, 52],
    [162, 206, 48],
    [146, 94, 52],
    [112, 198, 252],
    [252, 160, 190],
    [0, 255, 216],
    [0, 112, 128],
    [192, 136, 255],
    [144, 56, 120],
    [40, 112, 0],
    [192, 128, 144],
    [168, 144, 24],
    [40, 72, 216],
    [136, 255, 96],
    [128, 152, 208],
    [255, 96, 128],
    [184, 224, 168],
    [255, 112, 224],
    [112, 104, 160],
    [200, 176, 112],
    [40, 216, 152],
    [208, 192, 255],
    [16, 144, 176],
    [200, 0, 112],
    [176, 40, 176],
    [168, 40, 0],
    [104, 128, 72],
    [255, 192, 152],
    [152, 232, 255],
    [168, 112, 192],
    [176, 88, 112],
    [32, 200, 56],
    [200, 96, 0],
    [0, 168, 255],
    [200, 88, 232],
    [136, 120, 255],
    [112, 64, 168],
    [128, 184, 104],
    [32, 104, 184],
    [255, 160, 0],
    [255, 160, 255],
    [0, 224, 224],
    [192, 160, 216],
    [255, 72, 40],
    [216, 232, 0],
    [104, 96, 0],
    [255, 152, 120],
    [64, 152, 128],
    [64, 232, 96],
    [128, 200, 176],
    [216, 120, 192],
    [136, 72, 80],
    [0, 144, 0],
    [216, 96, 96],
    [176, 128, 88],
    [232, 48, 112],
    [184, 176, 16],
];

/// Returns the colour of a class. It does not depend on the number of classes.
///
/// The first 64 are clearly distinct. A darker and a lighter series follow. From 192 on the colours repeat.
#[must_use]
pub fn class_color(class: usize) -> [u8; 3] {
    let color = COLORS[class % COLORS.len()];
    let (toward, share) = match class / COLORS.len() % 3 {
        0 => return color,
        1 => (0, 0.4),
        _ => (255, 0.5),
    };
    super::mix(color, [toward; 3], share)
}

/// Returns the colours of the first `n` classes, see [`class_color`].
#[must_use]
pub fn palette(n: usize) -> Vec<[u8; 3]> {
    (0..n).map(class_color).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Converts an sRGB colour to Oklab coordinates, as Ottosson defines them.
    pub(in super::super) fn oklab(color: [u8; 3]) -> [f64; 3] {
        let [r, g, b] = color.map(|value| {
            let value = f64::from(value) / 255.0;
            if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
        });
        let l = (0.412_221_470_8 * r + 0.536_332_536_3 * g + 0.051_445_992_9 * b).cbrt();
        let m = (0.211_903_498_2 * r + 0.680_699_545_1 * g + 0.107_396_956_6 * b).cbrt();
        let s = (0.088_302_461_9 * r + 0.281_718_837_6 * g + 0.629_978_700_5 * b).cbrt();
        [
            0.210_454_255_3 * l + 0.793_617_785_0 * m - 0.004_072_046_8 * s,
            1.977_998_495_1 * l - 2.428_592_205_0 * m + 0.450_593_709_9 * s,
            0.025_904_037_1 * l + 0.782_771_766_2 * m - 0.808_675_766_0 * s,
        ]
    }

    fn closest_pair(colors: &[[u8; 3]]) -> f64 {
        let points: Vec<_> = colors.iter().map(|&color| oklab(color)).collect();
        let distance = |a: &[f64; 3], b: &[f64; 3]| a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt();
        let pairs = (0..points.len()).flat_map(|i| (0..i).map(move |j| (i, j)));
        pairs.map(|(i, j)| distance(&points[i], &points[j])).fold(f64::INFINITY, f64::min)
    }

    #[test]
    fn colors_are_distinct() {
        // A difference of 0.02 is just visible side by side.
        assert!(closest_pair(&palette(20)) > 0.12);
        assert!(closest_pair(&palette(64)) > 0.075);
        assert!(closest_pair(&palette(192)) > 0.005);
    }

    #[test]
    fn colors_are_stable() {
        assert_eq!(palette(3), [[58, 124, 236], [242, 122, 30], [44, 166, 80]]);
        assert_eq!(palette(300)[..40], palette(40));
        assert_eq!(class_color(64), [35, 74, 142]);
        assert_eq!(class_color(192), class_color(0));
        assert!(palette(0).is_empty());
    }
}
