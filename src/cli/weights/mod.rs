#[cfg(feature = "download")]
mod fetch;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Subcommand;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::shown::{json_lines, plain};
use super::table::{bytes, table};
use crate::models::import::{ImportOptions, Imported, import};
use crate::weights::registry::{Published, Registry};
use crate::weights::store::{Installed, Store, StoreError};
use crate::weights::{Dtype, demo};

/// Number of a hash's digits that a table shows.
const SHORT: usize = 12;

/// Arguments of `weights`.
#[derive(clap::Args, Debug)]
pub(super) struct WeightsArgs {
    #[command(subcommand)]
    command: WeightsCommand,
}

#[derive(Subcommand, Debug)]
enum WeightsCommand {
    /// Import the weights of a checkpoint into the store
    Import(ImportArgs),
    /// List the weights that are installed, and those that could be
    List(ListArgs),
    /// Check installed weights against the hash recorded at import
    Verify(VerifyArgs),
    /// Download published weights and import them
    #[cfg(feature = "download")]
    Fetch(fetch::FetchArgs),
    /// Export weights from the store to a file that can be imported elsewhere
    Export(ExportArgs),
    /// Remove installed weights
    Rm(RmArgs),
}

#[derive(clap::Args, Debug)]
struct ImportArgs {
    /// Model: student, sonata (Concerto's files too), xdecoder, lseg, clip or openscene (CUA-O3D's too)
    model: String,
    /// Checkpoint: PyTorch's .pth or .pt, or safetensors
    file: PathBuf,
    /// Name in the store [default: the model's name]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// The model's configuration (JSON), for variants that the shapes do not determine
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Licence to record, if the weights are not the published ones
    #[arg(long = "license", alias = "licence", value_name = "ID")]
    licence: Option<String>,
    /// Origin to record, if the weights are not the published ones
    #[arg(long, value_name = "TEXT")]
    origin: Option<String>,
    /// File with CLIP's text side, for a checkpoint of LSeg without one: OpenAI's archive, or safetensors
    #[arg(long, value_name = "FILE")]
    clip: Option<PathBuf>,
    /// Ignore keys that the model does not know, instead of refusing the checkpoint
    #[arg(long)]
    allow_unused: bool,
    /// Registry of published weights, in place of the built-in one
    #[arg(long, value_name = "FILE")]
    registry: Option<PathBuf>,
}

#[derive(clap::Args, Debug)]
struct ListArgs {
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
    /// Registry of published weights, in place of the built-in one
    #[arg(long, value_name = "FILE")]
    registry: Option<PathBuf>,
}

#[derive(clap::Args, Debug)]
struct VerifyArgs {
    /// Names of the weights [default: all that are installed]
    names: Vec<String>,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args, Debug)]
struct ExportArgs {
    /// Name of the weights in the store
    name: String,
    /// Output file (safetensors)
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Precision of the file: f32 keeps the weights as they are, f16 halves the size
    #[arg(long, value_enum, default_value_t = PrecisionArg::F32)]
    precision: PrecisionArg,
    /// Write the packed form that the demo has inside the program
    #[arg(long, hide = true)]
    packed: bool,
}

/// Precision of weights in a file.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum PrecisionArg {
    F32,
    F16,
}

#[derive(clap::Args, Debug)]
struct RmArgs {
    /// Names of the weights
    #[arg(required = true)]
    names: Vec<String>,
}

pub(super) fn run(args: &WeightsArgs) -> Result<ExitCode> {
    let store = Store::at_home()?;
    match &args.command {
        WeightsCommand::Import(args) => run_import(&store, args)?,
        WeightsCommand::List(args) => run_list(&store, args)?,
        WeightsCommand::Verify(args) => return run_verify(&store, args),
        #[cfg(feature = "download")]
        WeightsCommand::Fetch(args) => fetch::run(&store, args)?,
        WeightsCommand::Export(args) => run_export(&store, args)?,
        WeightsCommand::Rm(args) => run_rm(&store, args)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn run_import(store: &Store, args: &ImportArgs) -> Result<()> {
    let registry = Registry::load(args.registry.as_deref())?;
    let options = ImportOptions {
        name: args.name.clone(),
        config: args.config.clone(),
        licence: args.licence.clone(),
        origin: args.origin.clone(),
        clip: args.clip.clone(),
        allow_unused: args.allow_unused,
    };
    import_file(store, &registry, &args.model, &args.file, &options)
}

fn import_file(store: &Store, registry: &Registry, model: &str, file: &Path, options: &ImportOptions) -> Result<()> {
    let bar = byte_bar("importing")?;
    let result = import(store, registry, model, file, options, &mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    report_import(&result?)
}

fn report_import(imported: &Imported) -> Result<()> {
    let Imported { installed, replaced, report, skipped, notes } = imported;
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "{}: {} applied, {} missing, {} unused, {} misshaped, {} cast, {} skipped",
        report.source.display(),
        report.applied.len(),
        report.missing.len(),
        report.unused.len(),
        report.misshaped.len() + report.not_float.len(),
        report.cast.len(),
        report.ignored.len()
    )?;
    if let Some(prefix) = report.stripped_prefix {
        writeln!(out, "  prefix '{prefix}' removed from every key")?;
    }
    let mut cast: Vec<(String, usize)> = Vec::new();
    for entry in &report.cast {
        let from = entry.from.to_string();
        match cast.iter_mut().find(|(known, _)| *known == from) {
            Some((_, count)) => *count += 1,
            None => cast.push((from, 1)),
        }
    }
    for (from, count) in cast {
        writeln!(out, "  cast: {count} from {from} to f32")?;
    }
    for group in skipped {
        writeln!(out, "  skipped, {}: {}", group.reason, plain(&abridged(&group.keys)))?;
    }
    for note in notes {
        writeln!(out, "note: {}", plain(note))?;
    }
    let verb = if *replaced { "replaced" } else { "installed" };
    writeln!(out, "{verb} '{}' ({}): {}", installed.name, bytes(installed.bytes), installed.path.display())?;
    Ok(())
}

/// Returns the first few of many keys as text.
fn abridged(keys: &[String]) -> String {
    const SHOWN: usize = 4;
    let mut text = keys.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    if keys.len() > SHOWN {
        text.push_str(&format!(" and {} more", keys.len() - SHOWN));
    }
    text
}

/// Makes a bar on stderr that counts bytes. It is hidden if stderr is no terminal.
fn byte_bar(what: &'static str) -> Result<ProgressBar> {
    let bar = ProgressBar::no_length();
    let template = "{msg} {bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
    bar.set_style(ProgressStyle::with_template(template).context("progress bar")?);
    bar.set_message(what);
    Ok(bar)
}

fn run_list(store: &Store, args: &ListArgs) -> Result<()> {
    let registry = Registry::load(args.registry.as_deref())?;
    let names = store.names()?;
    let installed: Vec<(String, Result<Installed, StoreError>)> =
        names.into_iter().map(|name| (name.clone(), store.describe(&name))).collect();
    let absent: Vec<&Published> =
        registry.entries.iter().filter(|entry| !installed.iter().any(|(name, _)| *name == entry.name)).collect();
    let built_in: Vec<Installed> = demo::PACK.iter().filter_map(|weights| store.describe(weights.name).ok()).collect();
    let mut out = std::io::stdout().lock();
    if args.json {
        let installed: Vec<Value> = installed
            .iter()
            .map(|(name, result)| match result {
                Ok(installed) => json!(installed),
                Err(error) => json!({ "name": name, "error": error.to_string() }),
            })
            .collect();
        let absent: Vec<Value> = absent
            .iter()
            .map(|entry| {
                json!({
                    "name": entry.name, "model": entry.model, "about": entry.about, "origin": entry.origin(),
                    "license": entry.licence, "sha256": entry.sha256, "bytes": entry.bytes,
                    "how_to_get": entry.how_to_get(),
                })
            })
            .collect();
        let report = json!({
            "home": store.home().to_string_lossy(), "installed": installed, "not_installed": absent, "built_in": built_in,
        });
        writeln!(out, "{}", json_lines(&report)?)?;
        return Ok(());
    }
    writeln!(out, "{}", store.home().display())?;
    let mut rows = Vec::new();
    for (name, result) in &installed {
        match result {
            Ok(Installed { bytes: size, manifest, .. }) => rows.push(vec![
                name.clone(),
                manifest.model.clone(),
                bytes(*size),
                manifest.source_sha256.chars().take(SHORT).collect(),
                licence(manifest.licence.id.clone(), manifest.licence.non_commercial),
                manifest.imported.clone(),
                manifest.origin.clone(),
            ]),
            Err(error) => writeln!(out, "{name}: {}", plain(&error.to_string()))?,
        }
    }
    if !rows.is_empty() {
        let header = ["name", "model", "size", "source sha256", "licence", "imported", "origin"];
        write!(out, "{}", table(&header, &rows))?;
    }
    for entry in absent {
        let terms = licence(entry.licence.id.clone(), entry.licence.non_commercial);
        writeln!(out, "not installed: {} ({}, licence {terms}); {}", entry.name, entry.about, entry.how_to_get())?;
    }
    for Installed { name, bytes: size, manifest, .. } in built_in {
        writeln!(out, "built in: {name} ({}, {}, licence {})", manifest.origin, bytes(size), manifest.licence.id)?;
    }
    Ok(())
}

fn licence(id: String, non_commercial: bool) -> String {
    if non_commercial { format!("{id} (not commercial)") } else { id }
}

fn run_verify(store: &Store, args: &VerifyArgs) -> Result<ExitCode> {
    let names = if args.names.is_empty() { store.names()? } else { args.names.clone() };
    if names.is_empty() && !args.json {
        writeln!(std::io::stdout(), "nothing is installed in {}", store.home().display())?;
    }
    let results: Vec<_> = names.iter().map(|name| (name, store.verify(name))).collect();
    let mut out = std::io::stdout().lock();
    if args.json {
        let results: Vec<Value> = results
            .iter()
            .map(|(name, result)| match result {
                Ok(installed) => json!({ "name": name, "ok": true, "path": installed.path.to_string_lossy() }),
                Err(error) => json!({ "name": name, "ok": false, "error": error.to_string() }),
            })
            .collect();
        writeln!(out, "{}", json_lines(&results)?)?;
    } else {
        for (name, result) in &results {
            match result {
                Ok(installed) => writeln!(out, "{name}: ok ({})", bytes(installed.bytes))?,
                Err(error) => writeln!(out, "{name}: FAILED: {}", plain(&error.to_string()))?,
            }
        }
    }
    Ok(if results.iter().all(|(_, result)| result.is_ok()) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn run_export(store: &Store, args: &ExportArgs) -> Result<()> {
    let dtype = match args.precision {
        PrecisionArg::F32 => Dtype::F32,
        PrecisionArg::F16 => Dtype::F16,
    };
    if args.packed {
        let folder = tempfile::tempdir()?;
        let whole = folder.path().join("weights.safetensors");
        store.export(&args.name, &whole, dtype)?;
        demo::pack(&whole, &args.output)?;
    } else {
        store.export(&args.name, &args.output, dtype)?;
    }
    let size = std::fs::metadata(&args.output).map_or(0, |file| file.len());
    Ok(writeln!(std::io::stdout(), "{}: '{}' ({})", args.output.display(), args.name, bytes(size))?)
}

fn run_rm(store: &Store, args: &RmArgs) -> Result<()> {
    for name in &args.names {
        let freed = store.remove(name)?;
        writeln!(std::io::stdout(), "removed '{name}' ({})", bytes(freed))?;
    }
    Ok(())
}
