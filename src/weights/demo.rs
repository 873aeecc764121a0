//! The demo pack: small weights inside the program, which label a scan without any installation. This project
//! trained them together, on rooms it generated.

use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;

use super::{SafetensorsFile, WeightsError};
use crate::files::write_atomic;

/// Weights inside the program, in the format of the store, [packed](pack).
#[derive(Clone, Copy, Debug)]
pub struct BuiltIn {
    /// Name to ask for them by, as for weights in the store.
    pub name: &'static str,
    /// Model they belong to.
    pub model: &'static str,
    /// The file, packed.
    bytes: &'static [u8],
}

/// All weights of the pack; empty if the program was built without the feature `demo`.
#[cfg(feature = "demo")]
pub static PACK: &[BuiltIn] = &[
    BuiltIn {
        name: "openscene-demo",
        model: "openscene",
        bytes: include_bytes!("../../weights/demo/openscene-demo.packed.gz"),
    },
    BuiltIn { name: "sonata-demo", model: "sonata", bytes: include_bytes!("../../weights/demo/sonata-demo.packed.gz") },
    BuiltIn {
        name: "student-demo",
        model: "student",
        bytes: include_bytes!("../../weights/demo/student-demo.packed.gz"),
    },
    BuiltIn {
        name: "xdecoder-demo",
        model: "xdecoder",
        bytes: include_bytes!("../../weights/demo/xdecoder-demo.packed.gz"),
    },
];

/// All weights of the pack; empty if the program was built without the feature `demo`.
#[cfg(not(feature = "demo"))]
pub static PACK: &[BuiltIn] = &[];

impl BuiltIn {
    /// Returns the weights of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        PACK.iter().copied().find(|built_in| built_in.name == name)
    }

    /// Returns the weights of this model.
    #[must_use]
    pub fn of_model(model: &str) -> Option<Self> {
        PACK.iter().copied().find(|built_in| built_in.model == model)
    }

    /// Opens the file.
    ///
    /// # Errors
    /// [`WeightsError`] if the program was built with a damaged file.
    pub(super) fn open(self) -> Result<SafetensorsFile, WeightsError> {
        let path = PathBuf::from(format!("(built in)/{}.safetensors", self.name));
        let bytes = unpack(self.bytes).map_err(|error| WeightsError::io(&path, error))?;
        SafetensorsFile::held(path, bytes)
    }
}

/// Packs the file `from` into `to`, as the program holds its demo: first the even bytes, then the odd ones, all
/// compressed. In numbers of 16 bits the odd bytes, with sign and exponent, are much alike. Many rows of the
/// vocabulary are 0, because training met only a few hundred words.
///
/// # Errors
/// [`WeightsError::Io`]. `to` is then unchanged.
pub fn pack(from: &Path, to: &Path) -> Result<(), WeightsError> {
    let bytes = std::fs::read(from).map_err(|error| WeightsError::io(from, error))?;
    let packed = packed(&bytes).map_err(|error| WeightsError::io(to, error))?;
    write_atomic(to, |file| file.write_all(&packed)).map_err(|error| WeightsError::io(to, error))
}

fn packed(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let planes: Vec<u8> = [0, 1].into_iter().flat_map(|first| bytes.iter().skip(first).step_by(2)).copied().collect();
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(&planes)?;
    encoder.finish()
}

fn unpack(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut planes = Vec::new();
    GzDecoder::new(bytes).read_to_end(&mut planes)?;
    let (even, odd) = planes.split_at(planes.len().div_ceil(2));
    let mut file = vec![0; planes.len()];
    file.iter_mut().step_by(2).zip(even).for_each(|(byte, even)| *byte = *even);
    file.iter_mut().skip(1).step_by(2).zip(odd).for_each(|(byte, odd)| *byte = *odd);
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_comes_back() {
        for bytes in [&b""[..], b"a", b"ab", b"abcdefg"] {
            assert_eq!(unpack(&packed(bytes).unwrap()).unwrap(), bytes);
        }
    }

    #[test]
    fn a_packed_file_holds_even_bytes_before_odd_ones() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        std::fs::write(&from, b"axbycz.").unwrap();
        pack(&from, &to).unwrap();
        let mut planes = String::new();
        GzDecoder::new(&std::fs::read(&to).unwrap()[..]).read_to_string(&mut planes).unwrap();
        assert_eq!(planes, "abc.xyz");
    }
}
