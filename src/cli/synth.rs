//! `geopurify synth`: generates furnished rooms with labels and recorded views.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, bail};
use serde_json::json;

use super::networks::say_device;
use super::outputs::check_writable;
use super::progress::Bars;
use super::say;
use super::shown::json_lines;
use super::table::{bytes, table};
use crate::gpu::{DeviceSelection, select};
use crate::labels::{Preset, nyu40};
use crate::stages::peak_memory;
use crate::synth::{Assets, HomeStyle, Outcome, Room, Settings, Split, counts_of, room_name, write_rooms};

/// Arguments of `synth`.
#[derive(clap::Args, Debug)]
pub(super) struct SynthArgs {
    /// Number of rooms: 70 % for training, 15 % for validation, 15 % for testing. Of two, one is for training
    /// and one for testing
    #[arg(long, value_name = "N", default_value_t = 40, conflicts_with_all = ["train", "val", "test"])]
    rooms: usize,
    /// Number of rooms for training
    #[arg(long, value_name = "N")]
    train: Option<usize>,
    /// Number of rooms for validation, to choose settings by
    #[arg(long, value_name = "N")]
    val: Option<usize>,
    /// Number of rooms for testing
    #[arg(long, value_name = "N")]
    test: Option<usize>,
    /// Seed of every random choice; the same seed gives the same rooms
    #[arg(long, default_value_t = Settings::default().seed)]
    seed: u64,
    /// Folder for the rooms, as DIR/train/room_0001; rooms that are already there are kept
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// Number of recorded views in each room
    #[arg(long, default_value_t = Settings::default().views)]
    views: usize,
    /// Width and height of the views, at most 648x484
    #[arg(long = "resolution", alias = "size", value_name = "WxH", default_value = "320x240", value_parser = size)]
    size: [usize; 2],
    /// Distance between neighbouring points of the scans, in metres
    #[arg(long, value_name = "METRES", default_value_t = Settings::default().spacing)]
    spacing: f32,
    /// Style of the homes: flat has one to three rooms, filmed by somebody who walks through them; villa has larger and
    /// higher rooms in other materials and more light, recorded by a camera that turns on a stand
    #[arg(long = "style", value_name = "NAME", default_value_t)]
    homes: HomeStyle,
    /// Folder of real models and surfaces to furnish with, as scripts/assets prepares it
    #[arg(long, value_name = "DIR")]
    assets: Option<PathBuf>,
    /// Share of the furniture that is a real model, 0 to 1; the rest is parametric
    #[arg(long, value_name = "SHARE", default_value_t = 0.7, requires = "assets")]
    asset_share: f32,
    /// Device that draws the views: cpu for the same files on every machine, auto, gpu, or an adapter's index
    /// from `geopurify devices`
    #[arg(long, env = "GEOPURIFY_DEVICE", default_value = "cpu")]
    device: DeviceSelection,
    /// Print the results as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn size(text: &str) -> Result<[usize; 2], String> {
    let parts = text.split_once(['x', 'X', '×']).and_then(|(w, h)| Some([w.parse().ok()?, h.parse().ok()?]));
    parts.ok_or_else(|| format!("\"{text}\" is not a size; expected WIDTHxHEIGHT, for example 320x240"))
}

/// Number of rooms in each split.
fn counts(args: &SynthArgs) -> [usize; 3] {
    match (args.train, args.val, args.test) {
        (None, None, None) => counts_of(args.rooms),
        (train, val, test) => [train, val, test].map(Option::unwrap_or_default),
    }
}

pub(super) fn run(args: &SynthArgs) -> Result<()> {
    let start = Instant::now();
    let SynthArgs { seed, views, size, spacing, homes, .. } = *args;
    let settings = Settings { seed, views, size, spacing, homes };
    settings.check()?;
    let counts = counts(args);
    if counts == [0; 3] {
        bail!("no rooms are asked for: give --rooms, or --train, --val and --test");
    }
    let assets = args.assets.as_deref().map(|folder| Assets::open(folder, args.asset_share)).transpose()?;
    if let Some([models, missing]) = assets.as_ref().map(Assets::counts).filter(|[_, missing]| *missing > 0) {
        say::line(&format!("{models} models are there, {missing} more are known; scripts/assets gets them"));
    }
    check_writable(&args.output)?;
    let selected = select(args.device)?;
    say_device(&selected);
    let mut bars = Bars::new();
    let mut progress = |share| bars.show("rooms", share);
    let rooms = write_rooms(&args.output, counts, &settings, assets.as_ref(), &selected.device, &mut progress)?;
    bars.finish();
    for (path, why) in assets.iter().flat_map(Assets::unreadable) {
        say::line(&format!("{} is not used: {why}", path.display()));
    }
    report(args, &rooms, start.elapsed().as_secs_f64())
}

fn report(args: &SynthArgs, made: &[Room], seconds: f64) -> Result<()> {
    let is_new = |room: &Room| matches!(room.outcome, Outcome::Made(_));
    let new = made.iter().filter(|room| is_new(room)).count();
    let mut out = std::io::stdout().lock();
    if args.json {
        let rooms: Vec<_> = made
            .iter()
            .map(|room| {
                let Room { split, number, outcome } = room;
                json!({ "split": split, "name": room_name(*number), "new": is_new(room), "room": outcome.info() })
            })
            .collect();
        let json = json!({ "output": args.output.to_string_lossy(), "seconds": seconds, "new": new, "rooms": rooms });
        writeln!(out, "{}", json_lines(&json)?)?;
        return Ok(());
    }
    let infos = |split: Split| made.iter().filter(move |room| room.split == split).map(|room| room.outcome.info());
    let header = ["class", "train", "val", "test"];
    let mut totals: BTreeMap<(Split, u8), usize> = BTreeMap::new();
    for split in Split::ALL {
        for (class, points) in infos(split).flat_map(|info| &info.points_of_class) {
            *totals.entry((split, *class)).or_default() += points;
        }
    }
    let row = |name: &str, value: &dyn Fn(Split) -> usize| {
        let mut row = vec![name.to_owned()];
        row.extend(Split::ALL.map(|split| value(split).to_string()));
        row
    };
    let mut rows = vec![row("scenes", &|split| infos(split).count())];
    rows.push(row("points", &|split| infos(split).map(|info| info.points).sum()));
    for (class, label) in nyu40::SCANNET20.iter().zip(Preset::SCANNET20.labels) {
        rows.push(row(label, &|split| totals.get(&(split, *class)).copied().unwrap_or(0)));
    }
    write!(out, "{}", table(&header, &rows))?;
    let peak = peak_memory().map_or(String::new(), |peak| format!(", peak memory {}", bytes(peak)));
    let pace = if new > 0 { format!(", {:.1} s a room", seconds / new as f64) } else { String::new() };
    writeln!(out, "{new} made, {} kept in {seconds:.1} s{pace}{peak}", made.len() - new)?;
    writeln!(out, "{}", args.output.display())?;
    if infos(Split::Test).count() > 0 {
        let test = args.output.join("test");
        say::line(&format!("next: geopurify eval {} -o {}", test.display(), args.output.join("report").display()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        assert_eq!(size("648x484"), Ok([648, 484]));
        assert!(size("648").is_err() && size("ax3").is_err());
    }
}
