//! The `broker` command: runs what its arguments name and ends with the exit code of that.

use std::process::ExitCode;

use clap::Parser;
use ringmq::cli::{self, Flags};

fn main() -> ExitCode {
    let exit = cli::run(&Flags::parse()).unwrap_or_else(|failure| {
        cli::print_error(&failure);
        failure.exit
    });
    cli::flush_log();
    exit.into()
}
