//! Checkpoints of the golden cases through the importer into the store, and the keys of their manifests.

use std::path::{Path, PathBuf};

use geopurify::models::import::{ImportOptions, import};
use geopurify::models::sonata::SonataConfig;
use geopurify::models::student::StudentConfig;
use geopurify::weights::registry::Registry;
use geopurify::weights::store::Store;
use geopurify::weights::{Dtype, TensorSource as _, file_sha256, read_state_dict};
use libtest_mimic::Trial;
use serde_json::Value;

/// Model, file, type of its numbers, and how many of its entries are not applied.
const CHECKPOINTS: [(&str, &str, Dtype, usize); 8] = [
    ("student", "geopurify/student_tiny.pth", Dtype::F32, 9),
    ("student", "geopurify/student_tiny_module.pth", Dtype::F32, 9),
    ("sonata", "sonata/sonata_tiny.pth", Dtype::F32, 1),
    ("sonata", "sonata/sonata_tiny_legacy.pth", Dtype::F32, 1),
    ("sonata", "sonata/sonata_tiny_f16.pth", Dtype::F16, 1),
    ("xdecoder", "xdecoder/xdecoder_tiny.pt", Dtype::F32, 5),
    ("openscene", "openscene/unet_tiny.pth.tar", Dtype::F32, 36),
    ("openscene", "openscene/unet_tiny_single.pth.tar", Dtype::F32, 36),
];

const MANIFESTS: [&str; 2] = ["sonata/sonata.weights.json", "sonata/sonata_tiny.weights.json"];

pub(crate) fn trials(roots: &[PathBuf], all_wanted: bool) -> Vec<Trial> {
    let trial = |name: String, file: &str, run: Box<dyn FnOnce(&Path) + Send>| {
        let Some(root) = roots.iter().find(|root| root.join(file).is_file()).cloned() else {
            return crate::missing(&name, all_wanted);
        };
        Trial::test(name, move || {
            run(&root);
            Ok(())
        })
    };
    let imports = CHECKPOINTS.map(|(model, file, dtype, num_skipped)| {
        let run = move |root: &Path| arrives_bit_for_bit(root, model, file, dtype, num_skipped);
        trial(format!("{file} arrives bit for bit"), file, Box::new(run))
    });
    let keys = MANIFESTS.map(|file| {
        let run = move |root: &Path| keys_are_those_of_the_reference(root, file);
        trial(format!("{file} has the keys of the reference"), file, Box::new(run))
    });
    imports.into_iter().chain(keys).collect()
}

fn arrives_bit_for_bit(root: &Path, model: &str, file: &str, dtype: Dtype, num_skipped: usize) {
    let home = tempfile::tempdir().unwrap();
    let store = Store::at(home.path().join("home"));
    let config = (model == "xdecoder").then(|| {
        let case = std::fs::read(root.join("xdecoder/checkpoint_tiny/case.json")).unwrap();
        let case: Value = serde_json::from_slice(&case).unwrap();
        let path = home.path().join("xdecoder.json");
        std::fs::write(&path, case["config"]["model"].to_string()).unwrap();
        path
    });
    let path = root.join(file);
    let options = ImportOptions { config, ..ImportOptions::default() };
    let imported = import(&store, &Registry::load(None).unwrap(), model, &path, &options, &mut |_, _| {}).unwrap();
    let state = read_state_dict(&path).unwrap();
    let total = state.len();
    assert_eq!(imported.report.applied.len() + num_skipped, total, "{file}");
    assert_eq!(imported.skipped.iter().map(|group| group.keys.len()).sum::<usize>(), num_skipped, "{file}");
    assert!(imported.skipped.iter().all(|group| !group.reason.is_empty()));
    let num_cast = if dtype == Dtype::F32 { 0 } else { imported.report.applied.len() };
    assert_eq!(imported.report.cast.len(), num_cast, "{file}");

    let mut stored = store.open(model, model).unwrap();
    assert_eq!(stored.tensors.contents().tensors.len(), imported.report.applied.len());
    for key in &imported.report.applied {
        let expected = &state.tensors[key];
        let found = stored.tensors.take(key, &expected.shape).unwrap();
        assert_eq!(found.dtype_in_file, Dtype::F32);
        let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&found.data), bits(&expected.data), "{file}: {key}");
    }
    let manifest = stored.installed.manifest;
    assert_eq!(manifest.source_sha256, file_sha256(&path).unwrap());
    assert_eq!(manifest.source_bytes, std::fs::metadata(&path).unwrap().len());
    assert_eq!(manifest.source_file, path.file_name().unwrap().to_str().unwrap());
    assert_eq!(manifest.licence.non_commercial, model == "sonata");
    assert_eq!(manifest.imported.len(), 10);
    store.verify(model).unwrap();
    if model == "student" {
        let config: StudentConfig = serde_json::from_value(store.describe(model).unwrap().manifest.config).unwrap();
        assert_eq!(config, StudentConfig { input_dim: 22, hidden_dim: 32, embed_dim: 16 });
    }
}

fn keys_are_those_of_the_reference(root: &Path, file: &str) {
    let manifest: Value = serde_json::from_slice(&std::fs::read(root.join(file)).unwrap()).unwrap();
    let config: SonataConfig = serde_json::from_value(manifest["config"].clone()).unwrap();
    config.validate().unwrap();
    let mut expected: Vec<(String, Vec<usize>)> = manifest["tensors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|t| (t["name"].as_str().unwrap().to_owned(), serde_json::from_value(t["shape"].clone()).unwrap()))
        .collect();
    let mask_token = expected.remove(0);
    assert_eq!(mask_token.0, SonataConfig::UNUSED[0].0);
    assert_eq!(config.keys(), expected, "{file}");
    if file == "sonata/sonata.weights.json" {
        assert_eq!(config, SonataConfig::published());
    }
}
