//! The request of each command, and how its answer is shown.

use axum::http::{Method, StatusCode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value, json};

use super::drain;
use super::flags::{
    BanCommand, BanKind, BridgeCommand, ClientPart, ClientState, ClientsFlags, ClusterCommand,
    CtlCommand, RetainedCommand, RuleCommand, SessionCommand, TraceFlags, UserCommand,
};
use super::table::{self, List};
use super::{Error, NewPassword, given_or_input};

/// Characters that URLs need no escapes for.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
/// Entries of a page at most.
const PAGE_MAX: u64 = 1_000;

/// Columns of a client in a list.
pub const CLIENTS: List = List {
    field: "clients",
    columns: &[
        "value",
        "client_id",
        "user",
        "state",
        "address",
        "version",
        "subscriptions",
        "queued",
        "inflight",
        "dropped",
        "outbox_bytes",
        "bytes_in",
        "bytes_out",
    ],
};
const SUBSCRIPTIONS: List = List {
    field: "subscriptions",
    columns: &[
        "client_id",
        "filter",
        "group",
        "qos",
        "no_local",
        "retain_as_published",
        "identifier",
        "is_connected",
    ],
};
const MESSAGES: List = List {
    field: "messages",
    columns: &[
        "number",
        "packet_id",
        "stage",
        "topic",
        "qos",
        "retain",
        "payload_bytes",
        "expires_in_s",
        "text",
        "base64",
    ],
};
const RETAINED: List =
    List { field: "messages", columns: &["topic", "qos", "payload_bytes", "expires_in_s"] };
const BANS: List = List {
    field: "bans",
    columns: &["client", "user", "network", "until_s", "reason", "by", "since_s"],
};
const USERS: List = List { field: "users", columns: &["name", "groups", "scram", "hidden"] };
const RULES: List = List { field: "rules", columns: &["number", "for", "rule"] };
const WEBHOOKS: List = List {
    field: "webhooks",
    columns: &[
        "name",
        "url",
        "failing",
        "queued",
        "sent",
        "retried",
        "dropped_full",
        "dropped_refused",
        "dropped_failed",
        "error",
    ],
};
const BRIDGES: List = List {
    field: "bridges",
    columns: &[
        "name",
        "state",
        "server",
        "since_s",
        "queued",
        "oldest_s",
        "round_trip_us",
        "sent",
        "received",
        "dropped_unmapped",
        "dropped_too_large",
        "dropped_refused",
        "dropped_loops",
        "dropped_by_operator",
        "connects",
        "sessions_lost",
        "why",
    ],
};
const MEMBERS: List = List {
    field: "members",
    columns: &[
        "node",
        "name",
        "state",
        "own",
        "clients",
        "advertise",
        "incarnation",
        "heard_ms",
        "lease_ms",
        "clock_ahead_ms",
    ],
};
const SETTINGS: List = List {
    field: "settings",
    columns: &["key", "value", "kind", "file", "line", "variable", "flag", "live"],
};

/// How an answer is shown.
#[derive(Clone, Copy, Debug)]
pub enum View {
    /// Names and values.
    Fields,
    /// A list.
    List(List),
    /// Nothing but that the command was executed, unless the answer says more.
    Done(&'static str),
    /// As the answer is.
    Raw,
    /// Part by part, as it comes.
    Stream,
}

/// A request, and how its answer is shown.
#[derive(Clone, Debug)]
pub struct Call {
    /// Method.
    pub method: Method,
    /// Path with the query.
    pub path: String,
    /// Content.
    pub content: Option<String>,
    /// Entries of a list at most, on as many pages as that takes; 0 if the answer has no pages.
    pub limit: u64,
    /// How the answer is shown.
    pub view: View,
}

impl Call {
    pub fn new(method: Method, path: impl Into<String>, view: View) -> Self {
        Self { method, path: path.into(), content: None, limit: 0, view }
    }

    pub fn get(path: impl Into<String>, view: View) -> Self {
        Self::new(Method::GET, path, view)
    }

    fn with(self, content: &Value) -> Self {
        Self { content: Some(content.to_string()), ..self }
    }

    /// The path of a page of at most `left` entries.
    pub fn page(&self, left: u64, cursor: Option<&str>) -> String {
        if self.limit == 0 {
            return self.path.clone();
        }
        let limit = left.min(PAGE_MAX).to_string();
        let page = query(&[("limit", Some(limit)), ("cursor", cursor.map(str::to_owned))]);
        match self.path.contains('?') {
            true => format!("{}&{}", self.path, &page[1..]),
            false => format!("{}{page}", self.path),
        }
    }

    /// The number of entries in an answer.
    pub fn entries(&self, answer: &Value) -> u64 {
        let View::List(list) = self.view else { return 0 };
        list.entries(answer).map_or(0, |entries| entries.len() as u64)
    }

    /// Whether an answer with this status is shown although it is a refusal.
    pub fn shows_refusals(&self, status: StatusCode) -> bool {
        status == StatusCode::SERVICE_UNAVAILABLE && self.path.contains("?verbose")
    }

    /// The answer for people.
    pub fn shown(&self, answer: &Value, width: Option<usize>) -> String {
        match self.view {
            View::List(list) => {
                table::of_list(answer, list, width).unwrap_or_else(|| table::of_fields(answer))
            }
            View::Done(text) => match answer {
                Value::Object(fields) if !fields.is_empty() => table::of_fields(answer),
                _ => format!("{text}\n"),
            },
            View::Fields => table::of_fields(answer),
            View::Raw | View::Stream => format!("{answer:#}\n"),
        }
    }

    /// What is shown of an answer without content.
    pub fn done_text(&self) -> String {
        match self.view {
            View::Done(text) => format!("{text}\n"),
            _ => String::new(),
        }
    }
}

/// The request of a command.
pub fn of(command: &CtlCommand, new_password: NewPassword<'_>) -> Result<Call, Error> {
    Ok(match command {
        CtlCommand::Status => Call::get("/api/v1/status", View::Fields),
        CtlCommand::Health { live, bridges } => {
            let path = match (live, bridges) {
                (true, _) => "/livez?verbose",
                (_, true) => "/readyz?verbose&bridges",
                _ => "/readyz?verbose",
            };
            let checks = List { field: "checks", columns: &["name", "ok", "found"] };
            Call::get(path, View::List(checks))
        }
        CtlCommand::Clients(flags) => clients(flags),
        CtlCommand::Client { id, show, payload } => client(id, *show, *payload),
        CtlCommand::Kick { id, reason } => {
            let query = query(&[("reason", reason.clone())]);
            let path = format!("/api/v1/clients/{}/connection{query}", escaped(id));
            Call::new(Method::DELETE, path, View::Done("disconnected"))
        }
        CtlCommand::Ban { what } => ban(what),
        CtlCommand::User { what } => user(what, new_password)?,
        CtlCommand::Rule { what } => rule(what),
        CtlCommand::Subs { topic, limit } => {
            let query = query(&[("topic", topic.clone())]);
            let call =
                Call::get(format!("/api/v1/subscriptions{query}"), View::List(SUBSCRIPTIONS));
            Call { limit: *limit, ..call }
        }
        CtlCommand::Retained { what } => retained(what),
        CtlCommand::Publish { topic, payload, qos, retain } => {
            publish(topic, given_or_input(payload)?, *qos, *retain)
        }
        CtlCommand::Session { what } => session(what),
        CtlCommand::Bridges => bridge(&BridgeCommand::List),
        CtlCommand::Bridge { what } => bridge(what),
        CtlCommand::Cluster { what: ClusterCommand::Status { members } } => {
            let view = if *members { View::List(MEMBERS) } else { View::Fields };
            Call::get("/api/v1/cluster", view)
        }
        CtlCommand::Cluster { what: ClusterCommand::Forget { name } } => {
            let path = format!("/api/v1/cluster/nodes/{}", escaped(name));
            Call::new(Method::DELETE, path, View::Done("forgotten"))
        }
        CtlCommand::Webhooks => Call::get("/api/v1/webhooks", View::List(WEBHOOKS)),
        CtlCommand::Config => Call::get("/api/v1/config", View::List(SETTINGS)),
        CtlCommand::Reload { dry_run, close, drop_queues } => {
            let query = query(&[
                ("dry_run", dry_run.then(|| "true".to_owned())),
                ("close", close.then(|| "true".to_owned())),
                ("drop_queues", drop_queues.then(|| "true".to_owned())),
            ]);
            Call::new(Method::POST, format!("/api/v1/reload{query}"), View::Done("reloaded"))
        }
        CtlCommand::Log { level, seconds } => {
            let name = clap::ValueEnum::to_possible_value(level);
            let name = name.map(|name| name.get_name().to_owned()).unwrap_or_default();
            let mut content = Map::from_iter([("level".to_owned(), json!(name))]);
            content.extend(seconds.map(|seconds| ("seconds".to_owned(), json!(seconds))));
            Call::new(Method::PUT, "/api/v1/log", View::Done("changed")).with(&content.into())
        }
        CtlCommand::Trace(flags) => trace(flags),
        CtlCommand::Drain(flags) => drain::call(flags),
        CtlCommand::Rebalance(flags) => drain::rebalance(flags),
        CtlCommand::Api { method, path, content } => api(method, path, content.as_deref())?,
        CtlCommand::Top { .. } | CtlCommand::Token { .. } => {
            return Err(Error::Failed("this command has no single request".to_owned()));
        }
    })
}

fn clients(flags: &ClientsFlags) -> Call {
    let state = flags.state.map(|state| match state {
        ClientState::Connected => "connected",
        ClientState::Disconnected => "disconnected",
    });
    let query = query(&[
        ("state", state.map(str::to_owned)),
        ("user", flags.user.clone()),
        ("id_prefix", flags.prefix.clone()),
        ("address", flags.address.clone()),
        ("listener", flags.listener.map(|number| number.to_string())),
        ("version", flags.protocol.clone()),
        ("queued_min", flags.queued_min.map(|min| min.to_string())),
        ("dropped_min", flags.dropped_min.map(|min| min.to_string())),
    ]);
    let call = Call::get(format!("/api/v1/clients{query}"), View::List(CLIENTS));
    Call { limit: flags.limit, ..call }
}

fn client(id: &str, show: Option<ClientPart>, payload: Option<u32>) -> Call {
    let client = format!("/api/v1/clients/{}", escaped(id));
    match show {
        None => Call::get(client, View::Fields),
        Some(ClientPart::Subscriptions) => {
            Call::get(client + "/subscriptions", View::List(SUBSCRIPTIONS))
        }
        Some(ClientPart::Queue) => {
            let query = query(&[("payload", payload.map(|bytes| bytes.to_string()))]);
            Call::get(format!("{client}/queue{query}"), View::List(MESSAGES))
        }
        Some(ClientPart::Inflight) => Call::get(client + "/inflight", View::List(MESSAGES)),
    }
}

fn bridge(what: &BridgeCommand) -> Call {
    let one = |name: &str| format!("/api/v1/bridges/{}", escaped(name));
    let post = |name: &str, command: &str, done| {
        Call::new(Method::POST, format!("{}/{command}", one(name)), View::Done(done))
    };
    match what {
        BridgeCommand::List => Call::get("/api/v1/bridges", View::List(BRIDGES)),
        BridgeCommand::Show { name } => Call::get(one(name), View::Fields),
        BridgeCommand::Start { name } => post(name, "start", "started"),
        BridgeCommand::Stop { name } => post(name, "stop", "stopped"),
        BridgeCommand::Reconnect { name } => post(name, "reconnect", "reconnecting"),
        BridgeCommand::ResetSession { name } => post(name, "reset-session", "reset"),
        BridgeCommand::DropQueue { name } => post(name, "drop-queue", "dropped"),
    }
}

fn ban(what: &BanCommand) -> Call {
    let kind_name = |kind: &BanKind| match kind {
        BanKind::User => "user",
        BanKind::Client => "client",
        BanKind::Network => "network",
    };
    match what {
        BanCommand::List => Call::get("/api/v1/bans", View::List(BANS)),
        BanCommand::Add { kind, value, seconds, reason } => {
            let mut content = Map::from_iter([(kind_name(kind).to_owned(), json!(value))]);
            content.extend(seconds.map(|seconds| ("seconds".to_owned(), json!(seconds))));
            content.extend(reason.as_ref().map(|reason| ("reason".to_owned(), json!(reason))));
            Call::new(Method::POST, "/api/v1/bans", View::Done("banned")).with(&content.into())
        }
        BanCommand::Remove { kind, value } => {
            let query = query(&[(kind_name(kind), Some(value.clone()))]);
            Call::new(Method::DELETE, format!("/api/v1/bans{query}"), View::Done("removed"))
        }
    }
}

fn user(what: &UserCommand, new_password: NewPassword<'_>) -> Result<Call, Error> {
    let one = |name: &str| format!("/api/v1/users/{}", escaped(name));
    let password = |name: &str| new_password(name).map_err(Error::Usage);
    let put = |name: &str, content: Value| {
        Call::new(Method::PUT, one(name), View::Done("changed")).with(&content)
    };
    Ok(match what {
        UserCommand::List { limit } => {
            Call { limit: *limit, ..Call::get("/api/v1/users", View::List(USERS)) }
        }
        UserCommand::Show { name } => Call::get(one(name), View::Fields),
        UserCommand::Add { name, groups } => {
            let content = json!({ "name": name, "password": password(name)?, "groups": groups });
            Call::new(Method::POST, "/api/v1/users", View::Done("added")).with(&content)
        }
        UserCommand::Password { name } => put(name, json!({ "password": password(name)? })),
        UserCommand::Groups { name, groups } => put(name, json!({ "groups": groups })),
        UserCommand::Remove { name } => Call::new(Method::DELETE, one(name), View::Done("removed")),
    })
}

fn rule(what: &RuleCommand) -> Call {
    let one = |number: &u32| format!("/api/v1/rules/{number}");
    match what {
        RuleCommand::List { limit } => {
            Call { limit: *limit, ..Call::get("/api/v1/rules", View::List(RULES)) }
        }
        RuleCommand::Add { clients, rule, before } => {
            let mut content = json!({ "for": clients, "rule": rule });
            if let Some(before) = before {
                content["before"] = json!(before);
            }
            Call::new(Method::POST, "/api/v1/rules", View::Done("added")).with(&content)
        }
        RuleCommand::Change { number, clients, rule } => {
            let content = json!({ "for": clients, "rule": rule });
            Call::new(Method::PUT, one(number), View::Done("changed")).with(&content)
        }
        RuleCommand::Remove { number } => {
            Call::new(Method::DELETE, one(number), View::Done("removed"))
        }
    }
}

fn retained(what: &RetainedCommand) -> Call {
    let one = |topic: &str| format!("/api/v1/retained/{}", escaped(topic));
    match what {
        RetainedCommand::List { filter, limit } => {
            let query = query(&[("filter", filter.clone())]);
            let call = Call::get(format!("/api/v1/retained{query}"), View::List(RETAINED));
            Call { limit: *limit, ..call }
        }
        RetainedCommand::Get { topic } => Call::get(one(topic), View::Fields),
        RetainedCommand::Delete { topic } => {
            Call::new(Method::DELETE, one(topic), View::Done("deleted"))
        }
        RetainedCommand::Clear { filter, max } => {
            let query = query(&[("filter", Some(filter.clone())), ("max", Some(max.to_string()))]);
            Call::new(Method::DELETE, format!("/api/v1/retained{query}"), View::Done("deleted"))
        }
    }
}

fn publish(topic: &str, payload: Vec<u8>, qos: u8, retain: bool) -> Call {
    let payload = match String::from_utf8(payload) {
        Ok(text) => ("payload", text),
        Err(binary) => {
            use base64::Engine as _;
            ("payload_base64", base64::prelude::BASE64_STANDARD.encode(binary.as_bytes()))
        }
    };
    let content = json!({ "topic": topic, payload.0: payload.1, "qos": qos, "retain": retain });
    Call::new(Method::POST, "/api/v1/publish", View::Done("published")).with(&content)
}

fn session(what: &SessionCommand) -> Call {
    let (path, text) = match what {
        SessionCommand::Delete { id } => {
            (format!("/api/v1/clients/{}/session", escaped(id)), "deleted")
        }
        SessionCommand::Unsubscribe { id, filter } => {
            let query = query(&[("filter", Some(filter.clone()))]);
            (format!("/api/v1/clients/{}/subscriptions{query}", escaped(id)), "unsubscribed")
        }
    };
    Call::new(Method::DELETE, path, View::Done(text))
}

fn trace(flags: &TraceFlags) -> Call {
    let query = query(&[
        ("client", flags.client.clone()),
        ("topic", flags.topic.clone()),
        ("address", flags.address.clone()),
        ("payload", flags.payload.map(|bytes| bytes.to_string())),
        ("seconds", Some(flags.seconds.to_string())),
    ]);
    Call::get(format!("/api/v1/trace{query}"), View::Stream)
}

fn api(method: &str, path: &str, content: Option<&str>) -> Result<Call, Error> {
    let method = method.to_ascii_uppercase().parse().map_err(|_| {
        Error::Usage(format!("{method:?} is not a method such as GET, POST, PUT or DELETE"))
    })?;
    let path = match path.strip_prefix('/') {
        Some(_) => path.to_owned(),
        None => format!("/api/v1/{path}"),
    };
    let content = content.map(given_or_input).transpose()?;
    let content = content.map(|content| {
        String::from_utf8(content).map_err(|_| Error::Usage("the content is not text".to_owned()))
    });
    Ok(Call { content: content.transpose()?, ..Call::new(method, path, View::Raw) })
}

/// A name as a part of a path or a query.
pub fn escaped(text: &str) -> String {
    utf8_percent_encode(text, ESCAPED).to_string()
}

/// The parameters that are given, with a question mark before them; empty if none is.
fn query(parameters: &[(&str, Option<String>)]) -> String {
    let mut query = String::new();
    for (name, value) in parameters {
        if let Some(value) = value {
            let mark = if query.is_empty() { '?' } else { '&' };
            query += &format!("{mark}{name}={}", escaped(value));
        }
    }
    query
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::CtlFlags;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        ctl: CtlFlags,
    }

    fn call(line: &str) -> Call {
        let arguments = ["broker"].into_iter().chain(line.split(' '));
        let flags = Flags::try_parse_from(arguments).unwrap_or_else(|error| panic!("{error}"));
        let no_password = |_: &str| Err("no password".to_owned());
        of(&flags.ctl.what, &no_password).unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    fn request(line: &str) -> String {
        let Call { method, path, content, .. } = call(line);
        format!("{method} {path} {}", content.unwrap_or_default()).trim_end().to_owned()
    }

    #[test]
    fn every_command_is_a_request_of_the_interface() {
        for (line, expected) in [
            ("status", "GET /api/v1/status"),
            ("health", "GET /readyz?verbose"),
            ("health --live", "GET /livez?verbose"),
            (
                "clients --state connected --prefix a/b --queued-min 5",
                "GET /api/v1/clients?state=connected&id_prefix=a%2Fb&queued_min=5",
            ),
            ("client a/b", "GET /api/v1/clients/a%2Fb"),
            ("client x --show queue", "GET /api/v1/clients/x/queue"),
            ("client x --show queue --payload 9", "GET /api/v1/clients/x/queue?payload=9"),
            ("kick x --reason bye", "DELETE /api/v1/clients/x/connection?reason=bye"),
            ("ban list", "GET /api/v1/bans"),
            (
                "ban add client x --seconds 60",
                "POST /api/v1/bans {\"client\":\"x\",\"seconds\":60}",
            ),
            ("ban remove network 10.0.0.0/8", "DELETE /api/v1/bans?network=10.0.0.0%2F8"),
            ("subs a/+", "GET /api/v1/subscriptions?topic=a%2F%2B"),
            ("retained list a/#", "GET /api/v1/retained?filter=a%2F%23"),
            ("retained get /a", "GET /api/v1/retained/%2Fa"),
            ("retained clear # --max 5", "DELETE /api/v1/retained?filter=%23&max=5"),
            (
                "publish a b --qos 1",
                "POST /api/v1/publish {\"payload\":\"b\",\"qos\":1,\"retain\":false,\"topic\":\"a\"}",
            ),
            ("session delete x", "DELETE /api/v1/clients/x/session"),
            ("session unsubscribe x a/#", "DELETE /api/v1/clients/x/subscriptions?filter=a%2F%23"),
            ("user list", "GET /api/v1/users"),
            ("user show a/b", "GET /api/v1/users/a%2Fb"),
            ("user groups a x y", "PUT /api/v1/users/a {\"groups\":[\"x\",\"y\"]}"),
            ("user groups a", "PUT /api/v1/users/a {\"groups\":[]}"),
            ("user remove a", "DELETE /api/v1/users/a"),
            ("rule list --limit 5", "GET /api/v1/rules"),
            (
                "rule add everyone deny --before 3",
                "POST /api/v1/rules {\"before\":3,\"for\":\"everyone\",\"rule\":\"deny\"}",
            ),
            (
                "rule change 7 users allow",
                "PUT /api/v1/rules/7 {\"for\":\"users\",\"rule\":\"allow\"}",
            ),
            ("rule remove 7", "DELETE /api/v1/rules/7"),
            ("webhooks", "GET /api/v1/webhooks"),
            ("health --bridges", "GET /readyz?verbose&bridges"),
            ("cluster status", "GET /api/v1/cluster"),
            ("cluster status --members", "GET /api/v1/cluster"),
            ("bridges", "GET /api/v1/bridges"),
            ("bridge list", "GET /api/v1/bridges"),
            ("bridge show a", "GET /api/v1/bridges/a"),
            ("bridge stop a/b", "POST /api/v1/bridges/a%2Fb/stop"),
            ("bridge reset-session a", "POST /api/v1/bridges/a/reset-session"),
            ("bridge drop-queue a", "POST /api/v1/bridges/a/drop-queue"),
            ("config", "GET /api/v1/config"),
            ("reload", "POST /api/v1/reload"),
            ("reload --dry-run", "POST /api/v1/reload?dry_run=true"),
            ("reload --close", "POST /api/v1/reload?close=true"),
            ("reload --drop-queues", "POST /api/v1/reload?drop_queues=true"),
            ("log debug --seconds 60", "PUT /api/v1/log {\"level\":\"debug\",\"seconds\":60}"),
            ("trace --client x --seconds 5", "GET /api/v1/trace?client=x&seconds=5"),
            ("drain", "POST /api/v1/drain"),
            ("drain --stop", "DELETE /api/v1/drain"),
            ("drain --rate 7 --wait", "POST /api/v1/drain?rate=7"),
            ("drain status", "GET /api/v1/drain"),
            ("cluster forget a/b", "DELETE /api/v1/cluster/nodes/a%2Fb"),
            ("rebalance --rate 7 --dry-run", "POST /api/v1/rebalance?rate=7&dry_run=true"),
            ("api get status", "GET /api/v1/status"),
            ("api POST /x {}", "POST /x {}"),
        ] {
            assert_eq!(request(line), expected, "{line}");
        }
    }

    #[test]
    fn a_list_is_read_page_by_page_up_to_its_limit() {
        let clients = call("clients --limit 1500 --state connected");
        let first = clients.page(1_500, None);
        assert_eq!(first, "/api/v1/clients?state=connected&limit=1000");
        let second = clients.page(500, Some("a+b"));
        assert_eq!(second, "/api/v1/clients?state=connected&limit=500&cursor=a%2Bb");
        assert_eq!(call("subs").page(100, None), "/api/v1/subscriptions?limit=100");
        assert_eq!(clients.entries(&json!({"clients": [{}, {}]})), 2);
        assert_eq!(call("status").page(0, None), "/api/v1/status");
    }

    #[test]
    fn a_payload_that_is_no_text_is_sent_as_base64() {
        let call = publish("t", vec![0xff, 0], 0, false);
        assert!(call.content.expect("content").contains("\"payload_base64\":\"/wA=\""));
    }
}
