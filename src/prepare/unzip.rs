//! Unpacks files from zip archives.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use flate2::read::DeflateDecoder;
use rawzip::{CompressionMethod, ZipArchive};
use rayon::prelude::*;

use super::PrepareError;
use crate::files::MappedFile;

/// Largest size of one file in bytes, far above any picture or mesh of a data set.
const LONGEST: u64 = 1 << 33;

/// A file in an archive.
struct Member {
    /// Its folder and its name there.
    folder: String,
    name: String,
    data: Range<usize>,
    deflated: bool,
    crc: u32,
}

/// Returns the folder and name of a file called `path` in an archive. Returns `None` for folders, for files
/// outside any folder, and for names that would lead elsewhere.
fn place(path: &str) -> Option<(&str, &str)> {
    let mut parts = path.rsplit('/');
    let (name, folder) = (parts.next()?, parts.next()?);
    let is_plain = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains(['\\', ':', '\0']);
    (is_plain(name) && is_plain(folder)).then_some((folder, name))
}

/// Unpacks the files of the archive `path` that are in folders with a name in `wanted`, at any depth, as
/// `root/FOLDER/FILE`.
///
/// Every file's checksum is verified. Nothing is written outside `root`.
pub(super) fn unzip(path: &Path, root: &Path, wanted: &[&str]) -> Result<(), PrepareError> {
    let archive_error = |what: &str, message: &dyn std::fmt::Display| PrepareError::Archive {
        path: path.to_path_buf(),
        what: what.to_owned(),
        message: message.to_string(),
    };
    let bytes = MappedFile::open(path).map_err(|error| PrepareError::io(path, "open", error))?;
    let mut members = Vec::new();
    {
        let failed = |error: rawzip::Error| archive_error("its list of files", &error);
        let archive = ZipArchive::from_slice(&bytes[..]).map_err(failed)?;
        let mut entries = archive.entries();
        while let Some(entry) = entries.next_entry().map_err(failed)? {
            let full = String::from_utf8_lossy(entry.file_path().as_bytes()).into_owned();
            let Some((folder, name)) = place(&full).filter(|(folder, _)| wanted.contains(folder)) else { continue };
            let deflated = match entry.compression_method() {
                CompressionMethod::STORE => false,
                CompressionMethod::DEFLATE => true,
                other => return Err(archive_error(&full, &format!("compressed by {other:?}, not by deflate"))),
            };
            let local = archive.get_entry(entry.wayfinder()).map_err(|error| archive_error(&full, &error))?;
            let (start, end) = local.compressed_data_range();
            members.push(Member {
                folder: folder.to_owned(),
                name: name.to_owned(),
                data: start as usize..end as usize,
                deflated,
                crc: entry.crc32(),
            });
        }
    }
    for folder in wanted {
        let folder = root.join(folder);
        std::fs::create_dir_all(&folder).map_err(|error| PrepareError::io(&folder, "create", error))?;
    }
    members.par_iter().try_for_each(|member| {
        let to = root.join(&member.folder).join(&member.name);
        let data = bytes.get(member.data.clone()).unwrap_or_default();
        let crc = match member.deflated {
            true => copy(DeflateDecoder::new(data), &to),
            false => copy(data, &to),
        };
        let what = format!("{}/{}", member.folder, member.name);
        match crc {
            Ok(crc) if crc == member.crc => Ok(()),
            Ok(_) => Err(archive_error(&what, &"its checksum is another")),
            Err(Failed::Read(error)) => Err(archive_error(&what, &error)),
            Err(Failed::Write(error)) => Err(PrepareError::io(&to, "write", error)),
        }
    })
}

enum Failed {
    Read(io::Error),
    Write(io::Error),
}

/// Writes everything from `from` into a new file, and returns its checksum.
fn copy(mut from: impl Read, to: &PathBuf) -> Result<u32, Failed> {
    let mut file = BufWriter::new(File::create(to).map_err(Failed::Write)?);
    let mut crc = flate2::Crc::new();
    let mut block = vec![0; 1 << 16];
    let mut written = 0;
    loop {
        match from.read(&mut block) {
            Ok(0) => break,
            Ok(count) => {
                let piece = block.get(..count).unwrap_or_default();
                crc.update(piece);
                file.write_all(piece).map_err(Failed::Write)?;
                written += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Failed::Read(error)),
        }
        if written > LONGEST {
            return Err(Failed::Read(io::Error::other(format!("more than {LONGEST} bytes come out"))));
        }
    }
    file.flush().map_err(Failed::Write)?;
    Ok(crc.sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_leads_out_of_the_folder() {
        assert_eq!(place("scan/region_segmentations/region0.ply"), Some(("region_segmentations", "region0.ply")));
        assert_eq!(place("a/b/"), None);
        for path in ["x", "/x", "a/..", "../x", "a/..\\x", "a/c:x", "./x"] {
            assert_eq!(place(path), None, "{path}");
        }
    }
}
