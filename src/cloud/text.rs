//! Text with one point per line: XYZ, CSV, PTS and the like.

use std::path::Path;

use super::data::{Attribute, AttributeData, CHANNELS, colors_from, parse_f64};
use super::error::{CloudError, Origin, quoted};
use super::georef::{self, Globe};
use super::source::{first_lines, words};
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
    assemble(origin, Table { columns, names, counted: promised.is_some() })
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

/// True if the bytes are rows of numbers, possibly after a few lines of names: two rows with the same number
/// of values, at least three.
pub(super) fn looks_like(bytes: &[u8]) -> bool {
    /// Bytes that are looked at.
    const HEAD: usize = 1 << 14;
    /// Lines before the points that may be anything.
    const OTHER_LINES: usize = 3;
    let mut others = 0;
    let mut before = None;
    for line in first_lines(bytes, HEAD).filter(|line| comment(line).is_none()) {
        let words = split(line);
        if words.len() >= 3 && words.iter().all(|word| number_of(word).is_some()) {
            if before == Some(words.len()) {
                return true;
            }
            before = Some(words.len());
            continue;
        }
        others += 1;
        if before.is_some() || others > OTHER_LINES {
            return false;
        }
    }
    false
}

/// Splits a line into values. A semicolon separates, and commas are then decimal points; so they are between
/// values that blanks separate. Quotes around a value are not part of it.
fn split(line: &[u8]) -> Vec<&[u8]> {
    let separator = match () {
        () if line.contains(&b';') => b';',
        () if line.contains(&b',') && !has_decimal_commas(line) => b',',
        () => return words(line).map(bare).collect(),
    };
    separated(line, separator)
}

/// The values between separators that are not within quotes. One at the end adds no value.
fn separated(line: &[u8], separator: u8) -> Vec<&[u8]> {
    let mut quoted = false;
    let is_end = |&b: &u8| {
        quoted ^= b == b'"';
        b == separator && !quoted
    };
    let mut words: Vec<&[u8]> = line.split(is_end).map(|word| bare(word.trim_ascii())).collect();
    if words.last().is_some_and(|word| word.is_empty()) {
        words.pop();
    }
    words
}

/// A value without the quotes around it.
fn bare(word: &[u8]) -> &[u8] {
    match word {
        [b'"', inner @ .., b'"'] => inner.trim_ascii(),
        _ => word,
    }
}

/// True for values like "0,002 1,516 2,042": at least three, each with at most one comma, between digits.
fn has_decimal_commas(line: &[u8]) -> bool {
    let mut count = 0;
    words(line).all(|word| {
        count += 1;
        let mut commas = word.iter().enumerate().filter(|(_, b)| **b == b',').map(|(i, _)| i);
        let digit = |i: usize| word.get(i).is_some_and(u8::is_ascii_digit);
        match (commas.next(), commas.next()) {
            (None, _) => true,
            (Some(at), None) => at > 0 && digit(at - 1) && digit(at + 1),
            _ => false,
        }
    }) && count >= 3
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

/// Column names, if there are coordinates among them.
fn header_names(line: &[u8]) -> Option<Vec<String>> {
    // Names may hold blanks, as in "X [m]", where tabs separate.
    let tabs = line.contains(&b'\t').then(|| separated(line, b'\t'));
    tabs.into_iter().chain([split(line)]).find_map(|words| {
        let name = |word: &&[u8]| String::from_utf8_lossy(word).into_owned();
        let names: Vec<String> = words.iter().take(MOST_COLUMNS).map(name).collect();
        axes(&names.iter().map(|name| plain(name)).collect::<Vec<_>>()).map(|_| names)
    })
}

/// Column name in the one spelling that is looked for: "//X", "X[m]", "x_coord", "pos.x" and "Points:0" all
/// become "x".
fn plain(name: &str) -> String {
    let lower = name.trim_matches(['/', '"', ' ']).to_ascii_lowercase();
    let bare = lower.split(['[', '(']).next().unwrap_or_default().trim();
    let bare = bare.strip_suffix("_coord").or_else(|| bare.strip_suffix("coord")).unwrap_or(bare);
    let sets = [
        (&["points", "point", "coordinates", "coords", "position", "positions"][..], ["x", "y", "z"]),
        (&["rgb", "rgba", "color", "colors", "colour", "colours"], ["r", "g", "b"]),
        (&["normal", "normals"], ["nx", "ny", "nz"]),
    ];
    if let Some((set, component)) = bare.rsplit_once([':', '_', '.'])
        && let Some((_, names)) = sets.iter().find(|(sets, _)| sets.contains(&set))
        && let Some(name) = component.parse().ok().and_then(|i: usize| names.get(i))
    {
        return (*name).to_owned();
    }
    let point = ["position", "pos", "points", "point"]
        .iter()
        .find_map(|set| bare.strip_prefix(set)?.strip_prefix(['.', '_', ':']));
    point.unwrap_or(bare).to_owned()
}

/// Names of the coordinates, from the most certain on.
const AXES: [&[&str]; 3] = [
    &["x", "easting", "east", "longitude", "lon", "long", "lng"],
    &["y", "northing", "north", "latitude", "lat"],
    &["z", "elevation", "elev", "height", "altitude", "alt", "up"],
];
/// From this name on, x and y are degrees.
const FIRST_DEGREES: [usize; 2] = [3, 3];

/// Columns of x, y and z, and true if x and y are degrees.
fn axes(names: &[String]) -> Option<([usize; 3], bool)> {
    let find = |axis: &[&str]| {
        axis.iter().enumerate().find_map(|(rank, name)| Some((names.iter().position(|n| n == name)?, rank)))
    };
    let [(x, x_rank), (y, y_rank), (z, _)] = [find(AXES[0])?, find(AXES[1])?, find(AXES[2])?];
    let degrees = [x_rank >= FIRST_DEGREES[0], y_rank >= FIRST_DEGREES[1]];
    (degrees[0] == degrees[1]).then_some(([x, y, z], degrees[0]))
}

/// Meaning of a column.
#[derive(Clone, PartialEq)]
enum Role {
    Axis(usize),
    Color(usize),
    Normal(usize),
    Attribute(String),
}

impl Role {
    fn name(&self) -> &str {
        let of = |names: [&'static str; 3], i: usize| names.get(i).copied().unwrap_or_default();
        match self {
            Self::Axis(i) => of(["x", "y", "z"], *i),
            Self::Color(i) => of(CHANNELS, *i),
            Self::Normal(i) => of(["nx", "ny", "nz"], *i),
            Self::Attribute(name) => name,
        }
    }
}

/// What a text file holds.
struct Table {
    columns: Vec<Vec<f64>>,
    names: Option<Vec<String>>,
    /// True if the file says how many points follow, as PTS files do.
    counted: bool,
}

/// Most columns that a note lists by name.
const MOST_NAMED: usize = 20;

fn assemble(origin: Origin<'_>, table: Table) -> Result<PointCloud, CloudError> {
    let Table { columns, names, counted } = table;
    let mut notes = Vec::new();
    let mut degrees = false;
    let roles = match names {
        Some(names) if names.len() == columns.len() => {
            degrees =
                axes(&names.iter().map(|name| plain(name)).collect::<Vec<_>>()).is_some_and(|(_, degrees)| degrees);
            named(&names)
        }
        Some(names) if !columns.is_empty() => {
            notes.push(format!("{} column names for {} columns, not used", names.len(), columns.len()));
            guessed(&columns, counted)
        }
        _ => guessed(&columns, counted),
    };
    if !columns.is_empty() {
        let more = if roles.len() > MOST_NAMED { ", ..." } else { "" };
        let roles: Vec<&str> = roles.iter().take(MOST_NAMED).map(Role::name).collect();
        notes.push(format!("the columns are read as {}{more}", roles.join(", ")));
    }
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
    let mut cloud =
        PointCloud { positions, colors, normals, attributes, format: Format::Text, notes, ..PointCloud::default() };
    if degrees {
        georef::to_local(&mut cloud, Globe::Geographic, 1.0);
    }
    Ok(cloud)
}

fn named(names: &[String]) -> Vec<Role> {
    let channel_sets = [["r", "g", "b"], ["red", "green", "blue"], ["rf", "gf", "bf"]];
    let normal_sets = [["nx", "ny", "nz"], ["normal_x", "normal_y", "normal_z"]];
    let plain: Vec<String> = names.iter().map(|n| plain(n)).collect();
    let axes = axes(&plain).map(|(axes, _)| axes).unwrap_or_default();
    // Only a complete set counts: a single "r" may be a radius.
    let whole = |set: &&[&str; 3]| set.iter().all(|name| plain.iter().any(|b| b == name));
    let channels = channel_sets.iter().find(whole);
    let normals = normal_sets.iter().find(whole);
    let place = |set: Option<&[&str; 3]>, name: &str| set.and_then(|s| s.iter().position(|n| *n == name));
    let mut roles: Vec<Role> = Vec::new();
    for (i, (plain, name)) in plain.iter().zip(names).enumerate() {
        let role = (axes.iter().position(|&axis| axis == i).map(Role::Axis))
            .or_else(|| place(channels, plain).map(Role::Color))
            .or_else(|| place(normals, plain).map(Role::Normal))
            .filter(|role| !roles.contains(role));
        roles.push(role.unwrap_or_else(|| Role::Attribute(name.clone())));
    }
    roles
}

/// Correlation of two columns, 0 where one is constant.
fn correlation(a: &[f64], b: &[f64]) -> f64 {
    let pairs = || a.iter().zip(b).filter(|(a, b)| a.is_finite() && b.is_finite());
    let count = pairs().count().max(1) as f64;
    let (sum_a, sum_b) = pairs().fold((0.0, 0.0), |(x, y), (a, b)| (x + a, y + b));
    let (mean_a, mean_b) = (sum_a / count, sum_b / count);
    let (both, square_a, square_b) = pairs().fold((0.0, 0.0, 0.0), |(both, x, y), (a, b)| {
        let (a, b) = (a - mean_a, b - mean_b);
        (both + a * b, x + a * a, y + b * b)
    });
    let scale = (square_a * square_b).sqrt();
    if scale > 0.0 { both / scale } else { 0.0 }
}

/// True if columns 5 to 7 are colours and not columns 4 to 6, where both could be. The channels of a colour
/// go with each other; an intensity, a label or an alpha do not go with them as well. A PTS file, which
/// counts its points, has the intensity first.
fn intensity_is_first(columns: &[Vec<f64>], counted: bool) -> bool {
    let of = |a: usize, b: usize| match (columns.get(a), columns.get(b)) {
        (Some(a), Some(b)) => correlation(a, b),
        _ => 0.0,
    };
    counted || of(5, 6) > of(3, 4) + 0.1
}

fn guessed(columns: &[Vec<f64>], counted: bool) -> Vec<Role> {
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
        9 if bytes(3) && unit(6) => {
            roles.extend(color);
            roles.extend(normal);
        }
        9 if unit(3) && bytes(6) => {
            roles.extend(normal);
            roles.extend(color);
        }
        7.. if bytes(4) && (!bytes(3) || intensity_is_first(columns, counted)) => {
            roles.extend(intensity);
            roles.extend(color);
        }
        7.. if bytes(3) => roles.extend(color),
        7.. if unit(3) => roles.extend(normal),
        7.. if fractions(3) => roles.extend(color),
        _ => {}
    }
    for i in roles.len()..n {
        roles.push(Role::Attribute(format!("column_{}", i + 1)));
    }
    roles.truncate(n);
    roles
}
