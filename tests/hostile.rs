//! Inputs that were made to do harm, as a user's program meets them: files, paths, numbers, signals.
//!
//! Every run is a process of its own, whose memory and time are measured. This binary stays small, because a
//! child's peak of memory begins with its parent's.

#![cfg(unix)]

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

#[path = "common/packing.rs"]
mod packing;

use packing::{gzip, zip};

/// Most memory of a run that refuses an input of some KiB, the program itself included.
const MOST_MEMORY: u64 = 64 << 20;
/// Most time of all processors.
const MOST_TIME: Duration = Duration::from_secs(2);

/// How a run ended.
struct Ran {
    code: Option<i32>,
    out: Vec<u8>,
    err: String,
    peak: u64,
    took: Duration,
}

fn command<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>, home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_geopurify"));
    command.args(arguments).env("GEOPURIFY_DEVICE", "cpu").env("GEOPURIFY_HOME", home).env("RUST_BACKTRACE", "0");
    command.stdin(Stdio::null());
    command
}

/// Waits for a child, whose outputs other threads read, and returns its code, peak of memory and time.
fn wait(child: &Child) -> (Option<i32>, u64, Duration) {
    let (mut status, id) = (0, i32::try_from(child.id()).unwrap());
    // SAFETY: both structures live until the call is over.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        assert_eq!(libc::wait4(id, &raw mut status, 0, &raw mut usage), id);
        usage
    };
    let time = |time: libc::timeval| Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1000);
    let code = libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status));
    (code, usage.ru_maxrss as u64 * 1024, time(usage.ru_utime) + time(usage.ru_stime))
}

#[expect(clippy::zombie_processes, reason = "`wait` waits, and measures too")]
fn run<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>, home: &Path) -> Ran {
    let mut child = command(arguments, home).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (mut out, mut err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let errors = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        err.read_to_end(&mut bytes).unwrap();
        bytes
    });
    let mut bytes = Vec::new();
    out.read_to_end(&mut bytes).unwrap();
    let err = String::from_utf8_lossy(&errors.join().unwrap()).into_owned();
    let (code, peak, took) = wait(&child);
    Ran { code, out: bytes, err, peak, took }
}

/// Runs what must fail with exit code 1, within the bounds. Returns its message.
fn refused<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> String {
    let home = tempfile::tempdir().unwrap();
    let ran = run(arguments, home.path());
    assert_eq!(ran.code, Some(1), "{}", ran.err);
    within_bounds(&ran, &ran.err);
    ran.err
}

fn within_bounds(ran: &Ran, what: &str) {
    assert!(!ran.err.contains("panicked"), "{}", ran.err);
    assert!(ran.peak < MOST_MEMORY, "{what}: {} bytes of memory", ran.peak);
    assert!(ran.took < MOST_TIME, "{what}: {:?}", ran.took);
}

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/hostile").join(name)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

// ---- files ----

#[test]
fn a_list_is_not_copied_into_dictionaries_again_and_again() {
    let error = refused(["weights", "import", "student", text(&data("pickle_ordereddict_bomb_small.pth"))]);
    assert!(error.contains("lists are copied into dictionaries too often"), "{error}");
}

#[test]
fn weights_that_are_no_numbers_are_refused_by_key_and_row() {
    let error = refused(["weights", "import", "student", text(&data("student_nan.pth"))]);
    assert!(error.contains("row ") && error.contains("the value is NaN; expected a finite number"), "{error}");
    let error = refused(["weights", "import", "student", text(&data("student_negative_variance.pth"))]);
    assert!(
        error.contains("running_var', row ") && error.contains("expected a finite number, not negative"),
        "{error}"
    );
}

#[test]
fn features_that_are_no_numbers_are_refused_by_row() {
    let folder = tempfile::tempdir().unwrap();
    let (scan, features) = (data("p.xyz"), data("features_one_nan.safetensors"));
    let output = folder.path().join("out.safetensors");
    let scan_and_features = ["purify", text(&scan), "--features", text(&features), "-o", text(&output)];
    let error = refused([&scan_and_features[..], &["--affinities", "uniform"]].concat());
    assert!(error.contains("'features', row ") && error.contains("the value is NaN"), "{error}");
    assert!(!output.exists());
}

/// A mesh with a picture, since `info` reads it without any network.
#[test]
fn a_picture_may_not_declare_far_more_than_it_holds() {
    let folder = tempfile::tempdir().unwrap();
    fs::copy(data("jpeg_16384_claim.jpg"), folder.path().join("claim.jpg")).unwrap();
    let mesh = "mtllib a.mtl\nusemtl a\nv 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 0 1\nf 1/1 2/2 3/3\n";
    fs::write(folder.path().join("a.obj"), mesh).unwrap();
    fs::write(folder.path().join("a.mtl"), "newmtl a\nmap_Kd claim.jpg\n").unwrap();
    let ran = run(["info", text(&folder.path().join("a.obj"))], folder.path());
    within_bounds(&ran, "the mesh");
    let out = String::from_utf8(ran.out).unwrap();
    let expected = "the JPEG header declares 16384 x 16384 pixels in 691 bytes: 805306368 bytes would come from 691 \
                    bytes; expected at most 16777216";
    assert!(out.contains(expected), "{out}");
}

#[test]
fn metadata_of_a_recording_are_bounded() {
    let error = refused(["info", text(&data("r3d_json_bomb.r3d"))]);
    assert!(error.contains("metadata") && error.contains("expected at most 16777216"), "{error}");
}

#[test]
fn attributes_of_an_element_are_bounded() {
    let error = refused(["info", text(&data("e57_attributes.e57"))]);
    assert!(error.contains("an element with too many attributes"), "{error}");
}

#[test]
fn names_in_files_do_not_control_the_terminal() {
    let imported = ["weights", "import", "student"].map(OsString::from).to_vec();
    let import = |name: &str| [imported.clone(), vec![data(name).into()]].concat();
    let error = refused(import("escape_in_pickle_class.pth"));
    assert!(error.contains(r"os.\u{1b}[31mPWN\u{1b}]0;t\u{7}"), "{error}");
    assert!(!error.contains(['\x1b', '\x07']), "{error:?}");
    let error = refused([OsString::from("info"), data("escape_in_ply_element.ply").into()]);
    assert!(error.contains(r"\u{1b}[31mPWN\u{1b}]0;t\u{7}"), "{error}");
    assert!(!error.contains(['\x1b', '\x07']), "{error:?}");
}

/// Inputs that claim much and hold little, for every reader. Each is some KiB at most.
fn claims() -> Vec<(&'static str, Vec<u8>)> {
    let ply = |format: &str, body: &[u8]| {
        let header = format!(
            "ply\nformat {format} 1.0\nelement vertex 2000000000\nproperty float x\nproperty float y\nproperty float \
             z\nelement face 2000000000\nproperty list uchar int vertex_indices\nend_header\n"
        );
        [header.as_bytes(), body].concat()
    };
    let pcd = |data: &str, body: &[u8]| {
        let header = format!(
            "VERSION 0.7\nFIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 1 1 1\nWIDTH 2000000000\nHEIGHT 1\nPOINTS \
             2000000000\nDATA {data}\n"
        );
        [header.as_bytes(), body].concat()
    };
    let mut las = vec![0; 375];
    las[..4].copy_from_slice(b"LASF");
    las[24..26].copy_from_slice(&[1, 4]);
    las[94..96].copy_from_slice(&375_u16.to_le_bytes());
    las[96..100].copy_from_slice(&375_u32.to_le_bytes());
    las[104] = 6;
    las[105..107].copy_from_slice(&30_u16.to_le_bytes());
    las[247..255].copy_from_slice(&(1_u64 << 40).to_le_bytes());
    let mut laz = las.clone();
    laz[104] |= 0x80;
    let gltf = r#"{"asset":{"version":"2.0"},"buffers":[{"byteLength":4000000000,"uri":"data:,"}],
        "bufferViews":[{"buffer":0,"byteLength":4000000000}],
        "accessors":[{"bufferView":0,"componentType":5126,"count":300000000,"type":"VEC3"}],
        "meshes":[{"primitives":[{"attributes":{"POSITION":0}}]}],"nodes":[{"mesh":0}],"scenes":[{"nodes":[0]}]}"#;
    let stl = [&[b' '; 80][..], &u32::MAX.to_le_bytes(), &[0; 100]].concat();
    let spz = [&b"NGSP"[..], &2_u32.to_le_bytes(), &u32::MAX.to_le_bytes(), &[0, 12, 0, 0], &[0; 64]].concat();
    let e57 = {
        let mut bytes = vec![0; 1024];
        bytes[..8].copy_from_slice(b"ASTM-E57");
        bytes[8] = 1;
        bytes[16..24].copy_from_slice(&1024_u64.to_le_bytes());
        bytes[24..32].copy_from_slice(&48_u64.to_le_bytes());
        bytes[32..40].copy_from_slice(&(1_u64 << 40).to_le_bytes());
        bytes[40..48].copy_from_slice(&1024_u64.to_le_bytes());
        bytes
    };
    let sens = [&4_u32.to_le_bytes()[..], &(1_u64 << 40).to_le_bytes(), &[0; 100]].concat();
    let zeros = vec![0; 24 << 20];
    vec![
        ("ascii.ply", ply("ascii", b"0 0 0\n")),
        ("binary.ply", ply("binary_little_endian", &[0; 24])),
        ("ascii.pcd", pcd("ascii", b"0 0 0\n")),
        ("binary.pcd", pcd("binary", &[0; 24])),
        ("packed.pcd", pcd("binary_compressed", &[&[24, 0, 0, 0][..], &u32::MAX.to_le_bytes(), &[0; 24]].concat())),
        ("a.las", las),
        ("a.laz", laz),
        ("a.e57", e57),
        (
            "a.ptx",
            b"100000\n100000\n0 0 0\n1 0 0\n0 1 0\n0 0 1\n1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n0 0 0 0.5\n".to_vec(),
        ),
        ("a.obj", b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 2000000000\n".to_vec()),
        ("a.gltf", gltf.into()),
        ("a.stl", stl),
        ("a.off", b"OFF\n2000000000 2000000000 0\n0 0 0\n".to_vec()),
        ("a.spz", gzip(&spz)),
        ("zeros.ply.gz", gzip(&zeros)),
        ("zeros.zip", zip(&[("zeros.xyz", &zeros, true)])),
        ("a.sens", sens),
        ("poses.r3d", zip(&[("metadata", format!("{{\"poses\":[{}[]]}}", "[],".repeat(2_000_000)).as_bytes(), true)])),
        ("a.safetensors", [&(4_u64 << 20).to_le_bytes()[..], b"{}"].concat()),
    ]
}

#[test]
fn readers_take_memory_and_time_in_proportion_to_their_input() {
    let folder = tempfile::tempdir().unwrap();
    let inputs = claims();
    for (name, bytes) in inputs {
        assert!(bytes.len() < 64 << 10, "{name}: {} bytes", bytes.len());
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        let arguments: &[&str] = match name.ends_with(".safetensors") {
            true => &["weights", "import", "student"],
            false => &["info"],
        };
        let ran = run([arguments, &[text(&path)]].concat(), folder.path());
        assert_eq!(ran.code, Some(1), "{name}: {} {}", ran.err, String::from_utf8_lossy(&ran.out));
        within_bounds(&ran, name);
    }
}

/// Pictures and maps of a recording that declare 16384 x 16384 pixels.
#[test]
fn maps_of_a_recording_take_memory_in_proportion() {
    let folder = tempfile::tempdir().unwrap();
    let metadata = br#"{"poses":[[0,0,0,1,0,0,0]],"K":[9000,0,0,0,9000,0,8192,8192,1],"w":16384,"h":16384,
        "dw":16384,"dh":16384}"#;
    let picture = fs::read(data("jpeg_16384_claim.jpg")).unwrap();
    let archive = zip(&[
        ("metadata", metadata, true),
        ("rgbd/0.jpg", &picture, false),
        ("rgbd/0.depth", b"bvx-\0\0\0\x40bvx$", false),
    ]);
    let path = folder.path().join("a.r3d");
    fs::write(&path, archive).unwrap();
    within_bounds(&run(["info", text(&path)], folder.path()), "the recording");
}

// ---- numbers on the command line ----

#[test]
fn absurd_numbers_are_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let (output, scan) = (folder.path().join("out"), data("p.xyz"));
    let features = data("features_one_nan.safetensors");
    let (output, scan, features) = (text(&output), text(&scan), text(&features));
    let cases: [(&[&str], i32, &str); 10] = [
        (&["synth", "--rooms", "18446744073709551615", "-o", output], 1, "the number of rooms"),
        (&["synth", "--rooms", "1000000000", "-o", output], 1, "expected at most 100000"),
        (&["synth", "--train", "18446744073709551615", "--val", "2", "-o", output], 1, "more than can be counted"),
        (
            &[
                "purify",
                scan,
                "--features",
                features,
                "-o",
                output,
                "--affinities",
                "uniform",
                "--iterations",
                "99999999",
            ],
            1,
            "at most 10000",
        ),
        (&["infer", scan, "--words", "a", "-o", output, "--iterations", "99999999"], 2, "expected at most 10000"),
        (&["infer", scan, "--words", "a", "-o", output, "--sharpness", "nan"], 2, "expected a finite number"),
        (&["infer", scan, "--words", "a", "-o", output, "--threshold", "nan"], 2, "expected -1 to 1"),
        (&["infer", scan, "--words", "a", "-o", output, "--voxel", "inf"], 2, "expected a finite number"),
        (&["query", output, "a", "--level", "nan"], 2, "expected a finite number"),
        (&["encode", scan, "-o", output, "--voxel", "0"], 2, "expected a number above 0"),
    ];
    for (arguments, code, expected) in cases {
        let ran = run(arguments, folder.path());
        assert_eq!(ran.code, Some(code), "{arguments:?}: {}", ran.err);
        assert!(ran.err.contains(expected), "{arguments:?}: {}", ran.err);
        within_bounds(&ran, &format!("{arguments:?}"));
    }
}

// ---- paths ----

/// A scan of a floor, large enough for the demo's networks.
fn write_floor(path: &Path) {
    let row = |i: usize| format!("{}.1 {}.1 0 100 100 100\n", i % 20, i / 20);
    fs::write(path, (0..400).map(row).collect::<String>()).unwrap();
}

#[test]
fn paths_need_not_be_text() {
    let folder = tempfile::tempdir().unwrap();
    let odd = folder.path().join(OsStr::from_bytes(b"z\xff"));
    fs::create_dir(&odd).unwrap();
    let scan = odd.join("a.xyz");
    write_floor(&scan);
    let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/geopurify/student_tiny_module.pth");
    let os = |arguments: &[&str]| arguments.iter().map(OsString::from).collect::<Vec<_>>();
    let well = |arguments: Vec<OsString>| {
        let ran = run(&arguments, &odd);
        assert_eq!(ran.code, Some(0), "{arguments:?}: {}", ran.err);
        ran.out
    };
    well([os(&["weights", "import", "student"]), vec![module.into()], os(&["--name", "x"])].concat());
    for arguments in [["weights", "list", "--json"], ["weights", "verify", "--json"]] {
        let shown = String::from_utf8(well(os(&arguments))).unwrap();
        assert!(shown.contains("z\u{fffd}"), "{shown}");
    }
    let json = |out: Vec<u8>| serde_json::from_slice::<serde_json::Value>(&out).unwrap();
    let encoded = odd.join("e.safetensors");
    let arguments = [os(&["encode"]), vec![scan.clone().into(), "-o".into(), encoded.clone().into()], os(&["--json"])];
    assert!(json(well(arguments.concat()))["scan"].as_str().unwrap().ends_with("z\u{fffd}/a.xyz"));
    assert!(encoded.is_file());
    let rooms = odd.join("rooms");
    let size = os(&["synth", "--rooms", "1", "--views", "1", "--size", "64x48", "--spacing", "0.1", "--json", "-o"]);
    let made = json(well([size, vec![rooms.into()]].concat()));
    assert!(made["output"].as_str().unwrap().ends_with("z\u{fffd}/rooms"), "{made}");
    let labelled = odd.join("labelled");
    let arguments = [os(&["infer", "--words", "floor,wall", "--views", "2", "--size", "64"]), vec![scan.into()]];
    well([arguments.concat(), vec!["-o".into(), labelled.clone().into()]].concat());
    let summary = json(fs::read(labelled.join("summary.json")).unwrap());
    assert!(summary["scan"].as_str().unwrap().ends_with("z\u{fffd}/a.xyz"), "{summary}");
    let heat = odd.join("h.ply");
    let arguments = [os(&["query"]), vec![labelled.into()], os(&["floor", "--json", "-o"]), vec![heat.clone().into()]];
    assert!(json(well(arguments.concat()))["cloud"].as_str().unwrap().ends_with("z\u{fffd}/h.ply"));
    assert!(heat.is_file());
}

#[test]
fn training_says_at_once_that_its_cache_must_be_text() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join(OsStr::from_bytes(b"z\xff"));
    let scan = folder.path().join("a.xyz");
    write_floor(&scan);
    let run_folder = folder.path().join("run");
    let arguments = ["train", "--scenes", text(&scan), "-o", text(&run_folder), "--epochs", "1", "--cache"];
    let mut arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
    arguments.push(cache.into());
    let ran = run(&arguments, folder.path());
    assert_eq!(ran.code, Some(1), "{}", ran.err);
    assert!(ran.err.contains("the path of the cache must be UTF-8"), "{}", ran.err);
    assert!(ran.took < 2 * MOST_TIME, "{:?}", ran.took);
}

// ---- signals ----

fn signal(child: &Child, signal: i32) {
    // SAFETY: the child runs, or waits to be waited for, so its number is its own.
    assert_eq!(unsafe { libc::kill(i32::try_from(child.id()).unwrap(), signal) }, 0);
}

/// Names in a folder and in those below it.
fn names(folder: &Path) -> Vec<String> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        all.push(entry.file_name().to_string_lossy().into_owned());
        if entry.path().is_dir() {
            all.extend(names(&entry.path()));
        }
    }
    all
}

#[test]
#[expect(clippy::zombie_processes, reason = "`wait` waits, and measures too")]
fn a_signal_gives_its_own_exit_code_and_leaves_nothing_half_written() {
    for (number, code) in [(libc::SIGTERM, 143), (libc::SIGINT, 130)] {
        let folder = tempfile::tempdir().unwrap();
        let rooms = folder.path().join("rooms");
        let arguments = ["synth", "--rooms", "500", "--views", "4", "--size", "160x120", "-o", text(&rooms)];
        let child = command(arguments, folder.path()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let start = Instant::now();
        while !names(&rooms).iter().any(|name| name.starts_with(".partial-")) {
            assert!(start.elapsed() < Duration::from_secs(60), "no room was begun");
            std::thread::sleep(Duration::from_millis(10));
        }
        signal(&child, number);
        assert_eq!(wait(&child).0, Some(code));
        let left: Vec<_> = names(&rooms).into_iter().filter(|name| name.starts_with(".partial-")).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

/// A file of zeros that takes a while to hash and no space on the disk. Its own hash is wrong.
#[cfg(target_os = "linux")]
#[test]
#[expect(clippy::zombie_processes, reason = "`wait` waits, and measures too")]
fn a_file_that_becomes_shorter_while_it_is_read_is_an_error() {
    const BYTES: u64 = 12 << 30;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    let header = format!(
        "{{\"__metadata__\":{{\"sha256\":\"{}\"}},\"a\":{{\"dtype\":\"U8\",\"shape\":[{BYTES}],\"data_offsets\":[0,\
         {BYTES}]}}}}",
        "0".repeat(64)
    );
    let mut file = File::create(&path).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    file.set_len(8 + header.len() as u64 + BYTES).unwrap();
    let mut child = command(["weights", "import", "student", text(&path)], folder.path());
    let mut child = child.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let (maps, start) = (format!("/proc/{}/maps", child.id()), Instant::now());
    while !fs::read_to_string(&maps).unwrap().contains("a.safetensors") {
        assert!(start.elapsed() < Duration::from_secs(60), "the file is not mapped");
        std::thread::sleep(Duration::from_millis(1));
    }
    file.set_len(1 << 20).unwrap();
    let mut error = String::new();
    child.stderr.take().unwrap().read_to_string(&mut error).unwrap();
    assert_eq!(wait(&child).0, Some(1), "{error}");
    assert!(error.contains("a file became shorter while it was read"), "{error}");
}

/// Rooms that are killed at any moment go on to the same bytes.
#[test]
fn killed_rooms_go_on_to_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let make = |name: &str| {
        let rooms = folder.path().join(name);
        let sizes = ["synth", "--rooms", "3", "--views", "2", "--size", "64x48", "--spacing", "0.08", "-o"];
        let mut arguments: Vec<OsString> = sizes.iter().map(OsString::from).collect();
        arguments.push(rooms.into());
        command(arguments, folder.path())
    };
    let start = Instant::now();
    assert!(make("whole").stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success());
    let whole = start.elapsed();
    // Seeded, so that a failure can be seen again.
    let mut state = 7_u64;
    for _ in 0..3 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mut child = make("killed").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(whole.mul_f64((state >> 33) as f64 / f64::from(1_u32 << 31)));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert!(make("killed").stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success());
    assert_eq!(contents(&folder.path().join("killed")), contents(&folder.path().join("whole")));
}

/// Every file below a folder, by its path in it.
fn contents(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let (mut files, mut folders) = (Vec::new(), vec![folder.to_path_buf()]);
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap().map(|entry| entry.unwrap().path()) {
            match entry.is_dir() {
                true => folders.push(entry),
                false => files.push((entry.strip_prefix(folder).unwrap().to_path_buf(), fs::read(&entry).unwrap())),
            }
        }
    }
    files.sort();
    files
}
