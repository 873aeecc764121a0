use std::fmt::Write as _;

use super::shown::plain;
use crate::stages::Stage;

/// Lays out rows of text in columns as wide as their widest cell; numbers go to the right. Control characters are
/// escaped.
pub(super) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<_>> = rows.iter().map(|row| row.iter().map(|cell| plain(cell)).collect()).collect();
    let mut widths: Vec<usize> = header.iter().map(|h| h.chars().count()).collect();
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    let mut line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut line = String::new();
        for (cell, &width) in cells.zip(&widths) {
            let is_number = cell.starts_with(|c: char| c.is_ascii_digit());
            let padding = " ".repeat(width - cell.chars().count());
            let cell = if is_number { format!("{padding}{cell}") } else { format!("{cell}{padding}") };
            // Writing to a String cannot fail.
            let _ = write!(line, "{cell}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    };
    line(&mut header.iter().copied());
    for row in &rows {
        line(&mut row.iter().map(|cell| &**cell));
    }
    text
}

/// Lays out the stages of a run, with time and peak memory. The last row is the whole run.
pub(super) fn stage_table(stages: &[Stage], seconds: f64, peak: Option<u64>) -> String {
    let row = |name: &str, seconds: f64, peak: Option<u64>| {
        vec![name.to_owned(), format!("{seconds:.3}"), peak.map_or(String::new(), bytes)]
    };
    let mut rows: Vec<_> = stages.iter().map(|stage| row(stage.name, stage.seconds, stage.peak_bytes)).collect();
    rows.push(row("whole run", seconds, peak));
    table(&["stage", "seconds", "peak memory"], &rows)
}

/// Bytes with a binary unit, three significant digits.
pub(super) fn bytes(count: u64) -> String {
    let mut value = count as f64;
    let mut unit = "B";
    for next in ["KiB", "MiB", "GiB", "TiB"] {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    match unit {
        "B" => format!("{count} B"),
        _ if value < 10.0 => format!("{value:.2} {unit}"),
        _ if value < 100.0 => format!("{value:.1} {unit}"),
        _ => format!("{value:.0} {unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_carry_their_unit() {
        assert_eq!(bytes(512), "512 B");
        assert_eq!(bytes(1536), "1.50 KiB");
        assert_eq!(bytes(128 << 20), "128 MiB");
        assert_eq!(bytes((1 << 31) - 1), "2.00 GiB");
    }

    #[test]
    fn columns_line_up() {
        let rows = vec![vec!["student".into(), "12.0".into()], vec!["knn".into(), "0.1".into()]];
        assert_eq!(table(&["stage", "seconds"], &rows), "stage    seconds\nstudent     12.0\nknn          0.1\n");
    }
}
