//! Moving averages: how much the broker does in a minute, over the last 1, 5 and 15 minutes.

use crate::base::clock::Now;
use crate::base::metrics::Metrics;

/// A counter whose growth is averaged.
type Counter = fn(&Metrics) -> u64;

/// The counters with their names below `load/`.
const COUNTERS: [(&str, Counter); 9] = [
    ("messages/received", |of| of.packets_received),
    ("messages/sent", |of| of.packets_sent),
    ("publish/dropped", |of| of.drops.total()),
    ("publish/received", |of| of.publishes_received),
    ("publish/sent", |of| of.publishes_sent),
    ("bytes/received", |of| of.bytes_received),
    ("bytes/sent", |of| of.bytes_sent),
    ("sockets", |of| of.connections_accepted),
    ("connections", |of| of.connects_received),
];

/// The periods with their names, in minutes.
const PERIODS: [(&str, f64); 3] = [("1min", 1.0), ("5min", 5.0), ("15min", 15.0)];

/// The averages, as Mosquitto computes them: the rate since the last update has the weight `1 - exp(-t / period)`, where
/// `t` is the time since then, and the average before has the rest.
#[derive(Debug, Default)]
pub(super) struct Loads {
    /// The counters at the last update, and its time; none before the first one.
    before: Option<(Now, [u64; COUNTERS.len()])>,
    /// By counter and period, for each minute.
    averages: [[f64; PERIODS.len()]; COUNTERS.len()],
}

impl Loads {
    /// Takes the counters of all cores into the averages. They are 0 after the first call.
    pub fn update(&mut self, metrics: &Metrics, now: Now) {
        let counts = COUNTERS.map(|(_, counter)| counter(metrics));
        let Some((updated, before)) = self.before else {
            self.before = Some((now, counts));
            return;
        };
        let elapsed_us = now.since_us(updated);
        if elapsed_us == 0 {
            return;
        }
        self.before = Some((now, counts));
        let minutes = elapsed_us as f64 / 60_000_000.0;
        for (averages, (count, before)) in self.averages.iter_mut().zip(counts.iter().zip(before)) {
            let rate = count.saturating_sub(before) as f64 / minutes;
            for (average, (_, period)) in averages.iter_mut().zip(PERIODS) {
                *average = rate + (-minutes / period).exp() * (*average - rate);
            }
        }
    }

    /// The averages by their names below `$SYS/broker/`, with two decimals.
    pub fn topics(&self) -> impl Iterator<Item = (String, String)> {
        COUNTERS.iter().zip(&self.averages).flat_map(|((name, _), averages)| {
            PERIODS.iter().zip(averages).map(move |((period, _), average)| {
                (format!("load/{name}/{period}"), format!("{average:.2}"))
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn shown(loads: &Loads) -> BTreeMap<String, String> {
        loads.topics().collect()
    }

    #[test]
    fn averages_follow_the_rate_in_a_minute_as_in_mosquitto() {
        let (mut loads, mut metrics) = (Loads::default(), Metrics::default());
        metrics.bytes_received = 1_000_000; // before the first update: not of a known time
        loads.update(&metrics, Now(0));
        assert!(loads.topics().all(|(_, value)| value == "0.00"));
        // 100 PUBLISH packets within 10 seconds are 600 in a minute.
        metrics.publishes_received += 100;
        loads.update(&metrics, Now(10_000_000));
        let of = shown(&loads);
        // 600 * (1 - exp(-1/6)), (1 - exp(-1/30)), (1 - exp(-1/90)).
        assert_eq!(of["load/publish/received/1min"], "92.11");
        assert_eq!(of["load/publish/received/5min"], "19.67");
        assert_eq!(of["load/publish/received/15min"], "6.63");
        assert_eq!(of["load/bytes/received/1min"], "0.00");
        // Without any more they decay: 92.11 * exp(-1).
        loads.update(&metrics, Now(70_000_000));
        assert_eq!(shown(&loads)["load/publish/received/1min"], "33.89");
        assert_eq!(shown(&loads).len(), 27);
    }

    #[test]
    fn updates_at_the_same_time_count_once() {
        let (mut loads, mut metrics) = (Loads::default(), Metrics::default());
        loads.update(&metrics, Now(0));
        metrics.connections_accepted = 7;
        loads.update(&metrics, Now(0));
        loads.update(&metrics, Now(60_000_000));
        assert_eq!(shown(&loads)["load/sockets/1min"], "4.42", "7 * (1 - exp(-1))");
    }
}
