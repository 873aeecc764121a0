//! Scenes of OpenScene's prepared data: tuples of NumPy's arrays, as `torch.save` writes them.

use std::io::Write as _;
use std::path::Path;

/// An array of NumPy in a pickle.
fn array(element: &str, shape: &[usize], data: &[u8]) -> Vec<u8> {
    let text = |text: &str| [b"X".as_slice(), &(text.len() as u32).to_le_bytes(), text.as_bytes()].concat();
    let mut pickle = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R(K\x01(".to_vec();
    for &extent in shape {
        pickle.push(b'J');
        pickle.extend((extent as u32).to_le_bytes());
    }
    pickle.extend(b"tcnumpy\ndtype\n");
    pickle.extend(text(element));
    pickle.extend(b"\x89\x88\x87R(K\x03");
    pickle.extend(text("<"));
    pickle.extend(b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89B");
    pickle.extend((data.len() as u32).to_le_bytes());
    pickle.extend(data);
    pickle.extend(b"tb");
    pickle
}

/// Writes points, colours of 0 to 255, and labels.
pub(crate) fn write_prepared(path: &Path, points: &[[f64; 3]], colors: &[[u8; 3]], labels: &[f64]) {
    let bytes = |values: &mut dyn Iterator<Item = f64>| values.flat_map(f64::to_le_bytes).collect::<Vec<u8>>();
    let points_at = bytes(&mut points.as_flattened().iter().copied());
    let colors_at = bytes(&mut colors.as_flattened().iter().map(|&value| f64::from(value) / 127.5 - 1.0));
    let mut pickle = b"\x80\x03".to_vec();
    pickle.extend(array("f8", &[points.len(), 3], &points_at));
    pickle.extend(array("f8", &[colors.len(), 3], &colors_at));
    pickle.extend(array("f8", &[labels.len()], &bytes(&mut labels.iter().copied())));
    pickle.extend(b"\x87.");
    let mut archive = Vec::new();
    let mut writer = rawzip::ZipArchiveWriter::new(&mut archive);
    let stored = rawzip::CompressionMethod::STORE;
    let (mut entry, config) = writer.new_file("archive/data.pkl").compression_method(stored).start().unwrap();
    let mut data = config.wrap(&mut entry);
    data.write_all(&pickle).unwrap();
    let (_, descriptor) = data.finish().unwrap();
    entry.finish(descriptor).unwrap();
    writer.finish().unwrap();
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, archive).unwrap();
}
