//! Class numbers of NYU40 (Gupta et al., CVPR 2013), which ScanNet's labelled meshes use, and their
//! translation to benchmark classes.

use super::Preset;

/// Unannotated, as the inside of walls, which nobody sees.
pub const CORE: u8 = 0;
/// The class "wall".
pub const WALL: u8 = 1;
/// The class "floor".
pub const FLOOR: u8 = 2;
/// The class "cabinet".
pub const CABINET: u8 = 3;
/// The class "bed".
pub const BED: u8 = 4;
/// The class "chair".
pub const CHAIR: u8 = 5;
/// The class "sofa".
pub const SOFA: u8 = 6;
/// The class "table".
pub const TABLE: u8 = 7;
/// The class "door".
pub const DOOR: u8 = 8;
/// The class "window".
pub const WINDOW: u8 = 9;
/// The class "bookshelf".
pub const BOOKSHELF: u8 = 10;
/// The class "picture".
pub const PICTURE: u8 = 11;
/// The class "counter".
pub const COUNTER: u8 = 12;
/// The class "desk".
pub const DESK: u8 = 14;
/// The class "shelves".
pub const SHELVES: u8 = 15;
/// The class "curtain".
pub const CURTAIN: u8 = 16;
/// The class "pillow".
pub const PILLOW: u8 = 18;
/// The class "mirror".
pub const MIRROR: u8 = 19;
/// The class "floor mat".
pub const FLOOR_MAT: u8 = 20;
/// The class "clothes".
pub const CLOTHES: u8 = 21;
/// The class "ceiling".
pub const CEILING: u8 = 22;
/// The class "books".
pub const BOOKS: u8 = 23;
/// The class "refrigerator".
pub const REFRIGERATOR: u8 = 24;
/// The class "television".
pub const TELEVISION: u8 = 25;
/// The class "paper".
pub const PAPER: u8 = 26;
/// The class "towel".
pub const TOWEL: u8 = 27;
/// The class "shower curtain".
pub const SHOWER_CURTAIN: u8 = 28;
/// The class "box".
pub const BOX: u8 = 29;
/// The class "whiteboard".
pub const WHITEBOARD: u8 = 30;
/// The class "person".
pub const PERSON: u8 = 31;
/// The class "night stand".
pub const NIGHT_STAND: u8 = 32;
/// The class "toilet".
pub const TOILET: u8 = 33;
/// The class "sink".
pub const SINK: u8 = 34;
/// The class "lamp".
pub const LAMP: u8 = 35;
/// The class "bathtub".
pub const BATHTUB: u8 = 36;
/// The class "bag".
pub const BAG: u8 = 37;
/// The class "otherfurniture".
pub const OTHER_FURNITURE: u8 = 39;
/// The class "otherprop".
pub const OTHER_PROP: u8 = 40;

/// NYU40's number of each of ScanNet's 20 classes, in the benchmark's order
/// ([`Preset::SCANNET20`](crate::labels::Preset::SCANNET20)).
pub const SCANNET20: [u8; 20] = [
    WALL,
    FLOOR,
    CABINET,
    BED,
    CHAIR,
    SOFA,
    TABLE,
    DOOR,
    WINDOW,
    BOOKSHELF,
    PICTURE,
    COUNTER,
    DESK,
    CURTAIN,
    REFRIGERATOR,
    SHOWER_CURTAIN,
    TOILET,
    SINK,
    BATHTUB,
    OTHER_FURNITURE,
];

/// Largest number of NYU40. The smallest, 0, is unlabelled.
pub const LARGEST: i64 = 40;

/// Returns NYU40's number of each class of `preset`, or `None` if the preset is not based on NYU40.
#[must_use]
pub fn nyu40_from_class(preset: &Preset) -> Option<Vec<i64>> {
    match preset.name {
        name if name == Preset::SCANNET20.name => Some(SCANNET20.map(i64::from).to_vec()),
        name if name == Preset::MATTERPORT21.name => {
            Some(SCANNET20.into_iter().chain([CEILING]).map(i64::from).collect())
        }
        name if name == Preset::NYU40.name => Some((1..=LARGEST).collect()),
        _ => None,
    }
}

/// Replaces NYU40's numbers, 0 to 40, by classes. Numbers without a class become `other`. Numbers outside 0
/// to 40 stay.
pub fn classes_from_nyu40(labels: &mut [i64], nyu40_from_class: &[i64], other: i64) {
    for label in labels {
        if (0..=LARGEST).contains(label) {
            let class = nyu40_from_class.iter().position(|nyu40| nyu40 == label);
            *label = class.map_or(other, |class| class as i64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nyu40_becomes_classes() {
        let mut labels = [0, 1, 2, 13, 16, 22, 39, 40, 41, -1, 255];
        classes_from_nyu40(&mut labels, &SCANNET20.map(i64::from), -7);
        assert_eq!(labels, [-7, 0, 1, -7, 13, -7, 19, -7, 41, -1, 255]);
        let matterport = nyu40_from_class(&Preset::MATTERPORT21).unwrap();
        assert_eq!((matterport.len(), matterport[20]), (21, 22));
        assert_eq!(nyu40_from_class(&Preset::SCANNET200), None);
        let own = nyu40_from_class(&Preset::NYU40).unwrap();
        let name = |nyu40: u8| Preset::NYU40.labels[own.iter().position(|&own| own == i64::from(nyu40)).unwrap()];
        let named = [WALL, DESK, FLOOR_MAT, CEILING, WHITEBOARD, BAG, OTHER_PROP].map(name);
        assert_eq!(named, ["wall", "desk", "floor mat", "ceiling", "whiteboard", "bag", "object"]);
        for preset in [Preset::SCANNET20, Preset::MATTERPORT21, Preset::NYU40] {
            assert_eq!(nyu40_from_class(&preset).unwrap().len(), preset.labels.len());
        }
    }
}
