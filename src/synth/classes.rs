//! NYU40's classes (Gupta et al., CVPR 2013), as ScanNet's labelled meshes number them.

/// What nobody sees: the inside of walls. The number says "unannotated".
pub(super) const CORE: u8 = 0;
pub(super) const WALL: u8 = 1;
pub(super) const FLOOR: u8 = 2;
pub(super) const CABINET: u8 = 3;
pub(super) const BED: u8 = 4;
pub(super) const CHAIR: u8 = 5;
pub(super) const SOFA: u8 = 6;
pub(super) const TABLE: u8 = 7;
pub(super) const DOOR: u8 = 8;
pub(super) const WINDOW: u8 = 9;
pub(super) const BOOKSHELF: u8 = 10;
pub(super) const PICTURE: u8 = 11;
pub(super) const COUNTER: u8 = 12;
pub(super) const DESK: u8 = 14;
pub(super) const SHELVES: u8 = 15;
pub(super) const CURTAIN: u8 = 16;
pub(super) const PILLOW: u8 = 18;
pub(super) const MIRROR: u8 = 19;
pub(super) const FLOOR_MAT: u8 = 20;
pub(super) const CLOTHES: u8 = 21;
pub(super) const CEILING: u8 = 22;
pub(super) const BOOKS: u8 = 23;
pub(super) const REFRIGERATOR: u8 = 24;
pub(super) const TELEVISION: u8 = 25;
pub(super) const PAPER: u8 = 26;
pub(super) const TOWEL: u8 = 27;
pub(super) const SHOWER_CURTAIN: u8 = 28;
pub(super) const BOX: u8 = 29;
pub(super) const WHITEBOARD: u8 = 30;
pub(super) const NIGHT_STAND: u8 = 32;
pub(super) const TOILET: u8 = 33;
pub(super) const SINK: u8 = 34;
pub(super) const LAMP: u8 = 35;
pub(super) const BATHTUB: u8 = 36;
pub(super) const BAG: u8 = 37;
pub(super) const OTHER_FURNITURE: u8 = 39;
pub(super) const OTHER_PROP: u8 = 40;

/// NYU40's number of each of ScanNet's 20 classes, in the benchmark's order
/// ([`Preset::SCANNET20`](crate::query::presets::Preset::SCANNET20)).
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
