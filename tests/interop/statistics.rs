//! What exporters read out of `$SYS`: of a broker that runs on a configuration file of Mosquitto, and of Mosquitto with the
//! same clients. The exporter is that of Debian's package prometheus-mqtt-exporter.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::{FLAGS, PATIENCE, clients_are_there, start, wait};

const BROKER: &str = env!("CARGO_BIN_EXE_broker");

/// The path where the set-up puts the exporter.
const EXPORTER: &str = "target/interop/exporter/usr/bin/prometheus-mqtt-exporter";

/// The topics below `$SYS/broker/` that Mosquitto 2.0 and 2.1 have, but uptime and version, which are texts.
const TOPICS: &[&str] = &[
    "bytes/received",
    "bytes/sent",
    "clients/active",
    "clients/connected",
    "clients/disconnected",
    "clients/expired",
    "clients/inactive",
    "clients/maximum",
    "clients/total",
    "heap/current",
    "heap/maximum",
    "messages/received",
    "messages/sent",
    "messages/stored",
    "publish/bytes/received",
    "publish/bytes/sent",
    "publish/messages/dropped",
    "publish/messages/received",
    "publish/messages/sent",
    "retained messages/count",
    "shared_subscriptions/count",
    "store/messages/bytes",
    "store/messages/count",
    "subscriptions/count",
];

/// Rates, of which each topic has an average over 1, 5 and 15 minutes.
const LOADS: &[&str] = &[
    "bytes/received",
    "bytes/sent",
    "connections",
    "messages/received",
    "messages/sent",
    "publish/dropped",
    "publish/received",
    "publish/sent",
    "sockets",
];

const MINUTES: [u8; 3] = [1, 5, 15];

/// By how much the values grow with [`traffic`]: counted by hand.
const GROWTH: &[(&str, f64)] = &[
    ("clients/active", 1.0),
    ("clients/connected", 1.0),
    ("clients/disconnected", 1.0),
    ("clients/expired", 0.0),
    ("clients/inactive", 1.0),
    ("clients/total", 2.0),
    ("messages/stored", 12.0),
    ("publish/bytes/received", 295.0),
    ("publish/messages/dropped", 0.0),
    ("publish/messages/received", 32.0),
    ("retained messages/count", 5.0),
    ("shared_subscriptions/count", 1.0),
    ("store/messages/count", 12.0),
    ("subscriptions/count", 4.0),
];

/// What Mosquitto counts otherwise: no PUBLISH with RETAIN, and no shared subscription.
const OTHERWISE: &[(&str, f64)] =
    &[("publish/messages/received", 27.0), ("subscriptions/count", 3.0)];

/// Values that grow by as much as those of Mosquitto.
const AS_MUCH: &[&str] = &["bytes/received", "messages/received"];

type Values = BTreeMap<String, f64>;

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A folder that is removed with the test.
struct Folder(std::path::PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A broker on a file of Mosquitto, and an exporter of its statistics.
struct Observed {
    port: String,
    exporter_port: u16,
    started: Instant,
    _processes: [Running; 2],
    _folder: Folder,
}

impl Observed {
    fn start(name: &str, program: &str, flag: &str) -> Self {
        let folder =
            std::env::temp_dir().join(format!("ringmq-statistics-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let (port, exporter_port) = (free_port(), free_port());
        let conf = folder.join("mosquitto.conf");
        let text = format!("listener {port} 127.0.0.1\nallow_anonymous true\nsys_interval 1\n");
        std::fs::write(&conf, text).expect("written");
        let yaml = folder.join("exporter.yaml");
        std::fs::write(&yaml, exporter_file(port)).expect("written");
        let started = Instant::now();
        let flags = std::env::var(FLAGS).unwrap_or_default();
        let flags = flags.split_whitespace().filter(|_| program == BROKER);
        let broker = quiet(Command::new(program).arg(flag).arg(&conf).args(flags));
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(started.elapsed() < PATIENCE, "{name} does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        let exporter = quiet(Command::new(EXPORTER).arg("-config").arg(&yaml).args([
            "-listen-address",
            "127.0.0.1",
            "-listen-port",
            &exporter_port.to_string(),
        ]));
        let processes = [broker, exporter];
        let port = port.to_string();
        Self { port, exporter_port, started, _processes: processes, _folder: Folder(folder) }
    }

    /// What the exporter shows, by the names of the topics.
    fn values(&self) -> Values {
        let page = page(self.exporter_port).unwrap_or_default();
        let lines = page.lines().filter(|line| line.starts_with("broker_"));
        lines.filter_map(sample).collect()
    }

    /// Waits until the exporter shows what is wanted.
    fn wait_for(&self, what: &str, is_so: impl Fn(&Values) -> bool) -> Values {
        let until = Instant::now() + PATIENCE;
        loop {
            let values = self.values();
            if is_so(&values) {
                return values;
            }
            assert!(Instant::now() < until, "{what}: {values:#?}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// The values once they stay as they are for several updates: those of Mosquitto count its own topics.
    fn settled(&self, what: &str) -> Values {
        const UPDATES: usize = 3;
        let all = all_topics();
        let mut settled = self.wait_for(what, |of| all.iter().all(|topic| of.contains_key(topic)));
        let mut updates = BTreeSet::new();
        let until = Instant::now() + PATIENCE;
        while updates.len() <= UPDATES || settled["subscriptions/count"] < 1.0 {
            assert!(Instant::now() < until, "{what}: {settled:#?}");
            std::thread::sleep(Duration::from_millis(100));
            let values = self.values();
            if GROWTH.iter().any(|(topic, _)| values[*topic] != settled[*topic]) {
                updates.clear();
            }
            // The exporter itself is sent something at each update.
            updates.insert(values["messages/sent"] as u64);
            settled = values;
        }
        settled
    }

    /// Runs a client of Mosquitto until it ends.
    fn client(&self, program: &str, arguments: &[&str]) {
        wait(start(program, &[&["-p", &self.port][..], arguments].concat()), program);
    }

    /// The retained messages below `$SYS/`, by topic.
    fn messages(&self) -> BTreeMap<String, String> {
        let arguments =
            ["-p", &self.port, "-t", "$SYS/#", "--retained-only", "-F", "%t\t%p", "-W", "2"];
        // It ends by its own time limit, with a code for that.
        let output = Command::new("mosquitto_sub").args(arguments).output();
        let output = output.expect("mosquitto_sub runs; run tests/interop/setup");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let pairs = text.lines().filter_map(|line| line.split_once('\t'));
        pairs.map(|(topic, payload)| (topic.to_owned(), payload.to_owned())).collect()
    }
}

fn free_port() -> u16 {
    let socket = TcpListener::bind("127.0.0.1:0").expect("an address");
    socket.local_addr().expect("an address").port()
}

fn quiet(command: &mut Command) -> Running {
    let command = command.env("RINGMQ_ADMIN__LISTEN", "[]").stdin(Stdio::null());
    Running(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts"))
}

/// The name of the metric of a topic, as the exporters for Mosquitto make it.
fn metric_of(topic: &str) -> String {
    topic.trim_start_matches("$SYS/").replace(['/', ' ', '-', '.'], "_")
}

fn all_topics() -> Vec<String> {
    let load = |name: &&str| MINUTES.map(|minutes| format!("load/{name}/{minutes}min"));
    let loads = LOADS.iter().flat_map(load);
    TOPICS.iter().map(|topic| (*topic).to_owned()).chain(loads).collect()
}

/// The configuration of the exporter.
fn exporter_file(port: u16) -> String {
    let mut text = format!(
        "mqtt:\n  server: tcp://127.0.0.1:{port}\n  topic_path: $SYS/broker/#\n  qos: 0\n  \
         metric_per_topic_config:\n    metric_name_regex: \"\\\\$SYS/broker/(?P<metricname>.*)\"\n\
         cache:\n  timeout: 60m\nmetrics:\n"
    );
    for topic in all_topics() {
        text += &format!(
            "  - prom_name: {}\n    mqtt_name: \"{topic}\"\n    help: {topic}\n    type: gauge\n",
            metric_of(&format!("broker/{topic}"))
        );
    }
    text
}

/// The topic and the value of a line such as `broker_uptime{…} 5 1700000000000`.
fn sample(line: &str) -> Option<(String, f64)> {
    let (_, rest) = line.split_once("topic=\"$SYS/broker/")?;
    let (topic, rest) = rest.split_once('"')?;
    let value = rest.trim_start_matches('}').split_whitespace().next()?;
    Some((topic.to_owned(), value.parse().ok()?))
}

/// What the exporter answers.
fn page(port: u16) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// 20 messages to a client that is there, 5 retained ones, and 7 for a client that is away, of 10, 5 and 10 bytes. Returns
/// the client that is there.
fn traffic(at: &Observed, before: &Values) -> Running {
    at.client("mosquitto_sub", &["-i", "away", "-c", "-q", "1", "-t", "away/#", "-E"]);
    let here = ["-i", "here", "-q", "1", "-t", "here/#", "-t", "more/+", "-t", "$share/g/x"];
    let here = [&["-p", &at.port][..], &here].concat();
    let here = quiet(Command::new("mosquitto_sub").args(here));
    let subscriptions = before["subscriptions/count"];
    at.wait_for("subscribed", |of| of["subscriptions/count"] >= subscriptions + 3.0);
    let repeated = |topic, text, times| {
        let times = ["--repeat", times, "-q", "1", "-t", topic, "-m", text];
        at.client("mosquitto_pub", &times);
    };
    repeated("here/a", "0123456789", "20");
    for topic in ["kept/1", "kept/2", "kept/3", "kept/4", "kept/5"] {
        at.client("mosquitto_pub", &["-r", "-q", "1", "-t", topic, "-m", "01234"]);
    }
    repeated("away/a", "0123456789", "7");
    here
}

/// By how much a value has grown.
fn growth(topic: &str, before: &Values, now: &Values) -> f64 {
    now[topic] - before[topic]
}

/// The values before the traffic, and once they have grown as expected.
fn grown(at: &Observed, what: &str, otherwise: &[(&str, f64)]) -> (Values, Values, Running) {
    let before = at.settled(what);
    let here = traffic(at, &before);
    let expected = |topic: &str, value: f64| {
        otherwise.iter().find(|(of, _)| *of == topic).map_or(value, |(_, value)| *value)
    };
    let until = Instant::now() + PATIENCE;
    let now = loop {
        let now = at.values();
        let found = |(topic, by): &(&'static str, f64)| {
            (*topic, growth(topic, &before, &now), expected(topic, *by))
        };
        let others: Vec<_> =
            GROWTH.iter().map(found).filter(|(_, found, expected)| found != expected).collect();
        if others.is_empty() {
            break now;
        }
        assert!(Instant::now() < until, "{what}: found and expected growth: {others:?}");
        std::thread::sleep(Duration::from_millis(100));
    };
    (before, now, here)
}

#[test]
fn an_exporter_shows_the_traffic_of_this_broker_as_that_of_mosquitto() {
    if !clients_are_there() {
        return;
    }
    if !Path::new(EXPORTER).exists() {
        return eprintln!("SKIPPED: apt has no prometheus-mqtt-exporter");
    }
    let ours = Observed::start("ours", BROKER, "--mosquitto-conf");
    let mosquitto = ["/usr/sbin/mosquitto", "/usr/bin/mosquitto"];
    let mosquitto = mosquitto.into_iter().find(|path| Path::new(path).exists());
    let theirs = Observed::start("theirs", mosquitto.expect("it is installed"), "-c");
    let (before_theirs, _, _here_theirs) = grown(&theirs, "Mosquitto", OTHERWISE);
    let (before, now, _here) = grown(&ours, "ringmq", &[]);
    // Acknowledgements may still be under way.
    let until = Instant::now() + PATIENCE;
    loop {
        let growth_of = |topic: &&str| {
            let of_theirs = growth(topic, &before_theirs, &theirs.values());
            (growth(topic, &before, &ours.values()), of_theirs)
        };
        let all: Vec<(f64, f64)> = AS_MUCH.iter().map(growth_of).collect();
        if all.iter().all(|(ours, theirs)| ours == theirs) {
            break;
        }
        assert!(Instant::now() < until, "{AS_MUCH:?} of ringmq and Mosquitto: {all:?}");
        std::thread::sleep(Duration::from_millis(200));
    }
    assert!(growth("publish/messages/sent", &before, &now) >= 20.0, "{now:#?}");
    assert!(growth("publish/bytes/sent", &before, &now) >= 200.0, "{now:#?}");
    assert!(now["messages/sent"] >= now["publish/messages/sent"], "{now:#?}");
    assert!(now["bytes/sent"] > now["publish/bytes/sent"], "{now:#?}");
    assert!(now["clients/maximum"] >= now["clients/connected"], "{now:#?}");
    assert!(now["heap/current"] > 0.0 && now["heap/maximum"] >= now["heap/current"], "{now:#?}");
    assert!(growth("store/messages/bytes", &before, &now) >= 95.0, "{now:#?}");
}

#[test]
fn averages_are_of_a_minute_however_long_they_look_back() {
    const MESSAGES: f64 = 60.0;
    if !clients_are_there() || !Path::new(EXPORTER).exists() {
        return;
    }
    let at = Observed::start("loads", BROKER, "--mosquitto-conf");
    let all = all_topics();
    at.wait_for("all topics", |of| all.iter().all(|topic| of.contains_key(topic)));
    let begun = Instant::now();
    let publish = ["--repeat", "60", "-q", "1", "-t", "a", "-m", "x"];
    at.client("mosquitto_pub", &publish);
    // A burst adds its number, divided by the period, and decays with it.
    let is_so = |of: &Values| {
        let elapsed = begun.elapsed().as_secs_f64() / 60.0 + 0.1;
        MINUTES.iter().all(|minutes| {
            let (period, value) =
                (f64::from(*minutes), of[&format!("load/publish/received/{minutes}min")]);
            let most = MESSAGES / period;
            let least = most * (-elapsed / period).exp();
            (least - 0.01..=most + 0.01).contains(&value)
        })
    };
    at.wait_for("the averages of a burst", is_so);
}

#[test]
fn every_statistic_has_a_name_and_a_value_that_exporters_for_mosquitto_take() {
    if !clients_are_there() {
        return;
    }
    if !Path::new(EXPORTER).exists() {
        return eprintln!("SKIPPED: apt has no prometheus-mqtt-exporter");
    }
    let at = Observed::start("names", BROKER, "--mosquitto-conf");
    let all = all_topics();
    let mut messages = at.messages();
    let has_all = |of: &BTreeMap<String, String>| {
        let has = |topic: &str| of.contains_key(&format!("$SYS/broker/{topic}"));
        all.iter().all(|topic| has(topic)) && has("uptime") && has("version")
    };
    while !has_all(&messages) {
        assert!(at.started.elapsed() < PATIENCE, "{messages:#?}");
        messages = at.messages();
    }
    let version = &messages["$SYS/broker/version"];
    assert!(version.starts_with("ringmq version "), "{version}");
    let uptime = messages["$SYS/broker/uptime"].strip_suffix(" seconds").expect("a unit");
    let uptime: u64 = uptime.parse().expect("a number");
    assert!(uptime <= at.started.elapsed().as_secs(), "{uptime}");
    let mut names: BTreeMap<String, &str> = BTreeMap::new();
    for (topic, payload) in &messages {
        let name = metric_of(topic);
        let is_valid = name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_');
        assert!(is_valid, "{topic}: {name} is no name of a metric");
        let other = names.insert(name, topic);
        assert_eq!(other, None, "{topic}: the exporters end where a metric is registered twice");
        let is_number = payload.parse::<f64>().is_ok_and(f64::is_finite);
        let is_text = matches!(topic.as_str(), "$SYS/broker/version" | "$SYS/broker/uptime");
        assert!(is_number || is_text, "{topic}: {payload}");
    }
}
