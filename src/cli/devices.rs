use std::io::Write as _;

use anyhow::Result;
use serde_json::json;

use super::shown::json_lines;
use super::table::bytes;
use crate::gpu::{AdapterReport, DeviceSelection, adapters, choose};

/// Arguments of `devices`.
#[derive(clap::Args, Debug)]
pub(super) struct DevicesArgs {
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &DevicesArgs) -> Result<()> {
    let adapters = adapters();
    let auto = choose(DeviceSelection::Auto, &adapters)?;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut out = std::io::stdout().lock();
    if args.json {
        let report = json!({
            "adapters": adapters,
            "cpu": { "threads": threads },
            "auto": { "adapter": auto.adapter, "why": auto.why },
        });
        writeln!(out, "{}", json_lines(&report)?)?;
        return Ok(());
    }
    for adapter in &adapters {
        write_adapter(&mut out, adapter)?;
    }
    if adapters.is_empty() {
        writeln!(
            out,
            "no graphics adapter: install a Vulkan driver, or Debian's mesa-vulkan-drivers for a software one\n"
        )?;
    }
    writeln!(out, "cpu: the host, {threads} threads, no graphics API\n")?;
    let taken = auto.adapter.map_or("cpu".to_owned(), |index| index.to_string());
    writeln!(out, "--device auto takes {taken}: {}", auto.why)?;
    Ok(())
}

fn write_adapter(out: &mut impl std::io::Write, a: &AdapterReport) -> std::io::Result<()> {
    let yes = |have: bool| if have { "yes" } else { "no" };
    writeln!(out, "{}: {} ({}, {})", a.index, a.name, a.kind, a.backend)?;
    writeln!(out, "   driver               {}", a.driver)?;
    writeln!(
        out,
        "   largest buffer       {}, bound at once {}",
        bytes(a.max_buffer_bytes),
        bytes(a.max_binding_bytes)
    )?;
    writeln!(
        out,
        "   workgroup            {} threads, {} shared",
        a.workgroup_threads,
        bytes(a.workgroup_bytes.into())
    )?;
    let subgroups = a.subgroups.map_or("no".to_owned(), |(least, most)| match least == most {
        true => format!("{least}"),
        false => format!("{least} to {most}"),
    });
    writeln!(out, "   f16 {}, subgroups {subgroups}, timestamps {}", yes(a.f16), yes(a.timestamps))?;
    let matrices = match a.cooperative_matrices.is_empty() {
        true => "none".to_owned(),
        false => a.cooperative_matrices.join(", "),
    };
    writeln!(out, "   cooperative matrices {matrices}\n")
}
