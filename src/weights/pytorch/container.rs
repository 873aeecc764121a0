//! The two containers of a checkpoint: the ZIP archive and the older stream of pickles.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::Path;

use rawzip::{CompressionMethod, ZipArchive, ZipArchiveEntryWayfinder, ZipSliceArchive};

use super::super::WeightsError;
use super::pickle::{Pickle, PickleError, Storage, Value};

/// A checkpoint taken apart: its pickle, and where its storages are.
pub(super) struct Opened {
    pub pickle: Pickle,
    pub storages: HashMap<String, Blob>,
}

/// The bytes of one storage.
#[derive(Debug, Clone)]
pub(super) struct Blob {
    /// Place in the file. It was checked to lie within.
    pub range: Range<usize>,
    /// CRC-32, if the container states it.
    pub crc32: Option<u32>,
}

/// The first bytes of a file written by `torch.save` before 1.6: PROTO 2, then a number.
const LEGACY_MAGIC: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
const LEGACY_PROTOCOL: i64 = 1001;

/// Detects the container and takes it apart. Its pickle may have `most` bytes.
pub(super) fn open(path: &Path, bytes: &[u8], most: usize) -> Result<Opened, WeightsError> {
    if bytes.starts_with(b"PK\x03\x04") {
        return open_zip(path, bytes, most);
    }
    if bytes.starts_with(LEGACY_MAGIC) {
        return open_legacy(path, bytes, most);
    }
    let reason = if bytes.is_empty() {
        "the file is empty"
    } else if bytes.get(8) == Some(&b'{') {
        "this looks like a safetensors file, not a PyTorch checkpoint"
    } else if bytes.get(257..262) == Some(b"ustar") {
        "this is an archive of PyTorch 0.1 or another tar file; save it again with torch.save"
    } else if bytes.starts_with(b"version https://git-lfs") {
        "this is a Git LFS pointer; fetch the file itself"
    } else if bytes.starts_with(b"<") {
        "this is an HTML or XML page, not a checkpoint; the download may have failed"
    } else {
        "no PyTorch checkpoint: neither a ZIP archive nor a torch.save stream"
    };
    Err(WeightsError::WrongFormat { path: path.to_path_buf(), reason: reason.to_owned() })
}

fn pickle_error(path: &Path, start: usize, error: PickleError) -> WeightsError {
    WeightsError::malformed(path, start + error.offset, format!("pickle: {}", error.reason))
}

// ---- the stream of pickles ----

/// Reads the older stream: magic number, protocol, system, the object, the list of storage keys,
/// then per key an element count (i64) and the elements.
fn open_legacy(path: &Path, bytes: &[u8], most: usize) -> Result<Opened, WeightsError> {
    let mut at = LEGACY_MAGIC.len();
    let mut next = || {
        let start = at;
        let pickle = Pickle::parse(&bytes[start..], most).map_err(|error| pickle_error(path, start, error))?;
        at += pickle.len;
        Ok::<_, WeightsError>(pickle)
    };
    let protocol = next()?;
    if !matches!(protocol.get(protocol.root()), Value::Int(LEGACY_PROTOCOL)) {
        return Err(WeightsError::malformed(
            path,
            LEGACY_MAGIC.len(),
            format!("the stream's protocol is not {LEGACY_PROTOCOL}"),
        ));
    }
    let system = next()?;
    let little = system.lookup(system.root(), "little_endian");
    if !little.is_some_and(|id| matches!(system.get(id), Value::Bool(true))) {
        return Err(WeightsError::unsupported(path, "a checkpoint not marked as little-endian"));
    }
    let pickle = next()?;
    let keys = next()?;
    let Value::List(list) = keys.get(keys.root()) else {
        return Err(WeightsError::malformed(path, at, "no list of storages"));
    };

    let mut declared: HashMap<&str, &Storage> = HashMap::new();
    for storage in pickle.storages() {
        if let Some(earlier) = declared.insert(&storage.key, storage)
            && (earlier.numel, earlier.element_size) != (storage.numel, storage.element_size)
        {
            return Err(WeightsError::malformed(
                path,
                at,
                format!("storage '{}' is declared with two sizes", storage.key),
            ));
        }
    }
    let mut storages = HashMap::new();
    for id in list {
        let key = match keys.get(*id) {
            Value::Str(key) => key.to_string(),
            Value::Int(key) => key.to_string(),
            _ => return Err(WeightsError::malformed(path, at, "a storage has no key")),
        };
        let Some(storage) = declared.get(key.as_str()) else {
            return Err(WeightsError::malformed(path, at, "a storage follows that nothing refers to"));
        };
        let count = bytes[at..].first_chunk().map(|count| i64::from_le_bytes(*count));
        if count.and_then(|count| usize::try_from(count).ok()) != Some(storage.numel) {
            return Err(WeightsError::malformed(
                path,
                at,
                format!("storage '{key}' should begin with its length {}", storage.numel),
            ));
        }
        let start = at + 8;
        let end = storage
            .numel
            .checked_mul(storage.element_size)
            .and_then(|len| start.checked_add(len))
            .filter(|&end| end <= bytes.len())
            .ok_or_else(|| WeightsError::malformed(path, start, format!("storage '{key}' is cut off")))?;
        let blob = Blob { range: start..end, crc32: None };
        if storages.insert(key, blob).is_some() {
            return Err(WeightsError::malformed(path, at, "a storage is stored twice"));
        }
        at = end;
    }
    Ok(Opened { pickle, storages })
}

// ---- the ZIP archive ----

/// The directory's end record begins at most this far from the end of the file: its own length and the
/// longest comment.
const END_RECORD_REACH: u64 = 22 + u16::MAX as u64;

/// One entry of the archive.
struct Entry {
    wayfinder: ZipArchiveEntryWayfinder,
    method: CompressionMethod,
    encrypted: bool,
    /// Offset of the local header.
    local: u64,
}

/// Reads the archive: `<root>/data.pkl`, one entry `<root>/data/<key>` per storage, `<root>/byteorder`.
///
/// Entries must be stored, as torch.save writes them. An entry is then never larger than the
/// file, and no small file can ask for much memory.
fn open_zip(path: &Path, bytes: &[u8], most: usize) -> Result<Opened, WeightsError> {
    let located = ZipArchive::with_max_search_space(END_RECORD_REACH).locate_in_slice(bytes);
    let archive = located.map_err(|(_, error)| {
        let reason = format!("the archive's directory cannot be found; the file may be cut off ({error})");
        WeightsError::malformed(path, bytes.len(), reason)
    })?;
    let entries = directory(path, &archive)?;
    let root = entries
        .keys()
        .filter_map(|name| name.strip_suffix("data.pkl"))
        .filter(|root| root.is_empty() || root.ends_with('/'))
        .min_by_key(|root| (root.len(), *root))
        .ok_or_else(|| WeightsError::WrongFormat {
            path: path.to_path_buf(),
            reason: "a ZIP archive without data.pkl is no PyTorch checkpoint".to_owned(),
        })?;
    let blob = |name: &str, entry: &Entry| locate(path, &archive, name, entry);

    let byteorder = format!("{root}byteorder");
    if let Some(entry) = entries.get(byteorder.as_str()) {
        let range = blob(&byteorder, entry)?.range;
        if bytes[range].trim_ascii() != b"little" {
            return Err(WeightsError::unsupported(path, "a checkpoint not marked as little-endian"));
        }
    }
    let mut pickled = None;
    let mut storages = HashMap::new();
    for (name, entry) in &entries {
        let Some(name_in_root) = name.strip_prefix(root) else {
            continue;
        };
        if name_in_root == "data.pkl" {
            pickled = Some(blob(name, entry)?);
        } else if let Some(key) = name_in_root.strip_prefix("data/")
            && !key.is_empty()
        {
            storages.insert(key.to_owned(), blob(name, entry)?);
        }
    }
    let Some(pickled) = pickled else {
        return Err(WeightsError::malformed(path, 0, "data.pkl is gone"));
    };
    let start = pickled.range.start;
    verify(path, bytes, "data.pkl", &pickled)?;
    let pickle = Pickle::parse(&bytes[pickled.range], most).map_err(|error| pickle_error(path, start, error))?;
    for storage in pickle.storages() {
        let needed = storage.numel * storage.element_size;
        if let Some(blob) = storages.get(&*storage.key)
            && blob.range.len() < needed
        {
            return Err(WeightsError::malformed(
                path,
                blob.range.start,
                format!("storage '{}' has {} bytes, {needed} are declared", storage.key, blob.range.len()),
            ));
        }
    }
    Ok(Opened { pickle, storages })
}

/// Checks the stored bytes against their checksum.
pub(super) fn verify(path: &Path, bytes: &[u8], entry: &str, blob: &Blob) -> Result<(), WeightsError> {
    let Some(expected) = blob.crc32 else {
        return Ok(());
    };
    let found = crc32fast::hash(&bytes[blob.range.clone()]);
    if found == expected {
        return Ok(());
    }
    Err(WeightsError::Checksum { path: path.to_path_buf(), entry: entry.to_owned(), expected, found })
}

fn malformed(path: &Path, offset: u64, reason: impl Into<String>) -> WeightsError {
    WeightsError::Malformed { path: path.to_path_buf(), offset, reason: reason.into() }
}

/// Checks that the directory ends before the end record that states its size. `rawzip` leaves the size unread. In a
/// ZIP64 archive another record states it, and the end record need not.
fn check_directory_size(path: &Path, archive: &ZipSliceArchive<&[u8]>) -> Result<(), WeightsError> {
    let end = archive.eocd_offset();
    let Some((before, record)) = usize::try_from(end).ok().and_then(|end| archive.get_ref().split_at_checked(end))
    else {
        return Err(malformed(path, end, "the archive's end record is cut off"));
    };
    let is_zip64 = before.last_chunk::<20>().is_some_and(|locator| locator.starts_with(b"PK\x06\x07"));
    let size = record.get(12..).and_then(|rest| rest.first_chunk()).map_or(u32::MAX, |size| u32::from_le_bytes(*size));
    if !is_zip64 && archive.directory_offset().saturating_add(size.into()) > end {
        let reason = format!("the archive's directory has {size} bytes, more than there are before its end record");
        return Err(malformed(path, end, reason));
    }
    Ok(())
}

/// Reads the archive's directory: its entries by name.
fn directory<'a>(path: &Path, archive: &'a ZipSliceArchive<&[u8]>) -> Result<BTreeMap<&'a str, Entry>, WeightsError> {
    let mut entries = BTreeMap::new();
    let mut lines = archive.entries();
    let mut offset = archive.directory_offset();
    check_directory_size(path, archive)?;
    // Every line takes bytes of the file, so a count that is too large ends the loop early.
    for _ in 0..archive.entries_hint() {
        let line = match lines.next_entry() {
            Ok(Some(line)) => line,
            Ok(None) => return Err(malformed(path, offset, "the archive's directory is shorter than it says")),
            Err(error) => {
                let reason = format!("a line of the archive's directory is malformed ({error})");
                return Err(malformed(path, offset, reason));
            }
        };
        offset = line.central_directory_offset();
        let Ok(name) = std::str::from_utf8(line.file_path().as_bytes()) else {
            return Err(malformed(path, offset, "an entry's name is not UTF-8"));
        };
        let entry = Entry {
            wayfinder: line.wayfinder(),
            method: line.compression_method(),
            encrypted: line.flags().is_encrypted(),
            local: line.local_header_offset(),
        };
        if entries.insert(name, entry).is_some() {
            return Err(malformed(path, offset, "two entries of the archive have one name"));
        }
    }
    Ok(entries)
}

/// Finds an entry's bytes, which lie within the file.
fn locate(path: &Path, archive: &ZipSliceArchive<&[u8]>, name: &str, entry: &Entry) -> Result<Blob, WeightsError> {
    if entry.encrypted {
        return Err(WeightsError::unsupported(path, "an encrypted archive"));
    }
    let wayfinder = entry.wayfinder;
    if entry.method != CompressionMethod::STORE
        || wayfinder.compressed_size_hint() != wayfinder.uncompressed_size_hint()
    {
        return Err(WeightsError::unsupported(
            path,
            format!(
                "'{}' is compressed, which torch.save never does; save the checkpoint again or \
                 repack it with `zip -0`",
                name.escape_debug()
            ),
        ));
    }
    let found = archive.get_entry(wayfinder).map_err(|error| {
        let reason = format!("'{}' does not lie within the file ({error})", name.escape_debug());
        malformed(path, entry.local, reason)
    })?;
    let (start, end) = found.compressed_data_range();
    // torch.save writes zero where it was told not to compute checksums.
    let crc32 = Some(found.claim_verifier().crc).filter(|&crc32| crc32 != 0);
    Ok(Blob { range: start as usize..end as usize, crc32 })
}
