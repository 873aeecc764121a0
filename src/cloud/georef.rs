//! Coordinates on the globe, turned into metres: the rest of the library needs lengths, and z as up.

use glam::DVec3;

use super::PointCloud;
use super::aside::set_aside;
use super::data::Attribute;
use super::units::Unit;

/// Semi-major axis of the ellipsoid WGS 84, in metres, and the square of its eccentricity.
const AXIS: f64 = 6_378_137.0;
const SQUARED_ECCENTRICITY: f64 = 6.694_379_990_141_3e-3;
/// Widest extent in degrees for which one plane is a good map.
const WIDE: f64 = 1.0;
/// Distances from the centre of the earth in metres at which people scan.
const GROUND: std::ops::Range<f64> = 6_300_000.0..6_450_000.0;

/// Kind of coordinates on the globe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Globe {
    /// Longitude and latitude in degrees, and a height.
    Geographic,
    /// Metres from the centre of the earth.
    Geocentric,
}

/// Turns positions on the globe into metres east and north of the middle of the scan; the coordinates of
/// the file become attributes. Geographic heights stay as they are, multiplied by `metres_per_height`.
pub(super) fn to_local(cloud: &mut PointCloud, globe: Globe, metres_per_height: f64) {
    // Invalid returns at zero would move the middle, and are not at zero afterwards.
    set_aside(cloud);
    let Some((lo, hi)) = cloud.bounds() else { return };
    let middle: [f64; 3] = std::array::from_fn(|axis| f64::midpoint(lo[axis], hi[axis]));
    let names = match globe {
        Globe::Geographic => ["longitude", "latitude", "height"],
        Globe::Geocentric => ["geocentric_x", "geocentric_y", "geocentric_z"],
    };
    let plausible = match globe {
        Globe::Geographic => lo[0] >= -360.0 && hi[0] <= 360.0 && lo[1] >= -90.0 && hi[1] <= 90.0,
        Globe::Geocentric => GROUND.contains(&DVec3::from(middle).length()),
    };
    if !plausible {
        cloud.notes.push(
            "the file says that its coordinates are on the globe, which their size denies; they are read as they are"
                .into(),
        );
        return;
    }
    for (axis, name) in
        names.into_iter().enumerate().take(if globe == Globe::Geographic && metres_per_height == 1.0 { 2 } else { 3 })
    {
        let column: Vec<f64> = cloud.positions.iter().map(|p| p[axis]).collect();
        cloud.attributes.push(Attribute::new(name, column));
    }
    match globe {
        Globe::Geographic => from_degrees(&mut cloud.positions, middle, metres_per_height),
        Globe::Geocentric => from_centre(&mut cloud.positions, middle),
    }
    let how = match globe {
        Globe::Geographic => {
            format!("degrees, taken as metres east and north of longitude {:.6}, latitude {:.6}", middle[0], middle[1])
        }
        Globe::Geocentric => "geocentric, taken as metres east, north and up from the middle of the scan".into(),
    };
    cloud.notes.push(format!("the coordinates are {how}"));
    if globe == Globe::Geographic && (hi[0] - lo[0]).max(hi[1] - lo[1]) > WIDE {
        cloud.notes.push("the scan is wider than a degree: far from its middle, lengths are not exact".into());
    }
    cloud.unit = Some(Unit::Metre);
}

/// Radii of curvature of the ellipsoid at a latitude: of the meridian, and across it.
fn radii(latitude: f64) -> (f64, f64) {
    let w = 1.0 - SQUARED_ECCENTRICITY * latitude.sin().powi(2);
    (AXIS * (1.0 - SQUARED_ECCENTRICITY) / w.powf(1.5), AXIS / w.sqrt())
}

fn from_degrees(positions: &mut [[f64; 3]], middle: [f64; 3], metres_per_height: f64) {
    let latitude = middle[1].to_radians();
    let (meridian, across) = radii(latitude);
    let scale = [across * latitude.cos(), meridian].map(f64::to_radians);
    for [x, y, z] in positions {
        *x = (*x - middle[0]) * scale[0];
        *y = (*y - middle[1]) * scale[1];
        *z *= metres_per_height;
    }
}

fn from_centre(positions: &mut [[f64; 3]], middle: [f64; 3]) {
    let middle = DVec3::from(middle);
    // The normal of the ellipsoid: its z is less flat than that of the vector from the centre.
    let up = DVec3::new(middle.x, middle.y, middle.z / (1.0 - SQUARED_ECCENTRICITY)).normalize();
    let east = DVec3::Z.cross(up).try_normalize().unwrap_or(DVec3::Y);
    let north = up.cross(east);
    for p in positions {
        let offset = DVec3::from(*p) - middle;
        *p = [offset.dot(east), offset.dot(north), offset.dot(up)];
    }
}

/// A note if the extent of a scan looks like degrees, or like geocentric coordinates, without a word of it
/// in the file.
pub(super) fn note_unstated(cloud: &mut PointCloud) {
    let Some((lo, hi)) = cloud.bounds().filter(|_| cloud.unit.is_none()) else { return };
    let size: [f64; 3] = std::array::from_fn(|axis| hi[axis] - lo[axis]);
    let flat = size[0].max(size[1]);
    let on_map = lo[0] >= -180.0 && hi[0] <= 180.0 && lo[1] >= -90.0 && hi[1] <= 90.0;
    // A scan of some metres in a place that is not zero, and some hundred-thousandths wide.
    let far = lo[0].abs().max(lo[1].abs()) > 1.0;
    if on_map && far && flat > 0.0 && flat < 0.2 && size[2] > 100.0 * flat {
        cloud.notes.push(
            "the coordinates look like degrees of longitude and latitude, which the file does not say: if so, \
             project the scan to metres first"
                .into(),
        );
    }
    let middle = DVec3::from(std::array::from_fn(|axis| f64::midpoint(lo[axis], hi[axis])));
    if GROUND.contains(&middle.length()) && middle.z.abs() > flat {
        cloud.notes.push(
            "the coordinates look geocentric, which the file does not say: if so, up is none of the axes, and \
             the scan has to be turned upright first"
                .into(),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Geocentric coordinates of a place.
    fn geocentric(longitude: f64, latitude: f64, height: f64) -> [f64; 3] {
        let (longitude, latitude) = (longitude.to_radians(), latitude.to_radians());
        let across = radii(latitude).1;
        let flat = (across + height) * latitude.cos();
        let z = (across * (1.0 - SQUARED_ECCENTRICITY) + height) * latitude.sin();
        [flat * longitude.cos(), flat * longitude.sin(), z]
    }

    #[test]
    fn both_ways_agree_on_lengths() {
        let places = [[8.68, 48.85, 312.0], [8.680_05, 48.85, 312.0], [8.68, 48.850_03, 312.0], [8.68, 48.85, 314.5]];
        let mut flat = PointCloud { positions: places.to_vec(), ..PointCloud::default() };
        to_local(&mut flat, Globe::Geographic, 1.0);
        let positions = places.iter().map(|&[x, y, z]| geocentric(x, y, z)).collect();
        let mut round = PointCloud { positions, ..PointCloud::default() };
        to_local(&mut round, Globe::Geocentric, 1.0);
        for cloud in [&flat, &round] {
            let offset = |i: usize| DVec3::from(cloud.positions[i]) - DVec3::from(cloud.positions[0]);
            for (i, expected) in
                [(1, DVec3::new(3.6697, 0.0, 0.0)), (2, DVec3::new(0.0, 3.3362, 0.0)), (3, DVec3::new(0.0, 0.0, 2.5))]
            {
                assert!((offset(i) - expected).length() < 1e-3, "{i}: {}", offset(i));
            }
            assert_eq!(cloud.unit, Some(Unit::Metre));
        }
        assert_eq!(flat.attributes.len(), 2);
        assert_eq!(round.attribute("geocentric_z").unwrap().data.len(), 4);
    }

    #[test]
    fn what_is_not_on_the_globe_stays() {
        let positions = vec![[500_000.0, 5e6, 0.0], [500_001.0, 5e6, 0.0]];
        for globe in [Globe::Geographic, Globe::Geocentric] {
            let mut cloud = PointCloud { positions: positions.clone(), ..PointCloud::default() };
            to_local(&mut cloud, globe, 1.0);
            assert_eq!((&cloud.positions, cloud.unit, cloud.notes.len()), (&positions, None, 1));
        }
    }

    #[test]
    fn invalid_returns_do_not_move_the_middle() {
        let positions = vec![[8.68, 48.85, 312.0], [0.0; 3], [8.680_05, 48.850_03, 314.5]];
        let mut cloud = PointCloud { positions, ..PointCloud::default() };
        to_local(&mut cloud, Globe::Geographic, 1.0);
        set_aside(&mut cloud);
        assert_eq!((cloud.aside.as_slice(), cloud.notes.len()), (&[1][..], 2));
        let (lo, hi) = cloud.bounds().unwrap();
        assert!((hi[0] - lo[0] - 3.6697).abs() < 1e-3 && (hi[1] - lo[1] - 3.3362).abs() < 1e-3, "{lo:?} {hi:?}");
    }

    #[test]
    fn unstated_degrees_are_noted() {
        let mut cloud =
            PointCloud { positions: vec![[8.68, 48.85, 312.0], [8.680_05, 48.850_03, 314.5]], ..PointCloud::default() };
        note_unstated(&mut cloud);
        assert!(cloud.notes[0].contains("look like degrees"), "{:?}", cloud.notes);
        let mut room = PointCloud { positions: vec![[0.0; 3], [4.0, 3.0, 2.5]], ..PointCloud::default() };
        note_unstated(&mut room);
        assert!(room.notes.is_empty());
    }
}
