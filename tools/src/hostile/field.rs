//! What an attack is: how the broker is set up for it, what is made ready beforehand, and what is sent.
//! Knows nothing of those who are watched meanwhile.

use std::time::{Duration, Instant};

use super::{
    packets::Connect,
    peer::{Heard, Peer},
};
use crate::address::LoopbackAddress;

/// Where an attack happens, and how much of it.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// The broker.
    pub address: LoopbackAddress,
    /// A small form of it, for a check that has little time.
    pub is_short: bool,
    /// How long an answer is waited for.
    pub patience: Duration,
    /// How long a load lasts that has no end of its own.
    pub span: Duration,
}

impl Field {
    /// A count, smaller in the short form.
    pub fn count(&self, full: usize, short: usize) -> usize {
        if self.is_short { short } else { full }
    }

    /// A client that has been let in.
    pub fn connect(&self, connect: &Connect<'_>) -> Heard<Peer> {
        Peer::connect(self.address, self.patience, connect)
    }

    /// A client with a session that ends with its connection.
    pub fn join(&self, client: &str) -> Heard<Peer> {
        self.connect(&Connect::clean(client))
    }

    /// A TCP connection on which nothing was sent yet.
    pub fn open(&self) -> Heard<Peer> {
        Peer::open(self.address, self.patience)
    }

    /// When a load that begins now is over.
    pub fn end(&self) -> Instant {
        Instant::now() + self.span
    }
}

/// How brokers are set up for an attack, beyond listening on a port of loopback.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// Tables of ringmq's configuration file.
    pub ringmq: String,
    /// Lines of Mosquitto's.
    pub mosquitto: String,
    /// Further files that either names as {dir}/NAME.
    pub files: Vec<(&'static str, String)>,
    /// Sessions and messages are kept on disk.
    pub has_store: bool,
    /// Threads of ringmq, which share the broker's cores.
    pub cores: Option<usize>,
    /// What Mosquitto has no such thing for: it is left out.
    pub lacks_mosquitto: bool,
    /// Bytes of address space that the broker gets (`ulimit -v`).
    pub address_space_bytes: Option<u64>,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Ended {
    /// What the attackers heard, in a few words.
    pub heard: String,
    /// What the broker did that it must not, in words.
    pub fault: Option<String>,
    /// Those who stay connected until the innocent clients were watched long enough.
    pub held: Vec<Peer>,
}

impl Ended {
    /// Nobody stays.
    pub fn with(heard: impl Into<String>) -> Self {
        Self { heard: heard.into(), ..Self::default() }
    }

    /// These stay.
    pub fn holding(heard: impl Into<String>, held: Vec<Peer>) -> Self {
        Self { heard: heard.into(), held, fault: None }
    }
}

/// What is sent once the innocent clients have been watched without it.
pub type Strike = Box<dyn FnOnce(&Field) -> Heard<Ended> + Send>;

/// One attack.
#[derive(Clone, Copy, Debug)]
pub struct Attack {
    /// As it is named on the command line and in tables.
    pub name: &'static str,
    /// What is sent, in a line.
    pub about: &'static str,
    /// How the broker is set up.
    pub setup: fn(&Field) -> Setup,
    /// What is made ready beforehand, and what is sent then.
    pub prepare: fn(&Field) -> Heard<Strike>,
    /// Part of the short form.
    pub in_short: bool,
}

/// The broker as it is.
pub fn plain(_: &Field) -> Setup {
    Setup::default()
}
