//! Questions of a core to a server, and its cache.

use std::io::{BufReader, Write};
use std::net::TcpListener;
use std::sync::mpsc::{self, Receiver};

use shards::Text;

use super::*;
use crate::access::tests::request;
use crate::access::{Settings, core::CoreAccess};
use crate::config::Anonymous;
use crate::engine::{Access, Decision, Identity};
use crate::wire::Qos;

/// A server that gives these answers, the last one again and again, and what it is asked.
fn serve(answers: &'static [&'static str]) -> (String, Receiver<serde_json::Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}/", listener.local_addr().expect("it listens"));
    let (asked, questions) = mpsc::channel();
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let mut reader = BufReader::new(stream.expect("a connection"));
            let Ok(Some((_, body))) = request::read_request(&mut reader) else { continue };
            let _ = asked.send(serde_json::from_slice(&body).expect("JSON"));
            let answer = answers[number.min(answers.len() - 1)];
            let head = format!("HTTP/1.1 {answer}");
            let _ = reader.get_mut().write_all(head.as_bytes());
        }
    });
    (url, questions)
}

const YES: &str = "200 OK\r\nConnection: close\r\nContent-Length: 15\r\n\r\n{\"allow\": true}";
const NO: &str = "200 OK\r\nConnection: close\r\nContent-Length: 16\r\n\r\n{\"allow\": false}";
const FORBIDDEN: &str = "403 Forbidden\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
const BROKEN: &str = "500 Oops\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

/// A core that asks a server, and its notifications.
struct Core {
    control: Arc<Control>,
    access: CoreAccess,
    notified: Receiver<()>,
}

impl Core {
    fn new(url: &str, change: impl FnOnce(&mut config::Access)) -> Self {
        let mut settings = Settings::default();
        settings.access.anonymous = Anonymous::Yes;
        settings.access.authorization.url = url.to_owned();
        change(&mut settings.access);
        let control = Control::open(&settings).expect("valid").expect("a server is asked");
        let (sender, notified) = mpsc::channel();
        let access = control.for_core(Arc::new(move || {
            // The test may be over.
            let _ = sender.send(());
        }));
        Self { control, access, notified }
    }

    fn publish(&mut self, now: Now, exchange: u64, topic: &str) -> Decision {
        let client_identifier = Text::new("c");
        let who = Identity { exchange, client_identifier: &client_identifier };
        self.access.may_publish(now, &who, topic, Qos::AtLeastOnce, false)
    }

    /// Waits for an answer, and returns the connection that it is for.
    fn answer(&mut self, now: Now) -> Option<u64> {
        self.notified.recv_timeout(Duration::from_secs(20)).expect("an answer");
        self.access.poll_decided(now)
    }

    /// The decision after it was pending.
    fn decided(&mut self, now: Now, topic: &str) -> Decision {
        assert_eq!(self.publish(now, 5, topic), Decision::Pending, "{topic}");
        assert_eq!(self.publish(now, 5, topic), Decision::Pending, "asked once");
        assert_eq!(self.answer(now), Some(5));
        self.publish(now, 5, topic)
    }

    fn counts(&self) -> (u64, u64, u64) {
        let counts = self.control.counts();
        (counts.authorization_asked, counts.authorization_failed, counts.authorization_cached)
    }
}

#[test]
fn a_server_is_asked_once_for_each_client_action_and_topic_while_its_answer_holds() {
    let (url, questions) = serve(&[YES, NO, FORBIDDEN, YES]);
    let mut core = Core::new(&url, |access| access.authorization.cache_s = 10);
    let (now, later) = (Now(0), Now(11_000_000));
    assert_eq!(core.decided(now, "t"), Decision::Allowed(()));
    let asked = questions.recv().expect("it is asked");
    let expected = r#"{"client_identifier":"c","username":null,"action":"publish","topic":"t"}"#;
    assert_eq!(
        asked.to_string(),
        serde_json::from_str::<serde_json::Value>(expected).expect("JSON").to_string()
    );
    assert_eq!(core.publish(now, 5, "t"), Decision::Allowed(()));
    assert_eq!(
        core.publish(now, 6, "t"),
        Decision::Allowed(()),
        "the same client on a later connection"
    );
    assert_eq!(core.decided(now, "u"), Decision::Denied);
    assert_eq!(core.decided(now, "v"), Decision::Denied, "403 is an answer");
    assert_eq!(core.counts(), (3, 0, 3));
    assert!(core.access.held_bytes() > 3 * ENTRY_BYTES);
    assert_eq!(
        core.decided(later, "t"),
        Decision::Allowed(()),
        "the answer does not hold any more"
    );
    let client_identifier = Text::new("c");
    let who = Identity { exchange: 5, client_identifier: &client_identifier };
    let filter = "$share/g/t/#";
    let subscribe =
        |core: &mut Core| core.access.may_subscribe(later, &who, filter, Qos::AtLeastOnce);
    assert_eq!(subscribe(&mut core), Decision::Pending);
    assert_eq!(core.answer(later), Some(5));
    assert_eq!(subscribe(&mut core), Decision::Allowed(Qos::AtLeastOnce));
    let asked = questions.iter().nth(3).expect("it is asked");
    assert_eq!(
        (&asked["action"], &asked["topic"], &asked["share"]),
        (&"subscribe".into(), &"t/#".into(), &"g".into())
    );
    assert!(core.access.may_keep(later, &who, "other", Qos::AtMostOnce), "nobody is asked");
    assert_eq!(core.counts().0, 5);
}

#[test]
fn a_server_that_fails_denies_or_allows_for_a_moment_and_is_counted() {
    for (answer, on_failure, expected) in [
        (BROKEN, OnFailure::Deny, Decision::Denied),
        (BROKEN, OnFailure::Allow, Decision::Allowed(())),
        (
            "200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}",
            OnFailure::Deny,
            Decision::Denied,
        ),
    ] {
        let answers: &'static [&'static str] = Box::leak(vec![answer, YES].into());
        let (url, _questions) = serve(answers);
        let mut core = Core::new(&url, |access| access.authorization.on_failure = on_failure);
        assert_eq!(core.decided(Now(0), "t"), expected);
        assert_eq!(core.publish(Now(900_000), 5, "t"), expected, "nobody is asked again at once");
        assert_eq!(core.counts(), (1, 1, 1));
        assert_eq!(core.decided(Now(1_100_000), "t"), Decision::Allowed(()));
    }
    // Nobody listens.
    let mut core = Core::new("http://127.0.0.1:1/", |_| {});
    assert_eq!(core.decided(Now(0), "t"), Decision::Denied);
    // No room for the question.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}/", listener.local_addr().expect("it listens"));
    let mut core = Core::new(&url, |access| access.waiting_max = 1);
    let busy = (0..100).find(|&exchange| {
        assert_eq!(core.publish(Now(0), exchange, &format!("t/{exchange}")), Decision::Pending);
        core.access.poll_decided(Now(0)).is_some()
    });
    let busy = busy.expect("the pool is full");
    assert_eq!(core.publish(Now(0), busy, &format!("t/{busy}")), Decision::Denied);
}

#[test]
fn the_cache_holds_so_many_answers_and_forgets_those_of_another_server() {
    let (url, _questions) = serve(&[YES]);
    let mut core = Core::new(&url, |access| access.authorization.cache_max = 100);
    for number in 0..150 {
        assert_eq!(core.decided(Now(0), &format!("t/{number}")), Decision::Allowed(()));
    }
    assert_eq!(core.counts(), (150, 0, 100));
    let held = core.access.held_bytes();
    assert!((100 * ENTRY_BYTES..100 * (ENTRY_BYTES + 64)).contains(&held), "{held}");
    // Of those whose time is over, each new answer replaces two.
    assert_eq!(core.decided(Now(61_000_000), "new"), Decision::Allowed(()));
    assert_eq!(core.counts().2, 99);
    let (other, questions) = serve(&[NO]);
    let mut settings = Settings::default();
    settings.access.anonymous = Anonymous::Yes;
    settings.access.authorization.url = other;
    core.control.prepare(&settings).expect("valid").put_in_force();
    core.notified.recv().expect("the core is woken");
    assert_eq!(core.decided(Now(61_000_000), "new"), Decision::Denied);
    assert_eq!((core.counts().2, questions.iter().next().is_some()), (1, true));
    drop(core.access);
    assert_eq!(core.control.counts().authorization_cached, 0);
}

#[test]
fn rules_decide_before_a_server_is_asked() {
    let folder = std::env::temp_dir().join(format!("ringmq-authorize-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let acl = folder.join("acl");
    std::fs::write(&acl, "for everyone\n deny all no/#\n allow publish yes/#\n").expect("written");
    let (url, questions) = serve(&[YES]);
    let mut core = Core::new(&url, |access| access.acl_file.clone_from(&acl));
    assert_eq!(core.publish(Now(0), 5, "no/1"), Decision::Denied);
    assert_eq!(core.publish(Now(0), 5, "yes/1"), Decision::Allowed(()));
    assert!(questions.try_recv().is_err(), "rules have decided");
    assert_eq!(core.decided(Now(0), "other"), Decision::Allowed(()));
    std::fs::remove_dir_all(folder).expect("removed");
}
