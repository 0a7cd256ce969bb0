//! Telemetry by OTLP over HTTP: metrics at an interval, and spans of sampled messages.
//!
//! | file | what it does |
//! | --- | --- |
//! | `metrics` | families of samples as OTLP metrics |
//! | `spans` | sampled messages as OTLP spans |
//! | `client` | requests to the collector |
//!
//! One task of the admin thread exports. Nothing waits for it: metrics that cannot be delivered are replaced by later
//! ones, spans are dropped and counted.

mod client;
mod metrics;
mod spans;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;
use tokio::sync::watch::Receiver;
use tokio::time::{Interval, MissedTickBehavior, interval, sleep, timeout};

use crate::admin::broker::PATIENCE;
use crate::admin::trace::zero_us;
use crate::admin::{Admin, metrics as exposed};
use crate::base::log_rate;
use crate::base::log_rate::rated;
use crate::config::telemetry::Endpoint;
use crate::config::{Sampling, Telemetry};
use crate::control::question::Question;
use crate::control::span::{SpanSink, SpanSource, spans as queue};
use crate::control::{Command, EngineCommand, replies};

/// How often spans are exported.
const SPANS_INTERVAL: Duration = Duration::from_secs(1);
/// Spans of one request: messages, with their deliveries.
const SPANS_PER_REQUEST: usize = 512;
/// How long after a core did not take the settings it is asked again.
const REST: Duration = Duration::from_secs(1);

/// Exports by these settings, and by later ones, as long as the admin interface runs.
pub(super) async fn run(admin: std::sync::Weak<Admin>, mut settings: Receiver<Telemetry>) {
    loop {
        let now = settings.borrow_and_update().clone();
        let Some(admin) = admin.upgrade() else { return };
        // The configuration has been checked.
        let export = async {
            match now.collector().ok().flatten() {
                Some(collector) => export(&admin, &collector, &now).await,
                None => drop(sample(&admin, Sampling::Off, None).await),
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = export => {}
            changed = settings.changed() => if changed.is_err() { return },
        }
    }
}

/// Exports until it is dropped. Metrics do not wait for a core that does not answer, nor for spans.
async fn export(admin: &Arc<Admin>, collector: &Endpoint, settings: &Telemetry) {
    let period_s = settings.metrics_interval_s.into();
    let metrics = async {
        if period_s > 0 {
            let mut metrics = ticks(Duration::from_secs(period_s));
            loop {
                metrics.tick().await;
                export_metrics(admin, collector).await;
            }
        }
    };
    let spans = async {
        let (sink, source) = queue();
        let sink = (settings.traces != Sampling::Off).then_some(sink);
        let zero_us = sample(admin, settings.traces, sink.as_ref()).await;
        if sink.is_some() {
            let mut spans = ticks(SPANS_INTERVAL);
            loop {
                spans.tick().await;
                export_spans(admin, collector, &source, zero_us).await;
            }
        }
    };
    tokio::join!(metrics, spans);
}

fn ticks(period: Duration) -> Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Tells every core which messages to sample, a core that does not answer again and again. Returns the microseconds
/// from 1970 until the clock of the cores was zero.
async fn sample(admin: &Admin, sampling: Sampling, sink: Option<&SpanSink>) -> u64 {
    let cores = &admin.broker.cores;
    let mut first_us = u64::MAX;
    for core in 0..cores.count() {
        loop {
            let (to, replies) = replies();
            let (sink, reply) = (sink.cloned(), to.core(core));
            let question = Question::Sample { sampling, sink, reply };
            // The refusal is the reply.
            let _ = cores.send(core, Command::Engine(EngineCommand::Ask(question)));
            let reply = timeout(PATIENCE, replies.next()).await;
            if let Ok(Some((_, Ok(now)))) = reply {
                // All cores have the same clock: the reply that took the shortest tells most.
                first_us = first_us.min(zero_us(now));
                break;
            }
            sleep(REST).await;
        }
    }
    first_us
}

async fn export_metrics(admin: &Arc<Admin>, collector: &Endpoint) {
    let numbers = exposed::numbers(admin).await;
    let started = admin.broker.started();
    let request = metrics::request(&exposed::families::all(&numbers), started, resource(admin));
    if send(admin, collector, "metrics", request.encode_to_vec()).await {
        admin.exports.metrics.fetch_add(1, Relaxed);
    }
}

async fn export_spans(admin: &Admin, collector: &Endpoint, source: &SpanSource, zero_us: u64) {
    loop {
        let taken = source.take(SPANS_PER_REQUEST);
        let messages = taken.len();
        if messages == 0 {
            return;
        }
        let is_taken = match spans::request(taken, zero_us, resource(admin)) {
            Ok(request) => send(admin, collector, "traces", request.encode_to_vec()).await,
            Err(_) => false, // no random numbers
        };
        match is_taken {
            true => admin.exports.spans.fetch_add(messages as u32, Relaxed),
            false => admin.exports.spans_lost.fetch_add(messages as u32, Relaxed),
        };
        if messages < SPANS_PER_REQUEST {
            return;
        }
    }
}

/// Sends a request; whether the collector has taken it.
async fn send(admin: &Admin, collector: &Endpoint, what: &'static str, content: Vec<u8>) -> bool {
    let sent = client::post(collector, &format!("/v1/{what}"), content).await;
    if let Err(error) = &sent {
        admin.exports.failed.fetch_add(1, Relaxed);
        let (host, port) = (&collector.host, collector.port);
        rated!(warn, log_rate::now(), host, port, what, error, "telemetry is not exported");
    }
    sent.is_ok()
}

/// What exports.
fn resource(admin: &Admin) -> Resource {
    let instance = format!("{}-{}", std::process::id(), nanoseconds(admin.broker.started()));
    let attributes = vec![
        text("service.name", "ringmq"),
        text("service.version", env!("CARGO_PKG_VERSION")),
        text("service.instance.id", instance),
    ];
    Resource { attributes, ..Resource::default() }
}

fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: "ringmq".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    }
}

fn text(key: &str, value: impl Into<String>) -> KeyValue {
    attribute(key, Value::StringValue(value.into()))
}

fn number(key: &str, value: u64) -> KeyValue {
    attribute(key, Value::IntValue(i64::try_from(value).unwrap_or(i64::MAX)))
}

fn attribute(key: &str, value: Value) -> KeyValue {
    let value = Some(AnyValue { value: Some(value) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}

/// Nanoseconds since 1970.
fn nanoseconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos() as u64)
}
