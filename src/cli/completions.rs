//! `broker completions`: completions of the command line, for a shell.

use std::path::Path;

use clap::CommandFactory as _;
use clap_complete::Shell;

use super::console::print;
use super::{Exit, Failure, Flags};

/// Prints the completions for the name that the program is called by, as it is `ringmq` when installed, and `broker`
/// when built.
pub(super) fn run(shell: Shell) -> Result<Exit, Failure> {
    let path = std::env::args_os().next().unwrap_or_default();
    let name = Path::new(&path).file_stem().and_then(|name| name.to_str()).unwrap_or("ringmq");
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Flags::command(), name, &mut text);
    print(String::from_utf8_lossy(&text).trim_end(), Exit::Success)
}
