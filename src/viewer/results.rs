//! Reads a folder of results. It may come from a stranger: nothing outside the folder is read.

use std::fs::File;
use std::io::Read as _;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

use super::ViewerError;
use crate::cloud::AttributeData;
use crate::pipeline::{SUMMARY_FILE, Scene};
use crate::query::saved::{FILE_NAME, Saved};

/// Name of the contact sheet.
const SHEET_FILE: &str = "sheet.png";
/// Largest summary that is read. One of 200 classes has 60 kB.
const MOST_SUMMARY: u64 = 16 << 20;
/// Largest contact sheet that is served.
const MOST_SHEET: u64 = 64 << 20;
/// Most classes of a labelling: their numbers have 16 bits on the page, of which the last stands for none.
const MOST_CLASSES: usize = u16::MAX as usize;

/// A class of the legend.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(super) struct Class {
    pub(super) label: i32,
    pub(super) name: String,
    #[serde(default = "yes")]
    pub(super) known: bool,
    pub(super) color: [u8; 3],
}

/// What the viewer needs of `summary.json`.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Summary {
    pub(super) classes: Vec<Class>,
    #[serde(default)]
    pub(super) points: usize,
}

fn yes() -> bool {
    true
}

/// What the labelling says about the points of a scan that have a position.
#[derive(Debug)]
pub(super) struct OfPoint {
    pub(super) label: Vec<i32>,
    pub(super) lifted: Option<Vec<i32>>,
    pub(super) score: Vec<f32>,
    pub(super) margin: Vec<f32>,
    pub(super) voxel: Vec<i32>,
}

/// A folder of results, read.
pub(super) struct Results {
    pub(super) scene: Scene,
    pub(super) saved: Saved,
    /// The labels, by their numbers.
    pub(super) classes: Vec<Class>,
    pub(super) unlabelled: Class,
    pub(super) of_point: OfPoint,
}

impl Summary {
    /// Reads the summary of `folder`.
    pub(super) fn read(folder: &Path) -> Result<Self, ViewerError> {
        let path = inside(folder, SUMMARY_FILE)?;
        let wrong = |message: String| ViewerError::Content { path: path.clone(), message };
        let summary: Self =
            serde_json::from_slice(&bytes(&path, MOST_SUMMARY)?).map_err(|error| wrong(error.to_string()))?;
        let labels = summary.classes.iter().filter(|class| class.label >= 0);
        if summary.classes.len() > MOST_CLASSES || !labels.map(|class| class.label).eq(0..summary.num_labels()) {
            return Err(wrong("the labels of 'classes' are not 0, 1, 2 and so on".to_owned()));
        }
        Ok(summary)
    }

    fn num_labels(&self) -> i32 {
        self.classes.iter().filter(|class| class.label >= 0).count() as i32
    }
}

/// Reads the contact sheet of `folder`, a PNG file.
pub(super) fn sheet(folder: &Path) -> Result<Vec<u8>, ViewerError> {
    let path = inside(folder, SHEET_FILE)?;
    let picture = bytes(&path, MOST_SHEET)?;
    if !picture.starts_with(b"\x89PNG\r\n\x1a\n") {
        return Err(ViewerError::Content { path, message: "not a PNG picture".to_owned() });
    }
    Ok(picture)
}

impl Results {
    /// Reads the scan, its labels and its features.
    pub(super) fn read(folder: &Path) -> Result<Self, ViewerError> {
        let summary = Summary::read(folder)?;
        let features = inside(folder, FILE_NAME)?;
        let saved = Saved::read(&features)?;
        let mut parts = saved.about.scan.components();
        let (Some(Component::Normal(name)), None) = (parts.next(), parts.next()) else {
            return Err(ViewerError::Outside { path: features, other: saved.about.scan });
        };
        let path = inside(folder, name)?;
        let scene = Scene::read(&path)?;
        let wrong = |path: &Path, message: String| ViewerError::Content { path: path.to_path_buf(), message };
        if scene.cloud.len() != saved.voxel_from_point.len() {
            let (points, features) = (scene.cloud.len(), saved.voxel_from_point.len());
            return Err(wrong(&path, format!("{points} points, but features of {features}: both must be of one run")));
        }
        let num_labels = summary.num_labels();
        let labels = |path: &Path, labels: &[i32]| match labels.iter().find(|label| !(-1..num_labels).contains(label)) {
            Some(label) => Err(wrong(path, format!("the label {label}, expected -1 to {}", num_labels - 1))),
            None => Ok(()),
        };
        let column = |name: &str| -> Result<&AttributeData, ViewerError> {
            let attribute = scene.cloud.attribute(name);
            Ok(&attribute.ok_or_else(|| wrong(&path, format!("no property '{name}' of its points")))?.data)
        };
        let kept: Vec<usize> = match scene.kept() {
            Some(kept) => kept.iter().map(|&point| point as usize).collect(),
            None => (0..scene.num_points()).collect(),
        };
        let numbers = |name: &str| -> Result<Vec<f64>, ViewerError> {
            let data = column(name)?;
            Ok(kept.iter().map(|&point| data.get_f64(point).unwrap_or(f64::NAN)).collect())
        };
        let mut label = Vec::with_capacity(kept.len());
        for value in numbers("label")? {
            // Phrased so that a NaN fails.
            let is_label = value.fract() == 0.0 && value.abs() <= f64::from(i32::MAX);
            if !is_label {
                return Err(wrong(&path, format!("the label {value}, expected a whole number")));
            }
            label.push(value as i32);
        }
        labels(&path, &label)?;
        let lifted: Option<Vec<i32>> =
            saved.lifted_label.as_ref().map(|lifted| kept.iter().map(|&point| lifted[point]).collect());
        lifted.as_ref().map_or(Ok(()), |lifted| labels(&features, lifted))?;
        let floats = |name: &str| Ok::<_, ViewerError>(numbers(name)?.into_iter().map(|x| x as f32).collect());
        let (score, margin) = (floats("score")?, floats("margin")?);
        let voxel = kept.iter().map(|&point| saved.voxel_from_point[point]).collect();
        let is_label = |class: &Class| class.label >= 0;
        let unlabelled = summary.classes.iter().find(|class| !is_label(class)).cloned().unwrap_or_else(Class::none);
        let classes = summary.classes.into_iter().filter(is_label).collect();
        Ok(Self { scene, saved, classes, unlabelled, of_point: OfPoint { label, lifted, score, margin, voxel } })
    }
}

impl Class {
    /// The class of points without a label.
    pub(super) fn none() -> Self {
        let color = crate::images::draw::UNLABELLED_COLOR;
        Self { label: -1, name: "unlabelled".to_owned(), known: true, color }
    }
}

/// Path of the file `name` of `folder`. A link that leads out of the folder is refused.
fn inside(folder: &Path, name: impl AsRef<Path>) -> Result<PathBuf, ViewerError> {
    let path = folder.join(&name);
    if !path.is_file() {
        let name = name.as_ref().to_string_lossy().into_owned();
        return Err(ViewerError::Missing { folder: folder.to_path_buf(), name });
    }
    let real = |path: &Path| path.canonicalize().map_err(|source| ViewerError::Io { path: path.to_path_buf(), source });
    let other = real(&path)?;
    if other.starts_with(real(folder)?) { Ok(path) } else { Err(ViewerError::Outside { path, other }) }
}

/// Reads a file of `most` bytes at most.
fn bytes(path: &Path, most: u64) -> Result<Vec<u8>, ViewerError> {
    let io = |source| ViewerError::Io { path: path.to_path_buf(), source };
    let mut bytes = Vec::new();
    File::open(path).map_err(io)?.take(most + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > most {
        let message = format!("larger than {most} bytes");
        return Err(ViewerError::Content { path: path.to_path_buf(), message });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused<T>(result: Result<T, ViewerError>) -> String {
        result.err().unwrap().to_string()
    }

    #[test]
    fn what_is_missing_or_damaged_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let error = refused(Summary::read(root));
        assert!(error.ends_with("no summary.json: expected a folder with the results of a labelling"), "{error}");
        std::fs::write(root.join(SUMMARY_FILE), "{").unwrap();
        assert!(refused(Summary::read(root)).contains("summary.json: EOF"));
        let classes = r#"{"classes": [{"label": 1, "name": "a", "color": [1, 2, 3]}]}"#;
        std::fs::write(root.join(SUMMARY_FILE), classes).unwrap();
        assert!(refused(Summary::read(root)).contains("not 0, 1, 2 and so on"));
        std::fs::write(root.join(SUMMARY_FILE), classes.replace('1', "0")).unwrap();
        assert_eq!(Summary::read(root).unwrap().classes[0].color, [0, 2, 3]);
        assert!(refused(Results::read(root)).contains("no features.safetensors"));
        std::fs::write(root.join(FILE_NAME), [7; 100]).unwrap();
        assert!(refused(Results::read(root)).contains("features.safetensors"));
        std::fs::write(root.join(SHEET_FILE), "<script>").unwrap();
        assert!(refused(sheet(root)).ends_with("not a PNG picture"));
    }

    #[cfg(unix)]
    #[test]
    fn a_link_out_of_the_folder_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("results");
        std::fs::create_dir(&root).unwrap();
        std::fs::write(folder.path().join("secret.png"), b"\x89PNG\r\n\x1a\nsecret").unwrap();
        std::os::unix::fs::symlink("../secret.png", root.join(SHEET_FILE)).unwrap();
        assert!(refused(sheet(&root)).contains("expected a file of the same folder"));
    }
}
