//! Writes the manual pages and shell completions of `ringmq`, the name under which packages install the broker:
//! `cargo run -p pages FOLDER`. Used to build packages.

mod explained;
mod man;

use std::fs;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use clap::CommandFactory;
use clap_complete::Shell;
use ringmq::cli::Flags;

fn main() -> ExitCode {
    let Some(folder) = std::env::args_os().nth(1) else {
        eprintln!(
            "pages: the output folder is missing; for example: `cargo run -p pages target/pages`"
        );
        return ExitCode::from(2);
    };
    match write(Path::new(&folder)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pages: {}: {error}", Path::new(&folder).display());
            ExitCode::FAILURE
        }
    }
}

fn write(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    clap_mangen::generate_to(Flags::command(), folder)?;
    fs::write(folder.join("ringmq.1"), man::program(Flags::command())?)?;
    fs::write(folder.join("ringmq.toml.5"), man::configuration())?;
    fs::write(folder.join("ringmq-acl.5"), include_str!("../../../deploy/man/ringmq-acl.5"))?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut Flags::command(), "ringmq", folder)?;
    }
    Ok(())
}
