//! The `broker` command: runs what its arguments name and ends with the exit code of that.

use std::process::ExitCode;

use ringmq::cli;

fn main() -> ExitCode {
    let exit = cli::run(&cli::flags_of_process()).unwrap_or_else(|failure| {
        cli::print_error(&failure);
        failure.exit
    });
    cli::flush_log();
    exit.into()
}
