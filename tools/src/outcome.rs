//! The results of a run: the measurements of each process, and the combined figures.

use serde::{Deserialize, Serialize};

use crate::{
    distribution::Distribution,
    meter::Usage,
    recorder::TIMELINE_STEP_NS,
    scenario::{Scenario, Workload},
    transport::Kind,
    verify::Tally,
};

/// The measurements of one process. Counts and times refer to the measured span, the tally to the
/// whole run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Measured {
    /// The span's length, in seconds.
    pub span_s: f64,
    /// Operations started: messages published, connections or subscriptions.
    pub begun: u64,
    /// Operations completed: deliveries, or what the scenario counts.
    pub done: u64,
    /// Violations, including those in warm-up and drain.
    pub tally: Tally,
    /// Latencies.
    pub distribution: Distribution,
    /// Operations completed in each tenth of a second.
    pub timeline: Vec<u64>,
    /// CPU time of the generator, in seconds.
    pub generator_s: f64,
    /// The broker's usage meanwhile.
    pub broker: BrokerUse,
}

/// The broker's usage, in the process that measures it.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct BrokerUse {
    /// CPU time in the span.
    pub usage: Option<Usage>,
    /// Resident memory before the run and at its peak, in bytes.
    pub resident: Option<(u64, u64)>,
}

impl Measured {
    /// Adds the simultaneous measurements of another process.
    pub fn add(&mut self, other: &Self) {
        self.span_s = self.span_s.max(other.span_s);
        self.begun += other.begun;
        self.done += other.done;
        self.tally.add(&other.tally);
        self.distribution.add(&other.distribution);
        let steps = self.timeline.len().max(other.timeline.len());
        self.timeline.resize(steps, 0);
        self.timeline.iter_mut().zip(&other.timeline).for_each(|(sum, count)| *sum += count);
        self.generator_s += other.generator_s;
    }
}

/// The result of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// The workload.
    pub workload: Workload,
    /// The transport below MQTT.
    pub transport: Kind,
    /// Number of generator processes.
    pub processes: u32,
    /// Violations, including those in warm-up and drain.
    pub violations: Tally,
    /// Missing deliveries that the broker was free to drop.
    pub dropped: u64,
    /// Deliveries out of order where no order is promised: a broker need not keep the order of
    /// messages to a group [MQTT-4.6.0-6].
    pub disordered: u64,
    /// Figures of the measured span, unless connections were only kept open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traffic: Option<Traffic>,
    /// Figures of idle connections, if that was the scenario.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle: Option<Idle>,
}

/// Figures of the measured span. Those of the broker are absent if its process is unknown. A
/// *delivery* stands for a connection or a subscription in other scenarios.
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
    /// CPU time of the broker per delivery.
    pub broker_cpu_us: Option<f64>,
    /// Fraction of the span in which the broker had a core: 1 is saturation of one core.
    pub broker_busy: Option<f64>,
    /// Fraction of the span in which the broker was ready to run and another process had its core.
    pub broker_waiting: Option<f64>,
    /// The broker's resident memory at the span's end.
    pub broker_resident_bytes: Option<u64>,
    /// CPU time of the generator per delivery, including publishing.
    pub generator_cpu_us: f64,
    /// Fraction of the span in which the generator had a core, over all its processes.
    pub generator_busy: f64,
    /// From publication, or the scheduled time, to delivery.
    pub latency_us: Latency,
    /// Deliveries in each tenth of a second.
    pub timeline: Vec<u64>,
    /// All recorded latencies, for pictures.
    #[serde(skip)]
    pub distribution: Distribution,
}

/// Percentiles in microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Latency {
    /// Mean.
    pub mean: f64,
    /// Median.
    pub p50: f64,
    /// 90%.
    pub p90: f64,
    /// 99%.
    pub p99: f64,
    /// 99.9%.
    pub p999: f64,
    /// 99.99%.
    pub p9999: f64,
    /// Maximum.
    pub max: f64,
}

/// Figures of idle connections.
#[derive(Clone, Debug, Serialize)]
pub struct Idle {
    /// Connections, each with a subscription.
    pub connections: u32,
    /// Connections made a second.
    pub connections_per_second: f64,
    /// From the start of a connection, or the scheduled time, to its SUBACK.
    pub latency_us: Latency,
    /// CPU time of the broker for accept, CONNECT and SUBSCRIBE of a connection.
    pub broker_cpu_us: Option<f64>,
    /// The broker's resident memory before the first connection.
    pub broker_resident_bytes: Option<u64>,
    /// The broker's resident memory per connection.
    pub bytes_per_connection: Option<f64>,
}

impl Outcome {
    /// The figures of a run.
    pub fn new(workload: Workload, transport: Kind, processes: u32, measured: Measured) -> Self {
        let mut violations = measured.tally;
        let mut dropped = 0;
        if workload.may_lose() {
            dropped = std::mem::take(&mut violations.lost);
        }
        let mut disordered = 0;
        if workload.scenario == Scenario::Shared {
            disordered = std::mem::take(&mut violations.reordered);
        }
        let is_idle = workload.scenario == Scenario::Connections;
        Self {
            workload,
            transport,
            processes,
            violations,
            dropped,
            disordered,
            idle: is_idle.then(|| Idle::new(&workload, &measured)),
            traffic: (!is_idle).then(|| Traffic::new(measured)),
        }
    }
}

impl Traffic {
    fn new(measured: Measured) -> Self {
        let Measured { span_s, begun, done, generator_s, broker, .. } = measured;
        let broker_s = broker.usage.map(|usage| usage.cpu.as_secs_f64());
        let each = 1.0 / done.max(1) as f64;
        Self {
            span_s,
            published: begun,
            delivered: done,
            deliveries_per_second: done as f64 / span_s,
            broker_cpu_us: broker_s.map(|cpu_s| cpu_s * 1e6 * each),
            broker_busy: broker_s.map(|cpu_s| cpu_s / span_s),
            broker_waiting: broker.usage.map(|usage| usage.waiting.as_secs_f64() / span_s),
            broker_resident_bytes: broker.resident.map(|(_, after)| after),
            generator_cpu_us: generator_s * 1e6 * each,
            generator_busy: generator_s / span_s,
            latency_us: Latency::of(&measured.distribution),
            timeline: measured.timeline,
            distribution: measured.distribution,
        }
    }

    /// Deliveries per second in each step of the timeline; the last step may be slightly shorter.
    pub fn rates(&self) -> impl Iterator<Item = f64> {
        let steps = (self.span_s * 1e9 / TIMELINE_STEP_NS as f64).round() as usize;
        let per_second = 1e9 / TIMELINE_STEP_NS as f64;
        let missing = steps.saturating_sub(self.timeline.len());
        let counts = self.timeline.iter().copied().take(steps);
        counts.chain(std::iter::repeat_n(0, missing)).map(move |count| count as f64 * per_second)
    }
}

impl Latency {
    fn of(distribution: &Distribution) -> Self {
        let at = |quantile| distribution.quantile_us(quantile);
        Self {
            mean: distribution.mean_us(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            p9999: at(0.9999),
            max: distribution.max_us(),
        }
    }
}

impl Idle {
    fn new(workload: &Workload, measured: &Measured) -> Self {
        let connections = workload.clients();
        let each = 1.0 / f64::from(connections);
        let broker = measured.broker;
        let grown = broker.resident.map(|(before, after)| after as f64 - before as f64);
        Self {
            connections,
            connections_per_second: f64::from(connections) / measured.span_s,
            latency_us: Latency::of(&measured.distribution),
            broker_cpu_us: broker.usage.map(|usage| usage.cpu.as_secs_f64() * 1e6 * each),
            broker_resident_bytes: broker.resident.map(|(before, _)| before),
            bytes_per_connection: grown.map(|bytes| bytes * each),
        }
    }
}
