//! What a training run leaves behind to be looked at: event files, the log of metrics, the curve.

use std::path::Path;

use geopurify::images::draw::{Scale, class_color};
use geopurify::images::{Orientation, read_image, write_png};
use geopurify::training::LossCurve;
use geopurify::training::{EventWriter, last_event_file, now};
use geopurify::training::{LogError, MetricsLog, read_series};
use serde::Serialize;

/// CRC-32C bit by bit, from its polynomial.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 })
    })
}

fn masked(bytes: &[u8]) -> u32 {
    let crc = crc32c(bytes);
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

#[derive(Debug, Default, PartialEq)]
struct Event {
    wall_time: f64,
    step: u64,
    version: Option<String>,
    scalar: Option<(String, f32)>,
}

/// The fields of a protocol buffer: number and value, for varints as eight bytes.
fn fields(mut bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let length = bytes.iter().position(|byte| byte & 0x80 == 0).unwrap() + 1;
        let (number, rest) = bytes.split_at(length);
        *bytes = rest;
        number.iter().rev().fold(0, |value, byte| value << 7 | u64::from(byte & 0x7f))
    }
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let length = match key & 7 {
            0 => {
                found.push((key >> 3, varint(&mut bytes).to_le_bytes().to_vec()));
                continue;
            }
            1 => 8,
            5 => 4,
            2 => varint(&mut bytes) as usize,
            other => panic!("wire type {other}"),
        };
        found.push((key >> 3, bytes[..length].to_vec()));
        bytes = &bytes[length..];
    }
    found
}

fn read_events(path: &Path) -> Vec<Event> {
    let bytes = std::fs::read(path).unwrap();
    let mut rest = bytes.as_slice();
    let mut events = Vec::new();
    while !rest.is_empty() {
        let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
        assert_eq!(u32::from_le_bytes(rest[8..12].try_into().unwrap()), masked(&rest[..8]));
        let data = &rest[12..12 + length];
        assert_eq!(u32::from_le_bytes(rest[12 + length..16 + length].try_into().unwrap()), masked(data));
        rest = &rest[16 + length..];
        let mut event = Event::default();
        for (number, value) in fields(data) {
            match number {
                1 => event.wall_time = f64::from_le_bytes(value.try_into().unwrap()),
                2 => event.step = u64::from_le_bytes(value.try_into().unwrap()),
                3 => event.version = Some(String::from_utf8(value).unwrap()),
                5 => {
                    let summary = fields(&value);
                    let [(1, entry)] = summary.as_slice() else { panic!("one value per summary") };
                    let entry = fields(entry);
                    let [(1, tag), (2, number)] = entry.as_slice() else { panic!("a tag and a value") };
                    let number = f32::from_le_bytes(number.as_slice().try_into().unwrap());
                    event.scalar = Some((String::from_utf8(tag.clone()).unwrap(), number));
                }
                other => panic!("field {other}"),
            }
        }
        events.push(event);
    }
    events
}

fn scalar(step: u64, tag: &str, value: f32, wall_time: f64) -> Event {
    Event { wall_time, step, version: None, scalar: Some((tag.to_owned(), value)) }
}

#[test]
fn events_are_what_an_independent_reader_finds() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("run");
    let mut writer = EventWriter::create(&dir).unwrap();
    assert_eq!(crc32c(b"123456789"), 0xe306_9283, "the check value of the catalogue");
    writer.scalar("loss", 0, 4.15, 1.7e9).unwrap();
    writer.scalar("loss", 300, -0.5, 1.7e9 + 0.25).unwrap();
    let long = "learning rate/".repeat(40);
    writer.scalar(&long, u64::from(u32::MAX), f32::NAN, 0.0).unwrap();
    writer.flush().unwrap();
    let events = read_events(writer.path());
    assert_eq!(events.len(), 4);
    assert_eq!((events[0].version.as_deref(), events[0].step), (Some("brain.Event:2"), 0));
    assert!((events[0].wall_time - now()).abs() < 60.0);
    assert_eq!(events[1..3], [scalar(0, "loss", 4.15, 1.7e9), scalar(300, "loss", -0.5, 1.7e9 + 0.25)]);
    let (tag, value) = events[3].scalar.as_ref().unwrap();
    assert!(*tag == long && value.is_nan() && events[3].step == u64::from(u32::MAX));
    // A second file of the same second has a name of its own, and comes after it.
    let path = writer.path().to_owned();
    let second = EventWriter::create(&dir).unwrap();
    assert!(second.path() > path.as_path());
    assert_eq!(last_event_file(&dir).unwrap().unwrap(), second.path());
    assert_eq!(read_events(&path).len(), 4);
    assert!(path.file_name().unwrap().to_str().unwrap().contains("tfevents"));
}

#[test]
fn events_are_taken_up_after_a_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = EventWriter::create(dir.path()).unwrap();
    for step in 0..10 {
        writer.scalar("loss", step, step as f32, 5.0).unwrap();
    }
    writer.flush().unwrap();
    let path = writer.path().to_owned();
    drop(writer);
    let whole = std::fs::read(&path).unwrap();

    // Going on without a cut.
    let mut writer = EventWriter::append(&path).unwrap();
    writer.scalar("loss", 10, 10.0, 5.0).unwrap();
    drop(writer);
    assert_eq!(read_events(&path).len(), 12);

    // After step 6, from a file whose last record was cut anywhere, or never reached the disk.
    let record = whole.len() - (whole.len() - 40) / 10;
    for cut in (record..whole.len()).chain([whole.len() + 30]) {
        let mut torn = whole.clone();
        torn.resize(cut, 0);
        std::fs::write(&path, &torn).unwrap();
        if cut != record {
            let append = EventWriter::append(&path);
            assert!(append.is_err() || read_events(&path).len() == 10, "cut at {cut}");
        }
        let mut writer = EventWriter::resume(&path, 6).unwrap();
        writer.scalar("loss", 7, 70.0, 6.0).unwrap();
        writer.flush().unwrap();
        let events = read_events(&path);
        let found: Vec<(u64, f32)> =
            events[1..].iter().map(|event| (event.step, event.scalar.as_ref().unwrap().1)).collect();
        let expected: Vec<(u64, f32)> = (0..7).map(|step| (step, step as f32)).chain([(7, 70.0)]).collect();
        assert_eq!(found, expected, "cut at {cut}");
        assert_eq!(events[0].version.as_deref(), Some("brain.Event:2"));
    }
    // Nothing to drop leaves the file as it is.
    std::fs::write(&path, &whole).unwrap();
    drop(EventWriter::resume(&path, 9).unwrap());
    assert_eq!(std::fs::read(&path).unwrap(), whole);
    // A damaged byte ends what can be read.
    let mut damaged = whole.clone();
    damaged[whole.len() / 2] ^= 1;
    std::fs::write(&path, &damaged).unwrap();
    drop(EventWriter::resume(&path, 9).unwrap());
    assert!((2..9).contains(&read_events(&path).len()));
}

#[test]
fn other_files_are_not_cut() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notes.txt");
    for content in [&b"some notes"[..], b"", &[0; 100]] {
        std::fs::write(&path, content).unwrap();
        assert!(matches!(EventWriter::resume(&path, 3), Err(LogError::Format { .. })));
        assert!(matches!(EventWriter::append(&path), Err(LogError::Format { .. })));
        assert_eq!(std::fs::read(&path).unwrap(), content);
    }
    std::fs::write(&path, "some notes").unwrap();
    assert!(matches!(MetricsLog::resume(&path, 3), Err(LogError::Format { .. })));
    std::fs::write(&path, "{\"step\": 1}\nnotes\n{\"step\": 2}\n").unwrap();
    let message = MetricsLog::resume(&path, 3).unwrap_err().to_string();
    assert!(message.contains("notes.txt") && message.contains("line 2"), "{message}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"step\": 1}\nnotes\n{\"step\": 2}\n");
    assert!(matches!(EventWriter::resume(&dir.path().join("none"), 3), Err(LogError::Io { .. })));
    assert_eq!(last_event_file(dir.path()).unwrap(), None);
}

#[derive(Serialize)]
struct Metrics {
    loss: f64,
    scene: &'static str,
}

#[test]
fn the_log_has_a_line_per_step_and_is_taken_up_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("metrics.jsonl");
    let mut log = MetricsLog::create(&path).unwrap();
    for step in 0..5 {
        log.write(step, &Metrics { loss: 4.0 - step as f64, scene: "room" }).unwrap();
        // On the disk at once.
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), step as usize + 1);
    }
    log.write(5, &Metrics { loss: f64::NAN, scene: "room" }).unwrap();
    assert!(matches!(log.write(6, &3.0), Err(LogError::Record { step: 6, .. })));
    drop(log);
    let whole = std::fs::read_to_string(&path).unwrap();
    assert_eq!(whole.lines().next(), Some("{\"step\":0,\"loss\":4.0,\"scene\":\"room\"}"));
    assert!(whole.ends_with("{\"step\":5,\"loss\":null,\"scene\":\"room\"}\n"));
    let expected: Vec<(u64, f64)> = (0..5).map(|step| (step, 4.0 - step as f64)).collect();
    assert_eq!(read_series(&path, "loss").unwrap(), expected);
    assert!(read_series(&path, "scene").unwrap().is_empty());

    let last_line = whole.trim_end().rfind('\n').unwrap() + 1;
    for cut in last_line..=whole.len() {
        std::fs::write(&path, &whole[..cut]).unwrap();
        assert_eq!(read_series(&path, "loss").unwrap(), expected, "cut at {cut}");
        let mut log = MetricsLog::resume(&path, 3).unwrap();
        log.write(4, &Metrics { loss: 9.0, scene: "hall" }).unwrap();
        assert_eq!(log.path(), path);
        let mut found = expected[..4].to_vec();
        found.push((4, 9.0));
        assert_eq!(read_series(&path, "loss").unwrap(), found, "cut at {cut}");
    }
    // A last line of zeros, which a disk gives for what it never got.
    std::fs::write(&path, [&whole.as_bytes()[..last_line], &[0; 20]].concat()).unwrap();
    drop(MetricsLog::resume(&path, 100).unwrap());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), whole[..last_line]);
    // No file yet; one that a killed run left in its first line; one without a line end.
    for content in [None, Some(""), Some("{\"st"), Some("{\"step\":7}")] {
        std::fs::remove_file(&path).unwrap();
        if let Some(content) = content {
            std::fs::write(&path, content).unwrap();
        }
        let mut log = MetricsLog::resume(&path, 0).unwrap();
        log.write(1, &Metrics { loss: 1.0, scene: "a" }).unwrap();
        assert_eq!(read_series(&path, "loss").unwrap(), [(1, 1.0)]);
    }
}

#[test]
fn the_curve_shows_every_series() {
    // A fall with noise, as training has it.
    let mut state = 1_u64;
    let mut noise = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f64 / (1_u64 << 24) as f64 - 0.5
    };
    let steps = 0..2000_u64;
    let loss: Vec<(u64, f64)> =
        steps.clone().map(|step| (step, 0.9 + 3.2 * (-(step as f64) / 420.0).exp() + 0.55 * noise())).collect();
    let rate = |step: u64| match step {
        0..40 => step as f64 / 40.0,
        _ => 0.5 + 0.5 * (std::f64::consts::PI * (step as f64 - 40.0) / 1960.0).cos(),
    };
    let learning_rate: Vec<(u64, f64)> = steps.map(|step| (step, 1e-3 * rate(step))).collect();
    let validation: Vec<(u64, f64)> =
        (0..20).map(|i| (i * 100 + 99, 0.74 - 0.4 * (-(i as f64) / 4.0).exp() + 0.02 * noise())).collect();
    let curve = LossCurve {
        title: "student, 20 scenes",
        loss: &loss,
        learning_rate: &learning_rate,
        validation: Some(("affinity precision", &validation)),
        scale: Scale::Linear,
    };
    let image = curve.draw().unwrap();
    assert_eq!((image.width(), image.height()), (1000, 600));
    let count = |color: [u8; 3]| image.pixels().iter().filter(|pixel| **pixel == color).count();
    for class in 0..3 {
        assert!(count(class_color(class)) > 400, "series {class}: {}", count(class_color(class)));
    }
    assert_eq!(curve.draw().unwrap(), image, "a picture is drawn the same twice");
    let folder = std::env::var_os("GEOPURIFY_TEST_PICTURES").map(std::path::PathBuf::from);
    let temporary = tempfile::tempdir().unwrap();
    let folder = folder.as_deref().unwrap_or(temporary.path());
    write_png(&folder.join("loss.png"), &image).unwrap();
    assert_eq!(read_image(&folder.join("loss.png"), Orientation::Upright).unwrap(), image);
    let log = LossCurve { scale: Scale::Log, validation: None, ..curve };
    write_png(&folder.join("loss-log.png"), &log.draw().unwrap()).unwrap();
    let short = LossCurve { loss: &loss[..8], learning_rate: &learning_rate[..8], validation: None, ..curve };
    write_png(&folder.join("loss-short.png"), &short.draw().unwrap()).unwrap();
    assert_ne!(log.draw().unwrap(), image);

    // Nothing, one step, values that are none.
    for loss in [&[][..], &[(0, 4.0)], &[(0, f64::NAN), (1, f64::INFINITY)], &[(0, -1.0), (1, 0.0)]] {
        for scale in [Scale::Linear, Scale::Log] {
            LossCurve { title: "", loss, learning_rate: &[], validation: Some(("", &[])), scale }.draw().unwrap();
        }
    }
}
