//! Typed per-point values.

#![allow(clippy::cast_lossless, reason = "one macro casts every type, those that lose nothing and those that do")]

use super::source::take;

/// Byte order of binary values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Endian {
    Little,
    Big,
}

macro_rules! scalars {
    ($($variant:ident $type:ty, $ply:literal, $sized:literal;)*) => {
        /// Type of one value of an [`Attribute`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum ScalarType {
            $(#[doc = concat!("`", stringify!($type), "`")] $variant,)*
        }

        impl ScalarType {
            /// Bytes per value.
            pub fn size(self) -> usize {
                match self { $(Self::$variant => size_of::<$type>(),)* }
            }

            /// Rust name of the type, for instance `"f32"`.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => stringify!($type),)* }
            }

            /// Type that a PLY header calls `name`.
            pub(crate) fn from_ply(name: &str) -> Option<Self> {
                match name {
                    $($ply | $sized => Some(Self::$variant),)*
                    _ => None,
                }
            }

            /// PLY name: the classic one ("float") or the sized one ("float32").
            pub(crate) fn ply_name(self, sized: bool) -> &'static str {
                match (self, sized) {
                    $((Self::$variant, false) => $ply, (Self::$variant, true) => $sized,)*
                }
            }

            /// Value at byte `at` as a double.
            pub(crate) fn read_f64(self, bytes: &[u8], at: usize, endian: Endian) -> f64 {
                match (self, endian) {
                    $((Self::$variant, Endian::Little) => <$type>::from_le_bytes(take(bytes, at)) as f64,
                      (Self::$variant, Endian::Big) => <$type>::from_be_bytes(take(bytes, at)) as f64,)*
                }
            }

            /// Value at byte `at` as an integer (floats are truncated).
            pub(crate) fn read_i64(self, bytes: &[u8], at: usize, endian: Endian) -> i64 {
                match (self, endian) {
                    $((Self::$variant, Endian::Little) => <$type>::from_le_bytes(take(bytes, at)) as i64,
                      (Self::$variant, Endian::Big) => <$type>::from_be_bytes(take(bytes, at)) as i64,)*
                }
            }
        }

        /// One value per point, in file order.
        #[derive(Clone, Debug, PartialEq)]
        pub enum AttributeData {
            $(#[doc = concat!("`", stringify!($type), "` values")] $variant(Vec<$type>),)*
        }

        $(impl From<Vec<$type>> for AttributeData {
            fn from(values: Vec<$type>) -> Self { Self::$variant(values) }
        })*

        impl AttributeData {
            /// An empty column of type `ty`.
            pub fn new(ty: ScalarType) -> Self {
                match ty { $(ScalarType::$variant => Self::$variant(Vec::new()),)* }
            }

            /// Number of values.
            pub fn len(&self) -> usize {
                match self { $(Self::$variant(v) => v.len(),)* }
            }

            /// Type of the values.
            pub fn scalar_type(&self) -> ScalarType {
                match self { $(Self::$variant(_) => ScalarType::$variant,)* }
            }

            /// Value `i` as a double (64-bit integers past 2^53 are rounded); `None` past the end.
            pub fn get_f64(&self, i: usize) -> Option<f64> {
                match self { $(Self::$variant(v) => v.get(i).map(|&x| x as f64),)* }
            }

            /// Smallest and largest finite value; `None` if there is none.
            pub fn range(&self) -> Option<(f64, f64)> {
                match self { $(Self::$variant(v) => range(v.iter().map(|&x| x as f64)),)* }
            }

            pub(crate) fn reserve(&mut self, n: usize) {
                match self { $(Self::$variant(v) => v.reserve_exact(n),)* }
            }

            /// Appends one value from each row of `rows`. A row is `stride` bytes long; its value starts at
            /// byte `at`.
            pub(crate) fn extend_rows(&mut self, rows: &[u8], stride: usize, at: usize, endian: Endian) {
                let rows = rows.chunks_exact(stride.max(1));
                match (self, endian) {
                    $((Self::$variant(v), Endian::Little) => {
                        v.extend(rows.map(|row| <$type>::from_le_bytes(take(row, at))));
                    }
                    (Self::$variant(v), Endian::Big) => {
                        v.extend(rows.map(|row| <$type>::from_be_bytes(take(row, at))));
                    })*
                }
            }

            /// Parses a number and appends it. Returns false if the text is not a number of this type.
            pub(crate) fn push_text(&mut self, text: &[u8]) -> bool {
                match self { $(Self::$variant(v) => match <$type as ParseNumber>::parse(text) {
                    Some(x) => { v.push(x); true }
                    None => false,
                },)* }
            }

            /// Appends `x`, converted (integers saturate).
            pub(crate) fn push_f64(&mut self, x: f64) {
                match self { $(Self::$variant(v) => v.push(x as $type),)* }
            }

            /// Appends `x`, converted (integers keep their low bits).
            pub(crate) fn push_i64(&mut self, x: i64) {
                match self { $(Self::$variant(v) => v.push(x as $type),)* }
            }

            /// Appends value `i` to `out` as bytes.
            pub(crate) fn put(&self, i: usize, endian: Endian, out: &mut Vec<u8>) {
                match (self, endian) {
                    $((Self::$variant(v), Endian::Little) => out.extend_from_slice(&v.get(i).copied().unwrap_or_default().to_le_bytes()),
                      (Self::$variant(v), Endian::Big) => out.extend_from_slice(&v.get(i).copied().unwrap_or_default().to_be_bytes()),)*
                }
            }

            /// Writes value `i` as text that reads back to the same value.
            pub(crate) fn put_text(&self, i: usize, out: &mut Vec<u8>) {
                use std::io::Write;
                // Writing to a vector cannot fail.
                let _ = match self { $(Self::$variant(v) => write!(out, "{}", v.get(i).copied().unwrap_or_default()),)* };
            }
        }
    };
}

scalars! {
    U8 u8, "uchar", "uint8";
    I8 i8, "char", "int8";
    U16 u16, "ushort", "uint16";
    I16 i16, "short", "int16";
    U32 u32, "uint", "uint32";
    I32 i32, "int", "int32";
    U64 u64, "ulong", "uint64";
    I64 i64, "long", "int64";
    F32 f32, "float", "float32";
    F64 f64, "double", "float64";
}

impl AttributeData {
    /// True if there are no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The same values in a type that PLY has. PLY has no 64-bit integers, so these become doubles. The
    /// flag is true if a value was rounded.
    pub(crate) fn for_ply(&self) -> (std::borrow::Cow<'_, Self>, bool) {
        use std::borrow::Cow;
        let doubles = |values: Vec<f64>, rounded| (Cow::Owned(Self::F64(values)), rounded);
        match self {
            Self::U64(v) => doubles(v.iter().map(|&x| x as f64).collect(), v.iter().any(|&x| x as f64 as u64 != x)),
            Self::I64(v) => doubles(v.iter().map(|&x| x as f64).collect(), v.iter().any(|&x| x as f64 as i64 != x)),
            _ => (Cow::Borrowed(self), false),
        }
    }
}

/// Per-point property of a scan other than position, colour and normal.
#[derive(Clone, Debug, PartialEq)]
pub struct Attribute {
    /// Name in the file. A property with several values per point becomes several attributes: `"name[0]"`,
    /// `"name[1]"` and so on.
    pub name: String,
    /// One value per point.
    pub data: AttributeData,
}

impl Attribute {
    pub(crate) fn new(name: impl Into<String>, data: impl Into<AttributeData>) -> Self {
        Self { name: name.into(), data: data.into() }
    }
}

/// Per-point result to be written beside the properties of a scan.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    /// Name of the property. It replaces an existing property of this name. Names of coordinates and of the
    /// standard properties of LAS points are refused. `red`, `green` and `blue` are the colours of the
    /// points, see [`Field::colors`].
    pub name: String,
    /// One value per point, in the order of the file.
    pub data: AttributeData,
    /// For LAS and LAZ: put the values into the standard classification of each point instead of an
    /// extra dimension. The data must be `u8`. Other formats ignore it.
    pub as_classification: bool,
    /// What the values are, in a few words. LAS and LAZ hold 32 bytes of it.
    pub description: String,
    /// Lines that explain the values. PLY holds them as comments, LAS and LAZ as a record of the user
    /// `geopurify`. They replace those of an earlier run.
    pub legend: Vec<String>,
}

/// Beginning of the lines of a legend in PLY, and the user of its record in LAS.
pub(super) const LEGEND: &str = "geopurify";

impl Field {
    /// A field that is written under its own name.
    pub fn new(name: impl Into<String>, data: impl Into<AttributeData>) -> Self {
        Self {
            name: name.into(),
            data: data.into(),
            as_classification: false,
            description: String::new(),
            legend: Vec::new(),
        }
    }

    /// The same field with a description and a legend.
    #[must_use]
    pub fn explained(self, description: impl Into<String>, legend: Vec<String>) -> Self {
        Self { description: description.into(), legend, ..self }
    }

    /// The standard classification of LAS points.
    pub fn classification(classes: Vec<u8>) -> Self {
        Self { as_classification: true, ..Self::new("classification", classes) }
    }

    /// New colours of the points: the fields `red`, `green` and `blue`. All three are needed, as `u8`.
    ///
    /// They replace the colours of the scan, because viewers show one colour per point and look for it
    /// under these names. LAS stores them with 16 bits, as `257 · value`. LAS point formats without colours
    /// cannot store them; a note then says so.
    pub fn colors(colors: &[[u8; 3]]) -> [Self; 3] {
        std::array::from_fn(|channel| {
            Self::new(CHANNELS[channel], colors.iter().map(|rgb| rgb[channel]).collect::<Vec<_>>())
        })
    }

    /// Colour channel of the field (0 to 2); `None` for other fields.
    pub(crate) fn channel(&self) -> Option<usize> {
        CHANNELS.iter().position(|name| self.name.eq_ignore_ascii_case(name))
    }
}

/// Names of the fields that hold colours.
pub(crate) const CHANNELS: [&str; 3] = ["red", "green", "blue"];

fn range(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.filter(|x| x.is_finite()).fold(None, |range, x| match range {
        None => Some((x, x)),
        Some((lo, hi)) => Some((lo.min(x), hi.max(x))),
    })
}

/// Parses numbers as scanners write them: plain ones, and the not-a-number spellings of various C
/// libraries.
pub(crate) fn parse_f64(text: &[u8]) -> Option<f64> {
    let text = std::str::from_utf8(text).ok()?;
    if let Ok(x) = text.parse() {
        return Some(x);
    }
    let bare = text.trim_start_matches(['+', '-']).to_ascii_lowercase();
    let nan = ["nan(", "1.#qnan", "1.#ind", "1.#snan"];
    if nan.iter().any(|spelling| bare.starts_with(spelling)) {
        return Some(f64::NAN);
    }
    bare.starts_with("1.#inf").then(|| if text.starts_with('-') { f64::NEG_INFINITY } else { f64::INFINITY })
}

trait ParseNumber: Sized {
    fn parse(text: &[u8]) -> Option<Self>;
}

macro_rules! parse_integers {
    ($($type:ty)*) => {$(
        impl ParseNumber for $type {
            fn parse(text: &[u8]) -> Option<Self> {
                if let Ok(x) = std::str::from_utf8(text).ok()?.parse() {
                    return Some(x);
                }
                // Some writers print whole numbers as "255.0".
                let x = parse_f64(text)?;
                (x.fract() == 0.0 && x >= <$type>::MIN as f64 && x <= <$type>::MAX as f64).then_some(x as $type)
            }
        }
    )*};
}

parse_integers!(u8 i8 u16 i16 u32 i32 u64 i64);

impl ParseNumber for f32 {
    fn parse(text: &[u8]) -> Option<Self> {
        // Parsed directly as `f32`: by way of `f64` the last bit could be rounded twice.
        match std::str::from_utf8(text).ok()?.parse() {
            Ok(x) => Some(x),
            Err(_) => parse_f64(text).map(|x| x as f32),
        }
    }
}

impl ParseNumber for f64 {
    fn parse(text: &[u8]) -> Option<Self> {
        parse_f64(text)
    }
}

/// Colour of points without one, beside points with colours.
pub(crate) const GREY: [u8; 3] = [128; 3];

/// How the values of colours are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ColorRange {
    /// From 0 to 1.
    Fractions,
    /// From 0 to 255.
    Bytes,
    /// From 0 to 65535.
    Words,
}

impl ColorRange {
    /// Finds the range from the values above zero, and the number of values above the range. At least nine
    /// of ten must lie within it: a single value that is too large must not turn all others black.
    pub(crate) fn of(values: impl Iterator<Item = f64>, float: bool) -> (Self, usize) {
        let (mut total, mut up_to_one, mut broken, mut up_to_byte, mut up_to_word) = (0_usize, 0, 0, 0, 0);
        for x in values.filter(|x| *x > 0.0 && x.is_finite()) {
            total += 1;
            up_to_one += usize::from(x <= 1.0);
            broken += usize::from(x < 1.0);
            up_to_byte += usize::from(x <= 255.0);
            up_to_word += usize::from(x <= 65535.0);
        }
        let most = |count: usize| count * 10 >= total * 9;
        // Dark bytes can be ones as well, but then they are whole.
        let fractions = up_to_one == total || (most(up_to_one) && broken * 2 >= up_to_one);
        match float && fractions {
            true => (Self::Fractions, total - up_to_one),
            false if most(up_to_byte) => (Self::Bytes, total - up_to_byte),
            false => (Self::Words, total - up_to_word),
        }
    }

    /// Notes that `over` values are above the range.
    pub(crate) fn note(self, over: usize, notes: &mut Vec<String>) {
        let most = match self {
            Self::Fractions => "1",
            Self::Bytes => "255",
            Self::Words => "65535",
        };
        if over > 0 {
            notes.push(format!("colour values above {most} are cut off ({over} of them)"));
        }
    }
}

/// Red, green and blue columns as bytes, with a note when they had to be scaled.
///
/// Whole numbers up to 255 are kept, larger ones are taken as 16-bit. Fractions up to 1 are scaled by 255.
/// Most values decide, not the largest: see [`ColorRange`].
pub(crate) fn colors_from(
    red: &AttributeData,
    green: &AttributeData,
    blue: &AttributeData,
    notes: &mut Vec<String>,
) -> Vec<[u8; 3]> {
    use AttributeData::{F32, F64, I8, U8};
    let n = red.len().min(green.len()).min(blue.len());
    if let (U8(r), U8(g), U8(b)) = (red, green, blue) {
        return r.iter().zip(g).zip(b).map(|((&r, &g), &b)| [r, g, b]).collect();
    }
    if let (I8(r), I8(g), I8(b)) = (red, green, blue) {
        notes.push("colours are signed bytes, read as unsigned".into());
        let byte = |x: i8| x as u8;
        return (r.iter().zip(g).zip(b)).map(|((&r, &g), &b)| [byte(r), byte(g), byte(b)]).collect();
    }
    let float = matches!(red, F32(_) | F64(_));
    let values = [red, green, blue].into_iter().flat_map(|c| (0..n).filter_map(move |i| c.get_f64(i)));
    let (range, over) = ColorRange::of(values, float);
    let scale = match range {
        ColorRange::Fractions => {
            notes.push("colours are fractions, scaled to 0..255".into());
            255.0
        }
        ColorRange::Bytes => 1.0,
        ColorRange::Words => {
            notes.push("16-bit colours, scaled to 8 bits".into());
            1.0 / 256.0
        }
    };
    range.note(over, notes);
    let round = scale >= 1.0;
    let byte = |column: &AttributeData, i| {
        let x = column.get_f64(i).unwrap_or(0.0) * scale;
        // Casting saturates and turns NaN into 0.
        (if round { x.round() } else { x.floor() }) as u8
    };
    (0..n).map(|i| [byte(red, i), byte(green, i), byte(blue, i)]).collect()
}

#[cfg(test)]
mod tests {
    use super::ColorRange;

    #[test]
    fn most_values_tell_the_range_of_colours() {
        let of = |values: &[f64], float| ColorRange::of(values.iter().copied(), float);
        let mut values = vec![0.5; 100];
        values.push(1.02);
        assert_eq!(of(&values, true), (ColorRange::Fractions, 1));
        let mut values = vec![200.0; 100];
        values.push(300.0);
        assert_eq!(of(&values, false), (ColorRange::Bytes, 1));
        assert_eq!(of(&values, true), (ColorRange::Bytes, 1));
        // Points without colours say nothing.
        let mut values = vec![0.0; 100];
        values.extend([50_000.0, 300.0]);
        assert_eq!(of(&values, false), (ColorRange::Words, 0));
        assert_eq!(of(&[1.0, 2.0, 1.0], true), (ColorRange::Bytes, 0));
        assert_eq!(of(&[f64::NAN, -1.0], true), (ColorRange::Fractions, 0));
    }
}
