//! X-Decoder beyond the golden cases: the published size through import and store, images in a batch,
//! 16-bit weights, and the command line.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Instant;

use burn::tensor::Device;
use geopurify::images::{Orientation, Rgb8Image, read_image, write_png};
use geopurify::lift::{Padding, View};
use geopurify::models::xdecoder::{Queries, XDecoder, XDecoderConfig};
use geopurify::ops::conv2d::Precision;
use geopurify::ops::float_values;
use geopurify::weights::store::Store;
use geopurify::weights::{Dtype, SafetensorsFile, SafetensorsWriter, TensorSource as _, TensorSpec};
use rayon::prelude::*;

use crate::case::Case;
use crate::common::{devices, rel_l2};
use crate::op;

// ---- the tiny model of the golden cases ----

fn tiny() -> Case {
    // Of the small cases in the repository, whatever GEOPURIFY_GOLDEN says.
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    Case::open(&root, &root.join("xdecoder/forward_tiny"))
}

fn config(case: &Case) -> XDecoderConfig {
    serde_json::from_value(case.config["model"].clone()).unwrap()
}

fn load(case: &Case, precision: Precision, device: &Device) -> XDecoder {
    XDecoder::load(&mut case.generated(), config(case), precision, device).unwrap().0
}

/// The case's image, channels last, and its height and width.
fn image(case: &Case) -> (Vec<f32>, [usize; 2]) {
    let (shape, planes) = case.f32("in.image");
    let pixels = shape[1] * shape[2];
    ((0..3 * pixels).map(|i| planes[i % 3 * pixels + i / 3]).collect(), [shape[1], shape[2]])
}

fn see(model: &XDecoder, images: &[f32], size: [usize; 2]) -> Queries {
    let text = model.embed_text(&["chair".to_owned(), "table".to_owned()]).unwrap();
    model.forward(model.prepare(images, size).unwrap(), &text).unwrap()
}

#[test]
fn images_of_a_batch_do_not_mix() {
    let case = tiny();
    let (first, size) = image(&case);
    let second: Vec<f32> = first.iter().rev().copied().collect();
    for (name, device) in devices() {
        let model = load(&case, Precision::F32, &device);
        let both = see(&model, &[first.clone(), second.clone()].concat(), size);
        for (i, image) in [&first, &second].into_iter().enumerate() {
            let alone = see(&model, image, size);
            let part = both.mask_embed.clone().slice_dim(0, i..i + 1);
            // The same sums in the same order, whatever the batch.
            let (found, expected) = (float_values(part).unwrap(), float_values(alone.mask_embed).unwrap());
            assert!(rel_l2(&found, &expected) < 1e-6, "{name}, image {i}: {:e}", rel_l2(&found, &expected));
            let part = both.pred_masks.clone().slice_dim(0, i..i + 1);
            let (found, expected) = (float_values(part).unwrap(), float_values(alone.pred_masks).unwrap());
            assert!(rel_l2(&found, &expected) < 1e-6, "{name}, masks of image {i}: {:e}", rel_l2(&found, &expected));
        }
    }
}

#[test]
fn weights_of_16_bits_cost_a_little_accuracy() {
    let case = tiny();
    let (image, size) = image(&case);
    for (name, device) in devices() {
        let [full, half] = [Precision::F32, Precision::F16].map(|precision| {
            let out = see(&load(&case, precision, &device), &image, size);
            [out.pred_logits.flatten::<1>(0, 2), out.mask_embed.flatten(0, 2), out.pred_masks.flatten(0, 3)]
                .map(|tensor| float_values(tensor).unwrap())
        });
        // Rounding a weight to 11 bits moves it by 1.4e-4 of itself on average, and some forty layers of
        // them add up; the bound is twice what is found on the host.
        for (what, full, half) in [("logits", &full[0], &half[0]), ("embeddings", &full[1], &half[1])] {
            let difference = rel_l2(half, full);
            assert!((1e-6..1.5e-3).contains(&difference), "{name}, {what}: {difference:e}");
        }
        let difference = rel_l2(&half[2], &full[2]);
        assert!((1e-6..3e-3).contains(&difference), "{name}, masks: {difference:e}");
    }
}

#[test]
fn images_that_cannot_be_are_refused() {
    let case = tiny();
    let model = load(&case, Precision::F32, &Device::flex());
    let error = model.prepare(&[0.0; 10], [2, 2]).unwrap_err();
    assert_eq!(error.to_string(), "xdecoder: 10 values, expected images of 2 x 2 RGB pixels");
    assert!(model.prepare(&[], [0, 4]).is_err());
    assert_eq!(model.prepare(&[0.0; 12], [2, 2]).unwrap().dims(), [1, 32, 32, 3]);
}

// ---- the command line ----

fn run(home: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_geopurify"))
        .args(arguments)
        .env("GEOPURIFY_HOME", home)
        .env("GEOPURIFY_DEVICE", "cpu")
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A store with the tiny model, and a picture.
fn prepared() -> (tempfile::TempDir, PathBuf) {
    let case = tiny();
    let dir = tempfile::tempdir().unwrap();
    let mut weights = case.generated();
    let keys = config(&case).keys();
    let specs: Vec<_> = keys.iter().map(|(key, shape)| TensorSpec::new(key, Dtype::F32, shape.clone())).collect();
    let file = dir.path().join("tiny.safetensors");
    let mut writer = SafetensorsWriter::create(&file, &specs, &BTreeMap::new()).unwrap();
    for (key, shape) in &keys {
        writer.write_f32(&weights.take(key, shape).unwrap().data).unwrap();
    }
    writer.finish().unwrap();
    let json = dir.path().join("tiny.json");
    std::fs::write(&json, case.config["model"].to_string()).unwrap();
    let home = dir.path().join("home");
    let (file, json) = (file.to_str().unwrap(), json.to_str().unwrap());
    let output = run(&home, &["weights", "import", "xdecoder", file, "--config", json]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let (values, [height, width]) = image(&case);
    let pixels = values.as_chunks::<3>().0.iter().map(|pixel| pixel.map(|value| value as u8)).collect();
    let picture = dir.path().join("picture.png");
    write_png(&picture, &Rgb8Image::new(width, height, pixels).unwrap()).unwrap();
    (dir, picture)
}

#[test]
fn a_picture_is_labelled_by_words() {
    let (dir, picture) = prepared();
    let (home, out) = (dir.path().join("home"), dir.path().join("out.png"));
    let features = dir.path().join("out.safetensors");
    let paths = [&picture, &out, &features].map(|path| path.to_str().unwrap().to_owned());
    let arguments = [
        "segment",
        &paths[0],
        "--words",
        "chair, table",
        "--words",
        "lamp",
        "-o",
        &paths[1],
        "--features",
        &paths[2],
        "--size",
        "0",
        "--json",
    ];
    let output = run(&home, &arguments);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let report = &report["images"][0];
    let shares = report["shares"].as_object().unwrap();
    assert_eq!(shares.keys().collect::<Vec<_>>(), ["chair", "lamp", "table"]);
    let total: f64 = shares.values().map(|share| share.as_f64().unwrap()).sum();
    assert!((total + report["unlabelled"].as_f64().unwrap() - 1.0).abs() < 1e-9, "{report}");

    let drawn = read_image(&out, Orientation::AsStored).unwrap();
    assert!(drawn.width() > 128 || drawn.height() > 96, "there is no room for the legend");

    // The file holds what the library computes.
    let case = tiny();
    let model = load(&case, Precision::F32, &Device::flex());
    let words = ["chair", "table", "lamp"].map(str::to_owned);
    let embedded = model.embed_text(&words).unwrap();
    let size = [96, 128];
    // The picture's file has whole numbers.
    let read = read_image(&picture, Orientation::AsStored).unwrap();
    let values: Vec<f32> = read.pixels().as_flattened().iter().map(|&value| value.into()).collect();
    let queries = model.forward(model.prepare(&values, size).unwrap(), &embedded).unwrap();
    let view = View::new(&queries, 0, &embedded, size, Padding::Cropped).unwrap();
    let file = SafetensorsFile::open(&features).unwrap();
    let expected: Vec<i64> = view.query_from_pixel().unwrap().into_iter().map(i64::from).collect();
    assert_eq!(file.tensor("query_from_pixel").unwrap().to_i64().unwrap(), expected);
    assert_eq!(file.tensor("pred_masks").unwrap().shape, [20, 24, 32]);
    assert_eq!(file.tensor("pred_logits").unwrap().shape, [20, 4]);
    assert_eq!(file.tensor("text_embed").unwrap().to_f32().unwrap(), float_values(embedded.rows).unwrap());
    assert_eq!(file.tensor("mask_embed").unwrap().to_f32().unwrap(), float_values(queries.mask_embed).unwrap());
    assert_eq!(file.metadata().unwrap()["words"], "chair, table, lamp");
}

#[test]
fn several_pictures_go_through_together() {
    let (dir, picture) = prepared();
    let home = dir.path().join("home");
    // A second one of the same size, upside down, and one of another size.
    let first = read_image(&picture, Orientation::AsStored).unwrap();
    let turned = Rgb8Image::new(128, 96, first.pixels().iter().rev().copied().collect()).unwrap();
    let small = Rgb8Image::new(64, 48, first.pixels()[..64 * 48].to_vec()).unwrap();
    let mut arguments = ["segment", "--words", "chair, table", "--size", "0"].map(str::to_owned).to_vec();
    for (name, image) in [("a", &first), ("b", &turned), ("c", &small)] {
        let path = dir.path().join(format!("{name}.png"));
        write_png(&path, image).unwrap();
        arguments.push(path.to_str().unwrap().to_owned());
    }
    let mut all = Vec::new();
    for memory in ["1", "1024"] {
        let folder = dir.path().join(memory);
        let folder = folder.to_str().unwrap();
        let more = ["-o", folder, "--features", folder, "--working-memory", memory];
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).chain(more).collect();
        let output = run(&home, &arguments);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let winners = ["a", "b", "c"].map(|name| {
            assert!(Path::new(folder).join(format!("{name}.png")).is_file());
            let file = SafetensorsFile::open(Path::new(folder).join(format!("{name}.safetensors"))).unwrap();
            file.tensor("query_from_pixel").unwrap().to_i64().unwrap()
        });
        all.push(winners);
    }
    assert_eq!(all[0], all[1], "one at a time or together");
    assert_ne!(all[0][0], all[0][1]);

    // A result never replaces a picture.
    let source = dir.path().join("a.png");
    let before = std::fs::read(&source).unwrap();
    for (images, out) in [(&arguments[5..6], source.as_path()), (&arguments[5..8], dir.path())] {
        let images: Vec<&str> = images.iter().map(String::as_str).collect();
        let output = run(&home, &[&["segment", "--words", "a", "-o", out.to_str().unwrap()], &images[..]].concat());
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output.stderr).contains("would replace"), "{}", text(&output.stderr));
    }
    assert_eq!(std::fs::read(&source).unwrap(), before);

    // A broken picture does not keep the others from being seen.
    let broken = dir.path().join("broken.png");
    std::fs::write(&broken, b"\x89PNG\r\n\x1a\n nothing").unwrap();
    let (broken, folder) = (broken.to_str().unwrap(), dir.path().join("rest"));
    let output = run(&home, &["segment", broken, &arguments[5], "--words", "a", "-o", folder.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("broken.png") && folder.join("a.png").is_file());

    let twice = [arguments[5].as_str(), arguments[5].as_str()];
    let output = run(&home, &["segment", twice[0], twice[1], "--words", "a", "-o", dir.path().to_str().unwrap()]);
    assert!(text(&output.stderr).contains("the same name"), "{}", text(&output.stderr));
}

#[test]
fn a_command_without_its_weights_says_how_to_get_them() {
    let (dir, picture) = prepared();
    let picture = picture.to_str().unwrap();
    let out = dir.path().join("out.png");
    let arguments = ["segment", picture, "--words", "chair", "-o", out.to_str().unwrap(), "--xdecoder", "xdecoder"];
    let output = run(&dir.path().join("elsewhere"), &arguments);
    assert_eq!(output.status.code(), Some(1));
    let error = text(&output.stderr);
    assert!(error.contains("geopurify weights fetch xdecoder"), "{error}");
    let output = run(&dir.path().join("home"), &["segment", picture, "--words", " ,", "-o", "x.png"]);
    assert!(text(&output.stderr).contains("names nothing to look for"));
    let output = run(&dir.path().join("home"), &["segment", picture, "--words", "a", "-o", "x.png", "--opacity", "7"]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
    let output = run(&dir.path().join("home"), &["segment", "nothing.jpg", "--words", "a", "-o", "x.png"]);
    let error = text(&output.stderr);
    assert_eq!(error.matches("No such file").count(), 1, "{error}");
    assert!(!out.exists());
}

// ---- the published size ----

fn crc32(bytes: &[u8]) -> u32 {
    let table: [u32; 256] = std::array::from_fn(|i| {
        (0..8).fold(i as u32, |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 })
    });
    !bytes.iter().fold(!0u32, |crc, &byte| crc >> 8 ^ table[(crc as u8 ^ byte) as usize])
}

/// Writes a state dict as `torch.save` does: a ZIP archive of stored entries, a pickle and a file per storage,
/// whose data begin at multiples of 64 bytes. `root` makes the top of the checkpoint of the state dict.
pub(crate) fn write_checkpoint(
    path: &Path,
    tensors: &[(String, Vec<usize>)],
    root: impl FnOnce(Vec<u8>) -> Vec<u8>,
    values: fn(&str, &[usize]) -> Vec<f32>,
) {
    let mut state = Vec::new();
    for (i, (key, shape)) in tensors.iter().enumerate() {
        let count: usize = shape.iter().product();
        let shape: Vec<i64> = shape.iter().map(|&extent| extent as i64).collect();
        let strides: Vec<i64> = (0..shape.len()).map(|axis| shape[axis + 1..].iter().product()).collect();
        let storage = op::storage("FloatStorage", &i.to_string(), count as i64);
        state.push((key.as_str(), op::tensor(storage, 0, &shape, &strides)));
    }
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path).unwrap());
    let (mut at, mut directory, mut count) = (0usize, Vec::new(), 0u16);
    let mut entry = |name: String, data: &[u8]| {
        let mut fields = Vec::new();
        for field in [0u16, 0, 0, 0, 0] {
            fields.extend(field.to_le_bytes());
        }
        for field in [crc32(data), data.len() as u32, data.len() as u32] {
            fields.extend(field.to_le_bytes());
        }
        fields.extend((name.len() as u16).to_le_bytes());
        let padding = (64 - (at + 30 + name.len() + 4) % 64) % 64;
        let extra = [&b"FB"[..], &(padding as u16).to_le_bytes(), &vec![b'Z'; padding]].concat();
        let local = [b"PK\x03\x04", &fields[..], &(extra.len() as u16).to_le_bytes(), name.as_bytes(), &extra].concat();
        directory
            .extend([b"PK\x01\x02\0\0", &fields[..], &[0; 12], &(at as u32).to_le_bytes(), name.as_bytes()].concat());
        file.write_all(&local).unwrap();
        file.write_all(data).unwrap();
        at += local.len() + data.len();
        count += 1;
    };
    entry("xdecoder/data.pkl".to_owned(), &op::pickle(root(op::dict(&state))));
    for (i, (key, shape)) in tensors.iter().enumerate() {
        entry(format!("xdecoder/data/{i}"), bytemuck::cast_slice(&values(key, shape)));
    }
    entry("xdecoder/version".to_owned(), b"3\n");
    let end = at as u32;
    file.write_all(&directory).unwrap();
    let counts = [count.to_le_bytes(), count.to_le_bytes()].concat();
    let sizes = [(directory.len() as u32).to_le_bytes(), end.to_le_bytes()].concat();
    file.write_all(&[b"PK\x05\x06\0\0\0\0", &counts[..], &sizes, &[0, 0]].concat()).unwrap();
    file.flush().unwrap();
}

/// Values that tell every key and place.
pub(crate) fn generated(key: &str, shape: &[usize]) -> Vec<f32> {
    let seed = key.bytes().fold(7u32, |seed, byte| seed.wrapping_mul(31).wrapping_add(byte.into()));
    let len: usize = shape.iter().product();
    let value = |i: usize| ((i as u32).wrapping_mul(2_654_435_761).wrapping_add(seed) >> 8) as f32 / 1e8 - 0.08;
    (0..len).into_par_iter().map(value).collect()
}

/// Largest resident set of any child waited for, in bytes.
fn peak_of_children() -> u64 {
    // SAFETY: getrusage fills the structure it is given.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage);
        usage
    };
    usage.ru_maxrss as u64 * 1024
}

#[cfg(target_os = "linux")]
#[test]
fn the_published_size_is_imported_and_loaded_fast_and_lean() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("xdecoder_focall_last.pt");
    let config = XDecoderConfig::focal_l();
    let mut tensors = config.keys();
    let unused: [(&str, &[usize]); 4] = [
        ("backbone_proj", &[1536, 512]),
        ("sem_seg_head.predictor.caping_embed", &[512, 512]),
        ("sem_seg_head.predictor.pos_embed_caping.weight", &[77, 512]),
        ("criterion.empty_weight", &[134]),
    ];
    tensors.extend(unused.map(|(key, shape)| (key.to_owned(), shape.to_vec())));
    write_checkpoint(&file, &tensors, std::convert::identity, generated);
    let size = std::fs::metadata(&file).unwrap().len();
    assert!(size > 1_366_000_000, "{size}");

    let home = dir.path().join("home");
    let start = Instant::now();
    let output = run(&home, &["weights", "import", "xdecoder", file.to_str().unwrap()]);
    let seconds = start.elapsed().as_secs_f64();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let peak = peak_of_children();
    println!("import: {seconds:.1} s, {} MiB for a file of {} MiB", peak >> 20, size >> 20);
    assert!(seconds < 30.0, "the import took {seconds} s");
    assert!(peak < 2 * size, "the import took {peak} bytes for a file of {size}");
    let said = text(&output.stdout) + &text(&output.stderr);
    assert!(said.contains("captioning") && said.contains("retrieval"), "{said}");
    std::fs::remove_file(&file).unwrap();

    let store = Store::at(&home);
    let mut best = f64::INFINITY;
    for _ in 0..3 {
        let start = Instant::now();
        let mut stored = store.open("xdecoder", "xdecoder").unwrap();
        let config: XDecoderConfig = serde_json::from_value(stored.installed.manifest.config).unwrap();
        let (model, _) = XDecoder::load(&mut stored.tensors, config, Precision::F32, &Device::flex()).unwrap();
        best = best.min(start.elapsed().as_secs_f64());
        assert_eq!(model.config, XDecoderConfig::focal_l());
    }
    println!("load from the store: {best:.2} s");
    assert!(best < 3.0, "loading took {best} s");

    let mut stored = store.open("xdecoder", "xdecoder").unwrap().tensors;
    for (key, shape) in config.keys() {
        assert!(stored.take(&key, &shape).unwrap().data == generated(&key, &shape), "{key}");
    }
    assert!(!stored.inventory().tensors.contains_key("backbone_proj"));
}
