//! Numbers as families of samples: the names, labels and units that monitoring systems see.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::base::latencies::Kind;
use crate::base::metrics::{DROPS, Metrics, NumberKind, SHARED_SERIES, Scope, Series};
use crate::control::bridge::{BridgeState, BridgeStatus, QueueSize};
use crate::control::cluster::{ClusterBoard, MemberStatus, ReplicationState, ReplicationStatus};
use crate::control::webhooks::{Dropped, Status};
use crate::platform::process::Process;
use crate::stats::{Buckets, Snapshot};

/// Everything that is exposed.
#[derive(Clone, Debug)]
pub struct Numbers {
    /// What the cores recorded and counted.
    pub snapshot: Arc<Snapshot>,
    /// What the process uses of the machine.
    pub process: Process,
    /// When the broker started.
    pub started: SystemTime,
    /// Limit of concurrent connections.
    pub connections_max: u32,
    /// Limit of the memory that messages, queues and outboxes take.
    pub memory_bytes_max: u64,
    /// Limit of the store's size; none without a store or a limit.
    pub store_bytes_max: Option<u64>,
    /// By TLS listener, when the first of its certificates expires, in seconds since 1970.
    pub certificates_expire_s: Vec<(String, i64)>,
    /// Each webhook.
    pub webhooks: Vec<Status>,
    pub bridges: Vec<(BridgeStatus, Option<QueueSize>)>,
    /// The cluster; none if the broker is no node of one.
    pub cluster: Option<ClusterBoard>,
    /// What was exported to a collector: requests with metrics, sampled messages, sampled messages that were lost, and
    /// requests that have failed.
    pub exports: [u64; 4],
}

/// Samples with one name.
#[derive(Clone, Debug, PartialEq)]
pub struct Family {
    /// Documentation.
    pub help: String,
    /// What the values are.
    pub content: Content,
}

/// The values of a family, with their labels.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// Counters since the start; their name ends in `_total`, which is not part of the family's name.
    Counters(Vec<(Labels, Value)>),
    /// Current values.
    Gauges(Vec<(Labels, Value)>),
    /// A text in a label; the name ends in `_info`, which is not part of the family's name.
    Info(Labels),
    /// Latencies.
    Histograms(Vec<(Labels, Box<Buckets>)>),
}

/// Labels of a sample.
pub type Labels = Vec<(&'static str, String)>;

/// A value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// A whole number.
    Whole(u64),
    /// Seconds, and other numbers with a fraction.
    Real(f64),
}

/// Families by name, without `_total` and `_info`.
pub type Families = BTreeMap<String, Family>;

/// All families.
pub fn all(numbers: &Numbers) -> Families {
    let mut families = Families::new();
    let snapshot = &numbers.snapshot;
    add_counted(&mut families, "ringmq", &Vec::new(), &snapshot.all, |scope| scope != Scope::Core);
    for (core, counted) in snapshot.cores.iter().enumerate() {
        let Some(counted) = counted else { continue };
        let labels = vec![("core", core.to_string())];
        let is_of_core = |scope| matches!(scope, Scope::Core | Scope::BrokerAndCore);
        add_counted(&mut families, "ringmq_core", &labels, counted, is_of_core);
    }
    add_messages(&mut families, &snapshot.all);
    add_latencies(&mut families, snapshot);
    add_broker(&mut families, numbers);
    add_webhooks(&mut families, &numbers.webhooks);
    add_bridges(&mut families, &numbers.bridges);
    if let Some(board) = &numbers.cluster {
        add_cluster(&mut families, board);
        if let Some(replication) = board.replication() {
            add_replication(&mut families, &replication);
        }
    }
    add_exports(&mut families, numbers.exports);
    add_process(&mut families, &numbers.process);
    families
}

/// Adds the rows of the table of counters.
fn add_counted(
    families: &mut Families,
    prefix: &str,
    labels: &Labels,
    counted: &Metrics,
    is_shown: impl Fn(Scope) -> bool,
) {
    let rows: Vec<Series> = counted.series().filter(|series| is_shown(series.scope)).collect();
    for row in &rows {
        let mut labels = labels.clone();
        let mut value = row.value;
        match row.label {
            Some((name, of)) => labels.push((name, of.to_owned())),
            // The total of rows with labels is shown as what they leave.
            None => {
                let parts = || rows.iter().filter(|other| other.name == row.name);
                if let Some((name, _)) = parts().find_map(|part| part.label) {
                    let named = parts().filter(|part| part.label.is_some());
                    value = value.saturating_sub(named.map(|part| part.value).sum());
                    labels.push((name, "other".to_owned()));
                }
            }
        }
        let value = match row.is_in_microseconds {
            true => Value::Real(value as f64 / 1e6),
            false => Value::Whole(value),
        };
        let empty = match row.kind {
            NumberKind::Counter => Content::Counters(Vec::new()),
            NumberKind::Gauge => Content::Gauges(Vec::new()),
            // Computed only when $SYS topics are updated.
            NumberKind::Derived => continue,
        };
        let family = families
            .entry(format!("{prefix}_{}", row.name))
            .or_insert_with(|| Family { help: help(row), content: empty });
        match &mut family.content {
            Content::Counters(samples) | Content::Gauges(samples) => samples.push((labels, value)),
            Content::Info(_) | Content::Histograms(_) => {}
        }
    }
}

fn help(row: &Series) -> String {
    let shared = SHARED_SERIES.iter().find(|(name, _)| *name == row.name);
    shared.map_or(row.help, |(_, help)| help).trim().to_owned()
}

/// Adds what is counted by QoS and by cause.
fn add_messages(families: &mut Families, counted: &Metrics) {
    let by_qos = |counts: [u64; 3]| {
        let of = |(qos, count): (usize, u64)| (vec![("qos", qos.to_string())], Value::Whole(count));
        Content::Counters(counts.into_iter().enumerate().map(of).collect())
    };
    add(
        families,
        "ringmq_messages_received",
        "PUBLISH packets received from clients, by QoS.",
        by_qos(counted.received_by_qos),
    );
    add(
        families,
        "ringmq_messages_forwarded",
        "Messages that cores received from other cores, by QoS.",
        by_qos(counted.forwarded_by_qos),
    );
    let of = |&(cause, name): &(_, &str)| {
        (vec![("cause", name.to_owned())], Value::Whole(counted.drops.of(cause)))
    };
    let dropped = Content::Counters(DROPS.iter().map(of).collect());
    add(families, "ringmq_messages_dropped", "Messages dropped, by cause.", dropped);
}

fn add_latencies(families: &mut Families, snapshot: &Snapshot) {
    let of = |labels, kind| (labels, Box::new(*snapshot.latencies(kind)));
    let by_qos = |kinds: [Kind; 3]| {
        let of = |(qos, kind): (usize, Kind)| of(vec![("qos", qos.to_string())], kind);
        Content::Histograms(kinds.into_iter().enumerate().map(of).collect())
    };
    add(
        families,
        "ringmq_publish_seconds",
        "Time from the receipt of a PUBLISH until its copies are handed to the kernel or to other cores, by QoS.",
        by_qos([Kind::PublishQos0, Kind::PublishQos1, Kind::PublishQos2]),
    );
    add(
        families,
        "ringmq_publish_forwarded_seconds",
        "Time from the receipt of a PUBLISH on one core until another core has handed its copies to the kernel, by QoS.",
        by_qos([Kind::ForwardedQos0, Kind::ForwardedQos1, Kind::ForwardedQos2]),
    );
    let single = |kind| Content::Histograms(vec![of(Vec::new(), kind)]);
    add(
        families,
        "ringmq_connect_seconds",
        "Time from the receipt of CONNECT until CONNACK is handed to the kernel.",
        single(Kind::Connect),
    );
    add(
        families,
        "ringmq_storage_commit_seconds",
        "Time from passing records to the store until they are on disk.",
        single(Kind::StorageCommit),
    );
    add(
        families,
        "ringmq_core_turn_seconds",
        "Duration of a turn of a core's event loop, without the waiting.",
        single(Kind::Turn),
    );
}

fn add_broker(families: &mut Families, numbers: &Numbers) {
    let version = vec![("version", env!("CARGO_PKG_VERSION").to_owned())];
    add(families, "ringmq_build", "Version of the broker.", Content::Info(version));
    let started = numbers.started.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let gauges = [
        (
            "ringmq_start_time_seconds",
            "Start of the broker, in seconds since 1970.",
            Some(Value::Real(started)),
        ),
        (
            "ringmq_cores",
            "Number of cores.",
            Some(Value::Whole(numbers.snapshot.cores.len() as u64)),
        ),
        (
            "ringmq_scrape_cores_missing",
            "Cores that did not reply within a second. Their own series are missing from this scrape; sums contain \
             their previous values.",
            Some(Value::Whole(numbers.snapshot.missing().len() as u64)),
        ),
        (
            "ringmq_connections_limit",
            "Limit of concurrent connections.",
            Some(Value::Whole(u64::from(numbers.connections_max))),
        ),
        (
            "ringmq_memory_limit_bytes",
            "Limit of ringmq_memory_bytes: memory_bytes_max.",
            Some(Value::Whole(numbers.memory_bytes_max)),
        ),
        (
            "ringmq_store_limit_bytes",
            "Limit of ringmq_store_bytes: storage.bytes_max.",
            numbers.store_bytes_max.map(Value::Whole),
        ),
    ];
    add_gauges(families, gauges);
    if !numbers.certificates_expire_s.is_empty() {
        let of = |(listener, expire_s): &(String, i64)| {
            (vec![("listener", listener.clone())], Value::Real(*expire_s as f64))
        };
        let samples = numbers.certificates_expire_s.iter().map(of).collect();
        let help = "When the first certificate of a listener expires, in seconds since 1970.";
        add(families, "ringmq_certificate_expiry_seconds", help, Content::Gauges(samples));
    }
}

/// Adds whether each bridge is connected, and what it has carried.
fn add_bridges(families: &mut Families, all: &[(BridgeStatus, Option<QueueSize>)]) {
    if all.is_empty() {
        return;
    }
    add_bridge_queues(families, all);
    let bridges = || all.iter().map(|(bridge, _)| bridge);
    type NumberOf = fn(&BridgeStatus) -> u64;
    let labels = |of: &BridgeStatus| vec![("bridge", of.name.clone())];
    let each =
        |value: NumberOf| bridges().map(|of| (labels(of), Value::Whole(value(of)))).collect();
    let up = Content::Gauges(each(|of| u64::from(of.state.is_connected())));
    add(families, "ringmq_bridge_up", "Whether a bridge is connected: 1 or 0.", up);
    let connections = Content::Gauges(each(|of| of.connections.len() as u64));
    let help = "Connections that a bridge has, or tries to have.";
    add(families, "ringmq_bridge_connections", help, connections);
    let connected = Content::Gauges(each(BridgeStatus::connected));
    let help = "Connections of a bridge that are connected.";
    add(families, "ringmq_bridge_connections_up", help, connected);
    let counters: [(&str, &str, NumberOf); 4] = [
        ("messages_sent", "Messages that a bridge has sent to the far broker.", |of| of.sent),
        ("messages_received", "Messages that a bridge has received.", |of| of.received),
        ("connects", "Connections of a bridge that the far broker has accepted.", |of| of.connects),
        ("sessions_lost", "Sessions of a bridge that the far broker has lost.", |of| {
            of.sessions_lost
        }),
    ];
    for (name, help, value) in counters {
        add(families, &format!("ringmq_bridge_{name}"), help, Content::Counters(each(value)));
    }
    let trips = bridges().filter_map(|of| {
        let seconds = of.round_trip_us? as f64 / 1e6;
        Some((labels(of), Value::Real(seconds)))
    });
    let trips = Content::Gauges(trips.collect());
    let help = "The last round trip to the far broker of a bridge.";
    add(families, "ringmq_bridge_round_trip_seconds", help, trips);
    let dropped = bridges().flat_map(|of| {
        let causes = [
            ("unmapped", of.unmapped),
            ("too-large", of.too_large),
            ("refused", of.refused),
            ("loop", of.loops),
            ("by-operator", of.by_operator),
        ];
        causes.map(|(cause, messages)| {
            let cause = ("cause", cause.to_owned());
            ([labels(of), vec![cause]].concat(), Value::Whole(messages))
        })
    });
    let dropped = Content::Counters(dropped.collect());
    let help = "Messages of a bridge that were dropped, by cause.";
    add(families, "ringmq_bridge_messages_dropped", help, dropped);
    let labeled = |of: &BridgeStatus, name, value: &str| {
        [labels(of), vec![(name, value.to_owned())]].concat()
    };
    let refused = bridges().flat_map(|of| {
        let reasons = of.refused_by_reason.iter();
        reasons
            .map(move |&(reason, messages)| (labeled(of, "reason", reason), Value::Whole(messages)))
    });
    let refused = Content::Counters(refused.collect());
    let help = "Messages of a bridge that the far broker has refused, by reason.";
    add(families, "ringmq_bridge_messages_refused", help, refused);
    let states = bridges().flat_map(|of| {
        BridgeState::ALL.map(|state| {
            (labeled(of, "state", state.name()), Value::Whole(u64::from(of.state == state)))
        })
    });
    let states = Content::Gauges(states.collect());
    add(families, "ringmq_bridge_state", "Whether a bridge is in a state: 1 or 0.", states);
}

/// Adds who is a member of the cluster, and what has crossed between nodes.
fn add_cluster(families: &mut Families, board: &ClusterBoard) {
    let (status, traffic) = (board.status(), board.traffic());
    let one = |value: u64| vec![(Vec::new(), Value::Whole(value))];
    let gauges = [
        (
            "ready",
            "Whether this node of the cluster is ready for clients: 1 or 0.",
            u64::from(board.unready().is_none()),
        ),
        (
            "isolated",
            "Whether the engine of the cluster has no quorum: 1 or 0.",
            u64::from(status.is_isolated),
        ),
        (
            "connected",
            "Whether this node is connected to the engine of the cluster: 1 or 0.",
            u64::from(status.server.is_some()),
        ),
        ("members", "Members of the cluster.", status.members.len() as u64),
        (
            "filters",
            "Topic Filters and shared subscriptions that this node has announced.",
            traffic.filters,
        ),
    ];
    for (name, help, value) in gauges {
        add(families, &format!("ringmq_cluster_{name}"), help, Content::Gauges(one(value)));
    }
    let counters = [
        (
            "messages_sent",
            "Messages sent to other nodes, each once for each of them.",
            traffic.sent,
        ),
        ("messages_received", "Messages received from other nodes.", traffic.received),
        (
            "errors",
            "Nodes that were left because what they sent could not be understood.",
            traffic.errors,
        ),
        (
            "reconnects",
            "Connections to the engine of the cluster after the first.",
            status.reconnects,
        ),
        (
            "frames_dropped",
            "Frames that were dropped on their way to the engine, and sent again.",
            status.frames_dropped,
        ),
    ];
    for (name, help, value) in counters {
        add(families, &format!("ringmq_cluster_{name}"), help, Content::Counters(one(value)));
    }
    let others = || status.members.iter().filter(|member| !member.is_own);
    let label = |of: &MemberStatus| vec![("node", of.name.clone())];
    let silent =
        others().filter_map(|of| Some((label(of), Value::Real(of.heard_ms? as f64 / 1e3))));
    let silent = Content::Gauges(silent.collect());
    let help = "Time since something of another node came.";
    add(families, "ringmq_cluster_silent_seconds", help, silent);
}

/// Adds what waits for each bridge, as far as it is known.
fn add_bridge_queues(families: &mut Families, all: &[(BridgeStatus, Option<QueueSize>)]) {
    type NumberOf = fn(&QueueSize) -> u64;
    let gauges: [(&str, &str, NumberOf); 4] = [
        ("queue_messages", "Messages that wait for a bridge.", |of| of.messages),
        ("queue_bytes", "Bytes of the messages that wait for a bridge.", |of| of.bytes),
        ("inflight", "Messages of a bridge that the far broker has not acknowledged.", |of| {
            of.inflight
        }),
        ("oldest_seconds", "For how long the oldest message that waits for a bridge has.", |of| {
            of.oldest_s
        }),
    ];
    for (name, help, value) in gauges {
        let known = all.iter().filter_map(|(of, queue)| Some((of, queue.as_ref()?)));
        let label = |of: &BridgeStatus| vec![("bridge", of.name.clone())];
        let each = known.map(|(of, queue)| (label(of), Value::Whole(value(queue))));
        add(families, &format!("ringmq_bridge_{name}"), help, Content::Gauges(each.collect()));
    }
}

/// A number of a webhook.
type NumberOf = fn(&Status) -> u64;

/// Adds what each webhook has sent and dropped, and what waits.
fn add_webhooks(families: &mut Families, webhooks: &[Status]) {
    if webhooks.is_empty() {
        return;
    }
    let labels = |of: &Status| vec![("webhook", of.name.clone())];
    let each =
        |value: NumberOf| webhooks.iter().map(|of| (labels(of), Value::Whole(value(of)))).collect();
    let counters: [(&str, &str, NumberOf); 3] = [
        ("events_sent", "Events that the server of a webhook has accepted.", |of| of.sent),
        ("requests", "Requests that the server of a webhook has accepted.", |of| of.requests),
        ("requests_retried", "Repetitions of requests of a webhook.", |of| of.retried),
    ];
    for (name, help, value) in counters {
        let content = Content::Counters(each(value));
        add(families, &format!("ringmq_webhook_{name}"), help, content);
    }
    let dropped = webhooks.iter().flat_map(|of| {
        let Dropped { full, refused, failed, stopped } = of.dropped;
        let causes =
            [("full", full), ("refused", refused), ("failed", failed), ("stopped", stopped)];
        causes.map(|(cause, events)| {
            let cause = ("cause", cause.to_owned());
            ([labels(of), vec![cause]].concat(), Value::Whole(events))
        })
    });
    let dropped = Content::Counters(dropped.collect());
    let help = "Events of a webhook that were dropped, by cause.";
    add(families, "ringmq_webhook_events_dropped", help, dropped);
    let gauges: [(&str, &str, NumberOf); 3] = [
        ("queue_events", "Events of a webhook that wait or are being sent.", |of| of.queued_events),
        ("queue_bytes", "Bytes of the events of a webhook that wait or are being sent.", |of| {
            of.queued_bytes
        }),
        ("failing", "Whether the last request of a webhook failed: 1 or 0.", |of| {
            u64::from(of.is_failing)
        }),
    ];
    for (name, help, value) in gauges {
        let content = Content::Gauges(each(value));
        add(families, &format!("ringmq_webhook_{name}"), help, content);
    }
}

/// Adds what monitoring systems know by the same names of other programs.
fn add_process(families: &mut Families, process: &Process) {
    if let Some(cpu_s) = process.cpu_s {
        let content = Content::Counters(vec![(Vec::new(), Value::Real(cpu_s))]);
        let help = "Processor time of the process, in user and system mode.";
        add(families, "process_cpu_seconds", help, content);
    }
    let gauges = [
        (
            "process_resident_memory_bytes",
            "Resident memory of the process.",
            process.resident_bytes,
        ),
        ("process_virtual_memory_bytes", "Virtual memory of the process.", process.virtual_bytes),
        ("process_threads", "Threads of the process.", process.threads),
        (
            "process_open_fds",
            "Open file descriptors, without direct descriptors of io_uring.",
            process.descriptors,
        ),
        ("process_max_fds", "Limit of open file descriptors.", process.descriptors_max),
    ];
    add_gauges(families, gauges.map(|(name, help, value)| (name, help, value.map(Value::Whole))));
}

fn add_exports(families: &mut Families, [metrics, spans, spans_lost, failed]: [u64; 4]) {
    for (name, help, value) in [
        ("metrics_exported", "Requests with metrics that the OTLP collector has taken.", metrics),
        ("spans_exported", "Sampled messages whose spans the OTLP collector has taken.", spans),
        (
            "spans_lost",
            "Sampled messages whose spans the OTLP collector has not taken.",
            spans_lost,
        ),
        ("requests_failed", "Requests that the OTLP collector has not taken.", failed),
    ] {
        let content = Content::Counters(vec![(Vec::new(), Value::Whole(value))]);
        add(families, &format!("ringmq_telemetry_{name}"), help, content);
    }
}

fn add_gauges<const N: usize>(families: &mut Families, gauges: [(&str, &str, Option<Value>); N]) {
    for (name, help, value) in gauges {
        if let Some(value) = value {
            add(families, name, help, Content::Gauges(vec![(Vec::new(), value)]));
        }
    }
}

/// Adds a family, or replaces it by one with more labels.
fn add(families: &mut Families, name: &str, help: &str, content: Content) {
    families.insert(name.to_owned(), Family { help: help.to_owned(), content });
}

/// Adds how the replicated stream of this node's log does.
fn add_replication(families: &mut Families, of: &ReplicationStatus) {
    let one = |value| vec![(Vec::new(), value)];
    let is = |state| Value::Whole(u64::from(of.state == state));
    let gauges = [
        (
            "stalled",
            "Whether the stream of this node's log confirms nothing, and acknowledgements wait: 1 or 0.",
            is(ReplicationState::Stalled),
        ),
        (
            "degraded",
            "Whether the disk of this node counts alone: 1 or 0.",
            is(ReplicationState::Degraded),
        ),
        ("under_way", "Pages sent to the stream and not confirmed.", Value::Whole(of.under_way)),
        ("lag_frames", "Frames of the log that the stream lacks.", Value::Whole(of.lag_frames)),
        ("lag_bytes", "Bytes of pages that the stream lacks.", Value::Whole(of.lag_bytes)),
    ];
    for (name, help, value) in gauges {
        add(families, &format!("ringmq_cluster_log_{name}"), help, Content::Gauges(one(value)));
    }
    let counters = [
        ("pages", "Pages of the log that the stream has confirmed.", Value::Whole(of.pages)),
        ("bytes", "Bytes of these pages.", Value::Whole(of.bytes)),
        (
            "failures",
            "Pages that were refused or not confirmed in time, and sent again.",
            Value::Whole(of.failures),
        ),
        (
            "degraded_seconds",
            "Time in which the disk of this node counted alone.",
            Value::Real(of.degraded_ms as f64 / 1e3),
        ),
    ];
    for (name, help, value) in counters {
        add(families, &format!("ringmq_cluster_log_{name}"), help, Content::Counters(one(value)));
    }
}
