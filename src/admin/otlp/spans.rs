//! Sampled messages as OTLP spans.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};

use super::{attribute, number, scope, text};
use crate::base::clock::Now;
use crate::control::span::{DeliverySpan, MessageSpan};

/// The flag of a sampled trace.
const SAMPLED: u32 = 1;

/// Messages as one request. Fails if the system has no random numbers for identifiers.
pub(super) fn request(
    messages: Vec<MessageSpan>,
    zero_us: u64,
    resource: Resource,
) -> Result<ExportTraceServiceRequest, getrandom::Error> {
    let mut spans = Vec::new();
    for message in messages {
        add(message, &|at: Now| (zero_us + at.0) * 1_000, &mut spans)?;
    }
    let scope_spans = vec![ScopeSpans { scope: Some(scope()), spans, ..ScopeSpans::default() }];
    let resource_spans =
        vec![ResourceSpans { resource: Some(resource), scope_spans, ..ResourceSpans::default() }];
    Ok(ExportTraceServiceRequest { resource_spans })
}

fn random<const BYTES: usize>() -> Result<Vec<u8>, getrandom::Error> {
    let mut bytes = vec![0; BYTES];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

/// Adds the span of a message, and those of its deliveries.
fn add(
    message: MessageSpan,
    time: &impl Fn(Now) -> u64,
    spans: &mut Vec<Span>,
) -> Result<(), getrandom::Error> {
    let trace_id = match &message.parent {
        Some(parent) => parent.trace_id.to_vec(),
        None => random::<16>()?,
    };
    let span_id = random::<8>()?;
    let parent = message.parent.map_or_else(Vec::new, |parent| parent.span_id.to_vec());
    spans.push(Span {
        trace_id: trace_id.clone(),
        span_id: span_id.clone(),
        parent_span_id: parent,
        flags: SAMPLED,
        name: "mqtt publish".to_owned(),
        kind: SpanKind::Server as i32,
        start_time_unix_nano: time(message.began),
        end_time_unix_nano: time(message.ended),
        attributes: attributes(&message),
        status: message.refused.map(|reason| Status {
            message: reason.name().to_owned(),
            code: StatusCode::Error as i32,
        }),
        ..Span::default()
    });
    for delivery in &message.deliveries {
        spans.push(Span {
            trace_id: trace_id.clone(),
            span_id: random::<8>()?,
            parent_span_id: span_id.clone(),
            flags: SAMPLED,
            name: "mqtt deliver".to_owned(),
            kind: SpanKind::Client as i32,
            start_time_unix_nano: time(message.began),
            end_time_unix_nano: time(delivery.sent.unwrap_or(message.ended)),
            attributes: attributes_of(delivery, &message.topic),
            ..Span::default()
        });
    }
    Ok(())
}

fn attributes(message: &MessageSpan) -> Vec<KeyValue> {
    vec![
        text("messaging.system", "mqtt"),
        text("messaging.operation.name", "publish"),
        text("messaging.destination.name", message.topic.clone()),
        text("messaging.client.id", message.client_identifier.clone()),
        number("messaging.message.body.size", message.payload_bytes),
        number("messaging.message.envelope.size", message.bytes),
        number("mqtt.qos", message.qos.into()),
        attribute("mqtt.retain", Value::BoolValue(message.retain)),
        attribute("mqtt.dup", Value::BoolValue(message.dup)),
        number("ringmq.core", message.core.into()),
        number("ringmq.fan_out", message.recipients),
        number("ringmq.cores", message.cores),
        attribute("ringmq.waited", Value::BoolValue(message.waited)),
    ]
}

fn attributes_of(delivery: &DeliverySpan, topic: &str) -> Vec<KeyValue> {
    vec![
        text("messaging.system", "mqtt"),
        text("messaging.operation.name", "deliver"),
        text("messaging.destination.name", topic),
        text("messaging.client.id", delivery.client_identifier.clone()),
        number("mqtt.qos", delivery.qos.into()),
        attribute("ringmq.queued", Value::BoolValue(delivery.sent.is_none())),
    ]
}
