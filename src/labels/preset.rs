//! Label sets of the indoor benchmarks, as names to ask for.
//!
//! Names and order are those that OpenScene (Peng et al., CVPR 2023) gives to its text encoder and that
//! GeoPurify takes over. The spelling of the data sets is kept ("refridgerator", "excercise equipment"),
//! because another spelling is another prompt. A label's index in the list is its class number in the
//! benchmark, from 0.

use std::fmt;
use std::str::FromStr;

/// A named set of labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preset {
    /// Name on the command line.
    pub name: &'static str,
    /// The labels in the benchmark's order, all different.
    pub labels: &'static [&'static str],
    /// The benchmark's own colour of each label, if it has them.
    pub colors: Option<&'static [[u8; 3]]>,
    /// Description in one line.
    pub about: &'static str,
}

impl Preset {
    /// The 20 classes of ScanNet (Dai et al., CVPR 2017).
    ///
    /// The last class, `otherfurniture` in the benchmark, is asked for as "other". GeoPurify asks for the
    /// first 19 only and ignores the points of the last.
    pub const SCANNET20: Self = Self {
        name: "scannet20",
        labels: &SCANNET_20,
        colors: Some(&SCANNET_20_COLORS),
        about: "ScanNet's 20 classes; the last is \"other\" (furniture)",
    };

    /// The 200 classes of ScanNet200 (Rozenberszki et al., ECCV 2022), most frequent first.
    pub const SCANNET200: Self = Self {
        name: "scannet200",
        labels: &SCANNET_200,
        colors: Some(&SCANNET_200_COLORS),
        about: "ScanNet200's classes, most frequent first",
    };

    /// ScanNet's classes on Matterport3D (Chang et al., 3DV 2017), and "ceiling" after them.
    ///
    /// Here "other" is evaluated as class 19, before "ceiling". GeoPurify's configuration spells two prompts
    /// differently, see [`published_words`](Self::published_words).
    pub const MATTERPORT21: Self = Self {
        name: "matterport21",
        labels: &MATTERPORT_21,
        colors: None,
        about: "ScanNet's 20 classes and \"ceiling\", for Matterport3D",
    };

    /// The 40 most frequent names of Matterport3D in NYU's vocabulary.
    pub const MATTERPORT40: Self = Self {
        name: "matterport40",
        labels: MATTERPORT_160.split_at(40).0,
        colors: None,
        about: "Matterport3D's 40 most frequent classes",
    };

    /// The 80 most frequent names of Matterport3D in NYU's vocabulary.
    pub const MATTERPORT80: Self = Self {
        name: "matterport80",
        labels: MATTERPORT_160.split_at(80).0,
        colors: None,
        about: "Matterport3D's 80 most frequent classes",
    };

    /// The 160 most frequent names of Matterport3D in NYU's vocabulary.
    ///
    /// Some mean nearly the same ("picture" and "photo", "garbage bin" and "bin"), but each is a class of its
    /// own.
    pub const MATTERPORT160: Self = Self {
        name: "matterport160",
        labels: &MATTERPORT_160,
        colors: None,
        about: "Matterport3D's 160 most frequent classes",
    };

    /// The 16 classes of nuScenes' lidar segmentation (Fong et al., RA-L 2022), from 0, without "noise".
    pub const NUSCENES16: Self =
        Self { name: "nuscenes16", labels: &NUSCENES_16, colors: None, about: "nuScenes' 16 classes of streets" };

    /// The 40 classes of NYU Depth v2 (Gupta et al., CVPR 2013), the numbers of ScanNet's labelled meshes.
    ///
    /// The last three are asked for as "structure", "furniture" and "object".
    pub const NYU40: Self =
        Self { name: "nyu40", labels: &NYU_40, colors: None, about: "NYU Depth v2's 40 classes of rooms" };

    /// The labels as GeoPurify's published code asks for them: of Matterport3D's 21, it spells two differently.
    #[must_use]
    pub fn published_words(&self) -> Vec<String> {
        let mut words = self.words();
        if self.name == Self::MATTERPORT21.name {
            for (place, published) in MATTERPORT_21_PUBLISHED {
                published.clone_into(&mut words[place]);
            }
        }
        words
    }

    /// The labels as words.
    #[must_use]
    pub fn words(&self) -> Vec<String> {
        self.labels.iter().map(|&label| label.to_owned()).collect()
    }

    /// All presets.
    pub const ALL: [Self; 8] = [
        Self::SCANNET20,
        Self::SCANNET200,
        Self::MATTERPORT21,
        Self::MATTERPORT40,
        Self::MATTERPORT80,
        Self::MATTERPORT160,
        Self::NUSCENES16,
        Self::NYU40,
    ];
}

impl fmt::Display for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// Error for an unknown preset name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no label set '{name}'; there are {}", Preset::ALL.map(|preset| preset.name).join(", "))]
pub struct UnknownPreset {
    /// Name that was asked for.
    pub name: String,
}

impl FromStr for Preset {
    type Err = UnknownPreset;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let known = Self::ALL.into_iter().find(|preset| preset.name == name);
        known.ok_or_else(|| UnknownPreset { name: name.to_owned() })
    }
}

#[rustfmt::skip]
const SCANNET_20: [&str; 20] = [
    "wall", "floor", "cabinet", "bed", "chair", "sofa", "table", "door", "window", "bookshelf", "picture",
    "counter", "desk", "curtain", "refrigerator", "shower curtain", "toilet", "sink", "bathtub", "other",
];

#[rustfmt::skip]
const SCANNET_200: [&str; 200] = [
    "wall", "chair", "floor", "table", "door", "couch", "cabinet", "shelf", "desk", "office chair", "bed",
    "pillow", "sink", "picture", "window", "toilet", "bookshelf", "monitor", "curtain", "book", "armchair",
    "coffee table", "box", "refrigerator", "lamp", "kitchen cabinet", "towel", "clothes", "tv", "nightstand",
    "counter", "dresser", "stool", "cushion", "plant", "ceiling", "bathtub", "end table", "dining table",
    "keyboard", "bag", "backpack", "toilet paper", "printer", "tv stand", "whiteboard", "blanket",
    "shower curtain", "trash can", "closet", "stairs", "microwave", "stove", "shoe", "computer tower", "bottle",
    "bin", "ottoman", "bench", "board", "washing machine", "mirror", "copier", "basket", "sofa chair",
    "file cabinet", "fan", "laptop", "shower", "paper", "person", "paper towel dispenser", "oven", "blinds",
    "rack", "plate", "blackboard", "piano", "suitcase", "rail", "radiator", "recycling bin", "container",
    "wardrobe", "soap dispenser", "telephone", "bucket", "clock", "stand", "light", "laundry basket", "pipe",
    "clothes dryer", "guitar", "toilet paper holder", "seat", "speaker", "column", "bicycle", "ladder",
    "bathroom stall", "shower wall", "cup", "jacket", "storage bin", "coffee maker", "dishwasher",
    "paper towel roll", "machine", "mat", "windowsill", "bar", "toaster", "bulletin board", "ironing board",
    "fireplace", "soap dish", "kitchen counter", "doorframe", "toilet paper dispenser", "mini fridge",
    "fire extinguisher", "ball", "hat", "shower curtain rod", "water cooler", "paper cutter", "tray",
    "shower door", "pillar", "ledge", "toaster oven", "mouse", "toilet seat cover dispenser", "furniture", "cart",
    "storage container", "scale", "tissue box", "light switch", "crate", "power outlet", "decoration", "sign",
    "projector", "closet door", "vacuum cleaner", "candle", "plunger", "stuffed animal", "headphones", "dish rack",
    "broom", "guitar case", "range hood", "dustpan", "hair dryer", "water bottle", "handicap bar", "purse", "vent",
    "shower floor", "water pitcher", "mailbox", "bowl", "paper bag", "alarm clock", "music stand",
    "projector screen", "divider", "laundry detergent", "bathroom counter", "object", "bathroom vanity",
    "closet wall", "laundry hamper", "bathroom stall door", "ceiling light", "trash bin", "dumbbell", "stair rail",
    "tube", "bathroom cabinet", "cd case", "closet rod", "coffee kettle", "structure", "shower head",
    "keyboard piano", "case of water bottles", "coat rack", "storage organizer", "folded chair", "fire alarm",
    "power strip", "calendar", "poster", "potted plant", "luggage", "mattress",
];

#[rustfmt::skip]
const MATTERPORT_21: [&str; 21] = [
    "wall", "floor", "cabinet", "bed", "chair", "sofa", "table", "door", "window", "bookshelf", "picture",
    "counter", "desk", "curtain", "refrigerator", "shower curtain", "toilet", "sink", "bathtub", "other",
    "ceiling",
];

/// Prompts of the published code for Matterport3D's 21 classes that differ, with their places.
const MATTERPORT_21_PUBLISHED: [(usize, &str); 2] = [(14, "refridgerator"), (19, "otherfurniture")];

#[rustfmt::skip]
const NYU_40: [&str; 40] = [
    "wall", "floor", "cabinet", "bed", "chair", "sofa", "table", "door", "window", "bookshelf", "picture",
    "counter", "blinds", "desk", "shelves", "curtain", "dresser", "pillow", "mirror", "floor mat", "clothes",
    "ceiling", "books", "refrigerator", "television", "paper", "towel", "shower curtain", "box",
    "whiteboard", "person", "night stand", "toilet", "sink", "lamp", "bathtub", "bag", "structure",
    "furniture", "object",
];

#[rustfmt::skip]
const NUSCENES_16: [&str; 16] = [
    "barrier", "bicycle", "bus", "car", "construction vehicle", "motorcycle", "person", "traffic cone", "trailer",
    "truck", "drivable surface", "other flat", "sidewalk", "terrain", "manmade", "vegetation",
];

#[rustfmt::skip]
const MATTERPORT_160: [&str; 160] = [
    "wall", "door", "ceiling", "floor", "picture", "window", "chair", "pillow", "lamp", "cabinet", "curtain",
    "table", "plant", "mirror", "towel", "sink", "shelves", "sofa", "bed", "night stand", "toilet", "column",
    "banister", "stairs", "stool", "vase", "television", "pot", "desk", "box", "coffee table", "counter", "bench",
    "garbage bin", "fireplace", "clothes", "bathtub", "book", "air vent", "faucet", "photo", "toilet paper", "fan",
    "railing", "sculpture", "dresser", "rug", "ottoman", "bottle", "refridgerator", "bookshelf", "wardrobe",
    "pipe", "monitor", "stand", "drawer", "container", "light switch", "purse", "door way", "basket", "chandelier",
    "oven", "clock", "stove", "washing machine", "shower curtain", "fire alarm", "bin", "chest", "microwave",
    "blinds", "bowl", "tissue box", "plate", "tv stand", "shoe", "heater", "headboard", "bucket", "candle",
    "flower pot", "speaker", "furniture", "sign", "air conditioner", "fire extinguisher", "curtain rod",
    "floor mat", "printer", "telephone", "blanket", "handle", "shower head", "soap", "keyboard", "thermostat",
    "radiator", "kitchen island", "paper towel", "sheet", "glass", "dishwasher", "cup", "ladder", "garage door",
    "hat", "exit sign", "piano", "board", "rope", "ball", "excercise equipment", "hanger", "candlestick", "light",
    "scale", "bag", "laptop", "treadmill", "guitar", "display case", "toilet paper holder", "bar", "tray", "urn",
    "decorative plate", "pool table", "jacket", "bottle of soap", "water cooler", "utensil", "tea pot",
    "stuffed animal", "paper towel dispenser", "lamp shade", "car", "toilet brush", "doll", "drum", "whiteboard",
    "range hood", "candelabra", "toy", "foot rest", "soap dish", "placemat", "cleaner", "computer", "knob",
    "paper", "projector", "coat hanger", "case", "pan", "luggage", "trinket", "chimney", "person", "alarm",
];

const SCANNET_20_COLORS: [[u8; 3]; 20] = rgb([
    0xaec7e8, 0x98df8a, 0x1f77b4, 0xffbb78, 0xbcbd22, 0x8c564b, 0xff9896, 0xd62728, 0xc5b0d5, 0x9467bd, 0xc49c94,
    0x17becf, 0xf7b6d2, 0xdbdb8d, 0xff7f0e, 0x9edae5, 0x2ca02c, 0x708090, 0xe377c2, 0x5254a3,
]);

const SCANNET_200_COLORS: [[u8; 3]; 200] = rgb([
    0xaec7e8, 0xbcbd22, 0x98df8a, 0xff9896, 0xd62728, 0x5b87e5, 0x1f77b4, 0xe55b68, 0xf7b6d2, 0x5be56e, 0xffbb78,
    0x8d5be5, 0x708090, 0xc49c94, 0xc5b0d5, 0x2ca02c, 0x9467bd, 0xe55bdf, 0xdbdb8d, 0xc0e55b, 0x58da89, 0x3a6289,
    0xb152ef, 0xff7f0e, 0xedcc25, 0x29ce20, 0x3e8f94, 0x220e82, 0x8f2d73, 0x893f0e, 0x17becf, 0x10d48b, 0x5a77c9,
    0x7d1e8d, 0x963538, 0xbac53e, 0xe377c2, 0x266480, 0x781ff3, 0x9a3b67, 0xa9894e, 0x8ff56f, 0x25e6cd, 0x0e109b,
    0xc433b6, 0xed5026, 0x8aaf3e, 0x9edae5, 0x2660a7, 0xbe4df6, 0xd03154, 0xd0c148, 0x37dc39, 0x0a7d8c, 0x4c26ca,
    0xbf1c87, 0xd3782a, 0x76ae4c, 0x11f2ab, 0x1441f7, 0xd03dde, 0xa23e3c, 0xd2eb3e, 0x2d9848, 0x236b95, 0xa059ed,
    0xe3387d, 0xa98f51, 0x2a8f14, 0x19a097, 0x524be3, 0xfd3bde, 0xf08259, 0x7bac2f, 0x47c285, 0x185ecd, 0x8610b3,
    0x9f2034, 0xd5d058, 0x409e46, 0x12a3c2, 0x411d99, 0xb10a6d, 0x985307, 0x53af1e, 0x12c799, 0x3d51d0, 0xd555d8,
    0xaa352a, 0xa1c026, 0x17f15b, 0x0c67aa, 0x9729f5, 0x853350, 0xb8a25b, 0x328a26, 0x1fedec, 0x2713d0, 0xdf1bb4,
    0xfe8d55, 0x619027, 0x6ae7b0, 0x0c3da2, 0x7c428c, 0x894249, 0xfafd1a, 0x37bf49, 0x3c7e92, 0x996cea, 0xb83a7d,
    0x87540e, 0x8bf85b, 0x35c8ac, 0x3f4586, 0xbe4bba, 0x7f3f34, 0x8db619, 0x389059, 0x40a0fa, 0xb656f5, 0x8b1235,
    0x867836, 0x31a52a, 0x338085, 0x2c15a3, 0xe85dc1, 0xb06636, 0x74d911, 0x36d196, 0x3c63cc, 0x812b90, 0xfc646a,
    0xbbc449, 0x0d9e28, 0x347a98, 0x804cca, 0xbb3273, 0xb48d47, 0x4dd023, 0x48b7a8, 0x6163cb, 0xac169e, 0x9b4028,
    0x769f1e, 0x45fc94, 0x2d67ad, 0x6f2695, 0xb80931, 0xbcae43, 0x35ce35, 0x61ebfc, 0x4220b6, 0xec72c3, 0xf19a53,
    0x85f034, 0x10cd90, 0x4b65c6, 0xed5ffb, 0xbf3431, 0xe3fe36, 0x31ce57, 0x307196, 0x7d49b6, 0xe52072, 0x9e771c,
    0x3ccd1b, 0x12d7c9, 0x4f4c99, 0x860d74, 0xc0613f, 0x6ca312, 0x5fdc9c, 0x628dd0, 0x9013c1, 0xa62439, 0xd4ca22,
    0x17ce22, 0x5bd3ec, 0x4f3789, 0xb61375, 0x864c0e, 0x57b91c, 0x52e0bb, 0x5c6ed6, 0xa850ab, 0xc53f33, 0xafc74d,
    0x3eb462, 0x085b96, 0x4d0f82, 0x9a4160, 0xc5980b, 0x3b9b2d, 0x0c9391, 0x3623db, 0xd249b5, 0xdd7c4d, 0x95d642,
    0x48b986, 0x2a5ec6,
]);

/// Converts colours written as 0xRRGGBB.
const fn rgb<const N: usize>(hex: [u32; N]) -> [[u8; 3]; N] {
    let mut colors = [[0; 3]; N];
    let mut i = 0;
    while i < N {
        let [_, red, green, blue] = hex[i].to_be_bytes();
        colors[i] = [red, green, blue];
        i += 1;
    }
    colors
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_set_has_as_many_labels_as_its_name_says() {
        for preset in Preset::ALL {
            let count: usize = preset.name.trim_start_matches(char::is_alphabetic).parse().unwrap();
            assert_eq!(preset.labels.len(), count, "{preset}");
            assert_eq!(preset.labels.iter().collect::<HashSet<_>>().len(), count, "{preset} repeats a label");
            for label in preset.labels {
                let plain = label.chars().all(|c| c.is_ascii_lowercase() || c == ' ');
                assert!(plain && label.trim() == *label && !label.is_empty(), "{label:?}");
            }
            if let Some(colors) = preset.colors {
                assert_eq!(colors.len(), count, "{preset}");
                assert_eq!(colors.iter().collect::<HashSet<_>>().len(), count, "{preset} repeats a colour");
            }
            assert!(!preset.about.is_empty());
        }
    }

    #[test]
    fn labels_are_where_the_benchmarks_have_them() {
        let is = |preset: Preset, places: &[(usize, &str)]| {
            for &(place, label) in places {
                assert_eq!(preset.labels[place], label, "{preset} {place}");
            }
        };
        is(Preset::SCANNET20, &[(0, "wall"), (5, "sofa"), (13, "curtain"), (18, "bathtub"), (19, "other")]);
        is(
            Preset::SCANNET200,
            &[(0, "wall"), (5, "couch"), (35, "ceiling"), (100, "bathroom stall"), (199, "mattress")],
        );
        is(Preset::NUSCENES16, &[(0, "barrier"), (6, "person"), (10, "drivable surface"), (15, "vegetation")]);
        is(Preset::MATTERPORT21, &[(14, "refrigerator"), (19, "other"), (20, "ceiling")]);
        is(Preset::MATTERPORT160, &[(2, "ceiling"), (39, "faucet"), (40, "photo"), (79, "bucket"), (159, "alarm")]);
        assert_eq!(Preset::SCANNET20.labels, &Preset::MATTERPORT21.labels[..20]);
        assert_eq!(Preset::MATTERPORT40.labels, &Preset::MATTERPORT160.labels[..40]);
        assert_eq!(Preset::MATTERPORT80.labels, &Preset::MATTERPORT160.labels[..80]);
    }

    #[test]
    fn the_published_code_spells_two_prompts_differently() {
        let words = Preset::MATTERPORT21.published_words();
        assert_eq!((&*words[14], &*words[19], &*words[20]), ("refridgerator", "otherfurniture", "ceiling"));
        let differing = words.iter().zip(Preset::MATTERPORT21.labels).filter(|(word, label)| word != *label);
        assert_eq!(differing.count(), 2);
        assert_eq!(Preset::SCANNET20.published_words(), Preset::SCANNET20.words());
    }

    #[test]
    fn colors_are_those_of_the_benchmarks() {
        let color = |preset: Preset, label: &str| {
            let place = preset.labels.iter().position(|l| *l == label).unwrap();
            preset.colors.unwrap()[place]
        };
        // A class in both sets has the same colour.
        for preset in [Preset::SCANNET20, Preset::SCANNET200] {
            assert_eq!(color(preset, "wall"), [174, 199, 232]);
            assert_eq!(color(preset, "floor"), [152, 223, 138]);
            assert_eq!(color(preset, "bathtub"), [227, 119, 194]);
        }
        assert_eq!(color(Preset::SCANNET20, "other"), [82, 84, 163]);
        assert_eq!(color(Preset::SCANNET200, "mattress"), [42, 94, 198]);
    }

    #[test]
    fn names_are_read_back_and_others_refused() {
        for preset in Preset::ALL {
            assert_eq!(preset.to_string().parse(), Ok(preset));
        }
        assert_eq!(
            "scannet".parse::<Preset>().unwrap_err().to_string(),
            "there is no label set 'scannet'; there are scannet20, scannet200, matterport21, matterport40, \
             matterport80, matterport160, nuscenes16, nyu40"
        );
    }
}
