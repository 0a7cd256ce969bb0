//! Dynamic security: what Debian's `mosquitto` decides with its plugin and `broker` with the same file, what both answer to
//! the same commands, and what `mosquitto_ctrl` sees.
//!
//! `RINGMQ_TEST_DYNAMIC_DOCUMENTS=1000` compares so many generated documents instead of a few.
//! `RINGMQ_TEST_ACL_SEED` chooses others.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::broker::{Broker, Random, number_of};
use crate::client::Client;
use crate::{Folder, mosquitto_is_there, program, run};

/// Documents that are compared unless the environment names another number.
const DOCUMENTS: usize = 10;

const TOPICS: usize = 14;
const FILTERS: usize = 8;
const CLIENTS: [&str; 4] = ["alice", "bob", "carol", ""];

const COMMANDS: &str = "$CONTROL/dynamic-security/v1";
const ANSWERS: &str = "$CONTROL/dynamic-security/v1/response";

/// The hash of the password of all clients.
const PASSWORD: &str = "pw";
const SALT: &str = "MTIzNDU2Nzg5MDEy";
const HASH: &str =
    "YqSHXsIyFJNpOCjlyUKpSncPXuK0dbnignolAdISLS/UGu81OPDRwRMvhcln1vutrR/dtc+bRNwa5tpLKkORfg==";

const NOT_AUTHORIZED: u8 = 0x87;
const ADMINISTRATIVE_ACTION: u8 = 0x98;

/// The plugin; none if it is not installed, which is said.
fn plugin() -> Option<PathBuf> {
    if !mosquitto_is_there() {
        return None;
    }
    let folders = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    let folders = folders.map(|entry| entry.path()).chain([PathBuf::from("/usr/lib")]);
    let name = "mosquitto_dynamic_security.so";
    let found = folders.map(|folder| folder.join(name)).find(|path| path.is_file());
    if found.is_none() {
        eprintln!(
            "SKIPPED: {name} is not installed with mosquitto: dynamic security was not compared"
        );
    }
    found
}

fn of_mosquitto(folder: &Path, plugin: &Path, document: &Path) -> Broker {
    let options = format!(
        "allow_anonymous true\nplugin {}\nplugin_opt_config_file {}\n",
        plugin.display(),
        document.display()
    );
    Broker::mosquitto(folder, &options)
}

fn of_ringmq(folder: &Path, document: &Path) -> Broker {
    Broker::ringmq(folder, &format!("anonymous = true\ndynamic_security = {document:?}\n"))
}

const LEVELS: [&str; 6] = ["a", "b", "alice", "", "x y", "$a"];

fn topic(random: &mut Random) -> String {
    loop {
        let levels: Vec<&str> = (0..1 + random.below(3)).map(|_| random.of(&LEVELS)).collect();
        let topic = levels.join("/");
        if !topic.is_empty() {
            return topic;
        }
    }
}

fn filter(random: &mut Random) -> String {
    loop {
        let levels: Vec<&str> = (0..1 + random.below(3))
            .map(|_| if random.below(4) == 0 { "+" } else { random.of(&LEVELS) })
            .collect();
        let mut filter = levels.join("/");
        match random.below(8) {
            0 => filter = "#".to_owned(),
            1 | 2 => filter.push_str("/#"),
            3 => filter = random.of(&["$CONTROL/#", "$CONTROL/a", "+/#"]).to_owned(),
            _ => {}
        }
        if !filter.is_empty() {
            return filter;
        }
    }
}

/// A list of some names with priorities.
fn ranked(random: &mut Random, kind: &str, names: &[&str]) -> Value {
    let mut list = Vec::new();
    for name in names {
        match random.below(4) {
            0 | 1 => {}
            2 => list.push(json!({ kind: name })),
            _ => list.push(json!({ kind: name, "priority": random.below(5) as i64 - 2 })),
        }
    }
    list.into()
}

fn role(random: &mut Random, name: &str) -> Value {
    let kinds = [
        "publishClientSend",
        "publishClientReceive",
        "subscribeLiteral",
        "subscribePattern",
        "unsubscribeLiteral",
        "unsubscribePattern",
    ];
    let mut seen = BTreeSet::new();
    let mut acls = Vec::new();
    for _ in 0..random.below(14) {
        let (kind, topic) = (random.of(&kinds), filter(random));
        if seen.insert((kind, topic.clone())) {
            let priority = random.below(4) as i64 - 1;
            let allow = random.below(3) > 0;
            acls.push(
                json!({ "acltype": kind, "topic": topic, "priority": priority, "allow": allow }),
            );
        }
    }
    json!({ "rolename": name, "acls": acls })
}

fn client(name: &str, roles: &Value) -> Value {
    json!({ "username": name, "password": HASH, "salt": SALT, "iterations": 101, "roles": roles })
}

/// A role that may do everything that topics of clients have.
fn all(name: &str) -> Value {
    let acl = |kind: &str, topic: &str| json!({ "acltype": kind, "topic": topic, "allow": true });
    let topics = ["#", "$a/#", "$CONTROL/dynamic-security/#"];
    let kinds = ["publishClientSend", "publishClientReceive", "subscribePattern"];
    let acls = kinds.iter().flat_map(|kind| topics.map(|topic| acl(kind, topic)));
    json!({ "rolename": name, "acls": acls.collect::<Vec<_>>() })
}

/// A document in which `root` may do everything.
fn document(random: &mut Random) -> Value {
    const ROLES: [&str; 4] = ["r1", "r2", "r3", "r4"];
    const GROUPS: [&str; 3] = ["g1", "g2", "g3"];
    let mut roles: Vec<Value> = ROLES.iter().map(|name| role(random, name)).collect();
    roles.push(all("all"));
    let mut clients: Vec<Value> = Vec::new();
    for name in &CLIENTS[..3] {
        let own = ranked(random, "rolename", &ROLES);
        clients.push(client(name, &own));
    }
    clients.push(client("root", &json!([{ "rolename": "all" }])));
    let mut groups = Vec::new();
    for name in GROUPS {
        groups.push(json!({
            "groupname": name,
            "roles": ranked(random, "rolename", &ROLES),
            "clients": ranked(random, "username", &CLIENTS[..3]),
        }));
    }
    let mut coin = || random.below(2) == 0;
    let mut whole = json!({
        "defaultACLAccess": {
            "publishClientSend": coin(), "publishClientReceive": coin(), "subscribe": coin(),
            "unsubscribe": coin(),
        },
        "clients": clients, "groups": groups, "roles": roles,
    });
    if coin() {
        whole["anonymousGroup"] = GROUPS[0].into();
    }
    whole
}

/// The answers to all requests of all clients, and what is delivered to them, as text.
fn decisions(broker: &Broker, topics: &[String], filters: &[String]) -> BTreeSet<String> {
    let mut decided = BTreeSet::new();
    let mut root = Client::connect_with(broker.address, "root", PASSWORD, "root").expect("root");
    for user in CLIENTS {
        let password = if user.is_empty() { "" } else { PASSWORD };
        let identifier = format!("c-{user}");
        let mut client = Client::connect_with(broker.address, user, password, &identifier)
            .unwrap_or_else(|reason| panic!("{user:?}: {reason:#x}"));
        let mut note = |what: &str, text: &str| {
            decided.insert(format!("{user:?} {what} {text:?}"));
        };
        for topic in topics {
            if client.publish(topic, false) != NOT_AUTHORIZED {
                note("publishes", topic);
            }
        }
        for filter in filters {
            if client.subscribe(filter, &mut Vec::new()) < 0x80 {
                note("subscribes", filter);
            }
        }
        for topic in topics {
            assert!(root.publish(topic, false) < 0x80, "{topic}");
        }
        client.delivered().iter().for_each(|topic| note("receives", topic));
        for filter in filters {
            if client.unsubscribe(filter) != NOT_AUTHORIZED {
                note("unsubscribes", filter);
            }
        }
    }
    decided
}

#[test]
fn every_decision_of_a_generated_document_is_that_of_mosquitto() {
    let Some(plugin) = plugin() else { return };
    let folder = Folder::new("dynamic");
    let file = folder.path("dynamic-security.json");
    let (documents, seed) = (
        number_of("RINGMQ_TEST_DYNAMIC_DOCUMENTS", DOCUMENTS),
        number_of("RINGMQ_TEST_ACL_SEED", 1),
    );
    let mut allowed = 0;
    for number in 0..documents {
        let mut random = Random((seed as u64) << 32 | number as u64);
        let document = document(&mut random);
        let mut topics = BTreeSet::new();
        while topics.len() < TOPICS {
            topics.insert(topic(&mut random));
        }
        let topics: Vec<String> = topics.into_iter().collect();
        let filters: BTreeSet<String> = (0..FILTERS).map(|_| filter(&mut random)).collect();
        let filters: Vec<String> = filters.into_iter().collect();
        std::fs::write(&file, document.to_string()).expect("written");
        let expected = decisions(&of_mosquitto(&folder.0, &plugin, &file), &topics, &filters);
        std::fs::write(&file, document.to_string()).expect("written");
        let decided = decisions(&of_ringmq(&folder.0, &file), &topics, &filters);
        let lacks: Vec<&String> = expected.difference(&decided).collect();
        let exceeds: Vec<&String> = decided.difference(&expected).collect();
        assert!(
            lacks.is_empty() && exceeds.is_empty(),
            "document {number} of seed {seed}:\n{document:#}\nonly Mosquitto allows {lacks:#?}, only the broker \
             {exceeds:#?}"
        );
        allowed += expected.len();
    }
    let all = documents * CLIENTS.len() * (2 * TOPICS + 2 * FILTERS);
    println!("{documents} documents, {all} decisions, {allowed} of them to allow");
    assert!(allowed > all / 10 && allowed < all * 9 / 10, "{allowed} of {all} are allowed");
}

/// A document with an administrator who may do everything.
fn administrators(file: &Path) {
    let document = json!({
        "defaultACLAccess": {
            "publishClientSend": false, "publishClientReceive": true, "subscribe": false,
            "unsubscribe": true,
        },
        "clients": [client("root", &json!([{ "rolename": "all" }]))], "roles": [all("all")],
    });
    std::fs::write(file, document.to_string()).expect("written");
}

/// An administrator who sees answers.
fn administrator(broker: &Broker) -> Client {
    let client = Client::connect_with(broker.address, "root", PASSWORD, "administrator");
    let mut client = client.expect("the password is right");
    assert!(client.subscribe(ANSWERS, &mut Vec::new()) < 0x80);
    client
}

/// The answers to commands.
fn answers(administrator: &mut Client, commands: &Value) -> Value {
    let request = json!({ "commands": commands }).to_string();
    serde_json::from_str(&administrator.request(COMMANDS, &request)).expect("JSON")
}

/// Commands whose answers are compared, in their order, one in a line.
const SCRIPT: &str = include_str!("commands.jsonl");

#[test]
fn commands_are_answered_as_mosquitto_answers_them() {
    let Some(plugin) = plugin() else { return };
    let folder = Folder::new("dynamic-commands");
    let file = folder.path("dynamic-security.json");
    let seen = |broker: &Broker| {
        let mut administrator = administrator(broker);
        let mut seen = Vec::new();
        for request in ["nonsense", "{}", "{\"commands\":5}"] {
            seen.push((request.to_owned(), administrator.request(COMMANDS, request)));
        }
        for command in SCRIPT.lines() {
            let request = format!("{{\"commands\":[{command}]}}");
            let answer = administrator.request(COMMANDS, &request);
            let answer: Value = serde_json::from_str(&answer).expect("JSON");
            seen.push((command.to_owned(), answer.to_string()));
        }
        seen
    };
    administrators(&file);
    let expected = seen(&of_mosquitto(&folder.0, &plugin, &file));
    administrators(&file);
    let answered = seen(&of_ringmq(&folder.0, &file));
    for (expected, answered) in expected.iter().zip(&answered) {
        assert_eq!(expected, answered);
    }
    // The file is one of Mosquitto, and has the password that was set last.
    let broker = of_mosquitto(&folder.0, &plugin, &file);
    assert!(Client::connect_with(broker.address, "bob", "r", "bob").is_ok());
    assert!(Client::connect_with(broker.address, "bob", "q", "bob").is_err());
}

/// `mosquitto_ctrl dynsec` with these arguments.
fn ctrl(broker: &Broker, arguments: &[&str]) -> Output {
    let mut command = program("mosquitto_ctrl");
    command.args(["-h", "127.0.0.1", "-p", &broker.address.port().to_string()]);
    run(command.args(["-u", "root", "-P", PASSWORD, "dynsec"]).args(arguments), "")
}

#[test]
fn mosquitto_ctrl_sees_no_difference_to_mosquitto() {
    let Some(plugin) = plugin() else { return };
    let folder = Folder::new("dynamic-ctrl");
    let file = folder.path("dynamic-security.json");
    let script: &[&[&str]] = &[
        &["createClient", "bob", "-p", "secret", "-c", "id"],
        &["createClient", "bob", "-p", "secret"],
        &["createClient", "eve", "-p", "secret"],
        &["setClientPassword", "eve", "other"],
        &["setClientId", "bob", "other"],
        &["createRole", "reader"],
        &["addRoleACL", "reader", "subscribePattern", "a/#", "allow", "5"],
        &["addRoleACL", "reader", "publishClientReceive", "a/#", "allow"],
        &["addRoleACL", "reader", "nonsense", "a/#", "allow"],
        &["addRoleACL", "reader", "unsubscribeLiteral", "a/#", "deny"],
        &["getRole", "reader"],
        &["removeRoleACL", "reader", "unsubscribeLiteral", "a/#"],
        &["addClientRole", "bob", "reader", "3"],
        &["getClient", "bob"],
        &["disableClient", "bob"],
        &["getClient", "bob"],
        &["enableClient", "bob"],
        &["createGroup", "house"],
        &["addGroupRole", "house", "reader", "2"],
        &["addGroupClient", "house", "eve", "7"],
        &["getGroup", "house"],
        &["getClient", "eve"],
        &["setAnonymousGroup", "house"],
        &["getAnonymousGroup"],
        &["listClients"],
        &["listClients", "1", "1"],
        &["listGroups"],
        &["listRoles"],
        &["setDefaultACLAccess", "subscribe", "allow"],
        &["getDefaultACLAccess"],
        &["removeGroupClient", "house", "eve"],
        &["removeGroupRole", "house", "reader"],
        &["removeClientRole", "bob", "reader"],
        &["deleteRole", "reader"],
        &["deleteRole", "reader"],
        &["deleteClient", "eve"],
        &["getClient", "eve"],
        &["listRoles"],
    ];
    let seen = |broker: &Broker| -> Vec<String> {
        let one = |arguments: &&[&str]| {
            let out = ctrl(broker, arguments);
            let texts = [&out.stdout, &out.stderr].map(|text| String::from_utf8_lossy(text));
            format!("{arguments:?}: {} {} {}", out.status, texts[0], texts[1])
        };
        script.iter().map(one).collect()
    };
    administrators(&file);
    let expected = seen(&of_mosquitto(&folder.0, &plugin, &file));
    administrators(&file);
    let broker = of_ringmq(&folder.0, &file);
    let shown = seen(&broker);
    for (expected, shown) in expected.iter().zip(&shown) {
        assert_eq!(expected, shown);
    }
    assert!(Client::connect_with(broker.address, "bob", "secret", "other").is_ok());
    let others_identifier = Client::connect_with(broker.address, "bob", "secret", "id");
    assert_eq!(others_identifier.err(), Some(NOT_AUTHORIZED));
    drop(broker);
    // A broker that starts again has it all.
    let broker = of_ringmq(&folder.0, &file);
    let shown = ctrl(&broker, &["listClients"]);
    assert_eq!(String::from_utf8_lossy(&shown.stdout), "bob\nroot\n");
}

#[test]
fn clients_whose_rights_change_are_disconnected() {
    let Some(plugin) = plugin() else { return };
    let folder = Folder::new("dynamic-kick");
    let file = folder.path("dynamic-security.json");
    let changes = [
        json!({ "command": "disableClient", "username": "bob" }),
        json!({ "command": "deleteClient", "username": "bob" }),
        json!({ "command": "setClientPassword", "username": "bob", "password": "other" }),
        json!({ "command": "setClientId", "username": "bob", "clientid": "other" }),
        json!({ "command": "addClientRole", "username": "bob", "rolename": "s" }),
        json!({ "command": "removeClientRole", "username": "bob", "rolename": "r" }),
        json!({ "command": "addGroupClient", "username": "bob", "groupname": "h" }),
        json!({ "command": "removeGroupClient", "username": "bob", "groupname": "g" }),
        json!({ "command": "addGroupRole", "groupname": "g", "rolename": "s" }),
        json!({ "command": "modifyClient", "username": "bob", "textname": "B" }),
        json!({ "command": "modifyGroup", "groupname": "g", "textname": "G" }),
        json!({ "command": "deleteGroup", "groupname": "g" }),
        json!({ "command": "deleteRole", "rolename": "r" }),
        json!({ "command": "addRoleACL", "rolename": "r", "acltype": "publishClientSend",
                "topic": "x" }),
    ];
    let kicks = |broker: &Broker, command: &Value| {
        let mut administrator = administrator(broker);
        answers(
            &mut administrator,
            &json!([
                { "command": "createRole", "rolename": "r" },
                { "command": "createRole", "rolename": "s" },
                { "command": "createGroup", "groupname": "g" },
                { "command": "createGroup", "groupname": "h" },
                { "command": "createClient", "username": "bob", "password": "b",
                  "roles": [{ "rolename": "r" }], "groups": [{ "groupname": "g" }] },
                { "command": "createClient", "username": "eve", "password": "e" },
            ]),
        );
        let bob = Client::connect_with(broker.address, "bob", "b", "bob").expect("it may connect");
        let mut eve =
            Client::connect_with(broker.address, "eve", "e", "eve").expect("it may connect");
        let answer = answers(&mut administrator, &json!([command]));
        let name = command["command"].as_str().expect("a name");
        assert_eq!(answer, json!({ "responses": [{ "command": name }] }));
        assert_eq!(bob.ended(), ADMINISTRATIVE_ACTION, "{command}");
        // Others stay.
        assert!(eve.delivered().is_empty());
        assert!(administrator.delivered().is_empty());
    };
    for (number, command) in changes.iter().enumerate() {
        administrators(&file);
        kicks(&of_ringmq(&folder.0, &file), command);
        // One shows that Mosquitto does the same; the others take long.
        if number == 0 {
            administrators(&file);
            kicks(&of_mosquitto(&folder.0, &plugin, &file), command);
        }
    }
}

#[test]
fn messages_below_control_are_commands_or_refused_and_reach_no_subscriber() {
    let folder = Folder::new("dynamic-control");
    let file = folder.path("dynamic-security.json");
    administrators(&file);
    let broker = of_ringmq(&folder.0, &file);
    let mut administrator = administrator(&broker);
    assert!(administrator.subscribe("$CONTROL/dynamic-security/#", &mut Vec::new()) < 0x80);
    let mut root = Client::connect_with(broker.address, "root", PASSWORD, "root").expect("root");
    // Its role allows both.
    assert_eq!(root.publish("$CONTROL/dynamic-security/v2", false), NOT_AUTHORIZED);
    assert_eq!(root.publish(ANSWERS, false), NOT_AUTHORIZED);
    assert!(root.publish(COMMANDS, true) < 0x80);
    let mut delivered = Vec::new();
    let patience = Instant::now() + Duration::from_secs(60);
    while delivered.is_empty() {
        assert!(Instant::now() < patience, "there is no answer");
        delivered = administrator.delivered();
    }
    assert_eq!(delivered, [ANSWERS]);
    // Nothing is retained.
    let mut late = Client::connect_with(broker.address, "root", PASSWORD, "late").expect("root");
    let mut retained = Vec::new();
    assert!(late.subscribe("$CONTROL/dynamic-security/#", &mut retained) < 0x80);
    retained.extend(late.delivered());
    assert!(retained.is_empty(), "{retained:?}");
}

#[test]
fn a_broker_that_cannot_keep_changes_does_not_start() {
    let folder = Folder::new("dynamic-unwritable");
    let file = folder.path("dynamic-security.json");
    administrators(&file);
    // The new file that would replace the old one cannot be made, whoever runs the test.
    std::fs::create_dir(folder.path("dynamic-security.json.new")).expect("a folder");
    let settings = folder.path("broker.toml");
    let text = format!("listen = \"127.0.0.1:0\"\n[access]\ndynamic_security = {file:?}\n");
    std::fs::write(&settings, text).expect("written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_broker"));
    let out = run(command.arg("--config").arg(&settings).args(["--data", "none"]), "");
    let error = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(!out.status.success(), "{error}");
    assert!(error.contains("access.dynamic_security: ") && error.contains("could not be kept"));
}
