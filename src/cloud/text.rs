//! Text with one point per line: XYZ, CSV, PTS and the like.

use std::path::Path;

use super::data::{Attribute, AttributeData, colors_from, parse_f64};
use super::error::{CloudError, Origin, quoted};
use super::{Format, PointCloud};

/// Most columns. No scanner writes more, so such a file is something else.
const MOST_COLUMNS: usize = 1000;

pub(super) fn read(path: &Path, bytes: &[u8]) -> Result<PointCloud, CloudError> {
    let origin = Origin { path, format: "text" };
    let body = bytes.strip_prefix(b"\xef\xbb\xbf".as_slice()).unwrap_or(bytes);
    let mut names: Option<Vec<String>> = None;
    let mut promised: Option<(u64, u64)> = None;
    let mut columns: Vec<Vec<f64>> = Vec::new();
    let mut values = Vec::new();
    let lines = body.split(|&b| b == b'\n' || b == b'\r').filter(|l| !l.is_empty());
    // Lines are counted separately, because a carriage return before a line feed must not count as a line.
    let mut counter = LineCounter { bytes: body, at: 0, line: 1 };
    for text in lines {
        let number = counter.advance_to(text);
        let line = text.trim_ascii();
        if line.is_empty() {
            continue;
        }
        if let Some(comment) = comment(line) {
            if columns.is_empty() && names.is_none() {
                names = header_names(comment);
            }
            continue;
        }
        let words = split(line);
        values.clear();
        let bad = (words.iter()).position(|word| match number_of(word) {
            Some(x) => {
                values.push(x);
                false
            }
            None => true,
        });
        if columns.is_empty() {
            // Before the first point comes a line of names, or the number of points of a PTS file.
            if bad.is_some()
                && let Some(found) = header_names(line)
            {
                names = Some(found);
                continue;
            }
            if let ([count], None, None) = (&*values, bad, promised)
                && count.fract() == 0.0
                && *count >= 0.0
            {
                promised = Some((*count as u64, number));
                continue;
            }
            let expected = "at least three numbers: x, y and z";
            if values.len() < 3 || words.len() > MOST_COLUMNS {
                return Err(origin.line(number, quoted(line), expected));
            }
            if bad.is_none() {
                columns = vec![Vec::new(); values.len()];
            }
        }
        if let Some(i) = bad {
            let word = words.get(i).copied().unwrap_or_default();
            return Err(origin.line(number, quoted(word), format!("a number in column {}", i + 1)));
        }
        if values.len() != columns.len() {
            // A PTS file may hold several scans, each with its point count.
            if values.len() == 1 && promised.is_some() {
                continue;
            }
            let found = format!("{} columns", values.len());
            return Err(origin.line(number, found, format!("{} as in the lines before", columns.len())));
        }
        for (column, &value) in columns.iter_mut().zip(&values) {
            column.push(value);
        }
    }
    let points = columns.first().map_or(0, Vec::len) as u64;
    if let Some((count, line)) = promised
        && points < count
    {
        let found = format!("the promise of {count} points");
        return Err(origin.line(line, found, format!("{points}, as the file holds (cut off?)")));
    }
    if columns.is_empty() && promised.is_none() {
        return Err(origin.line(1, "no line with numbers", "one point per line"));
    }
    assemble(origin, columns, names)
}

struct LineCounter<'a> {
    bytes: &'a [u8],
    at: usize,
    line: u64,
}

impl LineCounter<'_> {
    /// Advances to `text`, a part of the bytes, and returns its line number.
    fn advance_to(&mut self, text: &[u8]) -> u64 {
        let target = (text.as_ptr() as usize).saturating_sub(self.bytes.as_ptr() as usize);
        let between = self.bytes.get(self.at..target).unwrap_or_default();
        let feeds = between.iter().filter(|&&b| b == b'\n').count();
        let returns = between.iter().filter(|&&b| b == b'\r').count();
        self.line += feeds.max(returns) as u64;
        self.at = target;
        self.line
    }
}

fn comment(line: &[u8]) -> Option<&[u8]> {
    line.strip_prefix(b"#".as_slice()).or_else(|| line.strip_prefix(b"//".as_slice())).map(|rest| rest.trim_ascii())
}

/// Splits a line into values. If there is a semicolon it is the separator, because commas are then decimal
/// points.
fn split(line: &[u8]) -> Vec<&[u8]> {
    let by = |separator: u8| line.split(move |&b| b == separator).map(<[u8]>::trim_ascii);
    let mut words: Vec<&[u8]> = if line.contains(&b';') {
        by(b';').collect()
    } else if line.contains(&b',') {
        by(b',').collect()
    } else {
        return line.split(u8::is_ascii_whitespace).filter(|w| !w.is_empty()).collect();
    };
    // A separator at the end adds no column.
    if words.last().is_some_and(|w| w.is_empty()) {
        words.pop();
    }
    words
}

fn number_of(word: &[u8]) -> Option<f64> {
    parse_f64(word).or_else(|| {
        let text = std::str::from_utf8(word).ok()?;
        match text.matches(',').count() {
            1 => text.replace(',', ".").parse().ok(),
            _ => None,
        }
    })
}

/// Column names, if the line has an x, a y and a z among them.
fn header_names(line: &[u8]) -> Option<Vec<String>> {
    let words = split(line);
    let names: Vec<String> =
        (words.iter()).take(MOST_COLUMNS).map(|w| String::from_utf8_lossy(w).trim_matches('"').to_string()).collect();
    ["x", "y", "z"].iter().all(|axis| names.iter().any(|n| axis_name(n) == *axis)).then_some(names)
}

/// Column name without the additions of various programs: "//X", "X[m]" and "x_coord" all become "x".
fn axis_name(name: &str) -> String {
    let lower = name.trim_start_matches('/').to_ascii_lowercase();
    let bare = lower.split(['[', '(']).next().unwrap_or_default().trim();
    bare.trim_end_matches("_coord").trim_end_matches("coord").to_string()
}

/// Meaning of a column.
#[derive(Clone, PartialEq)]
enum Role {
    Axis(usize),
    Color(usize),
    Normal(usize),
    Attribute(String),
}

fn assemble(origin: Origin<'_>, columns: Vec<Vec<f64>>, names: Option<Vec<String>>) -> Result<PointCloud, CloudError> {
    let mut notes = Vec::new();
    let roles = match names {
        Some(names) if names.len() == columns.len() => named(&names),
        Some(names) if !columns.is_empty() => {
            notes.push(format!("{} column names for {} columns, not used", names.len(), columns.len()));
            guessed(&columns)
        }
        _ => guessed(&columns),
    };
    let find = |wanted: Role| roles.iter().position(|r| *r == wanted).and_then(|i| columns.get(i));
    let [x, y, z] = [0, 1, 2].map(|axis| find(Role::Axis(axis)));
    let positions = match (x, y, z) {
        (Some(x), Some(y), Some(z)) => {
            let rows = x.iter().zip(y).zip(z);
            rows.map(|((&x, &y), &z)| [x, y, z]).collect()
        }
        _ if columns.is_empty() => Vec::new(),
        _ => return Err(origin.line(1, "columns without x, y and z", "all three")),
    };
    let channels = [0, 1, 2].map(|c| find(Role::Color(c)).map(|v| AttributeData::F64(v.clone())));
    let colors = match &channels {
        [Some(r), Some(g), Some(b)] => Some(colors_from(r, g, b, &mut notes)),
        _ => None,
    };
    let normals = match [0, 1, 2].map(|axis| find(Role::Normal(axis))) {
        [Some(x), Some(y), Some(z)] => {
            let rows = x.iter().zip(y).zip(z);
            Some(rows.map(|((&x, &y), &z)| [x as f32, y as f32, z as f32]).collect())
        }
        _ => None,
    };
    let attributes = (roles.into_iter().zip(columns))
        .filter_map(|(role, column)| match role {
            Role::Attribute(name) => Some(Attribute::new(name, column)),
            _ => None,
        })
        .collect();
    Ok(PointCloud { positions, colors, normals, attributes, format: Format::Text, notes, ..PointCloud::default() })
}

fn named(names: &[String]) -> Vec<Role> {
    let channel_sets = [["r", "g", "b"], ["red", "green", "blue"], ["rf", "gf", "bf"]];
    let normal_sets = [["nx", "ny", "nz"], ["normal_x", "normal_y", "normal_z"]];
    let bare: Vec<String> = names.iter().map(|n| axis_name(n)).collect();
    // Only a complete set counts: a single "r" may be a radius.
    let whole = |set: &&[&str; 3]| set.iter().all(|name| bare.iter().any(|b| b == name));
    let channels = channel_sets.iter().find(whole);
    let normals = normal_sets.iter().find(whole);
    let place = |set: Option<&[&str; 3]>, name: &str| set.and_then(|s| s.iter().position(|n| *n == name));
    let mut roles: Vec<Role> = Vec::new();
    for (bare, name) in bare.iter().zip(names) {
        let role = place(Some(&["x", "y", "z"]), bare)
            .map(Role::Axis)
            .or_else(|| place(channels, bare).map(Role::Color))
            .or_else(|| place(normals, bare).map(Role::Normal))
            .filter(|role| !roles.contains(role));
        roles.push(role.unwrap_or_else(|| Role::Attribute(name.clone())));
    }
    roles
}

fn guessed(columns: &[Vec<f64>]) -> Vec<Role> {
    let three = |from: usize| columns.get(from..from + 3).unwrap_or_default();
    let bytes = |from: usize| {
        let byte = |&x: &f64| x.fract() == 0.0 && (0.0..=255.0).contains(&x);
        three(from).len() == 3 && three(from).iter().flatten().all(byte)
    };
    let fractions =
        |from: usize| three(from).len() == 3 && three(from).iter().flatten().all(|x| (0.0..=1.0).contains(x));
    let unit = |from: usize| match three(from) {
        [x, y, z] => x.iter().zip(y).zip(z).all(|((x, y), z)| {
            let length = (x * x + y * y + z * z).sqrt();
            (length - 1.0).abs() < 0.02 || length == 0.0
        }),
        _ => false,
    };
    let color = [0, 1, 2].map(Role::Color);
    let normal = [0, 1, 2].map(Role::Normal);
    let intensity = [Role::Attribute("intensity".into())];
    let mut roles = [0, 1, 2].map(Role::Axis).to_vec();
    let n = columns.len();
    match n {
        4 => roles.extend(intensity),
        6 if bytes(3) => roles.extend(color),
        6 if unit(3) => roles.extend(normal),
        6 if fractions(3) => roles.extend(color),
        // PTS has the intensity before the colour.
        7 if bytes(4) => {
            roles.extend(intensity);
            roles.extend(color);
        }
        7 if bytes(3) => {
            roles.extend(color);
            roles.extend(intensity);
        }
        9 if bytes(3) && unit(6) => {
            roles.extend(color);
            roles.extend(normal);
        }
        9 if unit(3) && bytes(6) => {
            roles.extend(normal);
            roles.extend(color);
        }
        _ if n > 6 && bytes(3) => roles.extend(color),
        _ => {}
    }
    for i in roles.len()..n {
        roles.push(Role::Attribute(format!("column_{}", i + 1)));
    }
    roles.truncate(n);
    roles
}
