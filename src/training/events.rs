//! Event files for TensorBoard.
//!
//! A file is a sequence of records: the length as u64, its checksum, the bytes, their checksum, all
//! little-endian. Checksums are CRC-32C, rotated by 15 bits and offset, as in TensorFlow's `TFRecord`. The
//! bytes are a protocol buffer `Event`. Five fields are used: `wall_time`, `step`, `file_version` (of the
//! first record), and `summary` with `tag` and `simple_value`.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::metrics_log::LogError;
use crate::files::{MappedFile, write_atomic};

const FILE_VERSION: &str = "brain.Event:2";

/// Part of every event file's name, by which TensorBoard finds it.
const NAME: &str = "events.out.tfevents.";

/// Part of the names of this program's event files.
const MARK: &str = ".geopurify.";

// Keys of protocol buffer fields: the field number times 8, plus 0 for a varint, 1 for 64 bits, 2 for bytes,
// 5 for 32 bits.
const WALL_TIME: u64 = 1 << 3 | 1;
const STEP: u64 = 2 << 3;
const VERSION: u64 = 3 << 3 | 2;
const SUMMARY: u64 = 5 << 3 | 2;
const VALUE: u64 = 1 << 3 | 2;
const TAG: u64 = 1 << 3 | 2;
const SIMPLE_VALUE: u64 = 2 << 3 | 5;

/// A growing log of scalars.
///
/// Values are collected in memory until [`flush`](Self::flush) or until they reach a few kilobytes.
/// TensorBoard shows them only after that.
#[derive(Debug)]
pub struct EventWriter {
    file: BufWriter<File>,
    path: PathBuf,
}

impl EventWriter {
    /// Starts a new event file in the folder `dir`, which is made if it is missing. Other event files there
    /// stay.
    ///
    /// # Errors
    /// [`LogError::Io`].
    pub fn create(dir: &Path) -> Result<Self, LogError> {
        std::fs::create_dir_all(dir).map_err(LogError::io(dir, "create"))?;
        let now = now();
        // TensorBoard reads the files of a folder in the order of their names.
        let name = |attempt: u32| format!("{NAME}{:010}{MARK}{attempt}", now as u64);
        let mut attempt = 0;
        let (path, file) = loop {
            let path = dir.join(name(attempt));
            match OpenOptions::new().append(true).create_new(true).open(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && attempt < 1000 => attempt += 1,
                opened => break (path.clone(), opened.map_err(LogError::io(&path, "create"))?),
            }
        };
        let mut writer = Self { file: BufWriter::new(file), path };
        let mut event = Vec::new();
        put_wall_time(&mut event, now);
        put_bytes(&mut event, VERSION, FILE_VERSION.as_bytes());
        writer.record(&event)?;
        writer.flush()?;
        Ok(writer)
    }

    /// Continues the event file `path` after its last record.
    ///
    /// A file that ends in an unfinished record needs [`resume`](Self::resume), because readers stop at such
    /// a record.
    ///
    /// # Errors
    /// [`LogError::Io`], and [`LogError::Format`] for a file of another kind or with an unfinished last
    /// record.
    pub fn append(path: &Path) -> Result<Self, LogError> {
        let (_, rest) = read_records(path)?;
        if rest > 0 {
            return Err(LogError::Format {
                path: path.to_path_buf(),
                message: format!("the last {rest} bytes are not a complete record"),
                expected: "an event file whose last record is complete",
            });
        }
        Self::open(path)
    }

    /// Continues the event file `path` after step `keep_up_to_step`. Records of later steps are dropped. So
    /// are bytes behind the last complete record, left by a killed run. The file is replaced completely or
    /// not at all.
    ///
    /// # Errors
    /// [`LogError::Io`], and [`LogError::Format`] for a file of another kind.
    pub fn resume(path: &Path, keep_up_to_step: u64) -> Result<Self, LogError> {
        let (records, rest) = read_records(path)?;
        let kept: Vec<&Record> = records.iter().filter(|record| record.step <= keep_up_to_step).collect();
        if rest > 0 || kept.len() < records.len() {
            if rest > 0 {
                log::warn!("{}: {rest} bytes behind the last complete record are dropped", path.display());
            }
            let written =
                write_atomic(path, |out| kept.iter().try_for_each(|record| out.write_all(&framed(&record.event))));
            written.map_err(LogError::io(path, "write"))?;
        }
        Self::open(path)
    }

    fn open(path: &Path) -> Result<Self, LogError> {
        let file = OpenOptions::new().append(true).open(path).map_err(LogError::io(path, "open"))?;
        Ok(Self { file: BufWriter::new(file), path: path.to_path_buf() })
    }

    /// Adds a value: `wall_time` in seconds since 1970 ([`now`]).
    ///
    /// # Errors
    /// [`LogError::Io`].
    pub fn scalar(&mut self, tag: &str, step: u64, value: f32, wall_time: f64) -> Result<(), LogError> {
        let mut entry = Vec::new();
        put_bytes(&mut entry, TAG, tag.as_bytes());
        put_varint(&mut entry, SIMPLE_VALUE);
        entry.extend(value.to_le_bytes());
        let mut summary = Vec::new();
        put_bytes(&mut summary, VALUE, &entry);
        let mut event = Vec::new();
        put_wall_time(&mut event, wall_time);
        put_varint(&mut event, STEP);
        put_varint(&mut event, step);
        put_bytes(&mut event, SUMMARY, &summary);
        self.record(&event)
    }

    /// Writes all collected values to the file.
    ///
    /// # Errors
    /// [`LogError::Io`].
    pub fn flush(&mut self) -> Result<(), LogError> {
        self.file.flush().map_err(LogError::io(&self.path, "write"))
    }

    /// Path of the file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn record(&mut self, event: &[u8]) -> Result<(), LogError> {
        self.file.write_all(&framed(event)).map_err(LogError::io(&self.path, "write"))
    }
}

/// Last event file that an [`EventWriter`] started in the folder `dir`; `None` if there is none. Files of
/// other programs do not count.
///
/// # Errors
/// [`LogError::Io`] if the folder cannot be listed.
pub fn last_event_file(dir: &Path) -> Result<Option<PathBuf>, LogError> {
    let entries = std::fs::read_dir(dir).map_err(LogError::io(dir, "list"))?;
    let mut last = None;
    for entry in entries {
        let entry = entry.map_err(LogError::io(dir, "list"))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.contains(NAME) && name.contains(MARK) {
            last = last.max(Some(entry.path()));
        }
    }
    Ok(last)
}

/// Seconds since 1970.
#[must_use]
pub fn now() -> f64 {
    // A clock before 1970 is treated as zero.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

struct Record {
    step: u64,
    event: Vec<u8>,
}

/// Reads the complete records at the start of a file. Also returns the number of bytes behind them.
fn read_records(path: &Path) -> Result<(Vec<Record>, usize), LogError> {
    let bytes = MappedFile::open(path).map_err(LogError::io(path, "open"))?;
    let mut records = Vec::new();
    let mut rest: &[u8] = &bytes;
    while let Some((event, after)) = next_record(rest) {
        let Some(step) = step_of(event) else { break };
        records.push(Record { step, event: event.to_vec() });
        rest = after;
    }
    if records.is_empty() {
        return Err(LogError::Format {
            path: path.to_path_buf(),
            message: "the file does not start with a record".into(),
            expected: "a TensorBoard event file",
        });
    }
    Ok((records, rest.len()))
}

/// Returns the record at the start of `bytes` and the bytes behind it, if its checksums agree.
fn next_record(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<8>()?;
    let (length_crc, rest) = rest.split_first_chunk::<4>()?;
    if u32::from_le_bytes(*length_crc) != masked_crc(length) {
        return None;
    }
    let (event, rest) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
    let (event_crc, rest) = rest.split_first_chunk::<4>()?;
    (u32::from_le_bytes(*event_crc) == masked_crc(event)).then_some((event, rest))
}

/// Step of an event, 0 if it has none (the first one). `None` for bytes that are not a protocol buffer.
fn step_of(mut event: &[u8]) -> Option<u64> {
    let mut step = 0;
    while !event.is_empty() {
        let key = take_varint(&mut event)?;
        match key & 7 {
            0 => {
                let value = take_varint(&mut event)?;
                if key == STEP {
                    step = value;
                }
            }
            1 => event = event.get(8..)?,
            2 => {
                let length = take_varint(&mut event)?;
                event = event.get(usize::try_from(length).ok()?..)?;
            }
            5 => event = event.get(4..)?,
            _ => return None,
        }
    }
    Some(step)
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_wall_time(out: &mut Vec<u8>, wall_time: f64) {
    put_varint(out, WALL_TIME);
    out.extend(wall_time.to_le_bytes());
}

fn put_bytes(out: &mut Vec<u8>, key: u64, bytes: &[u8]) {
    put_varint(out, key);
    put_varint(out, bytes.len() as u64);
    out.extend(bytes);
}

fn framed(event: &[u8]) -> Vec<u8> {
    let length = (event.len() as u64).to_le_bytes();
    let mut record = Vec::with_capacity(event.len() + 16);
    record.extend(length);
    record.extend(masked_crc(&length).to_le_bytes());
    record.extend(event);
    record.extend(masked_crc(event).to_le_bytes());
    record
}

fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_read_back() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            assert_eq!(take_varint(&mut bytes.as_slice()), Some(value));
        }
        assert_eq!(take_varint(&mut [0x80; 20].as_slice()), None);
        assert_eq!(take_varint(&mut [0x80].as_slice()), None);
    }

    #[test]
    fn anything_is_no_record() {
        assert!(next_record(&[]).is_none() && next_record(&[0; 16]).is_none());
        // A length beyond the end, with a correct checksum.
        let length = u64::MAX.to_le_bytes();
        let bytes = [&length[..], &masked_crc(&length).to_le_bytes(), &[1, 2, 3]].concat();
        assert!(next_record(&bytes).is_none());
        assert_eq!(next_record(&framed(b"abc")).unwrap(), (&b"abc"[..], &[][..]));
        for wrong in [&[0xff][..], &[0x12, 9, 1], &[0x0b], &[0x09, 1]] {
            assert_eq!(step_of(wrong), None, "{wrong:?}");
        }
    }
}
