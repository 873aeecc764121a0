//! Safetensors files: memory-mapped reading of blocks, streamed writing.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use rayon::prelude::*;
use safetensors::tensor::{Metadata, TensorInfo};
use sha2::{Digest as _, Sha256};

use super::tensor::{floats_from_le, ints_from_le};
use super::{Dtype, StateDict, WeightsError, seals, sha256};
use crate::files::{AtomicFile, MappedFile};

/// Length in bytes of the field before the header, which holds the header's length.
const LENGTH_LEN: usize = 8;
/// Longest accepted header in bytes. Those of large models take some 100 KiB. Parsing takes a few dozen times
/// as much memory.
const MAX_HEADER: u64 = 8 << 20;
/// Elements converted by one task of a parallel read.
const TASK_ELEMENTS: usize = 1 << 16;

/// Metadata entry of a sealed file: the SHA-256 of the whole file, with zeros in place of this entry's own
/// digits. It covers the header too. It is inside the file, so it cannot be lost or belong to another file.
const SEAL: &str = "sha256";
/// Hexadecimal digits of the seal.
const SEAL_LEN: usize = 64;

/// A memory-mapped safetensors file. Tensors are read in place.
#[derive(Debug)]
pub struct SafetensorsFile {
    path: PathBuf,
    bytes: MappedFile,
    metadata: Metadata,
    /// Byte offset of the data section.
    data: usize,
}

/// View of one tensor of an open file, without a copy.
#[derive(Debug, Clone, Copy)]
pub struct TensorView<'a> {
    path: &'a Path,
    name: &'a str,
    /// Element type.
    pub dtype: Dtype,
    /// Extents, outermost first.
    pub shape: &'a [usize],
    /// Elements, little-endian and row-major. They may be unaligned.
    pub bytes: &'a [u8],
}

impl SafetensorsFile {
    /// Maps a file and checks its header: the extents of every tensor match its bytes, the tensors follow
    /// each other without gaps, and together they fill the file.
    ///
    /// # Errors
    /// [`WeightsError::Io`], [`WeightsError::TooLarge`] for a header above 8 MiB, and
    /// [`WeightsError::Malformed`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, WeightsError> {
        let path = path.as_ref();
        let bytes = MappedFile::open(path).map_err(|error| WeightsError::io(path, error))?;
        Self::new(path, bytes)
    }

    /// Opens a file that is in memory. `path` names it in messages.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn held(path: impl AsRef<Path>, bytes: Vec<u8>) -> Result<Self, WeightsError> {
        Self::new(path.as_ref(), MappedFile::held(bytes))
    }

    fn new(path: &Path, bytes: MappedFile) -> Result<Self, WeightsError> {
        let malformed = |at: usize, reason: String| WeightsError::malformed(path, at, reason);
        let Some(len) = bytes.first_chunk().map(|len| u64::from_le_bytes(*len)) else {
            return Err(malformed(bytes.len(), "the file ends in its header".into()));
        };
        let rest = (bytes.len() - LENGTH_LEN) as u64;
        if len > rest {
            let reason = format!("a header of {len} bytes is declared, but only {rest} follow");
            return Err(malformed(0, reason));
        }
        if len > MAX_HEADER {
            return Err(WeightsError::TooLarge {
                path: path.to_path_buf(),
                what: "the header's length in bytes".to_owned(),
                found: len,
                limit: MAX_HEADER,
            });
        }
        // Fits into usize, because it is at most the file's length.
        let data = LENGTH_LEN + len as usize;
        let metadata: Metadata = serde_json::from_slice(&bytes[LENGTH_LEN..data])
            .map_err(|error| malformed(LENGTH_LEN, format!("header: {error}")))?;
        let held = bytes.len() - data;
        if metadata.data_len() != held {
            let declared = metadata.data_len();
            let reason = format!("the header declares {declared} bytes of data, but {held} follow");
            return Err(malformed(data, reason));
        }
        Ok(Self { path: path.to_path_buf(), bytes, metadata, data })
    }

    /// Returns the path the file was opened from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the names of the tensors, in the order of their data.
    pub fn names(&self) -> Vec<String> {
        self.metadata.offset_keys()
    }

    /// Returns the file's free-form text entries.
    pub fn metadata(&self) -> Option<&HashMap<String, String>> {
        self.metadata.metadata().as_ref()
    }

    /// Reads the whole file and compares it with the hash that [`SafetensorsWriter::create_sealed`] wrote
    /// into it.
    ///
    /// # Errors
    /// [`WeightsError::Damaged`] if any byte differs, [`WeightsError::Unsupported`] if the file has no such
    /// hash.
    pub fn verify_seal(&self) -> Result<(), WeightsError> {
        let mut header = self.bytes[..self.data].to_vec();
        let expected = self.metadata().and_then(|metadata| metadata.get(SEAL));
        let Some((expected, at)) = expected.and_then(|seal| Some((seal, find_seal(&header, seal)?))) else {
            return Err(WeightsError::unsupported(&self.path, "a file without its own SHA-256"));
        };
        header[at..at + SEAL_LEN].fill(b'0');
        let mut hash = Sha256::new_with_prefix(&header);
        sha256::update(&mut hash, &self.bytes, self.data);
        let found = sha256::hex(hash);
        if found == *expected {
            return Ok(());
        }
        Err(WeightsError::Damaged { path: self.path.clone(), expected: expected.clone(), found })
    }

    /// Does the same as [`verify_seal`](Self::verify_seal), but only once for each file and change of it, as far
    /// as this process remembers.
    ///
    /// # Errors
    /// As [`verify_seal`](Self::verify_seal).
    pub fn verify_seal_once(&self) -> Result<(), WeightsError> {
        seals::verify_once(&self.path, None, || self.verify_seal())
    }

    /// Returns true if the file holds its own hash.
    pub fn is_sealed(&self) -> bool {
        self.metadata().is_some_and(|metadata| metadata.contains_key(SEAL))
    }

    /// Returns the length of the file in bytes.
    pub fn file_len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Frees the memory behind a tensor. It is read from the file again when next touched.
    pub(super) fn release(&self, name: &str) {
        if let Some(info) = self.metadata.info(name) {
            let (start, end) = info.data_offsets;
            self.bytes.release(self.data + start..self.data + end);
        }
    }

    /// Returns the tensor `name`.
    ///
    /// # Errors
    /// [`WeightsError::MissingKey`], or [`WeightsError::Unsupported`] for an element type
    /// that is not a [`Dtype`].
    pub fn tensor<'a>(&'a self, name: &'a str) -> Result<TensorView<'a>, WeightsError> {
        let missing = || WeightsError::MissingKey {
            path: self.path.clone(),
            key: name.to_owned(),
            hint: format!("the file has {} tensors", self.metadata.tensors().len()),
        };
        let info = self.metadata.info(name).ok_or_else(missing)?;
        let dtype = from_safetensors(info.dtype)
            .ok_or_else(|| WeightsError::unsupported(&self.path, format!("'{name}' of type {}", info.dtype)))?;
        let (start, end) = info.data_offsets;
        let bytes = self.bytes[self.data..].get(start..end).ok_or_else(missing)?;
        Ok(TensorView { path: &self.path, name, dtype, shape: &info.shape, bytes })
    }
}

/// Finds the offset of the digits of `seal` in a header.
fn find_seal(header: &[u8], seal: &str) -> Option<usize> {
    if seal.len() != SEAL_LEN {
        return None;
    }
    // Quotes inside a JSON string are escaped, so only the entry itself can match.
    let entry = format!("\"{SEAL}\":\"{seal}\"");
    let at = header.windows(entry.len()).position(|window| window == entry.as_bytes())?;
    Some(at + entry.len() - 1 - SEAL_LEN)
}

/// Writes a header as JSON. Entries and tensors have the order given, so the same content gives the same bytes.
fn header(tensors: &[(String, TensorInfo)], metadata: &BTreeMap<String, String>) -> serde_json::Result<Vec<u8>> {
    let mut header = vec![b'{'];
    if !metadata.is_empty() {
        header.extend_from_slice(b"\"__metadata__\":");
        serde_json::to_writer(&mut header, metadata)?;
    }
    for (name, info) in tensors {
        if header.len() > 1 {
            header.push(b',');
        }
        serde_json::to_writer(&mut header, name)?;
        header.push(b':');
        serde_json::to_writer(&mut header, info)?;
    }
    header.push(b'}');
    Ok(header)
}

impl TensorView<'_> {
    /// Returns the error for a value of a row that is not finite.
    pub(crate) fn not_finite(&self, row: usize, found: f32) -> WeightsError {
        let (path, key) = (self.path.to_path_buf(), self.name.to_owned());
        WeightsError::Number { path, key, row, found, expected: "a finite number" }
    }

    /// Returns the number of elements.
    pub fn len(&self) -> usize {
        self.bytes.len() / self.dtype.size()
    }

    /// Returns true if the tensor has no elements.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Converts the whole tensor to f32, row-major.
    ///
    /// # Errors
    /// [`WeightsError::WrongDtype`] for integers.
    pub fn to_f32(&self) -> Result<Vec<f32>, WeightsError> {
        self.require_float()?;
        let mut out = vec![0.0; self.len()];
        let size = self.dtype.size();
        out.par_chunks_mut(TASK_ELEMENTS)
            .zip(self.bytes.par_chunks(TASK_ELEMENTS * size))
            .for_each(|(out, bytes)| floats_from_le(bytes, self.dtype, out));
        Ok(out)
    }

    /// Converts the whole tensor to i64, row-major. Booleans become 0 or 1.
    ///
    /// # Errors
    /// [`WeightsError::WrongDtype`] for floats.
    pub fn to_i64(&self) -> Result<Vec<i64>, WeightsError> {
        if self.dtype.is_float() {
            return Err(self.wrong_dtype("an integer type"));
        }
        Ok(ints_from_le(self.bytes, self.dtype))
    }

    /// Reads rows `rows` and columns `cols` of a `[N, C]` tensor as f32 into `out`, row-major. `out` has
    /// `rows.len() * cols.len()` elements. Only the memory pages that hold them are touched.
    ///
    /// # Errors
    /// [`WeightsError::WrongDtype`] for integers; [`WeightsError::Extent`] if the tensor does not have two
    /// dimensions, the block lies outside it, or `out` has another length.
    pub fn read_block(&self, rows: Range<usize>, cols: Range<usize>, out: &mut [f32]) -> Result<(), WeightsError> {
        self.require_float()?;
        let &[num_rows, num_cols] = self.shape else {
            return Err(self.extent(format!("has shape {:?}, not [N, C]", self.shape)));
        };
        let inside = |range: &Range<usize>, len| range.start <= range.end && range.end <= len;
        if !inside(&rows, num_rows) || !inside(&cols, num_cols) {
            return Err(self.extent(format!("rows {rows:?} and columns {cols:?} do not lie within {:?}", self.shape)));
        }
        if rows.len().checked_mul(cols.len()) != Some(out.len()) {
            return Err(self.extent(format!(
                "a block of {} x {} does not fit a buffer of {}",
                rows.len(),
                cols.len(),
                out.len()
            )));
        }
        if out.is_empty() {
            return Ok(());
        }
        // The bytes of the whole tensor are in the address space, so no product of its indices overflows.
        let size = self.dtype.size();
        let pitch = num_cols * size;
        let width = cols.len() * size;
        let source = &self.bytes[rows.start * pitch..rows.end * pitch];
        if cols.len() == num_cols {
            out.par_chunks_mut(TASK_ELEMENTS)
                .zip(source.par_chunks(TASK_ELEMENTS * size))
                .for_each(|(out, bytes)| floats_from_le(bytes, self.dtype, out));
            return Ok(());
        }
        let rows_per_task = (TASK_ELEMENTS / cols.len()).max(1);
        out.par_chunks_mut(rows_per_task * cols.len()).zip(source.par_chunks(rows_per_task * pitch)).for_each(
            |(out, source)| {
                for (out, row) in out.chunks_exact_mut(cols.len()).zip(source.chunks_exact(pitch)) {
                    floats_from_le(&row[cols.start * size..][..width], self.dtype, out);
                }
            },
        );
        Ok(())
    }

    fn require_float(&self) -> Result<(), WeightsError> {
        if self.dtype.is_float() {
            return Ok(());
        }
        Err(self.wrong_dtype("a floating-point type"))
    }

    fn wrong_dtype(&self, expected: &'static str) -> WeightsError {
        WeightsError::WrongDtype {
            path: self.path.to_path_buf(),
            key: self.name.to_owned(),
            expected,
            found: self.dtype,
        }
    }

    fn extent(&self, reason: String) -> WeightsError {
        WeightsError::extent(self.path, self.name, reason)
    }
}

/// Declaration of a tensor to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// Name, unique in the file.
    pub name: String,
    /// Element type in the file.
    pub dtype: Dtype,
    /// Extents, outermost first.
    pub shape: Vec<usize>,
}

impl TensorSpec {
    /// Creates the declaration of a tensor.
    pub fn new(name: impl Into<String>, dtype: Dtype, shape: impl Into<Vec<usize>>) -> Self {
        Self { name: name.into(), dtype, shape: shape.into() }
    }
}

/// Writes a safetensors file front to back, so the file may be larger than memory.
///
/// The tensors are declared first. Their elements follow in the declared order, in pieces of any length: as
/// f32 ([`write_f32`](Self::write_f32), converted to the declared type) or as raw little-endian bytes
/// ([`Write`]). The file appears under its name only on [`finish`](Self::finish). Dropping the writer earlier
/// leaves no file.
///
/// Declare wide element types before narrow ones, so that every tensor is aligned to its type. Some readers
/// require it.
#[derive(Debug)]
pub struct SafetensorsWriter {
    file: AtomicFile,
    specs: Vec<TensorSpec>,
    /// End of each tensor, as a byte offset in the data section.
    ends: Vec<u64>,
    /// Bytes of data written.
    written: u64,
    /// Conversion buffer.
    scratch: Vec<u8>,
    seal: Option<Seal>,
}

/// A hash being computed, and the offset of its digits.
#[derive(Debug)]
struct Seal {
    hash: Sha256,
    at: u64,
}

impl SafetensorsWriter {
    /// Creates the file and writes the header. `metadata` holds free-form text; it is left out if empty.
    ///
    /// # Errors
    /// [`WeightsError::Extent`] if two tensors have one name or their size overflows,
    /// [`WeightsError::TooLarge`] for a header that [`SafetensorsFile`] would refuse, and
    /// [`WeightsError::Io`].
    pub fn create(
        path: impl AsRef<Path>,
        tensors: &[TensorSpec],
        metadata: &BTreeMap<String, String>,
    ) -> Result<Self, WeightsError> {
        Self::start(path.as_ref(), tensors, metadata, false)
    }

    /// Does the same as [`create`](Self::create), and stores the SHA-256 of the whole file as metadata entry
    /// `sha256`, for [`SafetensorsFile::verify_seal`]. The hash is computed while writing.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn create_sealed(
        path: impl AsRef<Path>,
        tensors: &[TensorSpec],
        metadata: &BTreeMap<String, String>,
    ) -> Result<Self, WeightsError> {
        let mut metadata = metadata.clone();
        metadata.insert(SEAL.to_owned(), "0".repeat(SEAL_LEN));
        Self::start(path.as_ref(), tensors, &metadata, true)
    }

    fn start(
        path: &Path,
        tensors: &[TensorSpec],
        metadata: &BTreeMap<String, String>,
        sealed: bool,
    ) -> Result<Self, WeightsError> {
        let mut ends = Vec::with_capacity(tensors.len());
        let mut infos = Vec::with_capacity(tensors.len());
        let mut names = std::collections::HashSet::new();
        let mut at = 0usize;
        for spec in tensors {
            if !names.insert(&spec.name) || spec.name == "__metadata__" {
                return Err(WeightsError::extent(path, &spec.name, "another tensor has the same name"));
            }
            let end = spec
                .shape
                .iter()
                .try_fold(spec.dtype.size(), |len, &extent| len.checked_mul(extent))
                .and_then(|len| at.checked_add(len))
                .ok_or_else(|| {
                    let reason = format!("a tensor of shape {:?} overflows", spec.shape);
                    WeightsError::extent(path, &spec.name, reason)
                })?;
            let info =
                TensorInfo { dtype: to_safetensors(spec.dtype), shape: spec.shape.clone(), data_offsets: (at, end) };
            infos.push((spec.name.clone(), info));
            ends.push(end as u64);
            at = end;
        }
        let invalid = |error: String| WeightsError::io(path, io::Error::other(error));
        let mut header = header(&infos, metadata).map_err(|error| invalid(error.to_string()))?;
        Metadata::new(None, infos).map_err(|error| invalid(error.to_string()))?;
        // Spaces after the header align the data, as the format allows.
        header.resize(header.len().next_multiple_of(LENGTH_LEN), b' ');
        if header.len() as u64 > MAX_HEADER {
            return Err(WeightsError::TooLarge {
                path: path.to_path_buf(),
                what: "the header's length in bytes".to_owned(),
                found: header.len() as u64,
                limit: MAX_HEADER,
            });
        }
        header.splice(..0, (header.len() as u64).to_le_bytes());
        let seal = match sealed {
            true => find_seal(&header, &"0".repeat(SEAL_LEN))
                .map(|at| Seal { hash: Sha256::new_with_prefix(&header), at: at as u64 }),
            false => None,
        };
        let start = || {
            let mut file = AtomicFile::create(path)?;
            file.write_all(&header)?;
            Ok(file)
        };
        Ok(Self {
            file: start().map_err(|error| WeightsError::io(path, error))?,
            specs: tensors.to_vec(),
            ends,
            written: 0,
            scratch: Vec::new(),
            seal,
        })
    }

    /// Writes the next elements of the current tensor, converted to its type. They must not exceed what the
    /// tensor has left.
    ///
    /// # Errors
    /// [`WeightsError::Extent`] for more elements than the tensor has left,
    /// [`WeightsError::WrongDtype`] if it holds integers, [`WeightsError::Io`].
    pub fn write_f32(&mut self, values: &[f32]) -> Result<(), WeightsError> {
        let Some(index) = self.current() else {
            if values.is_empty() {
                return Ok(());
            }
            return Err(self.overflow("(end)", values.len()));
        };
        let dtype = self.specs[index].dtype;
        if !dtype.is_float() {
            return Err(WeightsError::WrongDtype {
                path: self.file.target().to_path_buf(),
                key: self.specs[index].name.clone(),
                expected: "a floating-point type",
                found: dtype,
            });
        }
        let left = (self.ends[index] - self.written) / dtype.size() as u64;
        if values.len() as u64 > left {
            return Err(self.overflow(&self.specs[index].name, values.len()));
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        for values in values.chunks(TASK_ELEMENTS) {
            floats_to_le(values, dtype, &mut scratch);
            if let Err(error) = self.write_all(&scratch) {
                return Err(WeightsError::io(self.file.target(), error));
            }
        }
        self.scratch = scratch;
        Ok(())
    }

    /// Writes the next elements of the current tensor, which must be of type i32. They must not exceed what
    /// the tensor has left.
    ///
    /// # Errors
    /// [`WeightsError::Extent`] for more elements than the tensor has left,
    /// [`WeightsError::WrongDtype`] if it holds another type, [`WeightsError::Io`].
    pub fn write_i32(&mut self, values: &[i32]) -> Result<(), WeightsError> {
        let Some(index) = self.current() else {
            if values.is_empty() {
                return Ok(());
            }
            return Err(self.overflow("(end)", values.len()));
        };
        let dtype = self.specs[index].dtype;
        if dtype != Dtype::I32 {
            return Err(WeightsError::WrongDtype {
                path: self.file.target().to_path_buf(),
                key: self.specs[index].name.clone(),
                expected: "i32",
                found: dtype,
            });
        }
        if values.len() as u64 > (self.ends[index] - self.written) / size_of::<i32>() as u64 {
            return Err(self.overflow(&self.specs[index].name, values.len()));
        }
        let mut bytes = Vec::new();
        for values in values.chunks(TASK_ELEMENTS) {
            bytes.clear();
            bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
            if let Err(error) = self.write_all(&bytes) {
                return Err(WeightsError::io(self.file.target(), error));
            }
        }
        Ok(())
    }

    /// Finishes the file and moves it to its path.
    ///
    /// # Errors
    /// [`WeightsError::Extent`] if a declared tensor is not complete, [`WeightsError::Io`].
    pub fn finish(mut self) -> Result<(), WeightsError> {
        if let Some(index) = self.current() {
            let missing = self.ends[index] - self.written;
            return Err(WeightsError::extent(
                self.file.target(),
                &self.specs[index].name,
                format!("{missing} bytes were not written"),
            ));
        }
        let path = self.file.target().to_path_buf();
        if let Some(Seal { hash, at }) = self.seal.take() {
            let digits = sha256::hex(hash);
            self.file.patch(at, digits.as_bytes()).map_err(|error| WeightsError::io(&path, error))?;
        }
        self.file.commit().map_err(|error| WeightsError::io(&path, error))
    }

    /// Returns the index of the tensor that the next byte belongs to.
    fn current(&self) -> Option<usize> {
        let index = self.ends.partition_point(|&end| end <= self.written);
        (index < self.ends.len()).then_some(index)
    }

    fn overflow(&self, key: &str, count: usize) -> WeightsError {
        WeightsError::extent(self.file.target(), key, format!("{count} elements are more than it has left"))
    }
}

impl Write for SafetensorsWriter {
    /// Writes raw data. Bytes beyond the last declared tensor are an error.
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let left = self.ends.last().copied().unwrap_or(0) - self.written;
        if buf.len() as u64 > left {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{} bytes are more than the {left} declared", buf.len()),
            ));
        }
        let count = match &mut self.seal {
            Some(seal) => {
                let (written, ()) = rayon::join(|| self.file.write_all(buf), || seal.hash.update(buf));
                written.map(|()| buf.len())?
            }
            None => self.file.write(buf)?,
        };
        self.written += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn floats_to_le(values: &[f32], dtype: Dtype, out: &mut Vec<u8>) {
    match dtype {
        Dtype::F32 => convert(values, out, f32::to_le_bytes),
        Dtype::F64 => convert(values, out, |v| f64::from(v).to_le_bytes()),
        Dtype::F16 => convert(values, out, |v| f16::from_f32(v).to_le_bytes()),
        Dtype::Bf16 => convert(values, out, |v| bf16::from_f32(v).to_le_bytes()),
        Dtype::I64 | Dtype::I32 | Dtype::I16 | Dtype::I8 | Dtype::U8 | Dtype::Bool => {}
    }
}

/// Empties and refills `out`. The loop runs over slices, so the compiler vectorizes it.
fn convert<const N: usize>(values: &[f32], out: &mut Vec<u8>, to_bytes: impl Fn(f32) -> [u8; N]) {
    out.clear();
    out.resize(values.len() * N, 0);
    for (out, &value) in out.as_chunks_mut().0.iter_mut().zip(values) {
        *out = to_bytes(value);
    }
}

fn from_safetensors(dtype: safetensors::Dtype) -> Option<Dtype> {
    Some(match dtype {
        safetensors::Dtype::F64 => Dtype::F64,
        safetensors::Dtype::F32 => Dtype::F32,
        safetensors::Dtype::F16 => Dtype::F16,
        safetensors::Dtype::BF16 => Dtype::Bf16,
        safetensors::Dtype::I64 => Dtype::I64,
        safetensors::Dtype::I32 => Dtype::I32,
        safetensors::Dtype::I16 => Dtype::I16,
        safetensors::Dtype::I8 => Dtype::I8,
        safetensors::Dtype::U8 => Dtype::U8,
        safetensors::Dtype::BOOL => Dtype::Bool,
        _ => return None,
    })
}

fn to_safetensors(dtype: Dtype) -> safetensors::Dtype {
    match dtype {
        Dtype::F64 => safetensors::Dtype::F64,
        Dtype::F32 => safetensors::Dtype::F32,
        Dtype::F16 => safetensors::Dtype::F16,
        Dtype::Bf16 => safetensors::Dtype::BF16,
        Dtype::I64 => safetensors::Dtype::I64,
        Dtype::I32 => safetensors::Dtype::I32,
        Dtype::I16 => safetensors::Dtype::I16,
        Dtype::I8 => safetensors::Dtype::I8,
        Dtype::U8 => safetensors::Dtype::U8,
        Dtype::Bool => safetensors::Dtype::BOOL,
    }
}

/// Writes a sealed file of all tensors in a state dict, ordered by name, floats as f32 and integers as i64.
/// The file appears whole or not at all.
///
/// # Errors
/// As [`SafetensorsWriter`].
pub fn write_state_dict(
    path: &Path,
    state: &StateDict,
    metadata: &BTreeMap<String, String>,
) -> Result<(), WeightsError> {
    let integers = state.integers.iter().map(|(name, tensor)| TensorSpec::new(name, Dtype::I64, tensor.shape.clone()));
    let floats = state.tensors.iter().map(|(name, tensor)| TensorSpec::new(name, Dtype::F32, tensor.shape.clone()));
    let specs: Vec<TensorSpec> = integers.chain(floats).collect();
    let mut writer = SafetensorsWriter::create_sealed(path, &specs, metadata)?;
    for tensor in state.integers.values() {
        let bytes: Vec<u8> = tensor.data.iter().flat_map(|value| value.to_le_bytes()).collect();
        writer.write_all(&bytes).map_err(|error| WeightsError::io(path, error))?;
    }
    for tensor in state.tensors.values() {
        writer.write_f32(&tensor.data)?;
    }
    writer.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, specs: &[TensorSpec], values: &[&[f32]]) {
        let metadata = BTreeMap::from([("made".to_owned(), "here".to_owned())]);
        let mut writer = SafetensorsWriter::create(path, specs, &metadata).unwrap();
        for values in values {
            writer.write_f32(values).unwrap();
        }
        writer.finish().unwrap();
    }

    #[test]
    fn the_same_content_gives_the_same_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let metadata: BTreeMap<_, _> = (0..40).map(|i| (format!("key \"{i}\""), format!("value\n{i}"))).collect();
        let specs = [TensorSpec::new("b", Dtype::F32, [1]), TensorSpec::new("a \u{1b}", Dtype::F32, [2])];
        let write = |name: &str| {
            let path = dir.path().join(name);
            let mut writer = SafetensorsWriter::create_sealed(&path, &specs, &metadata).unwrap();
            writer.write_f32(&[1.0]).unwrap();
            writer.write_f32(&[2.0, 3.0]).unwrap();
            writer.finish().unwrap();
            std::fs::read(&path).unwrap()
        };
        let first = write("first");
        let start = r#"{"__metadata__":{"key \"0\"":"value\n0","key \"1\"":"value\n1","#;
        assert!(first[8..].starts_with(start.as_bytes()), "{}", String::from_utf8_lossy(&first[8..200]));
        assert!(first == write("second") && first == write("third"));
        let file = SafetensorsFile::open(dir.path().join("first")).unwrap();
        assert_eq!((file.names(), file.metadata().unwrap().len()), (vec!["b".into(), "a \u{1b}".into()], 41));
        assert_eq!(file.tensor("a \u{1b}").unwrap().to_f32().unwrap(), [2.0, 3.0]);
        file.verify_seal().unwrap();
    }

    #[test]
    fn what_is_written_is_read_in_every_float_type() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.safetensors");
        let values: Vec<f32> = (0..12).map(|i| i as f32 * 0.25 - 1.0).collect();
        for dtype in [Dtype::F64, Dtype::F32, Dtype::F16, Dtype::Bf16] {
            write(&path, &[TensorSpec::new("w", dtype, [3, 4])], &[&values]);
            let file = SafetensorsFile::open(&path).unwrap();
            assert_eq!(file.names(), ["w"]);
            assert_eq!(file.metadata().unwrap()["made"], "here");
            let view = file.tensor("w").unwrap();
            assert_eq!((view.dtype, view.shape), (dtype, &[3, 4][..]));
            assert_eq!(view.to_f32().unwrap(), values);
            let mut block = [0.0; 4];
            view.read_block(1..3, 1..3, &mut block).unwrap();
            assert_eq!(block, [values[5], values[6], values[9], values[10]]);
        }
    }

    #[test]
    fn other_readers_agree() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.safetensors");
        let specs = [
            TensorSpec::new("z", Dtype::F32, [2]),
            TensorSpec::new("a", Dtype::F16, []),
            TensorSpec::new("empty", Dtype::F32, [0, 7]),
        ];
        write(&path, &specs, &[&[1.0], &[2.0], &[3.0]]);
        let bytes = std::fs::read(&path).unwrap();
        let theirs = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(theirs.tensor("z").unwrap().data(), [0, 0, 128, 63, 0, 0, 0, 64]);
        assert_eq!(theirs.tensor("a").unwrap().shape(), [0usize; 0]);
        assert_eq!(theirs.tensor("empty").unwrap().shape(), [0, 7]);
    }

    #[test]
    fn blocks_of_a_large_misaligned_tensor() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.safetensors");
        let (num_rows, num_cols) = (5000, 77);
        let specs = [
            TensorSpec::new("odd", Dtype::U8, [3]),
            TensorSpec::new("w", Dtype::F32, [num_rows, num_cols]),
            TensorSpec::new("mask", Dtype::Bool, [2]),
        ];
        let mut writer = SafetensorsWriter::create(&path, &specs, &BTreeMap::new()).unwrap();
        writer.write_all(&[1, 2, 3]).unwrap();
        for row in 0..num_rows {
            let row: Vec<f32> = (0..num_cols).map(|c| (row * num_cols + c) as f32).collect();
            writer.write_f32(&row).unwrap();
        }
        assert!(writer.write_f32(&[1.0]).is_err());
        writer.write_all(&[0, 1]).unwrap();
        assert!(writer.write_all(&[0]).is_err());
        writer.finish().unwrap();

        let file = SafetensorsFile::open(&path).unwrap();
        assert!(file.metadata().is_none());
        let view = file.tensor("w").unwrap();
        assert_ne!(view.bytes.as_ptr() as usize % 4, 0);
        for (rows, cols) in [(0..5000, 0..77), (17..4321, 5..70), (4999..5000, 76..77), (3..3, 0..77)] {
            let mut block = vec![-1.0; rows.len() * cols.len()];
            view.read_block(rows.clone(), cols.clone(), &mut block).unwrap();
            let expected = rows.flat_map(|r| cols.clone().map(move |c| (r * num_cols + c) as f32));
            assert!(block.iter().copied().eq(expected));
        }
        assert_eq!(file.tensor("mask").unwrap().to_i64().unwrap(), [0, 1]);
        assert_eq!(file.tensor("odd").unwrap().to_i64().unwrap(), [1, 2, 3]);
        assert!(file.tensor("odd").unwrap().to_f32().is_err());
        for (rows, cols, len) in [(0..5001, 0..1, 5001), (0..1, 5..78, 73), (0..2, 0..2, 3)] {
            let mut block = vec![0.0; len];
            assert!(matches!(view.read_block(rows, cols, &mut block), Err(WeightsError::Extent { .. })));
        }
    }

    #[test]
    fn an_unfinished_file_does_not_appear() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.safetensors");
        let specs = [TensorSpec::new("w", Dtype::F32, [2])];
        let mut writer = SafetensorsWriter::create(&path, &specs, &BTreeMap::new()).unwrap();
        writer.write_f32(&[1.0]).unwrap();
        assert!(matches!(writer.finish(), Err(WeightsError::Extent { .. })));
        assert!(!path.exists());
        let twice = [specs[0].clone(), specs[0].clone()];
        assert!(SafetensorsWriter::create(&path, &twice, &BTreeMap::new()).is_err());
        let huge = [TensorSpec::new("w", Dtype::F32, [usize::MAX, 2])];
        assert!(SafetensorsWriter::create(&path, &huge, &BTreeMap::new()).is_err());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_seal_covers_every_byte() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.safetensors");
        let specs = [TensorSpec::new("w", Dtype::F32, [3]), TensorSpec::new("sha256", Dtype::F16, [2])];
        let note = ("note".to_owned(), format!("\"sha256\":\"{}\"", "0".repeat(64)));
        let metadata = BTreeMap::from([note]);
        let mut writer = SafetensorsWriter::create_sealed(&path, &specs, &metadata).unwrap();
        writer.write_f32(&[1.0, 2.0, 3.0]).unwrap();
        writer.write_f32(&[4.0, 5.0]).unwrap();
        writer.finish().unwrap();
        SafetensorsFile::open(&path).unwrap().verify_seal().unwrap();

        let honest = std::fs::read(&path).unwrap();
        for at in 0..honest.len() {
            let mut bytes = honest.clone();
            bytes[at] ^= 1;
            std::fs::write(&path, bytes).unwrap();
            let result = SafetensorsFile::open(&path).and_then(|file| file.verify_seal());
            assert!(result.is_err(), "byte {at}");
        }
        write(&path, &specs[..1], &[&[1.0, 2.0, 3.0]]);
        let unsealed = SafetensorsFile::open(&path).unwrap().verify_seal();
        assert!(matches!(unsealed, Err(WeightsError::Unsupported { .. })));
    }

    #[test]
    fn broken_headers_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.safetensors");
        let huge = usize::MAX;
        let headers = [
            String::new(),
            "{".to_owned(),
            "[1]".to_owned(),
            r#"{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}"#.to_owned(),
            r#"{"w":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#.to_owned(),
            r#"{"w":{"dtype":"F32","shape":[3],"data_offsets":[0,12]}}"#.to_owned(),
            format!(r#"{{"w":{{"dtype":"U8","shape":[{huge}],"data_offsets":[0,{huge}]}}}}"#),
            format!(r#"{{"w":{{"dtype":"F32","shape":[{huge},2],"data_offsets":[0,8]}}}}"#),
            r#"{"w":{"dtype":"Q7","shape":[1],"data_offsets":[0,8]}}"#.to_owned(),
            "[".repeat(100_000),
        ];
        for header in headers {
            let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
            bytes.extend(header.as_bytes());
            bytes.extend([0; 8]);
            std::fs::write(&path, bytes).unwrap();
            let shown: String = header.chars().take(80).collect();
            assert!(SafetensorsFile::open(&path).is_err(), "{shown}");
        }
        for bytes in [&b""[..], &[1, 0, 0], &[255; 8], &[255; 40]] {
            std::fs::write(&path, bytes).unwrap();
            assert!(SafetensorsFile::open(&path).is_err());
        }
    }
}
