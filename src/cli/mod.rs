//! The command line: flags, subcommands and exit codes of `broker`.
//!
//! Part of the library and not of the binary, because three programs need it: `src/main.rs` runs commands,
//! `examples/pages.rs` writes manual pages and completions from [`Flags`], and the library's unit tests check how
//! flags override the configuration file. No other folder imports it.

pub mod access;
mod flags;
#[cfg(test)]
mod tests;

#[cfg(all(feature = "service", windows))]
pub use flags::ServiceCommand;
pub use flags::{AclCommand, Command, Flags, PasswdCommand, StoreCommand};
