//! A report as a line of JSON.

use std::time::UNIX_EPOCH;

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

use crate::base::metrics::{DROPS, Metrics, NumberKind};
use crate::stats::report::Part;
use crate::stats::{QUANTILES, Recording, Report};

/// The report as one JSON object, with the end of its line.
pub fn line(report: &Report) -> String {
    let at_s = report.at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let mut object = part(&report.all);
    let per_second = |(name, count)| (name, json!(rounded(report.per_second(count))));
    let rates: Map<String, Value> = counters(&report.all.metrics).map(per_second).collect();
    object.extend([
        ("why".to_owned(), json!(report.why.name())),
        ("time_s".to_owned(), json!(rounded(at_s))),
        ("uptime_s".to_owned(), json!(rounded(report.uptime.as_secs_f64()))),
        ("span_s".to_owned(), json!(rounded(report.span.as_secs_f64()))),
        ("per_second".to_owned(), Value::Object(rates)),
        ("cores".to_owned(), report.cores.iter().map(|core| core_object(report, core)).collect()),
    ]);
    format!("{}\n", Value::Object(object))
}

fn core_object(report: &Report, core: &Part) -> Value {
    let mut object = part(core);
    object.insert("busy".to_owned(), json!(rounded(report.busy(core))));
    Value::Object(object)
}

/// What is said of each core as of all.
fn part(part: &Part) -> Map<String, Value> {
    let metrics = &part.metrics;
    let gauges = metrics.rows().filter(|(.., nature)| *nature == NumberKind::Gauge);
    let gauges: Map<String, Value> =
        gauges.map(|(name, value, _)| (name.to_owned(), json!(value))).collect();
    let counters: Map<String, Value> =
        counters(metrics).map(|(name, value)| (name, json!(value))).collect();
    let drops: Map<String, Value> = DROPS
        .iter()
        .map(|&(cause, name)| (name.to_owned(), json!(metrics.drops.of(cause))))
        .collect();
    let mut object = Map::new();
    object.insert("latency_ns".to_owned(), latencies(&part.recording));
    object.insert("counters".to_owned(), Value::Object(counters));
    object.insert("gauges".to_owned(), Value::Object(gauges));
    object.insert("dropped".to_owned(), Value::Object(drops));
    object.insert("publishes_received_by_qos".to_owned(), json!(metrics.received_by_qos));
    object
}

fn counters(metrics: &Metrics) -> impl Iterator<Item = (String, u64)> {
    let counters = metrics.rows().filter(|(.., nature)| *nature == NumberKind::Counter);
    counters.map(|(name, value, _)| (name.to_owned(), value))
}

fn latencies(recording: &Recording) -> Value {
    let each = recording.each();
    let each = each.map(|(kind, name, _)| (name.to_owned(), latency(recording.of(kind))));
    Value::Object(each.collect())
}

fn latency(histogram: &Histogram<u64>) -> Value {
    let mut object = Map::from_iter([
        ("count".to_owned(), json!(histogram.len())),
        ("min".to_owned(), json!(histogram.min())),
        ("mean".to_owned(), json!(rounded(histogram.mean()))),
        ("max".to_owned(), json!(histogram.max())),
    ]);
    let values = histogram.value_at_quantiles(QUANTILES.map(|(quantile, _)| quantile));
    for ((_, name), value) in QUANTILES.iter().zip(values) {
        object.insert((*name).to_owned(), json!(value.min(histogram.max())));
    }
    Value::Object(object)
}

/// To three digits after the point.
fn rounded(number: f64) -> f64 {
    (number * 1_000.0).round() / 1_000.0
}
