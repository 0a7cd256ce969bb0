//! A subscriber that collects what it receives.

use std::time::{Duration, Instant};

use crate::PATIENCE;
use crate::support::{Ack, Broker, Client, Connect, Packet, Publish};

/// QoS 2, and RETAIN as the publisher has set it.
const OPTIONS: u8 = 2 | 0x08;

/// Time without a message after which the traffic has ended: messages in a loop follow each other in milliseconds.
const QUIET: Duration = Duration::from_millis(400);

/// A subscriber that completes each exchange without waiting for its end.
pub struct Witness {
    client: Client,
}

impl Witness {
    /// Subscribes with a session that ends with the connection.
    pub fn at(broker: &Broker, filter: &str) -> Self {
        Self::of(broker, Connect::v5(&format!("witness of {filter}")), filter)
    }

    /// Subscribes with a session of MQTT 3.1.1 that ends with the connection.
    pub fn before_5(broker: &Broker, name: &str, filter: &str) -> Self {
        let mut client = Client::connect(broker, Connect::v311(name));
        client.subscribe_to_what_comes(filter, 2);
        Self { client }
    }

    /// Subscribes as this client.
    pub fn of(broker: &Broker, connect: Connect, filter: &str) -> Self {
        let mut client = Client::connect(broker, connect);
        client.subscribe_to_what_comes(filter, OPTIONS);
        Self { client }
    }

    /// The next message, if there is one within `patience`.
    pub fn within(&mut self, patience: Duration) -> Option<Publish> {
        let until = Instant::now() + patience;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.client.receive_within(left)? {
                Packet::Publish(publish) => {
                    match publish.qos {
                        0 => {}
                        1 => self.client.send(Ack::puback(publish.id())),
                        _ => self.client.send(Ack::pubrec(publish.id())),
                    }
                    return Some(publish);
                }
                Packet::Ack(ack) if ack.kind == 6 => {
                    self.client.send(Ack::pubcomp(ack.packet_identifier));
                }
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    /// The next message.
    #[track_caller]
    pub fn next(&mut self) -> Publish {
        self.within(PATIENCE).unwrap_or_else(|| panic!("no message within {PATIENCE:?}"))
    }

    /// The payloads of the next messages.
    #[track_caller]
    pub fn texts(&mut self, count: usize) -> Vec<String> {
        (0..count).map(|_| self.next().text().to_owned()).collect()
    }

    /// The payloads of the messages before the one with payload `end`.
    #[track_caller]
    pub fn texts_before(&mut self, end: &str) -> Vec<String> {
        let mut texts = Vec::new();
        loop {
            match self.next().text() {
                text if text == end => return texts,
                text => texts.push(text.to_owned()),
            }
        }
    }

    /// The messages until there was none for a while.
    #[track_caller]
    pub fn until_quiet(&mut self) -> Vec<Publish> {
        let (mut came, until) = (Vec::new(), Instant::now() + PATIENCE);
        while let Some(publish) = self.within(QUIET) {
            assert!(Instant::now() < until, "{} messages, and no end", came.len());
            came.push(publish);
        }
        came
    }
}
