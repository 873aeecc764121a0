//! Label files of the benchmarks: ScanNet's segments and groups, Matterport3D's face categories, and the
//! tables that translate their names and numbers into classes.
//!
//! Sources: for ScanNet, the export scripts of ScanNet (Dai et al., CVPR 2017) and ScanNet200 (Rozenberszki
//! et al., ECCV 2022). For Matterport3D (Chang et al., 3DV 2017), the scripts of OpenScene (Peng et al., CVPR
//! 2023), which GeoPurify uses.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::Deserialize;

use super::nyu40::{self, nyu40_from_class};
use super::{LabelsError, Preset};
use crate::cloud::{PointCloud, for_each_face};

/// Label of points without a class. All protocols ignore it.
pub const NO_CLASS: u8 = 255;

/// File name of the label table that comes with ScanNet.
pub const SCANNET_TABLE: &str = "scannetv2-labels.combined.tsv";

/// File name of the category table that comes with Matterport3D.
pub const MATTERPORT_TABLE: &str = "category_mapping.tsv";

/// Suffix that follows the scene's name in the segment files of ScanNet's reduced meshes.
const SEGMENTS: &str = "_vh_clean_2.0.010000.segs.json";

/// Matterport3D's folder of labelled meshes, one for each room.
pub const REGIONS: &str = "region_segmentations";

/// Property of Matterport3D's faces that holds their category.
const CATEGORY: &str = "category_id";

/// ScanNet's `id` numbers of the 200 classes, in the order of [`Preset::SCANNET200`].
#[rustfmt::skip]
pub const SCANNET200_IDS: [u16; 200] = [
    1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 14, 15, 16, 17, 18, 19, 21, 22, 23, 24, 26, 27, 28, 29, 31, 32, 33, 34, 35,
    36, 38, 39, 40, 41, 42, 44, 45, 46, 47, 48, 49, 50, 51, 52, 54, 55, 56, 57, 58, 59, 62, 63, 64, 65, 66, 67, 68, 69,
    70, 71, 72, 73, 74, 75, 76, 77, 78, 79, 80, 82, 84, 86, 87, 88, 89, 90, 93, 95, 96, 97, 98, 99, 100, 101, 102, 103,
    104, 105, 106, 107, 110, 112, 115, 116, 118, 120, 121, 122, 125, 128, 130, 131, 132, 134, 136, 138, 139, 140, 141,
    145, 148, 154, 155, 156, 157, 159, 161, 163, 165, 166, 168, 169, 170, 177, 180, 185, 188, 191, 193, 195, 202, 208,
    213, 214, 221, 229, 230, 232, 233, 242, 250, 261, 264, 276, 283, 286, 300, 304, 312, 323, 325, 331, 342, 356, 370,
    392, 395, 399, 408, 417, 488, 540, 562, 570, 572, 581, 609, 748, 776, 1156, 1163, 1164, 1165, 1166, 1167, 1168,
    1169, 1170, 1171, 1172, 1173, 1174, 1175, 1176, 1178, 1179, 1180, 1181, 1182, 1183, 1184, 1185, 1186, 1187, 1188,
    1189, 1190, 1191,
];

fn io(path: &Path, source: std::io::Error) -> LabelsError {
    LabelsError::Read { path: path.to_path_buf(), source }
}

fn content(path: &Path, found: impl Into<String>, expected: impl Into<String>) -> LabelsError {
    LabelsError::Content { path: path.to_path_buf(), found: found.into(), expected: expected.into() }
}

/// Finds the table `name` for the file or folder `start`. It looks in the folder of `start` and in each
/// folder above it, up to the one above `root`, and in a folder `metadata` inside each of these.
///
/// # Errors
/// [`LabelsError::Table`] if there is none.
pub fn find_table(start: &Path, root: &Path, name: &'static str) -> Result<PathBuf, LabelsError> {
    // Only an absolute path lists all folders above it.
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let (start, root) = (absolute(start), absolute(root));
    let last = root.parent().unwrap_or(&root);
    let folders = start.ancestors().take_while(|folder| folder.starts_with(last));
    let mut places = folders.flat_map(|folder| [folder.join(name), folder.join("metadata").join(name)]);
    places.find(|path| path.is_file()).ok_or_else(|| LabelsError::Table { name, start: start.clone(), root })
}

/// Reads a tab-separated table. Returns the line numbers and the cells of the wanted columns.
fn read_table<const N: usize>(path: &Path, columns: [&str; N]) -> Result<Vec<(usize, [String; N])>, LabelsError> {
    let text = std::fs::read_to_string(path).map_err(|source| io(path, source))?;
    let mut lines = text.lines().enumerate();
    let head: Vec<&str> = lines.next().map_or(Vec::new(), |(_, line)| line.split('\t').map(str::trim).collect());
    let mut places = [0; N];
    for (place, column) in places.iter_mut().zip(columns) {
        let found = head.iter().position(|name| *name == column);
        *place = found.ok_or_else(|| {
            let found = format!("no column '{column}' in the first line");
            content(path, found, format!("the columns {}, separated by tabs", columns.join(", ")))
        })?;
    }
    let cells = |(number, line): (usize, &str)| {
        let cells: Vec<&str> = line.split('\t').collect();
        (number + 1, places.map(|place| cells.get(place).map_or("", |cell| cell.trim()).to_owned()))
    };
    Ok(lines.filter(|(_, line)| !line.trim().is_empty()).map(cells).collect())
}

/// Parses a whole number; an empty cell is 0. Numbers have a decimal point if their column has gaps.
fn number(path: &Path, line: usize, column: &str, cell: &str) -> Result<u32, LabelsError> {
    let whole = cell.strip_suffix(".0").unwrap_or(cell);
    let parsed = if whole.is_empty() { Ok(0) } else { whole.parse() };
    parsed.map_err(|_| content(path, format!("'{cell}' in line {line}"), format!("a whole number as {column}")))
}

/// Classes of one name that ScanNet's annotators use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ScanNetName {
    id: u32,
    nyu40: u8,
}

/// ScanNet's table of names and their classes.
#[derive(Clone, Debug)]
pub struct ScanNetTable {
    path: PathBuf,
    names: HashMap<String, ScanNetName>,
}

impl ScanNetTable {
    /// Reads `scannetv2-labels.combined.tsv`.
    ///
    /// # Errors
    /// [`LabelsError::Read`], or [`LabelsError::Content`] if it is another table.
    pub fn read(path: &Path) -> Result<Self, LabelsError> {
        let mut names = HashMap::new();
        for (line, [name, id, nyu40]) in read_table(path, ["raw_category", "id", "nyu40id"])? {
            let id = number(path, line, "id", &id)?;
            let nyu40 = number(path, line, "nyu40id", &nyu40)?;
            let Some(nyu40) = u8::try_from(nyu40).ok().filter(|&nyu40| i64::from(nyu40) <= nyu40::LARGEST) else {
                let found = format!("nyu40id {nyu40} in line {line}");
                return Err(content(path, found, format!("0 to {}", nyu40::LARGEST)));
            };
            names.insert(name, ScanNetName { id, nyu40 });
        }
        Ok(Self { path: path.to_path_buf(), names })
    }
}

/// Annotation files of a ScanNet scene.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanNetFiles {
    /// File with the name and the segments of each object.
    pub groups: PathBuf,
    /// File with the segment of each vertex of the reduced mesh.
    pub segments: PathBuf,
}

impl ScanNetFiles {
    /// Returns the files of the scene `name` in `folder`, if both exist.
    #[must_use]
    pub fn of(folder: &Path, name: &str) -> Option<Self> {
        let segments = folder.join(format!("{name}{SEGMENTS}"));
        let groups = ["", "_vh_clean_2", "_vh_clean"].map(|part| folder.join(format!("{name}{part}.aggregation.json")));
        let groups = groups.into_iter().find(|path| path.is_file())?;
        segments.is_file().then_some(Self { groups, segments })
    }
}

/// Labels of the vertices of a ScanNet scene.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanNetLabels {
    /// NYU40's numbers as in `labels.ply`; 0 for unannotated vertices.
    pub nyu40: Vec<u16>,
    /// Classes of [`Preset::SCANNET200`]; [`NO_CLASS`] for vertices without one.
    pub scannet200: Vec<u8>,
}

#[derive(Deserialize)]
struct SegmentsFile {
    #[serde(rename = "segIndices")]
    of_vertex: Vec<u32>,
}

#[derive(Deserialize)]
struct GroupsFile {
    #[serde(rename = "segmentsFile", default)]
    segments_file: Option<String>,
    #[serde(rename = "segGroups")]
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    label: String,
    segments: Vec<u32>,
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path, expected: &str) -> Result<T, LabelsError> {
    let bytes = crate::files::MappedFile::open(path).map_err(|source| io(path, source))?;
    serde_json::from_slice(&bytes).map_err(|error| content(path, error.to_string(), expected))
}

/// Reads the segment of every vertex and the groups of segments.
fn read_groups(files: &ScanNetFiles) -> Result<(SegmentsFile, GroupsFile), LabelsError> {
    let segments: SegmentsFile = read_json(&files.segments, "JSON with a segment for each vertex in 'segIndices'")?;
    let groups: GroupsFile = read_json(&files.groups, "JSON with 'segGroups' of a 'label' and 'segments' each")?;
    if let Some(other) = groups.segments_file.as_deref().filter(|other| !other.ends_with(SEGMENTS)) {
        let found = format!("groups of the segments in '{other}'");
        return Err(content(&files.groups, found, format!("groups of the segments in NAME{SEGMENTS}")));
    }
    Ok((segments, groups))
}

/// Reads the object of every vertex of a ScanNet scene, in the order of the reduced mesh: numbers of its groups from 1,
/// 0 for vertices of none.
///
/// # Errors
/// [`LabelsError::Read`], or [`LabelsError::Content`] if a file is damaged or belongs to another mesh.
pub fn scannet_objects(files: &ScanNetFiles) -> Result<Vec<i64>, LabelsError> {
    let (segments, groups) = read_groups(files)?;
    let numbered = (1_i64..).zip(&groups.groups);
    let of_segment: HashMap<u32, i64> =
        numbered.flat_map(|(number, group)| group.segments.iter().map(move |&segment| (segment, number))).collect();
    Ok(segments.of_vertex.iter().map(|segment| of_segment.get(segment).copied().unwrap_or(0)).collect())
}

/// Reads the labels of the vertices of a ScanNet scene, in the order of the reduced mesh.
///
/// # Errors
/// [`LabelsError::Read`], or [`LabelsError::Content`] if a file is damaged, belongs to another mesh, or has a
/// name that the table lacks.
pub fn scannet_labels(files: &ScanNetFiles, table: &ScanNetTable) -> Result<ScanNetLabels, LabelsError> {
    let (segments, groups) = read_groups(files)?;
    let mut of_segment = HashMap::new();
    for group in &groups.groups {
        let Some(name) = table.names.get(group.label.as_str()) else {
            let expected = format!("a name from the column raw_category of {}", table.path.display());
            return Err(content(&files.groups, format!("the label '{}'", group.label), expected));
        };
        of_segment.extend(group.segments.iter().map(|&segment| (segment, *name)));
    }
    let class_of_id: HashMap<u32, u8> =
        SCANNET200_IDS.iter().zip(0..).map(|(&id, class)| (u32::from(id), class)).collect();
    let names = || segments.of_vertex.iter().map(|segment| of_segment.get(segment));
    Ok(ScanNetLabels {
        nyu40: names().map(|name| name.map_or(0, |name| u16::from(name.nyu40))).collect(),
        scannet200: names()
            .map(|name| name.and_then(|name| class_of_id.get(&name.id)).copied().unwrap_or(NO_CLASS))
            .collect(),
    })
}

/// Matterport3D's table of categories and their classes.
#[derive(Clone, Debug)]
pub struct MatterportTable {
    path: PathBuf,
    /// NYU40's number and NYU's name, by category number.
    categories: HashMap<i64, (u8, String)>,
}

impl MatterportTable {
    /// Reads `category_mapping.tsv`.
    ///
    /// # Errors
    /// [`LabelsError::Read`], or [`LabelsError::Content`] if it is another table.
    pub fn read(path: &Path) -> Result<Self, LabelsError> {
        let mut categories = HashMap::new();
        for (line, [index, nyu40, name]) in read_table(path, ["index", "nyu40id", "nyuClass"])? {
            let index = number(path, line, "index", &index)?;
            let nyu40 = number(path, line, "nyu40id", &nyu40)?;
            // No label set uses numbers above NYU40's.
            let nyu40 = u8::try_from(nyu40).ok().filter(|&nyu40| i64::from(nyu40) <= nyu40::LARGEST).unwrap_or(0);
            categories.insert(i64::from(index), (nyu40, name));
        }
        Ok(Self { path: path.to_path_buf(), categories })
    }
}

/// Presets of Matterport3D for which [`MatterportLabels`] holds classes.
pub const MATTERPORT_PRESETS: [Preset; 4] =
    [Preset::MATTERPORT21, Preset::MATTERPORT40, Preset::MATTERPORT80, Preset::MATTERPORT160];

/// Labels of the vertices of a region (a room) of Matterport3D.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MatterportLabels {
    /// NYU40's numbers; 0 for unannotated vertices.
    pub nyu40: Vec<u16>,
    /// Classes of each of [`MATTERPORT_PRESETS`]; [`NO_CLASS`] for vertices without one.
    pub classes: [Vec<u8>; 4],
}

/// Reads the labels of the vertices of a region. A vertex gets the class that most of its faces have. In a
/// tie, "no class" wins over a class, and the first class wins over later ones.
///
/// Categories are translated to classes before counting, as published. So each label set has its own
/// majority.
///
/// # Errors
/// [`LabelsError::Cloud`], or [`LabelsError::Content`] for a category that the table lacks.
pub fn matterport_labels(mesh: &Path, table: &MatterportTable) -> Result<MatterportLabels, LabelsError> {
    let num_points = PointCloud::read(mesh)?.len();
    let mut corners: Vec<(u32, i64)> = Vec::new();
    for_each_face(mesh, CATEGORY, |face, category| corners.extend(face.iter().map(|&corner| (corner, category))))?;
    corners.par_sort_unstable();
    let mut known: Vec<i64> = corners.iter().map(|&(_, category)| category).collect();
    known.par_sort_unstable();
    known.dedup();
    // -1 and 0 mark a face without a category.
    let missing = known.iter().find(|category| **category > 0 && !table.categories.contains_key(category));
    if let Some(category) = missing {
        let expected = format!("a category number from {}", table.path.display());
        return Err(content(mesh, format!("a face of category {category}"), expected));
    }
    let majority = |class_of: &dyn Fn(u8, &str) -> Option<u8>| {
        let classes: HashMap<i64, u16> = (known.iter())
            .map(|category| {
                let class = table.categories.get(category).and_then(|(nyu40, name)| class_of(*nyu40, name));
                (*category, class.map_or(0, |class| u16::from(class) + 1))
            })
            .collect();
        let mut labels = vec![None; num_points];
        let mut counts: Vec<(u16, u32)> = Vec::new();
        for faces in corners.chunk_by(|a, b| a.0 == b.0) {
            counts.clear();
            for (_, category) in faces {
                let class = classes.get(category).copied().unwrap_or(0);
                match counts.iter_mut().find(|(counted, _)| *counted == class) {
                    Some((_, count)) => *count += 1,
                    None => counts.push((class, 1)),
                }
            }
            let best = counts.iter().max_by_key(|(class, count)| (*count, std::cmp::Reverse(*class)));
            let vertex = faces.first().and_then(|&(vertex, _)| labels.get_mut(vertex as usize));
            if let (Some(label), Some((class, _))) = (vertex, best) {
                *label = class.checked_sub(1);
            }
        }
        labels
    };
    let classes = MATTERPORT_PRESETS.map(|preset| {
        let nyu40s = nyu40_from_class(&preset);
        let class_of = |nyu40: u8, name: &str| {
            let place = match &nyu40s {
                Some(nyu40s) => nyu40s.iter().position(|&class| class == i64::from(nyu40)),
                None => preset.labels.iter().position(|&label| label == name),
            };
            place.and_then(|place| u8::try_from(place).ok())
        };
        majority(&class_of).into_iter().map(|class| class.map_or(NO_CLASS, |class| class as u8)).collect()
    });
    // Number 0 (unannotated) counts as no class.
    let nyu40 = majority(&|nyu40, _| nyu40.checked_sub(1));
    Ok(MatterportLabels { nyu40: nyu40.into_iter().map(|class| class.map_or(0, |class| class + 1)).collect(), classes })
}

/// Lists the meshes `region_segmentations/regionN.ply` of a scan of Matterport3D, by name.
///
/// # Errors
/// [`LabelsError::Read`] if the folder exists but cannot be read.
pub fn region_meshes(scan: &Path) -> Result<Vec<PathBuf>, LabelsError> {
    let folder = scan.join(REGIONS);
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let io = |source| io(&folder, source);
    let entries = std::fs::read_dir(&folder).map_err(io)?;
    let mut meshes: Vec<PathBuf> =
        entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>().map_err(io)?;
    meshes.retain(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("region") && name.ends_with(".ply") && !name.contains("..")
    });
    meshes.sort();
    Ok(meshes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_scannet200_are_its_classes() {
        assert_eq!(SCANNET200_IDS.len(), Preset::SCANNET200.labels.len());
        assert!(SCANNET200_IDS.is_sorted_by(|a, b| a < b));
        let id = |label| SCANNET200_IDS[Preset::SCANNET200.labels.iter().position(|l| *l == label).unwrap()];
        // As in the published table.
        assert_eq!((id("wall"), id("chair"), id("pillow"), id("mattress")), (1, 2, 13, 1191));
    }

    #[test]
    fn objects_are_the_groups_of_segments() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at(&format!("a{SEGMENTS}")), r#"{"segIndices": [7, 7, 3, 9, 4]}"#).unwrap();
        let groups = |file: &str| {
            let groups = r#"[{"label": "chair", "segments": [3, 4], "objectId": 0}, {"label": "x", "segments": [7]}]"#;
            let text = format!(r#"{{"segmentsFile": "{file}", "segGroups": {groups}}}"#);
            std::fs::write(at("a.aggregation.json"), text).unwrap();
        };
        groups("scannet.a_vh_clean_2.0.010000.segs.json");
        let files = ScanNetFiles::of(folder.path(), "a").unwrap();
        assert_eq!(scannet_objects(&files).unwrap(), [2, 2, 1, 0, 1]);
        groups("scannet.a_vh_clean.segs.json");
        let message = scannet_objects(&files).unwrap_err().to_string();
        assert!(message.contains("groups of the segments in 'scannet.a_vh_clean.segs.json'"), "{message}");
    }

    #[test]
    fn tables_are_found_from_the_scene_up_to_above_the_root() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("data/scans");
        let scene = root.join("scene0000_00");
        std::fs::create_dir_all(&scene).unwrap();
        let find = || find_table(&scene, &root, SCANNET_TABLE);
        std::fs::write(folder.path().join(SCANNET_TABLE), "").unwrap();
        let message = find().unwrap_err().to_string();
        assert!(message.contains(SCANNET_TABLE) && message.contains("scene0000_00"), "{message}");
        let above = folder.path().join("data/metadata");
        std::fs::create_dir(&above).unwrap();
        std::fs::write(above.join(SCANNET_TABLE), "").unwrap();
        assert_eq!(find().unwrap(), above.join(SCANNET_TABLE));
        std::fs::write(root.join(SCANNET_TABLE), "").unwrap();
        assert_eq!(find().unwrap(), root.join(SCANNET_TABLE));
    }
}
