//! The engine fed with conversations: well-formed packets, raw bytes, slow and broken networks, and
//! time.
//!
//! No input causes a panic, limits hold, all output is well-formed, and after all clients have
//! disconnected and every session has expired, no memory of them is left.

#![no_main]

use std::collections::HashMap;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use ringmq::base::clock::Now;
use ringmq::config::{QueuePolicy, Settings};
use ringmq::engine::{Action, AllowAll, Config, Engine, Keys};
use ringmq::base::ids::{ConnectionId, Peer};
use ringmq::resources::gauges::Place;
use ringmq::base::send_buffer::SendBuffer;
use ringmq::wire::{
    self, Ack, Connect, ConnectProperties, Frame, Packet, PacketIdentifier, Publish,
    PublishProperties, Qos, ReasonCode, Subscribe, SubscribeFilters, SubscribeOptions,
    UserProperties, Version, Will,
};

const CLIENTS: usize = 5;
const TOPICS: [&str; 6] = ["a", "a/b", "a/b/c", "$x/y", "long/enough/for/an/alias", "b"];
const FILTERS: [&str; 10] = [
    "a",
    "a/b",
    "a/+",
    "#",
    "+/b/#",
    "$share/g/a/#",
    "$share/g/a/b",
    "$share/h/#",
    "$x/#",
    "a/#/b",
];
const MEMORY_BYTES_MAX: u64 = 60_000;

#[derive(Arbitrary, Debug)]
struct Conversation {
    policy: u8,
    version: [u8; CLIENTS],
    steps: Vec<Step>,
}

#[derive(Arbitrary, Debug)]
enum Step {
    Connect {
        client: u8,
        clean: bool,
        expiry_s: u8,
        receive_maximum: u8,
        aliases: u8,
        packet_max: u16,
        will: Option<(u8, u8)>,
    },
    Subscribe {
        client: u8,
        filter: u8,
        qos: u8,
        options: u8,
        identifier: u8,
    },
    Unsubscribe {
        client: u8,
        filter: u8,
    },
    Publish {
        client: u8,
        topic: u8,
        qos: u8,
        retain: bool,
        dup: bool,
        identifier: u8,
        alias: u8,
        expiry_s: Option<u8>,
        len: u8,
        times: u8,
    },
    Ack {
        client: u8,
        kind: u8,
        identifier: u8,
        refused: bool,
    },
    Raw {
        client: u8,
        bytes: Vec<u8>,
    },
    Disconnect {
        client: u8,
        with_will: bool,
    },
    Cut {
        client: u8,
    },
    End {
        client: u8,
    },
    Deafen {
        client: u8,
    },
    Block {
        client: u8,
        is_blocked: bool,
    },
    Take {
        client: u8,
        bytes: u16,
    },
    Wait {
        tenths: u16,
    },
    Shutdown,
}

struct World {
    engine: Engine,
    now: Now,
    clients: [Option<ConnectionId>; CLIENTS],
    versions: [Version; CLIENTS],
    blocked: [bool; CLIENTS],
    held: HashMap<ConnectionId, SendBuffer>,
    streams: HashMap<ConnectionId, (Version, Vec<u8>)>,
}

impl World {
    fn settle(&mut self) {
        self.turn();
        while self.engine.poll_timeout().is_some_and(|deadline| deadline.is_due(self.now)) {
            self.engine.handle_all_read(self.now);
            self.engine.handle_timeout(self.now);
            self.turn();
        }
    }

    fn turn(&mut self) {
        while let Some(action) = self.engine.poll_action() {
            match action {
                Action::Send { connection, buffer } => {
                    let before = self.held.insert(connection, buffer);
                    assert!(before.is_none(), "one buffer at a time");
                    let client = self.clients.iter().position(|id| *id == Some(connection));
                    if client.is_none_or(|client| !self.blocked[client]) {
                        self.take(connection, usize::MAX);
                    }
                }
                Action::Close { connection, last } => {
                    let unwritten = self.held.remove(&connection);
                    for buffer in unwritten.into_iter().chain(last) {
                        self.read(connection, &buffer, usize::MAX);
                    }
                    self.check(connection);
                    self.streams.remove(&connection);
                    self.clients
                        .iter_mut()
                        .filter(|id| **id == Some(connection))
                        .for_each(|id| *id = None);
                }
                Action::AskProgress { connection } => {
                    self.engine.handle_progress(self.now, connection, None);
                }
                Action::Pause { .. } | Action::Resume { .. } | Action::OffloadTls { .. } => {}
                Action::HandOver { .. } => unreachable!("a single core hands over no connection"),
            }
        }
    }

    fn read(&mut self, id: ConnectionId, buffer: &SendBuffer, most: usize) {
        let mut slices = [std::io::IoSlice::new(&[]); 512];
        let count = buffer.io_slices(&mut slices);
        let Some((_, stream)) = self.streams.get_mut(&id) else { return };
        stream.extend(slices[..count].iter().flat_map(|slice| slice.iter()).take(most));
    }

    fn take(&mut self, id: ConnectionId, most: usize) {
        let Some(mut buffer) = self.held.remove(&id) else { return };
        let mut slices = [std::io::IoSlice::new(&[]); 512];
        let count = buffer.io_slices(&mut slices);
        let offered: usize = slices[..count].iter().map(|slice| slice.len()).sum();
        let bytes = offered.min(most);
        self.read(id, &buffer, bytes);
        buffer.advance(bytes);
        if buffer.is_empty() {
            self.engine.handle_sent(self.now, id, bytes, Some(buffer));
        } else {
            self.held.insert(id, buffer);
            self.engine.handle_sent(self.now, id, bytes, None);
        }
        self.check(id);
    }

    /// The output consists of whole packets that a strict decoder accepts, followed by the start of
    /// one.
    fn check(&mut self, id: ConnectionId) {
        let Some((version, stream)) = self.streams.get_mut(&id) else { return };
        let mut used = 0;
        while let Ok(Frame::Complete { total, .. }) = wire::frame(&stream[used..], usize::MAX) {
            let packet = &stream[used..used + total];
            if let Err(violation) = wire::decode(packet, *version) {
                panic!("sent {packet:02x?}: {violation}");
            }
            used += total;
        }
        stream.drain(..used);
    }

    fn send(&mut self, client: u8, packet: &Packet<'_>) {
        let client = usize::from(client) % CLIENTS;
        let mut bytes = Vec::new();
        packet.encode(self.versions[client], &mut bytes);
        self.raw(client, &bytes);
    }

    fn raw(&mut self, client: usize, bytes: &[u8]) {
        if self.clients[client].is_none() {
            let peer = Peer { address: None, listener: 0 };
            let Ok(id) = self.engine.handle_accepted(self.now, peer) else { return };
            self.clients[client] = Some(id);
            self.streams.insert(id, (self.versions[client], Vec::new()));
        }
        if let Some(id) = self.clients[client] {
            self.engine.handle_received(self.now, id, bytes);
        }
        self.settle();
    }

    fn cut(&mut self, client: usize) {
        if let Some(id) = self.clients[client].take() {
            self.held.remove(&id);
            self.streams.remove(&id);
            self.engine.handle_closed(self.now, id);
            self.settle();
        }
    }

    /// The client shuts down its sending direction and continues to read; later packets use another
    /// connection.
    fn end(&mut self, client: usize) {
        if let Some(id) = self.clients[client].take() {
            self.engine.handle_ended(self.now, id);
            self.settle();
            self.take(id, usize::MAX);
            self.settle();
        }
    }

    /// Writing to the client fails from now on.
    fn deafen(&mut self, client: usize) {
        if let Some(id) = self.clients[client] {
            self.held.remove(&id);
            self.engine.handle_deaf(self.now, id);
            self.settle();
        }
    }

    fn wait(&mut self, us: u64) {
        self.now = Now(self.now.0 + us);
        self.engine.handle_timeout(self.now);
        self.settle();
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Connect {
                client,
                clean,
                expiry_s,
                receive_maximum,
                aliases,
                packet_max,
                will,
            } => {
                let name = client_name(client);
                self.cut(usize::from(client) % CLIENTS);
                let version = self.versions[usize::from(client) % CLIENTS];
                let mut properties = ConnectProperties::default();
                if version == Version::V5 {
                    properties.session_expiry_interval = Some(expiry_s.into());
                    properties.receive_maximum =
                        (receive_maximum > 0).then_some(receive_maximum.into());
                    properties.topic_alias_maximum = (aliases % 4).into();
                    properties.maximum_packet_size = (packet_max > 40).then_some(packet_max.into());
                }
                let will = will.map(|(topic, delay)| Will {
                    topic: TOPICS[usize::from(topic) % TOPICS.len()],
                    payload: b"will",
                    qos: Qos::AtLeastOnce,
                    retain: topic & 64 != 0,
                    delay_interval_s: if version == Version::V5 { (delay % 20).into() } else { 0 },
                    ..Will::default()
                });
                let connect = Connect {
                    version,
                    is_bridge: version < Version::V5 && aliases & 4 != 0,
                    clean_start: clean,
                    keep_alive_s: 30,
                    client_identifier: name,
                    username: None,
                    password: None,
                    will,
                    properties,
                };
                self.send(client, &Packet::Connect(connect));
            }
            Step::Subscribe { client, filter, qos, options, identifier } => {
                let filters = [(
                    FILTERS[usize::from(filter) % FILTERS.len()],
                    SubscribeOptions {
                        qos: Qos::try_from(qos % 3).expect("below 3"),
                        no_local: options & 1 != 0 && self.is_v5(client),
                        retain_as_published: options & 2 != 0 && self.is_v5(client),
                        retain_handling: if self.is_v5(client) { (options >> 2) % 3 } else { 0 },
                    },
                )];
                let subscribe = Subscribe {
                    packet_identifier: PacketIdentifier::new(1).expect("not zero"),
                    subscription_identifier: (identifier > 200 && self.is_v5(client))
                        .then_some(identifier.into()),
                    user_properties: UserProperties::none(),
                    filters: SubscribeFilters::list(&filters),
                };
                self.send(client, &Packet::Subscribe(subscribe));
            }
            Step::Unsubscribe { client, filter } => {
                let filters = [FILTERS[usize::from(filter) % FILTERS.len()]];
                let unsubscribe = wire::Unsubscribe {
                    packet_identifier: PacketIdentifier::new(2).expect("not zero"),
                    user_properties: UserProperties::none(),
                    filters: wire::UnsubscribeFilters::list(&filters),
                };
                self.send(client, &Packet::Unsubscribe(unsubscribe));
            }
            Step::Publish {
                client,
                topic,
                qos,
                retain,
                dup,
                identifier,
                alias,
                expiry_s,
                len,
                times,
            } => {
                let payload = [b'x'; 4 * 256];
                let qos = Qos::try_from(qos % 3).expect("below 3");
                for number in 0..u16::from(times % 32) + 1 {
                    let mut properties = PublishProperties::default();
                    if self.is_v5(client) {
                        properties.topic_alias = (alias > 128).then_some(u16::from(alias % 8) + 1);
                        properties.message_expiry_interval = expiry_s.map(u32::from);
                    }
                    let publish = Publish {
                        dup: dup && qos != Qos::AtMostOnce,
                        qos,
                        retain,
                        topic: TOPICS[usize::from(topic) % TOPICS.len()],
                        packet_identifier: PacketIdentifier::new(
                            u16::from(identifier) + number + 1,
                        )
                        .filter(|_| qos != Qos::AtMostOnce),
                        properties,
                        payload: &payload[..usize::from(len) * 4],
                    };
                    self.send(client, &Packet::Publish(publish));
                }
            }
            Step::Ack { client, kind, identifier, refused } => {
                let reason = match refused && self.is_v5(client) && kind % 4 < 2 {
                    true => ReasonCode::QuotaExceeded,
                    false => ReasonCode::Success,
                };
                let Some(identifier) = PacketIdentifier::new(identifier.into()) else { return };
                let ack = Ack::new(identifier, reason);
                let packet = match kind % 4 {
                    0 => Packet::Puback(ack),
                    1 => Packet::Pubrec(ack),
                    2 => Packet::Pubrel(ack),
                    _ => Packet::Pubcomp(ack),
                };
                self.send(client, &packet);
            }
            Step::Raw { client, ref bytes } => self.raw(usize::from(client) % CLIENTS, bytes),
            Step::Disconnect { client, with_will } => {
                let reason = match with_will && self.is_v5(client) {
                    true => ReasonCode::DisconnectWithWillMessage,
                    false => ReasonCode::Success,
                };
                let disconnect = wire::Disconnect {
                    reason,
                    session_expiry_interval: None,
                    reason_string: None,
                    user_properties: UserProperties::none(),
                    server_reference: None,
                };
                self.send(client, &Packet::Disconnect(disconnect));
            }
            Step::Cut { client } => self.cut(usize::from(client) % CLIENTS),
            Step::End { client } => self.end(usize::from(client) % CLIENTS),
            Step::Deafen { client } => self.deafen(usize::from(client) % CLIENTS),
            Step::Block { client, is_blocked } => {
                let client = usize::from(client) % CLIENTS;
                self.blocked[client] = is_blocked;
                if let (false, Some(id)) = (is_blocked, self.clients[client]) {
                    self.take(id, usize::MAX);
                    self.settle();
                }
            }
            Step::Take { client, bytes } => {
                if let Some(id) = self.clients[usize::from(client) % CLIENTS] {
                    self.take(id, bytes.into());
                    self.settle();
                }
            }
            Step::Wait { tenths } => self.wait(u64::from(tenths) * 100_000),
            Step::Shutdown => {
                self.engine.handle_shutdown(self.now);
                self.settle();
            }
        }
    }

    fn is_v5(&self, client: u8) -> bool {
        self.versions[usize::from(client) % CLIENTS] == Version::V5
    }
}

fn client_name(client: u8) -> &'static str {
    ["c0", "c1", "c2", "c3", "c4"][usize::from(client) % CLIENTS]
}

fuzz_target!(|conversation: Conversation| {
    let mut settings = Settings::default();
    settings.mqtt.sys_interval_s = 0;
    let limits = &mut settings.limits;
    limits.connections_max = 10;
    limits.memory_bytes_max = MEMORY_BYTES_MAX;
    limits.outbox_bytes_max = 8_192;
    limits.queue_messages_max = 20;
    limits.queue_bytes_max = 20_000;
    limits.inflight_max = 10;
    limits.topic_alias_maximum = 5;
    limits.packet_bytes_max = 4_096;
    limits.session_expiry_max_s = 1_000;
    limits.queue_policy = match conversation.policy % 4 {
        0 => QueuePolicy::DropNewest,
        1 => QueuePolicy::DropOldest,
        2 => QueuePolicy::Disconnect,
        _ => QueuePolicy::KeepLatest,
    };
    let mut world = World {
        engine: Engine::new(Place::alone(), Config::from(&settings), Box::new(AllowAll), Keys::fixed(1), Now(0)),
        now: Now(0),
        clients: [None; CLIENTS],
        versions: conversation
            .version
            .map(|v| [Version::V5, Version::V311, Version::V5, Version::V31][usize::from(v % 4)]),
        blocked: [false; CLIENTS],
        held: HashMap::new(),
        streams: HashMap::new(),
    };
    for step in &conversation.steps {
        world.step(step);
    }
    for client in 0..CLIENTS {
        world.cut(client);
    }
    // A second later, the time limit of ending connections without progress has passed.
    world.wait(1_000_000_000);
    world.wait(1_000_000_000);
    let metrics = world.engine.metrics().clone();
    assert_eq!((metrics.clients_connected, metrics.clients_disconnected), (0, 0));
    assert_eq!((metrics.subscriptions, metrics.connections_open), (0, 0));
    assert_eq!(metrics.memory_bytes, metrics.retained_bytes, "only retained messages are left");
});
