//! Every kind of refusal, with its Reason Code in each protocol version and the counter it
//! increments. The tables in docs/access.md are compared with these tests.

use crate::support::{Ack, Broker, Client, Connect, Publish, Subscribe, V5, Version, Will};
use crate::support::{for_each_version, reason};
use crate::{Files, as_user, await_metric, record};

const SYS: &str = "[mqtt]\nsys_interval_s = 1\n";

const RULES: &str = "for user alice\n allow all alice/#\nfor users\n allow subscribe $SYS/#\n\
                     for anonymous\n allow subscribe $SYS/#\n";

/// A row of the first table: a refused CONNECT.
struct Denial {
    what: &'static str,
    v5: u8,
    /// `None` if 3.1.1 cannot express the request.
    v311: Option<u8>,
    counted: &'static str,
}

impl Denial {
    const fn new(what: &'static str, v5: u8, v311: u8) -> Self {
        Self { what, v5, v311: Some(v311), counted: "clients/refused" }
    }

    /// Tests the refusal in each version, with a broker from `start` and a CONNECT from `connect`.
    #[track_caller]
    fn is_told(
        &self,
        asks: &Connect,
        start: impl Fn() -> Broker,
        connect: impl Fn(&Broker, Version) -> Connect,
    ) {
        let Self { what, v5, v311, counted } = self;
        let old = v311.map_or("–".to_owned(), |code| code.to_string());
        assert_documented(&format!("| {what} | {v5:#04x} | {old} | `{counted}` |"));
        let versions = [(V5, Some(*v5)), (Version::V311, *v311), (Version::V31, *v311)];
        for (version, code) in versions {
            let Some(code) = code else { continue };
            for_each_version(&[version], |_| {
                let broker = start();
                let connect = connect(&broker, version);
                Client::refused(&broker, connect, code);
                await_metric(&broker, asks.clone(), counted, 1);
                record(&broker, &format!("{what}: refused"));
            });
        }
    }
}

/// Asserts that docs/access.md has this row, ignoring the case of hexadecimal digits.
#[track_caller]
fn assert_documented(line: &str) {
    let text = include_str!("../../docs/access.md");
    let is_it = |of: &str| of.eq_ignore_ascii_case(line);
    assert!(text.lines().any(is_it), "docs/access.md lacks {line}");
}

fn alice() -> Connect {
    as_user(V5, "alice", "m")
}

#[test]
fn wrong_passwords_and_unknown_or_missing_names_are_refused() {
    let files = Files::new("denied-names").with_users(&["alice"]);
    let start = || files.broker(SYS);
    let of = |user, password| {
        move |_: &Broker, version| Connect::new(version, "c").username(user).password(password)
    };
    let wrong = Denial::new("wrong Password", reason::BAD_USER_NAME_OR_PASSWORD, 4);
    wrong.is_told(&alice(), start, of("alice", "guess"));
    let unknown = Denial::new("unknown User Name", reason::BAD_USER_NAME_OR_PASSWORD, 4);
    unknown.is_told(&alice(), start, of("eve", "eveeve"));
    let missing = Denial::new("anonymous client not allowed", reason::NOT_AUTHORIZED, 5);
    missing.is_told(&alice(), start, |_, version| Connect::new(version, "c"));
    let method = Denial {
        v311: None,
        ..Denial::new("unknown Authentication Method", reason::BAD_AUTHENTICATION_METHOD, 0)
    };
    method.is_told(&alice(), start, |_, _| {
        Connect::v5("c").property(crate::support::Property::AuthenticationMethod("X".to_owned()))
    });
}

#[test]
fn foreign_sessions_forbidden_wills_and_excess_connections_are_refused() {
    let files = Files::new("denied-sessions").with_users(&["alice", "bob"]).with_rules(RULES);
    let session = Denial {
        counted: "clients/refused/session-of-another",
        ..Denial::new("session of another user", reason::NOT_AUTHORIZED, 5)
    };
    session.is_told(
        &alice(),
        || files.broker(SYS),
        |broker, version| {
            Client::connect(broker, as_user(version, "alice", "hers").durable()).vanish();
            as_user(version, "bob", "hers").durable()
        },
    );
    let identifier = Denial {
        counted: "clients/refused/identifier",
        ..Denial::new("Client Identifier not allowed by the rules", 0x85, 2)
    };
    let bound = Files::new("denied-identifier").with_users(&["alice"]);
    let bound = bound.with_rules(&format!("{RULES}for users\n allow client m\n"));
    identifier.is_told(
        &alice(),
        || bound.broker(SYS),
        |_, version| as_user(version, "alice", "bob-1"),
    );
    let will = Denial::new("Will not allowed by the rules", reason::NOT_AUTHORIZED, 5);
    will.is_told(
        &alice(),
        || files.broker(SYS),
        |_, version| as_user(version, "alice", "c").will(Will::new("bob/x", "gone")),
    );
    let quota = Denial::new("too many connections of a user", reason::QUOTA_EXCEEDED, 3);
    let bounds = format!("[protection]\nconnections_per_user_max = 1\n{SYS}");
    let kept = std::cell::RefCell::new(Vec::new());
    quota.is_told(
        &as_user(V5, "bob", "m"),
        || files.broker(&bounds),
        |broker, version| {
            kept.borrow_mut().push(Client::connect(broker, as_user(version, "alice", "1")));
            as_user(version, "alice", "2")
        },
    );
    let sessions = Denial {
        counted: "clients/refused/sessions-of-user",
        ..Denial::new("too many sessions of a user", reason::QUOTA_EXCEEDED, 3)
    };
    let bounds = format!("[protection]\nsessions_per_user_max = 1\n{SYS}");
    sessions.is_told(
        &as_user(V5, "bob", "m"),
        || files.broker(&bounds),
        |broker, version| {
            Client::connect(broker, as_user(version, "alice", "1").durable()).vanish();
            as_user(version, "alice", "2")
        },
    );
    let banned =
        Denial { counted: "access/bans", ..Denial::new("banned client", reason::BANNED, 5) };
    let bounds = format!("[protection]\nflaps_max = 2\n{SYS}");
    banned.is_told(
        &as_user(V5, "bob", "m"),
        || files.broker(&bounds),
        |broker, version| {
            (0..2)
                .for_each(|_| Client::connect(broker, as_user(version, "alice", "c")).disconnect());
            as_user(version, "alice", "c")
        },
    );
}

#[cfg(feature = "http-hook")]
#[test]
fn a_denial_or_a_timeout_of_the_http_hook_refuses_the_client() {
    use crate::methods::asked::Server;
    let server = Server::start();
    let url = |address| format!("anonymous = true\n[access.http]\nurl = \"http://{address}/\"\n");
    let files = Files::new("denied-hook");
    let start = |address| files.broker(&format!("{}{SYS}", url(address)));
    let of = |user, password| {
        move |_: &Broker, version| Connect::new(version, "c").username(user).password(password)
    };
    let asks = Connect::v5("m");
    let no = Denial::new("denied by the HTTP server", reason::BAD_USER_NAME_OR_PASSWORD, 4);
    no.is_told(&asks, || start(server.address), of("zoe", "guess"));
    let gone = std::net::TcpListener::bind("127.0.0.1:0").and_then(|of| of.local_addr());
    let gone = gone.expect("a free port");
    let nothing = Denial::new("no answer from the HTTP server", reason::SERVER_UNAVAILABLE, 3);
    nothing.is_told(&asks, || start(gone), of("zoe", "zoe"));
    nothing.is_told(&asks, || start(server.address), of("broken", "broken"));
    nothing.is_told(&asks, || start(server.address), of("nonsense", "nonsense"));
}

#[cfg(feature = "http-hook")]
#[test]
fn a_client_is_refused_if_the_queue_of_decisions_is_full() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = silent.local_addr().expect("the server listens");
    let hook = format!(
        "anonymous = true\nwaiting_max = 1\n[access.http]\nurl = \"http://{address}/\"\n\
         timeout_ms = 60000\n{SYS}"
    );
    let files = Files::new("denied-busy");
    assert_documented("| too many pending decisions | 0x89 | 3 | `clients/refused` |");
    for (version, code) in [(V5, reason::SERVER_BUSY), (Version::V311, 3)] {
        let broker = files.broker(&hook);
        let mut anybody = Client::connect(&broker, Connect::v5("anybody"));
        // 32 requests run at a time, and one is queued; the next is refused.
        let mut waiting = Vec::new();
        let connack = (0..100).find_map(|number| {
            let mut client = Client::open(&broker, version);
            let name = format!("z-{number}");
            client.send(Connect::new(version, &name).username("zoe").password("zoe"));
            let answer = client.receive_within(std::time::Duration::from_millis(50));
            if answer.is_none() {
                waiting.push(client);
            }
            answer
        });
        match connack {
            Some(crate::support::Packet::Connack(connack)) => assert_eq!(connack.reason, code),
            other => panic!("{other:?}"),
        }
        anybody.expect_alive();
        // A response may have taken longer than the timeout.
        let asked = waiting.len();
        waiting.retain_mut(|client| {
            client.receive_within(std::time::Duration::from_millis(1)).is_none()
        });
        let refused = 1 + (asked - waiting.len()) as u64;
        await_metric(&broker, Connect::v5("m"), "clients/refused", refused);
        await_metric(&broker, Connect::v5("m"), "access/unfinished", waiting.len() as u64);
        record(&broker, "too many pending decisions: refused");
    }
}

#[cfg(feature = "jwt")]
#[test]
fn invalid_tokens_are_refused() {
    let made: serde_json::Value =
        serde_json::from_str(include_str!("../../src/access/methods/jwt/tokens.json"))
            .expect("JSON");
    let files = Files::new("denied-tokens");
    files.write("keys", &made["key_set"].to_string());
    let keys = format!("anonymous = true\n[access.jwt]\nkey_set = {:?}\n{SYS}", files.path("keys"));
    let token = made["tokens"]["ES384"].as_str().expect("a token");
    let wrong = Denial::new("invalid token", reason::BAD_USER_NAME_OR_PASSWORD, 4);
    for issuer in ["", "issuer = \"https://elsewhere.example\"\n"] {
        let keys = keys.replace(SYS, &format!("{issuer}{SYS}"));
        let spoilt = if issuer.is_empty() { format!("{token}A") } else { token.to_owned() };
        wrong.is_told(
            &Connect::v5("m"),
            || files.broker(&keys),
            |_, version| Connect::new(version, "c").username("x").password(spoilt.clone()),
        );
    }
}

#[cfg(feature = "scram")]
#[test]
fn a_wrong_scram_proof_and_a_changed_user_on_reauthentication_are_refused() {
    use crate::methods::scram::{answer, begin, reply};
    assert_documented("| wrong SCRAM proof | 0x87 | – | `clients/refused` |");
    let files = Files::new("denied-scram").with_users(&["alice"]);
    let broker = files.broker(SYS);
    let (mut client, challenge) = begin(&broker, "alice");
    reply(&mut client, &answer("alice", "guess", &challenge).0);
    client.expect_refusal(reason::NOT_AUTHORIZED);
    await_metric(&broker, alice(), "clients/refused", 1);
    record(&broker, "wrong SCRAM proof: refused");
}

#[test]
fn connections_from_a_limited_or_banned_address_are_closed_without_a_packet() {
    for what in ["too many connections from an address", "banned address"] {
        let line = format!("| {what} | closed | closed | `connections/turned-away` |");
        assert_documented(&line);
    }
    let files = Files::new("denied-address").with_users(&["alice"]);
    let bounds = "[protection]\nexempt = []\nconnections_per_address_max = 2\n";
    let broker = files.broker(&format!("{bounds}{SYS}"));
    let first = Client::connect(&broker, as_user(V5, "alice", "1"));
    let second = Client::connect(&broker, as_user(V5, "alice", "2"));
    Client::open(&broker, V5).expect_closed();
    second.disconnect();
    await_metric(&broker, alice(), "connections/turned-away", 1);
    drop(first);
    let bounds = format!("[protection]\nrefusals_max = 2\n{SYS}{}", crate::proxied::LISTENER);
    let broker = files.broker(&bounds);
    let from = |address| crate::proxied::open_for(&broker, address);
    for _ in 0..2 {
        let mut client = from("192.0.2.1");
        client.send(Connect::v5("c").username("alice").password("guess"));
        client.expect_refusal(reason::BAD_USER_NAME_OR_PASSWORD);
    }
    from("192.0.2.1").expect_closed();
    await_metric(&broker, alice(), "connections/turned-away", 1);
    await_metric(&broker, alice(), "access/bans", 1);
}

#[test]
fn forbidden_publish_and_subscribe_packets_are_answered_by_version() {
    let dropped = "publish/messages/dropped/not-authorized";
    for line in [
        &format!("| PUBLISH at QoS 0 | – | – | `{dropped}` |"),
        &format!("| PUBLISH at QoS 1 | PUBACK 0x87 | PUBACK | `{dropped}` |"),
        &format!("| PUBLISH at QoS 2 | PUBREC 0x87 | PUBREC | `{dropped}` |"),
        "| SUBSCRIBE | SUBACK 0x87 | SUBACK 0x80 | `subscriptions/refused` |",
    ] {
        assert_documented(line);
    }
    let files = Files::new("denied-inside").with_users(&["alice"]).with_rules(RULES);
    for version in [V5, Version::V311, Version::V31] {
        let broker = files.broker(SYS);
        let mut alice = Client::connect(&broker, as_user(version, "alice", "a"));
        let told = if version == V5 { reason::NOT_AUTHORIZED } else { 0 };
        for (number, topic) in ["bob/1", "$SYS/mine"].into_iter().enumerate() {
            let id = number as u16 * 2 + 1;
            alice.send(Publish::new(topic, "x"));
            alice.send(Publish::new(topic, "x").qos(1, id));
            assert_eq!(alice.expect_ack().reason, told, "PUBACK");
            alice.send(Publish::new(topic, "x").qos(2, id + 1));
            assert_eq!(alice.expect_ack().reason, told, "PUBREC");
            if version != V5 {
                alice.send(Ack::pubrel(id + 1));
                alice.expect(Ack::pubcomp(id + 1));
            }
        }
        alice.send(Subscribe::new(9, "bob/#", 0).and("alice/#", 0).and("#", 0));
        let no = if version == V5 { reason::NOT_AUTHORIZED } else { 0x80 };
        assert_eq!(alice.expect_suback().reasons, [no, 0, no]);
        await_metric(&broker, self::alice(), dropped, 6);
        await_metric(&broker, self::alice(), "subscriptions/refused", 2);
        record(&broker, "denied by rules");
    }
}

#[cfg(feature = "http-hook")]
#[test]
fn a_client_is_disconnected_when_its_credentials_expire() {
    assert_documented(
        "| expired credentials | DISCONNECT 0xA0 | closed | `clients/expired-credentials` |",
    );
    for line in [
        "| user removed | DISCONNECT 0x87 | closed | `clients/withdrawn-credentials` |",
        "| password changed | DISCONNECT 0x98 | closed | `clients/withdrawn-credentials` |",
    ] {
        assert_documented(line); // tested in `reload`
    }
    let server = crate::methods::asked::Server::start();
    let hook =
        format!("anonymous = true\n[access.http]\nurl = \"http://{}/\"\n{SYS}", server.address);
    let files = Files::new("denied-late");
    for version in [V5, Version::V311, Version::V31] {
        let broker = files.broker(&hook);
        let brief = Connect::new(version, "c").username("brief").password("brief");
        let mut client = Client::connect(&broker, brief);
        client.expect_violation(0xA0);
        await_metric(&broker, Connect::v5("m"), "clients/expired-credentials", 1);
        record(&broker, "HTTP server, answer with expires_in_s");
    }
}
