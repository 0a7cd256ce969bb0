//! A run from its first connection to its figures: warm-up, the measured span, and the drain in
//! which everything published has to arrive.

use std::time::{Duration, Instant};

use mio::Events;
use serde::Serialize;

use super::{Load, RunSettings};
use crate::{
    codec::encode_disconnect,
    error::Result,
    limits::STALL_TIMEOUT,
    meter::Reading,
    scenario::{LoadMode, Scenario, Workload},
    verify::Tally,
};

/// Events taken from the poll at a time.
const EVENTS: usize = 1_024;
/// Time after the last expected delivery in which nothing more may come.
const QUIET: Duration = Duration::from_millis(30);

/// What a run found.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// What was asked of the broker.
    pub workload: Workload,
    /// What was wrong, warm-up and drain included.
    pub violations: Tally,
    /// Figures of the measured span, if messages were sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traffic: Option<Traffic>,
    /// Figures of idle connections, if that was the scenario.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle: Option<Idle>,
}

/// Figures of the measured span. The broker's are absent where its process is not known.
#[derive(Clone, Debug, Serialize)]
pub struct Traffic {
    /// The span's length.
    pub span_s: f64,
    /// Messages published in it.
    pub published: u64,
    /// Deliveries seen in it.
    pub delivered: u64,
    /// Deliveries a second.
    pub deliveries_per_second: f64,
    /// CPU time of the broker for each delivery.
    pub broker_cpu_us: Option<f64>,
    /// The part of the span in which the broker had a core: 1 is saturation of one.
    pub broker_busy: Option<f64>,
    /// The part of the span in which the broker was ready to run and other work had its core.
    pub broker_waiting: Option<f64>,
    /// The broker's resident memory at the span's end.
    pub broker_resident_bytes: Option<u64>,
    /// CPU time of the generator for each delivery, publishing included.
    pub generator_cpu_us: f64,
    /// The part of the span in which the generator had a core.
    pub generator_busy: f64,
    /// From publication, or from when it was due, to delivery.
    pub latency_us: Latency,
}

/// Percentiles in microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Latency {
    /// Median.
    pub p50: f64,
    /// 99%.
    pub p99: f64,
    /// 99.9%.
    pub p999: f64,
    /// 99.99%.
    pub p9999: f64,
    /// The longest.
    pub max: f64,
}

/// Figures of idle connections.
#[derive(Clone, Debug, Serialize)]
pub struct Idle {
    /// Connections held, with a subscription each.
    pub connections: u32,
    /// Connections made a second.
    pub connections_per_second: f64,
    /// CPU time of the broker for TCP accept, CONNECT and SUBSCRIBE of one.
    pub broker_cpu_us: Option<f64>,
    /// The broker's resident memory before the first of them.
    pub broker_resident_bytes: Option<u64>,
    /// What each of them added to it.
    pub bytes_per_connection: Option<f64>,
}

/// Do the whole run.
pub fn measure(workload: Workload, settings: RunSettings) -> Result<Outcome> {
    if workload.scenario == Scenario::Connections {
        return measure_idle(workload, settings);
    }
    Load::connect(workload, settings)?.measure_traffic()
}

fn measure_idle(workload: Workload, settings: RunSettings) -> Result<Outcome> {
    let resident = || settings.meter.map(|meter| meter.resident_bytes()).transpose();
    let (before, resident_before) = (Reading::now(settings.meter)?, resident()?);
    let mut load = Load::connect(workload, settings)?;
    let after = Reading::now(settings.meter)?;
    load.run_until(Instant::now() + settings.warm_up, |_| false)?;
    let resident_after = resident()?;
    load.disconnect_all()?;

    let connections = workload.clients();
    let each = 1.0 / f64::from(connections);
    let grown = resident_before.zip(resident_after);
    let idle = Idle {
        connections,
        connections_per_second: f64::from(connections) / (after.at - before.at).as_secs_f64(),
        broker_cpu_us: after
            .broker_since(&before)
            .map(|usage| usage.cpu.as_secs_f64() * 1e6 * each),
        broker_resident_bytes: resident_before,
        bytes_per_connection: grown.map(|(before, after)| (after as f64 - before as f64) * each),
    };
    Ok(Outcome { workload, violations: load.counts.tally, traffic: None, idle: Some(idle) })
}

impl Load {
    fn measure_traffic(mut self) -> Result<Outcome> {
        self.start_publishing();
        self.run_until(Instant::now() + self.settings.warm_up, Self::is_over)?;

        self.counts.latency_ns.reset();
        self.counts.recording = true;
        let (published, delivered) = (self.counts.published, self.counts.delivered);
        let begin = Reading::now(self.settings.meter)?;
        self.run_until(begin.at + self.settings.span, Self::is_over)?;
        let end = Reading::now(self.settings.meter)?;
        self.counts.recording = false;
        let published = self.counts.published - published;
        let delivered = self.counts.delivered - delivered;
        let traffic = self.traffic(&begin, &end, published, delivered)?;

        self.publishing = false;
        self.run_until(Instant::now() + STALL_TIMEOUT * 12, Self::is_settled)?;
        self.run_until(Instant::now() + QUIET, |_| false)?;
        let violations = self.final_tally();
        self.disconnect_all()?;
        Ok(Outcome { workload: self.workload, violations, traffic: Some(traffic), idle: None })
    }

    /// Turn until the time has come, `enough` says so, or deliveries that are due do not come.
    fn run_until(&mut self, end: Instant, enough: impl Fn(&Self) -> bool) -> Result<()> {
        let open = matches!(self.workload.load, LoadMode::Open { .. });
        let mut events = Events::with_capacity(EVENTS);
        let mut progress = (self.counts.settled, Instant::now());
        loop {
            let now = Instant::now();
            if now >= end || enough(self) {
                return Ok(());
            }
            if progress.0 != self.counts.settled {
                progress = (self.counts.settled, now);
            } else if self.under_way() > 0 && now - progress.1 > STALL_TIMEOUT {
                return Ok(());
            }
            let mut timeout = (end - now).min(Duration::from_millis(100));
            if open && self.publishing {
                // The poll's milliseconds are too coarse for a timetable, so this turns without
                // rest; the generator has a core of its own.
                timeout = Duration::ZERO;
                self.list_all();
            }
            self.turn(&mut events, timeout)?;
        }
    }

    /// Deliveries that are still to come.
    fn under_way(&self) -> u64 {
        let expected = self.counts.published * u64::from(self.workload.receivers());
        expected.saturating_sub(self.counts.settled)
    }

    fn unacknowledged(&self) -> u64 {
        self.publishers.iter().map(|publisher| publisher.unacknowledged()).sum()
    }

    /// Whether all that was published has come and is acknowledged.
    fn is_settled(&self) -> bool {
        self.under_way() == 0 && self.unacknowledged() == 0
    }

    /// Whether there is nothing left to do before the time has come.
    fn is_over(&self) -> bool {
        self.counts.published >= self.settings.messages_max && self.is_settled()
    }

    fn final_tally(&self) -> Tally {
        let mut tally = self.counts.tally;
        let sent_by = |publisher: u32| self.publishers[publisher as usize].sent;
        tally.lost +=
            self.subscribers.iter().map(|subscriber| subscriber.tail(sent_by)).sum::<u64>();
        tally.unacknowledged = self.unacknowledged();
        tally
    }

    fn disconnect_all(&mut self) -> Result<()> {
        for index in 0..self.clients.len() {
            encode_disconnect(&mut self.clients[index].outgoing);
            self.flush(index)?;
        }
        Ok(())
    }

    fn traffic(
        &self,
        begin: &Reading,
        end: &Reading,
        published: u64,
        delivered: u64,
    ) -> Result<Traffic> {
        let span_s = (end.at - begin.at).as_secs_f64();
        let broker = end.broker_since(begin);
        let broker_s = broker.map(|usage| usage.cpu.as_secs_f64());
        let generator_s = (end.generator - begin.generator).as_secs_f64();
        let each = 1.0 / delivered.max(1) as f64;
        let resident = self.settings.meter.map(|meter| meter.resident_bytes()).transpose()?;
        Ok(Traffic {
            span_s,
            published,
            delivered,
            deliveries_per_second: delivered as f64 / span_s,
            broker_cpu_us: broker_s.map(|cpu_s| cpu_s * 1e6 * each),
            broker_busy: broker_s.map(|cpu_s| cpu_s / span_s),
            broker_waiting: broker.map(|usage| usage.waiting.as_secs_f64() / span_s),
            broker_resident_bytes: resident,
            generator_cpu_us: generator_s * 1e6 * each,
            generator_busy: generator_s / span_s,
            latency_us: self.latency(),
        })
    }

    fn latency(&self) -> Latency {
        let histogram = &self.counts.latency_ns;
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        let max = histogram.max() as f64 / 1e3;
        Latency { p50: at(0.5), p99: at(0.99), p999: at(0.999), p9999: at(0.9999), max }
    }
}
