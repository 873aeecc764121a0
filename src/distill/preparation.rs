//! Computes the training data of a scan, once.

use burn::prelude::*;
use glam::DVec3;

use super::{Samples, TrainingScene};
use crate::models::sonata::Sonata;
use crate::models::xdecoder::TextEmbeddings;
use crate::ops::OpError;
use crate::pipeline::{
    EncodeOptions, Encoding, ImageModel, PipelineError, SceneViews, ViewEncoder, ViewOptions, ViewReport, encode,
    encode_views,
};
use crate::purify::{self, FeatureSource, GEOMETRY_CHANNELS, Scan, estimate_normals, geometry_channels, voxel_means};
use crate::stages::StageTimer;

/// Frozen models from which a student learns.
pub struct Teachers<'a> {
    /// Image model, whose features the student will purify.
    pub image_model: ImageModel<'a>,
    /// Embeddings of the words by which views are cut into masks.
    pub text: &'a TextEmbeddings,
    /// Teacher of geometry, which the student imitates.
    pub sonata: &'a Sonata,
}

/// Options of preparing a scene for training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrainingOptions {
    /// Options of encoding views.
    pub views: ViewOptions,
    /// Kind of samples.
    pub samples: Samples,
    /// Edge of a voxel, in the scene's unit.
    pub voxel_size: f64,
    /// Up direction.
    pub up: DVec3,
}

/// Computes the training data of `scene`, called `name`: the lifted features of the image model, and the
/// features of the teacher.
///
/// # Errors
/// [`PipelineError`].
pub fn training_scene(
    name: &str,
    input: SceneViews<'_>,
    teachers: &Teachers<'_>,
    options: &TrainingOptions,
    device: &Device,
    timer: &mut StageTimer<'_>,
) -> Result<(TrainingScene, ViewReport), PipelineError> {
    let Teachers { image_model, text, sonata } = *teachers;
    let scene = input.scene;
    let encoder = ViewEncoder { model: image_model, text };
    let (lifted, report) = encode_views(input, encoder, &options.views, device, timer, &mut |_| Ok(()))?;
    let estimated;
    let normals = match scene.normals() {
        Some(normals) => normals,
        None => {
            estimated = estimate_normals(scene.positions());
            &estimated
        }
    };
    timer.lap("normals");
    let encode_options = EncodeOptions { voxel_size: options.voxel_size, up: options.up, compat: options.views.compat };
    let Encoding { features: teacher, num_channels: teacher_dim, cell_from_point, .. } =
        encode(scene, sonata, &encode_options, device, timer)?;

    let scan = Scan { normals: Some(normals), ..scene.to_purify() };
    let num_channels = lifted.num_channels() + GEOMETRY_CHANNELS;
    let settings = purify::Settings {
        voxel_size: options.voxel_size,
        working_bytes: usize::try_from(options.views.working_bytes).unwrap_or(usize::MAX),
        ..purify::Settings::default()
    };
    let voxelized = voxel_means(&scan, &lifted, settings, device, timer)?;
    let to_metres = scene.metres_per_unit().unwrap_or(1.0);
    let (voxel_metres, up) = (options.voxel_size * to_metres, options.up.to_array());
    let made = match options.samples {
        Samples::Voxels => {
            let num_voxels = voxelized.coords.len();
            let mut teacher_from_voxel = vec![-1; num_voxels];
            for (&voxel, &cell) in voxelized.voxel_from_point.iter().zip(&cell_from_point).rev() {
                teacher_from_voxel[voxel as usize] = cell;
            }
            TrainingScene {
                name: name.to_owned(),
                samples: options.samples,
                positions: voxelized.coords.iter().map(|coords| coords.map(|c| c as f32)).collect(),
                features: voxelized.matrix,
                num_channels,
                voxel_from_sample: (0..num_voxels as i32).collect(),
                voxel_coords: voxelized.coords,
                teacher,
                teacher_dim,
                teacher_from_sample: teacher_from_voxel,
                voxel_size: 1.0,
                voxel_metres,
                up,
            }
        }
        Samples::Points => {
            let in_metres = |p: &[f32; 3]| p.map(|v| (f64::from(v) * to_metres) as f32);
            let semantic = lifted.read(0..lifted.num_channels())?;
            let geometry = geometry_channels(&scan, &mut Vec::new());
            let rows = semantic.chunks_exact(lifted.num_channels()).zip(geometry.chunks_exact(GEOMETRY_CHANNELS));
            TrainingScene {
                name: name.to_owned(),
                samples: options.samples,
                features: rows.flat_map(|(semantic, geometry)| semantic.iter().chain(geometry)).copied().collect(),
                num_channels,
                voxel_from_sample: voxelized.voxel_from_point,
                voxel_coords: voxelized.coords,
                teacher,
                teacher_dim,
                teacher_from_sample: cell_from_point,
                voxel_size: voxel_metres,
                voxel_metres,
                up,
                positions: scene.points().iter().map(in_metres).collect(),
            }
        }
    };
    device.sync().map_err(|error| OpError::Device(format!("{error:?}")))?;
    timer.lap("voxels");
    Ok((made, report))
}
