//! Units of coordinates.

use std::fmt;

use super::PointCloud;

/// A unit of length for coordinates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unit {
    /// Metres.
    Metre,
    /// Centimetres.
    Centimetre,
    /// Millimetres.
    Millimetre,
    /// International feet.
    Foot,
    /// US survey feet.
    UsSurveyFoot,
    /// Degrees of longitude and latitude: not a length.
    Degree,
}

impl Unit {
    /// Metres per unit; `None` for degrees.
    pub fn metres(self) -> Option<f64> {
        match self {
            Self::Metre => Some(1.0),
            Self::Centimetre => Some(0.01),
            Self::Millimetre => Some(0.001),
            Self::Foot => Some(0.3048),
            Self::UsSurveyFoot => Some(1200.0 / 3937.0),
            Self::Degree => None,
        }
    }

    /// Its symbol, as behind a number: "m".
    #[must_use]
    pub fn symbol(self) -> &'static str {
        match self {
            Self::Metre => "m",
            Self::Centimetre => "cm",
            Self::Millimetre => "mm",
            Self::Foot | Self::UsSurveyFoot => "ft",
            Self::Degree => "°",
        }
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Metre => "metres",
            Self::Centimetre => "centimetres",
            Self::Millimetre => "millimetres",
            Self::Foot => "feet",
            Self::UsSurveyFoot => "US survey feet",
            Self::Degree => "degrees",
        })
    }
}

/// Guess of the unit of the coordinates.
#[derive(Clone, Debug, PartialEq)]
pub struct UnitGuess {
    /// The unit, or `None` if there is no clear guess.
    pub unit: Option<Unit>,
    /// True if the file states the unit, false if it is inferred from sizes.
    pub stated: bool,
    /// True if the coordinates lie far from zero, like those of a map grid.
    pub map_coordinates: bool,
    /// Reason, in words.
    pub reason: String,
}

pub(super) fn guess(cloud: &PointCloud) -> UnitGuess {
    let Some((lo, hi)) = cloud.bounds() else {
        return UnitGuess {
            unit: cloud.unit,
            stated: cloud.unit.is_some(),
            map_coordinates: false,
            reason: "there are no finite points".into(),
        };
    };
    let pairs = || lo.iter().zip(&hi);
    let extent = pairs().map(|(a, b)| b - a).fold(0.0, f64::max);
    let height = pairs().map(|(a, b)| b - a).fold(f64::INFINITY, f64::min);
    let far = pairs().map(|(a, b)| (a * 0.5 + b * 0.5).abs()).fold(0.0, f64::max);
    let map_coordinates = far > 10_000.0 && far > 4.0 * extent;
    let answer = |unit, stated, reason: String| UnitGuess { unit, stated, map_coordinates, reason };
    if let Some(unit) = cloud.unit {
        return answer(Some(unit), true, "the file says so".into());
    }
    let size = format!("the extent is {extent:.3}");
    if map_coordinates {
        let reason = format!(
            "coordinates up to {far:.0} with an extent of {extent:.0} are a map grid; grids are mostly in metres, the file does not say"
        );
        return answer(Some(Unit::Metre), false, reason);
    }
    // In metres a scanned room, building or object is between a few centimetres and a kilometre, and no
    // scanner leaves tens of metres between points. A room in millimetres is also high; terrain of that
    // width in metres is flat in comparison.
    match extent {
        0.0 => answer(None, false, "all points coincide".into()),
        e if e < 0.005 => answer(None, false, format!("{size}: too small for any unit, perhaps normalised")),
        e if e <= 300.0 => {
            answer(Some(Unit::Metre), false, format!("{size}, as of an object, a room or a building in metres"))
        }
        e => match cloud.spacing() {
            Some(spacing) if height >= 800.0 && spacing >= 0.5 && e < 500_000.0 => answer(
                Some(Unit::Millimetre),
                false,
                format!("{size} with points {spacing:.2} apart: a room in millimetres"),
            ),
            Some(spacing) if spacing < 2.0 => answer(
                Some(Unit::Metre),
                false,
                format!("{size} with points {spacing:.2} apart, as of a site in metres"),
            ),
            _ => answer(None, false, format!("{size}, which fits several units")),
        },
    }
}
