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

/// A folder with files of users, which is removed at the end of the test.
struct Users(PathBuf);

impl Users {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("ringmq-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).expect("a folder");
        Self(folder)
    }

    /// Writes a file of one user.
    fn write(&self, file: &str, user: &str, password: &str) -> PathBuf {
        let path = self.0.join(file);
        let _ = std::fs::remove_file(&path);
        let hashing =
            config::Hashing { memory_kib: 8, iterations: 1, ..config::Hashing::default() };
        password_file::add(&path, user, password, &hashing).expect("written");
        path
    }
}

impl Drop for Users {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Settings with a listener for the users of `access`, one with users of its own, and one for anonymous clients.
fn three_listeners(of_all: &Path, own: &Path) -> Settings {
    let listener = |port: u16| Listener::tcp(([127, 0, 0, 1], port).into());
    let mut settings = Settings::default();
    settings.access.hashing.memory_kib = 8;
    settings.access.hashing.iterations = 1;
    settings.access.password_file = of_all.to_owned();
    settings.access.anonymous = Anonymous::No;
    settings.listen = Vec::new();
    settings.listeners = vec![listener(1), listener(2), listener(3)];
    settings.listeners[1].password_file = own.to_owned();
    settings.listeners[2].anonymous = Some(true);
    settings
}

/// Whether a client is admitted through a listener as this user.
fn is_admitted(
    (access, notified): &mut (CoreAccess, mpsc::Receiver<()>),
    (listener, exchange): (u16, u64),
    user: &str,
    password: &str,
) -> bool {
    let who = Credentials { listener, ..who(Some(user), Some(password.as_bytes())) };
    match access.authenticate(Now(0), exchange, &who) {
        Authentication::Pending => {
            notified.recv().expect("a notification");
            let answer = access.poll_answer(Now(0));
            matches!(answer, Some((of, Authentication::Granted(_))) if of == exchange)
        }
        other => matches!(other, Authentication::Granted(_)),
    }
}

#[test]
fn a_listener_with_a_password_file_knows_its_users_and_no_others() {
    let users = Users::new("own-users");
    let of_all = users.write("all", "alice", "secret");
    let own = users.write("own", "bob", "hush");
    let settings = three_listeners(&of_all, &own);
    let control = Control::open(&settings).expect("nothing is wrong").expect("something is asked");
    let mut core = core(&control);
    let cases = [
        (0, "alice", "secret", true),
        (0, "bob", "hush", false),
        (1, "bob", "hush", true),
        (1, "bob", "secret", false),
        (1, "alice", "secret", false),
        (2, "alice", "secret", true),
        (2, "bob", "hush", false),
    ];
    for (exchange, (listener, user, password, expected)) in (1..).zip(cases) {
        let admitted = is_admitted(&mut core, (listener, exchange), user, password);
        assert_eq!(admitted, expected, "{user} through {listener}");
    }
    let anonymous = |listener| Credentials { listener, ..who(None, None) };
    for (listener, expected) in [(0, false), (1, false), (2, true)] {
        let answer = core.0.authenticate(Now(0), 50, &anonymous(listener));
        assert_eq!(matches!(answer, Authentication::Granted(_)), expected, "{listener}");
    }
}

#[test]
fn a_reload_reads_the_password_files_of_listeners_anew_and_leaves_them_if_one_is_wrong() {
    let users = Users::new("own-users-reload");
    let of_all = users.write("all", "alice", "secret");
    let own = users.write("own", "bob", "hush");
    let settings = three_listeners(&of_all, &own);
    let control = Control::open(&settings).expect("nothing is wrong").expect("something is asked");
    let mut core = core(&control);
    assert!(is_admitted(&mut core, (1, 1), "bob", "hush"));
    assert!(is_admitted(&mut core, (0, 2), "alice", "secret"));
    std::fs::write(&own, "no line of a password file\n").expect("written");
    let error = control.prepare(&settings).map(drop).expect_err("it is wrong").to_string();
    assert!(
        error.starts_with("[[listeners]] password_file: ") && error.contains("own:1:"),
        "{error}"
    );
    assert_eq!(core.0.withdrawn(1), None, "nothing has changed");
    users.write("own", "bob", "another");
    let reload = |settings: &Settings| {
        control.prepare(settings).expect("nothing is wrong").put_in_force();
    };
    reload(&settings);
    core.1.recv().expect("the core is told");
    assert_eq!(core.0.withdrawn(1), Some(ReasonCode::AdministrativeAction));
    assert_eq!(core.0.withdrawn(2), None, "she is of another file");
    assert!(!is_admitted(&mut core, (1, 3), "bob", "hush"));
    assert!(is_admitted(&mut core, (1, 4), "bob", "another"));
    // Without a file of its own, the listener has the users of all.
    let mut without = settings.clone();
    without.listeners[1].password_file = PathBuf::new();
    reload(&without);
    core.1.recv().expect("the core is told");
    assert_eq!(core.0.withdrawn(4), Some(ReasonCode::NotAuthorized));
    assert!(is_admitted(&mut core, (1, 5), "alice", "secret"));
}

#[test]
fn clients_of_a_listener_that_is_removed_with_its_users_stay() {
    let users = Users::new("own-users-gone");
    let of_all = users.write("all", "alice", "secret");
    let own = users.write("own", "bob", "hush");
    let settings = three_listeners(&of_all, &own);
    let control = Control::open(&settings).expect("nothing is wrong").expect("something is asked");
    let mut core = core(&control);
    assert!(is_admitted(&mut core, (1, 1), "bob", "hush"));
    let running = config::Configuration::from(settings.clone());
    let mut wanted = settings;
    wanted.listeners.remove(1);
    let wanted = config::Configuration::from(wanted);
    let taken = running.take_over(&wanted, &config::keys::is_live).expect("valid");
    control.prepare(&taken.settings).expect("nothing is wrong").put_in_force();
    core.1.recv().expect("the core is told");
    assert_eq!(core.0.withdrawn(1), None);
    assert!(!is_admitted(&mut core, (1, 2), "bob", "hush"), "nobody new comes through it");
}

#[cfg(feature = "dynamic-security")]
#[test]
fn a_listener_has_no_users_of_its_own_beside_dynamic_security() {
    let users = Users::new("own-users-dynamic");
    let own = users.write("own", "bob", "hush");
    let mut settings = three_listeners(Path::new(""), &own);
    settings.access.dynamic_security = users.0.join("dynamic.json");
    let error = Control::open(&settings).map(drop).expect_err("both are set").to_string();
    assert!(error.starts_with("[[listeners]] password_file: cannot be combined"), "{error}");
}
