//! The `geopurify` command.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: geopurify::alloc::HugePages = geopurify::alloc::HugePages;

fn main() -> ExitCode {
    geopurify::cli::main()
}
