//! The use cases of the Open MQTT Benchmark Suite (github.com/emqx/mqttbs), for which brokers
//! publish figures, with their names: the clients that connect, publish and subscribe, and their
//! rates. Does not use sockets.

use std::str::FromStr;

use crate::{
    codec::{Qos, Version},
    error::{Error, Result},
    scenario::{LoadMode, Scenario, Workload},
};

/// A use case at its published size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Published {
    /// Its name and aliases.
    names: &'static [&'static str],
    scenario: Scenario,
    publishers: u32,
    subscribers: u32,
    topics: u32,
    mqtt: Version,
    /// Messages per second of each publisher, or connections per second of all clients.
    rate: f64,
}

/// All use QoS 1 and payloads of 16 bytes.
const PUBLISHED: [Published; 5] = [
    Published {
        names: &["conn-tcp-1m-5k", "conn-1m-5k"],
        scenario: Scenario::Connections,
        publishers: 0,
        subscribers: 1_000_000,
        topics: 1,
        mqtt: Version::V311,
        rate: 5_000.0,
    },
    Published {
        names: &["conn-tcp-1m-1k", "conn-1m-1k"],
        scenario: Scenario::Connections,
        publishers: 0,
        subscribers: 1_000_000,
        topics: 1,
        mqtt: Version::V311,
        rate: 1_000.0,
    },
    Published {
        names: &["fanout-5-1000-5-250k", "fan-out-5-1000-5-250k"],
        scenario: Scenario::FanOut,
        publishers: 5,
        subscribers: 1_000,
        topics: 5,
        mqtt: Version::V311,
        rate: 50.0,
    },
    Published {
        names: &["p2p-50k-50k-50k-50k"],
        scenario: Scenario::PointToPoint,
        publishers: 50_000,
        subscribers: 50_000,
        topics: 1,
        mqtt: Version::V311,
        rate: 1.0,
    },
    Published {
        names: &["sharesub-50k-500-50k-50k", "sharedsub-50k-500-50k-50k"],
        scenario: Scenario::Shared,
        publishers: 50_000,
        subscribers: 500,
        topics: 1,
        mqtt: Version::V5,
        rate: 1.0,
    },
];

const PAYLOAD_BYTES: u32 = 16;

impl Published {
    /// The workload with this fraction of the clients. Each client has its published rate; the few
    /// publishers of a fan-out stay, as do connections per second.
    pub fn workload(&self, scale: f64, processes: u32) -> Result<Workload> {
        if !(scale > 0.0 && scale <= 1.0) {
            return Err(Error::Usage(format!("a scale of {scale} is not between 0 and 1")));
        }
        let part = |count: u32| match count {
            0 => 0,
            count => ((f64::from(count) * scale).round() as u32).max(1),
        };
        let is_fan_out = self.scenario == Scenario::FanOut;
        let publishers = if is_fan_out { self.publishers } else { part(self.publishers) };
        let per_second = self.rate * f64::from(publishers.max(1));
        let workload = Workload {
            scenario: self.scenario,
            publishers,
            subscribers: part(self.subscribers),
            topics: self.topics,
            mqtt: self.mqtt,
            qos: Qos::AtLeastOnce,
            payload_bytes: PAYLOAD_BYTES,
            are_sessions_kept: false,
            load: LoadMode::Open { per_second },
            loss_fails: true,
            is_segment_each: false,
        };
        workload.check()?;
        workload.check_processes(processes)?;
        Ok(workload)
    }
}

impl FromStr for Published {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let wanted = text.to_ascii_lowercase();
        let wanted = wanted.strip_prefix("singlenode-").unwrap_or(&wanted);
        let found = PUBLISHED.into_iter().find(|published| published.names.contains(&wanted));
        found.ok_or_else(|| {
            let names: Vec<_> = PUBLISHED.iter().map(|published| published.names[0]).collect();
            format!("there is no {text}; there are {}", names.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(name: &str, scale: f64) -> Workload {
        name.parse::<Published>()
            .expect("a published name")
            .workload(scale, 1)
            .expect("a valid scale")
    }

    #[test]
    fn a_benchmark_at_full_size_matches_the_published_one() {
        let fan_out = workload("singlenode-fanout-5-1000-5-250K", 1.0);
        let deliveries = |workload: &Workload| match workload.load {
            LoadMode::Open { per_second } => per_second * f64::from(workload.receivers()),
            LoadMode::Closed { .. } => f64::NAN,
        };
        assert_eq!(deliveries(&fan_out), 250_000.0);
        assert_eq!(fan_out.topic_filters(0, 0).len(), 5);
        assert_eq!(deliveries(&workload("p2p-50k-50k-50k-50k", 1.0)), 50_000.0);
    }

    #[test]
    fn a_scaled_benchmark_has_fewer_clients_at_the_same_rate_each() {
        let shared = workload("sharedsub-50k-500-50k-50k", 0.01);
        assert_eq!((shared.publishers, shared.subscribers), (500, 5));
        assert_eq!(shared.load, LoadMode::Open { per_second: 500.0 });
        let connections = workload("conn-1m-1k", 0.01);
        assert_eq!(connections.clients(), 10_000);
        assert_eq!(connections.load, LoadMode::Open { per_second: 1_000.0 });
        assert!("p2p-1".parse::<Published>().is_err());
        let scale = |scale| "conn-1m-1k".parse::<Published>().map(|it| it.workload(scale, 1));
        assert!(matches!(scale(0.0), Ok(Err(_))) && matches!(scale(2.0), Ok(Err(_))));
    }
}
