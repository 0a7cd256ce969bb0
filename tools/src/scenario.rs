//! Who publishes what to whom: scenarios by name, and the topics and filters they come down to.
//! Knows no socket.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::{
    codec::{Qos, Version},
    error::{Error, Result},
    limits::{CLIENTS_MAX, PAYLOAD_BYTES_MAX, PORTS_RESTING, STREAMS_MAX, TOPICS_MAX, WINDOW_MAX},
    stamp::Stamp,
};

/// The shape of the load.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub enum Scenario {
    /// Every subscriber gets every message, through one topic or a few.
    FanOut,
    /// Publisher i to subscriber i, each pair with its own topic.
    PointToPoint,
    /// Each publisher has its own topic; every subscriber gets them all through a wildcard.
    FanIn,
    /// Each publisher has its own topic; each message goes to one subscriber of a group.
    Shared,
    /// Publishers to topics nobody subscribes to; a message counts once the broker has taken it.
    Pub,
    /// Clients that subscribe and unsubscribe; a subscription counts once it is acknowledged.
    Sub,
    /// Clients that connect, and disconnect once they are accepted.
    Conn,
    /// Clients that subscribe to a set of retained messages again and again.
    Retained,
    /// All clients lose their connections at once, and all come back at once.
    ReconnectStorm,
    /// Connections that do nothing, each with one subscription of its own.
    Connections,
}

/// The clients of a run that one of its processes has: those whose index leaves this remainder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// Which process, from 0.
    pub number: u32,
    /// Of how many.
    pub processes: u32,
}

impl Share {
    /// All of them.
    pub const WHOLE: Self = Self { number: 0, processes: 1 };

    /// How many of so many.
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
    /// Its name on the command line.
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

    /// Publishers and subscribers when the command line does not say.
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

    /// Topics when the command line does not say: those of a fan-out, or retained messages.
    pub fn default_topics(self) -> u32 {
        if self == Self::Retained { 1_000 } else { 1 }
    }

    /// What it counts, one and many.
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

    /// Whether QoS makes a difference to it.
    pub fn has_qos(self) -> bool {
        !matches!(self, Self::Conn | Self::Connections | Self::Sub)
    }

    /// Whether clients stay connected and messages flow between them.
    pub fn is_traffic(self) -> bool {
        matches!(self, Self::FanOut | Self::PointToPoint | Self::FanIn | Self::Shared | Self::Pub)
    }

    /// Messages of each publisher under way when the command line does not say. Enough that the
    /// broker always has work; in fan-in all of them may wait for one subscriber, and no broker
    /// has to keep megabytes for one.
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
    /// Closed loop: each publisher keeps up to `window` messages under way, sent in groups of at
    /// least `burst`.
    Closed {
        /// Messages under way at most.
        window: u32,
        /// Messages sent together at least.
        burst: u32,
    },
    /// Open loop: so many a second from all clients together, whatever the broker does: messages,
    /// or connections, subscriptions, requests for a retained set.
    Open {
        /// The rate.
        per_second: f64,
    },
}

/// A load, whole: with the broker's address and a span, it is a run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Workload {
    /// Its shape.
    pub scenario: Scenario,
    /// How many publish.
    pub publishers: u32,
    /// How many subscribe.
    pub subscribers: u32,
    /// Topics that publishers of a fan-out share out among them, or retained messages of a set.
    pub topics: u32,
    /// The protocol version all of them speak.
    pub mqtt: Version,
    /// The QoS of publications and subscriptions.
    pub qos: Qos,
    /// The payload's length.
    pub payload_bytes: u32,
    /// Whether clients ask for sessions that are kept.
    pub are_sessions_kept: bool,
    /// When publishers send.
    pub load: LoadMode,
    /// Whether the broker is held to deliver what it is free to drop.
    pub loss_fails: bool,
}

impl Workload {
    /// Refuse what is out of bounds or makes no sense.
    pub fn check(&self) -> Result<()> {
        let refuse = |what: String| Err(Error::Usage(what));
        let (publishers, subscribers) = (self.publishers, self.subscribers);
        let wants_publishers = self.scenario.is_traffic();
        let wants_subscribers = self.scenario != Scenario::Pub;
        if (publishers > 0) != wants_publishers || (subscribers > 0) != wants_subscribers {
            return refuse(format!(
                "{} with {publishers} publishers and {subscribers} subscribers makes no load; \
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
                "a payload has {} to {PAYLOAD_BYTES_MAX} bytes: it carries a stamp",
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
                refuse("in a reconnect storm all come at once: it has no rate".into())
            }
            LoadMode::Open { per_second } if !(1e-3..=1e8).contains(&per_second) => {
                refuse(format!("{per_second} a second is no rate to keep"))
            }
            _ => Ok(()),
        }
    }

    /// Connections it opens.
    pub fn clients(&self) -> u32 {
        self.publishers.saturating_add(self.subscribers)
    }

    /// Ports that it takes: those of its connections, and of the ones it has closed.
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

    /// Whether a delivery that never comes is told and not held against the broker: at QoS 0 it may
    /// drop what is sent faster than it can deliver, and only an open loop sends so.
    pub fn may_lose(&self) -> bool {
        let open = matches!(self.load, LoadMode::Open { .. });
        open && self.qos == Qos::AtMostOnce && !self.loss_fails
    }

    /// Refuse what cannot be dealt over so many processes.
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
            // A window sees the deliveries of its own process; at QoS 0 the broker drops what comes
            // too fast for those in another.
            return refuse("over several processes QoS 0 takes an open loop: use --rate".into());
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

    /// How many subscribers each message goes to.
    pub fn receivers(&self) -> u32 {
        match self.scenario {
            Scenario::FanOut | Scenario::FanIn => self.subscribers,
            Scenario::PointToPoint | Scenario::Shared => 1,
            _ => 0,
        }
    }

    /// What settles a message in a closed loop, among the clients of one process: its deliveries
    /// there, or its acknowledgement.
    pub fn settlements(&self, share: Share) -> u32 {
        match self.scenario {
            Scenario::FanOut | Scenario::FanIn => share.of(self.subscribers),
            _ => 1,
        }
    }

    /// The topic that publisher `index` of run `run` publishes to.
    pub fn topic(&self, run: u32, index: u32) -> String {
        match self.scenario {
            Scenario::FanOut => format!("bench/{run:08x}/{}", index % self.topics),
            _ => format!("bench/{run:08x}/{index}"),
        }
    }

    /// The filters that subscriber `index` subscribes to.
    pub fn topic_filters(&self, run: u32, index: u32) -> Vec<String> {
        match self.scenario {
            Scenario::FanOut => (0..self.topics).map(|topic| self.topic(run, topic)).collect(),
            Scenario::FanIn => vec![format!("bench/{run:08x}/+")],
            Scenario::Shared => vec![format!("$share/bench/bench/{run:08x}/+")],
            _ => vec![self.topic(run, index)],
        }
    }

    /// The publishers whose messages subscriber `index` gets.
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

    /// A small load of each shape.
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
        }
    }

    #[test]
    fn each_message_is_heard_by_as_many_as_it_says() {
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
        // Who comes back takes another port each time.
        assert!(storm.ports() > storm.clients() + 1_000_000);
        assert!(Workload { load: LoadMode::Open { per_second: 1.0 }, ..storm }.check().is_err());
        assert!(Workload { subscribers: 1, ..workload(Scenario::Pub) }.check().is_err());
    }

    #[test]
    fn every_client_is_in_one_process() {
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
    fn what_several_processes_cannot_do_is_refused() {
        assert!(workload(Scenario::Shared).check_processes(2).is_err());
        let fan_out = Workload { qos: Qos::AtLeastOnce, ..workload(Scenario::FanOut) };
        assert!(fan_out.check_processes(4).is_err());
        assert!(fan_out.check_processes(3).is_ok());
        assert!(workload(Scenario::FanOut).check_processes(3).is_err());
        assert!(workload(Scenario::Pub).check_processes(3).is_ok());
    }
}
