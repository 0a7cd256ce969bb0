//! Keys for tokens that are fetched from a URL.

use std::io::{BufReader, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::hmac;
use serde_json::json;

use crate::support::reason::BAD_USER_NAME_OR_PASSWORD;
use crate::support::{Broker, Client, Connect};
use crate::{Files, await_metric, http};

/// A server of a key set, which the test changes.
#[derive(Clone)]
struct Server {
    url: String,
    /// The key that the set has; none for a server that fails.
    key: Arc<Mutex<Option<&'static str>>>,
    requests: Arc<Mutex<usize>>,
}

fn secret(kid: &str) -> Vec<u8> {
    format!("the secret of the key {kid}, which is long enough").into_bytes()
}

impl Server {
    fn start(kid: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}/keys", listener.local_addr().expect("it listens"));
        let key = Arc::new(Mutex::new(Some(kid)));
        let server = Self { url, key, requests: Arc::default() };
        let this = server.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut reader = BufReader::new(stream.expect("a connection"));
                let Ok(Some((head, _))) = http::read_request(&mut reader) else { continue };
                assert!(head.starts_with("GET /keys HTTP/1.1\r\n"), "{head}");
                *this.requests.lock().expect("no panic") += 1;
                let answer = match *this.key.lock().expect("no panic") {
                    Some(kid) => {
                        let key =
                            json!({"kty": "oct", "kid": kid, "k": BASE64.encode(secret(kid))});
                        let set = json!({"keys": [key]}).to_string();
                        format!("200 OK\r\nContent-Length: {}\r\n\r\n{set}", set.len())
                    }
                    None => "500 Oops\r\nContent-Length: 0\r\n\r\n".to_owned(),
                };
                let head =
                    format!("HTTP/1.1 {}", answer.replacen("\r\n", "\r\nConnection: close\r\n", 1));
                let _ = reader.get_mut().write_all(head.as_bytes());
            }
        });
        server
    }

    fn set(&self, kid: Option<&'static str>) {
        *self.key.lock().expect("no panic") = kid;
    }

    fn requests(&self) -> usize {
        *self.requests.lock().expect("no panic")
    }

    fn broker(&self, files: &Files) -> Broker {
        let more = "[mqtt]\nsys_interval_s = 1\n";
        files.broker(&format!("[access.jwt]\nkey_set_url = {:?}\n{more}", self.url))
    }
}

/// A client with a token that this key signs.
fn with_key(client: &str, kid: &str) -> Connect {
    let header = BASE64.encode(json!({"alg": "HS256", "kid": kid}).to_string());
    let claims = json!({"sub": "alice", "exp": 4_000_000_000_u64}).to_string();
    let text = format!("{header}.{}", BASE64.encode(claims));
    let key = hmac::Key::new(hmac::HMAC_SHA256, &secret(kid));
    let tag = BASE64.encode(hmac::sign(&key, text.as_bytes()));
    Connect::v5(client).username("a").password(format!("{text}.{tag}"))
}

#[test]
fn a_new_key_is_fetched_when_a_token_names_it_and_unknown_ones_do_not_flood_the_server() {
    let (server, files) = (Server::start("one"), Files::new("key-url"));
    let broker = server.broker(&files);
    // Before that, a token with the first key is one of an unknown key, too.
    broker.await_log("fetched the keys for tokens\"", 1);
    Client::connect(&broker, with_key("a", "one"));
    let before = server.requests();
    assert_eq!(before, 1);
    server.set(Some("two"));
    Client::connect(&broker, with_key("b", "two"));
    assert_eq!(server.requests(), before + 1);
    for number in 0..5 {
        let connect = with_key(&format!("c-{number}"), "three");
        Client::refused(&broker, connect, BAD_USER_NAME_OR_PASSWORD);
    }
    Client::refused(&broker, with_key("d", "one"), BAD_USER_NAME_OR_PASSWORD);
    assert_eq!(server.requests(), before + 1, "the server is asked once in ten seconds");
    Client::connect(&broker, with_key("e", "two"));
}

#[test]
fn keys_stay_in_force_while_their_server_fails_also_after_a_reload() {
    let (server, files) = (Server::start("one"), Files::new("key-url-fails"));
    let broker = server.broker(&files);
    Client::connect(&broker, with_key("a", "one"));
    server.set(None);
    files.reload(&broker);
    broker.await_log("the keys for tokens cannot be fetched", 1);
    Client::connect(&broker, with_key("b", "one"));
    await_metric(&broker, with_key("m", "one"), "access/key-set/failures", 1);
}

#[test]
fn a_broker_starts_without_the_server_and_refuses_tokens_until_the_keys_are_there() {
    let (server, files) = (Server::start("one"), Files::new("key-url-late"));
    server.set(None);
    let broker = server.broker(&files);
    Client::refused(&broker, with_key("a", "one"), BAD_USER_NAME_OR_PASSWORD);
    broker.await_log("the key set has not been fetched yet", 1);
    server.set(Some("one"));
    let until = Instant::now() + Duration::from_secs(30);
    broker.await_log("the keys for tokens cannot be fetched", 1);
    while !broker.log().contains("fetched the keys for tokens\"") {
        assert!(Instant::now() < until, "{}", broker.log());
        std::thread::sleep(Duration::from_millis(100));
    }
    Client::connect(&broker, with_key("b", "one"));
}
