//! Where the bytes of a checkpoint lie: the ZIP archive and the older pickle stream.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

use super::super::WeightsError;
use super::pickle::{Pickle, PickleError, Storage, Value};

/// A checkpoint taken apart: what it says, and where its storages are.
pub(super) struct Opened {
    pub pickle: Pickle,
    pub storages: HashMap<String, Blob>,
}

/// The bytes of one storage.
#[derive(Debug, Clone)]
pub(super) struct Blob {
    /// Within the file, checked.
    pub range: Range<usize>,
    /// CRC-32 the container states, if it does.
    pub crc32: Option<u32>,
}

/// How a file written by `torch.save` before 1.6 begins: PROTO 2, then a number.
const LEGACY_MAGIC: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
const LEGACY_PROTOCOL: i64 = 1001;

/// Detects the container and takes it apart.
pub(super) fn open(path: &Path, bytes: &[u8]) -> Result<Opened, WeightsError> {
    if bytes.starts_with(b"PK\x03\x04") {
        return open_zip(path, bytes);
    }
    if bytes.starts_with(LEGACY_MAGIC) {
        return open_legacy(path, bytes);
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

/// Magic number, protocol, system, the object, the list of storage keys, then per key an
/// element count (i64) and the elements.
fn open_legacy(path: &Path, bytes: &[u8]) -> Result<Opened, WeightsError> {
    let mut at = LEGACY_MAGIC.len();
    let mut next = || {
        let start = at;
        let pickle = Pickle::parse(&bytes[start..]).map_err(|error| pickle_error(path, start, error))?;
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

const END: &[u8; 4] = b"PK\x05\x06";
const END_LEN: usize = 22;
const END64_LOCATOR: &[u8; 4] = b"PK\x06\x07";
const END64_LOCATOR_LEN: usize = 20;
const END64: &[u8; 4] = b"PK\x06\x06";
const END64_LEN: usize = 56;
const CENTRAL: &[u8; 4] = b"PK\x01\x02";
const CENTRAL_LEN: usize = 46;
const LOCAL: &[u8; 4] = b"PK\x03\x04";
const LOCAL_LEN: usize = 30;
const STORED: u16 = 0;

/// One line of the archive's directory.
struct Entry {
    flags: u16,
    method: u16,
    crc32: u32,
    compressed: u64,
    size: u64,
    /// Offset of the local header.
    local: u64,
}

/// `<root>/data.pkl`, one entry `<root>/data/<key>` per storage, `<root>/byteorder`.
///
/// Entries must be stored, as torch.save writes them: an entry is then never larger than the
/// file, and no small file can ask for much memory.
fn open_zip(path: &Path, bytes: &[u8]) -> Result<Opened, WeightsError> {
    let entries = directory(path, bytes)?;
    let root = entries
        .keys()
        .filter_map(|name| name.strip_suffix("data.pkl"))
        .filter(|root| root.is_empty() || root.ends_with('/'))
        .min_by_key(|root| (root.len(), *root))
        .ok_or_else(|| WeightsError::WrongFormat {
            path: path.to_path_buf(),
            reason: "a ZIP archive without data.pkl is no PyTorch checkpoint".to_owned(),
        })?;
    let blob = |name: &str, entry: &Entry| locate(path, bytes, name, entry);

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
    let pickle = Pickle::parse(&bytes[pickled.range]).map_err(|error| pickle_error(path, start, error))?;
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
    let found = super::crc32::crc32(&bytes[blob.range.clone()]);
    if found == expected {
        return Ok(());
    }
    Err(WeightsError::Checksum { path: path.to_path_buf(), entry: entry.to_owned(), expected, found })
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|b| u16::from_le_bytes(*b))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|b| u32::from_le_bytes(*b))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|b| u64::from_le_bytes(*b))
}

fn record<'a>(bytes: &'a [u8], at: u64, signature: &[u8; 4], len: usize) -> Option<&'a [u8]> {
    let record = bytes.get(usize::try_from(at).ok()?..)?.get(..len)?;
    record.starts_with(signature).then_some(record)
}

/// Reads the archive's directory: names to entries.
fn directory<'a>(path: &Path, bytes: &'a [u8]) -> Result<HashMap<&'a str, Entry>, WeightsError> {
    let bad = |at: usize, reason: &str| WeightsError::malformed(path, at, reason);
    let (end_at, count, size, offset) = find_directory(bytes)
        .ok_or_else(|| bad(bytes.len(), "the archive has no directory; the file may be cut off"))?;
    let start = usize::try_from(offset).ok();
    let table = start
        .zip(usize::try_from(size).ok())
        .and_then(|(start, size)| Some(start..start.checked_add(size)?))
        .filter(|range| range.end <= end_at)
        .and_then(|range| bytes.get(range))
        .ok_or_else(|| bad(end_at, "the archive's directory lies outside the file"))?;
    // Every line takes at least its fixed part, so the count is bounded by the table.
    if count > (table.len() / CENTRAL_LEN) as u64 {
        return Err(bad(end_at, "the archive's directory is shorter than it says"));
    }
    let start = start.unwrap_or(0);

    let mut entries = HashMap::new();
    let mut at = 0;
    for _ in 0..count {
        let (name, entry, len) = directory_line(&table[at..])
            .ok_or_else(|| bad(start + at, "a line of the archive's directory is malformed"))?;
        let name = std::str::from_utf8(name).map_err(|_| bad(start + at, "an entry's name is not UTF-8"))?;
        if entries.insert(name, entry).is_some() {
            return Err(bad(start + at, "two entries of the archive have one name"));
        }
        at += len;
    }
    Ok(entries)
}

/// End record's offset, number of entries, size and offset of the directory.
fn find_directory(bytes: &[u8]) -> Option<(usize, u64, u64, u64)> {
    // A comment of up to 64 KiB may follow the end record, which therefore is searched for.
    let last = bytes.len().checked_sub(END_LEN)?;
    let first = last.saturating_sub(usize::from(u16::MAX));
    let end_at = (first..=last).rev().find(|&at| {
        bytes[at..].starts_with(END)
            && u16_at(bytes, at + 20).is_some_and(|len| at + END_LEN + usize::from(len) == bytes.len())
    })?;
    let end64 =
        end_at.checked_sub(END64_LOCATOR_LEN).and_then(|at| record(bytes, at as u64, END64_LOCATOR, END64_LOCATOR_LEN));
    if let Some(locator) = end64 {
        let record = record(bytes, u64_at(locator, 8)?, END64, END64_LEN)?;
        return Some((end_at, u64_at(record, 32)?, u64_at(record, 40)?, u64_at(record, 48)?));
    }
    Some((
        end_at,
        u16_at(bytes, end_at + 10)?.into(),
        u32_at(bytes, end_at + 12)?.into(),
        u32_at(bytes, end_at + 16)?.into(),
    ))
}

/// Name, entry and length of the directory line at the start of `table`.
fn directory_line(table: &[u8]) -> Option<(&[u8], Entry, usize)> {
    let line = record(table, 0, CENTRAL, CENTRAL_LEN)?;
    let name_len = usize::from(u16_at(line, 28)?);
    let extra_len = usize::from(u16_at(line, 30)?);
    let comment_len = usize::from(u16_at(line, 32)?);
    let len = CENTRAL_LEN + name_len + extra_len + comment_len;
    let tail = table.get(CENTRAL_LEN..len)?;
    let (name, tail) = tail.split_at(name_len);

    // A field of all ones is given in the 64-bit extra field instead, in this order.
    let mut wide = zip64_field(&tail[..extra_len]).unwrap_or(&[]);
    let mut widen = |narrow: u32| {
        if narrow != u32::MAX {
            return Some(u64::from(narrow));
        }
        let value = u64_at(wide, 0)?;
        wide = &wide[8..];
        Some(value)
    };
    let size = widen(u32_at(line, 24)?)?;
    let compressed = widen(u32_at(line, 20)?)?;
    let local = widen(u32_at(line, 42)?)?;
    let entry =
        Entry { flags: u16_at(line, 8)?, method: u16_at(line, 10)?, crc32: u32_at(line, 16)?, compressed, size, local };
    Some((name, entry, len))
}

fn zip64_field(mut extra: &[u8]) -> Option<&[u8]> {
    loop {
        let id = u16_at(extra, 0)?;
        let body = extra.get(4..)?;
        let body_len = usize::from(u16_at(extra, 2)?);
        if id == 1 {
            return body.get(..body_len);
        }
        extra = body.get(body_len..)?;
    }
}

/// Where an entry's bytes are.
fn locate(path: &Path, bytes: &[u8], name: &str, entry: &Entry) -> Result<Blob, WeightsError> {
    if entry.flags & 1 != 0 {
        return Err(WeightsError::unsupported(path, "an encrypted archive"));
    }
    if entry.method != STORED || entry.compressed != entry.size {
        return Err(WeightsError::unsupported(
            path,
            format!(
                "'{}' is compressed, which torch.save never does; save the checkpoint again or \
                 repack it with `zip -0`",
                name.escape_debug()
            ),
        ));
    }
    // The local header repeats the entry, with an extra field of its own length.
    let range = record(bytes, entry.local, LOCAL, LOCAL_LEN).and_then(|header| {
        let name_len = usize::from(u16_at(header, 26)?);
        let extra_len = usize::from(u16_at(header, 28)?);
        let start = usize::try_from(entry.local).ok()? + LOCAL_LEN + name_len + extra_len;
        let end = start.checked_add(usize::try_from(entry.size).ok()?)?;
        (end <= bytes.len()).then_some(start..end)
    });
    let Some(range) = range else {
        return Err(WeightsError::malformed(
            path,
            usize::try_from(entry.local).unwrap_or(usize::MAX),
            format!("'{}' lies outside the file", name.escape_debug()),
        ));
    };
    Ok(Blob {
        range,
        // torch.save writes zero where it was told not to compute checksums.
        crc32: (entry.crc32 != 0).then_some(entry.crc32),
    })
}
