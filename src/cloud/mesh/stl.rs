//! STL: triangles, as text or binary.

use std::collections::HashMap;
use std::path::Path;

use super::detect::{STL_HEADER, STL_TRIANGLE, is_stl_text, stl_length, stl_triangles};
use super::{Cutting, Look, Mesh, numbers};
use crate::cloud::error::{Origin, quoted};
use crate::cloud::source::{u16_at, u32_at, words};
use crate::cloud::{CloudError, Format, PointCloud};

/// Triangles whose equal corners are one vertex: STL repeats each vertex in every triangle.
#[derive(Default)]
struct Welded {
    positions: Vec<[f64; 3]>,
    index_of: HashMap<[u64; 3], u32>,
    triangles: Vec<[u32; 3]>,
}

impl Welded {
    /// Index of the vertex at `position`; `None` if there are too many vertices.
    fn vertex(&mut self, position: [f64; 3]) -> Option<u32> {
        // Adding 0 turns -0 into 0.
        let key = position.map(|x| (x + 0.0).to_bits());
        if let Some(&known) = self.index_of.get(&key) {
            return Some(known);
        }
        let new = u32::try_from(self.positions.len()).ok()?;
        self.positions.push(position);
        self.index_of.insert(key, new);
        Some(new)
    }
}

pub(in crate::cloud) fn read(path: &Path, bytes: &[u8]) -> Result<PointCloud, CloudError> {
    let origin = Origin { path, format: "STL" };
    let binary = !is_stl_text(bytes);
    let (welded, looks) = if binary { read_binary(origin, bytes)? } else { (read_text(origin, bytes)?, Vec::new()) };
    let mut notes = Vec::new();
    if !looks.is_empty() {
        notes.push("vertices have the colours of their triangles".into());
    }
    let cloud = PointCloud {
        positions: welded.positions,
        faces: welded.triangles,
        format: Format::Stl { binary },
        notes,
        ..PointCloud::default()
    };
    Ok(Mesh { cloud, looks, places: Vec::new(), skins: Vec::new() }.into_cloud(Cutting::Always))
}

fn read_binary(origin: Origin<'_>, bytes: &[u8]) -> Result<(Welded, Vec<Look>), CloudError> {
    let count =
        stl_triangles(bytes).ok_or_else(|| origin.truncated(0, "the header", STL_HEADER as u64, bytes.len() as u64))?;
    let available = (bytes.len() - STL_HEADER) as u64;
    let needed = stl_length(count) - STL_HEADER as u64;
    if needed > available {
        return Err(origin.truncated(STL_HEADER as u64, format!("{count} triangles"), needed, available));
    }
    // One program says in the header what a triangle without its own colour has.
    let usual = bytes.get(..STL_HEADER - 4).unwrap_or_default();
    let usual = usual.windows(6).position(|window| window == b"COLOR=").and_then(|at| usual.get(at + 6..at + 9));
    let usual: Option<[u8; 3]> = usual.and_then(|color| color.try_into().ok());
    let mut welded = Welded::default();
    let mut looks = Vec::new();
    let rows = bytes.get(STL_HEADER..).unwrap_or_default().chunks_exact(STL_TRIANGLE).take(count as usize);
    for (row, number) in rows.zip(0_u64..) {
        let mut corners = [0; 3];
        for (corner, at) in corners.iter_mut().zip([12, 24, 36]) {
            let position = [0, 4, 8].map(|axis| f64::from(f32::from_bits(u32_at(row, at + axis))));
            *corner = welded.vertex(position).ok_or_else(|| too_many(origin, number))?;
        }
        welded.triangles.push(corners);
        let look = match (u16_at(row, 48), usual) {
            (packed, Some(usual)) => Look::Flat(if packed & 0x8000 == 0 { unpacked(packed) } else { usual }),
            (packed, None) if packed & 0x8000 != 0 => {
                let [blue, green, red] = unpacked(packed);
                Look::Flat([red, green, blue])
            }
            _ => Look::Vertices,
        };
        looks.push(look);
    }
    if looks.iter().all(|look| *look == Look::Vertices) {
        looks.clear();
    }
    Ok((welded, looks))
}

/// Three numbers of five bits, the lowest first, as 0 to 255.
fn unpacked(packed: u16) -> [u8; 3] {
    [0, 5, 10].map(|shift| (u32::from(packed >> shift & 31) * 255 / 31) as u8)
}

fn too_many(origin: Origin<'_>, triangle: u64) -> CloudError {
    let offset = STL_HEADER as u64 + triangle * STL_TRIANGLE as u64;
    origin.value(offset, "the number of vertices", "more than 2^32", "fewer vertices")
}

fn read_text(origin: Origin<'_>, bytes: &[u8]) -> Result<Welded, CloudError> {
    let mut welded = Welded::default();
    let mut corners = Vec::with_capacity(3);
    let mut inside = false;
    let mut last = 0;
    for (line, number) in bytes.split(|&byte| byte == b'\n').zip(1_u64..) {
        let line = line.trim_ascii();
        let mut words = words(line);
        let bad = |expected: &str| origin.line(number, quoted(line), expected);
        match words.next().map(<[u8]>::to_ascii_lowercase).as_deref() {
            Some(b"vertex") if inside => {
                let position = numbers(&mut words).ok_or_else(|| bad("\"vertex X Y Z\""))?;
                corners.push(welded.vertex(position).ok_or_else(|| bad("fewer than 2^32 vertices"))?);
            }
            Some(b"facet") => inside = true,
            Some(b"endfacet") => {
                let triangle = <[u32; 3]>::try_from(corners.as_slice());
                welded.triangles.push(triangle.map_err(|_| bad("three vertices in each facet"))?);
                corners.clear();
                inside = false;
            }
            Some(b"solid" | b"endsolid" | b"outer" | b"endloop") | None => {}
            Some(_) => return Err(bad("solid, facet, outer loop, vertex, endloop, endfacet or endsolid")),
        }
        last = number;
    }
    if inside {
        return Err(origin.line(last, "the end of the file", "\"endfacet\" (the file is cut off)"));
    }
    Ok(welded)
}
