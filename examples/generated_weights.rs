//! `cargo run --release --example generated_weights -- [--size tiny|narrow|published] DIR`: weights of generated values,
//! to try every command before the published weights are at hand. The labels they give mean nothing.

#[path = "../tests/common/weights.rs"]
mod weights;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use weights::{WeightFiles, narrow_weights, published_weights, tiny_weights};

#[derive(Parser)]
#[command(about = "Writes weights of generated values; the labels they give mean nothing")]
struct Arguments {
    /// tiny: a picture takes a fraction of a second; narrow: the same, with embeddings and a student of the published sizes;
    /// published: the time and memory of the real ones, 2 GB
    #[arg(long, value_enum, default_value_t = Size::Tiny)]
    size: Size,
    /// Where the files go
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
    println!("Generated values, not trained: every label they give is meaningless. To use them:");
    println!("  --xdecoder {}", xdecoder.display());
    println!("  --xdecoder-config {}", config.display());
    println!("  --student {}", student.display());
    println!("and for encode:");
    println!("  --weights {}", sonata.display());
    println!("  --config {}", sonata_config.display());
    Ok(())
}
