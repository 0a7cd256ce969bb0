//! Mosquitto's configuration file, translated into the configuration of this broker. One table has all options; each
//! line of a file has a verdict: taken over, ignored with a notice, or refused with the reason.

mod access;
mod bridge;
pub mod convert;
mod go_auth;
mod limits;
mod listener;
pub mod options;
mod process;
mod syntax;
#[cfg(test)]
mod tests;
mod translation;

pub use translation::{Generation, Judged, Translation};

use translation::{Effect, Outcome};

/// Takes an option that has no effect, with the reason.
fn ignored(reason: &str) -> Outcome {
    Ok(Effect::Ignored(reason.to_owned()))
}

/// Refuses an option, with the reason and what to do.
fn refused(reason: impl Into<String>) -> Outcome {
    Err(reason.into())
}
