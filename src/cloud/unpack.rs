//! Scans packed with gzip, or one scan among the files of a zip archive.

use std::io::Read;
use std::path::{Component, Path, PathBuf};

use flate2::read::{DeflateDecoder, MultiGzDecoder};
use rawzip::{CompressionMethod, ZipArchive};

use super::detect::{Reader, Results, Way, detect, unknown};
use super::error::{CloudError, Origin};
use super::source;
use crate::files::{Budget, MappedFile, OverBudget};

/// Packed files may become this many times larger, but always [`FLOOR`] bytes. Scans stay below 30.
const MOST_EXPANSION: u64 = 200;
const FLOOR: u64 = 4 << 20;
/// Bytes of an archived file that are unpacked to see what it is.
const HEAD: u64 = 4096;
/// Most files of an archive that are looked into, the largest first.
const MOST_LOOKS: usize = 100;
/// An archive in a gzip file, or the other way round; more layers are no accident.
const MOST_LAYERS: usize = 2;

/// A file that can be read, unpacked if it was packed.
pub(super) struct Opened {
    pub bytes: MappedFile,
    pub read: Reader,
    pub results: Results,
    /// True for lines of text.
    pub is_text: bool,
    /// Messages for the user.
    pub notes: Vec<String>,
}

/// Maps `path` into memory, unpacks it if it is packed, and finds its format.
pub(super) fn open(path: &Path) -> Result<Opened, CloudError> {
    let mut bytes = source::open(path)?;
    let mut name = path.to_path_buf();
    let mut notes = Vec::new();
    for _ in 0..=MOST_LAYERS {
        let Some(known) = detect(&name, &bytes) else {
            return Err(unknown(path, &name, &bytes, None));
        };
        match known.way {
            Way::Read(read, results) => return Ok(Opened { bytes, read, results, is_text: known.is_text(), notes }),
            #[cfg(not(all(feature = "las", feature = "e57", feature = "meshes")))]
            Way::NotBuilt(format, feature) => return Err(CloudError::not_built(path, format, feature)),
            Way::Refused(_) => return Err(unknown(path, &name, &bytes, Some(known))),
            Way::Unpack => {}
        }
        let unpacked = if bytes.starts_with(b"PK") {
            let (inner, data) = from_zip(path, &bytes, &mut notes)?;
            name = inner;
            data
        } else {
            if name.extension().is_some_and(|e| e.eq_ignore_ascii_case("gz")) {
                name.set_extension("");
            }
            let origin = Origin { path, format: "gzip" };
            let what = "the packed file";
            limited(origin, 0, what, MultiGzDecoder::new(&bytes[..]), bytes.len() as u64)?
        };
        if unpacked.is_empty() {
            return Err(CloudError::Empty { path: path.to_path_buf() });
        }
        bytes = MappedFile::held(unpacked);
    }
    Err(unknown(path, &name, &bytes, detect(&name, &bytes)))
}

/// Everything that `decoder` gives, which may not be much more than `packed`, the size that it reads.
fn limited(origin: Origin<'_>, at: u64, what: &str, decoder: impl Read, packed: u64) -> Result<Vec<u8>, CloudError> {
    let mut budget = Budget::new(packed, MOST_EXPANSION, FLOOR);
    budget.read_all(decoder).map_err(|error| match error.get_ref().is_some_and(|inner| inner.is::<OverBudget>()) {
        true => {
            let found = format!("longer than {} bytes when unpacked", budget.limit());
            origin.value(at, what, found, "a scan, at most that long")
        }
        false => origin.decode(at, what, error),
    })
}

/// A file in an archive.
struct Member {
    name: PathBuf,
    at: u64,
    data: std::ops::Range<usize>,
    deflated: bool,
    size: u64,
    crc: u32,
}

impl Member {
    /// Its bytes in the archive.
    fn packed<'a>(&self, archive: &'a [u8]) -> &'a [u8] {
        archive.get(self.data.clone()).unwrap_or_default()
    }

    fn decoder<'a>(&self, archive: &'a [u8]) -> Box<dyn Read + 'a> {
        let data = self.packed(archive);
        if self.deflated { Box::new(DeflateDecoder::new(data)) } else { Box::new(data) }
    }
}

/// Formats that are zip archives: a file by which each is known, its name, and what to do instead.
const ARCHIVES: [(&str, &str, &str); 4] = [
    ("means_l.webp", "a Gaussian splat file, SOG", "save it as PLY or SPZ, for instance with SuperSplat"),
    ("3D/3dmodel.model", "a 3MF mesh", "export it as PLY"),
    ("doc.kml", "a KMZ file", "export its model as PLY"),
    ("metadata", "a recording of Record3D", "give it as a recording"),
];

/// The largest scan of an archive, with its name.
fn from_zip(path: &Path, bytes: &[u8], notes: &mut Vec<String>) -> Result<(PathBuf, Vec<u8>), CloudError> {
    let origin = Origin { path, format: "zip" };
    let mut members = members(origin, bytes)?;
    members.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.name.cmp(&b.name)));
    let is_scan = |member: &&Member| {
        let mut head = Vec::new();
        // A file whose start cannot be unpacked is no scan; the checksum tells of later damage.
        let _ = member.decoder(bytes).take(HEAD).read_to_end(&mut head);
        detect(&member.name, &head)
            .is_some_and(|known| !matches!(known.way, Way::Refused(_) | Way::Unpack) || head.starts_with(b"\x1f\x8b"))
    };
    let scans: Vec<&Member> = members.iter().take(MOST_LOOKS).filter(is_scan).collect();
    let Some(scan) = scans.first() else {
        let known = ARCHIVES.iter().find(|(file, ..)| members.iter().any(|member| member.name == Path::new(file)));
        let found = match known {
            Some((_, name, way_out)) => format!("this is {name}; {way_out}"),
            None => format!("this is a zip archive of {} files without a scan among them", members.len()),
        };
        return Err(CloudError::UnknownFormat { path: path.to_path_buf(), found });
    };
    let what = format!("\"{}\"", scan.name.display());
    let data = limited(origin, scan.at, &what, scan.decoder(bytes), scan.packed(bytes).len() as u64)?;
    if crc32fast::hash(&data) != scan.crc {
        return Err(origin.decode(scan.at, what, "its checksum is another"));
    }
    match scans.len() {
        1 => notes.push(format!("{what} is the scan in the zip archive")),
        n => notes.push(format!("{what} is the largest of {n} scans in the zip archive; the others are not read")),
    }
    Ok((scan.name.clone(), data))
}

fn members(origin: Origin<'_>, bytes: &[u8]) -> Result<Vec<Member>, CloudError> {
    let failed = |error: rawzip::Error| origin.decode(0, "the list of files", error);
    let archive = ZipArchive::from_slice(bytes).map_err(failed)?;
    let mut members = Vec::new();
    let mut entries = archive.entries();
    while let Some(entry) = entries.next_entry().map_err(failed)? {
        let name = String::from_utf8_lossy(entry.file_path().as_bytes()).into_owned();
        let name = PathBuf::from(name.replace('\\', "/"));
        // A name may begin with "./", which hides nothing.
        let hidden = |part: Component<'_>| match part {
            Component::Normal(part) => part.to_string_lossy().starts_with(['.', '_']),
            _ => false,
        };
        if entry.is_dir() || name.components().any(hidden) {
            continue;
        }
        let deflated = match entry.compression_method() {
            CompressionMethod::STORE => false,
            CompressionMethod::DEFLATE => true,
            _ => continue,
        };
        // A damaged entry only matters if it is the scan.
        let Ok(local) = archive.get_entry(entry.wayfinder()) else { continue };
        let (start, end) = local.compressed_data_range();
        let size = entry.uncompressed_size_hint();
        members.push(Member {
            name,
            at: start,
            data: start as usize..end as usize,
            deflated,
            size,
            crc: entry.crc32(),
        });
    }
    Ok(members)
}
