//! The access control of a core as the engine uses it, with time and connections in the test's
//! hands.

/// Requests that servers of tests read.
#[cfg(feature = "http-hook")]
#[path = "../../../tests/support/http.rs"]
pub mod request;

use std::sync::mpsc;

use super::*;
use crate::base::clock::Now;
use crate::engine::{
    Access, Authentication, Cause, Credentials, Decision, Grant, Identity, Rejection,
};
use crate::wire::{Qos, ReasonCode};

fn control(change: impl FnOnce(&mut Settings)) -> Arc<Control> {
    let mut settings = Settings::default();
    settings.access.hashing.memory_kib = 8;
    settings.access.hashing.iterations = 1;
    settings.access.anonymous = Anonymous::No;
    change(&mut settings);
    Control::open(&settings).expect("nothing is wrong").expect("something is asked")
}

fn who<'a>(username: Option<&'a str>, password: Option<&'a [u8]>) -> Credentials<'a> {
    Credentials {
        client_identifier: "c",
        username,
        password,
        method: None,
        address: None,
        listener: 0,
        certificate: None,
        replaces: None,
    }
}

/// A core, and the notifications for it.
fn core(control: &Arc<Control>) -> (CoreAccess, mpsc::Receiver<()>) {
    let (sender, notified) = mpsc::channel();
    let notify: Notify = Arc::new(move || sender.send(()).expect("the test listens"));
    (control.for_core(notify), notified)
}

#[test]
fn a_hash_is_never_computed_on_the_core_and_its_answer_notifies_the_core() {
    let control = control(|_| {});
    let (mut access, notified) = core(&control);
    let pending = access.authenticate(Now(0), 7, &who(Some("eve"), Some(b"x")));
    // Without a password file nobody is known: that needs no hash.
    let refused = Rejection::new(ReasonCode::NotAuthorized, Cause::UnknownUser);
    assert_eq!(pending, Authentication::Refused(refused));
    drop(access);
    let folder = std::env::temp_dir().join(format!("ringmq-core-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let path = folder.join("passwords");
    let _ = std::fs::remove_file(&path);
    password_file::add(&path, "alice", "secret", &lock(&control.state).asked.access.hashing)
        .expect("written");
    let control = self::control(|settings| settings.access.password_file.clone_from(&path));
    let (mut access, _) = core(&control);
    assert_eq!(control.pools.load().processor.threads(), 0, "no thread before there is work");
    drop(notified);
    let (mut alice, notified) = core(&control);
    let right = who(Some("alice"), Some(b"secret"));
    assert_eq!(alice.authenticate(Now(0), 7, &right), Authentication::Pending);
    notified.recv().expect("a notification");
    let grant = Grant { user: Some("alice".into()), ..Grant::default() };
    assert_eq!(alice.poll_answer(Now(0)), Some((7, Authentication::Granted(grant))));
    assert_eq!(alice.poll_answer(Now(0)), None);
    // An answer for a connection that is gone is nobody's.
    assert_eq!(alice.authenticate(Now(0), 8, &right), Authentication::Pending);
    alice.forget(8);
    notified.recv().expect("a notification");
    assert_eq!(alice.poll_answer(Now(0)), None);
    assert_eq!(access.poll_answer(Now(0)), None);
    std::fs::remove_dir_all(folder).expect("removed");
}

#[test]
fn the_name_in_a_certificate_is_the_clients_where_that_is_wanted() {
    let certificate = crate::base::identity::CertificateIdentity {
        name: Some("meter-7".into()),
        ..crate::base::identity::CertificateIdentity::default()
    };
    let who = Credentials { certificate: Some(&certificate), ..who(Some("alice"), Some(b"x")) };
    let (mut access, _bell) = core(&control(|_| {}));
    let grant = Grant { user: Some("meter-7".into()), ..Grant::default() };
    assert_eq!(access.authenticate(Now(0), 1, &who), Authentication::Granted(grant));
    let (mut access, _bell) = core(&control(|settings| settings.access.certificate_names = false));
    let refused = Rejection::new(ReasonCode::NotAuthorized, Cause::UnknownUser);
    let refused = Authentication::Refused(refused);
    assert_eq!(access.authenticate(Now(0), 1, &who), refused);
    let nameless = crate::base::identity::CertificateIdentity::default();
    let who = Credentials { certificate: Some(&nameless), ..who };
    let (mut access, _bell) = core(&control(|_| {}));
    assert_eq!(access.authenticate(Now(0), 1, &who), refused, "it is nobody's certificate");
}

#[test]
fn one_connection_never_has_the_rights_of_another_in_its_place() {
    let folder = std::env::temp_dir().join(format!("ringmq-place-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let acl = folder.join("acl");
    std::fs::write(&acl, "for user alice\n allow all #\n").expect("written");
    let control = control(|settings| {
        settings.access.acl_file.clone_from(&acl);
        settings.access.anonymous = Anonymous::Yes;
    });
    let (mut access, _bell) = core(&control);
    let client_identifier = shards::Text::new("c");
    let may = |access: &mut CoreAccess, exchange| {
        let who = Identity { exchange, client_identifier: &client_identifier };
        access.may_publish(Now(0), &who, "t", Qos::AtMostOnce, false) == Decision::Allowed(())
    };
    let certificate = crate::base::identity::CertificateIdentity {
        name: Some("alice".into()),
        ..crate::base::identity::CertificateIdentity::default()
    };
    let alice = Credentials { certificate: Some(&certificate), ..who(None, None) };
    let (first, second) = (1 << 32 | 5, 2 << 32 | 5);
    access.authenticate(Now(0), first, &alice);
    assert!(may(&mut access, first));
    access.forget(first);
    assert!(!may(&mut access, first), "it is gone");
    access.authenticate(Now(0), second, &who(None, None));
    assert!(!may(&mut access, second));
    std::fs::remove_dir_all(folder).expect("removed");
}

#[test]
fn where_nothing_is_asked_there_is_nothing_to_ask() {
    assert!(Control::open(&Settings::default()).expect("nothing is wrong").is_none());
    let opens = |change: &dyn Fn(&mut Settings)| {
        let mut settings = Settings::default();
        change(&mut settings);
        Control::open(&settings).expect("nothing is wrong").is_some()
    };
    assert!(opens(&|settings| settings.listen = vec!["0.0.0.0:1".parse().expect("an address")]));
    assert!(opens(&|settings| settings.access.anonymous = Anonymous::No));
    assert!(opens(&|settings| settings.protection.flaps_max = 1));
    let pages = |origins: &[&str]| {
        opens(&|settings| {
            let mut for_pages = Listener::tcp("127.0.0.1:1".parse().expect("an address"));
            for_pages.transport = crate::config::Transport::Ws;
            let origins = origins.iter().map(|origin| origin.parse().expect("an origin"));
            for_pages.websocket.origins = origins.collect();
            settings.listeners.push(for_pages);
        })
    };
    assert!(pages(&[]), "a page of any site can connect to loopback");
    assert!(pages(&["https://example.org", "*"]), "the same");
    assert!(!pages(&["https://example.org"]));
    assert!(opens(&|settings| {
        let mut behind_proxy = Listener::tcp("127.0.0.1:1".parse().expect("an address"));
        behind_proxy.transport = crate::config::Transport::Ws;
        behind_proxy.websocket.origins = vec!["https://example.org".parse().expect("an origin")];
        behind_proxy.websocket.forwarded_for_from = vec!["127.0.0.1".parse().expect("a proxy")];
        settings.listeners.push(behind_proxy);
    }));
    assert!(opens(&|settings| {
        let mut behind_proxy = Listener::tcp("127.0.0.1:1".parse().expect("an address"));
        behind_proxy.proxy_protocol_from = vec!["127.0.0.0/8".parse().expect("a network")];
        settings.listeners.push(behind_proxy);
    }));
}

#[cfg(feature = "jwt")]
#[test]
fn rules_of_a_token_are_held_as_long_as_their_connection() {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
    let folder = std::env::temp_dir().join(format!("ringmq-grants-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let (keys, secret) = (folder.join("keys"), [7; 32]);
    let set = format!(r#"{{"keys": [{{"kty": "oct", "k": "{}"}}]}}"#, BASE64.encode(secret));
    std::fs::write(&keys, set).expect("written");
    let control = control(|settings| settings.access.jwt.key_set.clone_from(&keys));
    let (mut access, notified) = core(&control);
    let topic = "a/b/c/d/".repeat(20) + &"x".repeat(500);
    let claims = format!(r#"{{"sub":"alice","exp":4102444800,"acl":{{"pub":["{topic}"]}}}}"#);
    let text = format!("{}.{}", BASE64.encode(r#"{"alg":"HS256"}"#), BASE64.encode(claims));
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &secret);
    let token = format!("{text}.{}", BASE64.encode(ring::hmac::sign(&key, text.as_bytes())));
    assert_eq!(access.held_bytes(), 0);
    let who = who(Some("a"), Some(token.as_bytes()));
    assert_eq!(access.authenticate(Now(0), 3, &who), Authentication::Pending);
    notified.recv().expect("a notification");
    let (_, answer) = access.poll_answer(Now(0)).expect("an answer");
    assert!(matches!(answer, Authentication::Granted(_)), "{answer:?}");
    let held = access.held_bytes();
    assert!((topic.len()..10_000).contains(&held), "{held}");
    let client_identifier = shards::Text::new("c");
    let may = |access: &mut CoreAccess, exchange, topic: &str| {
        let who = Identity { exchange, client_identifier: &client_identifier };
        access.may_publish(Now(0), &who, topic, Qos::AtMostOnce, false) == Decision::Allowed(())
    };
    assert!(may(&mut access, 3, &topic) && !may(&mut access, 3, "x"));
    assert!(may(&mut access, 4, "x"), "another client has no token with rules");
    access.forget(3);
    assert_eq!(access.held_bytes(), 0);
    std::fs::remove_dir_all(folder).expect("removed");
}
