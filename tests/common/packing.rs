//! Packed files, for tests of scans.

use std::io::Write;

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder};
use rawzip::{CompressionMethod, ZipArchiveWriter};

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packer = GzEncoder::new(Vec::new(), Compression::default());
    packer.write_all(bytes).unwrap();
    packer.finish().unwrap()
}

/// A zip archive of files, packed or stored.
pub(crate) fn zip(files: &[(&str, &[u8], bool)]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut archive = ZipArchiveWriter::new(&mut out);
    for &(name, bytes, packed) in files {
        let method = if packed { CompressionMethod::DEFLATE } else { CompressionMethod::STORE };
        let (mut entry, config) = archive.new_file(name).compression_method(method).start().unwrap();
        let sizes = if packed {
            let packer = DeflateEncoder::new(&mut entry, Compression::default());
            let mut writer = config.wrap(packer);
            writer.write_all(bytes).unwrap();
            let (packer, sizes) = writer.finish().unwrap();
            packer.finish().unwrap();
            sizes
        } else {
            let mut writer = config.wrap(&mut entry);
            writer.write_all(bytes).unwrap();
            writer.finish().unwrap().1
        };
        entry.finish(sizes).unwrap();
    }
    archive.finish().unwrap();
    out
}
