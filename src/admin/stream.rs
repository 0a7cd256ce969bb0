//! `GET /api/v1/stream`: what the dashboard draws, once a second.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use axum::extract::State;
use axum::response::Sse;
use axum::response::sse::Event;
use schemars::JsonSchema;
use serde::Serialize;

use crate::admin::routes::{Route, get};
use crate::admin::{Shared, tasks};
use crate::base::latencies::Kind;
use crate::base::metrics::{DROPS, Metrics};
use crate::config::Role;
use crate::stats::{Buckets, Snapshot};

/// Time between two samples.
const PERIOD: Duration = Duration::from_secs(1);

/// The routes of this module.
pub fn routes() -> Vec<Route> {
    let summary = "Counters, rates and latencies once a second, as server-sent events";
    vec![get("/api/v1/stream", Role::Read, summary, stream).answers_as("text/event-stream")]
}

/// What is drawn of one second.
#[derive(Debug, Serialize, JsonSchema)]
struct Sample {
    /// Time in seconds since 1970.
    at: f64,
    /// Seconds since the start.
    uptime_s: u64,
    /// Whether the broker stops.
    stopping: bool,
    /// Open connections.
    connections: u64,
    /// Connected clients.
    clients_connected: u64,
    /// Sessions without a connection.
    clients_disconnected: u64,
    /// Subscriptions.
    subscriptions: u64,
    /// Retained messages.
    retained_messages: u64,
    /// Messages in the queues of sessions.
    messages_queued: u64,
    /// Messages dropped since the start.
    messages_dropped: u64,
    /// Those by cause.
    drops: BTreeMap<&'static str, u64>,
    /// Bytes held by messages, queues and outboxes.
    memory_bytes: u64,
    /// Limit of these bytes.
    memory_bytes_max: u64,
    /// Bytes of the store.
    store_bytes: u64,
    /// Whether the store cannot write.
    store_failing: bool,
    /// Whether the store is full.
    store_full: bool,
    /// A second, on average since the sample before.
    rates: Rates,
    /// Of messages since the sample before; null without a message.
    latency: Option<Latency>,
    /// Each core.
    cores: Vec<Core>,
}

/// Events a second.
#[derive(Debug, Default, Serialize, JsonSchema)]
struct Rates {
    /// PUBLISH packets received.
    received: f64,
    /// PUBLISH packets sent.
    sent: f64,
    /// Messages dropped.
    dropped: f64,
    /// Bytes received.
    bytes_received: f64,
    /// Bytes sent.
    bytes_sent: f64,
}

/// From a PUBLISH to its last delivery on a core, estimated from buckets that double.
#[derive(Debug, PartialEq, Serialize, JsonSchema)]
struct Latency {
    /// The median in seconds.
    p50_s: f64,
    /// The 99th percentile in seconds.
    p99_s: f64,
}

/// One core.
#[derive(Debug, Serialize, JsonSchema)]
struct Core {
    /// Number of the core.
    core: usize,
    /// Whether the core has answered in time; if not, its numbers are 0.
    responsive: bool,
    /// Share of the time since the sample before in which the core was busy; null for the first sample.
    busy: Option<f64>,
    /// Open connections.
    connections: u64,
    /// Bytes held by messages, queues and outboxes.
    memory_bytes: u64,
}

/// A snapshot, and when it was taken.
type Taken = (Instant, Arc<Snapshot>);

async fn stream(
    State(admin): State<Shared>,
) -> Sse<flume::r#async::RecvStream<'static, Result<Event, Infallible>>> {
    // A reader that does not take a sample is not sent the next one.
    let (to, events) = flume::bounded(1);
    tasks::spawn(async move {
        let mut ticks = tokio::time::interval(PERIOD);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut before: Option<Taken> = None;
        loop {
            ticks.tick().await;
            let snapshot = admin.broker.sample().await;
            let taken = (Instant::now(), snapshot);
            let sample = sample(&admin, &taken, before.as_ref());
            before = Some(taken);
            let Ok(event) = Event::default().event("sample").json_data(&sample) else { break };
            if to.send_async(Ok(event)).await.is_err() || admin.broker.is_stopping() {
                break;
            }
        }
    });
    Sse::new(events.into_stream())
}

fn sample(admin: &Shared, (at, now): &Taken, before: Option<&Taken>) -> Sample {
    let (broker, all) = (&admin.broker, &now.all);
    let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let period_s = before.map(|(earlier, _)| (*at - *earlier).as_secs_f64());
    let earlier = before.map(|(_, snapshot)| &**snapshot);
    Sample {
        at: time.as_secs_f64(),
        uptime_s: broker.uptime().as_secs(),
        stopping: broker.is_stopping(),
        connections: all.connections_open,
        clients_connected: all.clients_connected,
        clients_disconnected: all.clients_disconnected,
        subscriptions: all.subscriptions,
        retained_messages: all.retained_messages,
        messages_queued: all.messages_queued,
        messages_dropped: all.drops.total(),
        drops: DROPS.iter().map(|&(cause, name)| (name, all.drops.of(cause))).collect(),
        memory_bytes: all.memory_bytes,
        memory_bytes_max: broker.memory_bytes_max,
        store_bytes: all.store_bytes,
        store_failing: all.store_failing > 0,
        store_full: all.store_full > 0,
        rates: rates(all, earlier.map(|of| &of.all), period_s),
        latency: latency(now, earlier),
        cores: cores(now, earlier, period_s),
    }
}

fn rates(now: &Metrics, before: Option<&Metrics>, period_s: Option<f64>) -> Rates {
    let (Some(before), Some(period_s)) = (before, period_s) else { return Rates::default() };
    let rate = |of: fn(&Metrics) -> u64| per_second(of(now), of(before), period_s);
    Rates {
        received: rate(|of| of.publishes_received),
        sent: rate(|of| of.publishes_sent),
        dropped: rate(|of| of.drops.total()),
        bytes_received: rate(|of| of.bytes_received),
        bytes_sent: rate(|of| of.bytes_sent),
    }
}

fn per_second(now: u64, before: u64, period_s: f64) -> f64 {
    if period_s > 0.0 { now.saturating_sub(before) as f64 / period_s } else { 0.0 }
}

fn cores(now: &Snapshot, before: Option<&Snapshot>, period_s: Option<f64>) -> Vec<Core> {
    let none = Metrics::default();
    let core = |(core, counted): (usize, &Option<Metrics>)| {
        let of = counted.as_ref().unwrap_or(&none);
        let earlier = before.and_then(|before| before.cores.get(core)?.as_ref());
        let busy = earlier.zip(period_s).filter(|_| counted.is_some());
        let share = |(earlier, period_s): (&Metrics, f64)| {
            (per_second(of.busy_us, earlier.busy_us, period_s) / 1e6).min(1.0)
        };
        Core {
            core,
            responsive: counted.is_some(),
            busy: busy.map(share),
            connections: of.connections_open,
            memory_bytes: of.memory_bytes,
        }
    };
    now.cores.iter().enumerate().map(core).collect()
}

/// Kinds of latencies of messages.
const MESSAGES: [Kind; 6] = [
    Kind::PublishQos0,
    Kind::PublishQos1,
    Kind::PublishQos2,
    Kind::ForwardedQos0,
    Kind::ForwardedQos1,
    Kind::ForwardedQos2,
];

fn latency(now: &Snapshot, before: Option<&Snapshot>) -> Option<Latency> {
    let mut buckets: Vec<(f64, u64)> = Vec::new();
    for kind in MESSAGES {
        let earlier = before.map(|of| of.latencies(kind));
        add_since(&mut buckets, now.latencies(kind), earlier);
    }
    Some(Latency { p50_s: percentile(&buckets, 0.5)?, p99_s: percentile(&buckets, 0.99)? })
}

/// Adds what was recorded since an earlier snapshot.
fn add_since(buckets: &mut Vec<(f64, u64)>, now: &Buckets, before: Option<&Buckets>) {
    let mut earlier = before.map(Buckets::each);
    for (index, (bound_s, count)) in now.each().enumerate() {
        let known = earlier.as_mut().and_then(Iterator::next).map_or(0, |(_, count)| count);
        if buckets.len() <= index {
            buckets.push((bound_s, 0));
        }
        buckets[index].1 += count.saturating_sub(known);
    }
}

/// The latency that this share does not exceed, evenly distributed within a bucket; none without latencies.
fn percentile(buckets: &[(f64, u64)], share: f64) -> Option<f64> {
    let total: u64 = buckets.iter().map(|(_, count)| count).sum();
    let mut left = share * total as f64;
    let mut lower_s = 0.0;
    for &(bound_s, count) in buckets.iter().filter(|_| total > 0) {
        if count as f64 >= left && count > 0 {
            let part = left / count as f64;
            return Some(if bound_s.is_finite() {
                lower_s + (bound_s - lower_s) * part
            } else {
                lower_s
            });
        }
        left -= count as f64;
        lower_s = bound_s;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_lies_within_its_bucket_and_there_is_none_without_latencies() {
        let buckets = [(1.0, 0), (2.0, 50), (4.0, 50), (f64::INFINITY, 0)];
        assert_eq!(percentile(&buckets, 0.5), Some(2.0));
        assert_eq!(percentile(&buckets, 0.25), Some(1.5));
        assert_eq!(percentile(&buckets, 1.0), Some(4.0));
        assert_eq!(percentile(&[(1.0, 0), (f64::INFINITY, 3)], 0.5), Some(1.0));
        assert_eq!(percentile(&[(1.0, 0)], 0.5), None);
    }

    #[test]
    fn rates_are_those_since_the_sample_before() {
        let mut now = Metrics::default();
        let before = now.clone();
        now.publishes_received = 500;
        now.bytes_sent = 1_000;
        let rates = rates(&now, Some(&before), Some(2.0));
        assert_eq!((rates.received, rates.bytes_sent, rates.sent), (250.0, 500.0, 0.0));
        let first = super::rates(&now, None, None);
        assert_eq!(first.received, 0.0, "the first sample knows no rate");
    }
}
