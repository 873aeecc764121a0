//! The `geopurify` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    geopurify::cli::main()
}
