//! The families of `/metrics` as OTLP metrics: the same names, labels as attributes, values since the start.

use std::time::SystemTime;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint,
    ResourceMetrics, ScopeMetrics, Sum,
};
use opentelemetry_proto::tonic::resource::v1::Resource;

use super::{nanoseconds, scope, text};
use crate::admin::metrics::families::{Content, Families, Family, Labels, Value};
use crate::stats::Buckets;

const CUMULATIVE: i32 = AggregationTemporality::Cumulative as i32;

/// The times of a data point, in nanoseconds since 1970.
#[derive(Clone, Copy)]
struct Times {
    started: u64,
    now: u64,
}

/// All families as one request.
pub(super) fn request(
    families: &Families,
    started: SystemTime,
    resource: Resource,
) -> ExportMetricsServiceRequest {
    let times = Times { started: nanoseconds(started), now: nanoseconds(SystemTime::now()) };
    let metrics = families.iter().filter_map(|(name, family)| metric(name, family, times));
    let scope_metrics = vec![ScopeMetrics {
        scope: Some(scope()),
        metrics: metrics.collect(),
        ..ScopeMetrics::default()
    }];
    let resource_metrics = vec![ResourceMetrics {
        resource: Some(resource),
        scope_metrics,
        ..ResourceMetrics::default()
    }];
    ExportMetricsServiceRequest { resource_metrics }
}

/// A family; none for a text, which the resource has.
fn metric(name: &str, family: &Family, times: Times) -> Option<Metric> {
    let numbers = |samples: &[(Labels, Value)]| {
        samples.iter().map(|(labels, value)| number(labels, *value, times)).collect()
    };
    let data = match &family.content {
        Content::Counters(samples) => Data::Sum(Sum {
            data_points: numbers(samples),
            aggregation_temporality: CUMULATIVE,
            is_monotonic: true,
        }),
        Content::Gauges(samples) => Data::Gauge(Gauge { data_points: numbers(samples) }),
        Content::Histograms(all) => {
            let points = all.iter().map(|(labels, buckets)| histogram(labels, buckets, times));
            Data::Histogram(Histogram {
                data_points: points.collect(),
                aggregation_temporality: CUMULATIVE,
            })
        }
        Content::Info(_) => return None,
    };
    let unit = if name.ends_with("_seconds") {
        "s"
    } else if name.ends_with("_bytes") {
        "By"
    } else {
        ""
    };
    Some(Metric {
        name: name.to_owned(),
        description: family.help.clone(),
        unit: unit.to_owned(),
        data: Some(data),
        ..Metric::default()
    })
}

fn attributes(labels: &Labels) -> Vec<KeyValue> {
    labels.iter().map(|(name, value)| text(name, value.clone())).collect()
}

fn number(labels: &Labels, value: Value, times: Times) -> NumberDataPoint {
    let value = match value {
        Value::Whole(value) => Number::AsInt(i64::try_from(value).unwrap_or(i64::MAX)),
        Value::Real(value) => Number::AsDouble(value),
    };
    NumberDataPoint {
        attributes: attributes(labels),
        start_time_unix_nano: times.started,
        time_unix_nano: times.now,
        value: Some(value),
        ..NumberDataPoint::default()
    }
}

fn histogram(labels: &Labels, buckets: &Buckets, times: Times) -> HistogramDataPoint {
    let bounds = buckets.each().map(|(bound_s, _)| bound_s).filter(|bound_s| bound_s.is_finite());
    HistogramDataPoint {
        attributes: attributes(labels),
        start_time_unix_nano: times.started,
        time_unix_nano: times.now,
        count: buckets.count(),
        sum: Some(buckets.sum_s()),
        bucket_counts: buckets.each().map(|(_, count)| count).collect(),
        explicit_bounds: bounds.collect(),
        ..HistogramDataPoint::default()
    }
}
