//! Requests to the router, with cores played by the tests.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Instant;

use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use mio::{Poll, Token};
use serde_json::Value;

use super::auth::{Auth, Peer};
use super::bans::Kept;
use super::broker::{Broker, PATIENCE, Parts};
use super::routes::{Route, get, post, router, table};
use super::server::Place;
use super::{Admin, Shared};
use crate::access::Gate;
use crate::base::metrics::Metrics;
use crate::base::notifier::Notifier;
use crate::base::waker::Waker;
use crate::bridges::Bridges;
use crate::config::{ExecutorKind, Listener, Role, Settings};
use crate::control::drain::Drainer;
use crate::control::listener::{ListenerTable, Listening};
use crate::control::reload::Reload;
use crate::control::stop::Stop;
use crate::control::{Command, Cores, Inbox, Statistics};
use crate::stats::{Recorder, SharedStatistics, collector};
use crate::transport::ListenerPolicy;
use crate::webhooks::Webhooks;

/// An admin interface of a broker with these cores; the polls keep the wakers alive, the recorders the cores.
struct World {
    admin: Shared,
    inboxes: Vec<Inbox>,
    _polls: Vec<Poll>,
    _recorders: Vec<Recorder>,
}

impl World {
    fn new(cores: usize) -> Self {
        let polls: Vec<Poll> = (0..cores).map(|_| Poll::new().expect("a poll")).collect();
        let notifier = |poll: &Poll| {
            let waker = mio::Waker::new(poll.registry(), Token(0)).expect("a waker");
            Notifier::new(Waker::Poll(waker))
        };
        let (cores, inboxes) = Cores::new(polls.iter().map(notifier).collect());
        let settings = Settings::default();
        let auth = Auth::open(&settings.admin.access).expect("no files");
        let (recorders, collector) = collector(inboxes.len() as u16);
        let parts = Parts {
            statistics: SharedStatistics::new(cores.clone(), collector, false),
            access: Gate::open(&settings).expect("no files"),
            webhooks: Webhooks::default(),
            bridges: Bridges::default(),
            cluster: None,
            drain: Drainer::new(Stop::new(), None),
            settings: Arc::new(settings),
            executor: ExecutorKind::Poll,
            listeners: listeners(true),
            connections_max: 100,
            memory_bytes_max: 1_000,
            folder: None,
            cores,
            stop: Stop::new(),
            reload: Reload::new(),
        };
        let bans = Kept::open(None, &parts.cores).expect("no file");
        let admin = Arc::new(Admin {
            broker: Broker::new(parts),
            auth,
            bans,
            traces: Default::default(),
            exports: Default::default(),
            tls: None,
        });
        Self { admin, inboxes, _polls: polls, _recorders: recorders }
    }

    /// Answers what waits for a core.
    fn answer(&mut self, core: usize, counters: &Metrics) {
        while let Some(command) = self.inboxes[core].next_command() {
            match command {
                Command::Statistics { empty, reply } => {
                    reply.send(Statistics { recording: empty, metrics: counters.clone() });
                }
                other => panic!("{other:?}"),
            }
        }
    }

    /// Sends a request from the broker's user, while `meanwhile` runs once the request waits.
    fn ask_while(
        &mut self,
        routes: Vec<Route>,
        (method, path): (&str, &str),
        meanwhile: impl FnOnce(&mut Self),
    ) -> (StatusCode, Value) {
        let peer = Arc::new(Peer::Unix { user: 0, role: Some(Role::Admin) });
        let request = Request::builder().method(method).uri(path).extension(peer);
        let request = request.extension(Place::General).header("content-type", "application/json");
        let request = request.body(Body::empty()).expect("a request");
        let service = TowerToHyperService::new(router(&self.admin, routes));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        runtime.expect("a runtime").block_on(async {
            let answer = tokio::spawn(service.call(request));
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            meanwhile(self);
            let answer: Result<_, Infallible> = answer.await.expect("no panic gets out");
            let answer = answer.expect("there is an answer");
            let status = answer.status();
            let body = to_bytes(answer.into_body(), 1 << 20).await.expect("a body");
            (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
        })
    }

    fn ask(&mut self, path: &str, meanwhile: impl FnOnce(&mut Self)) -> (StatusCode, Value) {
        self.ask_while(table(), ("GET", path), meanwhile)
    }
}

/// A table with one listener.
fn listeners(is_open: bool) -> ListenerTable {
    let listener = Listener::tcp(([127, 0, 0, 1], 1883).into());
    let (bind, transport) = (listener.bind.clone(), listener.transport);
    let policy = Arc::new(ListenerPolicy::new(&listener, None));
    let table = ListenerTable::default();
    table.set(vec![Listening { number: 0, bind, transport, policy, is_open }]);
    table
}

#[test]
fn a_handler_that_panics_is_an_error_of_its_request_alone() {
    async fn panics() {
        panic!("on purpose");
    }
    let routes =
        || vec![get("/p", Role::Read, "Panics", panics), post("/p", Role::Read, "Panics", panics)];
    let mut world = World::new(1);
    for method in ["GET", "POST", "GET"] {
        let (status, answer) = world.ask_while(routes(), (method, "/p"), |_| {});
        assert_eq!((status.as_u16(), &answer["status"]), (500, &Value::from(500)), "{method}");
    }
}

#[test]
fn a_core_that_takes_no_turn_is_named_and_the_others_are_shown() {
    let mut world = World::new(3);
    let open = Metrics { connections_open: 7, ..Metrics::default() };
    let answer = |world: &mut World| [0, 2].iter().for_each(|&core| world.answer(core, &open));
    let begin = Instant::now();
    let (status, health) = world.ask("/livez", answer);
    assert!(begin.elapsed() >= PATIENCE);
    assert_eq!((status.as_u16(), &health["ok"]), (503, &Value::from(false)));
    assert!(health["checks"][0]["found"].as_str().is_some_and(|found| found.contains("[1]")));
    let (status, cores) = world.ask("/api/v1/cores", answer);
    assert_eq!(status.as_u16(), 200);
    assert_eq!(cores["cores"][1]["responsive"], false);
    assert_eq!(cores["cores"][2]["connections"], 7);
    let waiting = std::iter::from_fn(|| world.inboxes[1].next_command()).count();
    assert_eq!(waiting, 1, "a core that does not answer is not asked again");
    let all = |world: &mut World| (0..3).for_each(|core| world.answer(core, &open));
    let (status, _) = world.ask("/livez", all);
    assert_eq!(status.as_u16(), 503, "its question was dropped just now");
    let (status, health) = world.ask("/livez", all);
    assert_eq!((status.as_u16(), health), (200, serde_json::json!({ "ok": true, "checks": [] })));
}

#[test]
fn a_broker_is_ready_only_if_it_listens_can_store_has_memory_and_does_not_stop() {
    let good = Metrics { memory_bytes: 999, ..Metrics::default() };
    let cases = [
        ("store_writes", Metrics { store_failing: 1, ..good.clone() }),
        ("store_room", Metrics { store_full: 1, ..good.clone() }),
        ("memory", Metrics { memory_bytes: 1_000, ..good.clone() }),
    ];
    let mut world = World::new(1);
    for (name, counters) in cases {
        let (status, health) = world.ask("/readyz", |world| world.answer(0, &counters));
        assert_eq!((status.as_u16(), &health["checks"][0]["name"]), (503, &Value::from(name)));
        assert_eq!(health["checks"].as_array().map(Vec::len), Some(1), "{health}");
        let (status, _) = world.ask("/livez", |world| world.answer(0, &counters));
        assert_eq!(status.as_u16(), 200, "{name}: a restart would not help");
    }
    let (status, health) = world.ask("/readyz?verbose", |world| world.answer(0, &good));
    assert_eq!((status.as_u16(), health["checks"].as_array().map(Vec::len)), (200, Some(7)));
    world.admin.broker.listeners.set(listeners(false).now().to_vec());
    let (status, health) = world.ask("/readyz", |world| world.answer(0, &good));
    assert_eq!((status.as_u16(), &health["checks"][0]["name"]), (503, &Value::from("listening")));
    world.admin.broker.listeners.set(listeners(true).now().to_vec());
    world.admin.broker.stop.request();
    let (status, health) = world.ask("/readyz", |world| world.answer(0, &good));
    assert_eq!((status.as_u16(), &health["checks"][0]["name"]), (503, &Value::from("running")));
}

#[test]
fn while_the_broker_stops_health_and_status_answer_and_the_rest_does_not() {
    let mut world = World::new(1);
    world.admin.broker.stop.request();
    for (path, expected) in [
        ("/livez", 200),
        ("/readyz", 503),
        ("/api/v1/status", 200),
        ("/api/v1/cores", 503),
        ("/api/v1/whoami", 503),
    ] {
        let (status, answer) = world.ask(path, |_| {});
        assert_eq!(status.as_u16(), expected, "{path}: {answer}");
    }
    let (_, status) = world.ask("/api/v1/status", |_| {});
    assert_eq!(status["stopping"], true);
}

#[test]
fn requests_at_the_same_time_share_one_question() {
    let mut world = World::new(1);
    let admin = Arc::clone(&world.admin);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    runtime.expect("a runtime").block_on(async {
        let mut all = tokio::task::JoinSet::new();
        for _ in 0..50 {
            let admin = Arc::clone(&admin);
            all.spawn(async move { admin.broker.pulse().await.missing().len() });
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        assert_eq!(std::iter::from_fn(|| world.inboxes[0].next_command()).count(), 1);
        assert_eq!(all.join_all().await, vec![1; 50], "the question was dropped");
    });
}
