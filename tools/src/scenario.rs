//! Who publishes what to whom: scenarios by name, and the topics and filters they come down to.
//! Knows no socket.

use std::ops::Range;

use serde::Serialize;

use crate::{
    codec::{Qos, Version},
    error::{Error, Result},
    limits::{CLIENTS_MAX, PAYLOAD_BYTES_MAX, STREAMS_MAX, WINDOW_MAX},
    stamp::Stamp,
};

/// The shape of the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Scenario {
    /// Every subscriber gets every message, through one topic.
    FanOut,
    /// Publisher i to subscriber i, each pair with its own topic.
    PointToPoint,
    /// Each publisher has its own topic; every subscriber gets them all through a wildcard.
    FanIn,
    /// Connections that do nothing, each with one subscription of its own.
    Connections,
}

impl Scenario {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::FanOut => "fan-out",
            Self::PointToPoint => "point-to-point",
            Self::FanIn => "fan-in",
            Self::Connections => "connections",
        }
    }

    /// Publishers and subscribers when the command line does not say.
    pub fn default_clients(self) -> (u32, u32) {
        match self {
            Self::FanOut => (1, 500),
            Self::PointToPoint => (100, 100),
            Self::FanIn => (500, 1),
            Self::Connections => (0, 10_000),
        }
    }

    /// Messages of each publisher under way when the command line does not say. Enough that the
    /// broker always has work; in fan-in all of them may wait for one subscriber, and no broker
    /// has to keep megabytes for one.
    pub fn default_window(self) -> u32 {
        match self {
            Self::FanIn => 16,
            Self::FanOut | Self::PointToPoint | Self::Connections => 100,
        }
    }
}

/// When publishers send.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize)]
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
    /// Open loop: so many messages a second from all publishers together.
    Open {
        /// The rate.
        messages_per_second: f64,
    },
}

/// A load, whole: with the broker's address and a span, it is a run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Workload {
    /// Its shape.
    pub scenario: Scenario,
    /// How many publish.
    pub publishers: u32,
    /// How many subscribe.
    pub subscribers: u32,
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
}

impl Workload {
    /// Refuse what is out of bounds or makes no sense.
    pub fn check(&self) -> Result<()> {
        let refuse = |what: String| Err(Error::Usage(what));
        let (publishers, subscribers) = (self.publishers, self.subscribers);
        if subscribers == 0 || (publishers == 0) != (self.scenario == Scenario::Connections) {
            return refuse(format!(
                "{} with {publishers} publishers and {subscribers} subscribers makes no load",
                self.scenario.name()
            ));
        }
        if self.clients() > CLIENTS_MAX || self.streams() > STREAMS_MAX {
            return refuse(format!("more than {CLIENTS_MAX} clients or {STREAMS_MAX} streams"));
        }
        if self.scenario == Scenario::PointToPoint && publishers != subscribers {
            return refuse("point-to-point needs as many publishers as subscribers".into());
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
            LoadMode::Open { messages_per_second }
                if !(1e-3..=1e8).contains(&messages_per_second) =>
            {
                refuse(format!("{messages_per_second} messages a second is no rate to keep"))
            }
            _ => Ok(()),
        }
    }

    /// Connections it opens.
    pub fn clients(&self) -> u32 {
        self.publishers.saturating_add(self.subscribers)
    }

    fn streams(&self) -> u64 {
        match self.scenario {
            Scenario::FanOut | Scenario::FanIn => {
                u64::from(self.publishers) * u64::from(self.subscribers)
            }
            Scenario::PointToPoint | Scenario::Connections => u64::from(self.subscribers),
        }
    }

    /// How many subscribers each message goes to.
    pub fn receivers(&self) -> u32 {
        match self.scenario {
            Scenario::FanOut | Scenario::FanIn => self.subscribers,
            Scenario::PointToPoint => 1,
            Scenario::Connections => 0,
        }
    }

    /// The topic that publisher `index` of run `run` publishes to.
    pub fn topic(&self, run: u32, index: u32) -> String {
        match self.scenario {
            Scenario::FanOut => format!("bench/{run:08x}"),
            Scenario::PointToPoint | Scenario::FanIn | Scenario::Connections => {
                format!("bench/{run:08x}/{index}")
            }
        }
    }

    /// The filter that subscriber `index` subscribes to.
    pub fn topic_filter(&self, run: u32, index: u32) -> String {
        match self.scenario {
            Scenario::FanIn => format!("bench/{run:08x}/+"),
            _ => self.topic(run, index),
        }
    }

    /// The publishers whose messages subscriber `index` gets.
    pub fn heard(&self, index: u32) -> Range<u32> {
        match self.scenario {
            Scenario::FanOut | Scenario::FanIn => 0..self.publishers,
            Scenario::PointToPoint => index..index + 1,
            Scenario::Connections => 0..0,
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
            publishers: if scenario == Scenario::Connections { 0 } else { 3 },
            subscribers: 3,
            mqtt: Version::V5,
            qos: Qos::AtMostOnce,
            payload_bytes: 64,
            are_sessions_kept: false,
            load: LoadMode::Closed { window: 10, burst: 1 },
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
        assert!(Workload { payload_bytes: 23, ..good }.check().is_err());
        assert!(Workload { subscribers: 0, ..good }.check().is_err());
        let closed = |window, burst| Workload { load: LoadMode::Closed { window, burst }, ..good };
        assert!(closed(0, 0).check().is_err());
        assert!(closed(5, 6).check().is_err());
        assert!(closed(WINDOW_MAX + 1, 1).check().is_err());
        let open =
            |messages_per_second| Workload { load: LoadMode::Open { messages_per_second }, ..good };
        assert!(open(0.0).check().is_err());
        assert!(open(f64::NAN).check().is_err());
    }
}
