//! The store of weights, imports into it, and downloads from a server that misbehaves.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use geopurify::models::import::{ImportError, ImportOptions, Imported, import};
use geopurify::models::student::StudentConfig;
use geopurify::weights::fetch::{FetchError, FetchEvent, FetchSettings, Fetched, accept, fetch, is_accepted};
use geopurify::weights::registry::{Published, Registry};
use geopurify::weights::store::{Store, StoreError};
use geopurify::weights::{
    Dtype, SafetensorsWriter, TensorSource as _, TensorSpec, WeightsError, WeightsFile, file_sha256, read_state_dict,
};
use serde_json::Value;

// ---- what the tests share ----

fn student_checkpoint() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/geopurify/student_tiny_module.pth")
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}

struct Home {
    dir: tempfile::TempDir,
    store: Store,
    registry: Registry,
}

impl Home {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::at(dir.path().join("home"));
        Self { dir, store, registry: Registry::load(None).unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn import(&self, model: &str, file: &Path) -> Result<Imported, ImportError> {
        self.import_with(model, file, &ImportOptions::default())
    }

    fn import_with(&self, model: &str, file: &Path, options: &ImportOptions) -> Result<Imported, ImportError> {
        import(&self.store, &self.registry, model, file, options, &mut |_, _| {})
    }

    /// Files in the store, the lock left out.
    fn files(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.store.home().join("weights")) else {
            return Vec::new();
        };
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| name != ".lock");
        names.sort();
        names
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_geopurify"));
        command.args(arguments).env("GEOPURIFY_HOME", self.store.home()).env_remove("GEOPURIFY_REGISTRY");
        command.stdin(std::process::Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }
}

fn name(name: &str) -> ImportOptions {
    ImportOptions { name: Some(name.to_owned()), ..ImportOptions::default() }
}

/// A student of these widths with one value everywhere, as safetensors. `change` may alter its keys.
fn write_student(path: &Path, config: StudentConfig, value: f32, change: impl FnOnce(&mut Vec<(String, Vec<usize>)>)) {
    let mut keys = config.keys();
    change(&mut keys);
    let specs: Vec<_> = keys.iter().map(|(key, shape)| TensorSpec::new(key, Dtype::F32, shape.clone())).collect();
    let mut writer = SafetensorsWriter::create(path, &specs, &BTreeMap::new()).unwrap();
    for (_, shape) in &keys {
        writer.write_f32(&vec![value; shape.iter().product()]).unwrap();
    }
    writer.finish().unwrap();
}

const SMALL: StudentConfig = StudentConfig { input_dim: 10, hidden_dim: 8, embed_dim: 4 };

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

// ---- import ----

#[test]
fn damaged_checkpoints_change_nothing() {
    let home = Home::new();
    home.import("student", &student_checkpoint()).unwrap();
    let installed = home.store.path("student").unwrap();
    let before = std::fs::read(&installed).unwrap();
    let honest = std::fs::read(student_checkpoint()).unwrap();

    let mut random = Random(5);
    let mut refused = 0;
    for i in 0..60 {
        let mut bytes = honest.clone();
        if i % 2 == 0 {
            bytes.truncate(random.below(bytes.len()));
        } else {
            let at = random.below(bytes.len());
            bytes[at] ^= 1 << random.below(8);
        }
        let path = home.write("damaged.pth", &bytes);
        match home.import("student", &path) {
            Err(error) => {
                assert!(error.to_string().contains("damaged.pth"), "{error}");
                assert!(std::fs::read(&installed).unwrap() == before, "the installed weights stay");
                refused += 1;
            }
            // A bit that no reader looks at, such as a time in the archive.
            Ok(_) => assert!(i % 2 == 1),
        }
    }
    assert!(refused >= 55, "{refused}");
    assert_eq!(home.files(), ["student.safetensors"]);
}

#[test]
fn other_files_are_refused_by_name() {
    let home = Home::new();
    // A pickle that calls os.system.
    let hostile = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.\x80\x02}(X\x0d\x00\x00\
        \x00little_endian\x88u.\x80\x02cos\nsystem\nX\x09\x00\x00\x00touch own\x85R.\x80\x02].";
    for (file, bytes, expected) in [
        ("empty.pth", &b""[..], "empty"),
        ("page.pth", b"<!DOCTYPE html><html>", "HTML"),
        ("pointer.pth", b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        ("text.pth", b"not a checkpoint", "no PyTorch checkpoint"),
        ("hostile.pth", hostile, "os.system"),
    ] {
        let path = home.write(file, bytes);
        for model in ["student", "sonata", "xdecoder", "lseg", "clip"] {
            let error = home.import(model, &path).unwrap_err().to_string();
            assert!(error.contains(file) && error.contains(expected), "{error}");
        }
    }
    let error = home.import("student", &home.path("none.pth")).unwrap_err().to_string();
    assert!(error.contains("none.pth"), "{error}");
    let error = home.import("resnet", &student_checkpoint()).unwrap_err().to_string();
    assert_eq!(error, "there is no model 'resnet'; there are student, sonata, xdecoder, openscene, lseg, clip");
    let error = home.import("sonata", &student_checkpoint()).unwrap_err();
    assert!(matches!(&error, ImportError::OtherFile(other) if other.model == Some("student")), "{error}");
    assert!(error.to_string().contains("geopurify weights import student "));
    let error = home.import_with("student", &student_checkpoint(), &name("../x")).unwrap_err();
    assert!(matches!(error, ImportError::Store(StoreError::InvalidName { .. })), "{error}");
    assert!(home.files().is_empty());
    assert!(!Path::new("own").exists());
}

#[test]
fn missing_and_unused_keys_are_named() {
    let home = Home::new();
    let file = home.path("student.safetensors");
    write_student(&file, SMALL, 1.0, |keys| keys.push(("text_head.weight".to_owned(), vec![2, 2])));
    let error = home.import("student", &file).unwrap_err().to_string();
    assert!(error.contains("unused     text_head.weight") && error.contains("--config FILE.json"), "{error}");
    let lenient = ImportOptions { allow_unused: true, ..ImportOptions::default() };
    let imported = home.import_with("student", &file, &lenient).unwrap();
    assert_eq!(imported.report.ignored, ["text_head.weight"]);
    assert_eq!(imported.skipped[0].keys, ["text_head.weight"]);

    write_student(&file, SMALL, 1.0, |keys| {
        keys.retain(|(key, _)| key != "res_blocks.2.conv1.kernel");
        keys[1].1 = vec![9];
    });
    let error = home.import_with("student", &file, &lenient).unwrap_err().to_string();
    assert!(error.contains("missing    res_blocks.2.conv1.kernel [27, 8, 8]"), "{error}");
    assert!(error.contains("misshaped  input_layer.1.bn.weight expected [8], found [9]"), "{error}");

    // A configuration goes before the shapes.
    write_student(&file, SMALL, 1.0, |_| {});
    let config = home.write("config.json", br#"{"input_dim": 11, "hidden_dim": 8, "embed_dim": 4}"#);
    let with = |config: &Path| ImportOptions { config: Some(config.to_path_buf()), ..ImportOptions::default() };
    let error = home.import_with("student", &file, &with(&config)).unwrap_err().to_string();
    assert!(error.contains("misshaped  input_layer.0.kernel expected [27, 11, 8], found [27, 10, 8]"), "{error}");
    for json in ["{", "{}", "3"] {
        let config = home.write("config.json", json.as_bytes());
        let error = home.import_with("student", &file, &with(&config)).unwrap_err();
        assert!(matches!(&error, ImportError::Config { path, .. } if *path == config), "{error}");
    }
}

#[test]
fn weights_that_are_not_there_say_how_to_get_them() {
    let home = Home::new();
    for (name, expected) in [
        ("sonata", ["CC-BY-NC-4.0", "https://huggingface.co/facebook/sonata", "geopurify weights fetch sonata"]),
        ("student", ["drive.google.com", "geopurify.pth", "geopurify weights import student geopurify.pth"]),
        ("xdecoder", ["X-Decoder", "xdecoder_focall_last.pt", "geopurify weights fetch xdecoder"]),
        ("mine", ["nothing is installed", "no weights 'mine'", "student, sonata, concerto-tiny"]),
    ] {
        let error = home.store.open(name, "student").unwrap_err();
        assert!(matches!(error, StoreError::Missing { .. }), "{error}");
        let message = error.to_string();
        assert!(expected.iter().all(|expected| message.contains(expected)), "{message}");
        assert!(message.contains(home.store.home().to_str().unwrap()), "{message}");
    }
    home.import_with("student", &student_checkpoint(), &name("mine")).unwrap();
    let error = home.store.open("mine", "sonata").unwrap_err();
    assert!(
        matches!(&error, StoreError::WrongModel { expected, found, .. } if expected == "sonata" && found == "student")
    );
    let error = home.store.open("yours", "student").unwrap_err().to_string();
    assert!(error.contains("installed are mine"), "{error}");
    assert!(matches!(home.store.open("a/b", "student"), Err(StoreError::InvalidName { .. })));
}

#[test]
fn a_flipped_byte_is_found() {
    let home = Home::new();
    let file = home.path("student.safetensors");
    write_student(&file, SMALL, 0.5, |_| {});
    home.import("student", &file).unwrap();
    home.store.verify("student").unwrap();
    let path = home.store.path("student").unwrap();
    let honest = std::fs::read(&path).unwrap();
    let mut random = Random(9);
    for i in 0..60 {
        let mut bytes = honest.clone();
        let at = if i < 20 { i * 100 } else { random.below(bytes.len()) };
        bytes[at] ^= 1 << random.below(8);
        std::fs::write(&path, &bytes).unwrap();
        assert!(home.store.verify("student").is_err(), "byte {at}");
    }
    let mut bytes = honest.clone();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let error = home.store.verify("student").unwrap_err();
    assert!(matches!(error, StoreError::Weights(WeightsError::Damaged { .. })), "{error}");

    // A file that someone else put there.
    std::fs::copy(&file, home.store.path("foreign").unwrap()).unwrap();
    assert!(matches!(home.store.describe("foreign"), Err(StoreError::Foreign { .. })));
    assert_eq!(home.store.names().unwrap(), ["foreign", "student"]);
}

#[cfg(unix)]
#[test]
fn damaged_weights_are_not_opened() {
    let home = Home::new();
    let file = home.path("student.safetensors");
    write_student(&file, SMALL, 0.5, |_| {});
    home.import("student", &file).unwrap();
    let path = home.store.path("student").unwrap();
    // Only a file that has been there for a while is remembered.
    let memory = home.store.home().join("verified/student");
    home.store.open("student", "student").unwrap();
    assert!(!memory.exists());
    std::thread::sleep(Duration::from_millis(1100));
    home.store.open("student", "student").unwrap();
    let remembered = std::fs::read_to_string(&memory).unwrap();
    home.store.open("student", "student").unwrap();
    assert_eq!(std::fs::read_to_string(&memory).unwrap(), remembered);

    let honest = std::fs::read(&path).unwrap();
    let modified = std::fs::metadata(&path).unwrap().modified().unwrap();
    let mut random = Random(10);
    for _ in 0..40 {
        let mut bytes = honest.clone();
        let at = random.below(bytes.len());
        bytes[at] ^= 1 << random.below(8);
        // In place, and with the time that it had.
        std::fs::write(&path, &bytes).unwrap();
        std::fs::File::options().append(true).open(&path).unwrap().set_modified(modified).unwrap();
        assert!(home.store.open("student", "student").is_err(), "byte {at}");
        assert!(home.store.export("student", &home.path("out.safetensors"), Dtype::F32).is_err(), "byte {at}");
    }
    std::fs::write(&path, &honest).unwrap();
    home.store.open("student", "student").unwrap();
    home.store.remove("student").unwrap();
    assert!(!memory.exists());
}

#[cfg(unix)]
#[test]
fn a_damaged_file_of_ones_own_is_not_opened() {
    let home = Home::new();
    let file = home.path("student.safetensors");
    write_student(&file, SMALL, 0.5, |_| {});
    home.import("student", &file).unwrap();
    let exported = home.path("exported.safetensors");
    home.store.export("student", &exported, Dtype::F32).unwrap();
    let mut bytes = std::fs::read(&exported).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&exported, bytes).unwrap();
    let error = WeightsFile::open(&exported).unwrap_err();
    assert!(matches!(error, WeightsError::Damaged { .. }), "{error}");
}

#[test]
fn numbers_that_weights_cannot_have_are_named() {
    let home = Home::new();
    let file = home.path("student.safetensors");
    for (key, value, expected) in [
        ("res_blocks.1.conv2.kernel", f32::NAN, "the value is NaN; expected a finite number"),
        ("output_layer.kernel", f32::NEG_INFINITY, "the value is -inf; expected a finite number"),
        ("input_layer.1.bn.running_var", -0.25, "the value is -0.25; expected a finite number, not negative"),
    ] {
        let state = read_state_dict(&student_checkpoint()).unwrap();
        let specs: Vec<_> =
            state.tensors.iter().map(|(k, t)| TensorSpec::new(k, Dtype::F32, t.shape.clone())).collect();
        let mut writer = SafetensorsWriter::create(&file, &specs, &BTreeMap::new()).unwrap();
        let mut row = 0;
        for (name, tensor) in &state.tensors {
            let mut data = tensor.data.clone();
            if name == key {
                row = tensor.shape[0] - 1;
                *data.last_mut().unwrap() = value;
            }
            writer.write_f32(&data).unwrap();
        }
        writer.finish().unwrap();
        let error = home.import("student", &file).unwrap_err().to_string();
        assert!(error.contains(&format!("'{key}', row {row}: {expected}")), "{error}");
        assert!(!home.store.contains("student"));
    }
}

#[test]
fn imports_at_once_leave_one_of_them_whole() {
    let home = Home::new();
    let files: Vec<_> = (0..4)
        .map(|i| {
            let path = home.path(&format!("student{i}.safetensors"));
            write_student(&path, StudentConfig { hidden_dim: 16, ..SMALL }, i as f32, |_| {});
            path
        })
        .collect();
    home.import("student", &files[0]).unwrap();
    // What a killed import leaves.
    let stale = home.store.home().join("weights/.partial-killed");
    std::fs::write(&stale, [0; 1000]).unwrap();
    std::thread::scope(|scope| {
        for file in &files {
            scope.spawn(|| {
                for _ in 0..5 {
                    assert!(home.import("student", file).unwrap().replaced);
                }
            });
        }
        scope.spawn(|| {
            for _ in 0..40 {
                home.store.verify("student").unwrap();
                let mut stored = home.store.open("student", "student").unwrap();
                let first = stored.tensors.take("output_layer.kernel", &[16, 4]).unwrap().data[0];
                let kernel = stored.tensors.take("res_blocks.3.conv2.kernel", &[27, 16, 16]).unwrap();
                assert!(kernel.data.iter().all(|value| *value == first));
            }
        });
    });
    assert_eq!(home.files(), ["student.safetensors"]);
    home.store.verify("student").unwrap();
    let length = std::fs::metadata(home.store.path("student").unwrap()).unwrap().len();
    assert_eq!(home.store.remove("student").unwrap(), length);
    assert!(matches!(home.store.remove("student"), Err(StoreError::Missing { .. })));
    assert!(home.files().is_empty());
}

#[test]
fn tensors_are_taken_from_a_checkpoint_one_at_a_time() {
    let path = student_checkpoint();
    let state = read_state_dict(&path).unwrap();
    let mut file = WeightsFile::open(&path).unwrap();
    assert_eq!(file.contents(), &*state.inventory());
    assert_eq!(file.contents().stripped_prefix, Some("module."));
    for (key, tensor) in &state.tensors {
        assert_eq!(file.take(key, &tensor.shape).unwrap(), *tensor);
    }
    assert!(matches!(file.take("none", &[1]), Err(WeightsError::MissingKey { .. })));
    assert!(matches!(file.take("output_layer.kernel", &[1]), Err(WeightsError::Shape { .. })));
    let counter = "input_layer.1.bn.num_batches_tracked";
    assert!(matches!(file.take(counter, &[]), Err(WeightsError::WrongDtype { .. })));
}

// ---- a server ----

#[derive(Debug, Clone)]
struct Request {
    path: String,
    /// First byte asked for.
    range: Option<usize>,
    if_range: Option<String>,
}

struct Server {
    address: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// Answers every request, numbered from 0, by `answer`; a connection ends with its answer.
    fn new(answer: impl Fn(usize, &Request, &mut TcpStream) -> std::io::Result<()> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        let answer = Arc::new(answer);
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
                std::thread::spawn(move || {
                    let request = read_request(&stream)?;
                    let number = {
                        let mut seen = seen.lock().unwrap();
                        seen.push(request.clone());
                        seen.len() - 1
                    };
                    // A client that has seen enough closes the connection: no failure of the server.
                    answer(number, &request, &mut stream).ok()
                });
            }
        });
        Self { address, requests }
    }

    fn url(&self) -> String {
        format!("{}/file.bin", self.address)
    }

    fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

fn read_request(stream: &TcpStream) -> Option<Request> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next()?.ok()?;
    let mut request = Request { path: first.split(' ').nth(1)?.to_owned(), range: None, if_range: None };
    for line in lines {
        let line = line.ok()?;
        let Some((name, value)) = line.split_once(": ") else {
            break;
        };
        match name.to_ascii_lowercase().as_str() {
            "range" => request.range = value.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok(),
            "if-range" => request.if_range = Some(value.to_owned()),
            _ => {}
        }
    }
    Some(request)
}

fn head(stream: &mut TcpStream, status: &str, headers: &[(&str, String)]) -> std::io::Result<()> {
    let mut text = format!("HTTP/1.1 {status}\r\nConnection: close\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    stream.write_all(format!("{text}\r\n").as_bytes())
}

/// Answers as a good server does, and breaks off after `most` bytes of the body.
fn honest(
    stream: &mut TcpStream,
    request: &Request,
    body: &[u8],
    etag: Option<&str>,
    most: usize,
) -> std::io::Result<()> {
    let mut headers: Vec<_> = etag.map(|etag| ("ETag", etag.to_owned())).into_iter().collect();
    let same = request.if_range.as_deref().is_none_or(|asked| Some(asked) == etag);
    let (status, rest) = match request.range.filter(|_| same) {
        Some(start) if start >= body.len() => {
            headers.push(("Content-Range", format!("bytes */{}", body.len())));
            ("416 Range Not Satisfiable", &[][..])
        }
        Some(start) => {
            headers.push(("Content-Range", format!("bytes {start}-{}/{}", body.len() - 1, body.len())));
            ("206 Partial Content", &body[start..])
        }
        None => ("200 OK", body),
    };
    headers.push(("Content-Length", rest.len().to_string()));
    head(stream, status, &headers)?;
    stream.write_all(&rest[..rest.len().min(most)])
}

fn sha256(bytes: &[u8]) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    file_sha256(file.path()).unwrap()
}

fn registry(url: &str, more: &str) -> String {
    format!(
        "[[weights]]\nname = 'student'\nmodel = 'student'\nabout = 'a student'\nfile = 'file.bin'\nurl = '{url}'\n\
         page = 'http://localhost/page'\n{more}\n[weights.licence]\nid = 'TEST-NC'\nnon_commercial = true\n"
    )
}

fn published(url: &str, more: &str) -> Published {
    Registry::parse(&registry(url, more), "test").unwrap().entries.remove(0)
}

const IMPATIENT: FetchSettings = FetchSettings {
    connect_timeout: Duration::from_secs(2),
    stall_timeout: Duration::from_millis(300),
    attempts: 4,
    first_wait: Duration::from_millis(5),
    allow_http: false,
};

struct Downloads(tempfile::TempDir);

impl Downloads {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn fetch(&self, published: &Published, attempts: u32) -> Result<Fetched, FetchError> {
        fetch(published, self.0.path(), &FetchSettings { attempts, ..IMPATIENT }, &mut |_| {})
    }

    /// The files, the lock left out.
    fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.0.path()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| !name.ends_with(".lock"));
        names.sort();
        names
    }
}

// ---- downloads ----

#[test]
fn a_download_is_whole_and_checked() {
    let body = Random(1).bytes(300_000);
    let hash = sha256(&body);
    let sent = body.clone();
    let server = Server::new(move |_, request, stream| honest(stream, request, &sent, Some("\"a\""), usize::MAX));
    let downloads = Downloads::new();
    let entry = published(&server.url(), &format!("sha256 = '{hash}'\nbytes = 300000"));
    let mut last = None;
    let fetched = fetch(&entry, downloads.0.path(), &IMPATIENT, &mut |event| {
        if let FetchEvent::At { done, total } = event {
            last = Some((done, total));
        }
    })
    .unwrap();
    assert_eq!(last, Some((300_000, Some(300_000))));
    assert_eq!((fetched.bytes, &fetched.sha256, fetched.resumed_at), (300_000, &hash, 0));
    assert!(std::fs::read(&fetched.path).unwrap() == body);
    assert_eq!(downloads.files(), ["file.bin"]);
    assert!(server.requests()[0].range.is_none());
    // It is there already.
    assert_eq!(downloads.fetch(&entry, 1).unwrap().resumed_at, 300_000);
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn the_hash_of_a_first_download_is_remembered() {
    let (old, new) = (Random(21).bytes(20_000), Random(22).bytes(20_000));
    let (first, second) = (old.clone(), new.clone());
    let server = Server::new(move |number, request, stream| {
        honest(stream, request, if number == 0 { &first } else { &second }, None, usize::MAX)
    });
    let downloads = Downloads::new();
    let entry = published(&server.url(), "");
    let fetched = downloads.fetch(&entry, 1).unwrap();
    assert_eq!(downloads.files(), ["file.bin", "file.bin.sha256"]);
    // The file that was not imported is still the same, so it is not fetched again.
    assert_eq!(downloads.fetch(&entry, 1).unwrap().resumed_at, 20_000);
    std::fs::remove_file(&fetched.path).unwrap();
    let error = downloads.fetch(&entry, 1).unwrap_err();
    assert!(matches!(error, FetchError::OtherThanBefore { .. }), "{error}");
    let said = error.to_string();
    assert!(said.contains(&sha256(&old)) && said.contains(&sha256(&new)) && said.contains("file.bin.sha256"), "{said}");
    assert_eq!(downloads.files(), ["file.bin.sha256"]);
    // If the authors have replaced it, the user says so.
    std::fs::remove_file(downloads.0.path().join("file.bin.sha256")).unwrap();
    assert_eq!(downloads.fetch(&entry, 1).unwrap().sha256, sha256(&new));
}

#[test]
fn plain_http_is_only_for_this_machine_unless_asked() {
    let downloads = Downloads::new();
    for url in ["http://example.invalid/a", "HTTP://127.0.0.1.example.invalid/a"] {
        let error = downloads.fetch(&published(url, ""), 1).unwrap_err();
        assert!(matches!(error, FetchError::PlainHttp { .. }), "{error}");
        assert!(error.to_string().contains("--allow-http"), "{error}");
    }
    let allowed = FetchSettings { allow_http: true, attempts: 1, ..IMPATIENT };
    let entry = published("http://example.invalid/a", "");
    let error = fetch(&entry, downloads.0.path(), &allowed, &mut |_| {}).unwrap_err();
    assert!(!matches!(error, FetchError::PlainHttp { .. }), "{error}");
}

#[test]
fn a_length_that_no_weights_have_is_refused() {
    let server = Server::new(|_, _, stream| head(stream, "200 OK", &[("Content-Length", (1_u64 << 50).to_string())]));
    let error = Downloads::new().fetch(&published(&server.url(), ""), 1).unwrap_err();
    assert!(matches!(error, FetchError::TooLong { limit: 17_179_869_184, .. }), "{error}");
}

#[test]
fn leftovers_of_killed_downloads_go() {
    let body = Random(23).bytes(1_000);
    let server = Server::new(move |_, request, stream| honest(stream, request, &body, None, usize::MAX));
    let downloads = Downloads::new();
    for (name, age) in [(".partial-old", 3600), (".partial-new", 0)] {
        let file = std::fs::File::create(downloads.0.path().join(name)).unwrap();
        file.set_modified(std::time::SystemTime::now() - Duration::from_secs(age)).unwrap();
    }
    downloads.fetch(&published(&server.url(), ""), 1).unwrap();
    assert_eq!(downloads.files(), [".partial-new", "file.bin", "file.bin.sha256"]);
}

#[test]
fn broken_connections_are_resumed() {
    let body = Random(2).bytes(1_000_000);
    let sent = body.clone();
    let server = Server::new(move |number, request, stream| {
        let most = if number < 3 { 300_000 } else { usize::MAX };
        honest(stream, request, &sent, Some("\"a\""), most)
    });
    let downloads = Downloads::new();
    let fetched = downloads.fetch(&published(&server.url(), ""), 4).unwrap();
    assert!(std::fs::read(&fetched.path).unwrap() == body);
    let ranges: Vec<_> = server.requests().iter().map(|request| request.range).collect();
    assert_eq!(ranges, [None, Some(300_000), Some(600_000), Some(900_000)]);
    assert!(server.requests()[1..].iter().all(|request| request.if_range.as_deref() == Some("\"a\"")));
}

#[test]
fn another_run_goes_on_where_one_ended() {
    let body = Random(3).bytes(500_000);
    let sent = body.clone();
    let server = Server::new(move |number, request, stream| {
        honest(stream, request, &sent, Some("\"a\""), if number == 0 { 200_000 } else { usize::MAX })
    });
    let downloads = Downloads::new();
    let entry = published(&server.url(), "");
    let error = downloads.fetch(&entry, 1).unwrap_err();
    assert!(matches!(error, FetchError::Connection { kept: 200_000, attempts: 1, .. }), "{error}");
    assert!(error.to_string().contains("run the command again"), "{error}");
    assert_eq!(downloads.files(), ["file.bin.part", "file.bin.part.json"]);
    let fetched = downloads.fetch(&entry, 1).unwrap();
    assert_eq!(fetched.resumed_at, 200_000);
    assert!(std::fs::read(&fetched.path).unwrap() == body);

    // All of it had arrived, and the process was killed before it said so.
    std::fs::rename(&fetched.path, downloads.0.path().join("file.bin.part")).unwrap();
    let origin = format!(r#"{{"url": "{}", "etag": "\"a\"", "total": null}}"#, server.url());
    std::fs::write(downloads.0.path().join("file.bin.part.json"), origin).unwrap();
    assert_eq!(downloads.fetch(&entry, 1).unwrap().sha256, sha256(&body));
    assert_eq!(server.requests()[2].range, Some(500_000));
}

#[test]
fn a_server_without_ranges_sends_it_anew() {
    let body = Random(4).bytes(400_000);
    let sent = body.clone();
    let server = Server::new(move |number, request, stream| {
        let whole = Request { range: None, ..request.clone() };
        honest(stream, &whole, &sent, Some("\"a\""), if number == 0 { 150_000 } else { usize::MAX })
    });
    let downloads = Downloads::new();
    let fetched = downloads.fetch(&published(&server.url(), ""), 2).unwrap();
    assert!(std::fs::read(&fetched.path).unwrap() == body);
    assert_eq!(server.requests()[1].range, Some(150_000));
}

#[test]
fn a_file_that_changes_is_not_mixed() {
    let (old, new) = (Random(5).bytes(300_000), Random(6).bytes(300_000));
    // One server compares the validator, the other ignores it and sends the part asked for.
    for ignores in [false, true] {
        let (old, sent) = (old.clone(), new.clone());
        let server = Server::new(move |number, request, stream| match number {
            0 => honest(stream, request, &old, Some("\"old\""), 100_000),
            _ if ignores => {
                let asked = Request { if_range: None, ..request.clone() };
                honest(stream, &asked, &sent, Some("\"new\""), usize::MAX)
            }
            _ => honest(stream, request, &sent, Some("\"new\""), usize::MAX),
        });
        let downloads = Downloads::new();
        let fetched = downloads.fetch(&published(&server.url(), ""), 4).unwrap();
        assert!(std::fs::read(&fetched.path).unwrap() == new, "ignores: {ignores}");
    }
    // Without a strong validator and without a hash nothing may be put together.
    for etag in [None, Some("W/\"weak\"")] {
        let (old, sent) = (old.clone(), new.clone());
        let server = Server::new(move |number, request, stream| match number {
            0 => honest(stream, request, &old, etag, 100_000),
            _ => honest(stream, request, &sent, etag, usize::MAX),
        });
        let downloads = Downloads::new();
        let fetched = downloads.fetch(&published(&server.url(), ""), 4).unwrap();
        assert!(std::fs::read(&fetched.path).unwrap() == new);
        assert_eq!(server.requests()[1].range, None);
    }
}

#[test]
fn a_wrong_hash_is_told_and_the_file_goes() {
    let body = Random(7).bytes(10_000);
    let found = sha256(&body);
    let expected = sha256(b"something else");
    let server = Server::new(move |_, request, stream| honest(stream, request, &body, Some("\"a\""), usize::MAX));
    let downloads = Downloads::new();
    let error = downloads.fetch(&published(&server.url(), &format!("sha256 = '{expected}'")), 4).unwrap_err();
    assert!(matches!(error, FetchError::WrongHash { .. }), "{error}");
    assert!(error.to_string().contains(&found) && error.to_string().contains(&expected), "{error}");
    assert!(downloads.files().is_empty());
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn refusals_end_it_and_overload_does_not() {
    let downloads = Downloads::new();
    for (status, code) in [("404 Not Found", 404), ("401 Unauthorized", 401), ("403 Forbidden", 403)] {
        let server = Server::new(move |_, _, stream| head(stream, status, &[("Content-Length", "0".to_owned())]));
        let error = downloads.fetch(&published(&server.url(), ""), 4).unwrap_err();
        assert!(matches!(&error, FetchError::Status { status, .. } if status.as_u16() == code), "{error}");
        assert!(error.to_string().contains("http://localhost/page"), "{error}");
        assert_eq!(server.requests().len(), 1);
    }
    let server = Server::new(|number, request, stream| match number {
        0 => head(stream, "503 Service Unavailable", &[("Content-Length", "0".to_owned())]),
        1 => head(stream, "429 Too Many Requests", &[("Content-Length", "0".to_owned())]),
        _ => honest(stream, request, b"body", None, usize::MAX),
    });
    assert_eq!(downloads.fetch(&published(&server.url(), ""), 4).unwrap().bytes, 4);

    // Nobody listens there any more.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = downloads.fetch(&published(&format!("http://{address}/x"), ""), 2).unwrap_err();
    assert!(matches!(error, FetchError::Connection { attempts: 2, kept: 0, .. }), "{error}");
    let error = downloads.fetch(&published("no address", ""), 4).unwrap_err();
    assert!(matches!(error, FetchError::Address { .. }), "{error}");
    let by_hand = Published { url: None, ..published("http://localhost", "by_hand = 'take the second'") };
    let error = downloads.fetch(&by_hand, 4).unwrap_err().to_string();
    assert!(error.contains("take the second") && error.contains("weights import student file.bin"), "{error}");
}

#[test]
fn redirects_are_followed_ranges_too() {
    let body = Random(8).bytes(100_000);
    let sent = body.clone();
    let server = Server::new(move |number, request, stream| match request.path.as_str() {
        "/file.bin" => {
            head(stream, "302 Found", &[("Location", "/real".to_owned()), ("Content-Length", "0".to_owned())])
        }
        _ => honest(stream, request, &sent, Some("\"a\""), if number < 2 { 40_000 } else { usize::MAX }),
    });
    let downloads = Downloads::new();
    let fetched = downloads.fetch(&published(&server.url(), ""), 4).unwrap();
    assert!(std::fs::read(&fetched.path).unwrap() == body);
    let seen: Vec<_> = server.requests().into_iter().map(|request| (request.path, request.range)).collect();
    let expected = [("/file.bin", None), ("/real", None), ("/file.bin", Some(40_000)), ("/real", Some(40_000))];
    assert_eq!(seen, expected.map(|(path, range)| (path.to_owned(), range)));

    let circle = Server::new(|_, _, stream| {
        head(stream, "302 Found", &[("Location", "/file.bin".to_owned()), ("Content-Length", "0".to_owned())])
    });
    let error = downloads.fetch(&published(&circle.url(), ""), 4).unwrap_err();
    assert!(matches!(error, FetchError::Address { .. }), "{error}");
}

#[test]
fn silence_and_dribble_are_not_waited_for() {
    let start = Instant::now();
    let silent = Server::new(|_, _, stream| {
        head(stream, "200 OK", &[("Content-Length", "1000".to_owned())])?;
        stream.write_all(&[1; 100])?;
        std::thread::sleep(Duration::from_secs(20));
        Ok(())
    });
    let mute = Server::new(|_, _, _| {
        std::thread::sleep(Duration::from_secs(20));
        Ok(())
    });
    let dribbling = Server::new(|_, _, stream| {
        head(stream, "200 OK", &[("Content-Length", "1000000".to_owned())])?;
        loop {
            stream.write_all(&[1])?;
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    for (server, expected) in [(&silent, "time"), (&mute, "time"), (&dribbling, "less than 1024 bytes per second")] {
        let downloads = Downloads::new();
        let error = downloads.fetch(&published(&server.url(), ""), 2).unwrap_err();
        assert!(matches!(error, FetchError::Connection { attempts: 2, .. }), "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    }
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

#[test]
fn lengths_are_compared() {
    let downloads = Downloads::new();
    let server = Server::new(|_, request, stream| honest(stream, request, &[1; 1000], None, usize::MAX));
    let error = downloads.fetch(&published(&server.url(), "bytes = 999"), 4).unwrap_err();
    assert!(matches!(error, FetchError::Length { expected: 999, found: 1000, .. }), "{error}");
    // One that does not say its length and does not end.
    let endless = Server::new(|_, _, stream| {
        head(stream, "200 OK", &[("Transfer-Encoding", "chunked".to_owned())])?;
        loop {
            stream.write_all(format!("1000\r\n{}\r\n", "x".repeat(0x1000)).as_bytes())?;
        }
    });
    let error = downloads.fetch(&published(&endless.url(), "bytes = 100000"), 4).unwrap_err();
    assert!(matches!(error, FetchError::Length { expected: 100_000, .. }), "{error}");
    // One that does not say its length and does end.
    let chunked = Server::new(|_, _, stream| {
        head(stream, "200 OK", &[("Transfer-Encoding", "chunked".to_owned())])?;
        stream.write_all(b"4\r\nbody\r\n0\r\n\r\n")
    });
    assert_eq!(downloads.fetch(&published(&chunked.url(), ""), 4).unwrap().sha256, sha256(b"body"));
}

#[test]
fn a_file_larger_than_the_disk_is_not_begun() {
    let server = Server::new(|_, _, stream| {
        head(stream, "200 OK", &[("Content-Length", (1u64 << 60).to_string())])?;
        stream.write_all(&[1; 1000])
    });
    let downloads = Downloads::new();
    let entry = published(&server.url(), &format!("bytes = {}", 1_u64 << 60));
    let error = downloads.fetch(&entry, 4).unwrap_err();
    assert!(matches!(error, FetchError::NoSpace { needed, free: Some(_), .. } if needed == 1 << 60), "{error}");
    assert_eq!(std::fs::metadata(downloads.0.path().join("file.bin.part")).unwrap().len(), 0);
}

#[test]
fn one_download_of_a_file_at_a_time() {
    let downloads = Downloads::new();
    let lock = std::fs::File::create(downloads.0.path().join("file.bin.lock")).unwrap();
    lock.lock().unwrap();
    let server = Server::new(|_, request, stream| honest(stream, request, b"body", None, usize::MAX));
    let entry = published(&server.url(), "");
    assert!(matches!(downloads.fetch(&entry, 1), Err(FetchError::Busy { .. })));
    drop(lock);
    assert_eq!(downloads.fetch(&entry, 1).unwrap().bytes, 4);
}

#[test]
fn acceptance_is_remembered_until_the_terms_change() {
    let downloads = Downloads::new();
    let mut entry = published("http://localhost/x", "");
    assert!(!is_accepted(&entry, downloads.0.path()));
    accept(&entry, downloads.0.path()).unwrap();
    assert!(is_accepted(&entry, downloads.0.path()));
    entry.licence.id = "OTHER".to_owned();
    assert!(!is_accepted(&entry, downloads.0.path()));
}

// ---- the command ----

#[test]
fn the_command_fetches_lists_verifies_and_removes() {
    let home = Home::new();
    let body = std::fs::read(student_checkpoint()).unwrap();
    let hash = sha256(&body);
    let server = Server::new(move |number, request, stream| {
        honest(stream, request, &body, Some("\"a\""), if number == 0 { 300_000 } else { usize::MAX })
    });
    let file = home.write("registry.toml", registry(&server.url(), &format!("sha256 = '{hash}'")).as_bytes());
    let run = |arguments: &[&str]| home.command(arguments).env("GEOPURIFY_REGISTRY", &file).output().unwrap();

    // Not on a terminal and not accepted: the terms and the flag, and no request.
    let output = run(&["weights", "fetch", "student"]);
    assert_eq!(output.status.code(), Some(1));
    let message = text(&output.stderr);
    for expected in ["TEST-NC, NOT FOR COMMERCIAL USE", "--accept-license", &server.url()] {
        assert!(message.contains(expected), "{message}");
    }
    assert!(server.requests().is_empty());

    let output = run(&["weights", "fetch", "student", "--accept-licence"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let message = text(&output.stdout);
    assert!(message.contains("46 applied, 0 missing") && message.contains("installed 'student'"), "{message}");
    assert_eq!(server.requests()[1].range, Some(300_000));
    assert!(!home.store.downloads().join("file.bin").exists());
    let output = run(&["weights", "fetch", "student"]);
    assert!(output.status.success() && text(&output.stdout).contains("installed already"));
    assert_eq!(server.requests().len(), 2);

    let list: Value = serde_json::from_slice(&run(&["weights", "list", "--json"]).stdout).unwrap();
    let entry = &list["installed"][0];
    assert_eq!((&entry["name"], &entry["manifest"]["source_sha256"]), (&"student".into(), &hash.as_str().into()));
    assert_eq!(entry["manifest"]["license"]["id"], "TEST-NC");
    assert_eq!(entry["manifest"]["origin"], server.url());
    assert_eq!(list["not_installed"].as_array().unwrap().len(), 0);
    let table = text(&home.run(&["weights", "list"]).stdout);
    for expected in ["student", &hash[..12], "TEST-NC (not commercial)", "not installed: sonata", "CC-BY-NC-4.0"] {
        assert!(table.contains(expected), "{table}");
    }

    let verified: Value = serde_json::from_slice(&run(&["weights", "verify", "--json"]).stdout).unwrap();
    assert_eq!((verified[0]["name"].as_str(), verified[0]["ok"].as_bool()), (Some("student"), Some(true)));
    let path = home.store.path("student").unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 8;
    std::fs::write(&path, bytes).unwrap();
    let output = run(&["weights", "verify"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("student: FAILED"), "{}", text(&output.stdout));

    assert!(run(&["weights", "rm", "student"]).status.success());
    let output = run(&["weights", "rm", "student"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("no weights 'student'"), "{}", text(&output.stderr));
    assert!(home.files().is_empty());
}

/// Lets the command write no file beyond `bytes`, which a write then answers as it does on a full disk:
/// part of it is written, the rest refused.
#[cfg(unix)]
fn limit_files(command: &mut Command, bytes: u64) {
    use std::os::unix::process::CommandExt as _;
    let limit = move || {
        let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
        // SAFETY: both calls are safe between fork and exec, and the pointer is to a live value.
        let result = unsafe {
            libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
            libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit)
        };
        if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
    };
    // SAFETY: as above; the closure allocates nothing.
    unsafe { command.pre_exec(limit) };
}

#[cfg(unix)]
#[test]
fn a_full_disk_keeps_what_has_arrived_and_the_old_weights() {
    let home = Home::new();
    let body = std::fs::read(student_checkpoint()).unwrap();
    let (length, hash) = (body.len(), sha256(&body));
    let server = Server::new(move |_, request, stream| honest(stream, request, &body, Some("\"a\""), usize::MAX));
    let file = home.write("registry.toml", registry(&server.url(), &format!("sha256 = '{hash}'")).as_bytes());
    let fetch = ["weights", "fetch", "student", "--yes", "--registry", file.to_str().unwrap()];
    let mut command = home.command(&fetch);
    limit_files(&mut command, 400_000);
    let output = command.output().unwrap();
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("more bytes are needed") && message.contains("run the command again"), "{message}");
    let part = home.store.downloads().join("file.bin.part");
    let kept = std::fs::metadata(&part).unwrap().len() as usize;
    assert!(kept > 250_000 && kept <= 400_000, "{kept} of {length}");
    let output = home.run(&fetch);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(server.requests().last().unwrap().range, Some(kept));

    let installed = home.store.path("student").unwrap();
    let before = std::fs::read(&installed).unwrap();
    let checkpoint = student_checkpoint();
    let mut command = home.command(&["weights", "import", "student", checkpoint.to_str().unwrap()]);
    limit_files(&mut command, 400_000);
    let output = command.output().unwrap();
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("bytes are needed") && message.contains("GEOPURIFY_HOME"), "{message}");
    assert!(std::fs::read(&installed).unwrap() == before);
    assert_eq!(home.files(), ["student.safetensors"]);
}
