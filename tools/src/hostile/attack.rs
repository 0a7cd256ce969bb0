//! The definition of an attack: configuration of the broker, preparation, and the data sent.
//! Independent of the measured clients.

use std::time::{Duration, Instant};

use super::{
    packets::Connect,
    peer::{Exchange, Peer},
};
use crate::address::LoopbackAddress;

/// The target of an attack, and its extent.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The broker's address.
    pub address: LoopbackAddress,
    /// A smaller form, for a quick check.
    pub is_short: bool,
    /// Timeout for responses.
    pub patience: Duration,
    /// Duration of a load without an end of its own.
    pub span: Duration,
}

impl Target {
    /// A count, reduced in the short form.
    pub fn count(&self, full: usize, short: usize) -> usize {
        if self.is_short { short } else { full }
    }

    /// A connected client.
    pub fn connect(&self, connect: &Connect<'_>) -> Exchange<Peer> {
        Peer::connect(self.address, self.patience, connect)
    }

    /// A client with a session that ends with its connection.
    pub fn join(&self, client: &str) -> Exchange<Peer> {
        self.connect(&Connect::clean(client))
    }

    /// A TCP connection on which no data has been sent.
    pub fn open(&self) -> Exchange<Peer> {
        Peer::open(self.address, self.patience)
    }

    /// The end of a load that starts now.
    pub fn end(&self) -> Instant {
        Instant::now() + self.span
    }
}

/// The configuration of brokers for an attack, in addition to a port on loopback.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// Tables for ringmq's configuration file.
    pub ringmq: String,
    /// Lines for Mosquitto's configuration file.
    pub mosquitto: String,
    /// Additional files, referred to as {dir}/NAME.
    pub files: Vec<(&'static str, String)>,
    /// Sessions and messages are stored on disk.
    pub has_store: bool,
    /// Threads of ringmq, which share the broker's cores.
    pub cores: Option<usize>,
    /// Mosquitto lacks the attacked feature: it is skipped.
    pub lacks_mosquitto: bool,
    /// Limit of the broker's address space in bytes (`ulimit -v`).
    pub address_space_bytes: Option<u64>,
}

/// The outcome of an attack.
#[derive(Debug, Default)]
pub struct AttackOutcome {
    /// A short summary of what the attackers received.
    pub heard: String,
    /// A description of forbidden behaviour of the broker.
    pub fault: Option<String>,
    /// Attackers that stay connected until the innocent clients have been measured.
    pub held: Vec<Peer>,
}

impl AttackOutcome {
    /// No attacker stays.
    pub fn with(heard: impl Into<String>) -> Self {
        Self { heard: heard.into(), ..Self::default() }
    }

    /// These attackers stay.
    pub fn holding(heard: impl Into<String>, held: Vec<Peer>) -> Self {
        Self { heard: heard.into(), held, fault: None }
    }
}

/// The attack itself, sent after the innocent clients have been measured without it.
pub type AttackFn = Box<dyn FnOnce(&Target) -> Exchange<AttackOutcome> + Send>;

/// One attack.
#[derive(Clone, Copy, Debug)]
pub struct Attack {
    /// The name on the command line and in tables.
    pub name: &'static str,
    /// A one-line description.
    pub about: &'static str,
    /// The configuration of the broker.
    pub setup: fn(&Target) -> Setup,
    /// Prepares the attack, and returns the data to send.
    pub prepare: fn(&Target) -> Exchange<AttackFn>,
    /// Whether the attack is part of the short form.
    pub in_short: bool,
}

/// The default configuration.
pub fn plain(_: &Target) -> Setup {
    Setup::default()
}
