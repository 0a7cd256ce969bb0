//! Where the log goes besides standard error: a file that is opened again after a rotation, the journal of systemd, a
//! syslog daemon. Each is a [`Write`](std::io::Write) of which a call takes one line whole; the thread of
//! [`Output`](crate::base::output::Output) calls it, so that only this thread waits.

mod file;
#[cfg(all(feature = "service", unix))]
mod journald;
mod mosquitto;
#[cfg_attr(
    not(all(feature = "service", unix)),
    allow(dead_code, reason = "one sink of three is built")
)]
mod record;
#[cfg(all(feature = "service", unix))]
mod syslog;

pub use file::{LogFile, Reopen};
#[cfg(all(feature = "service", unix))]
pub use journald::Journal;
pub use mosquitto::{CONVERSIONS, MosquittoLines, Stamp, TopicLines};
#[cfg(all(feature = "service", unix))]
pub use syslog::Syslog;
