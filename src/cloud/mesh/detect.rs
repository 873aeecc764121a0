//! Telling mesh files by their content.

use crate::cloud::source::{first_lines, head_contains, words};

/// Bytes that are looked at.
const HEAD: usize = 4096;
/// Bytes before the first triangle of a binary STL file, and bytes of a triangle.
pub(super) const STL_HEADER: usize = 84;
pub(super) const STL_TRIANGLE: usize = 50;

/// The first lines that are no comments.
fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    first_lines(bytes, HEAD).filter(|line| !line.starts_with(b"#"))
}

/// True for glTF in its binary form.
pub(in crate::cloud) fn is_glb(bytes: &[u8]) -> bool {
    bytes.starts_with(b"glTF")
}

/// True for glTF as JSON: an object with the key that glTF asks for.
pub(in crate::cloud) fn is_gltf(bytes: &[u8]) -> bool {
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes).trim_ascii_start();
    let has = |key: &[u8]| head_contains(bytes, bytes.len(), key);
    text.starts_with(b"{") && has(b"\"asset\"") && (has(b"\"meshes\"") || has(b"\"buffers\"") || has(b"\"nodes\""))
}

/// True for OBJ: text whose lines begin with its keywords, a vertex among them or a material file.
pub(in crate::cloud) fn is_obj(bytes: &[u8]) -> bool {
    const KEYWORDS: [&[u8]; 14] =
        [b"v", b"vt", b"vn", b"vp", b"f", b"l", b"p", b"o", b"g", b"s", b"mtllib", b"usemtl", b"cstype", b"usemap"];
    let mut certain = false;
    for line in lines(bytes) {
        let keyword = words(line).next().unwrap_or_default();
        if !KEYWORDS.contains(&keyword) {
            return false;
        }
        certain |= matches!(keyword, b"v" | b"mtllib");
    }
    certain
}

/// True for OFF: the first word is its name, with letters for what else the vertices have.
pub(in crate::cloud) fn is_off(bytes: &[u8]) -> bool {
    lines(bytes).next().is_some_and(|line| off_letters(line).is_some())
}

/// The letters before "OFF", and what follows it.
pub(super) fn off_letters(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = line.windows(3).take(6).position(|window| window == b"OFF")?;
    let (letters, rest) = (line.get(..at)?, line.get(at + 3..)?);
    let plain = rest.first().is_none_or(|byte| byte.is_ascii_whitespace() || byte.is_ascii_digit());
    let known = letters.iter().all(|letter| b"STCN4n".contains(letter));
    (plain && known).then_some((letters, rest))
}

/// True for STL: text that begins as it does, or the length that its number of triangles asks for.
pub(in crate::cloud) fn is_stl(bytes: &[u8]) -> bool {
    is_stl_text(bytes) || stl_triangles(bytes).is_some_and(|count| count > 0 && stl_length(count) == bytes.len() as u64)
}

/// True for STL as text. A binary file may begin with the same word.
pub(super) fn is_stl_text(bytes: &[u8]) -> bool {
    let has = |text: &[u8]| head_contains(bytes, HEAD, text);
    words(bytes.get(..HEAD).unwrap_or(bytes)).next() == Some(b"solid")
        && !has(b"\0")
        && (has(b"facet") || has(b"endsolid"))
}

/// Number of triangles that a binary STL file claims.
pub(super) fn stl_triangles(bytes: &[u8]) -> Option<u32> {
    bytes.get(STL_HEADER - 4..STL_HEADER)?.try_into().ok().map(u32::from_le_bytes)
}

/// Length of a binary STL file with that many triangles.
pub(super) fn stl_length(triangles: u32) -> u64 {
    STL_HEADER as u64 + STL_TRIANGLE as u64 * u64::from(triangles)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meshes_are_told_by_their_content() {
        let tests: [fn(&[u8]) -> bool; 5] = [is_glb, is_gltf, is_obj, is_off, is_stl];
        let found = |bytes: &[u8]| tests.map(|test| test(bytes)).iter().position(|is| *is);
        assert_eq!(found(b"glTF\x02\0\0\0"), Some(0));
        assert_eq!(found(b"\xef\xbb\xbf { \"asset\": {}, \"meshes\": [] }"), Some(1));
        assert_eq!(found(b"{ \"asset\": 1 }"), None);
        assert_eq!(found(b"# Blender\r\nmtllib a.mtl\r\no Room\r\nv 1 2 3\r\n"), Some(2));
        assert_eq!(found(b"v 1 2 3 4\nw 1 2\n"), None);
        assert_eq!(found(b"o Room\n"), None);
        for off in ["OFF\n3 1 0\n", "# a\nCOFF\n", "NOFF 3 1 0\n", "OFF3 1 0\n", "STCNOFF\n"] {
            assert_eq!(found(off.as_bytes()), Some(3), "{off}");
        }
        assert_eq!(found(b"OFFICE\n"), None);
        assert_eq!(found(b"solid a\n facet normal 0 0 1\n"), Some(4));
        assert_eq!(found(b"solid ground\n1 2 3\n"), None);
        let mut stl = vec![b's'; 80];
        stl.extend(1_u32.to_le_bytes());
        stl.extend([0; 50]);
        assert_eq!(found(&stl), Some(4));
        stl.push(0);
        assert_eq!(found(&stl), None);
        assert_eq!(found(b""), None);
    }
}
