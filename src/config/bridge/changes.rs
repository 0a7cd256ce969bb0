//! What other bridge tables mean for bridges that run: compared by name.

use serde::Serialize;

use super::{Bridge, InRule, ReloadMode};

/// What a reload does with a bridge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BridgeChange {
    /// Its name.
    pub name: String,
    /// What it does.
    pub effect: Effect,
    /// Filters that it subscribes to at the other broker, new ones and those with another QoS.
    pub subscribes_there: Vec<String>,
    /// Filters that it unsubscribes from at the other broker.
    pub unsubscribes_there: Vec<String>,
    /// Filters that it subscribes to at this broker, new ones and those with another QoS.
    pub subscribes_here: Vec<String>,
    /// Filters that it unsubscribes from at this broker.
    pub unsubscribes_here: Vec<String>,
}

/// What a bridge does because of a reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// Nothing.
    Unchanged,
    /// It starts.
    Started,
    /// It ends, here and at the other broker.
    Ended,
    /// Other values hold from now on; the connection and the subscriptions stay.
    Adapts,
    /// Subscriptions change; the connection stays.
    Resubscribes,
    /// It connects again; the sessions stay.
    Reconnects,
    /// The same once its connection has ended by itself: until then, all values are the former ones.
    Deferred,
}

impl Effect {
    /// Name for programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unchanged => "unchanged",
            Self::Started => "started",
            Self::Ended => "ended",
            Self::Adapts => "adapts",
            Self::Resubscribes => "resubscribes",
            Self::Reconnects => "reconnects",
            Self::Deferred => "deferred",
        }
    }
}

/// Filters that are added, or have another value, and those that are removed.
#[derive(Debug, PartialEq, Eq)]
pub struct Difference<'a, Q> {
    /// In the order of the later ones.
    pub added: Vec<(&'a str, Q)>,
    /// In the order of the former ones.
    pub removed: Vec<&'a str>,
}

/// The difference between filters with values, each filter once.
pub fn difference<'a, Q: PartialEq + Copy>(
    before: &[(&'a str, Q)],
    after: &[(&'a str, Q)],
) -> Difference<'a, Q> {
    let has = |list: &[(&str, Q)], filter: &str| list.iter().any(|of| of.0 == filter);
    Difference {
        added: after.iter().filter(|of| !before.contains(of)).copied().collect(),
        removed: before.iter().map(|of| of.0).filter(|of| !has(after, of)).collect(),
    }
}

/// What becomes of each bridge: first those that there will be, in their order, then those that end.
pub fn changes(before: &[Bridge], after: &[Bridge]) -> Vec<BridgeChange> {
    let of = |list: &'_ [Bridge], name: &str| list.iter().position(|of| of.name == name);
    let staying = after.iter().map(|wanted| match of(before, &wanted.name) {
        Some(at) => change(&before[at], wanted),
        None => BridgeChange::new(wanted, Effect::Started),
    });
    let ended = before.iter().filter(|bridge| of(after, &bridge.name).is_none());
    staying.chain(ended.map(|bridge| BridgeChange::new(bridge, Effect::Ended))).collect()
}

/// What becomes of a bridge whose name stays. What profiles set counts.
pub fn change(before: &Bridge, after: &Bridge) -> BridgeChange {
    let (before, after) = (&before.with_profile(), &after.with_profile());
    let (in_before, in_after) = (incoming(before), incoming(after));
    let (out_before, out_after) = (outgoing(before), outgoing(after));
    let there = difference(&in_before, &in_after);
    let here = difference(&out_before, &out_after);
    let added = |of: &Difference<'_, u8>| of.added.iter().map(|of| of.0.to_owned()).collect();
    let removed = |of: &Difference<'_, u8>| of.removed.iter().map(|&of| of.to_owned()).collect();
    let mut change = BridgeChange {
        subscribes_there: added(&there),
        unsubscribes_there: removed(&there),
        subscribes_here: added(&here),
        unsubscribes_here: removed(&here),
        ..BridgeChange::new(after, Effect::Unchanged)
    };
    change.effect = match () {
        () if before == after => Effect::Unchanged,
        // Another number of connections takes the place of those that there are.
        () if needs_reconnect(before, after) => match after.reload {
            ReloadMode::Lazy if before.connections == after.connections => Effect::Deferred,
            ReloadMode::Lazy | ReloadMode::Immediate => Effect::Reconnects,
        },
        () if change.has_filters() => Effect::Resubscribes,
        () => Effect::Adapts,
    };
    change
}

/// Whether anything differs that is said once for each connection. All other keys are listed, so that a new one is one
/// that needs it.
fn needs_reconnect(before: &Bridge, after: &Bridge) -> bool {
    let adapted = Bridge {
        retained: after.retained,
        hops_max: after.hops_max,
        echo: after.echo,
        start: after.start,
        reload: after.reload,
        prefer: after.prefer,
        stalled_s: after.stalled_s,
        lazy_messages: after.lazy_messages,
        idle_s: after.idle_s,
        queue: after.queue,
        reconnect: after.reconnect.clone(),
        outgoing: after.outgoing.clone(),
        incoming: after.incoming.clone(),
        ..before.clone()
    };
    adapted != *after
}

impl BridgeChange {
    fn new(bridge: &Bridge, effect: Effect) -> Self {
        Self {
            name: bridge.name.clone(),
            effect,
            subscribes_there: Vec::new(),
            unsubscribes_there: Vec::new(),
            subscribes_here: Vec::new(),
            unsubscribes_here: Vec::new(),
        }
    }

    fn has_filters(&self) -> bool {
        let all = [
            &self.subscribes_there,
            &self.unsubscribes_there,
            &self.subscribes_here,
            &self.unsubscribes_here,
        ];
        all.iter().any(|of| !of.is_empty())
    }
}

/// The filters at the other broker, each once with the highest QoS of its rules.
fn incoming(bridge: &Bridge) -> Vec<(&str, u8)> {
    highest(bridge.incoming.iter().map(|rule| (rule.filter.as_str(), rule.qos)))
}

/// The filters at this broker, each once with the highest QoS of its rules.
fn outgoing(bridge: &Bridge) -> Vec<(&str, u8)> {
    highest(bridge.outgoing.iter().map(|rule| (rule.filter.as_str(), rule.qos_max)))
}

/// The filters of rules, each once.
pub(super) fn filters_of(rules: &[InRule]) -> Vec<&str> {
    highest(rules.iter().map(|rule| (rule.filter.as_str(), 0))).into_iter().map(|of| of.0).collect()
}

fn highest<'a>(rules: impl Iterator<Item = (&'a str, u8)>) -> Vec<(&'a str, u8)> {
    let mut all: Vec<(&str, u8)> = Vec::new();
    for (filter, qos) in rules {
        match all.iter_mut().find(|(of, _)| *of == filter) {
            Some((_, highest)) => *highest = qos.max(*highest),
            None => all.push((filter, qos)),
        }
    }
    all
}

#[cfg(all(test, feature = "bridge"))]
mod tests {
    use super::*;
    use crate::config::Settings;
    use crate::config::bridge::BridgeTls;

    fn read(text: &str) -> Vec<Bridge> {
        Settings::from_toml(text).expect(text).bridges
    }

    /// A bridge with further keys and tables.
    fn with(keys: &str, tables: &str) -> Bridge {
        let text = format!(
            "[[bridges]]\nname = \"a\"\nservers = [\"mqtt://h\"]\n{keys}\n\
             [[bridges.in]]\nfilter = \"in/#\"\nqos = 1\n[[bridges.out]]\nfilter = \"out/#\"\n{tables}"
        );
        read(&text).remove(0)
    }

    /// Keys of a bridge that is encrypted, with other values than a bridge has that does not name them.
    const RECONNECT: &[&str] = &[
        "servers = [\"mqtts://i\"]",
        "profile = \"mosquitto\"",
        "version = \"5\"",
        "client_identifier = \"x\"",
        "notification_topic = \"x\"\nprofile = \"mosquitto\"",
        "username = \"u\"",
        "password = \"p\"\nusername = \"u\"",
        "password_file = \"/p\"\nusername = \"u\"",
        "clean_start = true",
        "session_expiry_s = 1",
        "keep_alive_s = 5",
        "bind = \"127.0.0.1\"",
        "bridge_bit = false",
        "packet_bytes_max = 1000",
        "receive_maximum = 5",
        "user = \"u\"",
        "local_client_identifier = \"x\"\nuser = \"u\"",
        "topic_alias_maximum = 1",
        "unsubscribe_out = true",
        "tcp.keep_alive_idle_s = 1",
        "tcp.keep_alive_interval_s = 1",
        "tcp.keep_alive_probes = 1",
        "tcp.user_timeout_ms = 1",
        "connections = 2",
        "share = \"g\"",
        "tls.ca = \"/ca\"",
        "tls.certificate = \"/c\"\ntls.key = \"/k\"",
        "tls.key = \"/k\"\ntls.certificate = \"/c\"",
        "tls.alpn = [\"x\"]",
        "tls.server_name = \"x\"",
        "tls.verify_name = false",
        "tls.versions = [\"1.3\"]",
    ];
    const ADAPT: &[&str] = &[
        "retained = \"live\"",
        "hops_max = 2",
        "echo = \"off\"",
        "start = \"manual\"",
        "start = \"lazy\"",
        "start = \"once\"",
        "prefer = \"any\"",
        "stalled_s = 5",
        "lazy_messages = 2\nstart = \"lazy\"",
        "idle_s = 2\nstart = \"lazy\"",
        "queue.messages_max = 2",
        "queue.bytes_max = 2",
        "queue.policy = \"drop-oldest\"",
        "queue.qos0 = \"queue\"",
        "queue.expiry_s = 2",
        "queue.backfill_per_second_max = 2",
        "queue.holds_publishers = true",
        "queue.offline = false",
        "reload = \"lazy\"",
        "reconnect.first_ms = 10",
        "reconnect.most_s = 10",
        "reconnect.stable_s = 10",
        "out = [{ filter = \"out/#\", to = \"x/{1}\" }]",
        "in = [{ filter = \"in/#\", qos = 1, local_prefix = \"x/\" }]",
        "out = [{ filter = \"out/#\", remote_prefix = \"x/\" }]",
    ];

    /// An encrypted bridge with these keys.
    fn encrypted(keys: &str) -> Bridge {
        let mut text = format!("[[bridges]]\nname = \"a\"\n{keys}\n");
        for (key, value) in [
            ("servers", "[\"mqtts://h\"]"),
            ("in", "[{ filter = \"in/#\", qos = 1 }]"),
            ("out", "[{ filter = \"out/#\" }]"),
        ] {
            if !keys.starts_with(key) {
                text += &format!("{key} = {value}\n");
            }
        }
        read(&text).remove(0)
    }

    #[test]
    fn each_key_has_its_effect() {
        let before = encrypted("");
        assert_eq!(change(&before, &encrypted("")).effect, Effect::Unchanged);
        for key in RECONNECT {
            assert_eq!(change(&before, &encrypted(key)).effect, Effect::Reconnects, "{key}");
        }
        for key in ADAPT {
            assert_eq!(change(&before, &encrypted(key)).effect, Effect::Adapts, "{key}");
        }
        // What a table does not name is not listed, so that all optional ones are named.
        let all = Bridge { tls: Some(BridgeTls::default()), ..before };
        let toml::Value::Table(table) = toml::Value::try_from(all).expect("a table") else {
            panic!("no table")
        };
        let mut keys = Vec::new();
        for (key, value) in table {
            match value {
                toml::Value::Table(keys_within) => {
                    keys.extend(keys_within.keys().map(|within| format!("{key}.{within}")));
                }
                _ => keys.push(key),
            }
        }
        let is_listed = |key: &String| {
            let lists = RECONNECT.iter().chain(ADAPT);
            lists.into_iter().any(|of| of.starts_with(&format!("{key} = ")))
        };
        keys.retain(|key| key != "name" && !is_listed(key));
        assert!(keys.is_empty(), "no effect is known of {keys:?}");
    }

    #[test]
    fn filters_and_qos_are_those_that_the_profile_makes_of_them() {
        let of = |qos: u8| {
            let text = format!(
                "[[bridges]]\nname = \"a\"\nservers = [\"mqtts://h\"]\nprofile = \"aws-iot\"\n\
                 in = [{{ filter = \"a\", qos = {qos} }}]\n"
            );
            read(&text).remove(0)
        };
        assert_eq!(change(&of(1), &of(2)).effect, Effect::Unchanged, "QoS 1 at most");
        assert_eq!(change(&of(0), &of(2)).effect, Effect::Resubscribes);
    }

    #[test]
    fn changed_filters_are_named_and_those_that_stay_are_not() {
        let before =
            with("", "[[bridges.in]]\nfilter = \"old\"\n[[bridges.out]]\nfilter = \"gone\"");
        let tables = "[[bridges.in]]\nfilter = \"new\"\n[[bridges.in]]\nfilter = \"in/#\"\nqos = 2\n\
                      [[bridges.out]]\nfilter = \"come\"";
        let found = change(&before, &with("", tables));
        assert_eq!(found.effect, Effect::Resubscribes);
        assert_eq!(found.subscribes_there, ["in/#", "new"]);
        assert_eq!(found.unsubscribes_there, ["old"]);
        assert_eq!(found.subscribes_here, ["come"]);
        assert_eq!(found.unsubscribes_here, ["gone"]);
    }

    #[test]
    fn bridges_are_compared_by_name() {
        let named = |names: &[&str]| {
            let all = names.iter().map(|name| Bridge { name: (*name).to_owned(), ..with("", "") });
            all.collect::<Vec<_>>()
        };
        let found = changes(&named(&["a", "b", "c"]), &named(&["c", "d", "a"]));
        let found: Vec<_> = found.iter().map(|of| (of.name.as_str(), of.effect)).collect();
        assert_eq!(
            found,
            [
                ("c", Effect::Unchanged),
                ("d", Effect::Started),
                ("a", Effect::Unchanged),
                ("b", Effect::Ended)
            ]
        );
    }
}
