//! Files of one system given to another, and Concerto's encoders in the layouts they come in.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use geopurify::models::import::{ImportError, ImportOptions, Imported, import};
use geopurify::models::minkunet::MinkUnetConfig;
use geopurify::models::sonata::{Cloud, ConcertoSize, Sonata, SonataConfig};
use geopurify::models::student::StudentConfig;
use geopurify::ops::float_values;
use geopurify::session::{NetworkChoice, Networks, SessionError};
use geopurify::weights::registry::Registry;
use geopurify::weights::store::Store;
use geopurify::weights::{Dtype, SafetensorsWriter, TensorSpec};

use crate::op;
use crate::weights::tiny_sonata;
use crate::xdecoder::{generated, write_checkpoint};

type Keys = Vec<(String, Vec<usize>)>;

fn keys(keys: &[(&str, &[usize])]) -> Keys {
    keys.iter().map(|(key, shape)| ((*key).to_owned(), shape.to_vec())).collect()
}

fn write(path: &Path, keys: &Keys) {
    let specs: Vec<_> = keys.iter().map(|(key, shape)| TensorSpec::new(key, Dtype::F32, shape.clone())).collect();
    let mut writer = SafetensorsWriter::create(path, &specs, &Default::default()).unwrap();
    for (_, shape) in keys {
        writer.write_f32(&vec![0.5; shape.iter().product()]).unwrap();
    }
    writer.finish().unwrap();
}

fn import_into(home: &Path, model: &str, file: &Path, name: &str) -> Result<Imported, ImportError> {
    let options = ImportOptions { name: Some(name.to_owned()), ..ImportOptions::default() };
    import(&Store::at(home), &Registry::load(None).unwrap(), model, file, &options, &mut |_, _| {})
}

/// The keys of the encoder's stages by which a size of Concerto is known.
fn telling(size: ConcertoSize) -> Keys {
    let mut telling = keys(&[("embedding.stem.linear.weight", &[16, 9]), ("enc.enc0.block0.cpe.0.weight", &[1, 3])]);
    for (stage, channels) in size.channels().into_iter().enumerate() {
        telling.push((format!("enc.enc{stage}.block0.attn.proj.weight"), vec![1, channels]));
    }
    telling
}

/// A small file of every system: what it is called, the model that takes it, and its tensors.
fn systems() -> Vec<(&'static str, Option<&'static str>, Keys)> {
    let small = MinkUnetConfig {
        init_dim: 2,
        planes: [2; 8],
        layers: [1; 8],
        heads: vec![("final".to_owned(), 4)],
        ..MinkUnetConfig::openscene()
    };
    let of_cua =
        [("final", 4), ("final_dinov2", 3), ("final_sd", 2)].map(|(name, channels)| (name.to_owned(), channels));
    let cua = MinkUnetConfig { heads: of_cua.to_vec(), ..small.clone() };
    let student = StudentConfig { input_dim: 10, hidden_dim: 8, embed_dim: 4 };
    let trained: Keys = telling(ConcertoSize::Base)
        .into_iter()
        .flat_map(|(key, shape)| ["student", "teacher"].map(|whose| (format!("{whose}.backbone.{key}"), shape.clone())))
        .collect();
    let focal = "backbone.layers.0.blocks.0.modulation.f.weight";
    let clip = "transformer.resblocks.0.attn.in_proj_weight";
    vec![
        ("a student's file", Some("student"), student.keys()),
        ("Sonata's file", Some("sonata"), tiny_sonata().keys()),
        ("Sonata's file", Some("sonata"), telling(ConcertoSize::Base)),
        ("Sonata's file", Some("sonata"), trained),
        ("Concerto's file (tiny)", Some("sonata"), telling(ConcertoSize::Tiny)),
        ("Concerto's file (small)", Some("sonata"), telling(ConcertoSize::Small)),
        ("Concerto's file (large)", Some("sonata"), telling(ConcertoSize::Large)),
        ("Concerto's linear head for ScanNet", None, keys(&[("seg_head.weight", &[20, 8]), ("seg_head.bias", &[20])])),
        ("OpenScene's file", Some("openscene"), small.keys()),
        ("CUA-O3D's file", Some("openscene"), cua.keys()),
        ("OpenScene's file of fused features", None, keys(&[("feat", &[3, 8]), ("mask_full", &[9])])),
        (
            "X-Decoder's file",
            Some("xdecoder"),
            keys(&[("sem_seg_head.predictor.query_feat.weight", &[3, 4]), (focal, &[9, 4])]),
        ),
        ("X-Decoder's pre-training file", None, keys(&[(focal, &[9, 4]), ("lang_encoder.lang_proj", &[4, 4])])),
        (
            "LSeg's file",
            Some("lseg"),
            keys(&[
                ("net.pretrained.model.cls_token", &[1, 1, 8]),
                ("net.scratch.head1.weight", &[4, 2]),
                ("net.clip_pretrained.text_projection", &[4, 4]),
            ]),
        ),
        (
            "CLIP's file",
            Some("clip"),
            keys(&[("token_embedding.weight", &[9, 4]), ("text_projection", &[4, 4]), (clip, &[12, 4])]),
        ),
        (
            "CLIP's file",
            Some("clip"),
            keys(&[
                ("text_model.embeddings.token_embedding.weight", &[9, 4]),
                ("text_model.encoder.layers.0.self_attn.q_proj.weight", &[4, 4]),
                ("text_model.encoder.layers.0.self_attn.k_proj.weight", &[4, 4]),
                ("text_model.encoder.layers.0.self_attn.v_proj.weight", &[4, 4]),
                ("text_projection.weight", &[4, 4]),
            ]),
        ),
    ]
}

/// Opens a file that was given directly as the weights of `model`.
fn given(model: &str, file: &Path) -> Option<Result<(), SessionError>> {
    let choice = || NetworkChoice { weights: Some(file.to_path_buf()), config: None };
    let networks = Networks::default();
    Some(match model {
        "student" => Networks { student: choice(), ..networks }.open_student().map(|_| ()),
        "sonata" => Networks { sonata: choice(), ..networks }.open_sonata().map(|_| ()),
        "xdecoder" => Networks { xdecoder: choice(), ..networks }.open_xdecoder().map(|_| ()),
        "openscene" => Networks { openscene: choice(), ..networks }.open_openscene().map(|_| ()),
        "clip" => Networks { clip: choice(), ..networks }.open_clip(512).map(|_| ()),
        _ => return None,
    })
}

#[test]
fn a_file_of_one_system_given_to_another_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.safetensors");
    for (what, own, keys) in systems() {
        write(&file, &keys);
        for model in ["student", "sonata", "xdecoder", "openscene", "lseg", "clip"] {
            let found = import_into(folder.path(), model, &file, "x");
            if own == Some(model) {
                assert!(!matches!(found, Err(ImportError::OtherFile(_))), "{what}: {found:?}");
                assert!(!matches!(given(model, &file), Some(Err(SessionError::OtherFile(_)))), "{what}");
                continue;
            }
            let errors =
                [Some(found.unwrap_err().to_string()), given(model, &file).map(|it| it.unwrap_err().to_string())];
            for error in errors.into_iter().flatten() {
                assert!(error.starts_with(&format!("{}: this is {what}", file.display())), "{model}: {error}");
                assert!(!error.contains('\n') && error.contains(", not "), "{model}: {error}");
                let way_out = own.map(|own| format!("geopurify weights import {own} {}", file.display()));
                assert!(error.contains(way_out.as_deref().unwrap_or("geopurify weights")), "{model}: {error}");
            }
        }
    }
}

/// The configuration that a published file of Concerto has beside its weights.
fn published_config(config: &SonataConfig) -> Vec<u8> {
    let ints = |list: &[usize]| op::tuple(&list.iter().map(|&value| op::int(value as i64)).collect::<Vec<_>>());
    let yes = || b"\x88".to_vec();
    op::dict(&[
        ("in_channels", op::int(9)),
        ("order", op::tuple(&config.order.iter().map(|name| op::text(name)).collect::<Vec<_>>())),
        ("stride", ints(&config.stride)),
        ("enc_depths", ints(&config.enc_depths)),
        ("enc_channels", ints(&config.enc_channels)),
        ("enc_num_head", ints(&config.enc_num_head)),
        ("enc_patch_size", ints(&config.enc_patch_size)),
        ("mlp_ratio", op::int(4)),
        ("qkv_bias", yes()),
        ("mask_token", yes()),
        ("enc_mode", yes()),
    ])
}

/// Values that do not depend on whose encoder a key is of, but for the student's.
fn values(key: &str, shape: &[usize]) -> Vec<f32> {
    let own = key.strip_prefix("module.teacher.backbone.").unwrap_or(key);
    generated(own, shape)
}

/// Features of a small scan without colours and normals.
fn encoded(model: &Sonata) -> Vec<f32> {
    let points: Vec<[f32; 3]> = (0..600).map(|i| [0.03 * (i % 30) as f32, 0.03 * (i / 30) as f32, 0.0]).collect();
    let zeros = vec![[0.0; 3]; points.len()];
    let cells = model.encode(Cloud { points: &points, colors: &zeros, normals: &zeros }).unwrap();
    float_values(cells.features).unwrap()
}

fn stored(home: &Path, name: &str) -> (SonataConfig, Vec<f32>) {
    let stored = Store::at(home).open(name, "sonata").unwrap();
    let config: SonataConfig = serde_json::from_value(stored.installed.manifest.config.clone()).unwrap();
    let (model, _) = Sonata::load(stored.tensors, &config, &Device::flex()).unwrap();
    (config, encoded(&model))
}

#[test]
fn concerto_encodes_alike_as_published_and_from_its_training() {
    let folder = tempfile::tempdir().unwrap();
    let (home, published) = (folder.path().join("home"), folder.path().join("concerto_tiny.pth"));
    let trained: PathBuf = folder.path().join("model_last.pth");
    let config = SonataConfig::concerto(ConcertoSize::Tiny);
    let mask = ("embedding.mask_token".to_owned(), vec![1, 16]);
    let own: Keys = config.keys().into_iter().chain([mask]).collect();
    write_checkpoint(
        &published,
        &own,
        |state| op::dict(&[("config", published_config(&config)), ("state_dict", state)]),
        values,
    );
    // The student differs from its teacher, and both have heads.
    let of = |whose: &'static str| {
        own.iter().map(move |(key, shape)| (format!("module.{whose}.backbone.{key}"), shape.clone()))
    };
    let heads =
        keys(&[("module.student.mask_head.mlp.0.weight", &[4, 4]), ("module.teacher.mask_head.mlp.0.weight", &[4, 4])]);
    let all: Keys = of("student").chain(of("teacher")).chain(heads).collect();
    let root = |state| op::dict(&[("epoch", op::int(7)), ("state_dict", state)]);
    write_checkpoint(&trained, &all, root, values);

    let imported = import_into(&home, "sonata", &published, "concerto-tiny").unwrap();
    let manifest = &imported.installed.manifest;
    assert!(manifest.licence.non_commercial);
    assert!(manifest.origin.contains("Pointcept/Concerto"), "{}", manifest.origin);
    let (of_published, expected) = stored(&home, "concerto-tiny");
    // The file does not tell it, its name does.
    assert_eq!(of_published, SonataConfig { takes_zeros: true, ..config.clone() });
    assert_eq!(expected.len() % 448, 0);
    assert!(expected.iter().all(|value| value.is_finite()) && expected[..448] != expected[448..896]);

    let imported = import_into(&home, "sonata", &trained, "trained").unwrap();
    assert!(
        imported.notes.iter().any(|note| note.contains("the encoder of its teacher is used")),
        "{:?}",
        imported.notes
    );
    let others = imported.skipped.iter().find(|group| group.reason.contains("not the teacher's encoder")).unwrap();
    assert_eq!(others.keys.len(), own.len() + 2);
    let (of_shapes, found) = stored(&home, "trained");
    assert_eq!(of_shapes, config);
    assert!(found == expected);

    // And given directly.
    for file in [published, trained] {
        let choice = NetworkChoice { weights: Some(file), config: None };
        let mut opened = Networks { sonata: choice, ..Networks::default() }.open_sonata().unwrap();
        assert_eq!(opened.config, config);
        assert!(encoded(&opened.load(&Device::flex()).unwrap()) == expected);
    }
}
