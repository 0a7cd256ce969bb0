use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::process::{Command as Program, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::body::to_bytes;
use flate2::read::GzDecoder;

use super::families::{Content, Families, Value};
use super::*;
use crate::base::latencies::{Kind, Recording};
use crate::base::metrics::{Drop as Cause, Metrics};
use crate::control::bridge::{BridgeState, BridgeStatus, ConnectionStatus, QueueSize};
use crate::control::cluster::{
    ClusterBoard, ClusterStatus, ClusterTraffic, MemberStatus, ReplicationStatus,
};
use crate::control::webhooks::Status;
use crate::stats::Snapshot;

/// Labels that a metric may have. None is chosen by clients.
const LABELS: [&str; 12] = [
    "bridge",
    "cause",
    "core",
    "direction",
    "le",
    "listener",
    "node",
    "qos",
    "reason",
    "state",
    "version",
    "webhook",
];

/// A cluster of two nodes.
fn cluster() -> ClusterBoard {
    let member = |node, name: &str| MemberStatus {
        node,
        name: name.to_owned(),
        incarnation: 1,
        advertise: String::new(),
        state: "member",
        is_own: node == 0,
        heard_ms: Some(250),
        lease_ms: None,
        clock_ahead_ms: None,
        clients: Some(3),
        takes_sessions: true,
    };
    let board = ClusterBoard::default();
    let members = vec![member(0, "a"), member(1, "b")];
    board.set_status(ClusterStatus { members, ..ClusterStatus::default() });
    board.set_traffic(ClusterTraffic { sent: 7, ..Default::default() });
    board.set_replication(ReplicationStatus { lag_frames: 3, ..ReplicationStatus::default() });
    board
}

/// Numbers of which every metric has a value, of two cores.
fn numbers() -> Numbers {
    let mut counted = Metrics { clients_refused: 9, identifiers_denied: 2, ..Metrics::default() };
    counted.busy_us = 1_500_000;
    counted.received_by_qos = [5, 3, 1];
    counted.publishes_received = 9;
    counted.drops.add(Cause::QueueFull, 4);
    let mut recording = Recording::default();
    for (kind, ..) in crate::base::latencies::KINDS {
        recording.record(kind, 3_000, 2);
    }
    recording.record(Kind::Turn, 60_000_000_000, 1);
    Numbers {
        snapshot: Arc::new(Snapshot::of(vec![Some(counted.clone()), Some(counted)], &recording)),
        process: Process {
            cpu_s: Some(0.25),
            resident_bytes: Some(1 << 20),
            virtual_bytes: Some(1 << 30),
            threads: Some(4),
            descriptors: Some(20),
            descriptors_max: Some(1_024),
        },
        started: SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_500),
        connections_max: 1_000,
        memory_bytes_max: 1 << 30,
        store_bytes_max: Some(1 << 33),
        certificates_expire_s: vec![("0.0.0.0:8883".to_owned(), 1_900_000_000)],
        cluster: Some(cluster()),
        bridges: vec![(
            BridgeStatus {
                name: "b".to_owned(),
                connections: vec![
                    ConnectionStatus { state: BridgeState::Up, ..ConnectionStatus::default() },
                    ConnectionStatus::default(),
                ],
                sent: 5,
                round_trip_us: Some(2_500),
                refused_by_reason: vec![("not-authorized", 3)],
                ..BridgeStatus::default()
            },
            Some(QueueSize { messages: 7, bytes: 700, inflight: 2, oldest_s: 9 }),
        )],
        webhooks: vec![Status { name: "a".to_owned(), sent: 5, ..Status::default() }],
        exports: [7, 5, 2, 1],
    }
}

fn values(families: &Families, name: &str) -> BTreeMap<String, Value> {
    let family = families.get(name).unwrap_or_else(|| panic!("{name} is missing"));
    let (Content::Counters(samples) | Content::Gauges(samples)) = &family.content else {
        panic!("{name} has no plain values");
    };
    let labels = |labels: &[(&str, String)]| -> Vec<String> {
        labels.iter().map(|(name, value)| format!("{name}={value}")).collect()
    };
    samples.iter().map(|(of, value)| (labels(of).join(","), *value)).collect()
}

#[test]
fn a_bridge_says_what_waits_for_it_and_how_many_of_its_connections_are_up() {
    let families = families::all(&numbers());
    for (name, expected) in [
        ("ringmq_bridge_connections", 2),
        ("ringmq_bridge_connections_up", 1),
        ("ringmq_bridge_queue_messages", 7),
        ("ringmq_bridge_queue_bytes", 700),
        ("ringmq_bridge_inflight", 2),
        ("ringmq_bridge_oldest_seconds", 9),
    ] {
        let expected = [("bridge=b".to_owned(), Value::Whole(expected))];
        assert_eq!(values(&families, name), expected.into(), "{name}");
    }
    let round_trip = [("bridge=b".to_owned(), Value::Real(0.0025))];
    assert_eq!(values(&families, "ringmq_bridge_round_trip_seconds"), round_trip.into());
}

/// The names of the samples' families as they are documented.
fn names() -> BTreeSet<String> {
    let name = |(name, family): (&String, &families::Family)| match family.content {
        Content::Counters(_) => format!("{name}_total"),
        Content::Info(_) => format!("{name}_info"),
        Content::Gauges(_) | Content::Histograms(_) => name.clone(),
    };
    families::all(&numbers()).iter().map(name).collect()
}

#[test]
fn the_documentation_lists_every_metric_and_no_other() {
    let text = include_str!("../../../docs/metrics.md");
    let documented: BTreeSet<String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .filter(|name| name.starts_with("ringmq_") || name.starts_with("process_"))
        .map(str::to_owned)
        .collect();
    let names = names();
    let lacking: Vec<_> = names.difference(&documented).collect();
    let surplus: Vec<_> = documented.difference(&names).collect();
    assert!(lacking.is_empty() && surplus.is_empty(), "lacks {lacking:#?}, has also {surplus:#?}");
}

#[test]
fn values_have_base_units_and_are_shown_by_their_labels() {
    let families = families::all(&numbers());
    let busy = values(&families, "ringmq_core_busy_seconds");
    assert_eq!((busy["core=0"], busy.len()), (Value::Real(1.5), 2));
    assert_eq!(values(&families, "ringmq_messages_received")["qos=1"], Value::Whole(6));
    assert_eq!(values(&families, "ringmq_messages_dropped")["cause=queue-full"], Value::Whole(8));
    assert_eq!(values(&families, "ringmq_core_messages_received")["core=1"], Value::Whole(9));
    assert_eq!(values(&families, "ringmq_start_time_seconds")[""], Value::Real(1_700_000_000.5));
    // The refusals without a reason of their own.
    let refused = values(&families, "ringmq_clients_refused");
    assert_eq!(refused["reason=identifier"], Value::Whole(4));
    assert_eq!(refused["reason=other"], Value::Whole(14));
}

#[test]
fn a_missing_core_is_counted_and_its_series_are_left_out() {
    let counted = Metrics { turns: 7, ..Metrics::default() };
    let cores = vec![Some(counted), None];
    let snapshot = Arc::new(Snapshot::of(cores, &Recording::default()));
    let families = families::all(&Numbers { snapshot, ..numbers() });
    assert_eq!(values(&families, "ringmq_scrape_cores_missing")[""], Value::Whole(1));
    let turns = values(&families, "ringmq_core_turns");
    assert_eq!((turns["core=0"], turns.len()), (Value::Whole(7), 1));
}

/// A line of samples: name, labels and value.
fn sample(line: &str) -> (String, Vec<(String, String)>, f64) {
    let (series, value) = line.rsplit_once(' ').expect("a value");
    let value = value.parse().unwrap_or_else(|_| panic!("not a number: {line}"));
    let Some((name, labels)) = series.split_once('{') else {
        return (series.to_owned(), Vec::new(), value);
    };
    let labels = labels.strip_suffix('}').unwrap_or_else(|| panic!("no closing brace: {line}"));
    let label = |label: &str| {
        let (name, value) = label.split_once('=').unwrap_or_else(|| panic!("no label: {line}"));
        let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
        (name.to_owned(), value.unwrap_or_else(|| panic!("no quotes: {line}")).to_owned())
    };
    (name.to_owned(), labels.split(',').map(label).collect(), value)
}

/// Checks a text by the rules that both formats share, and returns the names of its families.
fn check(text: &str, format: Format) -> BTreeSet<String> {
    let (mut families, mut series) = (BTreeSet::new(), BTreeSet::new());
    let (mut family, mut kind, mut help) = (String::new(), "", "");
    let mut buckets: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    assert!(text.ends_with('\n'));
    for line in text.lines().filter(|line| *line != "# EOF") {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, said) = rest.split_once(' ').expect("a text");
            (family, help, kind) = (name.to_owned(), said, "");
            assert!(families.insert(family.clone()), "{name} is there twice");
            assert!(help.ends_with('.') && !help.contains(['"', '\\']), "{line}");
            continue;
        }
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            kind = rest.strip_prefix(&format!("{family} ")).expect("of the family");
            continue;
        }
        assert!(!line.starts_with('#') && !help.is_empty() && !kind.is_empty(), "{line}");
        let (name, labels, value) = sample(line);
        assert!(
            series.insert(line.rsplit_once(' ').expect("a value").0.to_owned()),
            "twice: {line}"
        );
        for (label, _) in &labels {
            assert!(LABELS.contains(&label.as_str()), "label {label} in {line}");
        }
        let suffix = name.strip_prefix(&family).unwrap_or_else(|| panic!("{line} is in {family}"));
        let suffixes: &[&str] = match (kind, format) {
            ("counter", Format::OpenMetrics) => &["_total"],
            ("info", Format::OpenMetrics) => &["_info"],
            ("counter" | "gauge", _) => &[""],
            ("histogram", _) => &["_bucket", "_sum", "_count"],
            other => panic!("type {other:?} of {family}"),
        };
        assert!(suffixes.contains(&suffix), "{line}: {suffix:?} is no suffix of a {kind}");
        if kind == "counter" && format == Format::Prometheus {
            assert!(name.ends_with("_total"), "{line}");
        }
        assert!(value >= 0.0, "{line}");
        let others: Vec<_> = labels.iter().filter(|(label, _)| label != "le").collect();
        let of = buckets.entry(format!("{family}{others:?}")).or_default();
        match suffix {
            "_bucket" => of.push(value),
            "_count" => of.insert(0, value),
            _ => {}
        }
    }
    for (name, mut counts) in buckets.into_iter().filter(|(_, counts)| !counts.is_empty()) {
        // Prometheus text has the count behind the buckets, OpenMetrics before; here it is the first.
        let count = counts.remove(0);
        assert_eq!(counts.len(), 25, "{name}");
        assert!(counts.is_sorted() && counts.last() == Some(&count), "{name}: {counts:?} {count}");
    }
    families
}

#[test]
fn both_formats_hold_to_their_rules() {
    let families = families::all(&numbers());
    let prometheus = Format::Prometheus.encode(families.clone());
    let open_metrics = Format::OpenMetrics.encode(families.clone());
    assert_eq!(check(&prometheus, Format::Prometheus), names());
    let keys: BTreeSet<String> = families.into_keys().collect();
    assert_eq!(check(&open_metrics, Format::OpenMetrics), keys);
    assert!(open_metrics.ends_with("\n# EOF\n") && !prometheus.contains("# EOF"));
    assert!(
        prometheus.contains("ringmq_core_turn_seconds_bucket{le=\"+Inf\"} 3\n"),
        "{prometheus}"
    );
}

#[test]
fn promtool_finds_nothing_to_object_to() {
    let text = Format::Prometheus.encode(families::all(&numbers()));
    let mut promtool = Program::new("promtool");
    promtool.args(["check", "metrics"]).stdin(Stdio::piped());
    promtool.stdout(Stdio::piped()).stderr(Stdio::piped());
    let Ok(mut child) = promtool.spawn() else {
        eprintln!("promtool is not installed (Debian: prometheus): skipped");
        return;
    };
    child.stdin.take().expect("piped").write_all(text.as_bytes()).expect("written");
    let output = child.wait_with_output().expect("it ends");
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success() && said.is_empty(), "{said}");
}

fn headers(name: header::HeaderName, value: &'static str) -> HeaderMap {
    HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
}

#[test]
fn open_metrics_is_sent_to_those_that_ask_for_it() {
    let accepted = |value| Format::accepted(&headers(header::ACCEPT, value));
    assert_eq!(Format::accepted(&HeaderMap::new()), Format::Prometheus);
    assert_eq!(accepted("*/*"), Format::Prometheus);
    assert_eq!(accepted("application/openmetrics-text"), Format::OpenMetrics);
    // Prometheus 2.
    let prometheus = "application/openmetrics-text;version=1.0.0,\
                      application/openmetrics-text;version=0.0.1;q=0.75,\
                      text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    assert_eq!(accepted(prometheus), Format::OpenMetrics);
    assert_eq!(accepted("application/openmetrics-text; version=0.0.1"), Format::Prometheus);
    assert_eq!(accepted("application/openmetrics-text;q=0.1, text/plain"), Format::Prometheus);
    assert_eq!(accepted("application/openmetrics-text;q=0"), Format::Prometheus);
}

#[test]
fn answers_are_packed_for_those_that_unpack_them() {
    let accepts = |value| accepts_gzip(&headers(header::ACCEPT_ENCODING, value));
    assert!(accepts("gzip") && accepts("br, gzip;q=0.5") && accepts("*"));
    assert!(!accepts("gzip;q=0") && !accepts("br") && !accepts("gzip;q=0, *"));
    let text = Format::Prometheus.encode(families::all(&numbers()));
    let packed = gzip(text.as_bytes());
    assert!(packed.len() < text.len() / 4, "{} of {}", packed.len(), text.len());
    let mut unpacked = String::new();
    GzDecoder::new(&packed[..]).read_to_string(&mut unpacked).expect("gzip");
    assert_eq!(unpacked, text);
    let response = response(text, Format::Prometheus, true);
    assert_eq!(response.headers()[header::CONTENT_ENCODING], "gzip");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let body = runtime.block_on(to_bytes(response.into_body(), 1 << 20)).expect("a body");
    assert_eq!(body, packed);
}
