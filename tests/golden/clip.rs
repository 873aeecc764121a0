//! The text side of CLIP.

use std::path::Path;

use burn::tensor::Device;
use geopurify::models::clip::tokenizer::Tokenizer;
use geopurify::models::clip::{ClipText, ClipTextConfig};
use geopurify::models::import::{ImportOptions, import};
use geopurify::ops::conv2d::Precision;
use geopurify::ops::{float_values, normalize_rows};
use geopurify::weights::registry::Registry;
use geopurify::weights::store::Store;
use geopurify::weights::{HostTensor, Inventory, StateDict, TensorSource, WeightsError};

use crate::Line;
use crate::case::Case;
use crate::common::rel_l2;
use crate::ops::{compare, equal};

/// The text side's tensors in a checkpoint that holds them below a prefix.
struct Below<'a> {
    prefix: &'a str,
    source: &'a mut dyn TensorSource,
}

impl TensorSource for Below<'_> {
    fn inventory(&self) -> std::borrow::Cow<'_, Inventory> {
        let all = self.source.inventory().into_owned();
        let below = |(key, info): (String, _)| Some((key.strip_prefix(self.prefix)?.to_owned(), info));
        let tensors = all.tensors.into_iter().filter_map(below).collect();
        std::borrow::Cow::Owned(Inventory { source: all.source, tensors, ..Inventory::default() })
    }

    fn take(&mut self, key: &str, shape: &[usize]) -> Result<HostTensor, WeightsError> {
        self.source.take(&format!("{}{key}", self.prefix), shape)
    }
}

pub(crate) fn config(case: &Case) -> ClipTextConfig {
    serde_json::from_value(case.config["text"].clone()).unwrap()
}

/// The prompts of a case, whose tokens are compared with the reference's: filled up with zeros.
pub(crate) fn prompts(case: &Case, texts: &[String], lines: &mut Vec<Line>) {
    let (shape, expected) = case.i32("in.tokens");
    let context = shape[1];
    let mut tokens = vec![0; texts.len() * context];
    for (text, row) in texts.iter().zip(tokens.chunks_exact_mut(context)) {
        for (to, token) in row.iter_mut().zip(Tokenizer::new().encode(text)) {
            *to = token as i32;
        }
    }
    lines.push(equal("in.tokens", &tokens, &expected));
}

pub(crate) fn clip_text(case: &Case, device: &Device) -> Vec<Line> {
    let prefix = match case.config.get("text_prefix") {
        Some(prefix) => prefix.as_str().unwrap().to_owned(),
        None => "net.clip_pretrained.".to_owned(),
    };
    let mut generated = case.generated();
    let mut source = Below { prefix: &prefix, source: &mut generated };
    let (model, report) = ClipText::load(&mut source, config(case), Precision::F32, device).unwrap();
    assert!(report.is_complete(), "{report}");
    let texts: Vec<String> = serde_json::from_value(case.config["prompts"].clone()).unwrap();
    let mut lines = Vec::new();
    prompts(case, &texts, &mut lines);

    // Rows behind the end of a text are not computed: nothing before them depends on them.
    for name in ["block_0", "ln_final"] {
        let tensor = format!("mid.{name}");
        let (shape, expected) = case.f32(&tensor);
        let (mut found, mut wanted) = (Vec::new(), Vec::new());
        for (text, expected) in texts[..shape[0]].iter().zip(expected.chunks_exact(shape[1] * shape[2])) {
            let observed = if name == "block_0" { "block0" } else { "hidden" };
            let before = found.len();
            model
                .embed(std::slice::from_ref(text), &mut |name, x| {
                    if name == observed {
                        found.extend(float_values(x.clone()).unwrap());
                    }
                })
                .unwrap();
            wanted.extend_from_slice(&expected[..found.len() - before]);
        }
        assert!(!found.is_empty(), "{tensor} was not observed");
        let allowed = case.tolerance[&tensor].rel_l2.unwrap();
        lines.push(Line { tensor, found: rel_l2(&found, &wanted), allowed });
    }
    let out = model.embed(&texts, &mut |_, _| ()).unwrap();
    lines.push(compare(case, "out.text", &float_values(out.clone()).unwrap()));
    let unit = model.embed_unit(&texts).unwrap();
    assert_eq!(float_values(unit.clone()).unwrap(), float_values(normalize_rows(out)).unwrap());
    lines.push(compare(case, "out.text_normalized", &float_values(unit).unwrap()));
    lines
}

/// The two forms in which CLIP is distributed, through the importer and the store.
pub(crate) fn clip_checkpoint(case: &Case, device: &Device) -> Vec<Line> {
    let home = tempfile::tempdir().unwrap();
    let store = Store::at(home.path().join("home"));
    let config = config(case);
    let config_file = home.path().join("clip.json");
    std::fs::write(&config_file, serde_json::to_string(&config).unwrap()).unwrap();
    let mut lines = Vec::new();
    let half: Vec<String> = serde_json::from_value(case.config["f16"].clone()).unwrap();
    let generated = case.state_dict();
    for form in ["torchscript", "huggingface"] {
        let file = case.dir.join(case.config["files"][form].as_str().unwrap());
        let mut stored = imported(&store, &file, &config_file);
        bits_are_those_of(&mut stored, &generated, &half);
        let (model, report) = ClipText::load(&mut stored, config.clone(), Precision::F32, device).unwrap();
        assert!(report.is_complete() && report.ignored.is_empty(), "{report}");
        // The case states tokens and no words: these are the words that have them.
        let texts = ["a lamp in a scene", "other"].map(str::to_owned);
        prompts(case, &texts, &mut lines);
        let out = model.embed(&texts, &mut |_, _| ()).unwrap();
        let unit = model.embed_unit(&texts).unwrap();
        for (name, values) in [("out.text", out), ("out.text_normalized", unit)] {
            let line = compare(case, name, &float_values(values).unwrap());
            lines.push(Line { tensor: format!("{name} of {form}").replace(' ', "_"), ..line });
        }
    }
    lines
}

fn imported(store: &Store, file: &Path, config: &Path) -> geopurify::weights::WeightsFile {
    let options = ImportOptions { config: Some(config.to_owned()), ..ImportOptions::default() };
    let imported = import(store, &Registry::load(None).unwrap(), "clip", file, &options, &mut |_, _| {}).unwrap();
    assert!(imported.report.is_complete(), "{}", imported.report);
    assert!(imported.skipped.iter().all(|group| !group.reason.is_empty()));
    store.open("clip", "clip").unwrap().tensors
}

/// Every stored tensor is the generated one, rounded to 16 bits where the file's form does that.
fn bits_are_those_of(stored: &mut dyn TensorSource, generated: &StateDict, half: &[String]) {
    for (key, expected) in &generated.tensors {
        let found = stored.take(key, &expected.shape).unwrap();
        let exact = expected.data.iter().zip(&found.data).all(|(a, b)| a.to_bits() == b.to_bits());
        let rounded = expected.data.iter().zip(&found.data).all(|(a, b)| ::half::f16::from_f32(*a).to_f32() == *b);
        assert!(if half.contains(key) { rounded } else { exact }, "{key}");
    }
}
