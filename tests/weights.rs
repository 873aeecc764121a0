//! Checkpoints of every kind, honest and hostile.

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use geopurify::weights::{
    Dtype, EntryKind, SafetensorsFile, SafetensorsWriter, StateDict, TensorSpec, WeightsError, match_keys, read_pytorch,
};
use proptest::prelude::*;

#[path = "golden/case.rs"]
mod case;
#[path = "golden/manifest.rs"]
mod manifest;
#[path = "common/pickle.rs"]
mod op;

use case::{Case, cases, golden_roots};

// ---- counting memory ----

struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

fn took(size: usize) {
    let held = HELD.fetch_add(size, Relaxed) + size;
    PEAK.fetch_max(held, Relaxed);
}

// SAFETY: every call is handed to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        took(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        took(layout.size());
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Relaxed);
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        took(size);
        HELD.fetch_sub(layout.size(), Relaxed);
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// One test at a time: the count is of the whole process.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What `work` returns and the most memory held during it.
fn measured<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.load(Relaxed);
    PEAK.store(before, Relaxed);
    let value = work();
    (value, PEAK.load(Relaxed) - before)
}

const MIB: usize = 1 << 20;

/// Memory a file of this length may cost: eight times its size for the tensors, as much again
/// while strided ones are gathered, some sixty bytes per byte of pickle, and a fixed part.
fn allowed(file_len: usize) -> usize {
    80 * file_len + 8 * MIB
}

/// Reads everything a loader would, within the allowed memory.
fn load(path: &Path) -> Result<StateDict, WeightsError> {
    let file_len = std::fs::metadata(path).unwrap().len() as usize;
    let (result, peak) = measured(|| {
        let checkpoint = read_pytorch(path)?;
        checkpoint.entries();
        checkpoint.json(&[]).ok();
        checkpoint.state_dict()
    });
    assert!(peak <= allowed(file_len), "a file of {file_len} bytes cost {peak}");
    if let Err(error) = &result {
        assert!(error.to_string().len() < 4096);
    }
    result
}

// ---- files written by PyTorch ----

fn same(a: &StateDict, b: &StateDict) {
    assert!(a.tensors.keys().eq(b.tensors.keys()));
    for (key, tensor) in &a.tensors {
        assert_eq!(tensor.shape, b.tensors[key].shape, "{key}");
        assert!(tensor.data == b.tensors[key].data, "{key}");
    }
}

#[test]
fn student_checkpoints() {
    let _alone = alone();
    let roots = golden_roots();
    let root = roots.iter().find(|root| root.join("geopurify/checkpoint").is_dir()).unwrap();
    let case = Case::open(root, &root.join("geopurify/checkpoint"));
    let texts = |key: &str| -> Vec<String> { serde_json::from_value(case.config[key].clone()).unwrap() };
    let training = case.dir.join(&texts("files")[0]);
    let bare = case.dir.join(&texts("files")[1]);

    let checkpoint = read_pytorch(&training).unwrap();
    let entries = checkpoint.entries();
    assert!(entries.iter().map(|(key, _)| key).eq(&texts("keys")));
    assert_eq!(entries[0].1, EntryKind::Other("int".into()));
    assert!(matches!(entries[1].1, EntryKind::Dict(55)));
    assert_eq!(checkpoint.json(&["epoch"]).unwrap(), case.config["epoch"]);
    let groups = checkpoint.json(&["optimizer_state_dict", "param_groups"]).unwrap();
    assert_eq!(groups, case.config["param_groups"]);

    let state = load(&training).unwrap();
    let mut keys = texts("state_dict_keys");
    keys.sort();
    let mut found: Vec<_> = state.tensors.keys().chain(state.integers.keys()).collect();
    found.sort();
    assert!(found.into_iter().eq(&keys));
    assert_eq!(state.stripped_prefix, None);
    let steps = case.config["optimizer_steps"].as_i64().unwrap();
    assert!(state.integers.values().all(|counter| counter.data == [steps]));

    let unwrapped = load(&bare).unwrap();
    assert_eq!(unwrapped.stripped_prefix, Some("module."));
    same(&state, &unwrapped);

    // The optimiser's state, by its norms.
    let optimizer = checkpoint.state_dict_at(&["optimizer_state_dict"]).unwrap();
    for (config, moment) in [("exp_avg_l2", "exp_avg"), ("exp_avg_sq_l2", "exp_avg_sq")] {
        let norms: Vec<f64> = serde_json::from_value(case.config[config].clone()).unwrap();
        for (index, norm) in norms.into_iter().enumerate() {
            let tensor = &optimizer.tensors[&format!("state.{index}.{moment}")];
            let sum: f64 = tensor.data.iter().map(|&v| f64::from(v).powi(2)).sum();
            assert!((sum.sqrt() / norm - 1.0).abs() < 1e-5, "{moment} {index}");
        }
    }

    let expected: Vec<_> = state.tensors.iter().map(|(key, tensor)| (key.clone(), tensor.shape.clone())).collect();
    let report = match_keys(&state, &expected, &["num_batches_tracked"]);
    report.ensure_complete().unwrap();
    assert_eq!(report.applied.len() + report.ignored.len(), keys.len());
    let error = match_keys(&state, &expected[1..], &["num_batches_tracked"]).ensure_complete().unwrap_err();
    assert!(error.to_string().contains(&expected[0].0));
}

// ---- the format of the golden cases ----

#[test]
fn a_golden_case_is_found_and_read() {
    let _alone = alone();
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("model/op");
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(
        dir.join("case.json"),
        r#"{"op": "op", "seed": "s", "weights": "../m.weights.json", "config": {"k": 3},
            "tolerance": {"out.y": {"rel_l2": 0.1, "fp32_vs_fp64": 1e-7}}, "about": "x"}"#,
    )
    .unwrap();
    std::fs::write(
        root.path().join("model/m.weights.json"),
        r#"{"tensors": [{"name": "w", "shape": [2], "center": 5.0, "scale": 0.0}]}"#,
    )
    .unwrap();
    let specs = [
        TensorSpec::new("out.y", Dtype::F32, [2, 1]),
        TensorSpec::new("in.i", Dtype::I32, [2]),
        TensorSpec::new("in.m", Dtype::U8, [1]),
    ];
    let path = dir.join("tensors.safetensors");
    let mut writer = SafetensorsWriter::create(path, &specs, &BTreeMap::new()).unwrap();
    writer.write_f32(&[3.0, 4.0]).unwrap();
    writer.write_all(&[255, 255, 255, 255, 7, 0, 0, 0, 200]).unwrap();
    writer.finish().unwrap();

    let found = cases(&[root.path().to_owned()]);
    let [case] = found.as_slice() else { panic!("{} cases", found.len()) };
    assert_eq!((case.name.as_str(), case.op.as_str()), ("model/op", "op"));
    assert_eq!((&case.dir, &case.config["k"]), (&dir, &serde_json::Value::from(3)));
    assert_eq!(case.state_dict().tensors["w"].data, [5.0, 5.0]);
    assert_eq!(case.f32("out.y"), (vec![2, 1], vec![3.0, 4.0]));
    assert_eq!(case.i32("in.i"), (vec![2], vec![-1, 7]));
    assert_eq!(case.i32("in.m"), (vec![1], vec![200]));
    assert_eq!(case.tolerance["out.y"].rel_l2, Some(0.1));
}

/// The bits were computed independently, from the rule in the golden cases' README.
#[test]
fn generated_weights_are_those_of_the_rule() {
    let _alone = alone();
    let manifest = r#"{"model": "AffinityPredictor", "config": {}, "tensors": [
        {"name": "input_layer.0.kernel", "shape": [27, 22, 32],
         "center": 0.0, "scale": 0.07106690545187015},
        {"name": "input_layer.1.bn.weight", "shape": [32], "center": 1.0, "scale": 0.1},
        {"name": "res_blocks.3.norm2.bn.running_var", "shape": [32],
         "center": 1.0, "scale": 0.3},
        {"name": "output_layer.kernel", "shape": [32, 16],
         "center": 0.0, "scale": 0.30618621784789724, "used": true}
    ], "ignored": ["input_layer.1.bn.num_batches_tracked"]}"#;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("student.weights.json");
    std::fs::write(&path, manifest).unwrap();
    let state = manifest::Generated::open(&path, "geopurify/public/1").state_dict();
    for (name, index, bits) in [
        ("input_layer.0.kernel", 0, 0xbc06_2925),
        ("input_layer.0.kernel", 19007, 0xbb23_dea7),
        ("input_layer.1.bn.weight", 31, 0x3f85_3ece),
        ("res_blocks.3.norm2.bn.running_var", 7, 0x3f8d_6b6f),
        ("output_layer.kernel", 300, 0x3e80_2740),
    ] {
        let found = state.tensors[name].data[index];
        assert_eq!(found.to_bits(), bits, "{name}[{index}] is {found}");
    }
}

// ---- files written by hand ----

fn crc32(bytes: &[u8]) -> u32 {
    !bytes
        .iter()
        .fold(!0, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xEDB8_8320 * (crc & 1))))
}

struct ZipEntry<'a> {
    name: &'a str,
    data: &'a [u8],
    method: u16,
    size: u32,
    crc32: u32,
}

impl<'a> ZipEntry<'a> {
    fn stored(name: &'a str, data: &'a [u8]) -> Self {
        Self {
            name,
            data,
            method: 0,
            size: data.len() as u32,
            // Zero says that none was computed, which spares the large ones the time.
            crc32: if data.len() < MIB { crc32(data) } else { 0 },
        }
    }
}

fn zip(entries: &[ZipEntry<'_>]) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for entry in entries {
        let offset = out.len() as u32;
        let mut shared = Vec::new();
        for field in [20, 0, entry.method, 0, 0] {
            shared.extend(field.to_le_bytes());
        }
        for field in [entry.crc32, entry.data.len() as u32, entry.size] {
            shared.extend(field.to_le_bytes());
        }
        shared.extend((entry.name.len() as u16).to_le_bytes());
        shared.extend(0u16.to_le_bytes());
        out.extend(b"PK\x03\x04");
        out.extend(&shared);
        out.extend(entry.name.as_bytes());
        out.extend(entry.data);
        directory.extend(b"PK\x01\x02\x14\0");
        directory.extend(&shared);
        directory.extend([0; 10]);
        directory.extend(offset.to_le_bytes());
        directory.extend(entry.name.as_bytes());
    }
    let at = out.len() as u32;
    let count = (entries.len() as u16).to_le_bytes();
    out.extend(&directory);
    out.extend(b"PK\x05\x06\0\0\0\0");
    out.extend([count, count].concat());
    out.extend((directory.len() as u32).to_le_bytes());
    out.extend(at.to_le_bytes());
    out.extend([0, 0]);
    out
}

fn archive(pickle: &[u8], storages: &[(&str, &[u8])]) -> Vec<u8> {
    let names: Vec<_> = storages.iter().map(|(key, _)| format!("a/data/{key}")).collect();
    let mut entries = vec![ZipEntry::stored("a/data.pkl", pickle)];
    for (name, (_, data)) in names.iter().zip(storages) {
        entries.push(ZipEntry::stored(name, data));
    }
    zip(&entries)
}

fn legacy(value: Vec<u8>, storages: &[(&str, usize, &[u8])]) -> Vec<u8> {
    let keys: Vec<_> = storages.iter().map(|(key, ..)| op::text(key)).collect();
    let mut out = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.".to_vec();
    out.extend(op::pickle(op::int(1001)));
    out.extend(op::pickle(op::dict(&[("little_endian", b"\x88".to_vec())])));
    out.extend(op::pickle(value));
    out.extend(op::pickle([b"](", &keys.concat()[..], b"e"].concat()));
    for (_, count, data) in storages {
        out.extend((*count as i64).to_le_bytes());
        out.extend(*data);
    }
    out
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

struct Scratch {
    _dir: tempfile::TempDir,
    path: PathBuf,
}

impl Scratch {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.pth");
        Self { _dir: dir, path }
    }

    fn load(&self, bytes: &[u8]) -> Result<StateDict, WeightsError> {
        std::fs::write(&self.path, bytes).unwrap();
        load(&self.path)
    }
}

/// Two tensors on one storage (one of them transposed), a bfloat16 one, a counter, a
/// configuration and an object of an unknown class.
fn honest_value() -> Vec<u8> {
    let shared = || op::storage("FloatStorage", "0", 8);
    let state = op::dict(&[
        ("w", op::tensor(shared(), 0, &[2, 3], &[3, 1])),
        ("w_t", op::tensor(shared(), 1, &[3, 2], &[1, 3])),
        ("column", op::tensor(shared(), 2, &[2, 1], &[3, 77])),
        ("scalar", op::tensor(shared(), 7, &[], &[])),
        ("empty", op::tensor(shared(), 0, &[0, 4], &[4, 1])),
        ("half", op::tensor(op::storage("BFloat16Storage", "1", 2), 0, &[2], &[1])),
        ("count", op::tensor(op::storage("LongStorage", "2", 1), 0, &[], &[])),
        ("extra", b"N".to_vec()),
    ]);
    let wrapped = op::call(
        op::global("torch._utils", "_rebuild_parameter"),
        &[op::tensor(op::storage("FloatStorage", "0", 8), 0, &[8], &[1]), b"\x88".to_vec(), b"N".to_vec()],
    );
    let odd = op::call(op::global("numpy.core.multiarray", "scalar"), &[op::int(1)]);
    op::dict(&[("epoch", op::int(3)), ("state_dict", state), ("parameter", wrapped), ("odd", odd)])
}

const HONEST: [f32; 8] = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, -7.5];

fn honest_storages() -> [(&'static str, usize, Vec<u8>); 3] {
    [("0", 8, floats(&HONEST)), ("1", 2, vec![0xc0, 0x3f, 0, 0xc0]), ("2", 1, (-9i64).to_le_bytes().to_vec())]
}

fn honest_zip() -> Vec<u8> {
    let storages = honest_storages();
    let storages: Vec<_> = storages.iter().map(|(key, _, data)| (*key, &data[..])).collect();
    archive(&op::pickle(honest_value()), &storages)
}

fn honest_legacy() -> Vec<u8> {
    let storages = honest_storages();
    let storages: Vec<_> = storages.iter().map(|(key, count, data)| (*key, *count, &data[..])).collect();
    legacy(honest_value(), &storages)
}

#[test]
fn strides_shared_storages_and_types() {
    let _alone = alone();
    let scratch = Scratch::new();
    for bytes in [honest_zip(), honest_legacy()] {
        let state = scratch.load(&bytes).unwrap();
        let data = |key: &str| state.tensors[key].data.clone();
        assert_eq!(data("w"), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        assert_eq!(data("w_t"), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
        assert_eq!(data("column"), [2.0, 5.0]);
        assert_eq!(data("scalar"), [-7.5]);
        assert_eq!(state.tensors["empty"].shape, [0, 4]);
        assert_eq!(data("half"), [1.5, -2.0]);
        assert_eq!(state.integers["count"].data, [-9]);
        assert_eq!(state.not_tensors["extra"], "None");
        let checkpoint = read_pytorch(&scratch.path).unwrap();
        assert_eq!(checkpoint.json(&["epoch"]).unwrap(), 3);
        assert!(checkpoint.json(&["odd"]).unwrap().is_null());
        let parameter = checkpoint.state_dict_at(&[]).unwrap();
        assert_eq!(parameter.tensors["parameter"].data, HONEST);
        assert_eq!(parameter.not_tensors["odd"], "numpy.core.multiarray.scalar");
    }
}

#[test]
fn modules_of_torchscript_give_their_tensors() {
    let _alone = alone();
    let scratch = Scratch::new();
    let tensor = |offset| op::tensor(op::storage("FloatStorage", "0", 8), offset, &[2], &[1]);
    let flags = || [("training", b"\x88".to_vec()), ("_is_full_backward_hook", b"N".to_vec())];
    let inner = |offset| op::scripted("Inner", &[&[("weight", tensor(offset))], &flags()[..]].concat());
    let attributes = [
        ("scale", tensor(6)),
        ("name", op::text("a module")),
        ("numbers", op::tuple(&[tensor(0)])),
        ("0", inner(0)),
        ("side", op::scripted("Side", &[("1", inner(2))])),
        // An object of a class that is none of TorchScript's keeps nothing.
        (
            "other",
            [op::global("torch.nn", "Linear"), b")\x81".to_vec(), op::dict(&[("weight", tensor(4))]), b"b".to_vec()]
                .concat(),
        ),
    ];
    let value = op::scripted("Outer", &[&attributes[..], &flags()[..]].concat());
    let storage = floats(&HONEST);
    let state = scratch.load(&archive(&op::pickle(value), &[("0", &storage)])).unwrap();
    let found: Vec<_> = state.tensors.iter().map(|(key, tensor)| (key.as_str(), &tensor.data[..])).collect();
    assert_eq!(found, [("0.weight", &HONEST[..2]), ("scale", &HONEST[6..]), ("side.1.weight", &HONEST[2..4])]);
    assert!(state.not_tensors.is_empty() && state.integers.is_empty());
    let entries = read_pytorch(&scratch.path).unwrap().entries();
    assert_eq!(entries[0], ("scale".to_owned(), EntryKind::Tensor(vec![2])));
    assert_eq!(entries[3], ("0".to_owned(), EntryKind::Dict(3)));

    // A module without tensors, and one that is no module yet.
    for value in [
        op::scripted("Outer", &[("0", op::scripted("Inner", &flags()))]),
        [op::global("__torch__", "A"), b")\x81".to_vec()].concat(),
    ] {
        let error = scratch.load(&archive(&op::pickle(value), &[])).unwrap_err();
        assert!(matches!(error, WeightsError::MissingKey { .. }), "{error}");
    }
}

#[test]
fn every_truncation_is_an_error() {
    let _alone = alone();
    let scratch = Scratch::new();
    for bytes in [honest_zip(), honest_legacy()] {
        for len in 0..bytes.len() {
            assert!(scratch.load(&bytes[..len]).is_err(), "{len} of {}", bytes.len());
        }
    }
}

#[test]
fn flipped_bits_are_errors_or_other_values() {
    let _alone = alone();
    let scratch = Scratch::new();
    for (bytes, checked) in [(honest_zip(), true), (honest_legacy(), false)] {
        let whole = scratch.load(&bytes).unwrap();
        for at in 0..bytes.len() {
            // Every bit of a byte gets its turn along the file.
            let bit = at * 5 % 8;
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << bit;
            // With checksums there is no way to other weights.
            if let (Ok(state), true) = (scratch.load(&flipped), checked) {
                assert!(state == whole, "bit {bit} of byte {at}");
            }
        }
    }
}

#[test]
fn nothing_is_called() {
    let _alone = alone();
    let scratch = Scratch::new();
    let trace = scratch.path.with_file_name("trace");
    let command = op::text(&format!("touch {}", trace.display()));
    for callable in [
        op::global("os", "system"),
        op::global("posix", "system"),
        op::global("builtins", "eval"),
        [op::text("os"), op::text("system"), b"\x93".to_vec()].concat(),
    ] {
        let call = op::call(callable, std::slice::from_ref(&command));
        let tensor = op::tensor(op::storage("FloatStorage", "0", 1), 0, &[1], &[1]);
        let value = op::dict(&[("w", tensor), ("payload", call.clone())]);
        let one = floats(&[1.0]);
        let state = scratch.load(&archive(&op::pickle(value), &[("0", &one)])).unwrap();
        assert!(state.not_tensors["payload"].ends_with("system") || state.not_tensors["payload"].ends_with("eval"));
        let error = scratch.load(&archive(&op::pickle(call), &[])).unwrap_err();
        assert!(matches!(error, WeightsError::MissingKey { .. }), "{error}");
    }
    assert!(!trace.exists());
}

#[test]
fn tensors_that_do_not_fit_are_errors() {
    let _alone = alone();
    let scratch = Scratch::new();
    let storage = |numel| op::storage("FloatStorage", "0", numel);
    let one = floats(&[1.0]);
    for (what, tensor) in [
        ("expanded", op::tensor(storage(1), 0, &[2_000_000_000], &[0])),
        ("expanded twice", op::tensor(storage(1), 0, &[1 << 20, 1 << 20], &[0, 0])),
        ("too long", op::tensor(storage(1), 0, &[2], &[1])),
        ("beyond", op::tensor(storage(1), 1, &[1], &[1])),
        ("negative shape", op::tensor(storage(1), 0, &[-1], &[1])),
        ("negative stride", op::tensor(storage(1), 0, &[1], &[-1])),
        ("negative offset", op::tensor(storage(1), -1, &[1], &[1])),
        ("overflowing shape", op::tensor(storage(1), 0, &[i64::MAX; 4], &[0; 4])),
        ("overflowing stride", op::tensor(storage(1), 0, &[3, 3], &[i64::MAX; 2])),
        ("ranks differ", op::tensor(storage(1), 0, &[1, 1], &[1])),
        ("many dimensions", op::tensor(storage(1), 0, &[1; 17], &[1; 17])),
        ("negative storage", op::tensor(storage(-1), 0, &[0], &[1])),
        ("overflowing storage", op::tensor(storage(i64::MAX), 0, &[1], &[1])),
        ("larger storage", op::tensor(storage(1 << 40), 0, &[1], &[1])),
        ("no storage", op::tensor(op::storage("FloatStorage", "7", 1), 0, &[1], &[1])),
    ] {
        let value = op::dict(&[("w", tensor)]);
        let bytes = archive(&op::pickle(value.clone()), &[("0", &one)]);
        assert!(scratch.load(&bytes).is_err(), "{what}");
        assert!(scratch.load(&legacy(value, &[("0", 1, &one)])).is_err(), "{what}");
    }
    // An element of a type that is not read is told, not invented.
    let complex = op::tensor(op::storage("ComplexFloatStorage", "0", 1), 0, &[1], &[1]);
    let plain = op::tensor(op::storage("FloatStorage", "1", 1), 0, &[1], &[1]);
    let value = op::dict(&[("c", complex), ("w", plain)]);
    let state = scratch.load(&archive(&op::pickle(value), &[("0", &[0; 8]), ("1", &one)])).unwrap();
    assert_eq!(state.not_tensors["c"], "tensor on torch.ComplexFloatStorage");
}

#[test]
fn memory_stays_in_proportion_to_the_file() {
    let _alone = alone();
    let scratch = Scratch::new();
    const LONG: usize = 4_200_000;
    let tensor = || op::tensor(op::storage("FloatStorage", "0", 1), 0, &[1], &[1]);
    let beside = |value| op::dict(&[("w", tensor()), ("x", value)]);
    let mut bombs: Vec<(&str, Vec<u8>)> = vec![
        ("values", vec![b'N'; LONG]),
        ("tuples", vec![b')'; LONG]),
        ("dictionaries", vec![b'}'; LONG]),
        ("marks", vec![b'('; LONG]),
        ("memo", [&b"N"[..], &vec![0x94; LONG]].concat()),
        ("nesting", beside([vec![b']'; 200_000], vec![b'a'; 199_999]].concat())),
    ];
    // Each list holds the one before ten times over.
    let mut laughs = b"]q\x000".to_vec();
    for level in 1..30u8 {
        laughs.extend(b"](");
        laughs.extend([b'h', level - 1].repeat(10));
        laughs.extend([b'e', b'q', level, b'0']);
    }
    laughs.extend([b'h', 29]);
    bombs.push(("laughs", beside(laughs)));
    // A dictionary that holds itself, beside a tensor.
    let mut cycle = b"}q\0(".to_vec();
    cycle.extend(op::text("self"));
    cycle.extend(b"h\0");
    cycle.extend(op::text("w"));
    cycle.extend(tensor());
    cycle.push(b'u');
    bombs.push(("cycle", cycle));
    // A module of TorchScript that holds itself, beside a tensor.
    let mut cycle = [op::global("__torch__", "A"), b")\x81q\0}(".to_vec()].concat();
    cycle.extend(op::text("self"));
    cycle.extend(b"h\0");
    cycle.extend(op::text("w"));
    cycle.extend(tensor());
    cycle.extend(b"ub");
    bombs.push(("cycle of modules", cycle));
    // One name of a megabyte, used a hundred thousand times.
    let mut name = op::text(&"n".repeat(MIB));
    name.extend(b"q\0h\0\x93".repeat(100_000));
    bombs.push(("name", name));
    // One tensor under very many keys.
    let mut many = tensor();
    many.extend(b"q\0}(");
    for key in 0..150_000 {
        many.extend(op::text(&key.to_string()));
        many.extend(b"h\0");
    }
    many.push(b'u');
    bombs.push(("many", many));
    let one = floats(&[1.0]);
    for (what, value) in bombs {
        let pickle = op::pickle(value);
        let error = scratch.load(&archive(&pickle, &[("0", &one)])).unwrap_err();
        let found = match error {
            WeightsError::Malformed { .. } => "malformed",
            WeightsError::TooLarge { .. } => "too large",
            _ => "other",
        };
        let expected = match what {
            "nesting" | "laughs" | "cycle" | "cycle of modules" | "many" => "too large",
            _ => "malformed",
        };
        assert_eq!(found, expected, "{what}: {error}");
    }
}

#[test]
fn safetensors_headers_cost_what_they_weigh() {
    let _alone = alone();
    let scratch = Scratch::new();
    let open = |header: &str| {
        let len = (header.len() as u64).to_le_bytes();
        std::fs::write(&scratch.path, [&len, header.as_bytes()].concat()).unwrap();
        let (result, peak) = measured(|| SafetensorsFile::open(&scratch.path));
        assert!(peak <= allowed(header.len()), "{} cost {peak}", header.len());
        result
    };
    let zeros = |count| vec!["0"; count].join(",");
    let with_shape = |shape: &str| format!(r#"{{"w":{{"dtype":"F32","shape":[{shape}],"data_offsets":[0,0]}}}}"#);
    assert!(open(&with_shape("0")).is_ok());
    assert!(open(&with_shape(&zeros(3_000_000))).is_ok());
    let error = open(&with_shape(&zeros(5_000_000))).unwrap_err();
    assert!(matches!(error, WeightsError::TooLarge { .. }), "{error}");
    let many: Vec<_> =
        (0..50_000).map(|i| format!(r#""{i}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}"#)).collect();
    assert_eq!(open(&format!("{{{}}}", many.join(","))).unwrap().names().len(), 50_000);
    assert!(open(&format!("{{\"w\":{}", "[".repeat(1_000_000))).is_err());
}

#[test]
fn archives_that_lie_are_errors() {
    let _alone = alone();
    let scratch = Scratch::new();
    let tensor = op::tensor(op::storage("FloatStorage", "0", 1), 0, &[1], &[1]);
    let pickle = op::pickle(op::dict(&[("w", tensor)]));
    let one = floats(&[1.0]);
    let make = |change: &dyn Fn(&mut [ZipEntry<'_>; 2])| {
        let mut entries = [ZipEntry::stored("a/data.pkl", &pickle), ZipEntry::stored("a/data/0", &one)];
        change(&mut entries);
        zip(&entries)
    };
    scratch.load(&make(&|_| {})).unwrap();
    // Zero stands for a checksum that was not computed.
    scratch.load(&make(&|entries| entries[1].crc32 = 0)).unwrap();

    let error = scratch.load(&make(&|entries| entries[1].crc32 ^= 1)).unwrap_err();
    assert!(matches!(error, WeightsError::Checksum { .. }), "{error}");
    // A bomb: a deflated entry says it holds four gigabytes.
    for index in [0, 1] {
        let bomb = make(&|entries| {
            entries[index].method = 8;
            entries[index].size = u32::MAX - 1;
        });
        let error = scratch.load(&bomb).unwrap_err();
        assert!(matches!(error, WeightsError::Unsupported { .. }), "{error}");
    }
    let error = scratch.load(&make(&|entries| entries[1].name = "a/data.pkl")).unwrap_err();
    assert!(matches!(error, WeightsError::Malformed { .. }), "{error}");
    let error = scratch.load(&make(&|entries| entries[0].name = "a/other.pkl")).unwrap_err();
    assert!(matches!(error, WeightsError::WrongFormat { .. }), "{error}");

    let storages = [("0", &one[..])];
    let big = [
        ZipEntry::stored("a/data.pkl", &pickle),
        ZipEntry::stored("a/data/0", &one),
        ZipEntry::stored("a/byteorder", b"big"),
    ];
    let error = scratch.load(&zip(&big)).unwrap_err();
    assert!(matches!(error, WeightsError::Unsupported { .. }), "{error}");

    // Every number of the end record, at its largest.
    let bytes = archive(&pickle, &storages);
    let end = bytes.len() - 22;
    for field in [10..12, 12..16, 16..20] {
        let mut lying = bytes.clone();
        lying[end..][field].fill(0xff);
        assert!(scratch.load(&lying).is_err());
    }
}

#[test]
fn other_files_are_named_for_what_they_are() {
    let _alone = alone();
    let scratch = Scratch::new();
    let mut tar = vec![0; 512];
    tar[257..262].copy_from_slice(b"ustar");
    for (bytes, part) in [
        (&b""[..], "empty"),
        (b"<!DOCTYPE html>", "HTML"),
        (b"version https://git-lfs.github.com/spec/v1", "LFS"),
        (b"\x80\0\0\0\0\0\0\0{\"w\":", "safetensors"),
        (&tar, "tar"),
        (b"\x80\x02}.", "no PyTorch checkpoint"),
    ] {
        let error = scratch.load(bytes).unwrap_err();
        assert!(matches!(error, WeightsError::WrongFormat { .. }), "{error}");
        assert!(error.to_string().contains(part), "{error}");
    }
    let missing = scratch.path.with_file_name("missing.pth");
    for path in [missing.as_path(), scratch.path.parent().unwrap()] {
        let error = read_pytorch(path).unwrap_err();
        assert!(matches!(error, WeightsError::Io { .. }), "{error}");
    }
    // A checkpoint without weights says what it has.
    let value = op::dict(&[("epoch", op::int(1)), ("net", op::dict(&[]))]);
    let error = scratch.load(&archive(&op::pickle(value), &[])).unwrap_err();
    assert!(error.to_string().contains("epoch, net"), "{error}");
    // A whole model instead of its weights.
    let model = [op::global("__main__", "Net"), b")\x81}b".to_vec()].concat();
    let error = scratch.load(&archive(&op::pickle(model), &[])).unwrap_err();
    assert!(error.to_string().contains("state_dict()"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    /// Pickles of random operations, without a checksum in the way.
    #[test]
    fn random_pickles(ops in prop::collection::vec(prop_oneof![
        4 => prop::sample::select(&b"N)]}(tldaesu012Qb\x81\x85\x86\x87\x88\x8f\x90\x91\x92\x93\x94R"[..]).prop_map(|op| vec![op]),
        2 => any::<u8>().prop_map(|index| vec![b'h', index % 8]),
        2 => any::<u8>().prop_map(|index| vec![b'q', index % 8]),
        1 => any::<i64>().prop_map(op::int),
        1 => prop::sample::select(vec!["storage", "0", "state_dict", "model"]).prop_map(op::text),
        1 => Just(op::global("torch._utils", "_rebuild_tensor_v2")),
        1 => Just(op::global("collections", "OrderedDict")),
        1 => (0..9i64, 0..9i64, 0..9i64).prop_map(|(offset, len, step)| {
            op::tensor(op::storage("FloatStorage", "0", 8), offset, &[len], &[step])
        }),
        1 => prop::collection::vec(any::<u8>(), 1..6),
    ], 0..60)) {
        let _alone = alone();
        let scratch = Scratch::new();
        let pickle = op::pickle(ops.concat());
        scratch.load(&archive(&pickle, &[("0", &floats(&HONEST))])).ok();
        scratch.load(&legacy(ops.concat(), &[("0", 8, &floats(&HONEST))])).ok();
    }

    /// Several changes at once, anywhere, to either container.
    #[test]
    fn random_changes(
        zipped in any::<bool>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), prop_oneof![Just(0), Just(255), any::<u8>()]), 1..6),
    ) {
        let _alone = alone();
        let scratch = Scratch::new();
        let mut bytes = if zipped { honest_zip() } else { honest_legacy() };
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        scratch.load(&bytes).ok();
    }
}
