//! `geopurify pretrain`: the models that are otherwise downloaded, at small widths, from made rooms.

mod sonata;

use anyhow::Result;
use clap::Subcommand;

/// Arguments of `pretrain`.
#[derive(clap::Args, Debug)]
pub(super) struct PretrainArgs {
    #[command(subcommand)]
    model: Model,
}

#[derive(Subcommand, Debug)]
enum Model {
    /// A teacher of Sonata's architecture, from scans whose objects are known
    Sonata(sonata::SonataArgs),
}

pub(super) fn run(args: &PretrainArgs) -> Result<()> {
    match &args.model {
        Model::Sonata(args) => sonata::run(args),
    }
}
