//! What bridges may do, and who may act as one.

use crate::folder::Folder;
use crate::support::{Broker, Client, Connect, Publish, reason};
use crate::{SETUPS, Site, Witness, at_once, connected, flows, logged, publish};

const RULES: &str = "\
[[bridges.out]]
filter = \"t/#\"
[[bridges.in]]
filter = \"cmd/#\"
[[bridges.in]]
filter = \"secret/#\"
";

const ACL: &str = "\
for user bridge
  allow subscribe t/#
  allow publish qos<=1 cmd/#
for anonymous
  allow all #
";

/// Two brokers; at the near one these rules decide what `user` may do.
fn pair(setup: &str, user: &str, acl: &str, rules: &str) -> (Broker, Broker, Folder) {
    let number = crate::NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let folder = Folder::new(&format!("acl-{number}"));
    let file = folder.write("acl", acl);
    let far = Site::new(setup);
    let near = Site::new(setup)
        .with(&format!("[access]\nanonymous = true\nacl_file = {file:?}"))
        .bridge("far", far.address, &format!("user = {user:?}\n{rules}"));
    (far.start(), near.start(), folder)
}

#[test]
fn a_client_may_not_use_the_identifier_of_a_bridge() {
    at_once(SETUPS.iter().copied(), |setup| {
        let far = crate::free_address();
        let near = Site::new(setup).bridge("far", far, RULES).start();
        for identifier in ["$bridge/far", "$bridge/other", "$bridge/"] {
            Client::refused(&near, Connect::v5(identifier), reason::CLIENT_IDENTIFIER_NOT_VALID);
            Client::refused(&near, Connect::v311(identifier), 2);
        }
        Client::connect(&near, Connect::v5("bridge/far"));
    });
}

#[test]
fn what_the_user_of_a_bridge_may_not_publish_does_not_come_in() {
    at_once(SETUPS.iter().copied(), |setup| {
        let (far, near, _folder) = pair(setup, "bridge", ACL, RULES);
        connected(&near, 1);
        flows(&far, "cmd/probe", &near, "cmd/probe");
        let mut here = Witness::at(&near, "#");
        let mut client = Client::connect(&far, Connect::v5("publisher"));
        for (number, topic) in ["secret/a", "secret/b", "cmd/a"].into_iter().enumerate() {
            client.publish(Publish::new(topic, "denied").qos(2, number as u16 + 1));
            client.publish(Publish::new("secret/c", "denied").qos(1, 9));
            client.publish(Publish::new("secret/c", "denied"));
        }
        client.publish(Publish::new("cmd/b", "allowed").qos(1, 4));
        assert_eq!(here.texts(1), ["allowed"], "{setup}");
        // And out.
        let mut there = Witness::at(&far, "t/#");
        publish(&near, Publish::new("t/a", "out").qos(2, 1));
        assert_eq!(there.texts(1), ["out"], "{setup}");
    });
}

#[test]
fn what_the_user_of_a_bridge_may_not_subscribe_to_does_not_go_out_and_is_in_the_log() {
    let rules = "[[bridges.out]]\nfilter = \"t/#\"\n[[bridges.out]]\nfilter = \"hidden/#\"\n";
    at_once(SETUPS.iter().copied(), |setup| {
        let (far, near, _folder) = pair(setup, "bridge", ACL, rules);
        logged(&near, "hidden/#", 1);
        connected(&near, 1);
        let mut there = Witness::at(&far, "#");
        publish(&near, Publish::new("hidden/a", "denied").qos(1, 1));
        publish(&near, Publish::new("t/a", "allowed").qos(1, 1));
        assert_eq!(there.texts(1), ["allowed"], "{setup}");
    });
}

#[test]
fn rules_do_not_apply_to_a_bridge_without_user() {
    let acl = "for user alice\n  allow all #\nfor client witness*\n  allow subscribe #\n\
               for client publisher*\n  allow publish #\n\
               for client flow*\n  allow subscribe #\n";
    at_once(SETUPS.iter().copied(), |setup| {
        let (far, near, _folder) = pair(setup, "", acl, RULES);
        connected(&near, 1);
        flows(&far, "cmd/probe", &near, "cmd/probe");
        let mut here = Witness::at(&near, "#");
        publish(&far, Publish::new("secret/a", "in").qos(2, 1));
        assert_eq!(here.texts(1), ["in"], "{setup}");
        let mut there = Witness::at(&far, "t/#");
        publish(&near, Publish::new("t/a", "out").qos(2, 1));
        assert_eq!(there.texts(1), ["out"], "{setup}");
    });
}

#[test]
fn a_bridge_logs_in_with_name_and_password_of_its_file_as_it_is_then() {
    let setup = crate::ONE_SETUP;
    let folder = Folder::new("login");
    let file = folder.write("password", "wrong\n");
    let passwords = folder.path("passwords");
    let mut passwd = std::process::Command::new(env!("CARGO_BIN_EXE_broker"))
        .args(["passwd", "--file", &passwords, "add", "plant7"])
        .stdin(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("the command runs");
    let mut stdin = passwd.stdin.take().expect("piped");
    std::io::Write::write_all(&mut stdin, b"right\nright\n").expect("taken");
    drop(stdin);
    assert!(passwd.wait().expect("it exits").success());
    let far = Site::new(setup)
        .with(&format!("[access]\nanonymous = true\npassword_file = {passwords:?}"));
    let near = Site::new(setup).bridge(
        "far",
        far.address,
        &format!("username = \"plant7\"\npassword_file = {file:?}\n{RULES}"),
    );
    let (far, near) = (far.start(), near.start());
    logged(&near, "has refused the connection", 1);
    assert!(!near.log().contains("wrong"), "no password is in the log");
    folder.write("password", "right\n");
    connected(&near, 1);
    let mut there = Witness::at(&far, "t/#");
    publish(&near, Publish::new("t", "x").qos(1, 1));
    assert_eq!(there.texts(1), ["x"]);
}
