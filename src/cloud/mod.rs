//! Scans: reading and writing point clouds and meshes.
//!
//! [`PointCloud::read`] opens PLY, LAS, LAZ (also COPC), PCD, E57, PTX, OBJ, glTF, STL, OFF, Gaussian splats
//! and plain text, also packed with gzip or zip. All points stay in file order, also those without a finite
//! position. So [`write_with_fields`] can write results next to them.
//! Files are not trusted: the sizes in a header are checked before memory is allocated, and a damaged file
//! gives a [`CloudError`].

mod aside;
mod data;
mod detect;
#[cfg(feature = "e57")]
mod e57;
mod error;
mod face_values;
mod georef;
#[cfg(feature = "las")]
mod las;
#[cfg(feature = "las")]
mod las_header;
#[cfg(feature = "las")]
mod las_points;
#[cfg(feature = "las")]
mod las_write;
mod mesh;
mod openscene;
mod packed_ply;
mod pcd;
mod ply;
mod ply_write;
mod ptx;
mod source;
mod spacing;
mod splat;
mod splats;
mod spz;
mod text;
mod units;
mod unpack;

use std::cell::Cell;
use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter};
use std::path::Path;
use std::sync::Once;

pub use data::{Attribute, AttributeData, Field, ScalarType};
pub use error::CloudError;
pub use face_values::for_each_face;
#[cfg(feature = "lab")]
pub(crate) use mesh::{Look, Mesh, Wrap, read_model};
pub use splats::Splats;
pub use units::{Unit, UnitGuess};

use detect::{Results, extension};
use error::Origin;

use crate::files;

/// A point cloud, or the vertices and triangles of a mesh.
#[derive(Clone, Debug, Default)]
pub struct PointCloud {
    /// Exact coordinates in the units of the file; one per point, in file order. Points without a position
    /// (gaps of an organised cloud) are kept: see [`PointCloud::is_finite`]. Coordinates on the globe
    /// (degrees, geocentric) become metres around the middle of the scan; those of the file are then
    /// attributes.
    pub positions: Vec<[f64; 3]>,
    /// Red, green, blue, 0 to 255; one per point if present.
    pub colors: Option<Vec<[u8; 3]>>,
    /// Normals as in the file, not necessarily of length one; one per point if present.
    pub normals: Option<Vec<[f32; 3]>>,
    /// Triangles as indices of points (polygons are cut into fans); empty for clouds.
    pub faces: Vec<[u32; 3]>,
    /// Size and opacity of the points, if they are Gaussian splats.
    pub splats: Option<Splats>,
    /// Every other per-point property under its file name.
    pub attributes: Vec<Attribute>,
    /// Points that are no part of what was scanned, in ascending order: invalid returns, faint splats. They
    /// are neither placed nor shown and get no label, but stay in results.
    pub aside: Vec<u32>,
    /// Format of the file.
    pub format: Format,
    /// Width and height, if the points are an image grid in row order (PCD).
    pub organized: Option<(usize, usize)>,
    /// The unit of the coordinates, if the file states it.
    pub unit: Option<Unit>,
    /// Name of the coordinate reference system, if the file states it, such as "EPSG:4326".
    pub crs: Option<String>,
    /// Up direction of length one, if the file or its format states it.
    pub up: Option<[f64; 3]>,
    /// Messages for the user: missing parts of the file and how they were handled.
    pub notes: Vec<String>,
}

/// Format of a file, with its variant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// Polygon file format.
    Ply {
        /// Encoding of the elements.
        encoding: PlyEncoding,
    },
    /// ASPRS LAS.
    Las {
        /// Major and minor version.
        version: (u8, u8),
        /// Point data record format, 0 to 10.
        point_format: u8,
    },
    /// LAS compressed with LASzip.
    Laz {
        /// Major and minor version.
        version: (u8, u8),
        /// Point data record format, 0 to 10.
        point_format: u8,
    },
    /// LAZ with the octree of a cloud-optimised point cloud.
    Copc {
        /// Major and minor version.
        version: (u8, u8),
        /// Point data record format, 6 to 8.
        point_format: u8,
    },
    /// Point Cloud Library format.
    Pcd {
        /// Encoding of the points.
        encoding: PcdEncoding,
    },
    /// ASTM E57.
    E57 {
        /// Number of scans, merged into one cloud.
        scans: usize,
    },
    /// Scans of Leica and others as grids in text.
    Ptx {
        /// Number of scans, merged into one cloud.
        scans: usize,
    },
    /// Gaussian splats, 32 bytes each.
    Splat,
    /// Gaussian splats as Niantic packs them.
    Spz {
        /// Version of the file, 1 to 3.
        version: u32,
    },
    /// Gaussian splats in a compressed PLY file.
    PackedPly,
    /// Wavefront OBJ.
    Obj,
    /// glTF 2.0.
    Gltf {
        /// True for the binary form (GLB).
        binary: bool,
    },
    /// Stereolithography.
    Stl {
        /// True if it is not text.
        binary: bool,
    },
    /// Object file format.
    Off,
    /// A scene of OpenScene's prepared data, saved by PyTorch.
    OpenScene,
    /// One point per line.
    #[default]
    Text,
}

/// Encoding of the elements of a PLY file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlyEncoding {
    /// As text.
    Ascii,
    /// Binary, least significant byte first.
    BinaryLittleEndian,
    /// Binary, most significant byte first.
    BinaryBigEndian,
}

/// Encoding of the points of a PCD file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PcdEncoding {
    /// As text.
    Ascii,
    /// Binary, point by point.
    Binary,
    /// Binary, field by field, compressed with LZF.
    BinaryCompressed,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let las = |f: &mut fmt::Formatter<'_>, name, (major, minor): (u8, u8), point_format| {
            write!(f, "{name} {major}.{minor}, point format {point_format}")
        };
        match *self {
            Self::Ply { encoding } => f.write_str(match encoding {
                PlyEncoding::Ascii => "PLY, ascii",
                PlyEncoding::BinaryLittleEndian => "PLY, binary little-endian",
                PlyEncoding::BinaryBigEndian => "PLY, binary big-endian",
            }),
            Self::Las { version, point_format } => las(f, "LAS", version, point_format),
            Self::Laz { version, point_format } => las(f, "LAZ", version, point_format),
            Self::Copc { version, point_format } => las(f, "COPC (LAZ)", version, point_format),
            Self::Pcd { encoding } => f.write_str(match encoding {
                PcdEncoding::Ascii => "PCD, ascii",
                PcdEncoding::Binary => "PCD, binary",
                PcdEncoding::BinaryCompressed => "PCD, binary compressed",
            }),
            Self::E57 { scans: 1 } => f.write_str("E57, 1 scan"),
            Self::E57 { scans } => write!(f, "E57, {scans} scans"),
            Self::Ptx { scans: 1 } => f.write_str("PTX, 1 scan"),
            Self::Ptx { scans } => write!(f, "PTX, {scans} scans"),
            Self::Splat => f.write_str("Gaussian splats (.splat)"),
            Self::Spz { version } => write!(f, "Gaussian splats, SPZ version {version}"),
            Self::PackedPly => f.write_str("Gaussian splats, compressed PLY"),
            Self::Obj => f.write_str("OBJ"),
            Self::Gltf { binary } => f.write_str(if binary { "GLB (glTF 2.0, binary)" } else { "glTF 2.0" }),
            Self::Stl { binary } => f.write_str(if binary { "STL, binary" } else { "STL, ascii" }),
            Self::Off => f.write_str("OFF"),
            Self::OpenScene => f.write_str("scene of OpenScene's data (PyTorch)"),
            Self::Text => f.write_str("text"),
        }
    }
}

/// Recognises a scan without reading its points. Text that does not begin with rows of numbers is read.
///
/// # Errors
/// As [`PointCloud::read`] for a file that cannot be opened or has an unknown format.
pub fn recognise(path: &Path) -> Result<(), CloudError> {
    let unpack::Opened { bytes, read, is_text, .. } = unpack::open(path)?;
    if is_text && !text::looks_like(&bytes) {
        read(path, &bytes)?;
    }
    Ok(())
}

impl PointCloud {
    /// Reads a scan. The content tells the format. A scan packed with gzip or zip is unpacked in memory.
    ///
    /// A valid file without points gives an empty cloud, with a note.
    ///
    /// # Errors
    ///
    /// Any [`CloudError`] except [`CloudError::Field`]: the file cannot be opened, has an unknown format,
    /// is damaged or cut off, or uses a feature that is not supported.
    pub fn read(path: &Path) -> Result<Self, CloudError> {
        let unpack::Opened { bytes, read, notes, .. } = unpack::open(path)?;
        let mut cloud = read(path, &bytes)?;
        cloud.notes.splice(0..0, notes);
        if cloud.is_empty() {
            cloud.notes.push("no points".into());
        }
        let zero = |normals: &Vec<[f32; 3]>| !normals.is_empty() && normals.iter().all(|normal| *normal == [0.0; 3]);
        if cloud.normals.as_ref().is_some_and(zero) {
            cloud.normals = None;
            cloud.notes.push("all normals are 0 0 0, taken as missing".into());
        }
        aside::set_aside(&mut cloud);
        georef::note_unstated(&mut cloud);
        Ok(cloud)
    }

    /// Number of points, also counting those without a finite position.
    pub fn len(&self) -> usize {
        self.positions.len()
    }

    /// True if there are no points.
    pub fn is_empty(&self) -> bool {
        self.positions.is_empty()
    }

    /// True if point `i` exists and its three coordinates are finite.
    pub fn is_finite(&self, i: usize) -> bool {
        self.positions.get(i).is_some_and(finite)
    }

    /// Number of points with a finite position.
    pub fn num_finite(&self) -> usize {
        self.positions.iter().filter(|p| finite(p)).count()
    }

    /// True if point `i` has a position and is not set [`aside`](Self::aside).
    pub fn is_used(&self, i: usize) -> bool {
        self.is_finite(i) && !self.is_aside(i)
    }

    fn is_aside(&self, i: usize) -> bool {
        !self.aside.is_empty() && u32::try_from(i).is_ok_and(|i| self.aside.binary_search(&i).is_ok())
    }

    /// Positions of the points that are used.
    fn used(&self) -> impl Iterator<Item = &[f64; 3]> {
        self.positions.iter().enumerate().filter(|(i, p)| finite(p) && !self.is_aside(*i)).map(|(_, p)| p)
    }

    /// Smallest and largest coordinates over the finite points that are not set aside; `None` if there are
    /// none.
    pub fn bounds(&self) -> Option<([f64; 3], [f64; 3])> {
        let mut points = self.used();
        let first = *points.next()?;
        Some(points.fold((first, first), |(mut lo, mut hi), p| {
            for ((lo, hi), &x) in lo.iter_mut().zip(&mut hi).zip(p) {
                *lo = lo.min(x);
                *hi = hi.max(x);
            }
            (lo, hi)
        }))
    }

    /// The centre of [`bounds`](Self::bounds), and all positions relative to it, in file units.
    ///
    /// The subtraction is in double precision. Map coordinates (hundreds of kilometres) would lose
    /// millimetres or centimetres if they were converted to `f32` directly. Points that are not finite
    /// become NaN. Without any finite point the origin is zero.
    pub fn centered(&self) -> ([f64; 3], Vec<[f32; 3]>) {
        let origin = self.bounds().map_or([0.0; 3], |(lo, hi)| {
            // Halved before adding: the sum of two huge coordinates can overflow.
            std::array::from_fn(|axis| lo[axis] * 0.5 + hi[axis] * 0.5)
        });
        let relative = (self.positions.iter())
            .map(|p| match finite(p) {
                true => std::array::from_fn(|axis| (p[axis] - origin[axis]) as f32),
                false => [f32::NAN; 3],
            })
            .collect();
        (origin, relative)
    }

    /// Median distance from a point to its nearest neighbour, in file units; `None` with fewer than
    /// two distinct finite points.
    ///
    /// The estimate uses at most 2000 points, spread evenly over the file. A hash grid finds their
    /// neighbours among all points. Time and memory (about 8 bytes per point) grow linearly. Exact
    /// duplicates do not count as neighbours. For clouds with many point densities at once fewer points may
    /// be used.
    pub fn spacing(&self) -> Option<f64> {
        match self.aside.is_empty() {
            true => spacing::estimate(&self.positions),
            false => spacing::estimate(&self.used().copied().collect::<Vec<_>>()),
        }
    }

    /// Attribute called `name`, if there is one.
    pub fn attribute(&self, name: &str) -> Option<&Attribute> {
        self.attributes.iter().find(|a| a.name == name)
    }

    /// Unit of the coordinates: the stated one, or a guess from their size, with the reason.
    pub fn guess_unit(&self) -> UnitGuess {
        units::guess(self)
    }

    /// Writes a binary little-endian PLY file with the whole cloud and `fields`. New colours replace those
    /// of the cloud.
    ///
    /// Coordinates are stored as `float` if that is exact for all of them, otherwise as `double`. So they
    /// read back bit by bit. Returns notes for the user about changes.
    ///
    /// # Errors
    ///
    /// [`CloudError::Field`] if the length of a field differs from the cloud's, or its name does not fit;
    /// [`CloudError::Io`] if the file cannot be written.
    pub fn write_ply(&self, dest: &Path, fields: &[Field]) -> Result<Vec<String>, CloudError> {
        ply_write::write_cloud(self, dest, fields)
    }
}

fn finite(p: &[f64; 3]) -> bool {
    p.iter().all(|x| x.is_finite())
}

/// Copies the scan `source` to `dest` with `fields` added to each point.
///
/// PLY to PLY and LAS/LAZ to LAS/LAZ keep everything in the file: order, coordinates bit by bit, all
/// attributes, elements, comments and records. (A PLY mesh whose large triangles were cut has more points
/// than vertices. It is written with its points, not copied.) A field replaces an existing one of the same
/// name. In LAS the fields are extra bytes, described by the Extra Bytes record. The extension `las` or
/// `laz` of the destination decides its compression. A COPC source becomes plain LAZ, because its octree is
/// an index of the old bytes. Every other source is written as binary PLY with everything known (see
/// [`PointCloud::write_ply`]); so is a LAS source with a `ply` destination. New colours replace those of
/// the scan in the copy (see [`Field::colors`]).
///
/// The destination may be the source: the copy is written to a temporary file in the same directory, then
/// renamed. Returns notes for the user about changes.
///
/// # Errors
///
/// [`CloudError::Field`] if a field does not have one value per point of the source, or does not fit the
/// format. [`CloudError::UnknownFormat`] if this source cannot be written in the format that the extension
/// of `dest` asks for. Otherwise the errors of reading `source` and writing `dest`.
pub fn write_with_fields(source: &Path, dest: &Path, fields: &[Field]) -> Result<Vec<String>, CloudError> {
    for (i, field) in fields.iter().enumerate() {
        let twice = fields.iter().take(i).any(|f| f.name == field.name);
        if twice || field.name.is_empty() {
            return Err(CloudError::Field {
                path: dest.to_path_buf(),
                field: field.name.clone(),
                found: if twice { "the name is given twice" } else { "the name is empty" }.into(),
                expected: "a different name for each field".into(),
            });
        }
    }
    let unpack::Opened { bytes, results, .. } = unpack::open(source)?;
    match (results, extension(dest).as_str()) {
        (Results::PlyCopy, "ply") if ply_write::fits(source, &bytes, fields)? => {
            ply_write::append(source, bytes, dest, fields)
        }
        #[cfg(feature = "las")]
        (Results::LasCopy, "las" | "laz") => las_write::append(source, bytes, dest, fields),
        (_, "ply") => {
            drop(bytes);
            let cloud = PointCloud::read(source)?;
            ply_write::write_cloud(&cloud, dest, fields)
        }
        (_, other) => Err(CloudError::UnknownFormat {
            path: dest.to_path_buf(),
            found: format!(
                "the result cannot be written with extension \"{other}\" ({} can)",
                if results == Results::LasCopy { "las, laz and ply" } else { "ply" }
            ),
        }),
    }
}

/// Checks that `field` has one value for each of `points` points.
fn check_length(dest: &Path, field: &Field, points: usize) -> Result<(), CloudError> {
    if field.data.len() == points {
        return Ok(());
    }
    Err(CloudError::Field {
        path: dest.to_path_buf(),
        field: field.name.clone(),
        found: format!("it has {} values", field.data.len()),
        expected: format!("one for each of the {points} points"),
    })
}

/// New colours among `fields`, if there are any: red, green and blue.
fn new_colors<'a>(dest: &Path, fields: &'a [Field]) -> Result<Option<[&'a [u8]; 3]>, CloudError> {
    let bad = |field: &Field, found: String| CloudError::Field {
        path: dest.to_path_buf(),
        field: field.name.clone(),
        found,
        expected: "red, green and blue together, each once and as u8: the colours of the points".into(),
    };
    let mut channels = [None; 3];
    let mut last = None;
    for field in fields {
        let Some(channel) = field.channel() else {
            continue;
        };
        let AttributeData::U8(values) = &field.data else {
            return Err(bad(field, format!("the data are {}", field.data.scalar_type().name())));
        };
        if channels[channel].replace(values.as_slice()).is_some() {
            return Err(bad(field, "the channel is given twice".into()));
        }
        last = Some(field);
    }
    match (channels, last) {
        ([Some(red), Some(green), Some(blue)], _) => Ok(Some([red, green, blue])),
        (_, Some(field)) => Err(bad(field, "another channel is missing".into())),
        (_, None) => Ok(None),
    }
}

/// Writes `dest` completely or not at all (see [`files::write_atomic`]). Everything that `write` owns is
/// dropped before the rename, so the file that is replaced may be the mapped source.
fn write_atomic(
    dest: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> Result<(), CloudError>,
) -> Result<(), CloudError> {
    files::write_atomic(dest, |out| write(out).map_err(io::Error::other))
        .map_err(|error| error.downcast().unwrap_or_else(|source| CloudError::io(dest, "write", source)))
}

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Runs a third-party decoder and turns a panic in it into an error.
///
/// The arithmetic decoder of LAZ indexes its tables with values from the file. Damaged values cannot be
/// detected before decoding.
fn guarded<T>(
    origin: Origin<'_>,
    offset: u64,
    what: &str,
    decode: impl FnOnce() -> Result<T, CloudError>,
) -> Result<T, CloudError> {
    static HOOK: Once = Once::new();
    // The error says everything, so the panic message is not printed.
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !GUARDED.get() {
                before(panic);
            }
        }));
    });
    let outer = GUARDED.replace(true);
    // Safe: the closure's data are dropped as a whole after a panic, and never used.
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(decode));
    GUARDED.set(outer);
    outcome.unwrap_or_else(|panic| {
        let message = panic
            .downcast_ref::<&str>()
            .map(ToString::to_string)
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "unknown reason".into());
        Err(origin.decode(offset, what, format!("the decoder gave up: {message}")))
    })
}
