//! The store: installed weights on disk, ready to load.
//!
//! `<home>/weights/<name>.safetensors` is one installed set of weights. It holds the tensors in f32 under the
//! checkpoint's own keys. Its metadata holds a [`Manifest`] and the file's own SHA-256. The manifest is not a
//! separate file, because that could be lost or belong to other weights. Inside, it is written, replaced and
//! removed together with the tensors, by a single rename.
//!
//! Loading maps the file. The hash is compared once for each file and change of it: `<home>/verified/<name>`
//! remembers the length and the times of the file that was compared. [`Store::verify`] always compares it.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::demo::BuiltIn;
use super::name::is_name;
use super::registry::{Licence, Registry, RegistryError};
use super::{Dtype, SafetensorsFile, SafetensorsWriter, TensorSource, TensorSpec, WeightsError, WeightsFile, seals};
use crate::files::{Lock, free_space, is_full, lossy, remove_partials};

/// Environment variable with the folder of the store.
const HOME_VARIABLE: &str = "GEOPURIFY_HOME";
/// Metadata entry that holds the manifest.
const MANIFEST: &str = "geopurify";
const EXTENSION: &str = "safetensors";
/// Bytes that a file system may need beyond a file's length.
const MARGIN: u64 = 1 << 20;

/// Description of installed weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Model they belong to.
    pub model: String,
    /// The model's configuration.
    pub config: Json,
    /// Terms of use, as recorded at import.
    #[serde(rename = "license", alias = "licence")]
    pub licence: Licence,
    /// Where they come from: an address or a page.
    pub origin: String,
    /// Name of the file they were imported from.
    pub source_file: String,
    /// SHA-256 of that file.
    pub source_sha256: String,
    /// Length of that file in bytes.
    pub source_bytes: u64,
    /// Day of the import, UTC, as `2026-01-31`.
    pub imported: String,
}

impl Manifest {
    /// Returns the manifest of a file that the store wrote, `None` for any other file.
    #[must_use]
    pub fn within(weights: &WeightsFile) -> Option<Self> {
        serde_json::from_str(weights.metadata(MANIFEST)?).ok()
    }
}

/// Error of the store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The system has no folder for a store.
    #[error("this system has no cache directory; set {HOME_VARIABLE} to a directory for the weights")]
    NoHome,
    /// The name cannot be used as a file name.
    #[error(
        "'{name}' is not a valid name for weights: use letters, digits, '.', '_' and '-', and begin with a letter or digit"
    )]
    InvalidName {
        /// The name.
        name: String,
    },
    /// The weights are not installed.
    #[error("no weights '{name}' in {}: {help}", home.display())]
    Missing {
        /// The name asked for.
        name: String,
        /// Folder in which they were looked for.
        home: PathBuf,
        /// Description, origin and licence of the weights, and the command that gets them.
        help: String,
    },
    /// The weights belong to another model than expected.
    #[error("{}: these are weights of the model {found}, but {expected} is needed", path.display())]
    WrongModel {
        /// File concerned.
        path: PathBuf,
        /// The model asked for.
        expected: String,
        /// The model they belong to.
        found: String,
    },
    /// The store did not write this file.
    #[error("{}: not written by `geopurify weights import` ({reason}): import it, or remove it", path.display())]
    Foreign {
        /// File concerned.
        path: PathBuf,
        /// Missing part of the file.
        reason: String,
    },
    /// The disk is full, or would be.
    #[error("{}: {needed} bytes are needed, {}; free some space or set {HOME_VARIABLE} to another disk",
        path.display(), match free { Some(free) => format!("{free} are free"), None => "the disk is full".to_owned() })]
    NoSpace {
        /// Path of the file to be written.
        path: PathBuf,
        /// Bytes needed for it.
        needed: u64,
        /// Free bytes, if known.
        free: Option<u64>,
    },
    /// The operating system reported an error.
    #[error("{}: {source}", path.display())]
    Io {
        /// File or directory concerned.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// An error of the weights themselves.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// An error of the registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

impl StoreError {
    pub(super) fn io(path: &Path, source: io::Error) -> Self {
        Self::Io { path: path.to_path_buf(), source }
    }
}

/// Description of installed weights and of their file.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Installed {
    /// Name in the store.
    pub name: String,
    /// Path of the file.
    #[serde(serialize_with = "lossy::path")]
    pub path: PathBuf,
    /// Length of the file in bytes.
    pub bytes: u64,
    /// Manifest of the weights.
    pub manifest: Manifest,
}

/// Open installed weights. The tensors are a [`TensorSource`] that reads each one from the mapped file when
/// it is taken.
#[derive(Debug)]
pub struct StoredWeights {
    /// Description of the weights.
    pub installed: Installed,
    /// Their tensors.
    pub tensors: WeightsFile,
}

/// The folder of installed weights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    home: PathBuf,
}

impl Store {
    /// Opens the store in `$GEOPURIFY_HOME`, else in `geopurify` in the platform's cache folder. Creates
    /// nothing yet.
    ///
    /// # Errors
    /// [`StoreError::NoHome`] if there is no such folder.
    pub fn at_home() -> Result<Self, StoreError> {
        let named = std::env::var_os(HOME_VARIABLE).filter(|home| !home.is_empty()).map(PathBuf::from);
        let home = named.or_else(|| Some(dirs::cache_dir()?.join("geopurify"))).ok_or(StoreError::NoHome)?;
        Ok(Self { home })
    }

    /// Opens the store in the folder `home`.
    #[must_use]
    pub fn at(home: impl Into<PathBuf>) -> Self {
        Self { home: home.into() }
    }

    /// Returns the folder of the store.
    #[must_use]
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// Returns the folder that holds downloads until they are imported.
    #[must_use]
    pub fn downloads(&self) -> PathBuf {
        self.home.join("downloads")
    }

    fn directory(&self) -> PathBuf {
        self.home.join("weights")
    }

    /// Returns the path of the weights `name`, installed or not.
    ///
    /// # Errors
    /// [`StoreError::InvalidName`].
    pub fn path(&self, name: &str) -> Result<PathBuf, StoreError> {
        if !is_name(name) {
            return Err(StoreError::InvalidName { name: name.to_owned() });
        }
        Ok(self.directory().join(format!("{name}.{EXTENSION}")))
    }

    /// Returns true if weights of this name are installed. Built-in weights do not count.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.path(name).is_ok_and(|path| path.is_file())
    }

    /// Lists the names of the installed weights, in order.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn names(&self) -> Result<Vec<String>, StoreError> {
        let directory = self.directory();
        let entries = match std::fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(StoreError::io(&directory, error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let path = entry.map_err(|error| StoreError::io(&directory, error))?.path();
            let stem = path.file_stem().and_then(|stem| stem.to_str());
            if let Some(stem) = stem
                && path.extension().is_some_and(|extension| extension == EXTENSION)
                && is_name(stem)
            {
                names.push(stem.to_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    /// Describes the weights `name`, installed or [built in](super::demo), without reading their tensors.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn describe(&self, name: &str) -> Result<Installed, StoreError> {
        Ok(self.read(name)?.0)
    }

    fn read(&self, name: &str) -> Result<(Installed, SafetensorsFile), StoreError> {
        let path = self.path(name)?;
        let file = match BuiltIn::named(name) {
            _ if path.exists() => SafetensorsFile::open(&path)?,
            Some(built_in) => built_in.open()?,
            None => return Err(self.missing(name)?),
        };
        let path = file.path().to_path_buf();
        let foreign = |reason: String| StoreError::Foreign { path: path.clone(), reason };
        let text = file.metadata().and_then(|metadata| metadata.get(MANIFEST));
        let text = text.ok_or_else(|| foreign(format!("its metadata has no entry '{MANIFEST}'")))?;
        let manifest = serde_json::from_str(text).map_err(|error| foreign(format!("'{MANIFEST}': {error}")))?;
        Ok((Installed { name: name.to_owned(), bytes: file.file_len(), path, manifest }, file))
    }

    /// Returns the error for weights that are not installed.
    fn missing(&self, name: &str) -> Result<StoreError, StoreError> {
        let registry = Registry::load(None)?;
        let help = match registry.get(name) {
            Ok(entry) => {
                let (about, origin, licence) = (&entry.about, entry.origin(), &entry.licence.id);
                format!("{about}, from {origin}, licence {licence}; {}", entry.how_to_get())
            }
            Err(unknown) => match self.names()?.as_slice() {
                [] => format!("nothing is installed, and {unknown}"),
                names => format!("installed are {}, and {unknown}", names.join(", ")),
            },
        };
        Ok(StoreError::Missing { name: name.to_owned(), home: self.home.clone(), help })
    }

    /// Opens the weights `name` of a model. The file is mapped. It is read as a whole, and its hash compared, only
    /// if it has changed since that was last done.
    ///
    /// # Errors
    /// [`StoreError::Missing`], which says how to get them, [`StoreError::WrongModel`],
    /// [`StoreError::Foreign`], or [`StoreError::Weights`] for a damaged file.
    pub fn open(&self, name: &str, model: &str) -> Result<StoredWeights, StoreError> {
        let (installed, file) = self.read(name)?;
        if installed.manifest.model != model {
            let (path, found) = (installed.path, installed.manifest.model);
            return Err(StoreError::WrongModel { path, expected: model.to_owned(), found });
        }
        self.verify_once(name, &file)?;
        Ok(StoredWeights { installed, tensors: WeightsFile::of_safetensors(file)? })
    }

    /// Compares the hash of an installed file, if it has changed since it was last compared.
    fn verify_once(&self, name: &str, file: &SafetensorsFile) -> Result<(), StoreError> {
        // Built-in weights are a part of the program and have no file.
        if self.path(name)? == file.path() {
            seals::verify_once(file.path(), Some(&self.memory(name)), || file.verify_seal())?;
        }
        Ok(())
    }

    /// Returns the path of the file that remembers which content of the weights `name` was compared.
    fn memory(&self, name: &str) -> PathBuf {
        self.home.join("verified").join(name)
    }

    /// Reads the whole file of the weights `name` and compares it with the hash recorded at import.
    ///
    /// # Errors
    /// [`WeightsError::Damaged`], or as [`open`](Self::open).
    pub fn verify(&self, name: &str) -> Result<Installed, StoreError> {
        let (installed, file) = self.read(name)?;
        file.verify_seal()?;
        Ok(installed)
    }

    /// Writes the weights `name` with their manifest to a file in the store's format, with tensors of type
    /// `dtype`. The file can be imported on another machine. With a 16-bit type it is half as long.
    ///
    /// # Errors
    /// As [`open`](Self::open); [`StoreError::Weights`] if the file cannot be written or `dtype` is an
    /// integer type.
    pub fn export(&self, name: &str, path: &Path, dtype: Dtype) -> Result<(), StoreError> {
        let (installed, file) = self.read(name)?;
        self.verify_once(name, &file)?;
        let shapes = file.names().into_iter().map(|name| Ok((file.tensor(&name)?.shape.to_vec(), name)));
        let shapes: Vec<(Vec<usize>, String)> = shapes.collect::<Result<_, WeightsError>>()?;
        let specs: Vec<_> = shapes.iter().map(|(shape, name)| TensorSpec::new(name, dtype, shape.clone())).collect();
        let mut writer = SafetensorsWriter::create_sealed(path, &specs, &manifest_entry(path, &installed.manifest)?)?;
        for (_, name) in &shapes {
            writer.write_f32(&file.tensor(name)?.to_f32()?)?;
        }
        Ok(writer.finish()?)
    }

    /// Removes the weights `name` and returns the number of bytes freed. Processes that have them open can
    /// still read them.
    ///
    /// # Errors
    /// [`StoreError::Missing`], [`StoreError::Io`].
    pub fn remove(&self, name: &str) -> Result<u64, StoreError> {
        let path = self.path(name)?;
        let bytes = match std::fs::symlink_metadata(&path) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(self.missing(name)?),
            Err(error) => return Err(StoreError::io(&path, error)),
        };
        std::fs::remove_file(&path).map_err(|error| StoreError::io(&path, error))?;
        // It is there only if the weights were ever opened, and useless without them.
        let _ = std::fs::remove_file(self.memory(name));
        Ok(bytes)
    }

    /// Installs the tensors `keys` of `source` as `name`, in f32, one at a time. Installed weights of that
    /// name are replaced only when the new ones are complete. `progress` receives the bytes written and their
    /// total.
    ///
    /// # Errors
    /// [`StoreError::Weights`] if a key is missing or the source is damaged, [`StoreError::NoSpace`],
    /// [`StoreError::Io`]. The store is then unchanged.
    pub fn install(
        &self,
        name: &str,
        source: &mut impl TensorSource,
        keys: &[(String, Vec<usize>)],
        manifest: &Manifest,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Installed, StoreError> {
        let path = self.path(name)?;
        let directory = self.directory();
        std::fs::create_dir_all(&directory).map_err(|error| StoreError::io(&directory, error))?;
        let _lock = self.lock(&directory)?;

        let elements = |shape: &[usize]| shape.iter().fold(1u64, |product, &n| product.saturating_mul(n as u64));
        let total = keys.iter().fold(0u64, |sum, (_, shape)| sum.saturating_add(elements(shape).saturating_mul(4)));
        let needed = total.saturating_add(MARGIN);
        let no_space = |free| StoreError::NoSpace { path: path.clone(), needed, free };
        if let Some(free) = free_space(&directory)
            && free < needed
        {
            return Err(no_space(Some(free)));
        }
        let full = |error: WeightsError| match error {
            WeightsError::Io { source, .. } if is_full(&source) => no_space(free_space(&directory)),
            error => error.into(),
        };

        let specs: Vec<_> = keys.iter().map(|(key, shape)| TensorSpec::new(key, Dtype::F32, shape.clone())).collect();
        let metadata = manifest_entry(&path, manifest)?;
        let mut writer = SafetensorsWriter::create_sealed(&path, &specs, &metadata).map_err(full)?;
        let mut done = 0;
        for (key, shape) in keys {
            let tensor = source.take(key, shape)?;
            writer.write_f32(&tensor.data).map_err(full)?;
            done += elements(shape) * 4;
            progress(done, total);
        }
        writer.finish().map_err(full)?;
        self.describe(name)
    }

    /// Locks the store, so that one import runs at a time. All temporary files found then are leftovers of
    /// killed imports, and are removed.
    fn lock(&self, directory: &Path) -> Result<Lock, StoreError> {
        let path = directory.join(".lock");
        // Without locks, imports are still atomic, but they may run at the same time.
        let lock = Lock::wait_for(&path).map_err(|error| StoreError::io(&path, error))?;
        // A leftover that cannot be removed only costs space.
        let _ = remove_partials(directory, Duration::ZERO);
        Ok(lock)
    }
}

/// Converts a manifest to metadata of a file.
fn manifest_entry(path: &Path, manifest: &Manifest) -> Result<BTreeMap<String, String>, StoreError> {
    let text = serde_json::to_string(manifest).map_err(|error| StoreError::io(path, error.into()))?;
    Ok(BTreeMap::from([(MANIFEST.to_owned(), text)]))
}

/// Returns the current day in UTC, as `2026-01-31`.
#[must_use]
pub fn today() -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    date(since.as_secs() / 86_400)
}

/// Converts days since 1970-01-01 to a date.
fn date(days: u64) -> String {
    // Years begin in March here, so that the leap day is the last day. An era is 400 years.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, year) = if month < 10 { (month + 3, year) } else { (month - 9, year + 1) };
    format!("{:04}-{month:02}-{day:02}", era * 400 + year)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (days, expected) in [
            (0, "1970-01-01"),
            (59, "1970-03-01"),
            (11_016, "2000-02-29"),
            (11_017, "2000-03-01"),
            (19_722, "2023-12-31"),
            (20_454, "2026-01-01"),
        ] {
            assert_eq!(date(days), expected);
        }
    }
}
