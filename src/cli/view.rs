//! `geopurify view`: shows labelled scans in the browser.

use std::io::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, Result, bail};

use super::infer;
use super::networks::{ClipArgs, LSegArgs, WayOut as _, XDecoderArgs, say_device};
use super::outputs::check_folder;
use super::say;
use super::words::words;
use crate::cloud::recognise;
use crate::counted::counted;
use crate::gpu::DeviceSelection;
use crate::session::{Networks, Session, is_results, scenes_at, stem};
use crate::viewer::{
    Asked, Binding, EXPORT_POINTS, Entry, GLB_POINTS, Library, Server, ViewerError, export, export_glb,
};

/// Arguments of `view`.
#[derive(clap::Args, Debug)]
pub(super) struct ViewArgs {
    /// Folders of results from `infer`, folders of such folders, or a scan, which is labelled first
    #[arg(required = true, value_name = "RESULTS|SCAN")]
    paths: Vec<PathBuf>,
    /// Open the page in the browser
    #[arg(long)]
    open: bool,
    /// Port of the page [default: a free one]
    #[arg(long, value_name = "PORT", default_value_t = 0, hide_default_value = true)]
    port: u16,
    /// Address that other machines reach, such as 0.0.0.0. The URL then has a token, without which nothing is shown.
    /// The connection is not encrypted [default: 127.0.0.1, this machine alone]
    #[arg(long, value_name = "ADDRESS")]
    host: Option<IpAddr>,
    /// Instead of serving the page, write it with all its data as one file that opens without a server. With a name that
    /// ends in .glb, write the points in the colours of their labels and the boxes of objects as a glTF scene
    #[arg(long, value_name = "FILE", conflicts_with_all = ["open", "port", "host"])]
    export: Option<PathBuf>,
    /// With --export: words whose answers the page has, separated by commas
    #[arg(long, value_name = "WORDS", requires = "export")]
    ask: Vec<String>,
    /// Most points that are shown; others are left out at random [default: all; 500000 with --export, 20000000 in a .glb]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_points: Option<u32>,
    #[command(flatten)]
    xdecoder: XDecoderArgs,
    #[command(flatten)]
    lseg: LSegArgs,
    #[command(flatten)]
    clip: ClipArgs,
    /// Device: auto, gpu, cpu, or an adapter's index from `geopurify devices`
    #[arg(long, env = "GEOPURIFY_DEVICE", default_value_t)]
    device: DeviceSelection,
}

pub(super) fn run(args: &ViewArgs) -> Result<ExitCode> {
    if let Some(file) = &args.export {
        check_folder(file)?;
        if file.is_dir() {
            bail!("{}: a folder; name a file for the page, such as page.html", file.display());
        }
    }
    let asked = if args.ask.is_empty() { Vec::new() } else { words(&args.ask).context("--ask")? };
    let mut entries = Vec::new();
    for path in &args.paths {
        match found(path)? {
            Found::Results(folders) => entries.extend(folders),
            Found::Scan => match infer::usual(path, args.device)? {
                Some(folder) => entries.push(folder),
                None => return Ok(ExitCode::FAILURE),
            },
        }
    }
    let entries: Vec<Entry> = entries.into_iter().map(|folder| Entry { name: name_of(&folder), folder }).collect();
    let max_points = args.max_points.map(|count| count as usize);
    if let Some(file) = args.export.as_deref().filter(|file| is_glb(file)) {
        if !asked.is_empty() {
            bail!("--ask: a .glb holds no answers; export a page, such as page.html");
        }
        let entry = only(entries)?;
        return written(file, export_glb(&entry, max_points.unwrap_or(GLB_POINTS), file)?);
    }
    let (clip, lseg) = (args.clip.choice(), args.lseg.choice());
    let session = Session::with(args.device, Networks { clip, lseg, ..args.xdecoder.networks() })?;
    say_device(session.device());
    match &args.export {
        Some(file) => write_page(session, entries, asked, max_points.unwrap_or(EXPORT_POINTS), file),
        None => serve(args, Library::new(session, entries, max_points.unwrap_or(usize::MAX))),
    }
}

/// True for the name of a glTF scene.
fn is_glb(file: &Path) -> bool {
    file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("glb"))
}

/// The one folder of results that is exported.
fn only(mut entries: Vec<Entry>) -> Result<Entry> {
    match (entries.pop(), entries.is_empty()) {
        (Some(entry), true) => Ok(entry),
        _ => bail!("--export writes one folder of results; name it"),
    }
}

/// Prints the file that was written, and its size.
fn written(file: &Path, bytes: u64) -> Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}, {:.1} MB", file.display(), bytes as f64 / 1e6)?;
    Ok(ExitCode::SUCCESS)
}

fn write_page(
    session: Session,
    entries: Vec<Entry>,
    asked: Vec<String>,
    max_points: usize,
    file: &Path,
) -> Result<ExitCode> {
    let entry = only(entries)?;
    let asked: Vec<Asked> = asked.into_iter().map(Asked::Question).collect();
    let bytes = match export(session, entry, &asked, max_points, file) {
        Err(ViewerError::Session(error)) => Err(error).or_configuration()?,
        bytes => bytes?,
    };
    written(file, bytes)
}

fn serve(args: &ViewArgs, library: Library) -> Result<ExitCode> {
    // A damaged folder is told at once. Of several, the start page tells it.
    let count = library.entries().len();
    if count == 1 {
        library.open(0)?;
    } else {
        say::line(&counted(count, "labelled scan"));
    }
    let binding = Binding { host: args.host, port: args.port };
    let server = match Server::bind(binding, library) {
        Err(error @ ViewerError::PortInUse { .. }) => bail!("{error}; give another --port, or none for a free one"),
        server => server?,
    };
    if args.host.is_some() {
        say::note("other machines can reach this page with its token; the connection is not encrypted");
    }
    let url = server.url();
    {
        let mut out = std::io::stdout().lock();
        writeln!(out, "{url}")?;
        out.flush()?;
    }
    say::line("the page is there until this program ends (Ctrl+C)");
    if args.open {
        open_browser(&url);
    }
    match server.run()? {}
}

/// What a path stands for.
enum Found {
    /// Folders of results.
    Results(Vec<PathBuf>),
    /// A scan or a recording that is not labelled yet.
    Scan,
}

/// Finds the results that a path stands for.
fn found(path: &Path) -> Result<Found> {
    let shown = path.display();
    if is_results(path) {
        return Ok(Found::Results(vec![path.to_path_buf()]));
    }
    if let Some(missing) = lacking(path) {
        bail!("{shown}: the results lack {missing}; label the scan again with geopurify infer");
    }
    if !path.exists() {
        bail!("{shown}: no such file or folder; give the folder that `geopurify infer` wrote, or a scan");
    }
    if path.is_dir() {
        let entries = std::fs::read_dir(path).with_context(|| shown.to_string())?;
        let mut inner: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        inner.retain(|path| is_results(path));
        inner.sort();
        if !inner.is_empty() {
            return Ok(Found::Results(inner));
        }
    }
    if let Some(parent) = path.parent().filter(|parent| path.is_file() && is_results(parent)) {
        bail!("{shown} is a file of results; give their folder: {}", parent.display());
    }
    let beside = infer::beside(path);
    if is_results(&beside) {
        say::line(&format!("showing the labels of {shown} in {}", beside.display()));
        return Ok(Found::Results(vec![beside]));
    }
    match path.is_file() {
        true => recognise(path)?,
        false => scenes_at(path, None).map(|_| ())?,
    }
    say::line(&format!("{shown} is labelled first, into {}", beside.display()));
    Ok(Found::Scan)
}

/// The file that is missing in a folder with a labelled scan that holds one of the two that belong to it.
fn lacking(folder: &Path) -> Option<&'static str> {
    let files = [crate::pipeline::SUMMARY_FILE, crate::query::saved::FILE_NAME];
    let (there, missing): (Vec<&str>, Vec<&str>) = files.into_iter().partition(|name| folder.join(name).is_file());
    let [missing] = *missing.as_slice() else { return None };
    let has_labels = || ["ply", "las", "laz"].iter().any(|kind| folder.join(format!("labelled.{kind}")).is_file());
    (there.len() == 1 && has_labels()).then_some(missing)
}

/// Name of results on the page: that of their folder.
fn name_of(folder: &Path) -> String {
    let real = folder.canonicalize().unwrap_or_else(|_| folder.to_path_buf());
    let name = stem(&real);
    if name.is_empty() { folder.display().to_string() } else { name }
}

/// Opens the system's browser. Without one, the address is still there to be opened.
fn open_browser(url: &str) {
    let (program, arguments): (&str, &[&str]) = if cfg!(target_os = "macos") {
        ("open", &[])
    } else if cfg!(windows) {
        ("rundll32", &["url.dll,FileProtocolHandler"])
    } else {
        ("xdg-open", &[])
    };
    let mut command = Command::new(program);
    command.args(arguments).arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if command.spawn().is_err() {
        say::note("no browser could be opened; open the address above in one");
    }
}
