//! Styles of homes: what sets one data set of rooms apart from another.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Style of the homes of a data set. The two differ as two data sets do: in size and plan, in materials and the
/// designs of furniture, in light, and in how a home is scanned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HomeStyle {
    /// Flats: one to three rooms 2.4 to 2.75 m high in pale paints, most with little daylight, filmed by somebody who
    /// walks through them with a tablet's depth camera.
    #[default]
    Flat,
    /// Villas: mostly two or three rooms, a quarter larger and 2.7 to 3.3 m high, in strong paints and dark woods, by
    /// day and with lamps on, recorded by a camera that turns on a stand, with a wide view and a sensor that reaches
    /// farther and is less noisy.
    Villa,
}

impl HomeStyle {
    /// All styles.
    pub const ALL: [Self; 2] = [Self::Flat, Self::Villa];

    /// True for the usual style, which files do not name.
    pub(super) fn is_usual(&self) -> bool {
        *self == Self::default()
    }

    /// The numbers that make the style.
    pub(super) fn traits(self) -> &'static Traits {
        match self {
            Self::Flat => &FLAT,
            Self::Villa => &VILLA,
        }
    }
}

impl fmt::Display for HomeStyle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Flat => "flat",
            Self::Villa => "villa",
        })
    }
}

/// There is no style of this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no style of homes; expected flat or villa")]
pub struct UnknownHomeStyle(String);

impl FromStr for HomeStyle {
    type Err = UnknownHomeStyle;

    fn from_str(name: &str) -> Result<Self, UnknownHomeStyle> {
        let found = Self::ALL.into_iter().find(|style| style.to_string() == name);
        found.ok_or_else(|| UnknownHomeStyle(name.to_owned()))
    }
}

/// Numbers of a style of homes.
#[derive(Debug)]
pub(super) struct Traits {
    /// Seed of its catalogue of materials and designs. It is the same for every seed of a data set.
    pub catalogue: u64,
    /// Colours of walls and of woods, as 0xRRGGBB.
    pub paints: &'static [u32],
    pub woods: &'static [[u32; 2]],
    /// Shares of homes with one room, and with two at most.
    pub room_shares: [f32; 2],
    /// Factor of the rooms' width and depth.
    pub size: f32,
    /// Least and largest height of rooms, in metres.
    pub heights: [f32; 2],
    /// Probability of daylight, and of lamps that are on by day.
    pub daylight: f32,
    pub lamps: f32,
    /// True if the camera turns on a stand, false if somebody walks with it.
    pub on_stand: bool,
    /// Least and largest focal length, as a share of the picture's width.
    pub focal: [f32; 2],
    /// Factors of the distances that the sensor measures, and of its noise.
    pub reach: f32,
    pub noise: f32,
}

const FLAT: Traits = Traits {
    catalogue: 0x6765_6f70_7572_6966,
    paints: &[
        0xece8df, 0xf3efe4, 0xdfe4e6, 0xe8dcc3, 0xd5dccb, 0xcfd9e2, 0xe9d3c4, 0xd8cfc4, 0xb9c9c4, 0xe6e0ef, 0xd9c7a8,
        0xb7c6d6, 0xf1e3b8, 0xc7d3b4,
    ],
    woods: &[
        [0xc9a26c, 0xa87d4a],
        [0x8a5a35, 0x613a20],
        [0x5b3a26, 0x38221a],
        [0xe2c79b, 0xc7a473],
        [0xa9713f, 0x824f28],
        [0x4a3530, 0x2c1f1c],
        [0xb98d62, 0x95683f],
        [0xd8bfa0, 0xb89a78],
        [0x76503c, 0x4f3225],
        [0x9c8874, 0x776553],
    ],
    room_shares: [0.55, 0.87],
    size: 1.0,
    heights: [2.4, 2.75],
    daylight: 0.72,
    lamps: 0.4,
    on_stand: false,
    focal: [0.80, 0.92],
    reach: 1.0,
    noise: 1.0,
};

const VILLA: Traits = Traits {
    catalogue: 0x7669_6c6c_6120_3032,
    paints: &[
        0xf4f1ea, 0xb9876a, 0x8fa39b, 0x6f8496, 0xc9b37e, 0xa3574c, 0x5f7d6b, 0xd9cbb2, 0x8c7a9c, 0xcfa98f, 0x9aa7ad,
        0xe3d9c6,
    ],
    woods: &[
        [0x4b2a1b, 0x2e1911],
        [0x5e3523, 0x3c2016],
        [0x3a2a22, 0x211813],
        [0x7a4a2b, 0x55301b],
        [0x8d6a4a, 0x6a4c33],
        [0x6b6258, 0x4c453e],
    ],
    room_shares: [0.2, 0.65],
    size: 1.25,
    heights: [2.7, 3.3],
    daylight: 0.92,
    lamps: 0.85,
    on_stand: true,
    focal: [0.58, 0.66],
    reach: 1.5,
    noise: 0.6,
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn styles_are_read_by_their_names_and_share_no_material() {
        for style in HomeStyle::ALL {
            assert_eq!(style.to_string().parse(), Ok(style));
        }
        let message = "house".parse::<HomeStyle>().unwrap_err().to_string();
        assert_eq!(message, "'house' is no style of homes; expected flat or villa");
        let [flat, villa] = HomeStyle::ALL.map(HomeStyle::traits);
        assert!(flat.catalogue != villa.catalogue && flat.paints.iter().all(|paint| !villa.paints.contains(paint)));
        assert!(flat.woods.iter().all(|wood| !villa.woods.contains(wood)));
    }
}
