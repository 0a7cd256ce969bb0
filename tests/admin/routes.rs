//! Every route of the table: who may use it, and whether its answers are those of the OpenAPI document.

use ringmq::admin::openapi;
use ringmq::admin::routes::{Allowed, Route, table};
use ringmq::config::Role;
use serde_json::Value;

use crate::schema;
use crate::support::{Answer, Broker, EXECUTORS};

/// A path of the route.
fn path(route: &Route) -> String {
    let mut path = String::new();
    for part in route.path.split_inclusive('}') {
        match part.split_once('{') {
            Some((before, _)) => path += &format!("{before}x"),
            None => path += part,
        }
    }
    path
}

/// Sends a request of the route that a handler refuses, if it takes content.
fn ask(broker: &Broker, route: &Route, caller: Option<Role>) -> Answer {
    let (method, path) = (route.method.as_str(), path(route));
    match caller {
        Some(role) => broker.ask(role, method, &path, "{\"nonsense\":1}"),
        None => broker.tcp().ask(method, &path, &[], "{\"nonsense\":1}"),
    }
}

#[test]
fn every_route_admits_the_callers_with_its_role_and_no_others() {
    let broker = Broker::start("roles", "--mode poll");
    let callers = [None, Some(Role::Read), Some(Role::Operate), Some(Role::Admin)];
    // Those that are admitted come last: some of them change the broker.
    for is_admitted in [false, true] {
        for route in table() {
            for caller in callers {
                let (needed, what) = match route.allowed {
                    Allowed::Anyone | Allowed::Scrapers => (None, "anyone"),
                    Allowed::Role(role) => (Some(role), role.name()),
                };
                if (caller >= needed) != is_admitted {
                    continue;
                }
                let status = ask(&broker, &route, caller).status;
                let expected = match (is_admitted, caller) {
                    (true, _) => None,
                    (false, None) => Some(401),
                    (false, Some(_)) => Some(403),
                };
                let is_refused = matches!(status, 401 | 403);
                let name = format!("{} {} ({what}) as {caller:?}", route.method, route.path);
                match expected {
                    Some(expected) => assert_eq!(status, expected, "{name}"),
                    None => assert!(!is_refused, "{name}: {status}"),
                }
            }
        }
    }
}

/// Whether an answer is the one that the document describes.
fn check_answer(document: &Value, route: &Route, answer: &Answer) {
    let name = format!("{} {}", route.method, route.path);
    let path = route.path.replace("{*", "{");
    let operation = &document["paths"][&path][route.method.as_str().to_ascii_lowercase()];
    let responses = &operation["responses"];
    let status = answer.status.to_string();
    let response = responses.get(&status).unwrap_or(&responses["default"]);
    assert!(answer.status >= 400 || responses.get(&status).is_some(), "{name}: {status}");
    let Some(content) = response.get("content") else {
        return assert!(answer.body.is_empty(), "{name}");
    };
    let media_type = answer.header("content-type").unwrap_or_default();
    let content = content.as_object().expect("media types");
    let found = content.iter().find(|(name, _)| media_type.starts_with(&***name));
    let (_, content) = found.unwrap_or_else(|| panic!("{name}: {status} {media_type}"));
    // Lines of JSON have no length, and are not read.
    if media_type.ends_with("/json") || media_type.ends_with("+json") {
        let checked = schema::check(document, &content["schema"], &answer.json());
        checked.unwrap_or_else(|what| panic!("{name}: {status}: {what}"));
    }
}

#[test]
fn every_answer_is_the_one_that_the_document_describes() {
    for flags in EXECUTORS {
        let broker = Broker::start("openapi", flags);
        let document = broker.ask(Role::Read, "GET", "/api/v1/openapi.json", "").json();
        assert_eq!(document, openapi::document(), "{flags}");
        for route in table() {
            for caller in [None, Some(Role::Read), Some(Role::Admin)] {
                check_answer(&document, &route, &ask(&broker, &route, caller));
            }
        }
    }
}

#[test]
fn status_and_cores_count_what_clients_did_on_every_executor() {
    for flags in EXECUTORS {
        let broker = Broker::start("status", flags);
        let mut client = std::net::TcpStream::connect(&broker.mqtt).expect("it listens");
        std::io::Write::write_all(&mut client, b"\x10\x0d\0\x04MQTT\x04\x02\0\0\0\x01a")
            .expect("the server reads");
        std::io::Read::read_exact(&mut client, &mut [0; 4]).expect("CONNACK");
        let cores = if flags.contains("--cores 4") { 4 } else { 1 };
        let mut unix = broker.unix();
        let status = unix.ask("GET", "/api/v1/status", &[], "").json();
        assert_eq!(status["cores"], cores, "{flags}");
        assert_eq!(status["clients_connected"], 1, "{flags}: {status}");
        assert_eq!(status["cores_missing"], Value::Array(Vec::new()), "{flags}");
        assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
        let each = unix.ask("GET", "/api/v1/cores", &[], "").json();
        let each = each["cores"].as_array().expect("a list");
        assert_eq!(each.len(), cores, "{flags}");
        let clients = each.iter().map(|core| core["clients_connected"].as_u64().expect("a number"));
        assert_eq!(clients.sum::<u64>(), 1, "{flags}");
        let listeners = unix.ask("GET", "/api/v1/listeners", &[], "").json();
        assert_eq!(listeners["listeners"][0]["address"], broker.mqtt);
        let store = unix.ask("GET", "/api/v1/store", &[], "").json();
        assert_eq!(store["folder"], broker.folder.path("data"));
        assert_eq!(store["failing"], false);
        for path in ["/livez", "/readyz", "/healthz"] {
            let health = broker.tcp().ask("GET", &format!("{path}?verbose"), &[], "");
            assert_eq!((health.status, &health.json()["ok"]), (200, &Value::Bool(true)), "{path}");
            assert!(!health.json()["checks"].as_array().expect("a list").is_empty());
        }
        assert!(broker.stop(), "{flags}");
    }
}
