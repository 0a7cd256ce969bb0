//! Tests of the names and values of the `$SYS` topics.

use super::*;

/// The topics below `$SYS/broker/` of Mosquitto 2.1 that do not begin with `load/`.
const NAMES: [&str; 29] = [
    "bytes/received",
    "bytes/sent",
    "clients/active",
    "clients/connected",
    "clients/disconnected",
    "clients/expired",
    "clients/inactive",
    "clients/maximum",
    "clients/total",
    "connections/socket/count",
    "heap/current",
    "heap/maximum",
    "messages/received",
    "messages/sent",
    "messages/stored",
    "packet/out/bytes",
    "packet/out/count",
    "publish/bytes/received",
    "publish/bytes/sent",
    "publish/messages/dropped",
    "publish/messages/received",
    "publish/messages/sent",
    "retained messages/count",
    "shared_subscriptions/count",
    "store/messages/bytes",
    "store/messages/count",
    "subscriptions/count",
    "uptime",
    "version",
];

/// The values after a second round, by name.
fn shown(reports: &[Metrics]) -> HashMap<String, String> {
    let mut topics = SysTopics::new(Now(0));
    let before = vec![Metrics::default(); reports.len()];
    let mut values: HashMap<String, String> =
        topics.changes(CoreId(0), &before, Now(0)).into_iter().collect();
    values.extend(topics.changes(CoreId(0), reports, Now(60_000_000)));
    let below = format!("{ROOT}/broker/");
    let name = |topic: String| topic.strip_prefix(&below).expect("below the root").to_owned();
    values.into_iter().map(|(topic, value)| (name(topic), value)).collect()
}

#[test]
fn every_topic_of_mosquitto_is_there() {
    for cores in [1, 3] {
        let shown = shown(&vec![Metrics::default(); cores]);
        for name in NAMES {
            assert!(shown.contains_key(name), "{name} is missing");
        }
        let loads = shown.keys().filter(|name| name.starts_with("load/"));
        assert_eq!(NAMES.len() + loads.count(), 56);
    }
}

#[test]
fn values_of_mosquitto_are_sums_over_the_cores() {
    let core = |n: u64| Metrics {
        clients_connected: n,
        clients_disconnected: 2 * n,
        connections_accepted: 3 * n,
        connects_received: 4 * n,
        memory_bytes: 1_000 * n,
        messages_queued: 5 * n,
        queue_bytes: 100 * n,
        // The same on every core.
        retained_messages: 7,
        retained_bytes: 70,
        packets_sent: 10 * n,
        bytes_sent: 900 * n,
        output_bytes: 100 * n,
        ..Metrics::default()
    };
    let shown = shown(&[core(1), core(2)]);
    for (name, value) in [
        ("clients/active", "3"),
        ("clients/inactive", "6"),
        ("clients/total", "9"),
        ("connections/socket/count", "9"),
        ("heap/current", "3000"),
        ("heap/maximum", "3000"),
        ("messages/stored", "22"),
        ("packet/out/bytes", "300"),
        ("packet/out/count", "3"),
        ("store/messages/bytes", "370"),
        ("store/messages/count", "22"),
        // 12 in a minute, with the weight 1 - exp(-1).
        ("load/connections/1min", "7.59"),
        ("load/sockets/1min", "5.69"),
    ] {
        assert_eq!(shown[name], value, "{name}");
    }
}

#[test]
fn the_most_memory_held_stays_when_less_is_held() {
    let mut topics = SysTopics::new(Now(0));
    for bytes in [100, 300, 200] {
        let report = Metrics { memory_bytes: bytes, ..Metrics::default() };
        topics.changes(CoreId(0), &[report], Now(0));
    }
    let value = |name: &str| topics.values[&topic(name)].as_str();
    assert_eq!((value("heap/current"), value("heap/maximum")), ("200", "300"));
}

#[test]
fn packets_that_wait_are_estimated_from_their_bytes() {
    let of = |output_bytes, bytes_sent, packets_sent| {
        let metrics = Metrics { output_bytes, bytes_sent, packets_sent, ..Metrics::default() };
        packets_waiting(&metrics)
    };
    assert_eq!((of(0, 0, 0), of(0, 1_000, 10), of(50, 950, 10)), (0, 0, 1));
    assert_eq!(of(500, 500, 10), 5);
    assert_eq!(of(u64::MAX / 2, 1, u64::MAX / 2), u64::MAX / 2);
}

#[test]
fn the_documentation_has_every_name_of_mosquitto() {
    let text = include_str!("../../../docs/metrics.md");
    for (name, _) in names_of_mosquitto(&Metrics::default(), 0) {
        assert!(text.contains(&format!("| `{name}` |")), "docs/metrics.md lacks {name}");
    }
    for (name, _) in Loads::default().topics() {
        let row = name.rsplit_once('/').map_or("", |(row, _)| row);
        assert!(text.contains(&format!("| `{row}/…` |")), "docs/metrics.md lacks {row}");
    }
}
