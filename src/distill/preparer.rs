//! Prepares scenes for training, and keeps them in a cache.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use burn::prelude::Device;
use serde_json::{Value as Json, json};

use super::preparation::{Teachers, TrainingOptions, training_scene};
use super::sampling::check_size;
use super::{Config, DistillError, SceneFile, TrainingScene};
use crate::gpu::Selected;
use crate::models::sonata::Sonata;
use crate::models::xdecoder::TextEmbeddings;
use crate::pipeline::{Scene, ViewOptions, voxel_size_for_training};
use crate::session::{
    ImageModelKind, LoadedImageModel, Network, Networks, OpenImageModel, OpenSonata, Opened, Placed, SessionError,
    Source, ViewSettings, ViewSource, embed_words,
};
use crate::stages::{Progress, StageTimer};
use crate::training::RunError;
use crate::views::Dataset;
use crate::views::fuse::FuseOptions;
use crate::weights::{SafetensorsFile, bytes_sha256, file_sha256};

/// Depth to which a recording's folders are searched for changes.
const MAX_DEPTH: usize = 8;
/// Version of the prepared data. Files of another version are computed again.
const CACHE_VERSION: u32 = 2;

/// Settings of preparation, and the folder of the cache.
#[derive(Clone, Debug)]
pub struct PrepareSettings {
    /// Settings of scans and views.
    pub views: ViewSettings,
    /// Model that sees the views.
    pub image_model: ImageModelKind,
    /// Choice of weights of the frozen models.
    pub networks: Networks,
    /// Words by which views are cut into masks.
    pub words: Vec<String>,
    /// Folder of the cache.
    pub cache: PathBuf,
}

/// Frozen models, loaded when the first scene needs them.
struct LoadedTeachers {
    image_model: LoadedImageModel,
    text: TextEmbeddings,
    sonata: Sonata,
}

/// Prepares scenes, or reads them from the cache.
pub struct Preparer<'a> {
    config: &'a Config,
    selected: &'a Selected,
    image_model: OpenImageModel,
    sonata: OpenSonata,
    words: Vec<String>,
    /// Key of everything that the result depends on, except the scene.
    key: Json,
    folder: PathBuf,
    /// Settings of views, adapted to the model.
    views: ViewSettings,
    teachers: Option<LoadedTeachers>,
    say: &'a mut dyn FnMut(&str),
    /// Names of frames that could not be prepared.
    failed: Vec<String>,
}

impl<'a> Preparer<'a> {
    /// Opens the frozen models. Calls `say` for every scene that is prepared.
    ///
    /// # Errors
    /// [`DistillError::Session`] if weights are missing or cannot be read.
    pub fn new(
        settings: &PrepareSettings,
        config: &'a Config,
        selected: &'a Selected,
        say: &'a mut dyn FnMut(&str),
    ) -> Result<Self, DistillError> {
        let networks = settings.networks.with_demo(&[settings.image_model.network(), Network::Sonata]);
        let image_model = OpenImageModel::open(&networks, settings.image_model)?;
        let sonata = networks.open_sonata()?;
        let views = image_model.views(&settings.views);
        let words = settings.words.clone();
        let mut key = json!({
            "version": CACHE_VERSION, "words": words, "viewing": views.key(), "samples": config.samples,
            "teacher": [json!(sonata.origin.sha256()?), json!(sonata.config)],
        });
        key[settings.image_model.network().name()] =
            json!([image_model.origin().sha256()?, image_model.config(), format!("{:?}", image_model.precision())]);
        let folder = settings.cache.clone();
        let (teachers, failed) = (None, Vec::new());
        Ok(Self { config, selected, image_model, sonata, words, key, folder, views, teachers, say, failed })
    }

    /// Names of the frames that could not be prepared so far.
    #[must_use]
    pub fn failed(&self) -> &[String] {
        &self.failed
    }

    /// Prepares the scenes of a source: one, or one for each frame of a recording without poses.
    ///
    /// # Errors
    /// [`DistillError`]. A single frame that fails is added to [`failed`](Self::failed) instead.
    pub fn prepare(&mut self, source: &Source, progress: &mut Progress<'_>) -> Result<Vec<SceneFile>, DistillError> {
        let name = source.name();
        let mut key = self.key.clone();
        key["source"] = fingerprint(source)?;
        let whole = self.file(name.clone(), &key);
        if self.is_prepared(&whole)? {
            return Ok(vec![whole]);
        }
        let mut timer = StageTimer::with_progress(&mut *progress);
        match source.open(&self.views, &mut timer, &mut self.say)? {
            Opened::Scan(scene, dataset) => {
                self.compute(&scene, ViewSource::of(dataset.as_deref()), &whole, timer)?;
                Ok(vec![whole])
            }
            Opened::Frames(dataset) => {
                let mut files = Vec::new();
                for frame in self.views.frames_alone(&*dataset) {
                    let mut key = key.clone();
                    key["frame"] = frame.into();
                    let file = self.file(format!("{name}/{}", dataset.frames()[frame].name), &key);
                    match self.prepare_frame(&*dataset, frame, &file, progress) {
                        Ok(()) => files.push(file),
                        Err(error) => {
                            (self.say)(&format!("error: {}: {error}", file.name));
                            self.failed.push(file.name);
                        }
                    }
                }
                Ok(files)
            }
        }
    }

    fn file(&self, name: String, key: &Json) -> SceneFile {
        let key = bytes_sha256(key.to_string().as_bytes());
        SceneFile { path: self.folder.join(format!("{key}.safetensors")), name, key }
    }

    fn prepare_frame(
        &mut self,
        dataset: &dyn Dataset,
        frame: usize,
        file: &SceneFile,
        progress: &mut Progress<'_>,
    ) -> Result<(), DistillError> {
        if self.is_prepared(file)? {
            return Ok(());
        }
        let scene = Scene::of_frame(dataset, frame, &FuseOptions::default())?;
        self.compute(&scene, ViewSource::Frame(dataset, frame), file, StageTimer::with_progress(progress))
    }

    /// True if the cache holds a complete file of the scene.
    fn is_prepared(&mut self, file: &SceneFile) -> Result<bool, DistillError> {
        let is_whole = SafetensorsFile::open(&file.path).and_then(|file| file.verify_seal()).is_ok();
        let Some(scene) = is_whole.then(|| TrainingScene::read(&file.path).ok()).flatten() else { return Ok(false) };
        check_size(&file.name, scene.num_samples(), self.config)?;
        (self.say)(&format!("{}: prepared before", file.name));
        Ok(true)
    }

    fn compute(
        &mut self,
        scene: &Scene,
        source: ViewSource<'_>,
        file: &SceneFile,
        mut timer: StageTimer<'_>,
    ) -> Result<(), DistillError> {
        let device: &Device = &self.selected.device;
        if self.teachers.is_none() {
            timer.progress("load weights", 0.0);
            self.teachers = Some(self.load(device, &mut timer)?);
            timer.restart();
        }
        let Some(LoadedTeachers { image_model, text, sonata }) = &self.teachers else {
            return Err(SessionError::Thread.into());
        };
        let placed = Placed::new(scene, source, &self.views, device)?;
        timer.lap("place cameras");
        let (voxel_size, why) = voxel_size_for_training(scene);
        let options = TrainingOptions {
            views: ViewOptions {
                most_visible: self.views.compat.most_visible_in_training(),
                ..self.views.view_options()
            },
            samples: self.config.samples,
            voxel_size,
            up: placed.cameras.up,
        };
        let teachers = Teachers { image_model: image_model.model(), text, sonata };
        let (prepared, report) =
            training_scene(&file.name, placed.views(scene), &teachers, &options, device, &mut timer)?;
        prepared.write(&file.path)?;
        check_size(&file.name, prepared.num_samples(), self.config)?;
        for note in scene.notes.iter().chain(&placed.notes).chain(&why) {
            log::info!("{}: {note}", file.name);
        }
        (self.say)(&format!(
            "{}: {} samples in {} voxels, {} of {} views used, {:.1} s",
            file.name,
            prepared.num_samples(),
            prepared.num_voxels(),
            report.looked_at,
            report.views,
            timer.seconds()
        ));
        Ok(())
    }

    fn load(&mut self, device: &Device, timer: &mut StageTimer<'_>) -> Result<LoadedTeachers, DistillError> {
        let (image_model, text_model) = self.image_model.load(device)?;
        let sonata = self.sonata.load(device)?;
        let text = embed_words(&text_model, &self.words, timer)?;
        Ok(LoadedTeachers { image_model, text, sonata })
    }
}

/// Value that changes with a source: the hash of a file; for a folder, the names, lengths and times of its
/// files.
///
/// # Errors
/// [`DistillError::Run`] or [`DistillError::Weights`] if a file or folder cannot be read.
pub fn fingerprint(source: &Source) -> Result<Json, DistillError> {
    Ok(match source {
        Source::Scan(path) | Source::Recording(path) => json!([of_path(path)?]),
        Source::ScanInRecording { scan, recording } | Source::SceneFolder { scan, recording } => {
            json!([of_path(scan)?, of_path(recording)?])
        }
    })
}

fn of_path(path: &Path) -> Result<Json, DistillError> {
    if path.is_file() {
        return Ok(file_sha256(path)?.into());
    }
    let mut files = BTreeMap::new();
    let mut folders = vec![(path.to_path_buf(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        let io = |source| RunError::Io { path: folder.clone(), source };
        for entry in std::fs::read_dir(&folder).map_err(io)? {
            let entry = entry.map_err(io)?;
            let path_of = entry.path();
            // Follows links, which may lead in a circle.
            let metadata = std::fs::metadata(&path_of).or_else(|_| entry.metadata()).map_err(io)?;
            if metadata.is_dir() {
                if depth < MAX_DEPTH {
                    folders.push((path_of, depth + 1));
                }
                continue;
            }
            let since = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH).duration_since(UNIX_EPOCH);
            let name = path_of.strip_prefix(path).unwrap_or(&path_of).to_string_lossy().into_owned();
            files.insert(name, (metadata.len(), since.unwrap_or_default().as_nanos().to_string()));
        }
    }
    Ok(bytes_sha256(json!(files).to_string().as_bytes()).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_that_changes_has_another_fingerprint() {
        let folder = tempfile::tempdir().unwrap();
        let source = Source::Recording(folder.path().to_path_buf());
        std::fs::create_dir(folder.path().join("depth")).unwrap();
        std::fs::write(folder.path().join("depth/1.png"), b"1").unwrap();
        let before = fingerprint(&source).unwrap();
        assert_eq!(fingerprint(&source).unwrap(), before);
        std::fs::write(folder.path().join("depth/2.png"), b"2").unwrap();
        assert_ne!(fingerprint(&source).unwrap(), before);
        assert!(fingerprint(&Source::Scan(folder.path().join("none"))).is_err());
    }
}
