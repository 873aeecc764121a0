//! Weights of generated values, the same on every machine: all that runs on weights can be tried without the
//! published ones. What it then says means nothing.

#![allow(dead_code, reason = "who makes the tiny ones makes no others")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context, Result};
use geopurify::models::clip::ClipTextConfig;
use geopurify::models::lseg::{DptConfig, LSegConfig, ReassembleConfig, VitConfig};
use geopurify::models::sonata::SonataConfig;
use geopurify::models::student::StudentConfig;
use geopurify::models::xdecoder::XDecoderConfig;
use geopurify::weights::{Dtype, SafetensorsWriter, TensorSpec};
use rayon::prelude::*;

/// Where the files are.
pub(crate) struct WeightFiles {
    /// X-Decoder, for `--xdecoder`.
    pub xdecoder: PathBuf,
    /// Its configuration, for `--xdecoder-config`.
    pub config: PathBuf,
    /// The student, for `--student`.
    pub student: PathBuf,
    /// Sonata, for `encode --teacher`.
    pub sonata: PathBuf,
    /// Its configuration, for `encode --teacher-config`.
    pub sonata_config: PathBuf,
}

/// Writes networks that see a picture in a fraction of a second, and whose widths fit each other.
pub(crate) fn tiny_weights(dir: &Path) -> Result<WeightFiles> {
    let xdecoder = tiny_xdecoder(48, 21);
    let student = StudentConfig { input_dim: xdecoder.dim_proj + 6, hidden_dim: 32, embed_dim: 16 };
    write_weights(dir, &xdecoder, student, &tiny_sonata())
}

/// Those of [`tiny_weights`], written once for all tests of a program.
pub(crate) fn weight_files() -> &'static WeightFiles {
    static FILES: OnceLock<(tempfile::TempDir, WeightFiles)> = OnceLock::new();
    let (_, files) = FILES.get_or_init(|| {
        let folder = tempfile::tempdir().expect("there is room for temporary files");
        let files = tiny_weights(folder.path()).expect("there is room for the weights");
        (folder, files)
    });
    files
}

/// Where an LSeg is.
pub(crate) struct LSegFiles {
    /// The weights, for `--lseg`.
    pub weights: PathBuf,
    /// Its configuration, for `--lseg-config`.
    pub config: PathBuf,
}

/// Writes an LSeg that sees a picture in a fraction of a second. Its features are as wide as the embeddings of
/// [`tiny_weights`], so that their student fits it.
pub(crate) fn tiny_lseg(dir: &Path) -> Result<LSegFiles> {
    let published = LSegConfig::published();
    let config = LSegConfig {
        vit: VitConfig {
            embed_dim: 32,
            depth: 4,
            heads: 2,
            mlp_ratio: 2.0,
            pos_grid: [5, 5],
            hooks: [0, 1, 2, 3],
            ..published.vit
        },
        reassemble: ReassembleConfig { channels: [16, 16, 24, 24], ..published.reassemble },
        dpt: DptConfig { features: 16, ..published.dpt },
        text: ClipTextConfig { width: 16, layers: 2, heads: 2, embed_dim: 48, ..published.text },
        out_channels: 48,
        ..published
    };
    write_lseg(dir, &config)
}

/// Writes an LSeg of the published size, 1.6 GB.
pub(crate) fn published_lseg(dir: &Path) -> Result<LSegFiles> {
    write_lseg(dir, &LSegConfig::published())
}

fn write_lseg(dir: &Path, config: &LSegConfig) -> Result<LSegFiles> {
    std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    let files = LSegFiles { weights: dir.join("lseg.safetensors"), config: dir.join("lseg.json") };
    write_tensors(&files.weights, &config.keys(), lseg_values)?;
    let json = serde_json::to_string_pretty(config)?;
    std::fs::write(&files.config, json).with_context(|| format!("writing {}", files.config.display()))?;
    Ok(files)
}

/// Every part of the published encoder, narrow and shallow.
pub(crate) fn tiny_sonata() -> SonataConfig {
    SonataConfig {
        enc_depths: vec![1; 5],
        enc_channels: vec![16, 24, 32, 48, 64],
        enc_num_head: vec![1, 2, 2, 3, 4],
        enc_patch_size: vec![128; 5],
        ..SonataConfig::published()
    }
}

/// Writes an X-Decoder that is narrow within but has the published number of queries and width of embeddings, and a student
/// of the published size: to measure all but X-Decoder. Sonata has its published widths, and one block a stage.
pub(crate) fn narrow_weights(dir: &Path) -> Result<WeightFiles> {
    let published = XDecoderConfig::focal_l();
    let xdecoder = tiny_xdecoder(published.dim_proj, published.decoder.num_queries);
    let sonata = SonataConfig { enc_depths: vec![1; 5], ..SonataConfig::published() };
    write_weights(dir, &xdecoder, StudentConfig::PUBLISHED, &sonata)
}

/// Writes networks of the published sizes, 2 GB.
pub(crate) fn published_weights(dir: &Path) -> Result<WeightFiles> {
    write_weights(dir, &XDecoderConfig::focal_l(), StudentConfig::PUBLISHED, &SonataConfig::published())
}

/// Every part of the published model, narrow and shallow, with embeddings of `dim_proj` channels.
fn tiny_xdecoder(dim_proj: usize, num_queries: usize) -> XDecoderConfig {
    let mut config = XDecoderConfig::focal_l();
    config.backbone.embed_dim = 24;
    config.backbone.depths = vec![1, 1, 2, 1];
    config.backbone_dim = config.stage_dim(3);
    config.dim_proj = dim_proj;
    let pixels = &mut config.pixel_decoder;
    (pixels.conv_dim, pixels.mask_dim, pixels.enc_layers, pixels.heads, pixels.ffn_dim) = (64, 32, 2, 4, 128);
    let decoder = &mut config.decoder;
    (decoder.hidden_dim, decoder.num_queries, decoder.layers, decoder.heads, decoder.ffn_dim) =
        (64, num_queries, 5, 4, 128);
    decoder.dim_proj = config.dim_proj;
    let text = &mut config.text;
    (text.width, text.layers, text.heads, text.dim_proj) = (16, 2, 2, config.dim_proj);
    config
}

fn write_weights(
    dir: &Path,
    xdecoder: &XDecoderConfig,
    student: StudentConfig,
    sonata: &SonataConfig,
) -> Result<WeightFiles> {
    std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    let files = WeightFiles {
        xdecoder: dir.join("xdecoder.safetensors"),
        config: dir.join("xdecoder.json"),
        student: dir.join("student.safetensors"),
        sonata: dir.join("sonata.safetensors"),
        sonata_config: dir.join("sonata.json"),
    };
    write_tensors(&files.xdecoder, &xdecoder.keys(), xdecoder_values)?;
    write_tensors(&files.student, &student.keys(), student_values)?;
    write_tensors(&files.sonata, &sonata.keys(), sonata_values)?;
    let configs = [
        (&files.config, serde_json::to_string_pretty(xdecoder)?),
        (&files.sonata_config, serde_json::to_string_pretty(sonata)?),
    ];
    for (path, json) in configs {
        std::fs::write(path, json).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(files)
}

/// Values of a tensor are uniform in `center - spread` to `center + spread`.
struct Values {
    center: f64,
    spread: f64,
    /// Then the mean over the inputs is taken out: of a weight `[out, in, ...]`, for every output and cell.
    balanced: bool,
}

impl Values {
    fn around(center: f64, spread: f64) -> Self {
        Self { center, spread, balanced: false }
    }

    /// `gain` 1 keeps the variance from layer to layer.
    fn layer(num_in: usize, gain: f64) -> Self {
        Self::around(0.0, gain * (3.0 / num_in.max(1) as f64).sqrt())
    }
}

fn xdecoder_values(key: &str, shape: &[usize]) -> Values {
    let is = |end: &str| key.ends_with(end);
    let num_in = shape.iter().skip(1).product();
    let in_decoder = key.contains("predictor.transformer");
    match shape.len() {
        // The logarithm of what cosines are multiplied with. With more, the query with the clearest label would
        // win nearly every pixel.
        0 => Values::around(1.5, 0.0),
        1 if is("gamma_1") || is("gamma_2") => Values::around(0.5, 0.3),
        1 if is("bias") => Values::around(0.0, 0.05),
        1 => Values::around(1.0, 0.1),
        // Queries that start far apart, and layers that move them little: they do not all become the same.
        _ if is("query_feat.weight") => Values::around(0.0, 3.0),
        _ if is("query_embed.weight") => Values::around(0.0, 1.0),
        _ if in_decoder && is("out_proj.weight") => Values::layer(num_in, 0.05),
        _ if in_decoder && is("linear2.weight") => Values::layer(num_in, 0.1),
        // Inputs behind a ReLU are positive: unbalanced, their mean would choose one query for all pixels.
        _ if is("mask_features.weight") => Values { balanced: true, ..Values::layer(num_in, 0.5) },
        // Even attention to the words: no label is by chance far from the others, and then wins everywhere.
        _ if key.contains("resblocks") && is("in_proj_weight") => Values::layer(num_in, 0.3),
        _ if is("level_embed.weight") || is("positional_embedding") || is("token_embedding.weight") => {
            Values::around(0.0, 0.5)
        }
        // Stored as [in, out].
        _ if is("class_embed") || is("lang_proj") => Values::layer(shape[0], 1.0),
        _ => Values::layer(num_in, 1.0),
    }
}

fn student_values(key: &str, shape: &[usize]) -> Values {
    match key.rsplit('.').next() {
        // Stored as [cells, in, out].
        Some("kernel") => Values::layer(shape.iter().rev().skip(1).product(), 1.0),
        Some("weight") => Values::around(1.0, 0.1),
        Some("running_var") => Values::around(1.0, 0.3),
        Some("running_mean") => Values::around(0.0, 0.1),
        _ => Values::around(0.0, 0.05),
    }
}

fn lseg_values(key: &str, shape: &[usize]) -> Values {
    let is = |end: &str| key.ends_with(end);
    match shape.len() {
        1 if is("running_var") => Values::around(1.0, 0.3),
        1 if is("running_mean") => Values::around(0.0, 0.1),
        1 if is("bias") => Values::around(0.0, 0.05),
        1 => Values::around(1.0, 0.1),
        _ if ["cls_token", "pos_embed", "positional_embedding", "token_embedding.weight"].into_iter().any(is) => {
            Values::around(0.0, 0.5)
        }
        _ if key.contains("resblocks") && is("in_proj_weight") => Values::layer(shape[1], 0.3),
        _ if is("text_projection") => Values::layer(shape[0], 1.0),
        // Behind a ReLU: unbalanced, one word would win everywhere.
        _ if is("head1.weight") => Values { balanced: true, ..Values::layer(shape[1], 1.0) },
        _ => Values::layer(shape[1..].iter().product(), 1.0),
    }
}

fn sonata_values(key: &str, shape: &[usize]) -> Values {
    match shape.len() {
        1 if key.ends_with("bias") => Values::around(0.0, 0.05),
        1 => Values::around(1.0, 0.1),
        _ => Values::layer(shape[1..].iter().product(), 1.0),
    }
}

fn write_tensors(path: &Path, keys: &[(String, Vec<usize>)], values: fn(&str, &[usize]) -> Values) -> Result<()> {
    let specs: Vec<_> = keys.iter().map(|(key, shape)| TensorSpec::new(key, Dtype::F32, shape.clone())).collect();
    let about = BTreeMap::from([("about".to_owned(), "generated values, not trained".to_owned())]);
    let mut writer = SafetensorsWriter::create(path, &specs, &about)?;
    for (key, shape) in keys {
        let Values { center, spread, balanced } = values(key, shape);
        let stream = stream(key);
        let len = shape.iter().product::<usize>() as u64;
        let value = |i| (center + spread * (2.0 * uniform(stream, i) - 1.0)) as f32;
        let mut data: Vec<f32> = (0..len).into_par_iter().map(value).collect();
        if balanced {
            balance(&mut data, shape);
        }
        writer.write_f32(&data)?;
    }
    writer.finish()?;
    Ok(())
}

/// Takes the mean over the inputs out of a weight `[out, in, ...]`.
fn balance(weight: &mut [f32], shape: &[usize]) {
    let (num_in, num_cells) = (shape[1], shape[2..].iter().product::<usize>());
    for filter in weight.chunks_exact_mut(num_in * num_cells) {
        for cell in 0..num_cells {
            let mean = filter.iter().skip(cell).step_by(num_cells).sum::<f32>() / num_in as f32;
            filter.iter_mut().skip(cell).step_by(num_cells).for_each(|value| *value -= mean);
        }
    }
}

/// FNV-1a of a key.
fn stream(key: &str) -> u64 {
    key.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Number `index` of SplitMix64's sequence from `stream`, in 0..1.
fn uniform(stream: u64, index: u64) -> f64 {
    let mut z = stream.wrapping_add((index + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^= z >> 31;
    (z >> 40) as f64 / (1_u64 << 24) as f64
}
