//! Rules that a token brings along.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::hmac;
use serde_json::{Value, json};

use crate::support::reason::{BAD_USER_NAME_OR_PASSWORD, NOT_AUTHORIZED};
use crate::support::{
    Broker, Client, Connect, Publish, SILENCE, Subscribe, V5, Version, Will, for_versions,
};
use crate::{Files, in_version};

const SECRET: &[u8] = b"a secret of at least thirty-two bytes";

/// Files with a key set of one secret.
fn files(name: &str) -> Files {
    let files = Files::new(name);
    let key = json!({"keys": [{"kty": "oct", "k": BASE64.encode(SECRET)}]});
    files.write("keys", &key.to_string());
    files
}

fn broker(files: &Files, more: &str) -> Broker {
    files.broker(&format!("[access.jwt]\nkey_set = {:?}\n{more}", files.path("keys")))
}

/// A token of alice, with these rules, or without the claim.
fn token(acl: Option<&Value>) -> String {
    let mut claims = json!({"sub": "alice", "exp": 4_000_000_000_u64});
    if let Some(acl) = acl {
        claims["acl"] = acl.clone();
    }
    let header = BASE64.encode(json!({"alg": "HS256"}).to_string());
    let text = format!("{header}.{}", BASE64.encode(claims.to_string()));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), text.as_bytes());
    format!("{text}.{}", BASE64.encode(tag))
}

fn with_token(version: Version, client: &str, acl: &Value) -> Connect {
    Connect::new(version, client).username("a").password(token(Some(acl)))
}

/// Whether a client may subscribe.
fn may_subscribe(client: &mut Client, filter: &str) -> bool {
    client.send(Subscribe::new(7, filter, 0));
    client.expect_suback().reasons[0] < 0x80
}

/// Whether a client of MQTT 5.0 may publish.
fn may_publish(client: &mut Client, topic: &str) -> bool {
    client.send(Publish::new(topic, "x").qos(1, 9));
    client.expect_ack().reason != NOT_AUTHORIZED
}

#[test]
fn a_token_limits_its_client_to_the_topics_in_it_and_no_other_client() {
    for_versions(|version| {
        let files = files("grants");
        let broker = broker(&files, "");
        let lists = json!({"pub": ["up/${clientid}/#"], "sub": ["down/${username}"]});
        let mut alice = Client::connect(&broker, with_token(version, "a-1", &lists));
        assert!(may_subscribe(&mut alice, "down/alice") && !may_subscribe(&mut alice, "down/#"));
        assert!(!may_subscribe(&mut alice, "up/a-1/x"));
        let free = Connect::new(V5, "free").username("a").password(token(None));
        let mut free = Client::connect(&broker, free);
        assert!(may_subscribe(&mut free, "up/#"), "a token without rules limits nothing");
        alice.send(Publish::new("up/a-2/x", "denied").qos(1, 1));
        assert_eq!(alice.expect_ack().reason, in_version(version, NOT_AUTHORIZED, 0));
        alice.send(Publish::new("up/a-1/x", "allowed").qos(1, 2));
        alice.expect_ack();
        free.expect_message("allowed");
        free.expect_silence(SILENCE);
    });
}

#[test]
fn the_rules_of_the_broker_decide_before_those_of_a_token() {
    let files = files("grants-rules")
        .with_rules("for everyone\n deny all secret/#\n allow publish open/#\n");
    let broker = broker(&files, "");
    let list = json!([
        {"permission": "deny", "action": "publish", "topic": "open/x"},
        {"permission": "allow", "action": "all", "topic": "mine/#"},
        {"permission": "allow", "action": "all", "topic": "secret/#"},
    ]);
    let mut alice = Client::connect(&broker, with_token(V5, "a", &list));
    for (topic, may) in [("open/x", true), ("mine/x", true), ("secret/x", false), ("x", false)] {
        assert_eq!(may_publish(&mut alice, topic), may, "{topic}");
    }
    assert!(may_subscribe(&mut alice, "mine/#") && !may_subscribe(&mut alice, "secret/x"));
    assert!(!may_subscribe(&mut alice, "open/x"));
    // Other rules hold for a client with a token, too.
    files.write("acl", "for everyone\n deny all mine/#\n");
    files.reload(&broker);
    assert!(!may_publish(&mut alice, "mine/x") && !may_publish(&mut alice, "open/x"));
}

#[test]
fn a_will_that_a_token_allows_is_published_and_another_refuses_the_client() {
    let files = files("grants-will")
        .with_rules("for client reader\n allow subscribe wills/#\nfor everyone\n deny publish x\n");
    let broker = broker(&files, "");
    let nothing = json!({});
    let mut reader = Client::connect(&broker, with_token(V5, "reader", &nothing));
    reader.subscribe("wills/#", 0);
    let lists = json!({"pub": ["wills/${clientid}"]});
    let connect = |client: &str, topic: &str, delay_s: u32| {
        let will = Will::new(topic, client).delay(delay_s);
        with_token(V5, client, &lists).will(will)
    };
    Client::refused(&broker, connect("a", "wills/b", 0), NOT_AUTHORIZED);
    Client::connect(&broker, connect("now", "wills/now", 0)).vanish();
    reader.expect_message("now");
    Client::connect(&broker, connect("later", "wills/later", 1).durable()).vanish();
    reader.expect_message("later");
    // A rule that denies it now decides.
    Client::connect(&broker, connect("denied", "wills/denied", 2).durable()).vanish();
    files.write(
        "acl",
        "for client reader\n allow subscribe wills/#\nfor everyone\n deny publish #\n",
    );
    files.reload(&broker);
    broker.await_log("a Will is not published", 1);
    reader.expect_silence(SILENCE);
}

#[test]
fn a_token_whose_rules_are_wrong_or_too_many_is_refused_and_the_log_says_why() {
    let files = files("grants-wrong");
    let broker = broker(&files, "acl_rules_max = 2\n");
    for (number, (acl, says)) in [
        (json!("everything"), "an object with pub, sub and all"),
        (json!({"pub": ["a/#/b"]}), "topic \\\"a/#/b\\\": invalid Topic Filter"),
        (json!({"pub": ["1", "2", "3"]}), "more than 2 rules (access.jwt.acl_rules_max)"),
        (json!([{"permission": "allow"}]), "rule 1: missing field `action`"),
    ]
    .into_iter()
    .enumerate()
    {
        let client = format!("c-{number}");
        Client::refused(&broker, with_token(V5, &client, &acl), BAD_USER_NAME_OR_PASSWORD);
        broker.await_log("\"cause\":\"token-claims\"", number + 1);
        assert!(broker.log().contains(says), "{says}: {}", broker.log());
    }
    let broker = self::broker(&files, "acl_claim = \"\"\n");
    Client::connect(&broker, with_token(V5, "c", &json!("everything")));
    let broker = self::broker(&files, "acl_claim = \"rights\"\n");
    let mut client = Client::connect(&broker, with_token(V5, "c", &json!({})));
    assert!(may_subscribe(&mut client, "x"), "the claim has another name");
}
