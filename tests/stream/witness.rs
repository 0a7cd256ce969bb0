//! A subscriber that receives all messages and Wills of a broker.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::script::{Expected, topic, will_topic};
use crate::support::{Broker, PATIENCE};

/// The data received so far: payloads by topic.
#[derive(Default)]
struct Seen {
    payloads: HashMap<String, Vec<Vec<u8>>>,
    /// The number of messages of its client received before a Will.
    before_will: HashMap<String, usize>,
    /// Wills that were expected.
    wills: HashSet<String>,
}

/// A subscriber to all topics.
pub struct Witness {
    seen: Arc<Mutex<Seen>>,
}

impl Witness {
    pub fn of(broker: &Broker) -> Self {
        let mut client = broker.client("tcp");
        client.connect("witness");
        client.subscribe("s/#");
        client.subscribe("w/#");
        let seen = Arc::new(Mutex::new(Seen::default()));
        let noted = Arc::clone(&seen);
        std::thread::spawn(move || {
            while let Ok((_, body)) = client.packet() {
                let length = usize::from(u16::from_be_bytes([body[0], body[1]]));
                let (topic, payload) = body[2..].split_at(length);
                let topic = String::from_utf8(topic.to_vec()).expect("text");
                let mut seen = noted.lock().expect("no test panics with the lock");
                if let Some(name) = topic.strip_prefix("w/") {
                    let before = seen.payloads.get(&format!("s/{name}")).map_or(0, Vec::len);
                    seen.before_will.insert(name.to_owned(), before);
                }
                seen.payloads.entry(topic).or_default().push(payload.to_vec());
            }
        });
        Self { seen }
    }

    /// Waits until a client's messages have arrived, and its Will if expected.
    pub fn expects(&self, name: &str, expected: &Expected, what: &str) {
        let until = Instant::now() + PATIENCE;
        loop {
            {
                let seen = &mut *self.seen.lock().expect("no test panics with the lock");
                let payloads = seen.payloads.get(&topic(name)).map_or(&[][..], Vec::as_slice);
                let wills = seen.payloads.get(&will_topic(name)).map_or(0, Vec::len);
                let is_all = payloads.len() >= expected.payloads.len()
                    && wills >= usize::from(expected.has_will);
                if is_all || Instant::now() > until {
                    let count = (payloads.len(), wills);
                    let most = (expected.payloads.len(), usize::from(expected.has_will));
                    assert_eq!(count, most, "{what}: messages and Wills");
                    assert!(payloads == expected.payloads, "{what}: order");
                    if expected.has_will {
                        assert_eq!(seen.before_will[name], most.0, "{what}: the Will is last");
                        seen.wills.insert(name.to_owned());
                    }
                    return;
                }
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Checks that a client's messages are a prefix of these; its Will may arrive.
    pub fn expects_no_more_than(&self, name: &str, expected: &Expected, what: &str) {
        let seen = &mut *self.seen.lock().expect("no test panics with the lock");
        let payloads = seen.payloads.get(&topic(name)).map_or(&[][..], Vec::as_slice);
        assert!(expected.payloads.starts_with(payloads), "{what}: order");
        seen.wills.insert(name.to_owned());
    }

    /// Checks that no unexpected Will arrived.
    pub fn has_seen_no_other_will(&self, what: &str) {
        std::thread::sleep(Duration::from_millis(200));
        let seen = self.seen.lock().expect("no test panics with the lock");
        let others: Vec<&String> =
            seen.before_will.keys().filter(|name| !seen.wills.contains(*name)).collect();
        assert!(others.is_empty(), "{what}: {others:?}");
    }
}
