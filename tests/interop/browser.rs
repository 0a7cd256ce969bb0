//! A page in Chromium, with MQTT.js, over WebSocket.

use std::io::{BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use crate::http::read_request;
use crate::matrix::record;
use crate::secured::{flags, open, with_users};
use crate::support::{Authority, Broker, Folder};
use crate::{PATIENCE, clients_are_there};

const CLIENT: &str = "Chromium, MQTT.js";

/// The browser's command, if installed: Debian has two package names for it.
fn chromium() -> Option<&'static str> {
    if !clients_are_there() {
        return None;
    }
    let is_there = |program: &&&str| {
        let asked = Command::new(program).arg("--version").stdout(Stdio::null()).status();
        asked.is_ok_and(|status| status.success())
    };
    let found = ["chromium-headless-shell", "chromium"].iter().find(is_there);
    if found.is_none() {
        eprintln!("SKIPPED: Chromium is not installed, and apt has none");
    }
    found.copied()
}

/// An HTTP server for the page and MQTT.js, to which the page reports its result.
struct Site {
    address: SocketAddr,
    outcomes: Receiver<String>,
}

impl Site {
    fn start() -> Self {
        Self::with(include_bytes!("page.html"))
    }

    /// A server of another page.
    fn with(page: &[u8]) -> Self {
        let page: Arc<[u8]> = page.into();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("the server listens");
        let (tell, outcomes) = channel();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (tell, page) = (tell.clone(), page.clone());
                std::thread::spawn(move || answer(&stream, &page, &tell));
            }
        });
        Self { address, outcomes }
    }

    fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Opens the page, and waits for its result.
    fn show(&self, chromium: &str, broker: &str, key: Option<&str>, more: &str) -> String {
        let url = format!("{}/?broker={broker}{more}", self.origin());
        let profile = Folder::new();
        let _browser = browse(chromium, &url, &profile, key);
        self.outcomes.recv_timeout(PATIENCE).expect("the page reports its result")
    }
}

/// A browser process that ends with the test.
struct Browser(Child);

impl Drop for Browser {
    fn drop(&mut self) {
        // The command is a script; the browser and its processes are in its process group.
        let group = format!("-{}", self.0.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
        let _ = self.0.wait();
    }
}

fn browse(chromium: &str, url: &str, profile: &Path, key: Option<&str>) -> Browser {
    let mut command = Command::new(chromium);
    // Without a sandbox, which Chromium refuses to root; the page is our own.
    command.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]);
    command.args(["--remote-debugging-port=0", "--no-first-run", "--disable-extensions"]);
    command.arg(format!("--user-data-dir={}", profile.display()));
    if let Some(key) = key {
        command.arg(format!("--ignore-certificate-errors-spki-list={key}"));
    }
    let quiet = command.arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Browser(quiet.process_group(0).spawn().expect("the process starts"))
}

/// Answers requests on a connection until it ends.
fn answer(stream: &TcpStream, page: &[u8], tell: &Sender<String>) {
    let mut reader = BufReader::new(stream);
    while let Ok(Some((request, body))) = read_request(&mut reader) {
        let (kind, content) = match request.split(' ').nth(1).unwrap_or_default() {
            "/mqtt.js" => {
                let bundle = "target/interop/node_modules/mqtt/dist/mqtt.min.js";
                ("text/javascript", std::fs::read(bundle).expect("the set-up puts it there"))
            }
            "/outcome" => {
                let _ = tell.send(String::from_utf8_lossy(&body).into_owned());
                ("text/plain", Vec::new())
            }
            _ => ("text/html", page.to_vec()),
        };
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
            content.len()
        );
        if { stream }.write_all(&[head.as_bytes(), &content].concat()).is_err() {
            return;
        }
    }
}

fn url(broker: &Broker, transport: &str) -> String {
    format!("{transport}://{}/mqtt", broker.address(transport))
}

/// The hash of the server's public key, by which Chromium accepts its certificate.
fn key_of(broker: &Broker) -> String {
    let public_key = Authority::server_public_key(&broker.folder);
    BASE64_STANDARD.encode(ring::digest::digest(&ring::digest::SHA256, &public_key))
}

#[test]
fn a_page_uses_websocket_with_and_without_tls() {
    let Some(chromium) = chromium() else { return };
    let (site, broker) = (Site::start(), open());
    let key = key_of(&broker);
    for transport in ["ws", "wss"] {
        let outcome = site.show(chromium, &url(&broker, transport), Some(&key), "");
        assert_eq!(outcome, "ok", "{transport}");
        record(&broker.setup, transport, "none", CLIENT);
    }
    // The certificate is accepted because of its key.
    let outcome = site.show(chromium, &url(&broker, "wss"), None, "&refused=1");
    assert_eq!(outcome, "ok", "a certificate of an unknown authority");
}

#[test]
fn a_page_logs_in_by_password() {
    let Some(chromium) = chromium() else { return };
    let (site, broker) = (Site::start(), with_users(""));
    let key = key_of(&broker);
    let where_to = url(&broker, "wss");
    let user = "&user=alice&password=";
    let outcome = site.show(chromium, &where_to, Some(&key), &format!("{user}alicealice"));
    assert_eq!(outcome, "ok");
    record(&broker.setup, "wss", "password", CLIENT);
    let outcome = site.show(chromium, &where_to, Some(&key), &format!("{user}guess"));
    assert!(outcome.contains("Connection refused"), "{outcome}");
    record(&broker.setup, "wss", "wrong password, refused", CLIENT);
}

#[test]
fn a_page_of_another_origin_is_refused() {
    let Some(chromium) = chromium() else { return };
    let (known, unknown) = (Site::start(), Site::start());
    let listener = format!(
        "[[listeners]]\nbind = \"127.0.0.1:0\"\ntransport = \"ws\"\n[listeners.websocket]\n\
         origins = [\"{}\"]\n",
        known.origin()
    );
    let broker = Broker::start(&flags(), &listener);
    let where_to = format!("ws://{}/mqtt", broker.address("guarded"));
    assert_eq!(known.show(chromium, &where_to, None, ""), "ok");
    record(&broker.setup, "ws", "origin", CLIENT);
    assert_eq!(unknown.show(chromium, &where_to, None, "&refused=1"), "ok");
    record(&broker.setup, "ws", "another origin, refused", CLIENT);
}

/// What a person does with the page of the example: waits for the connection, publishes, and reads the list.
const PERSON: &str = "<script>
const look = setInterval(() => {
  const item = document.querySelector('#messages li');
  if (item) {
    clearInterval(look);
    fetch('/outcome', { method: 'POST', body: item.textContent });
  } else if (!publish.disabled) {
    publish.click();
  }
}, 50);
</script>";

#[test]
fn the_page_of_the_examples_publishes_and_receives() {
    let Some(chromium) = chromium() else { return };
    let page = std::fs::read_to_string("examples/browser/index.html").expect("the example");
    let (site, broker) = (Site::with((page + PERSON).as_bytes()), open());
    let outcome = site.show(chromium, &url(&broker, "ws"), None, "");
    assert_eq!(outcome, "house/kitchen/temperature 21.5");
}
