//! Scenarios by name, and their topics and filters. Does not use sockets.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::{
    codec::{Qos, Version},
    error::{Error, Result},
    limits::{CLIENTS_MAX, PAYLOAD_BYTES_MAX, PORTS_RESTING, STREAMS_MAX, TOPICS_MAX, WINDOW_MAX},
    stamp::Stamp,
};

/// The scenario.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub enum Scenario {
    /// Every subscriber receives every message, through one topic or several.
    FanOut,
    /// Publisher i to subscriber i, each pair with its own topic.
    PointToPoint,
    /// Each publisher has its own topic; every subscriber receives all of them through a wildcard.
    FanIn,
    /// Each publisher has its own topic; each message goes to one subscriber of a group.
    Shared,
    /// Publishers to topics without subscribers; a message counts once the broker has processed it.
    Pub,
    /// Clients that subscribe and unsubscribe; a subscription counts once it is acknowledged.
    Sub,
    /// Clients that connect, and disconnect after CONNACK.
    Conn,
    /// Clients that repeatedly subscribe to a set of retained messages.
    Retained,
    /// All clients lose their connections at once, and all reconnect at once.
    ReconnectStorm,
    /// Idle connections, each with one subscription of its own.
    Connections,
}

/// The clients of one process of a run: those whose index has this remainder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// The process number, from 0.
    pub number: u32,
    /// The number of processes.
    pub processes: u32,
}

impl Share {
    /// All of them.
    pub const WHOLE: Self = Self { number: 0, processes: 1 };

    /// The share of this number of clients.
    pub fn of(self, count: u32) -> u32 {
        (count + self.processes - 1 - self.number) / self.processes
    }

    /// The index in the run of this process's client `index`.
    pub fn in_run(self, index: u32) -> u32 {
        index * self.processes + self.number
    }

    /// The index in this process of the run's client `index`, if it is here.
    #[inline]
    pub fn in_process(self, index: u32) -> Option<u32> {
        if self.processes == 1 {
            return Some(index);
        }
        (index % self.processes == self.number).then(|| index / self.processes)
    }
}

impl Scenario {
    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::FanOut => "fan-out",
            Self::PointToPoint => "point-to-point",
            Self::FanIn => "fan-in",
            Self::Shared => "shared",
            Self::Pub => "pub",
            Self::Sub => "sub",
            Self::Conn => "conn",
            Self::Retained => "retained",
            Self::ReconnectStorm => "reconnect-storm",
            Self::Connections => "connections",
        }
    }

    /// Default numbers of publishers and subscribers.
    pub fn default_clients(self) -> (u32, u32) {
        match self {
            Self::FanOut => (1, 500),
            Self::PointToPoint => (100, 100),
            Self::FanIn => (500, 1),
            Self::Shared => (100, 10),
            Self::Pub => (100, 0),
            Self::Sub | Self::Conn => (0, 100),
            Self::Retained => (0, 10),
            Self::ReconnectStorm => (0, 1_000),
            Self::Connections => (0, 10_000),
        }
    }

    /// Default number of topics: of a fan-out, or of retained messages.
    pub fn default_topics(self) -> u32 {
        if self == Self::Retained { 1_000 } else { 1 }
    }

    /// The counted unit, singular and plural.
    pub fn unit(self) -> (&'static str, &'static str) {
        match self {
            Self::FanOut | Self::PointToPoint | Self::FanIn | Self::Shared | Self::Retained => {
                ("delivery", "deliveries")
            }
            Self::Pub => ("message", "messages"),
            Self::Sub => ("subscription", "subscriptions"),
            Self::Conn | Self::Connections => ("connection", "connections"),
            Self::ReconnectStorm => ("reconnection", "reconnections"),
        }
    }

    /// Whether QoS matters.
    pub fn has_qos(self) -> bool {
        !matches!(self, Self::Conn | Self::Connections | Self::Sub)
    }

    /// Whether clients stay connected and exchange messages.
    pub fn is_traffic(self) -> bool {
        matches!(self, Self::FanOut | Self::PointToPoint | Self::FanIn | Self::Shared | Self::Pub)
    }

    /// Default number of messages in flight per publisher: enough that the broker always has work.
    /// In a fan-in all of them may be queued for one subscriber, and brokers need not queue
    /// megabytes for one.
    pub fn default_window(self) -> u32 {
        match self {
            Self::FanIn => 16,
            Self::Sub => 10,
            _ => 100,
        }
    }
}

/// When publishers send.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoadMode {
    /// Closed loop: each publisher keeps up to `window` messages in flight, sent in groups of at
    /// least `burst`.
    Closed {
        /// Maximum number of messages in flight.
        window: u32,
        /// Minimum number of messages sent together.
        burst: u32,
    },
    /// Open loop: this many operations per second of all clients together, whatever the broker
    /// does: messages, connections, subscriptions, or requests for a retained set.
    Open {
        /// The rate.
        per_second: f64,
    },
}

/// A complete workload: together with the broker's address and a span, a run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Workload {
    /// The scenario.
    pub scenario: Scenario,
    /// Number of publishers.
    pub publishers: u32,
    /// Number of subscribers.
    pub subscribers: u32,
    /// Topics that publishers of a fan-out share, or retained messages per set.
    pub topics: u32,
    /// The protocol version of all clients.
    pub mqtt: Version,
    /// The QoS of publications and subscriptions.
    pub qos: Qos,
    /// The payload's length.
    pub payload_bytes: u32,
    /// Whether sessions are persistent.
    pub are_sessions_kept: bool,
    /// When publishers send.
    pub load: LoadMode,
    /// Whether drops that the broker is permitted count as violations.
    pub loss_fails: bool,
    /// Whether each message and each acknowledgement is written by itself, as devices do.
    pub is_segment_each: bool,
}

impl Workload {
    /// Rejects invalid workloads.
    pub fn check(&self) -> Result<()> {
        let refuse = |what: String| Err(Error::Usage(what));
        let (publishers, subscribers) = (self.publishers, self.subscribers);
        let wants_publishers = self.scenario.is_traffic();
        let wants_subscribers = self.scenario != Scenario::Pub;
        if (publishers > 0) != wants_publishers || (subscribers > 0) != wants_subscribers {
            return refuse(format!(
                "{} with {publishers} publishers and {subscribers} subscribers is no load; \
                 it has {} publishers and {} subscribers",
                self.scenario.name(),
                if wants_publishers { "some" } else { "no" },
                if wants_subscribers { "some" } else { "no" },
            ));
        }
        if self.clients() > CLIENTS_MAX || self.streams() > STREAMS_MAX {
            return refuse(format!("more than {CLIENTS_MAX} clients or {STREAMS_MAX} streams"));
        }
        if self.scenario == Scenario::PointToPoint && publishers != subscribers {
            return refuse("point-to-point needs as many publishers as subscribers".into());
        }
        if !(1..=TOPICS_MAX).contains(&self.topics) {
            return refuse(format!("{} topics are not within 1 to {TOPICS_MAX}", self.topics));
        }
        if !(Stamp::BYTES as u32..=PAYLOAD_BYTES_MAX).contains(&self.payload_bytes) {
            return refuse(format!(
                "a payload has {} to {PAYLOAD_BYTES_MAX} bytes, as it contains a stamp",
                Stamp::BYTES
            ));
        }
        match self.load {
            LoadMode::Closed { window, burst } if !(1..=WINDOW_MAX).contains(&window) => refuse(
                format!("a window of {window} is not within 1 to {WINDOW_MAX} (burst {burst})"),
            ),
            LoadMode::Closed { window, burst } if !(1..=window).contains(&burst) => {
                refuse(format!("a burst of {burst} is not within 1 to the window of {window}"))
            }
            LoadMode::Open { .. } if self.scenario == Scenario::ReconnectStorm => {
                refuse("a reconnect storm has no rate: all clients connect at once".into())
            }
            LoadMode::Open { per_second } if !(1e-3..=1e8).contains(&per_second) => {
                refuse(format!("{per_second} per second is not a valid rate"))
            }
            _ => Ok(()),
        }
    }

    /// Number of connections.
    pub fn clients(&self) -> u32 {
        self.publishers.saturating_add(self.subscribers)
    }

    /// Number of ports used: by its connections, and by closed ones in TIME_WAIT.
    pub fn ports(&self) -> u32 {
        match self.scenario {
            Scenario::Conn | Scenario::ReconnectStorm => {
                self.clients().saturating_add(PORTS_RESTING)
            }
            _ => self.clients(),
        }
    }

    fn streams(&self) -> u64 {
        match self.scenario {
            Scenario::FanOut | Scenario::FanIn | Scenario::Shared => {
                u64::from(self.publishers) * u64::from(self.subscribers)
            }
            Scenario::Retained => u64::from(self.topics) * u64::from(self.subscribers),
            _ => u64::from(self.subscribers),
        }
    }

    /// Whether a missing delivery is reported without being a violation: at QoS 0 a broker may drop
    /// messages that are sent faster than it can deliver them, which happens only in an open loop.
    pub fn may_lose(&self) -> bool {
        let open = matches!(self.load, LoadMode::Open { .. });
        open && self.qos == Qos::AtMostOnce && !self.loss_fails
    }

    /// Rejects workloads that cannot be divided among this many processes.
    pub fn check_processes(&self, processes: u32) -> Result<()> {
        let refuse = |what: String| Err(Error::Usage(what));
        if processes == 1 {
            return Ok(());
        }
        if self.scenario == Scenario::Shared {
            return refuse("a group's messages are counted in one process: --processes 1".into());
        }
        let is_closed = matches!(self.load, LoadMode::Closed { .. });
        let is_scattered = matches!(self.scenario, Scenario::FanOut | Scenario::FanIn);
        if is_scattered && is_closed && self.qos == Qos::AtMostOnce {
            // A window only covers deliveries of its own process; at QoS 0 the broker drops
            // messages that are too fast for receivers in another.
            return refuse("several processes at QoS 0 require an open loop: use --rate".into());
        }
        if self.scenario != Scenario::Pub && self.subscribers < processes {
            return refuse(format!(
                "{processes} processes need {processes} subscribers at least, as each has some; \
                 there are {}",
                self.subscribers
            ));
        }
        if self.scenario == Scenario::Pub && self.publishers < processes {
            return refuse(format!(
                "{processes} processes need {processes} publishers at least; there are {}",
                self.publishers
            ));
        }
        Ok(())
    }

    /// Number of recipients per message.
    pub fn receivers(&self) -> u32 {
        match self.scenario {
            Scenario::FanOut | Scenario::FanIn => self.subscribers,
            Scenario::PointToPoint | Scenario::Shared => 1,
            _ => 0,
        }
    }

    /// The number of events that complete a message in a closed loop, among the clients of one
    /// process: its deliveries there, or its acknowledgement.
    pub fn settlements(&self, share: Share) -> u32 {
        match self.scenario {
            Scenario::FanOut | Scenario::FanIn => share.of(self.subscribers),
            _ => 1,
        }
    }

    /// The topic of publisher `index` of run `run`.
    pub fn topic(&self, run: u32, index: u32) -> String {
        match self.scenario {
            Scenario::FanOut => format!("bench/{run:08x}/{}", index % self.topics),
            _ => format!("bench/{run:08x}/{index}"),
        }
    }

    /// The filters of subscriber `index`.
    pub fn topic_filters(&self, run: u32, index: u32) -> Vec<String> {
        match self.scenario {
            Scenario::FanOut => (0..self.topics).map(|topic| self.topic(run, topic)).collect(),
            Scenario::FanIn => vec![format!("bench/{run:08x}/+")],
            Scenario::Shared => vec![format!("$share/bench/bench/{run:08x}/+")],
            _ => vec![self.topic(run, index)],
        }
    }

    /// The publishers whose messages subscriber `index` receives.
    pub fn heard(&self, index: u32) -> Range<u32> {
        match self.scenario {
            Scenario::FanOut | Scenario::FanIn => 0..self.publishers,
            Scenario::PointToPoint => index..index + 1,
            _ => 0..0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A small workload of each scenario.
    pub(crate) fn workload(scenario: Scenario) -> Workload {
        Workload {
            scenario,
            publishers: if scenario.is_traffic() { 3 } else { 0 },
            subscribers: if scenario == Scenario::Pub { 0 } else { 3 },
            topics: scenario.default_topics(),
            mqtt: Version::V5,
            qos: Qos::AtMostOnce,
            payload_bytes: 64,
            are_sessions_kept: false,
            load: LoadMode::Closed { window: 10, burst: 1 },
            loss_fails: false,
            is_segment_each: false,
        }
    }

    #[test]
    fn each_message_has_the_stated_number_of_recipients() {
        for scenario in [Scenario::FanOut, Scenario::PointToPoint, Scenario::FanIn] {
            let workload = workload(scenario);
            for publisher in 0..workload.publishers {
                let hearing = (0..workload.subscribers)
                    .filter(|&index| workload.heard(index).contains(&publisher))
                    .count();
                assert_eq!(hearing as u32, workload.receivers(), "{scenario:?}");
            }
        }
    }

    #[test]
    fn nonsense_is_refused() {
        let good = workload(Scenario::PointToPoint);
        assert!(good.check().is_ok());
        assert!(Workload { publishers: 2, ..good }.check().is_err());
        assert!(Workload { payload_bytes: 15, ..good }.check().is_err());
        assert!(Workload { subscribers: 0, ..good }.check().is_err());
        let closed = |window, burst| Workload { load: LoadMode::Closed { window, burst }, ..good };
        assert!(closed(0, 0).check().is_err());
        assert!(closed(5, 6).check().is_err());
        assert!(closed(WINDOW_MAX + 1, 1).check().is_err());
        let open = |per_second| Workload { load: LoadMode::Open { per_second }, ..good };
        assert!(open(0.0).check().is_err());
        assert!(open(f64::NAN).check().is_err());
        let storm = workload(Scenario::ReconnectStorm);
        assert!(storm.check().is_ok());
        // A reconnecting client uses another port each time.
        assert!(storm.ports() > storm.clients() + 1_000_000);
        assert!(Workload { load: LoadMode::Open { per_second: 1.0 }, ..storm }.check().is_err());
        assert!(Workload { subscribers: 1, ..workload(Scenario::Pub) }.check().is_err());
    }

    #[test]
    fn every_client_is_in_exactly_one_process() {
        for (clients, processes) in [(0, 3), (1, 3), (7, 3), (9, 3), (5, 1)] {
            let shares = (0..processes).map(|number| Share { number, processes });
            let mut seen: Vec<u32> = Vec::new();
            for share in shares {
                let indices = (0..share.of(clients)).map(|index| share.in_run(index));
                for (index, in_run) in indices.enumerate() {
                    assert_eq!(share.in_process(in_run), Some(index as u32));
                    seen.push(in_run);
                }
            }
            seen.sort_unstable();
            assert_eq!(seen, (0..clients).collect::<Vec<_>>());
        }
    }

    #[test]
    fn workloads_that_cannot_be_divided_are_rejected() {
        assert!(workload(Scenario::Shared).check_processes(2).is_err());
        let fan_out = Workload { qos: Qos::AtLeastOnce, ..workload(Scenario::FanOut) };
        assert!(fan_out.check_processes(4).is_err());
        assert!(fan_out.check_processes(3).is_ok());
        assert!(workload(Scenario::FanOut).check_processes(3).is_err());
        assert!(workload(Scenario::Pub).check_processes(3).is_ok());
    }
}
