//! `geopurify weights fetch`: downloads published weights and imports them.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::super::say;
use super::{byte_bar, import_file};
use crate::cli::table::bytes;
use crate::models::import::ImportOptions;
use crate::weights::fetch::{FetchEvent, FetchSettings, accept, fetch, is_accepted};
use crate::weights::registry::{Published, Registry};
use crate::weights::store::Store;

#[derive(clap::Args, Debug)]
pub(super) struct FetchArgs {
    /// Name of the weights in the registry
    name: String,
    /// Accept the licence without being asked
    #[arg(long, visible_alias = "accept-license", alias = "accept-licence")]
    yes: bool,
    /// Download the weights even if they are installed
    #[arg(long)]
    again: bool,
    /// Keep the downloaded file after the import
    #[arg(long)]
    keep: bool,
    /// Ignore keys that the model does not know, instead of refusing the checkpoint
    #[arg(long)]
    allow_unused: bool,
    /// Also download over plain HTTP, which anyone on the way can change
    #[arg(long)]
    allow_http: bool,
    /// Registry of published weights, in place of the built-in one
    #[arg(long, value_name = "FILE")]
    registry: Option<PathBuf>,
}

pub(super) fn run(store: &Store, args: &FetchArgs) -> Result<()> {
    let registry = Registry::load(args.registry.as_deref())?;
    let published = registry.get(&args.name)?;
    if store.contains(&published.name) && !args.again {
        let name = &published.name;
        return Ok(writeln!(std::io::stdout(), "'{name}' is installed already (--again downloads it once more)")?);
    }
    let downloads = store.downloads();
    if published.url.is_some() && !is_accepted(published, &downloads) {
        show_terms(published);
        if !args.yes {
            ask()?;
        }
        accept(published, &downloads)?;
    }
    let bar = byte_bar("downloading")?;
    let settings = FetchSettings { allow_http: args.allow_http, ..FetchSettings::default() };
    let fetched = fetch(published, &downloads, &settings, &mut |event| match event {
        FetchEvent::At { done, total } => {
            if let Some(total) = total {
                bar.set_length(total);
            }
            bar.set_position(done);
        }
        FetchEvent::Retry { reason, wait } => {
            bar.suspend(|| say::line(&format!("{reason}; trying again in {}", seconds(wait))));
        }
    });
    bar.finish_and_clear();
    let fetched = fetched?;
    match &published.sha256 {
        Some(_) => writeln!(std::io::stdout(), "SHA-256 {} matches the registry's", fetched.sha256)?,
        None => writeln!(
            std::io::stdout(),
            "SHA-256 {} (the registry has none; later downloads are compared with this one)",
            fetched.sha256
        )?,
    }
    let options = ImportOptions {
        name: Some(published.name.clone()),
        allow_unused: args.allow_unused,
        ..ImportOptions::default()
    };
    import_file(store, &registry, &published.model, &fetched.path, &options)
        .with_context(|| format!("the download is complete and kept in {}", fetched.path.display()))?;
    if !args.keep {
        std::fs::remove_file(&fetched.path).with_context(|| fetched.path.display().to_string())?;
    }
    Ok(())
}

fn seconds(wait: Duration) -> String {
    format!("{:.0} s", wait.as_secs_f64())
}

fn show_terms(published: &Published) {
    eprintln!("{}: {}", published.name, published.about);
    eprintln!("  from     {}", published.origin());
    if let Some(size) = published.bytes {
        eprintln!("  size     {}", bytes(size));
    }
    for (what, address) in [("code", &published.repository), ("paper", &published.paper)] {
        if let Some(address) = address {
            eprintln!("  {what:<8} {address}");
        }
    }
    eprintln!("  licence  {}", published.licence);
}

/// Asks on the terminal for consent to the terms.
fn ask() -> Result<()> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() || !std::io::stderr().is_terminal() {
        bail!("the licence above was not accepted: give --accept-license to accept it");
    }
    eprint!("Accept these terms? [y/N] ");
    let mut answer = String::new();
    stdin.read_line(&mut answer)?;
    if !matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes") {
        bail!("the licence was not accepted; nothing was downloaded");
    }
    Ok(())
}
