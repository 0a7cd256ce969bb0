//! Tests of the counters: names against the documentation, sums and differences.

use super::*;

#[test]
fn the_documentation_says_what_every_sys_topic_shows() {
    let text = include_str!("../../../docs/metrics.md");
    let metrics = Metrics::default();
    let of_cores = metrics.core_topics().map(|(topic, _)| format!("cores/N/{topic}"));
    let of_broker = metrics.topics().map(|(topic, _)| topic.to_owned());
    for topic in of_broker.chain(of_cores) {
        assert!(text.contains(&format!("| `{topic}` |")), "docs/metrics.md lacks {topic}");
    }
    for (_, cause) in DROPS {
        assert!(text.contains(&format!("| `{cause}` |")), "docs/metrics.md lacks {cause}");
    }
}

#[test]
fn series_with_labels_are_documented_together() {
    let metrics = Metrics { timeouts: 3, busy_us: 5, ..Metrics::default() };
    let of = |name: &str| -> Vec<Series> {
        metrics.series().filter(|series| series.name == name).collect()
    };
    let closed = of("connections_closed");
    let timeouts = closed.iter().find(|series| series.label == Some(("reason", "timeout")));
    assert_eq!(timeouts.expect("a row").value, 3);
    assert!(of("busy_seconds")[0].is_in_microseconds);
    for series in metrics.series() {
        let is_shared = SHARED_SERIES.iter().any(|(name, _)| *name == series.name);
        let has_label = of(series.name).iter().any(|series| series.label.is_some());
        assert!(is_shared || !has_label, "SHARED_SERIES lacks {}", series.name);
        assert!(is_shared || of(series.name).len() == 1, "{} has two rows", series.name);
    }
    for (name, _) in SHARED_SERIES {
        assert!(!of(name).is_empty(), "no row is named {name}");
    }
}

#[test]
fn counters_are_subtracted_and_gauges_keep_their_value() {
    let mut earlier = Metrics { turns: 5, memory_bytes: 100, ..Metrics::default() };
    earlier.drops.add(Drop::Expired, 1);
    let mut now = Metrics { turns: 7, memory_bytes: 60, ..earlier.clone() };
    now.drops.add(Drop::Expired, 3);
    now.received_by_qos[2] += 4;
    let since = now.since(&earlier);
    assert_eq!((since.turns, since.memory_bytes, since.drops.total()), (2, 60, 3));
    assert_eq!(since.received_by_qos, [0, 0, 4]);
    let names: Vec<&str> = now.rows().map(|(name, ..)| name).collect();
    assert!(names.contains(&"turns") && names.contains(&"memory_bytes"));
}

#[test]
fn drops_are_summed_and_named_by_cause() {
    let mut drops = Drops::default();
    drops.add(Drop::QueueFull, 2);
    drops.add(Drop::Expired, 1);
    assert_eq!((drops.total(), drops.of(Drop::QueueFull)), (3, 2));
    assert_eq!(drops.summary(), "queue-full=2 expired=1");
}
