//! Telemetry by OTLP against a collector that records what it gets.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{Metric, number_data_point};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use ringmq::wire::{Packet, PacketIdentifier, Publish, PublishProperties, Qos, UserProperties};

use crate::clients::Mqtt;
use crate::folder::Folder;
use crate::support::{Broker, CONFIG, EXECUTORS, wait_for};

/// Path and content.
type Request = (String, Vec<u8>);

/// A collector: the requests that it got, by path and content.
struct Collector {
    address: String,
    requests: Arc<Mutex<Vec<Request>>>,
    /// The status that it answers.
    status: Arc<AtomicU16>,
}

impl Collector {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("an address");
        let address = listener.local_addr().expect("bound").to_string();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let status = Arc::new(AtomicU16::new(200));
        let (kept, answer) = (Arc::clone(&requests), Arc::clone(&status));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let mut reader = BufReader::new(stream);
                let (mut head, mut line) = (String::new(), String::new());
                while reader.read_line(&mut line).is_ok_and(|count| count > 2) {
                    head += &line.to_ascii_lowercase();
                    line.clear();
                }
                let value = |name: &str| {
                    let line = head.lines().find_map(|line| line.strip_prefix(name));
                    line.unwrap_or_default().trim().to_owned()
                };
                assert_eq!(value("content-type:"), "application/x-protobuf", "{head}");
                let mut content = vec![0; value("content-length:").parse().expect("a length")];
                reader.read_exact(&mut content).expect("the content");
                let path = head.split(' ').nth(1).expect("a path").to_owned();
                kept.lock().expect("no panic").push((path, content));
                let status = answer.load(Relaxed);
                let answer = format!("HTTP/1.1 {status} x\r\ncontent-length: 0\r\n\r\n");
                let _ = reader.get_mut().write_all(answer.as_bytes());
            }
        });
        Self { address, requests, status }
    }

    fn contents(&self, path: &str) -> Vec<Vec<u8>> {
        let requests = self.requests.lock().expect("no panic");
        requests.iter().filter(|(of, _)| of == path).map(|(_, content)| content.clone()).collect()
    }

    fn spans(&self) -> Vec<Span> {
        let decoded = self
            .contents("/v1/traces")
            .into_iter()
            .map(|content| ExportTraceServiceRequest::decode(&*content).expect("a request"));
        let resources = decoded.flat_map(|request| request.resource_spans);
        resources.flat_map(|of| of.scope_spans).flat_map(|of| of.spans).collect()
    }

    fn metrics(&self) -> Vec<Metric> {
        let Some(last) = self.contents("/v1/metrics").pop() else { return Vec::new() };
        let request = ExportMetricsServiceRequest::decode(&*last).expect("a request");
        let resource = request.resource_metrics[0].resource.as_ref().expect("a resource");
        assert_eq!(text(&resource.attributes, "service.name").as_deref(), Some("ringmq"));
        let scopes = request.resource_metrics.into_iter().flat_map(|of| of.scope_metrics);
        scopes.flat_map(|of| of.metrics).collect()
    }
}

fn value(attributes: &[KeyValue], key: &str) -> Option<Any> {
    attributes.iter().find(|of| of.key == key)?.value.as_ref()?.value.clone()
}

fn text(attributes: &[KeyValue], key: &str) -> Option<String> {
    match value(attributes, key)? {
        Any::StringValue(text) => Some(text),
        _ => None,
    }
}

fn number(attributes: &[KeyValue], key: &str) -> Option<i64> {
    match value(attributes, key)? {
        Any::IntValue(number) => Some(number),
        _ => None,
    }
}

fn config(collector: &Collector, more: &str) -> String {
    format!("{CONFIG}[telemetry]\nendpoint = \"http://{}\"\n{more}\n", collector.address)
}

fn publish(client: &mut Mqtt, topic: &str, traceparent: Option<&str>) {
    let pairs: Vec<(&str, &str)> = traceparent.map(|of| ("traceparent", of)).into_iter().collect();
    let mut section = Vec::new();
    pairs.iter().for_each(|(name, value)| UserProperties::push(&mut section, name, value));
    let properties = PublishProperties {
        user_properties: UserProperties::encoded(&section),
        ..PublishProperties::default()
    };
    client.send(&Packet::Publish(Publish {
        qos: Qos::AtLeastOnce,
        topic,
        packet_identifier: PacketIdentifier::new(1),
        properties,
        payload: b"payload",
        ..Publish::default()
    }));
    assert!(client.packet().starts_with("Puback"));
}

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const UNSAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

#[test]
fn a_message_whose_traceparent_asks_for_it_has_spans_and_its_property_is_passed_on_unaltered() {
    for flags in EXECUTORS {
        let collector = Collector::start();
        let config = config(&collector, "traces = \"asked\"");
        let broker = Broker::with(Folder::new("otlp"), &config, flags);
        let mut subscriber = Mqtt::connect(&broker, "subscriber");
        subscriber.subscribe("t/#");
        let mut publisher = Mqtt::connect(&broker, "publisher");
        // The cores know what to sample once the exporter has told them.
        let spans = wait_for("spans are exported", || {
            publish(&mut publisher, "t/none", None);
            publish(&mut publisher, "t/unsampled", Some(UNSAMPLED));
            publish(&mut publisher, "t/1", Some(PARENT));
            for _ in 0..3 {
                let delivered = subscriber.packet();
                if delivered.contains("t/1") {
                    assert!(delivered.contains(PARENT), "{delivered}");
                }
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
            Some(collector.spans()).filter(|spans| !spans.is_empty())
        });
        let topics: Vec<_> = spans
            .iter()
            .filter_map(|span| text(&span.attributes, "messaging.destination.name"))
            .collect();
        assert!(topics.iter().all(|topic| topic == "t/1"), "{flags}: {topics:?}");
        let of = |name: &str| spans.iter().find(|span| span.name == name);
        let message = of("mqtt publish").expect("a span of the message");
        assert_eq!(message.trace_id[..2], [0x0A, 0xF7]);
        assert_eq!(message.parent_span_id[..2], [0xB7, 0xAD]);
        assert_eq!(message.span_id.len(), 8);
        let attributes = &message.attributes;
        assert_eq!(text(attributes, "messaging.client.id").as_deref(), Some("publisher"));
        assert_eq!(number(attributes, "mqtt.qos"), Some(1));
        assert_eq!(number(attributes, "messaging.message.body.size"), Some(7));
        let reached = number(attributes, "ringmq.fan_out").expect("a number")
            + number(attributes, "ringmq.cores").expect("a number");
        assert_eq!(reached, 1, "{flags}: the subscriber, or its core");
        assert!(value(attributes, "ringmq.waited").is_some());
        assert!(message.start_time_unix_nano <= message.end_time_unix_nano);
        if let Some(delivery) = of("mqtt deliver") {
            assert_eq!(delivery.trace_id, message.trace_id);
            assert_eq!(
                text(&delivery.attributes, "messaging.client.id").as_deref(),
                Some("subscriber")
            );
        } else {
            assert!(number(attributes, "ringmq.cores") == Some(1), "{flags}: {spans:?}");
        }
    }
}

#[test]
fn metrics_are_exported_at_their_interval_and_a_reload_changes_everything() {
    let collector = Collector::start();
    let folder = Folder::new("otlp-metrics");
    let broker = Broker::with(folder, CONFIG, "--mode poll --cores 2");
    let mut client = Mqtt::connect(&broker, "c");
    publish(&mut client, "t", None);
    assert!(collector.metrics().is_empty());
    let path = broker.folder.0.join("broker.toml");
    let text_of = |more: &str| {
        config(&collector, more).replace("{FOLDER}", &broker.folder.0.display().to_string())
    };
    std::fs::write(&path, text_of("metrics_interval_s = 1")).expect("written");
    let reload = || broker.unix().ask("POST", "/api/v1/reload", &[], "").json();
    let answer = reload();
    assert_eq!(answer["errors"], serde_json::json!([]), "{answer}");
    assert_eq!(answer["needs_restart"], serde_json::json!([]), "{answer}");
    let metrics = wait_for("metrics", || Some(collector.metrics()).filter(|all| !all.is_empty()));
    let of = |name: &str| {
        let metric = metrics.iter().find(|metric| metric.name == name);
        metric.unwrap_or_else(|| panic!("{name}: {metrics:?}")).data.as_ref().expect("data")
    };
    let Data::Sum(received) = of("ringmq_messages_received") else { panic!("no sum") };
    assert!(received.is_monotonic && received.data_points.len() == 3);
    let qos_1 =
        received.data_points.iter().find(|of| text(&of.attributes, "qos").as_deref() == Some("1"));
    assert_eq!(qos_1.expect("QoS 1").value, Some(number_data_point::Value::AsInt(1)));
    assert!(matches!(of("ringmq_sessions"), Data::Gauge(_)));
    let Data::Histogram(turns) = of("ringmq_core_turn_seconds") else { panic!("no histogram") };
    let point = &turns.data_points[0];
    assert_eq!(point.bucket_counts.len(), point.explicit_bounds.len() + 1);
    assert_eq!(point.bucket_counts.iter().sum::<u64>(), point.count);
    assert!(point.start_time_unix_nano < point.time_unix_nano);
    // From metrics to spans of every message.
    std::fs::write(&path, text_of("traces = 1.0")).expect("written");
    assert_eq!(reload()["errors"], serde_json::json!([]));
    wait_for("spans are exported", || {
        publish(&mut client, "t", None);
        std::thread::sleep(std::time::Duration::from_millis(50));
        (!collector.spans().is_empty()).then_some(())
    });
    let span = &collector.spans()[0];
    assert_eq!((span.trace_id.len(), span.parent_span_id.len()), (16, 0), "a trace of its own");
    std::fs::write(&path, text_of("endpoint = \"ftp://x\"")).expect("written");
    let refused = reload();
    assert!(!refused["errors"].as_array().expect("errors").is_empty(), "{refused}");
}

#[test]
fn a_collector_that_refuses_costs_spans_that_are_counted_and_nothing_else() {
    let collector = Collector::start();
    collector.status.store(503, Relaxed);
    let config = config(&collector, "traces = 1.0\nmetrics_interval_s = 1");
    let broker = Broker::with(Folder::new("otlp-refused"), &config, "--mode poll");
    let mut client = Mqtt::connect(&broker, "c");
    let metric = |name: &str| {
        let answer = broker.unix().ask("GET", "/metrics", &[], "");
        let text = String::from_utf8(answer.body).expect("text");
        let line = text.lines().find(|line| line.starts_with(name)).expect("a metric");
        line.rsplit(' ').next().expect("a value").parse::<f64>().expect("a number")
    };
    wait_for("lost spans are counted", || {
        publish(&mut client, "t", None);
        std::thread::sleep(std::time::Duration::from_millis(50));
        (metric("ringmq_telemetry_spans_lost_total ") > 0.0).then_some(())
    });
    assert!(metric("ringmq_telemetry_requests_failed_total ") > 0.0);
    assert_eq!(metric("ringmq_telemetry_spans_exported_total "), 0.0);
    broker.wait_for_log("a line about it", |line| line["message"] == "telemetry is not exported");
    collector.status.store(200, Relaxed);
    wait_for("spans are exported", || {
        publish(&mut client, "t", None);
        std::thread::sleep(std::time::Duration::from_millis(50));
        (metric("ringmq_telemetry_spans_exported_total ") > 0.0).then_some(())
    });
}
