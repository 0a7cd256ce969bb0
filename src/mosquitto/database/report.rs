//! The report of an import: what was taken, and what was left out for which reason.

use std::collections::BTreeMap;
use std::fmt;

/// What an import takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Sessions.
    Session,
    /// Subscriptions.
    Subscription,
    /// Messages that wait for a client.
    Queued,
    /// Messages to clients of which an acknowledgement is missing.
    Inflight,
    /// QoS 2 messages of clients that have not sent PUBREL yet.
    Received,
    /// Retained messages.
    Retained,
    /// Wills.
    Will,
    /// User Names of sessions.
    Owner,
}

impl Kind {
    const ALL: [Self; 8] = [
        Self::Session,
        Self::Subscription,
        Self::Queued,
        Self::Inflight,
        Self::Received,
        Self::Retained,
        Self::Will,
        Self::Owner,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Session => "sessions",
            Self::Subscription => "subscriptions",
            Self::Queued => "queued messages",
            Self::Inflight => "messages in flight",
            Self::Received => "QoS 2 messages received",
            Self::Retained => "retained messages",
            Self::Will => "Wills",
            Self::Owner => "owners of sessions",
        }
    }
}

/// Why something was left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The session is of a bridge, which begins a new one.
    Bridge,
    /// The subscription or message belongs to a session that was left out.
    OfSession,
    /// The file has no session of this client.
    NoSession,
    /// The file has the session twice.
    Twice,
    /// The store has a session of this client, or a message under this topic.
    InStore,
    /// The time is over.
    Expired,
    /// The session ends with its connection.
    Ends,
    /// A message of the broker itself.
    Sys,
    /// QoS 0 messages do not wait.
    Qos0,
    /// The Client Identifier, Topic Name or Topic Filter is not valid.
    Name,
    /// The file does not contain the message.
    NoMessage,
    /// The Packet Identifier is missing or too far from the others.
    Identifier,
    /// The message is empty.
    Empty,
    /// The User Name has control characters, or is not UTF-8.
    Believed,
}

impl Reason {
    fn text(self) -> &'static str {
        match self {
            Self::Bridge => "of a bridge (\"local.…\"), which begins a new session",
            Self::OfSession => "of a session that is left out",
            Self::NoSession => "of a client without a session in the file",
            Self::Twice => "a second session of the same client",
            Self::InStore => "the store has its own",
            Self::Expired => "expired",
            Self::Ends => "ends with its connection",
            Self::Sys => "below $SYS, which is the broker's own",
            Self::Qos0 => "of QoS 0, which is not stored",
            Self::Name => "a name, topic or filter that is not valid",
            Self::NoMessage => "the file does not contain the message",
            Self::Identifier => "without a usable Packet Identifier",
            Self::Empty => "empty",
            Self::Believed => "not a User Name: Mosquitto up to 2.0.15 writes wrong ones",
        }
    }
}

/// What an import took, and what it left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The file, its format and size.
    pub source: String,
    taken: BTreeMap<Kind, u64>,
    left_out: BTreeMap<(Kind, Reason), u64>,
    /// Messages that were taken without their properties, which are not valid.
    pub without_properties: u64,
    /// Messages in flight that are queued again: their Packet Identifiers are too far from the others.
    pub queued_again: u64,
    /// What users have to know.
    warnings: Vec<String>,
    /// Further warnings than those.
    warnings_more: u64,
    /// Where the file was damaged, if only the part before was taken.
    pub damage: Option<String>,
}

/// Warnings that are listed; the others are counted.
const WARNINGS_MAX: usize = 100;

impl Report {
    /// An empty report. `source` describes the file.
    pub fn new(source: String) -> Self {
        Self { source, ..Self::default() }
    }

    /// Counts what is taken.
    pub fn take(&mut self, kind: Kind, count: usize) {
        if count > 0 {
            *self.taken.entry(kind).or_default() += count as u64;
        }
    }

    /// Counts what is left out.
    pub fn leave_out(&mut self, kind: Kind, reason: Reason, count: usize) {
        if count > 0 {
            *self.left_out.entry((kind, reason)).or_default() += count as u64;
        }
    }

    /// Adds a warning.
    pub fn warn(&mut self, warning: String) {
        if self.warnings.len() < WARNINGS_MAX {
            self.warnings.push(warning);
        } else {
            self.warnings_more += 1;
        }
    }

    /// How many were taken.
    pub fn taken(&self, kind: Kind) -> u64 {
        self.taken.get(&kind).copied().unwrap_or(0)
    }

    /// How many were left out for a reason.
    pub fn left_out(&self, kind: Kind, reason: Reason) -> u64 {
        self.left_out.get(&(kind, reason)).copied().unwrap_or(0)
    }

    /// Whether nothing was taken.
    pub fn is_empty(&self) -> bool {
        self.taken.is_empty()
    }

    /// The warnings, each a line.
    fn warnings(&self) -> impl Iterator<Item = String> {
        let count = |count: u64, text: &str| (count > 0).then(|| format!("{count} {text}"));
        let counts = [
            count(
                self.without_properties,
                "messages are taken without their properties, which are not valid",
            ),
            count(
                self.queued_again,
                "messages in flight are queued again, as their Packet Identifiers are far from the others; \
                 clients may receive them twice",
            ),
            count(self.warnings_more, "further warnings"),
            self.damage
                .as_ref()
                .map(|damage| format!("only the part before the damage was taken: {damage}")),
        ];
        self.warnings.iter().cloned().chain(counts.into_iter().flatten())
    }

    /// Writes the report to the log.
    pub fn log(&self) {
        let of = |kind| self.taken(kind);
        tracing::info!(
            file = self.source,
            sessions = of(Kind::Session),
            messages = of(Kind::Queued) + of(Kind::Inflight),
            retained = of(Kind::Retained),
            left_out = self.left_out.values().sum::<u64>(),
            "imported Mosquitto's database"
        );
        for (&(kind, reason), number) in &self.left_out {
            tracing::info!(what = kind.name(), number, because = reason.text(), "not imported");
        }
        for warning in self.warnings() {
            tracing::warn!(detail = warning, "the import is not exact");
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.source)?;
        writeln!(f, "{:<26}{:>12}{:>12}", "", "taken", "left out")?;
        for kind in Kind::ALL {
            let left_out: u64 = self
                .left_out
                .iter()
                .filter(|((of, _), _)| *of == kind)
                .map(|(_, count)| count)
                .sum();
            writeln!(f, "{:<26}{:>12}{:>12}", kind.name(), self.taken(kind), left_out)?;
        }
        if !self.left_out.is_empty() {
            writeln!(f, "left out:")?;
        }
        for ((kind, reason), count) in &self.left_out {
            writeln!(f, "{count:>9} {}: {}", kind.name(), reason.text())?;
        }
        for warning in self.warnings() {
            writeln!(f, "warning: {warning}")?;
        }
        Ok(())
    }
}
