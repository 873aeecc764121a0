//! `cargo run --release --example generated_weights -- [--size tiny|narrow|published] DIR` writes weights of
//! generated values. They let you try every command without the published weights. Their labels mean nothing.

#[path = "../tests/common/weights.rs"]
mod weights;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use weights::{LSegFiles, WeightFiles, narrow_weights, published_lseg, published_weights, tiny_lseg, tiny_weights};

#[derive(Parser)]
#[command(about = "Writes weights of generated values; their labels mean nothing")]
struct Arguments {
    /// Size of the networks: tiny takes a fraction of a second for a picture; narrow is the same, with
    /// embeddings and a student of the published sizes; published takes the time and memory of the published
    /// networks, 2 GB, and 1.6 GB for LSeg
    #[arg(long, value_enum, default_value_t = Size::Tiny)]
    size: Size,
    /// Folder for the files
    dir: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum Size {
    Tiny,
    Narrow,
    Published,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let WeightFiles { xdecoder, config, student, sonata, sonata_config } = match arguments.size {
        Size::Tiny => tiny_weights(&arguments.dir)?,
        Size::Narrow => narrow_weights(&arguments.dir)?,
        Size::Published => published_weights(&arguments.dir)?,
    };
    println!("The values are generated, not trained, so the labels mean nothing. Use them with:");
    println!("  --xdecoder {}", xdecoder.display());
    println!("  --xdecoder-config {}", config.display());
    println!("  --student {}", student.display());
    let lseg = match arguments.size {
        Size::Tiny => Some(tiny_lseg(&arguments.dir)?),
        Size::Narrow => None,
        Size::Published => Some(published_lseg(&arguments.dir)?),
    };
    if let Some(LSegFiles { weights, config }) = lseg {
        println!("or in place of the first two:");
        println!("  --lseg {}", weights.display());
        println!("  --lseg-config {}", config.display());
    }
    println!("and for encode:");
    println!("  --weights {}", sonata.display());
    println!("  --config {}", sonata_config.display());
    Ok(())
}
