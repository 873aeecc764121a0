//! Lifts rooms once and keeps them in a cache.

use std::path::PathBuf;

use burn::prelude::*;
use serde_json::{Value as Json, json};

use super::{AblationError, AblationSettings, LiftedRoom, RoomPoints};
use crate::distill::{PrepareSettings, SceneFile, fingerprint};
use crate::eval::scenes::LabelledScene;
use crate::eval::truth::Truth;
use crate::gpu::Selected;
use crate::labels::{Preset, Protocol, nyu40_from_class, read_labels};
use crate::models::xdecoder::{TextEmbeddings, XDecoder};
use crate::pipeline::{ImageModel, ViewEncoder, encode_views, voxel_size_for_training};
use crate::purify::{self, FeatureSource as _, Voxelized, voxel_means};
use crate::session::{
    Network, OpenXDecoder, Opened, Placed, Source, TextModel, ViewSettings, ViewSource, WeightsOrigin, embed_words,
};
use crate::stages::{Progress, StageTimer};
use crate::weights::{bytes_sha256, file_sha256};

/// Version of the stored rooms. Files of another version are computed again.
const ROOM_VERSION: u32 = 1;
/// Property of the points that holds the labels.
const LABEL_FIELD: &str = "label";

/// Lifts rooms, or reads them from the cache.
pub struct RoomLifter<'a> {
    views: ViewSettings,
    settings: &'a AblationSettings,
    protocol: Protocol,
    selected: &'a Selected,
    opened: OpenXDecoder,
    xdecoder: XDecoder,
    text: TextEmbeddings,
    nyu40: Option<Vec<i64>>,
    /// Key of everything that rooms depend on, except the scene.
    key: Json,
    folder: PathBuf,
}

impl<'a> RoomLifter<'a> {
    /// Loads X-Decoder and embeds the labels of `preset` that are counted.
    ///
    /// # Errors
    /// [`AblationError::Session`] if weights are missing or cannot be loaded.
    pub fn new(
        prepare: &PrepareSettings,
        preset: Preset,
        settings: &'a AblationSettings,
        selected: &'a Selected,
        progress: &mut Progress<'_>,
    ) -> Result<Self, AblationError> {
        let mut timer = StageTimer::with_progress(progress);
        timer.progress("load weights", 0.0);
        let mut opened = prepare.networks.with_demo(&[Network::XDecoder, Network::Sonata]).open_xdecoder()?;
        let xdecoder = opened.load(&selected.device)?;
        let (protocol, nyu40) = (Protocol::of_preset(&preset), nyu40_from_class(&preset));
        let labels: Vec<String> = preset.labels[..protocol.num_classes].iter().map(|&l| l.to_owned()).collect();
        let text = embed_words(&TextModel::XDecoder(xdecoder.text_encoder.clone()), &labels, &mut timer)?;
        let views = prepare.views.for_model(&xdecoder.config);
        let key = json!({
            "version": ROOM_VERSION, "geopurify": env!("CARGO_PKG_VERSION"), "labels": labels, "protocol": protocol,
            "nyu40": nyu40, "viewing": views.key(), "xdecoder": opened.origin.sha256()?,
            "config": opened.config, "precision": format!("{:?}", opened.precision), "device": selected.name,
        });
        let folder = prepare.cache.clone();
        Ok(Self { views, settings, protocol, selected, opened, xdecoder, text, nyu40, key, folder })
    }

    /// `[K, C]`: embeddings of the labels by X-Decoder.
    #[must_use]
    pub fn words(&self) -> Tensor<2> {
        self.text.rows.clone().slice_dim(0, 0..self.protocol.num_classes)
    }

    /// Origin of X-Decoder's weights.
    #[must_use]
    pub fn origin(&self) -> &WeightsOrigin {
        &self.opened.origin
    }

    /// Returns the lifted room of a scene. Reports its progress to `say`.
    ///
    /// # Errors
    /// [`AblationError`].
    pub fn lifted(
        &mut self,
        scene: &LabelledScene,
        progress: &mut Progress<'_>,
        say: &mut dyn FnMut(&str),
    ) -> Result<SceneFile, AblationError> {
        let source = Source::of(&scene.scan, scene.recording.as_deref());
        let mut key = self.key.clone();
        key["source"] = fingerprint(&source)?;
        key["truth"] = file_sha256(&scene.labels)?.into();
        let key = bytes_sha256(key.to_string().as_bytes());
        let file = SceneFile { path: self.folder.join(format!("{key}.safetensors")), name: scene.name.clone(), key };
        if LiftedRoom::is_whole(&file.path) {
            say(&format!("{}: lifted before", file.name));
            return Ok(file);
        }
        let mut timer = StageTimer::with_progress(progress);
        let room = self.lift(scene, &source, &mut timer, say)?;
        room.write(&file.path)?;
        say(&format!(
            "{}: {} points in {} voxels, {} views used, {:.1} s",
            file.name,
            room.points.truth.len(),
            room.voxelized.coords.len(),
            room.views,
            timer.seconds()
        ));
        Ok(file)
    }

    fn lift(
        &self,
        scene: &LabelledScene,
        source: &Source,
        timer: &mut StageTimer<'_>,
        say: &mut dyn FnMut(&str),
    ) -> Result<LiftedRoom, AblationError> {
        let protocol = &self.protocol;
        let labels = read_labels(&scene.labels, LABEL_FIELD)?;
        let truth = Truth::new(&scene.labels, labels, self.nyu40.as_deref(), &[], protocol)?;
        let Opened::Scan(scan, dataset) = source.open(&self.views, timer, say)? else {
            return Err(AblationError::settings(format!("{}: a recording, not a scan", source.path().display())));
        };
        truth.check(&scene.scan, scan.cloud.len())?;
        let device = &self.selected.device;
        let placed = Placed::new(&scan, ViewSource::of(dataset.as_deref()), &self.views, device)?;
        let options = self.views.view_options();
        let encoder = ViewEncoder { model: ImageModel::XDecoder(&self.xdecoder), text: &self.text };
        let (lifted, report) = encode_views(placed.views(&scan), encoder, &options, device, timer, &mut |_| Ok(()))?;
        let settings = purify::Settings { voxel_size: voxel_size_for_training(&scan).0, ..self.settings.purify };
        let voxelized = voxel_means(&scan.to_purify(), &lifted, settings, device, timer)?;
        let label = lifted.labels(&self.words(), protocol.num_classes)?;
        Ok(LiftedRoom {
            num_channels: lifted.num_channels(),
            voxelized: Voxelized { voxel_from_point: scan.for_all_points(voxelized.voxel_from_point, -1), ..voxelized },
            points: RoomPoints { lifted_label: scan.for_all_points(label, -1), truth: truth.classes(protocol) },
            views: report.looked_at,
        })
    }
}
