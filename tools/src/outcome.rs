//! What a run found: what each of its processes measured, and the figures they come to together.

use serde::{Deserialize, Serialize};

use crate::{
    distribution::Distribution,
    meter::Usage,
    recorder::TIMELINE_STEP_NS,
    scenario::{Scenario, Workload},
    transport::Kind,
    verify::Tally,
};

/// What one process measured. Counts and times are of the measured span, the tally is of all.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Measured {
    /// The span's length, in seconds.
    pub span_s: f64,
    /// Messages published, connections or subscriptions begun.
    pub begun: u64,
    /// Deliveries, or what else the scenario counts.
    pub done: u64,
    /// What was wrong, warm-up and drain included.
    pub tally: Tally,
    /// How long each took.
    pub distribution: Distribution,
    /// How many were done in each tenth of a second.
    pub timeline: Vec<u64>,
    /// CPU time of the generator, in seconds.
    pub generator_s: f64,
    /// What the broker had meanwhile.
    pub broker: BrokerUse,
}

/// What the broker had, where its process is known to the one that measures.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct BrokerUse {
    /// CPU time in the span.
    pub usage: Option<Usage>,
    /// Resident memory before the run and at its height, in bytes.
    pub resident: Option<(u64, u64)>,
}

impl Measured {
    /// Add what another process measured at the same time.
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

/// What a run found.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// What was asked of the broker.
    pub workload: Workload,
    /// What clients spoke beneath MQTT.
    pub transport: Kind,
    /// Processes that made the load.
    pub processes: u32,
    /// What was wrong, warm-up and drain included.
    pub violations: Tally,
    /// Deliveries that never came and that the broker was free to drop.
    pub dropped: u64,
    /// Deliveries that came out of order where none is promised: to a group that shares messages out
    /// a broker need not keep it [MQTT-4.6.0-6].
    pub disordered: u64,
    /// Figures of the measured span, unless connections were only held.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traffic: Option<Traffic>,
    /// Figures of idle connections, if that was the scenario.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle: Option<Idle>,
}

/// Figures of the measured span. The broker's are absent where its process is not known. What a
/// *delivery* is, other scenarios call a connection or a subscription.
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
    /// The part of the span in which the generator had a core, all its processes together.
    pub generator_busy: f64,
    /// From publication, or from when it was due, to delivery.
    pub latency_us: Latency,
    /// Deliveries in each tenth of a second.
    pub timeline: Vec<u64>,
    /// All that was recorded, for pictures.
    #[serde(skip)]
    pub distribution: Distribution,
}

/// Percentiles in microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Latency {
    /// Average.
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
    /// From the beginning of a connection, or from when it was due, to its SUBACK.
    pub latency_us: Latency,
    /// CPU time of the broker for TCP accept, CONNECT and SUBSCRIBE of one.
    pub broker_cpu_us: Option<f64>,
    /// The broker's resident memory before the first of them.
    pub broker_resident_bytes: Option<u64>,
    /// Resident memory each of them added to the broker's.
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

    /// Deliveries a second in each step of the timeline; the last one may be a little short.
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
