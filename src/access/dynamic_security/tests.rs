//! Documents, what they decide, and commands.

use std::path::PathBuf;

use super::commands::{Change, execute};
use super::document::Document;
use super::*;
use crate::access::acl::{Subject, Wish};
use crate::engine::{Coverage, ReadRules, Reader};
use crate::wire::Qos;
use serde_json::{Value, json};

/// The hash of the password `pw`.
const SALT: &str = "MTIzNDU2Nzg5MDEy";
const HASH: &str =
    "YqSHXsIyFJNpOCjlyUKpSncPXuK0dbnignolAdISLS/UGu81OPDRwRMvhcln1vutrR/dtc+bRNwa5tpLKkORfg==";

fn document(value: &Value) -> Document {
    Document::read(&value.to_string(), 1).unwrap_or_else(|error| panic!("{error}")).0
}

fn security(value: &Value) -> Arc<Security> {
    Arc::new(Security::of(&document(value)))
}

fn acl(kind: &str, topic: &str, priority: i32, allow: bool) -> Value {
    json!({ "acltype": kind, "topic": topic, "priority": priority, "allow": allow })
}

/// A document with one role, that of `alice`.
fn with_role(acls: &[Value]) -> Value {
    json!({
        "roles": [{ "rolename": "r", "acls": acls }],
        "clients": [{ "username": "alice", "roles": [{ "rolename": "r" }] }],
    })
}

const ALICE: Subject<'static> = Subject { user: Some("alice"), client_identifier: "c1" };

fn publishes(security: &Security, who: &Subject<'_>, topic: &str) -> bool {
    let wish = Wish::Publish { topic, qos: Qos::AtMostOnce, retain: false };
    security.decide(who, &wish, &mut 0)
}

fn subscribes(security: &Security, who: &Subject<'_>, filter: &str) -> bool {
    security.decide(who, &Wish::Subscribe { filter, qos: Qos::AtMostOnce }, &mut 0)
}

#[test]
fn roles_of_a_client_go_before_those_of_its_groups_each_by_priority_and_equal_ones_by_name() {
    let role = |name: &str, allow: bool| json!({ "rolename": name, "acls": [acl("publishClientSend", "t", 0, allow)] });
    let decides = |own: Value, groups: Value| {
        let security = security(&json!({
            "roles": [role("no", false), role("yes", true)],
            "clients": [{ "username": "alice", "roles": own }],
            "groups": groups,
        }));
        publishes(&security, &ALICE, "t")
    };
    let ranked = |name: &str, priority: i32| json!({ "rolename": name, "priority": priority });
    let group = |name: &str, role: &str, priority: i32| {
        json!({
            "groupname": name, "roles": [{ "rolename": role }],
            "clients": [{ "username": "alice", "priority": priority }],
        })
    };
    assert!(decides(json!([ranked("no", 1), ranked("yes", 2)]), json!([])));
    assert!(!decides(json!([ranked("no", 2), ranked("yes", 1)]), json!([])));
    assert!(!decides(json!([ranked("yes", 1), ranked("no", 1)]), json!([])));
    assert!(!decides(json!([ranked("no", 0)]), json!([group("g", "yes", 9)])));
    assert!(decides(json!([]), json!([group("g", "no", 1), group("h", "yes", 2)])));
    assert!(!decides(json!([]), json!([group("h", "yes", 1), group("g", "no", 1)])));
}

#[test]
fn rules_of_a_role_go_by_priority_and_equal_ones_in_their_order() {
    let rule = |priority, allow| acl("publishClientSend", "#", priority, allow);
    let other = |priority, allow| acl("publishClientSend", "t", priority, allow);
    for (acls, expected) in [
        ([rule(0, false), other(1, true)], true),
        ([rule(2, false), other(1, true)], false),
        ([rule(1, false), other(1, true)], false),
        ([other(1, true), rule(1, false)], true),
    ] {
        assert_eq!(publishes(&security(&with_role(&acls)), &ALICE, "t"), expected, "{acls:?}");
    }
}

#[test]
fn defaults_never_open_control_topics_and_strangers_may_do_nothing() {
    let security = security(&json!({
        "defaultACLAccess": {
            "publishClientSend": true, "publishClientReceive": true, "subscribe": true,
            "unsubscribe": true,
        },
        "clients": [{ "username": "alice" }],
    }));
    for (topic, expected) in [("a", true), ("$a", true), ("$CONTROL/a", false), ("$CONTROL", false)]
    {
        assert_eq!(publishes(&security, &ALICE, topic), expected, "{topic}");
        assert_eq!(subscribes(&security, &ALICE, topic), expected, "{topic}");
        assert_eq!(security.may_unsubscribe(&ALICE, topic, &mut 0), expected, "{topic}");
        let coverage = security.coverage(&ALICE, topic, &mut 0);
        assert_eq!(coverage == Coverage::Whole, expected, "{topic}");
        let eve = Subject { user: Some("eve"), ..ALICE };
        assert!(!publishes(&security, &eve, topic) && !subscribes(&security, &eve, topic));
        assert_eq!(security.coverage(&eve, topic, &mut 0), Coverage::Nothing);
        let anonymous = Subject { user: None, ..ALICE };
        assert_eq!(publishes(&security, &anonymous, topic), expected, "{topic}");
    }
}

#[test]
fn a_pattern_about_subscriptions_fits_what_it_covers() {
    for (pattern, filter, expected) in [
        ("#", "#", true),
        ("#", "$SYS/#", true),
        ("#", "$share/g/a", true),
        ("a/#", "a", true),
        ("a/#", "a/#", true),
        ("a/#", "a/+/b", true),
        ("a/#", "b", false),
        ("a/#", "#", false),
        ("a/+", "a/b", true),
        ("a/+", "a/+", true),
        ("a/+", "a/#", false),
        ("a/+", "a/b/c", false),
        ("a/b", "a/+", false),
        ("+/#", "#", true),
        ("+/+", "a", false),
        ("%u/%c", "alice/c1", true),
        ("%u/%c", "alice/c2", false),
        ("%u/%c", "+/c1", false),
        ("x%u", "xalice", false),
        ("x%u", "x%u", true),
    ] {
        let security = security(&with_role(&[acl("subscribePattern", pattern, 0, true)]));
        assert_eq!(subscribes(&security, &ALICE, filter), expected, "{pattern} {filter}");
    }
}

#[test]
fn names_that_are_no_level_open_no_pattern() {
    let security = security(&json!({
        "roles": [{ "rolename": "r", "acls": [
            acl("publishClientSend", "u/%u/#", 0, true), acl("subscribePattern", "u/%u/#", 0, true),
        ] }],
        "clients": [
            { "username": "alice", "roles": [{ "rolename": "r" }] },
            { "username": "a/b", "roles": [{ "rolename": "r" }] },
            { "username": "+", "roles": [{ "rolename": "r" }] },
        ],
    }));
    assert!(publishes(&security, &ALICE, "u/alice/x"));
    assert!(!publishes(&security, &ALICE, "u/bob/x"));
    for (user, topic) in [("a/b", "u/a/b/x"), ("+", "u/+/x")] {
        let who = Subject { user: Some(user), ..ALICE };
        assert!(!publishes(&security, &who, "u/a/b/x"), "{user}");
        assert!(!subscribes(&security, &who, topic), "{user}");
    }
}

#[test]
fn a_shared_subscription_is_not_a_way_around_a_denied_filter() {
    let acls =
        [acl("subscribePattern", "secret/#", 1, false), acl("subscribePattern", "#", 0, true)];
    let security = security(&with_role(&acls));
    assert!(subscribes(&security, &ALICE, "$share/g/open/x"));
    assert!(!subscribes(&security, &ALICE, "$share/g/secret/x"));
    assert!(!subscribes(&security, &ALICE, "secret/x"));
}

#[test]
fn a_role_without_wildcards_refuses_them() {
    let mut value = with_role(&[acl("subscribePattern", "a/#", 0, true)]);
    value["roles"][0]["allowwildcardsubs"] = false.into();
    let security = security(&value);
    for (filter, expected) in [("a/b", true), ("a/+", false), ("a/#", false)] {
        assert_eq!(subscribes(&security, &ALICE, filter), expected, "{filter}");
    }
}

#[test]
fn deliveries_are_covered_in_whole_in_part_or_not_and_decided_by_topic() {
    let acls = [
        acl("publishClientReceive", "a/secret", 2, false),
        acl("publishClientReceive", "a/#", 1, true),
        acl("publishClientReceive", "own/%c", 0, true),
    ];
    let security = security(&with_role(&acls));
    for (filter, expected) in [
        ("a/#", Coverage::Part),
        ("a/b", Coverage::Whole),
        ("a/secret", Coverage::Nothing),
        ("#", Coverage::Part),
        ("b", Coverage::Nothing),
        ("own/c1", Coverage::Whole),
        ("own/+", Coverage::Part),
        ("$share/g/a/b", Coverage::Whole),
    ] {
        assert_eq!(security.coverage(&ALICE, filter, &mut 0), expected, "{filter}");
    }
    let rules = Receiving(security);
    for (topic, expected) in
        [("a/b", true), ("a/secret", false), ("b", false), ("own/c1", true), ("own/c2", false)]
    {
        let mut decisions = rules.decide(topic);
        for _ in 0..2 {
            let reader = Reader { user: Some("alice"), client_identifier: "c1", listener: 0 };
            assert_eq!(decisions.may_read(&reader), expected, "{topic}");
            let stranger = Reader { user: Some("eve"), client_identifier: "c1", listener: 0 };
            assert!(!decisions.may_read(&stranger));
        }
        assert!(decisions.steps() > 0);
    }
}

#[test]
fn clients_with_the_same_roles_are_decided_about_once_for_each_topic() {
    let clients: Vec<Value> = (0..100)
        .map(|n| json!({ "username": format!("u{n}"), "roles": [{ "rolename": "r" }] }))
        .collect();
    let acls: Vec<Value> =
        (0..800).map(|n| acl("publishClientReceive", &format!("t/{n}"), 0, true)).collect();
    let security = security(&json!({
        "roles": [{ "rolename": "r", "acls": acls }], "clients": clients,
    }));
    let rules = Receiving(security);
    let mut decisions = rules.decide("t/799");
    for n in 0..100 {
        let user = format!("u{n}");
        assert!(decisions.may_read(&Reader {
            user: Some(&user),
            client_identifier: "c",
            listener: 0
        }));
    }
    let steps = decisions.steps();
    assert!(
        (200..400).contains(&steps),
        "{steps} steps: one for each client, and 100 for the rules"
    );
}

#[test]
fn a_document_is_written_as_it_was_read() {
    let text = json!({
        "defaultACLAccess": {
            "publishClientSend": true, "publishClientReceive": false, "subscribe": true,
            "unsubscribe": false,
        },
        "clients": [
            { "username": "alice", "textname": "A", "textdescription": "D", "clientid": "c",
              "disabled": true, "password": HASH, "salt": SALT, "iterations": 101,
              "roles": [{ "rolename": "r", "priority": 2 }, { "rolename": "s" }] },
            { "username": "bob", "encoded_password": format!("$7$101${SALT}${HASH}"), "roles": [] },
        ],
        "groups": [{ "groupname": "g", "roles": [{ "rolename": "r" }],
            "clients": [{ "username": "bob", "priority": 5 }] }],
        "roles": [
            { "rolename": "r", "allowwildcardsubs": false,
              "acls": [acl("publishClientSend", "a", 1, true)] },
            { "rolename": "s", "acls": [acl("unsubscribePattern", "a/#", 0, false)] },
        ],
        "anonymousGroup": "g",
        "changeIndex": 7,
    });
    let written = document(&text).write().expect("it is small");
    assert_eq!(serde_json::from_slice::<Value>(&written).expect("JSON"), text);
}

#[test]
fn names_of_members_are_read_in_any_case_as_mosquitto_ctrl_writes_them() {
    let read = document(&json!({
        "Clients": [{ "userName": "alice", "textName": "A" }],
    }));
    assert_eq!(read.clients["alice"].texts.name.as_deref(), Some("A"));
}

#[test]
fn what_is_wrong_with_a_document_is_said_with_its_place() {
    let error = |text: &str| Document::read(text, 1).err().unwrap_or_default();
    assert!(error("{").contains("line 1"), "{}", error("{"));
    assert!(error("[]").contains("an object in JSON is expected"));
    assert!(error(r#"{"clients":5}"#).contains("clients: a list is expected"));
    let twice = r#"{"roles":[{"rolename":"r"},{"rolename":"r"}]}"#;
    assert!(error(twice).contains("roles: there are two with the rolename \"r\""));
    let password = json!({ "clients": [{ "username": "u", "encoded_password": "plain" }] });
    let what = error(&password.to_string());
    assert!(what.contains("the password of the client \"u\"") && !what.contains("plain"), "{what}");
    let dangling = json!({
        "clients": [{ "username": "u", "roles": [{ "rolename": "no" }] }],
        "groups": [{ "groupname": "g", "clients": [{ "username": "no" }] }],
        "anonymousGroup": "no",
    });
    assert_eq!(Document::read(&dangling.to_string(), 1).expect("it is left out").1, 3);
}

/// Executes commands on a document.
fn commanded(document: &mut Document, commands: &Value) -> Vec<Value> {
    let request = json!({ "commands": commands }).to_string();
    let mut change = Change { document, stamp: 2 };
    let text = execute(request.as_bytes(), &mut change).into_text();
    let answer: Value = serde_json::from_slice(&text).expect("JSON");
    answer["responses"].as_array().expect("a list").clone()
}

fn error_of(document: &mut Document, command: Value) -> String {
    let answers = commanded(document, &json!([command]));
    answers[0]["error"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn commands_that_name_what_is_not_there_change_nothing() {
    let mut document = document(&json!({
        "clients": [{ "username": "u" }],
        "groups": [{ "groupname": "g", "clients": [{ "username": "u" }] }],
        "anonymousGroup": "g",
    }));
    let before = document.write().expect("it is small");
    for (command, error) in [
        (json!({ "command": "createClient", "username": "" }), "Empty username"),
        (json!({ "command": "createGroup", "groupname": "" }), "Empty groupname"),
        (json!({ "command": "createRole", "rolename": "" }), "Empty rolename"),
        (
            json!({ "command": "createClient", "username": "v", "groups": [{ "groupname": "n" }] }),
            "Group not found",
        ),
        (
            json!({ "command": "modifyGroup", "groupname": "g", "clients": [{ "username": "n" }] }),
            "'clients' contains an object with a 'username' that does not exist",
        ),
        (
            json!({ "command": "modifyGroup", "groupname": "g", "clients": [{}] }),
            "'clients' contains an object with an invalid 'username'",
        ),
        (
            json!({ "command": "modifyClient", "username": "u", "groups": [{ "groupname": "n" }] }),
            "'groups' contains an object with a 'groupname' that does not exist",
        ),
        (
            json!({ "command": "deleteGroup", "groupname": "g" }),
            "Deleting the anonymous group is forbidden",
        ),
        (json!({ "command": "createClient", "username": "x".repeat(1_025) }), "username too long"),
        (
            json!({ "command": "createRole", "rolename": "r", "textname": "x".repeat(4_097) }),
            "textname too long",
        ),
        (
            json!({ "command": "createRole", "rolename": "r",
                    "acls": [acl("publishClientSend", "#/a", 0, true)] }),
            "Invalid ACL topic",
        ),
    ] {
        assert_eq!(error_of(&mut document, command), error);
    }
    assert_eq!(document.write().expect("it is small"), before);
}

#[test]
fn messages_with_too_much_in_them_are_refused_and_answers_are_bounded() {
    let mut document = Document::default();
    let mut change = Change { document: &mut document, stamp: 2 };
    let mut error = |request: &[u8]| {
        let text = execute(request, &mut change).into_text();
        let answer: Value = serde_json::from_slice(&text).expect("JSON");
        answer["responses"][0]["error"].as_str().unwrap_or_default().to_owned()
    };
    assert_eq!(error(&vec![b' '; limits::REQUEST_BYTES_MAX + 1]), "Payload too large");
    let many = json!({ "commands": vec![json!({}); limits::COMMANDS_MAX + 1] }).to_string();
    assert_eq!(error(many.as_bytes()), "Too many commands");
    // The names of these clients take more than an answer has.
    for n in 0..limits::ANSWER_BYTES_MAX / limits::NAME_BYTES_MAX + 10 {
        let name = format!("{n:0>width$}", width = limits::NAME_BYTES_MAX);
        document.clients.insert(name.into(), document::Client::default());
    }
    let list = json!({ "command": "listClients" });
    assert!(error_of(&mut document, list).contains("count and offset"));
    let parts = vec![json!({ "command": "listClients", "count": 1_000 }); 20];
    let mut change = Change { document: &mut document, stamp: 2 };
    let request = json!({ "commands": parts }).to_string();
    let text = execute(request.as_bytes(), &mut change).into_text();
    assert!(text.len() < 2 * limits::ANSWER_BYTES_MAX + 100_000, "{} bytes", text.len());
}

#[test]
fn a_document_has_so_many_entries_and_no_more() {
    let roles = |number: usize| {
        let roles: Vec<Value> =
            (0..number).map(|n| json!({ "rolename": format!("r{n}") })).collect();
        Document::read(&json!({ "roles": roles }).to_string(), 1).map(|(document, _)| document)
    };
    assert!(roles(limits::ENTRIES_MAX + 1).is_err());
    let mut full = roles(limits::ENTRIES_MAX).expect("it has room");
    assert!(full.write().is_ok());
    assert_eq!(error_of(&mut full, json!({ "command": "createRole", "rolename": "more" })), "");
    assert!(full.write().expect_err("it is full").contains("100000 entries"));
}

#[test]
fn only_clients_whose_rights_change_are_marked() {
    let start = json!({
        "roles": [{ "rolename": "r" }, { "rolename": "s" }],
        "clients": [
            { "username": "a", "roles": [{ "rolename": "r" }] }, { "username": "b" },
            { "username": "c" },
        ],
        "groups": [
            { "groupname": "g", "roles": [{ "rolename": "r" }], "clients": [{ "username": "b" }] },
        ],
        "anonymousGroup": "g",
    });
    let marked = |command: Value| {
        let mut document = document(&start);
        let answers = commanded(&mut document, &json!([command]));
        assert!(answers[0].get("error").is_none(), "{answers:?}");
        let all = document.clients.iter().filter(|(_, client)| client.stamp == 2);
        let mut marked: String = all.map(|(name, _)| &**name).collect();
        if document.anonymous_stamp == 2 {
            marked.push('-');
        }
        marked
    };
    for (command, expected) in [
        (json!({ "command": "enableClient", "username": "a" }), ""),
        (json!({ "command": "disableClient", "username": "a" }), "a"),
        (json!({ "command": "deleteRole", "rolename": "r" }), "ab-"),
        (json!({ "command": "deleteRole", "rolename": "s" }), ""),
        (json!({ "command": "modifyRole", "rolename": "r", "textname": "R" }), ""),
        (json!({ "command": "modifyRole", "rolename": "r", "allowwildcardsubs": false }), "ab-"),
        (json!({ "command": "addGroupRole", "groupname": "g", "rolename": "s" }), "b-"),
        (json!({ "command": "addGroupClient", "groupname": "g", "username": "c" }), "c"),
        (
            json!({ "command": "modifyGroup", "groupname": "g", "clients": [{ "username": "c" }] }),
            "bc-",
        ),
        (json!({ "command": "setAnonymousGroup", "groupname": "g" }), "-"),
        (json!({ "command": "setDefaultACLAccess", "acls": [] }), ""),
    ] {
        assert_eq!(marked(command.clone()), expected, "{command}");
    }
}

/// A folder that is removed at the end of the test, with a document in it.
struct File(PathBuf);

impl File {
    fn new(name: &str, value: &Value) -> Self {
        let folder =
            std::env::temp_dir().join(format!("ringmq-dynamic-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).expect("a folder");
        let file = Self(folder);
        std::fs::write(file.path(), value.to_string()).expect("written");
        file
    }

    fn path(&self) -> PathBuf {
        self.0.join("d.json")
    }

    /// Nothing can be written any more: the name of the new file is that of a folder.
    fn block(&self) {
        std::fs::create_dir(self.0.join("d.json.new")).expect("a folder");
    }

    fn control(&self) -> Result<Arc<Control>, AccessError> {
        let mut settings = crate::config::Settings::default();
        settings.access.hashing.memory_kib = 8;
        settings.access.hashing.iterations = 1;
        settings.access.dynamic_security = self.path();
        Control::open(&settings).map(|control| control.expect("it is asked for"))
    }

    fn read(&self) -> Value {
        let text = std::fs::read(self.path()).expect("a file");
        serde_json::from_slice(&text).expect("JSON")
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn request(commands: &Value) -> Request {
    Request {
        payload: json!({ "commands": commands }).to_string().into_bytes().into(),
        user: Some("admin".into()),
        client_identifier: "ctrl".into(),
    }
}

fn answer_of(control: &Control, commands: &Value) -> Value {
    let text = control.execute(&request(commands)).expect("there is dynamic security");
    serde_json::from_slice(&text).expect("JSON")
}

#[test]
fn a_change_is_in_the_file_and_in_force_before_it_is_answered() {
    let file = File::new("change", &with_role(&[]));
    let control = file.control().expect("the file can be read");
    assert!(!publishes(control.snapshot.load().security.as_ref().expect("it is on"), &ALICE, "t"));
    let add = json!([{ "command": "addRoleACL", "rolename": "r", "acltype": "publishClientSend",
                       "topic": "t", "allow": true }]);
    assert_eq!(answer_of(&control, &add), json!({ "responses": [{ "command": "addRoleACL" }] }));
    assert_eq!(file.read()["roles"][0]["acls"][0]["topic"], "t");
    assert!(publishes(control.snapshot.load().security.as_ref().expect("it is on"), &ALICE, "t"));
    let counts = control.counts();
    assert_eq!((counts.dynamic_security_commands, counts.dynamic_security_errors), (1, 0));
}

#[test]
fn a_change_that_cannot_be_written_changes_nothing_and_a_broker_that_cannot_write_does_not_start() {
    let file = File::new("unwritable", &with_role(&[]));
    let control = file.control().expect("the file can be read");
    assert!(control.check_writable().is_ok());
    assert_eq!(file.read(), with_role(&[]), "the check leaves the file as it is");
    file.block();
    let commands = json!([{ "command": "deleteRole", "rolename": "r" },
                          { "command": "getRole", "rolename": "r" }]);
    let answer = answer_of(&control, &commands);
    // What was asked after the change is not so.
    for answer in answer["responses"].as_array().expect("a list") {
        let error = answer["error"].as_str().expect("an error");
        assert!(error.contains("cannot be written, nothing has changed"), "{error}");
    }
    assert_eq!(file.read(), with_role(&[]));
    let roles = json!([{ "command": "listRoles" }]);
    let listed = answer_of(&control, &roles);
    assert_eq!(listed["responses"][0]["data"]["roles"], json!(["r"]));
    let error = control.check_writable().expect_err("it cannot be written").to_string();
    assert!(error.starts_with("access.dynamic_security: ") && error.contains("d.json"), "{error}");
    assert_eq!(control.counts().dynamic_security_errors, 2);
}

#[test]
fn a_reload_reads_the_file_again_and_keeps_what_commands_have_changed_meanwhile() {
    let file = File::new("reload", &with_role(&[]));
    let control = file.control().expect("the file can be read");
    let mut settings = crate::config::Settings::default();
    settings.access.hashing.memory_kib = 8;
    settings.access.hashing.iterations = 1;
    settings.access.dynamic_security = file.path();
    let mark = |control: &Control| {
        control.snapshot.load().security.as_ref().expect("it is on").stamp(Some("alice"))
    };
    let before = mark(&control);
    let allow = with_role(&[acl("publishClientSend", "t", 0, true)]);
    std::fs::write(file.path(), allow.to_string()).expect("written");
    control.prepare(&settings).expect("the file can be read").put_in_force();
    assert!(publishes(control.snapshot.load().security.as_ref().expect("it is on"), &ALICE, "t"));
    assert_eq!(mark(&control), before, "alice stays connected");
    let prepared = control.prepare(&settings).expect("the file can be read");
    answer_of(&control, &json!([{ "command": "createRole", "rolename": "new" }]));
    prepared.put_in_force();
    let listed = answer_of(&control, &json!([{ "command": "listRoles" }]));
    assert_eq!(listed["responses"][0]["data"]["roles"], json!(["new", "r"]));
}

#[test]
fn nothing_else_decides_beside_dynamic_security() {
    let file = File::new("alone", &with_role(&[]));
    let rules = file.0.join("acl.txt");
    std::fs::write(&rules, "for everyone\n    allow all #\n").expect("written");
    let mut settings = crate::config::Settings::default();
    settings.access.dynamic_security = file.path();
    settings.access.acl_file = rules;
    let error = Control::open(&settings).err().expect("both decide").to_string();
    assert!(error.contains("access.acl_file: cannot be combined with access.dynamic_security"));
    settings.access.acl_file = PathBuf::new();
    settings.access.dynamic_security = file.0.join("no.json");
    let error = Control::open(&settings).err().expect("there is no file").to_string();
    assert!(error.contains("mosquitto_ctrl dynsec init"), "{error}");
}

#[test]
fn users_of_the_file_log_in_by_both_forms_of_passwords_and_hide_others() {
    let file = File::new(
        "users",
        &json!({
            "clients": [
                { "username": "old", "password": HASH, "salt": SALT, "iterations": 101 },
                { "username": "new", "encoded_password": format!("$7$101${SALT}${HASH}") },
                { "username": "none" },
            ],
        }),
    );
    let control = file.control().expect("the file can be read");
    let passwords = Arc::clone(&control.snapshot.load().passwords);
    for (user, password, expected) in [
        ("old", "pw", true),
        ("old", "other", false),
        ("new", "pw", true),
        ("none", "", false),
        ("none", "pw", false),
        ("eve", "pw", false),
    ] {
        let is_right = passwords.verify(user, password.as_bytes()).expect("memory is there");
        assert_eq!(is_right, expected, "{user} {password}");
    }
}
