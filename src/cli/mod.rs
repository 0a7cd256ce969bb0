//! The command line: flags, subcommands and exit codes of `broker`.
//!
//! Part of the library and not of the binary, because three programs need it: `src/main.rs` runs commands,
//! `tools/pages` writes manual pages, completions and a reference from [`Flags`], and the library's unit tests check how
//! flags override the configuration file. No other folder imports it.

mod access;
#[cfg(feature = "completions")]
mod completions;
mod console;
#[cfg(feature = "admin")]
pub mod ctl;
mod flags;
mod log;
mod mosquitto;
mod pid_file;
mod platform;
mod serve;
#[cfg(all(feature = "service", windows))]
mod service;
mod signals;
mod store;
#[cfg(test)]
mod tests;
mod user;

use std::error::Error;
use std::fmt;
use std::process::ExitCode;

use crate::config::ConfigError;
pub use console::print_error;
#[cfg(all(feature = "service", windows))]
pub use flags::ServiceCommand;
pub use flags::{
    AclCommand, Command, Flags, ImportCommand, MosquittoCommand, PasswdCommand, StoreCommand,
};
pub use log::flush as flush_log;
pub use mosquitto::{InPlace, flags as flags_of_process};

/// Exit codes, which `--help` documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The command did what it was asked; its answer, if it has one, is yes.
    Success = 0,
    /// Any other failure, or the answer is no.
    Other = 1,
    /// Flags or configuration cannot be used.
    Configuration = 2,
    /// An address cannot be listened on.
    Listen = 3,
    /// The descriptor limit is too low.
    Descriptors = 4,
    /// The store cannot be used, or is damaged.
    Store = 5,
    /// Other nodes of the cluster have taken over the sessions of this one.
    #[cfg(feature = "cluster")]
    TakenOver = 6,
}

impl Exit {
    /// For a command that answers a question.
    fn of_answer(is_yes: bool) -> Self {
        if is_yes { Self::Success } else { Self::Other }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// A command that failed.
#[derive(Debug)]
pub struct Failure {
    /// The exit code of the process.
    pub exit: Exit,
    /// Name of the subcommand; none for the server itself.
    command: Option<&'static str>,
    error: Box<dyn Error>,
}

impl Failure {
    fn new(exit: Exit, error: impl Into<Box<dyn Error>>) -> Self {
        Self { exit, command: None, error: error.into() }
    }

    /// Turns an error of a subcommand into its failure: for `map_err`.
    fn of<E: Into<Box<dyn Error>>>(exit: Exit, command: &'static str) -> impl FnOnce(E) -> Self {
        move |error| Self { exit, command: Some(command), error: error.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.command {
            Some(command) => write!(f, "broker {command}: {}", self.error),
            None => write!(f, "broker: {}", self.error),
        }
    }
}

impl Error for Failure {}

/// The last of several errors of the configuration, after the others have been printed.
fn after_others(errors: Vec<ConfigError>) -> Failure {
    let mut failures = errors.into_iter().map(|error| Failure::new(Exit::Configuration, error));
    let last = failures.next_back().expect("an error is the reason");
    failures.for_each(|failure| print_error(&failure));
    last
}

/// Runs the command that the flags name; without one, serves until stopped.
pub fn run(flags: &Flags) -> Result<Exit, Failure> {
    let configuration = flags.configuration().map_err(after_others)?;
    if flags.print_config {
        return serve::print_config(&configuration);
    }
    if flags.in_place.as_ref().is_some_and(|of| of.is_in_background) && !flags.check_config {
        return mosquitto::start_in_background();
    }
    let settings = configuration.settings.clone();
    match &flags.command {
        Some(Command::Platform { json, plan, cores, numa }) => {
            let plan = plan.then(|| (cores.as_ref().unwrap_or(&settings.cores), *numa));
            platform::run(plan, *json, &settings)
        }
        Some(Command::Passwd { file, what }) => access::passwd(what, file.as_deref(), &settings),
        Some(Command::Mosquitto { what }) => mosquitto::run(what, flags.mosquitto),
        Some(Command::Acl { what }) => access::acl(what, &settings),
        Some(Command::Store { what }) => {
            log::start(&settings.log)?;
            store::run(what, &settings)
        }
        #[cfg(feature = "admin")]
        Some(Command::Ctl(flags)) => ctl::run(flags, &settings),
        #[cfg(feature = "admin")]
        Some(Command::Cluster(flags)) => ctl::run(&flags.clone().into(), &settings),
        #[cfg(feature = "completions")]
        Some(Command::Completions { shell }) => completions::run(*shell),
        #[cfg(all(feature = "service", windows))]
        Some(Command::Service { what }) => service::run(*what, flags, settings),
        None if flags.check_config => serve::check(&settings),
        None => {
            log::start(&settings.log)?;
            serve::run(configuration, flags)
        }
    }
}
