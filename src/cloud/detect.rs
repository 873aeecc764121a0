//! The one table of formats: how a file is recognised, and what happens then.

use std::path::Path;

#[cfg(feature = "e57")]
use super::e57;
use super::error::{CloudError, quoted};
#[cfg(feature = "las")]
use super::las;
use super::source::head_contains;
use super::{PointCloud, mesh, openscene, packed_ply, pcd, ply, ptx, splat, spz, text};

/// A format that is known by its name, also if it cannot be read.
pub(super) struct Known {
    /// Name with its article, as in "this is a Blender file".
    name: &'static str,
    test: fn(&File<'_>) -> bool,
    pub way: Way,
}

impl Known {
    /// True for lines of text, which only their content tells apart from a letter.
    pub(super) fn is_text(&self) -> bool {
        self.name == TEXT
    }
}

/// Name of [`Known::is_text`].
const TEXT: &str = "text";

/// Reads a file; the path is for errors and for files beside it.
pub(super) type Reader = fn(&Path, &[u8]) -> Result<PointCloud, CloudError>;

/// What can be done with a file.
#[derive(Clone, Copy)]
pub(super) enum Way {
    /// It is read, and results are written as said.
    Read(Reader, Results),
    /// Another build can read it: the format, and the feature that reads it.
    #[cfg(not(all(feature = "las", feature = "e57", feature = "meshes")))]
    NotBuilt(&'static str, &'static str),
    /// It holds other files.
    Unpack,
    /// It cannot be read; this sentence says what to do instead.
    Refused(&'static str),
}

/// How a result can be written beside the points of a file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Results {
    /// As a copy of the PLY file with more properties.
    PlyCopy,
    /// As a copy of the LAS or LAZ file with extra bytes.
    LasCopy,
    /// As a new PLY file.
    NewPly,
}

/// What a test sees: all bytes of the file, and its extension in small letters for content that cannot tell.
struct File<'a> {
    bytes: &'a [u8],
    extension: &'a str,
}

impl File<'_> {
    fn starts(&self, magic: &[u8]) -> bool {
        self.bytes.starts_with(magic)
    }

    fn has_at(&self, at: usize, magic: &[u8]) -> bool {
        self.bytes.get(at..).is_some_and(|rest| rest.starts_with(magic))
    }

    fn head(&self, length: usize) -> &[u8] {
        self.bytes.get(..length).unwrap_or(self.bytes)
    }

    fn contains(&self, length: usize, words: &[u8]) -> bool {
        head_contains(self.bytes, length, words)
    }
}

/// Bytes at the start that are searched for words.
const HEAD: usize = 4096;

const NO_MESH: &str = "export it as PLY";
const NO_ARCHIVE: &str = "unpack it first";
const A_PICTURE: &str = "a scan is expected; `segment` labels pictures";

#[cfg(feature = "las")]
const LAS: Way = Way::Read(las::read, Results::LasCopy);
#[cfg(not(feature = "las"))]
const LAS: Way = Way::NotBuilt("LAS", "las");
#[cfg(feature = "e57")]
const E57: Way = Way::Read(e57::read, Results::NewPly);
#[cfg(not(feature = "e57"))]
const E57: Way = Way::NotBuilt("E57", "e57");

#[cfg(feature = "meshes")]
const OBJ: Way = Way::Read(mesh::obj::read, Results::NewPly);
#[cfg(feature = "meshes")]
const GLTF: Way = Way::Read(mesh::gltf::read, Results::NewPly);
#[cfg(feature = "meshes")]
const STL: Way = Way::Read(mesh::stl::read, Results::NewPly);
#[cfg(feature = "meshes")]
const OFF: Way = Way::Read(mesh::off::read, Results::NewPly);
#[cfg(not(feature = "meshes"))]
const OBJ: Way = Way::NotBuilt("OBJ", "meshes");
#[cfg(not(feature = "meshes"))]
const GLTF: Way = Way::NotBuilt("glTF", "meshes");
#[cfg(not(feature = "meshes"))]
const STL: Way = Way::NotBuilt("STL", "meshes");
#[cfg(not(feature = "meshes"))]
const OFF: Way = Way::NotBuilt("OFF", "meshes");

const fn reads(name: &'static str, test: fn(&File<'_>) -> bool, read: Reader, results: Results) -> Known {
    Known { name, test, way: Way::Read(read, results) }
}

const fn refuses(name: &'static str, test: fn(&File<'_>) -> bool, way_out: &'static str) -> Known {
    Known { name, test, way: Way::Refused(way_out) }
}

/// All formats; the first whose test is passed is taken.
static TABLE: &[Known] = &[
    Known { name: "a LAS file", test: |f| f.starts(b"LASF"), way: LAS },
    Known { name: "an E57 file", test: |f| f.starts(b"ASTM-E57"), way: E57 },
    reads("a compressed splat PLY file", |f| packed_ply::looks_like(f.bytes), packed_ply::read, Results::NewPly),
    reads("a PLY file", |f| ply::looks_like(f.bytes), ply::read, Results::PlyCopy),
    reads("a PCD file", |f| pcd::looks_like(f.bytes), pcd::read, Results::NewPly),
    reads("a Gaussian splat file, SPZ", |f| f.starts(spz::MAGIC), spz::read, Results::NewPly),
    reads("a file of PyTorch", |f| openscene::looks_like(f.bytes), openscene::read, Results::NewPly),
    Known { name: "a gzip file", test: |f| f.starts(b"\x1f\x8b"), way: Way::Unpack },
    Known { name: "a zip archive", test: |f| f.starts(b"PK\x03\x04") || f.starts(b"PK\x05\x06"), way: Way::Unpack },
    refuses("a Blender file", |f| f.starts(b"BLENDER") || f.extension == "blend", "in Blender, export it as PLY"),
    refuses("an FBX mesh", |f| f.starts(b"Kaydara FBX") || f.starts(b"; FBX"), NO_MESH),
    Known {
        name: "a glTF scene",
        test: |f| mesh::detect::is_glb(f.bytes) || mesh::detect::is_gltf(f.bytes),
        way: GLTF,
    },
    Known { name: "an OFF mesh", test: |f| mesh::detect::is_off(f.bytes), way: OFF },
    refuses("a USD scene", |f| f.starts(b"PXR-USDC") || f.starts(b"#usda"), NO_MESH),
    refuses("a COLLADA mesh", |f| f.contains(HEAD, b"<COLLADA"), NO_MESH),
    refuses("a Draco mesh", |f| f.starts(b"DRACO"), "decode it with draco_decoder, into PLY"),
    refuses(
        "a VTK file",
        |f| f.starts(b"# vtk DataFile") || f.contains(HEAD, b"<VTKFile"),
        "in ParaView, save it as PLY",
    ),
    refuses("a STEP or IFC model", |f| f.starts(b"ISO-10303-21"), "sample its surfaces into a PLY file"),
    refuses("an AutoCAD drawing", |f| f.starts(b"AC10"), "export its points as E57, LAS or text"),
    refuses(
        "a point cloud of 3D Tiles",
        |f| [&b"pnts"[..], b"b3dm", b"i3dm", b"cmpt"].iter().any(|magic| f.starts(magic)),
        "ask for the scan as LAS, LAZ, E57 or PLY",
    ),
    refuses(
        "a tile set of 3D Tiles",
        |f| f.starts(b"{") && f.contains(HEAD, b"\"geometricError\""),
        "ask for the scan as LAS, LAZ, E57 or PLY",
    ),
    refuses(
        "a point cloud of Potree",
        |f| f.starts(b"{") && (f.contains(HEAD, b"\"octreeDir\"") || f.contains(HEAD, b"\"stepSize\"")),
        "ask for the LAS or LAZ file that it was made of",
    ),
    refuses(
        "a Gaussian splat file, KSPLAT",
        |f| f.extension == "ksplat",
        "convert it into PLY, SPZ or splat, for instance with SuperSplat",
    ),
    refuses(
        "a Leica, Faro or Autodesk project",
        |f| matches!(f.extension, "rcp" | "rcs" | "fls" | "lsproj" | "imp" | "zfs"),
        "export it as E57",
    ),
    refuses(
        "a bag of ROS",
        |f| f.starts(b"#ROSBAG") || f.starts(b"\x89MCAP"),
        "write its points as PCD or PLY, its pictures as a recording",
    ),
    refuses(
        "a database of SQLite",
        |f| f.starts(b"SQLite format 3"),
        "of RTAB-Map: export the cloud as PLY, or the recording as RGB-D pictures",
    ),
    refuses("an HDF5 file", |f| f.starts(b"\x89HDF"), "write its points as PLY"),
    refuses("an array of NumPy", |f| f.starts(b"\x93NUMPY"), "write its points as PLY or text"),
    refuses("a PDF", |f| f.starts(b"%PDF"), "a scan is expected"),
    refuses("a PNG picture", |f| f.starts(b"\x89PNG"), A_PICTURE),
    refuses("a JPEG picture", |f| f.starts(b"\xff\xd8\xff"), A_PICTURE),
    refuses("a TIFF picture", |f| f.starts(b"II*\0") || f.starts(b"MM\0*"), A_PICTURE),
    refuses("a WebP picture", |f| f.starts(b"RIFF") && f.has_at(8, b"WEBP"), A_PICTURE),
    refuses(
        "a video",
        |f| f.has_at(4, b"ftyp") || f.starts(b"\x1a\x45\xdf\xa3"),
        "a scan is expected; make one of the video by photogrammetry",
    ),
    refuses("a tar archive", |f| f.has_at(257, b"ustar"), NO_ARCHIVE),
    refuses("a 7z archive", |f| f.starts(b"7z\xbc\xaf"), NO_ARCHIVE),
    refuses("a RAR archive", |f| f.starts(b"Rar!"), NO_ARCHIVE),
    refuses("an xz file", |f| f.starts(b"\xfd7zXZ"), NO_ARCHIVE),
    refuses("a bzip2 file", |f| f.starts(b"BZh"), NO_ARCHIVE),
    refuses("a zstd file", |f| f.starts(b"\x28\xb5\x2f\xfd"), NO_ARCHIVE),
    refuses("a web page", |f| is_web_page(f.head(64)), "the download went wrong; download the scan itself"),
    refuses(
        "a pointer of Git LFS",
        |f| f.starts(b"version https://git-lfs"),
        "fetch the scan itself with `git lfs pull`",
    ),
    // Behind the others: these may begin with anything, and their names are no proof.
    Known { name: "an OBJ mesh", test: is_obj, way: OBJ },
    Known { name: "an STL mesh", test: |f| mesh::detect::is_stl(f.bytes) || f.extension == "stl", way: STL },
    reads(
        "a Gaussian splat file",
        |f| splat::looks_like(f.bytes) || f.extension == "splat",
        splat::read,
        Results::NewPly,
    ),
    reads("a PTX file", |f| ptx::looks_like(f.bytes), ptx::read, Results::NewPly),
    reads(TEXT, is_text, text::read, Results::NewPly),
    refuses(
        "a JSON file",
        |f| f.starts(b"{") || f.starts(b"["),
        "a scan is expected; a recording is given as its folder",
    ),
];

/// Text with lines of OBJ; by its name also text in which they come later.
fn is_obj(file: &File<'_>) -> bool {
    mesh::detect::is_obj(file.bytes) || file.extension == "obj" && !file.head(HEAD).contains(&0)
}

fn is_web_page(head: &[u8]) -> bool {
    let head = head.trim_ascii_start().to_ascii_lowercase();
    head.starts_with(b"<!doctype html") || head.starts_with(b"<html")
}

const TEXT_EXTENSIONS: [&str; 10] = ["xyz", "txt", "csv", "pts", "asc", "xyzrgb", "xyzi", "xyzn", "tsv", "dat"];

/// Rows of numbers; with an extension of text also other lines, so that the reader can name the bad one.
fn is_text(file: &File<'_>) -> bool {
    let named = TEXT_EXTENSIONS.contains(&file.extension) && !file.starts(b"{");
    !file.head(HEAD).contains(&0) && (named || text::looks_like(file.bytes))
}

pub(super) fn extension(path: &Path) -> String {
    path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase()).unwrap_or_default()
}

/// Finds the format of a file by its content. The name is only a hint where the content cannot tell.
pub(super) fn detect(name: &Path, bytes: &[u8]) -> Option<&'static Known> {
    let extension = extension(name);
    let file = File { bytes, extension: &extension };
    TABLE.iter().find(|known| (known.test)(&file))
}

/// The error for a file that [`detect`] does not know, or knows and cannot read.
pub(super) fn unknown(path: &Path, name: &Path, bytes: &[u8], known: Option<&Known>) -> CloudError {
    let extension = extension(name);
    let found = match known {
        Some(Known { name, way: Way::Refused(way_out), .. }) => format!("this is {name}; {way_out}"),
        Some(Known { name, .. }) => format!("this is {name} within another one; unpack it first"),
        None if extension.is_empty() => "the content is not of a known format and there is no extension".into(),
        None if bytes.get(..HEAD).unwrap_or(bytes).contains(&0) && TEXT_EXTENSIONS.contains(&extension.as_str()) => {
            format!("the extension is {extension}, but the content is binary")
        }
        None => {
            let start = quoted(bytes.get(..8).unwrap_or(bytes));
            format!("the extension is {extension}, but the file starts with {start}")
        }
    };
    CloudError::UnknownFormat { path: path.to_path_buf(), found }
}
