//! Families as text: Prometheus text 0.0.4 or OpenMetrics 1.0.

use std::fmt;

use axum::http::HeaderMap;
use axum::http::header::ACCEPT;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, MetricEncoder, NoLabelSet, prometheus_text, text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use crate::admin::compression::{Item, items};

use super::families::{Content, Families, Family, Labels, Value};

/// Format of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text 0.0.4.
    Prometheus,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// The format that a request accepts: OpenMetrics only if the request names it.
    pub fn accepted(headers: &HeaderMap) -> Self {
        let mut open_metrics = 0;
        let mut text = 0;
        for Item { name, parameters, weight } in items(headers, ACCEPT.as_str()) {
            let is_version_1 = parameters
                .iter()
                .all(|&(name, value)| name != "version" || matches!(value, "1.0.0" | "1.0" | "1"));
            match name {
                "application/openmetrics-text" if is_version_1 => {
                    open_metrics = open_metrics.max(weight);
                }
                "text/plain" | "text/*" | "*/*" => text = text.max(weight),
                _ => {}
            }
        }
        if open_metrics > 0 && open_metrics >= text { Self::OpenMetrics } else { Self::Prometheus }
    }

    /// The media type.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Prometheus => prometheus_text::CONTENT_TYPE,
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// The families as text.
    pub fn encode(self, families: Families) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Collected(families)));
        let mut encoded = String::new();
        let outcome = match self {
            Self::Prometheus => prometheus_text::encode(&mut encoded, &registry),
            Self::OpenMetrics => text::encode(&mut encoded, &registry),
        };
        outcome.expect("writing to a String does not fail");
        encoded
    }
}

#[derive(Debug)]
struct Collected(Families);

impl Collector for Collected {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for (name, family) in &self.0 {
            encode(&mut encoder, name, family)?;
        }
        Ok(())
    }
}

fn encode(encoder: &mut DescriptorEncoder<'_>, name: &str, family: &Family) -> fmt::Result {
    let kind = match family.content {
        Content::Counters(_) => MetricType::Counter,
        Content::Gauges(_) => MetricType::Gauge,
        Content::Info(_) => MetricType::Info,
        Content::Histograms(_) => MetricType::Histogram,
    };
    let mut metric = encoder.encode_descriptor(name, &family.help, None, kind)?;
    match &family.content {
        Content::Counters(samples) => each(&mut metric, samples, |mut sample, value| match value {
            Value::Whole(value) => sample.encode_counter::<NoLabelSet, u64, u64>(value, None),
            Value::Real(value) => sample.encode_counter::<NoLabelSet, f64, u64>(value, None),
        }),
        Content::Gauges(samples) => each(&mut metric, samples, |mut sample, value| match value {
            Value::Whole(value) => sample.encode_gauge(value),
            Value::Real(value) => sample.encode_gauge(value),
        }),
        Content::Info(labels) => metric.encode_info(labels),
        Content::Histograms(samples) => each(&mut metric, samples, |mut sample, buckets| {
            let counts: Vec<(f64, u64)> = buckets.each().collect();
            sample.encode_histogram::<NoLabelSet>(buckets.sum_s(), buckets.count(), &counts, None)
        }),
    }
}

fn each<T>(
    metric: &mut MetricEncoder<'_>,
    samples: &[(Labels, T)],
    encode: impl Fn(MetricEncoder<'_>, &T) -> fmt::Result,
) -> fmt::Result {
    samples.iter().try_for_each(|(labels, value)| encode(metric.encode_family(labels)?, value))
}
