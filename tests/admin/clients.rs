//! What operators see of clients, topics and messages, and what they do to them.

use std::io::{Read, Write};
use std::net::TcpStream;

use ringmq::config::Role;
use ringmq::wire::{
    self, Connect, ConnectProperties, Frame, Packet, PacketIdentifier, Publish, PublishProperties,
    Qos, Subscribe, SubscribeFilters, SubscribeOptions, UserProperties, Version,
};
use serde_json::{Value, json};

use crate::support::{Answer, Broker, CONFIG, PATIENCE, wait_for};
use crate::uninterrupted::uninterrupted;

const FOUR: &str = "--mode poll --cores 4";

/// An MQTT 5.0 client.
pub struct Mqtt {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Mqtt {
    /// Sends CONNECT; the answer is the first packet.
    pub fn begin(broker: &Broker, id: &str, is_persistent: bool) -> Self {
        let stream = TcpStream::connect(&broker.mqtt).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("an option");
        let mut client = Self { stream, buffer: Vec::new() };
        let session_expiry_interval = is_persistent.then_some(3_600);
        client.send(&Packet::Connect(Connect {
            version: Version::V5,
            is_bridge: false,
            clean_start: !is_persistent,
            keep_alive_s: 60,
            client_identifier: id,
            username: None,
            password: None,
            will: None,
            properties: ConnectProperties { session_expiry_interval, ..Default::default() },
        }));
        client
    }

    pub fn connect(broker: &Broker, id: &str) -> Self {
        let mut client = Self::begin(broker, id, true);
        let connack = client.packet();
        assert!(connack.contains("reason: Success"), "{connack}");
        client
    }

    pub fn send(&mut self, packet: &Packet<'_>) {
        let mut bytes = Vec::new();
        packet.encode(Version::V5, &mut bytes);
        self.stream.write_all(&bytes).expect("the broker reads");
    }

    /// The next packet, as text.
    pub fn packet(&mut self) -> String {
        loop {
            if let Ok(Frame::Complete { total, .. }) = wire::frame(&self.buffer, usize::MAX) {
                let packet = wire::decode(&self.buffer[..total], Version::V5).expect("valid");
                let text = format!("{packet:?}");
                self.buffer.drain(..total);
                return text;
            }
            let mut part = [0; 4_096];
            match uninterrupted(|| self.stream.read(&mut part)).expect("an answer in time") {
                0 => panic!("the broker has closed the connection"),
                count => self.buffer.extend_from_slice(&part[..count]),
            }
        }
    }

    pub fn subscribe(&mut self, filter: &str) {
        let options = SubscribeOptions { qos: Qos::AtLeastOnce, ..SubscribeOptions::default() };
        let filters = [(filter, options)];
        self.send(&Packet::Subscribe(Subscribe {
            packet_identifier: PacketIdentifier::new(1).expect("not zero"),
            subscription_identifier: None,
            user_properties: UserProperties::none(),
            filters: SubscribeFilters::list(&filters),
        }));
        assert!(self.packet().starts_with("Suback"));
    }

    pub fn publish(&mut self, topic: &str, payload: &[u8], retain: bool) {
        self.send(&Packet::Publish(Publish {
            dup: false,
            qos: Qos::AtLeastOnce,
            retain,
            topic,
            packet_identifier: PacketIdentifier::new(1),
            properties: PublishProperties::default(),
            payload,
        }));
        assert!(self.packet().starts_with("Puback"));
    }
}

impl Broker {
    fn get(&self, path: &str) -> Value {
        self.answers(200, "GET", path, "").json()
    }

    #[track_caller]
    fn answers(&self, status: u16, method: &str, path: &str, body: &str) -> Answer {
        let answer = self.unix().ask(method, path, &[], body);
        let text = String::from_utf8_lossy(&answer.body);
        assert_eq!(answer.status, status, "{method} {path}: {text}");
        if status >= 400 {
            assert_eq!(answer.header("content-type"), Some("application/problem+json"));
            assert!(!answer.json()["detail"].as_str().expect("a text").is_empty());
        }
        answer
    }

    /// All pages of a listing, as the values of one member.
    fn list(&self, path: &str, of: &str, member: &str) -> Vec<String> {
        let (mut all, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = self.get(&format!("{path}{cursor}"));
            let entries = page[of].as_array().expect("a list").iter();
            all.extend(entries.map(|entry| entry[member].as_str().expect("a text").to_owned()));
            match page["next"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return all,
            }
        }
    }
}

#[test]
fn clients_of_all_cores_are_listed_in_pages_each_exactly_once() {
    let broker = Broker::start("clients", FOUR);
    let names: Vec<String> = (0..30).map(|number| format!("client {number:02}")).collect();
    let mut clients: Vec<Mqtt> = names.iter().map(|name| Mqtt::connect(&broker, name)).collect();
    for client in clients.drain(20..) {
        drop(client);
    }
    wait_for("the last ten are away", || {
        let status = broker.get("/api/v1/status");
        (status["clients_disconnected"] == 10).then_some(())
    });
    let list = |query: &str| {
        let mut all =
            broker.list(&format!("/api/v1/clients?limit=7{query}"), "clients", "client_id");
        all.sort_unstable();
        all
    };
    assert_eq!(list(""), names);
    assert_eq!(list("&state=connected"), names[..20]);
    assert_eq!(list("&state=disconnected&id_prefix=client%2021"), names[21..22]);
    assert_eq!(list("&address=127.0.0.0/8&version=5.0&listener=0"), names[..20]);
    assert!(list("&queued_min=1").is_empty() && list("&user=nobody").is_empty());
    assert_eq!(broker.get("/api/v1/clients?limit=1")["sessions"], 30);
    for wrong in ["limit=0", "limit=1001", "address=x", "version=4", "state=x", "unknown=1"] {
        broker.answers(400, "GET", &format!("/api/v1/clients?{wrong}"), "");
    }
    broker.answers(400, "GET", "/api/v1/clients?cursor=nonsense", "");
    let cursor = broker.get("/api/v1/clients?limit=1")["next"].as_str().expect("more").to_owned();
    broker.answers(410, "GET", &format!("/api/v1/subscriptions?cursor={cursor}"), "");
    // A cursor of an earlier process.
    let other = Broker::start("clients-other", "--mode poll");
    other.answers(410, "GET", &format!("/api/v1/clients?cursor={cursor}"), "");
}

#[test]
fn the_worst_clients_and_everything_about_one_are_shown() {
    let broker = Broker::start("client", FOUR);
    // Every character of a Client Identifier can be in a path.
    let (id, path) = ("a/b ü#?", "/api/v1/clients/a%2Fb%20%C3%BC%23%3F");
    let mut away = Mqtt::connect(&broker, id);
    away.subscribe("t/#");
    drop(away);
    let mut publisher = Mqtt::connect(&broker, "publisher");
    wait_for("it is away", || (broker.get(path)["state"] == "disconnected").then_some(()));
    for number in 0..5 {
        publisher.publish(&format!("t/{number}"), b"payload", false);
    }
    let top = broker.get("/api/v1/clients/top?by=queued&n=3");
    assert_eq!(top["clients"][0]["value"], 5, "{top}");
    assert_eq!(top["clients"][0]["client"]["client_id"], id);
    assert_eq!((&top["looked_at"], &top["complete"]), (&json!(2), &json!(true)));
    broker.answers(400, "GET", "/api/v1/clients/top?by=charm", "");
    let detail = broker.get(path);
    assert_eq!((&detail["client_id"], &detail["queued"]), (&json!(id), &json!(5)));
    assert_eq!(detail["queue_oldest"]["topic"], "t/0");
    assert_eq!(detail["session_expiry_interval_s"], 3_600);
    let detail = broker.get("/api/v1/clients/publisher");
    assert_eq!((&detail["version"], &detail["state"]), (&json!("5.0"), &json!("connected")));
    assert_eq!(detail["connection"]["keep_alive_s"], 60);
    assert!(detail["bytes_in"].as_u64().expect("a number") > 100);
    broker.answers(404, "GET", "/api/v1/clients/nobody", "");

    let filters = broker.list(&format!("{path}/subscriptions?limit=1"), "subscriptions", "filter");
    assert_eq!(filters, ["t/#"]);
    let queue = broker.get(&format!("{path}/queue?limit=2&payload=3"));
    assert_eq!(queue["messages"][1]["message"]["topic"], "t/1");
    assert_eq!(queue["messages"][0]["payload"]["text"], "pay");
    let next = queue["next"].as_str().expect("more");
    let queue = broker.get(&format!("{path}/queue?cursor={next}"));
    assert_eq!(queue["messages"][0]["message"]["topic"], "t/2");
    assert!(queue["next"].is_null() && queue["messages"][0].get("payload").is_none());
    let ask =
        |role, query: &str| broker.ask(role, "GET", &format!("{path}/queue{query}"), "").status;
    assert_eq!((ask(Role::Read, ""), ask(Role::Read, "?payload=1")), (200, 403));
    assert_eq!(ask(Role::Operate, "?payload=1"), 200);
    // It comes back and acknowledges nothing.
    let mut back = Mqtt::connect(&broker, id);
    back.packet();
    let inflight = broker.get(&format!("{path}/inflight"));
    assert_eq!(
        (&inflight["inflight"], &inflight["messages"][0]["stage"]),
        (&json!(5), &json!("sent"))
    );
    broker.answers(404, "GET", "/api/v1/clients/nobody/queue", "");
}

#[test]
fn a_client_is_disconnected_loses_a_subscription_and_its_session() {
    let broker = Broker::start("kick", FOUR);
    let mut client = Mqtt::connect(&broker, "c");
    client.subscribe("a");
    client.subscribe("b");
    let end = "/api/v1/clients/c/subscriptions?filter=a";
    broker.answers(204, "DELETE", end, "");
    broker.answers(404, "DELETE", end, "");
    assert_eq!(broker.list("/api/v1/subscriptions?limit=9", "subscriptions", "filter"), ["b"]);
    broker.answers(204, "DELETE", "/api/v1/clients/c/connection?reason=tests", "");
    let disconnect = client.packet();
    assert!(disconnect.contains("AdministrativeAction"), "{disconnect}");
    broker.answers(404, "DELETE", "/api/v1/clients/c/connection", "");
    assert_eq!(broker.get("/api/v1/clients/c")["state"], "disconnected");
    broker.answers(204, "DELETE", "/api/v1/clients/c/session", "");
    broker.answers(404, "DELETE", "/api/v1/clients/c/session", "");
    assert_eq!(broker.get("/api/v1/clients")["sessions"], 0);
    broker.wait_for_log("the audit log has who and why", |line| {
        let what = line["what"].as_str().unwrap_or_default();
        line["outcome"] == 204 && what.contains("/clients/c/connection?reason=tests")
    });
}

#[test]
fn a_message_is_published_to_the_subscribers_of_all_cores() {
    let broker = Broker::start("publish", FOUR);
    let mut clients: Vec<Mqtt> =
        (0..8).map(|number| Mqtt::connect(&broker, &format!("subscriber {number}"))).collect();
    clients.iter_mut().for_each(|client| client.subscribe("news/+"));
    let body = json!({
        "topic": "news/today", "payload": "hello", "qos": 1, "retain": true,
        "content_type": "text/plain", "user_properties": [["key", "value"]],
    });
    let published = broker.answers(200, "POST", "/api/v1/publish", &body.to_string()).json();
    assert_eq!(published["recipients"], 8);
    for client in &mut clients {
        let message = client.packet();
        assert!(message.contains("news/today") && message.contains("text/plain"), "{message}");
    }
    let shown = broker.get("/api/v1/subscriptions?topic=news/today&limit=3");
    assert_eq!(
        (&shown["matching"], &shown["subscriptions"][0]["filter"]),
        (&json!(8), &json!("news/+"))
    );
    assert_eq!(shown["subscriptions"].as_array().map(Vec::len), Some(3));

    let kept = broker.get("/api/v1/retained/news/today");
    assert_eq!(
        (&kept["payload"]["text"], &kept["content_type"]),
        (&json!("hello"), &json!("text/plain"))
    );
    assert_eq!(kept["user_properties"], json!([["key", "value"]]));
    let binary = json!({ "topic": "/binary", "payload_base64": "/w==", "retain": true });
    broker.answers(200, "POST", "/api/v1/publish", &binary.to_string());
    assert_eq!(broker.get("/api/v1/retained/%2Fbinary")["payload"]["base64"], "/w==");
    let topics = broker.list("/api/v1/retained?limit=1", "messages", "topic");
    assert_eq!(topics, ["/binary", "news/today"]);
    broker.answers(204, "DELETE", "/api/v1/retained/%2Fbinary", "");
    broker.answers(404, "DELETE", "/api/v1/retained/%2Fbinary", "");
    let cleared = broker.answers(200, "DELETE", "/api/v1/retained?filter=news/%23&max=10", "");
    assert_eq!(cleared.json(), json!({ "removed": 1, "complete": true }));
    broker.answers(404, "GET", "/api/v1/retained/news/today", "");

    for wrong in [
        json!({ "topic": "a/+" }),
        json!({ "topic": "$SYS/x" }),
        json!({ "topic": "t", "qos": 3 }),
        json!({ "topic": "t", "payload": "a", "payload_base64": "YQ==" }),
        json!({ "topic": "t", "payload_base64": "?" }),
        json!({ "topic": "t", "content_type": "a\u{0}" }),
    ] {
        broker.answers(400, "POST", "/api/v1/publish", &wrong.to_string());
    }
    broker.answers(400, "GET", "/api/v1/retained?filter=a%23", "");
    broker.answers(400, "DELETE", "/api/v1/retained?filter=a", "");
}

#[test]
fn a_ban_ends_connections_and_holds_across_a_kill_of_the_broker() {
    let broker = Broker::start("bans", FOUR);
    let mut bad = Mqtt::connect(&broker, "bad");
    let _good = Mqtt::connect(&broker, "good");
    let body = json!({ "client": "bad", "reason": "floods" }).to_string();
    let changed = broker.answers(200, "POST", "/api/v1/bans", &body).json();
    assert_eq!(changed, json!({ "disconnected": 1, "bans": 1 }));
    assert!(bad.packet().contains("AdministrativeAction"));
    let refused = |broker: &Broker, id| Mqtt::begin(broker, id, false).packet().contains("Banned");
    assert!(refused(&broker, "bad") && !refused(&broker, "other"));
    broker.answers(400, "POST", "/api/v1/bans", &json!({ "seconds": 5 }).to_string());
    let passing = json!({ "network": "127.0.0.1", "seconds": 4 }).to_string();
    broker.answers(200, "POST", "/api/v1/bans", &passing);
    assert!(refused(&broker, "other"));
    wait_for("the ban of some seconds ends", || (!refused(&broker, "other")).then_some(()));
    let folder = broker.kill();
    let broker = Broker::with(folder, CONFIG, "--mode poll");
    wait_for("the cores have the bans", || refused(&broker, "bad").then_some(()));
    let bans = broker.get("/api/v1/bans");
    assert_eq!((&bans["bans"][0]["reason"], &bans["kept"]), (&json!("floods"), &json!(true)));
    assert_eq!(bans["bans"].as_array().map(Vec::len), Some(1), "{bans}");
    broker.answers(200, "DELETE", "/api/v1/bans?client=bad", "");
    broker.answers(404, "DELETE", "/api/v1/bans?client=bad", "");
    assert!(!refused(&broker, "bad"));
}

#[test]
fn bans_that_cannot_be_read_stop_the_start_with_the_reason() {
    let broker = Broker::start("bans-broken", "--mode poll");
    let folder = broker.kill();
    std::fs::write(folder.0.join("data/bans.json"), "nonsense").expect("a file");
    let output = crate::support::command(&folder, CONFIG, "--mode poll").output().expect("it runs");
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("bans.json") && text.contains("repair or remove it"), "{text}");
}

#[test]
fn a_drained_broker_is_not_ready_and_keeps_its_clients() {
    let broker = Broker::start("drain", FOUR);
    let mut client = Mqtt::connect(&broker, "stays");
    broker.answers(204, "POST", "/api/v1/drain", "");
    assert_eq!(broker.unix().ask("GET", "/readyz", &[], "").status, 503);
    assert_eq!(broker.unix().ask("GET", "/livez", &[], "").status, 200);
    assert!(Mqtt::begin(&broker, "new", false).packet().contains("UseAnotherServer"));
    client.subscribe("still/served");
    broker.answers(204, "DELETE", "/api/v1/drain", "");
    assert_eq!(broker.unix().ask("GET", "/readyz", &[], "").status, 200);
    Mqtt::connect(&broker, "new");
}
