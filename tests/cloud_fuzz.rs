//! Damaged scans: whatever the bytes, reading ends soon, in a cloud or a `CloudError`, with little
//! memory.
//!
//! Small valid files are cut, flipped, spliced and given absurd numbers. The cases are the same in
//! each run, `PROPTEST_CASES` sets how many. `GEOPURIFY_FUZZ_SECONDS` makes each reader go on with
//! random cases for that long. A find is saved in the target directory; the ones of the past are in
//! `tests/data/cloud/finds`.

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use geopurify::cloud::{CloudError, Field, PointCloud, write_with_fields};
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};

#[path = "common/packing.rs"]
mod packing;

use packing::{gzip, zip};

/// More than any reading of a few KiB may take, at its peak.
const MOST_MEMORY: usize = 64 << 20;
/// Hundreds of times what a case takes, since the machine may be busy.
const MOST_TIME: Duration = Duration::from_secs(10);

/// Counts the bytes that are allocated, and the most there were.
struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator as it is; only numbers are kept on the side.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Relaxed) + layout.size();
        PEAK.fetch_max(now, Relaxed);
        // SAFETY: the caller keeps the contract of this function, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Relaxed) + layout.size();
        PEAK.fetch_max(now, Relaxed);
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Waits for the other tests: what they allocate would be counted too.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads a file as a user's program would, also what is derived from the points.
fn open(path: &Path) -> Result<PointCloud, CloudError> {
    let cloud = PointCloud::read(path)?;
    let (points, finite) = (cloud.len(), cloud.num_finite());
    assert_eq!(cloud.bounds().is_some(), finite > 0);
    assert_eq!(cloud.centered().1.len(), points);
    assert!(cloud.attributes.iter().all(|a| a.data.len() == points));
    assert!(cloud.colors.as_ref().is_none_or(|c| c.len() == points));
    assert!(cloud.normals.as_ref().is_none_or(|n| n.len() == points));
    assert!(cloud.faces.iter().flatten().all(|&i| (i as usize) < points));
    assert!(cloud.spacing().is_none_or(|s| s > 0.0));
    assert!(!cloud.guess_unit().reason.is_empty());
    Ok(cloud)
}

/// Reads `path`, and writes what was read, within the limits; the message says which was not kept.
fn measured(path: &Path, write: bool) -> Result<Result<PointCloud, CloudError>, String> {
    let before = NOW.load(Relaxed);
    PEAK.store(before, Relaxed);
    let start = Instant::now();
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let cloud = open(path);
        match &cloud {
            Ok(cloud) if write => written(path, cloud),
            _ => Ok(()),
        }
        .map(|()| cloud)
    }));
    let (took, peak) = (start.elapsed(), PEAK.load(Relaxed).saturating_sub(before));
    let outcome = outcome.map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
        format!("a panic: {}", text.unwrap_or_default())
    })??;
    if took > MOST_TIME {
        return Err(format!("{took:?}"));
    }
    if peak > MOST_MEMORY {
        return Err(format!("{peak} bytes of memory"));
    }
    if let Err(error) = &outcome {
        let message = error.to_string();
        if !message.contains(&path.display().to_string()) || message.len() > 2000 {
            return Err(format!("a message that is too long or does not name the file: {message}"));
        }
        // Only the decoder of LAZ may have to be stopped by its own panic.
        if message.contains("gave up") && path.extension().is_none_or(|e| e != "laz") {
            return Err(message);
        }
    }
    Ok(outcome)
}

/// A file that could be read can be written with a field, and its points stay as they are.
fn written(path: &Path, cloud: &PointCloud) -> Result<(), String> {
    let fields = [Field::new("label", vec![1_u8; cloud.len()])];
    let own = path.extension().filter(|e| *e == "las" || *e == "laz").unwrap_or("ply".as_ref());
    let dest = path.with_file_name("out").with_extension(own);
    write_with_fields(path, &dest, &fields).map_err(|e| e.to_string())?;
    let again = PointCloud::read(&dest).map_err(|e| e.to_string())?;
    let bits = |c: &PointCloud| -> Vec<[u64; 3]> {
        // The bits of a NaN may change where single and double precision meet.
        c.positions.iter().map(|p| p.map(|x| if x.is_nan() { 1 } else { x.to_bits() })).collect()
    };
    if bits(&again) != bits(cloud) {
        return Err("other positions after writing".into());
    }
    match again.attribute("label") {
        Some(label) if label.data == fields[0].data => Ok(()),
        _ => Err("the field is not what was written".into()),
    }
}

/// One piece of damage. Places are given as parts of the file, or of its start.
#[derive(Clone, Debug)]
enum Damage {
    Cut(Index),
    Flip(Place, u8),
    Byte(Place, u8),
    /// A little-endian number of 1, 2, 4 or 8 bytes.
    Number(Place, u8, u64),
    /// Another number, or word, in place of the n-th number in text.
    Digits(Index, usize),
    Copy(Index, Place, usize),
    Remove(Place, usize),
}

#[derive(Clone, Debug)]
enum Place {
    Start(Index),
    Any(Index),
}

impl Place {
    fn of(&self, bytes: &[u8]) -> usize {
        match self {
            Self::Start(index) => index.index(bytes.len().clamp(1, 400)),
            Self::Any(index) => index.index(bytes.len().max(1)),
        }
    }
}

const WORDS: [&str; 16] = [
    "0",
    "1",
    "-1",
    "3",
    "255",
    "256",
    "65535",
    "65536",
    "2147483648",
    "4294967295",
    "1000000000000",
    "9223372036854775807",
    "18446744073709551615",
    "99999999999999999999999",
    "nan",
    "1e308",
];

const NUMBERS: [u64; 12] =
    [0, 1, 2, 7, 255, 1 << 15, u16::MAX as u64, 1 << 31, u32::MAX as u64, 1_000_000_000_000, i64::MAX as u64, u64::MAX];

fn damage() -> impl Strategy<Value = Damage> {
    let place = || prop_oneof![any::<Index>().prop_map(Place::Start), any::<Index>().prop_map(Place::Any)];
    let number = prop_oneof![prop::sample::select(&NUMBERS[..]), any::<u64>(), 0..5000_u64];
    prop_oneof![
        1 => any::<Index>().prop_map(Damage::Cut),
        3 => (place(), 0..8_u8).prop_map(|(at, bit)| Damage::Flip(at, bit)),
        2 => (place(), any::<u8>()).prop_map(|(at, byte)| Damage::Byte(at, byte)),
        4 => (place(), 0..4_u8, number).prop_map(|(at, size, number)| Damage::Number(at, size, number)),
        4 => (any::<Index>(), 0..WORDS.len()).prop_map(|(at, word)| Damage::Digits(at, word)),
        2 => (any::<Index>(), place(), 1..200_usize).prop_map(|(from, to, n)| Damage::Copy(from, to, n)),
        1 => (place(), 1..100_usize).prop_map(|(at, n)| Damage::Remove(at, n)),
    ]
}

fn apply(damage: &Damage, bytes: &mut Vec<u8>) {
    if bytes.is_empty() {
        return;
    }
    match damage {
        Damage::Cut(at) => bytes.truncate(at.index(bytes.len())),
        Damage::Flip(at, bit) => {
            let at = at.of(bytes);
            bytes[at] ^= 1 << bit;
        }
        Damage::Byte(at, byte) => {
            let at = at.of(bytes);
            bytes[at] = *byte;
        }
        Damage::Number(at, size, number) => {
            let at = at.of(bytes);
            for (slot, byte) in bytes[at..].iter_mut().zip(&number.to_le_bytes()[..1 << size]) {
                *slot = *byte;
            }
        }
        Damage::Digits(which, word) => {
            let digit = |i: usize| bytes.get(i).is_some_and(u8::is_ascii_digit);
            let starts: Vec<usize> = (0..bytes.len()).filter(|&i| digit(i) && (i == 0 || !digit(i - 1))).collect();
            if starts.is_empty() {
                return;
            }
            let start = starts[which.index(starts.len())];
            let end = (start..).find(|&i| !digit(i)).unwrap_or(start);
            bytes.splice(start..end, WORDS[*word].bytes());
        }
        Damage::Copy(from, to, n) => {
            let (from, to) = (from.index(bytes.len()), to.of(bytes));
            let piece = bytes[from..(from + n).min(bytes.len())].to_vec();
            bytes.splice(to..to, piece);
        }
        Damage::Remove(at, n) => {
            let at = at.of(bytes);
            bytes.drain(at..(at + n).min(bytes.len()));
        }
    }
}

/// Damages `seeds` and reads them under `name`. `repair` may make checksums fit again.
fn fuzz(name: &str, seeds: &[Vec<u8>], repair: fn(&mut Vec<u8>)) {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    for seed in seeds {
        fs::write(&path, seed).unwrap();
        measured(&path, true).unwrap().unwrap();
    }
    let case = (any::<Index>(), prop::collection::vec(damage(), 1..5), prop::bool::weighted(0.8));
    let bytes_of = |(seed, damages, repaired): &(Index, Vec<Damage>, bool)| {
        let mut bytes = seeds[seed.index(seeds.len())].clone();
        damages.iter().for_each(|d| apply(d, &mut bytes));
        if *repaired {
            repair(&mut bytes);
        }
        bytes
    };
    let until = std::env::var("GEOPURIFY_FUZZ_SECONDS").ok().map(|seconds| {
        let seconds = seconds.parse().expect("GEOPURIFY_FUZZ_SECONDS is a number of seconds");
        Instant::now() + Duration::from_secs(seconds)
    });
    let config = Config { failure_persistence: None, ..Config::default() };
    let mut rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let (mut cases, mut read) = (0, 0);
    loop {
        let mut runner = TestRunner::new_with_rng(config.clone(), rng);
        let (count, good) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let outcome = runner.run(&case, |case| {
            fs::write(&path, bytes_of(&case)).unwrap();
            // Writing syncs the disk, so not each time.
            let write = count.fetch_add(1, Relaxed) % 8 == 0;
            let cloud = measured(&path, write).map_err(TestCaseError::fail)?;
            good.fetch_add(usize::from(cloud.is_ok()), Relaxed);
            Ok(())
        });
        if let Err(TestError::Fail(why, case)) = outcome {
            let find = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("find.{name}"));
            fs::write(&find, bytes_of(&case)).unwrap();
            panic!("{why}; the file is {}, made by {case:?}", find.display());
        }
        cases += count.into_inner();
        read += good.into_inner();
        if until.is_none_or(|until| Instant::now() > until) {
            break;
        }
        rng = TestRng::from_seed(RngAlgorithm::ChaCha, &std::array::from_fn::<u8, 32, _>(|_| rand_byte()));
    }
    println!("{name}: {cases} cases, {read} of them could be read");
}

/// A byte that differs from run to run.
fn rand_byte() -> u8 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(Instant::now()) as u8
}

fn ply(encoding: &str) -> Vec<u8> {
    let header = format!(
        "ply\nformat {encoding} 1.0\ncomment a test\nelement camera 1\nproperty list uchar short view\nelement vertex 12\nproperty double x\nproperty float y\nproperty float z\nproperty uchar red\nproperty uchar green\nproperty uchar blue\nproperty float nx\nproperty float ny\nproperty float nz\nproperty list uchar int seen\nproperty int label\nelement face 3\nproperty uchar flag\nproperty list uchar uint vertex_indices\nend_header\n"
    );
    let mut out = header.into_bytes();
    let mut put = |x: f64, size: i8| match (encoding, size) {
        ("ascii", _) => out.extend(format!("{x} ").bytes()),
        ("binary_little_endian", 8) => out.extend(x.to_le_bytes()),
        ("binary_little_endian", -4) => out.extend((x as f32).to_le_bytes()),
        ("binary_little_endian", 4) => out.extend((x as i32).to_le_bytes()),
        ("binary_little_endian", 2) => out.extend((x as i16).to_le_bytes()),
        (_, 8) => out.extend(x.to_be_bytes()),
        (_, -4) => out.extend((x as f32).to_be_bytes()),
        (_, 4) => out.extend((x as i32).to_be_bytes()),
        (_, 2) => out.extend((x as i16).to_be_bytes()),
        _ => out.push(x as u8),
    };
    for (x, size) in [(2.0, 1), (7.0, 2), (-7.0, 2)] {
        put(x, size);
    }
    for i in 0..12 {
        let t = f64::from(i);
        let row = [(1e5 + t / 8.0, 8), (t, -4), (-t * 0.5, -4), (t, 1), (9.0, 1), (255.0 - t, 1)];
        let rest = [(0.0, -4), (0.0, -4), (1.0, -4), (1.0, 1), (t, 4), (-t, 4)];
        row.into_iter().chain(rest).for_each(|(x, size)| put(x, size));
    }
    for face in [&[0, 1, 2][..], &[2, 3, 4, 5], &[11, 10, 9]] {
        put(1.0, 1);
        put(face.len() as f64, 1);
        face.iter().for_each(|&i| put(f64::from(i), 4));
    }
    out
}

fn las(format: u8, compressed: bool, extra: bool) -> Vec<u8> {
    let mut builder = las::Builder::from((1, 4));
    builder.point_format = las::point::Format::new(format).unwrap();
    builder.point_format.is_compressed = compressed;
    let vlr = |user: &str, record_id, data| las::Vlr { user_id: user.into(), record_id, data, ..Default::default() };
    let wkt = b"PROJCS[\"x\",UNIT[\"metre\",1]],VERT_CS[\"z\",UNIT[\"foot\",0.3048]]".to_vec();
    builder.vlrs.push(vlr("LASF_Projection", 2112, wkt));
    if extra {
        builder.point_format.extra_bytes = 7;
        let mut data = vec![0; 2 * 192];
        data[2..4].copy_from_slice(&[4, 8 | 16]);
        data[4..12].copy_from_slice(b"flatness");
        data[112..120].copy_from_slice(&0.5_f64.to_le_bytes());
        data[192 + 2] = 9;
        data[192 + 4..192 + 8].copy_from_slice(b"pair");
        builder.vlrs.push(vlr("LASF_Spec", 4, data));
        builder.evlrs.push(vlr("somebody", 100, b"behind the points".to_vec()));
    }
    let format = builder.point_format;
    let mut writer = las::Writer::new(Cursor::new(Vec::new()), builder.into_header().unwrap()).unwrap();
    for i in 0..40_u16 {
        let point = las::Point {
            x: f64::from(i) * 0.25,
            y: f64::from(i * 37 % 11),
            z: 3.0,
            intensity: i * 7,
            return_number: 1,
            number_of_returns: 2,
            gps_time: format.has_gps_time.then_some(1e8 + f64::from(i)),
            color: format.has_color.then(|| las::Color::new(i * 256, 512, 65535)),
            nir: format.has_nir.then_some(i),
            extra_bytes: vec![i as u8; if extra { 7 } else { 0 }],
            ..Default::default()
        };
        writer.write_point(point).unwrap();
    }
    writer.into_inner().unwrap().into_inner()
}

/// A file whose chunks differ in their number of points, as those of a COPC file do.
fn variable_chunks() -> Vec<u8> {
    let mut out = las(7, false, false);
    let u16_at = |bytes: &[u8], at: usize| usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]));
    let (start, length) = (u16_at(&out, 96), u16_at(&out, 105));
    let points = out.split_off(start);
    let builder = laz::LazVlrBuilder::default().with_point_format(7, 0).unwrap();
    let vlr = builder.with_variable_chunk_size().build();
    let mut data = Vec::new();
    vlr.write_to(&mut data).unwrap();
    let mut record = vec![0; 54];
    record[2..16].copy_from_slice(b"laszip encoded");
    record[18..20].copy_from_slice(&22204_u16.to_le_bytes());
    record[20..22].copy_from_slice(&(data.len() as u16).to_le_bytes());
    out.extend(record);
    out.extend(data);
    let start = out.len() as u64;
    out[96..100].copy_from_slice(&(start as u32).to_le_bytes());
    out[100] += 1;
    out[104] |= 0x80;
    let mut out = Cursor::new(out);
    out.set_position(start);
    let mut compressor = laz::LasZipCompressor::new(&mut out, vlr).unwrap();
    for chunk in points.chunks(15 * length) {
        compressor.compress_many(chunk).unwrap();
        compressor.finish_current_chunk().unwrap();
    }
    compressor.done().unwrap();
    drop(compressor);
    out.into_inner()
}

fn pcd(data: &str) -> Vec<u8> {
    let mut out = format!(
        "# .PCD v0.7 - Point Cloud Data file format\nVERSION 0.7\nFIELDS x y z rgb normal_x normal_y normal_z hist\nSIZE 8 4 4 4 4 4 4 2\nTYPE F F F F F F F I\nCOUNT 1 1 1 1 1 1 1 3\nWIDTH 5\nHEIGHT 4\nVIEWPOINT 0 0 0 1 0 0 0\nPOINTS 20\nDATA {data}\n"
    )
    .into_bytes();
    let mut columns = vec![Vec::new(); 8];
    for i in 0..20_u8 {
        let x = if i == 3 { f64::NAN } else { 1e6 + f64::from(i) };
        let floats = [f32::from(i), -1.5, f32::from_bits(0x00ff_0080), 0.0, 0.6, -0.8];
        let hist = [i16::from(i), 0, -3];
        if data == "ascii" {
            out.extend(format!("{x} 1 {i} 16711680 0 0.6 -0.8 {i} 0 -3\n").bytes());
            continue;
        }
        let mut row = vec![x.to_le_bytes().to_vec()];
        row.extend(floats.map(|v| v.to_le_bytes().to_vec()));
        row.push(hist.iter().flat_map(|h| h.to_le_bytes()).collect());
        if data == "binary" {
            out.extend(row.concat());
        }
        for (column, value) in columns.iter_mut().zip(row) {
            column.extend(value);
        }
    }
    if data == "binary_compressed" {
        let plain: Vec<u8> = columns.concat();
        let mut packed = Vec::new();
        let mut last: &[u8] = &[];
        for run in plain.chunks(8) {
            if run == last {
                // A copy of eight bytes from eight back: the length less two in the upper bits.
                packed.extend([6 << 5, 7]);
            } else {
                packed.push(run.len() as u8 - 1);
                packed.extend(run);
            }
            last = run;
        }
        out.extend((packed.len() as u32).to_le_bytes());
        out.extend((plain.len() as u32).to_le_bytes());
        out.extend(packed);
    }
    out
}

fn e57(spherical: bool) -> Vec<u8> {
    use e57::{Record, RecordDataType, RecordName, RecordValue};
    let mut out = Cursor::new(Vec::new());
    let mut writer = e57::E57Writer::new(&mut out, "file").unwrap();
    let scaled = |name| {
        let data_type = RecordDataType::ScaledInteger { min: -5000, max: 5000, scale: 0.001, offset: 1.0 };
        Record { name, data_type }
    };
    let cartesian =
        [RecordName::CartesianX, RecordName::CartesianY, RecordName::CartesianZ].map(scaled).into_iter().chain([
            Record::CARTESIAN_INVALID_STATE,
            Record::COLOR_RED_U8,
            Record::COLOR_GREEN_U8,
            Record::COLOR_BLUE_U8,
            Record { name: RecordName::Intensity, data_type: RecordDataType::Integer { min: 7, max: 7 } },
        ]);
    let mut scan = writer.add_pointcloud("one", cartesian.collect()).unwrap();
    for i in 0..30_i64 {
        let scaled = [i, i * i, -i].map(RecordValue::ScaledInteger);
        let integers = [i % 3, 10, 0, 255, 7].map(RecordValue::Integer);
        scan.add_point([&scaled[..], &integers].concat()).unwrap();
    }
    scan.finalize().unwrap();
    if spherical {
        let sphere = vec![Record::SPHERICAL_RANGE_F64, Record::SPHERICAL_AZIMUTH_F64, Record::SPHERICAL_ELEVATION_F64];
        let mut scan = writer.add_pointcloud("two", sphere).unwrap();
        for i in 0..9 {
            scan.add_point([2.0, f64::from(i), 0.1].map(RecordValue::Double).to_vec()).unwrap();
        }
        scan.finalize().unwrap();
    }
    writer.finalize().unwrap();
    drop(writer);
    out.into_inner()
}

/// Makes the checksums of all pages fit, or damage would not get past them.
fn repair_e57(bytes: &mut Vec<u8>) {
    let whole = bytes.len().next_multiple_of(1024);
    bytes.resize(whole, b' ');
    for page in bytes.chunks_exact_mut(1024) {
        let crc = page[..1020].iter().fold(u32::MAX, |crc, &byte| {
            (0..8).fold(crc ^ u32::from(byte), |crc, _| crc >> 1 ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 })
        });
        page[1020..].copy_from_slice(&(!crc).to_be_bytes());
    }
}

/// Gaussian splats as training writes them.
fn splat_ply() -> Vec<u8> {
    let names = "x y z nx ny nz f_dc_0 f_dc_1 f_dc_2 opacity scale_0 scale_1 scale_2 rot_0 rot_1 rot_2 rot_3";
    let properties: String = names.split(' ').map(|name| format!("property float {name}\n")).collect();
    let header = format!("ply\nformat binary_little_endian 1.0\nelement vertex 12\n{properties}end_header\n");
    let value = |i: usize, k: usize| if (3..6).contains(&k) { 0.0 } else { (i as f32 * 0.7 + k as f32).sin() * 4.0 };
    let rows = (0..12).flat_map(|i| (0..17).map(move |k| value(i, k)));
    header.into_bytes().into_iter().chain(rows.flat_map(f32::to_le_bytes)).collect()
}

/// Gaussian splats in chunks, as compressed PLY files hold them.
fn packed_ply() -> Vec<u8> {
    let mut header = String::from("ply\nformat binary_little_endian 1.0\nelement chunk 2\n");
    for set in ["min_", "max_", "min_scale_", "max_scale_"] {
        header += &["x", "y", "z"].map(|axis| format!("property float {set}{axis}\n")).concat();
    }
    for set in ["min_", "max_"] {
        header += &["r", "g", "b"].map(|channel| format!("property float {set}{channel}\n")).concat();
    }
    header += "element vertex 260\n";
    header += &["position", "rotation", "scale", "color"].map(|name| format!("property uint packed_{name}\n")).concat();
    let mut out = (header + "end_header\n").into_bytes();
    for i in 0..2_u8 {
        let low = f32::from(i);
        for x in [low, low + 3.0, -7.0, -4.0, 0.0, 1.0] {
            (0..3).for_each(|_| out.extend(x.to_le_bytes()));
        }
    }
    (0..4 * 260_u32).for_each(|i| out.extend(i.wrapping_mul(0x9e37_79b9).to_le_bytes()));
    out
}

fn spz(version: u32) -> Vec<u8> {
    let (position, rotation) = (if version == 1 { 6 } else { 9 }, if version == 3 { 4 } else { 3 });
    let mut out = b"NGSP".to_vec();
    out.extend(version.to_le_bytes());
    out.extend(20_u32.to_le_bytes());
    out.extend([1, 12, 0, 0]);
    out.extend((0..20 * (position + 1 + 3 + 3 + rotation + 9)).map(|i| (i * 37 % 251) as u8));
    out
}

fn splat() -> Vec<u8> {
    let row = |i: u8| {
        let floats = [f32::from(i), 1.5, -2.0, 0.01, 0.02, 0.04];
        floats.iter().flat_map(|x| x.to_le_bytes()).chain([i, 100, 200, 255, 255, 128, 128, 128]).collect::<Vec<u8>>()
    };
    (0..20).flat_map(row).collect()
}

fn ptx() -> Vec<u8> {
    let header = "3\n2\n1 2 3\n1 0 0\n0 1 0\n0 0 1\n1 0 0 0\n0 1 0 0\n0 0 1 0\n1 2 3 1\n";
    let points = "0.5 1 2 0.4 1 2 3\n0 0 0 0.5 0 0 0\n".repeat(3);
    let plain = "1 2 3 0.5\n".repeat(6);
    format!("{header}{points}{header}{plain}").into_bytes()
}

/// An archive of two scans and a note, stored and packed.
fn archive() -> Vec<u8> {
    zip(&[("a.md", b"a note", false), ("small.xyz", b"1 2 3\n4 5 6\n", false), ("room.ply", &ply("ascii"), true)])
}

/// What was found once: the file, and a part of the error that it must give (none if it is legal).
const FINDS: &[(&str, Option<&str>)] = &[
    // Adding a field took memory for a whole chunk of points, as many as the file said.
    ("chunks_of_billions.laz", None),
    // The arithmetic decoder leaves its tables.
    ("coder_out_of_range.laz", Some("the decoder gave up")),
    // Written as PLY, the column had no name there either, and the result could not be read.
    ("column_without_name.csv", None),
    // No points, but a column in memory for each of 6.5 million values.
    ("millions_of_columns.pcd", Some("6553503 values per point")),
    // Behind the added field the records were looked for in the wrong place.
    ("records_within_points.las", Some("start of the extended records")),
];

#[test]
fn finds_of_the_past() {
    let _alone = alone();
    let finds = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/cloud/finds");
    let dir = tempfile::tempdir().unwrap();
    let mut files: Vec<_> =
        fs::read_dir(&finds).unwrap().map(|f| f.unwrap().file_name().into_string().unwrap()).collect();
    files.sort();
    assert_eq!(files, FINDS.iter().map(|find| find.0).collect::<Vec<_>>());
    for (name, expected) in FINDS {
        let path = dir.path().join(name);
        fs::copy(finds.join(name), &path).unwrap();
        match (measured(&path, true).unwrap(), expected) {
            (Ok(cloud), None) => assert!(!cloud.is_empty(), "{name}"),
            (Err(error), Some(part)) => assert!(error.to_string().contains(part), "{error}"),
            (Ok(_), Some(_)) => panic!("{name} could be read"),
            (Err(error), None) => panic!("{error}"),
        }
    }
}

/// Fields that take no bits: each point is free in the file, but not in memory.
#[test]
fn e57_fields_without_bits() {
    let _alone = alone();
    use e57::{Record, RecordDataType, RecordName, RecordValue};
    let constant = |name| Record { name, data_type: RecordDataType::Integer { min: 5, max: 5 } };
    let mut fields = [RecordName::CartesianX, RecordName::CartesianY, RecordName::CartesianZ].map(constant).to_vec();
    fields.push(Record::CARTESIAN_INVALID_STATE);
    let mut values = vec![RecordValue::Integer(5); 3];
    values.push(RecordValue::Integer(0));
    let scan = |extra: usize, points: usize| {
        let (mut fields, mut values) = (fields.clone(), values.clone());
        for i in 0..extra {
            fields.push(constant(RecordName::Unknown { namespace: "ext".into(), name: format!("constant{i}") }));
            values.push(RecordValue::Integer(5));
        }
        let mut out = Cursor::new(Vec::new());
        let mut writer = e57::E57Writer::new(&mut out, "file").unwrap();
        writer.register_extension(e57::Extension::new("ext", "urn:ext")).unwrap();
        let mut scan = writer.add_pointcloud("one", fields).unwrap();
        (0..points).for_each(|_| scan.add_point(values.clone()).unwrap());
        scan.finalize().unwrap();
        writer.finalize().unwrap();
        drop(writer);
        out.into_inner()
    };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("constant.e57");
    fs::write(&path, scan(3, 1000)).unwrap();
    let cloud = measured(&path, true).unwrap().unwrap();
    assert_eq!((cloud.len(), cloud.positions[999]), (1000, [5.0; 3]));
    assert_eq!(cloud.attribute("ext:constant2").unwrap().data.range(), Some((5.0, 5.0)));
    fs::write(&path, scan(100, 200_000)).unwrap();
    let error = measured(&path, true).unwrap().unwrap_err().to_string();
    assert!(error.contains("number of points is 200000"), "{error}");
}

/// Headers that promise 10^12 points take next to no memory.
#[test]
fn a_promise_takes_no_memory() {
    const MANY: &[u8] = b"1000000000000";
    let _alone = alone();
    let edit = |bytes: Vec<u8>, old: &[u8], new: &[u8]| {
        let at = bytes.windows(old.len()).position(|w| w == old).unwrap();
        [&bytes[..at], new, &bytes[at + old.len()..]].concat()
    };
    let text = |bytes, key: &str, number: &str| {
        edit(bytes, format!("{key}{number}").as_bytes(), &[key.as_bytes(), MANY].concat())
    };
    let count = |mut bytes: Vec<u8>| {
        bytes[247..255].copy_from_slice(&1_000_000_000_000_u64.to_le_bytes());
        bytes
    };
    let mut files = vec![
        ("a.las", count(las(3, false, false))),
        ("a.laz", count(las(3, true, false))),
        ("b.laz", count(las(7, true, true))),
        ("a.pts", [MANY, b"\n1 2 3 4\n"].concat()),
        ("a.ptx", edit(ptx(), b"3\n2\n", &[MANY, b"\n2\n"].concat())),
        ("a.off", [b"OFF\n", MANY, b" 1 0\n0 0 0\n"].concat()),
        ("b.off", [b"OFF\n1 ", MANY, b" 0\n0 0 0\n"].concat()),
        ("a.gltf", text(gltf(false), "\"count\":", "3")),
        ("b.gltf", text(gltf(false), "\"byteLength\":", "60")),
    ];
    for encoding in ["ascii", "binary_little_endian", "binary_big_endian"] {
        files.push(("a.ply", text(ply(encoding), "element vertex ", "12")));
        files.push(("b.ply", text(ply(encoding), "element face ", "3")));
        files.push(("c.ply", text(ply(encoding), "element camera ", "1")));
    }
    for data in ["ascii", "binary", "binary_compressed"] {
        files.push(("a.pcd", text(pcd(data), "POINTS ", "20")));
    }
    // Checksums apart, the XML is the end of the file, and its length is in the header.
    let plain: Vec<u8> = e57(false).chunks(1024).flat_map(|page| page[..1020].to_vec()).collect();
    let mut plain = edit(plain, b"recordCount=\"30\"", b"recordCount=\"1000000000000\"");
    let length = u64::from_le_bytes(plain[32..40].try_into().unwrap()) + 11;
    plain[32..40].copy_from_slice(&length.to_le_bytes());
    plain.resize(plain.len().next_multiple_of(1020), b' ');
    let mut scan: Vec<u8> = plain.chunks(1020).flat_map(|page| [page, &[0; 4]].concat()).collect();
    repair_e57(&mut scan);
    files.push(("a.e57", scan));
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        let before = NOW.load(Relaxed);
        PEAK.store(before, Relaxed);
        let error = PointCloud::read(&path).unwrap_err();
        let peak = PEAK.load(Relaxed).saturating_sub(before);
        assert!(error.to_string().contains("1000000000000"), "{error}");
        assert!(peak < 1 << 20, "{peak} bytes for {error}");
    }
}

#[test]
fn ply_ascii() {
    fuzz("ascii.ply", &[ply("ascii")], |_| ());
}

#[test]
fn ply_little_endian() {
    fuzz("little.ply", &[ply("binary_little_endian")], |_| ());
}

#[test]
fn ply_big_endian() {
    fuzz("big.ply", &[ply("binary_big_endian")], |_| ());
}

#[test]
fn las_plain() {
    fuzz("plain.las", &[las(3, false, true), las(6, false, false)], |_| ());
}

#[test]
fn las_compressed() {
    let seeds = [
        las(1, true, false),
        las(3, true, true),
        las(6, true, false),
        las(7, true, true),
        las(8, true, true),
        variable_chunks(),
    ];
    fuzz("packed.laz", &seeds, |_| ());
}

#[test]
fn pcd_ascii() {
    fuzz("ascii.pcd", &[pcd("ascii")], |_| ());
}

#[test]
fn pcd_binary() {
    fuzz("binary.pcd", &[pcd("binary")], |_| ());
}

#[test]
fn pcd_compressed() {
    fuzz("compressed.pcd", &[pcd("binary_compressed")], |_| ());
}

#[test]
fn e57_pages() {
    fuzz("pages.e57", &[e57(false), e57(true)], repair_e57);
}

/// A mesh with a colour or a picture on its faces and a strip; the picture is missing.
fn painted_ply(encoding: &str) -> Vec<u8> {
    let mut out = format!(
        "ply\nformat {encoding} 1.0\ncomment TextureFile none.png\nelement vertex 4\nproperty float x\nproperty float y\nproperty float z\nelement face 2\nproperty list uchar int vertex_indices\nproperty list uchar float texcoord\nproperty uchar red\nproperty uchar green\nproperty uchar blue\nproperty int texnumber\nelement tristrips 1\nproperty list int int vertex_indices\nend_header\n"
    )
    .into_bytes();
    if encoding == "ascii" {
        out.extend(b"0 0 0\n1 0 0\n1 1 0\n0 1 0\n3 0 1 2 6 0 0 1 0 1 1 200 30 30 0\n3 0 2 3 6 0 0 1 1 0 1 30 30 200 1\n6 0 1 2 -1 3 2\n");
        return out;
    }
    for vertex in [[0.0_f32, 0.0, 0.0], [1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [0.0, 1.0, 0.0]] {
        out.extend(vertex.iter().flat_map(|x| x.to_le_bytes()));
    }
    for (corners, color) in [([0_i32, 1, 2], [200_u8, 30, 30]), ([0, 2, 3], [30, 30, 200])] {
        out.push(3);
        out.extend(corners.iter().flat_map(|corner| corner.to_le_bytes()));
        out.push(6);
        out.extend([0.0_f32, 0.0, 1.0, 0.0, 1.0, 1.0].iter().flat_map(|x| x.to_le_bytes()));
        out.extend(color);
        out.extend(0_i32.to_le_bytes());
    }
    out.extend([6_i32, 0, 1, 2, -1, 3, 2].iter().flat_map(|x| x.to_le_bytes()));
    out
}

#[test]
fn ply_painted() {
    fuzz("painted.ply", &["ascii", "binary_little_endian"].map(painted_ply), |_| ());
}

#[test]
fn mesh_obj() {
    let seeds = [
        "# a mesh\nmtllib none.mtl\nv 0 0 0 1 0 0\nv 1 0 0 0 1 0\nv 1 1 0 0 0 1\nv 0 1 0 1 1 1\nvt 0 0\nvt 1 0\nvt 1 1\nvn 0 0 1\nusemtl wall\nf 1/1/1 2/2/1 3/3/1 -1/1/1\nl 1 2\n",
        "v 0 0 0\nv 0.1 0 0\nv 0 0.1 0\nf 1 2 3\n",
    ];
    fuzz("mesh.obj", &seeds.map(|seed| seed.as_bytes().to_vec()), |_| ());
}

#[test]
fn mesh_off() {
    let seeds = [
        "OFF\n4 2 0\n0 0 0\n1 0 0\n1 1 0\n0 1 0\n3 0 1 2 200 30 30\n3 0 2 3 0.1 0.2 0.3 1\n",
        "CNOFF 3 1 0\n0 0 0 0 0 1 255 0 0 255\n0.1 0 0 0 0 1 0 255 0 255\n0 0.1 0 0 0 1 0 0 255 255\n3 0 1 2\n",
    ];
    fuzz("mesh.off", &seeds.map(|seed| seed.as_bytes().to_vec()), |_| ());
}

#[test]
fn mesh_stl() {
    let facet = "facet normal 0 0 1\nouter loop\nvertex 0 0 0\nvertex 1 0 0\nvertex 0 1e0 0\nendloop\nendfacet\n";
    let mut binary = b"COLOR=abcd".to_vec();
    binary.resize(80, 0);
    binary.extend(2_u32.to_le_bytes());
    for z in [0.0_f32, 0.1] {
        let numbers = [0.0, 0.0, 1.0, 0.0, 0.0, z, 1.0, 0.0, z, 0.0, 1.0, z];
        binary.extend(numbers.iter().flat_map(|x: &f32| x.to_le_bytes()));
        binary.extend([0x1f, 0x80]);
    }
    fuzz("mesh.stl", &[format!("solid a\n{facet}{facet}endsolid a\n").into_bytes(), binary], |_| ());
}

/// A square with a picture of two pixels in the file, as GLB or as text.
fn gltf(binary: bool) -> Vec<u8> {
    // 2 x 1 pixels of one bit with a palette.
    const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x02\0\0\0\x01\x01\x03\0\0\0\xce\xec\xed\xc9\
        \0\0\0\x06PLTE\n\x14\x1e\xc8d2w\xa0\xb3\x9c\
        \0\0\0\rIDATx\x01\x01\x02\0\xfd\xff\0\x80\0\x82\0\x81\xc3n%\xe0\0\0\0\0IEND\xaeB`\x82";
    let mut body: Vec<u8> = Vec::new();
    for row in [[0.0_f32, 0.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 1.0, 0.0], [1.0, 0.0, 1.0, 1.0, 1.0]] {
        body.extend(row.iter().flat_map(|x| x.to_le_bytes()));
    }
    body.extend([0, 0, 1, 0, 2, 0, 0, 0]);
    body.extend(PNG);
    let uri = if binary {
        ""
    } else {
        r#""uri":"data:;base64,AAAAAAAAAAAAAAAAAAAAAAAAAAAAAIA/AAAAAAAAAAAAAIA/AAAAAAAAgD8AAAAAAACAPwAAgD8AAIA/AAABAAIAAAA=""#
    };
    let image = if binary { r#"{"bufferView":2}"# } else { r#"{"uri":"none.png"}"# };
    let json = format!(
        r#"{{"asset":{{"version":"2.0"}},"nodes":[{{"children":[1],"scale":[2,2,2]}},{{"mesh":0,"matrix":[1,0,0,0,0,1,0,0,0,0,1,0,3,0,0,1]}}],"meshes":[{{"primitives":[{{"attributes":{{"POSITION":0,"TEXCOORD_0":1}},"indices":2,"material":0,"mode":5}}]}}],"materials":[{{"pbrMetallicRoughness":{{"baseColorFactor":[1,0.5,0,1],"baseColorTexture":{{"index":0}}}}}}],"textures":[{{"source":0}}],"images":[{image}],"buffers":[{{{uri}}}],"bufferViews":[{{"buffer":0,"byteLength":60,"byteStride":20}},{{"buffer":0,"byteOffset":60,"byteLength":6}},{{"buffer":0,"byteOffset":68,"byteLength":{}}}],"accessors":[{{"bufferView":0,"componentType":5126,"count":3,"type":"VEC3"}},{{"bufferView":0,"byteOffset":12,"componentType":5126,"count":3,"type":"VEC2"}},{{"bufferView":1,"componentType":5123,"count":3,"type":"SCALAR"}}]}}"#,
        PNG.len()
    );
    if !binary {
        return json.into_bytes();
    }
    let mut out = b"glTF\x02\0\0\0\0\0\0\0".to_vec();
    for (kind, chunk) in [(b"JSON", json.as_bytes()), (b"BIN\0", body.as_slice())] {
        out.extend((chunk.len() as u32).to_le_bytes());
        out.extend(kind);
        out.extend(chunk);
    }
    out
}

#[test]
fn mesh_glb() {
    fuzz("mesh.glb", &[gltf(true)], |_| ());
}

#[test]
fn mesh_gltf() {
    fuzz("mesh.gltf", &[gltf(false)], |_| ());
}

#[test]
fn text() {
    let seeds = [
        "# points\n1 2 3 255 0 10\n4 5 6 0 1 2\n-1e3 .5 7 9 9 9\n",
        "id,\"X\",Y [m],z,R,G,B,nx,ny,nz\n7,1,2,3,10,20,30,0,0,1\n8,1,2,4,10,20,30,0,0,1\n",
        "3\r\n1 2 3 -700 1 2 3\r\n4 5 6 20 4 5 6\r\n4 5 7 20 4 5 6\r\n",
        "1;2,5;3\n-1,25;0;1e3\n",
    ];
    fuzz("points.txt", &seeds.map(|s| s.as_bytes().to_vec()), |_| ());
}

#[test]
fn text_of_many_programs() {
    let seeds = [
        "X\tY\tZ\n0,002\t1,516\t2,042\n3,615\t2,754\t-0,002\n",
        "\"Points:0\",\"Points:1\",\"Points:2\",\"RGB:0\",\"RGB:1\",\"RGB:2\"\n0.1,1,2,217,212,220\n3,2,1,1,2,3\n",
        "lon,lat,height\n8.68,48.85,312\n8.68005,48.85003,314.5\n",
        "1 2 3 10 20 30 2\n4 5 6 90 80 70 1\n7 8 9 5 6 7 2\n",
    ];
    fuzz("columns.txt", &seeds.map(|s| s.as_bytes().to_vec()), |_| ());
}

#[test]
fn splats_in_ply() {
    fuzz("splats.ply", &[splat_ply(), packed_ply()], |_| ());
}

#[test]
fn splats_without_a_header() {
    fuzz("rows.splat", &[splat()], |_| ());
}

#[test]
fn splats_as_spz() {
    fuzz("packed.spz", &[spz(1), spz(2), spz(3), gzip(&spz(2))], |_| ());
}

#[test]
fn ptx_grids() {
    fuzz("grids.ptx", &[ptx()], |_| ());
}

#[test]
fn packed_scans() {
    fuzz("room.ply.gz", &[gzip(&ply("ascii")), gzip(&archive())], |_| ());
    fuzz("room.zip", &[archive()], |_| ());
}
