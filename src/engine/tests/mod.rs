//! The engine driven in process, with time under the control of the test: for tests that span hours,
//! script the access control or inspect state. `tests/conformance` checks the same promises on the wire.

mod authentication;
mod backpressure;
mod bounds;
#[cfg(feature = "bridge")]
mod bridges;
mod checkpoint;
mod checkpoint_parts;
#[cfg(feature = "cluster")]
mod cluster;
mod cores;
mod counters;
mod decisions;
mod durability;
mod expiry;
mod fan_out;
mod filtered;
mod groups;
#[cfg(feature = "tls")]
mod handshakes;
mod input;
#[cfg(feature = "admin")]
mod inspect;
#[cfg(feature = "tls")]
mod kernel_tls;
mod listener_qos;
mod log_topics;
mod memory;
mod mounted;
mod overdue;
mod payloads;
mod queue_qos0;
mod reload;
mod rights;
mod sending;
mod sessions;
#[cfg(feature = "admin")]
mod spans;
mod stream_end;
#[cfg(feature = "admin")]
mod trace;
mod transit;
mod users;
#[cfg(feature = "webhooks")]
mod webhooks;
mod wills;
mod work;

use std::collections::{HashMap, HashSet};
use std::io::IoSlice;

use super::*;
use crate::base::send_buffer::SendBuffer;
use crate::config::Settings;
use crate::wire::{
    self, Connect, ConnectProperties, Frame, Packet, PacketIdentifier, Publish, PublishProperties,
    Qos, ReasonCode, Subscribe, SubscribeFilters, SubscribeOptions, UserProperties, Version,
};

/// An engine and the network around it.
pub(super) struct World {
    pub engine: Engine,
    pub now: Now,
    received: HashMap<ConnectionId, Vec<u8>>,
    held: HashMap<ConnectionId, SendBuffer>,
    pub closed: HashSet<ConnectionId>,
    pub paused: HashSet<ConnectionId>,
    /// Connections whose peer takes no bytes.
    pub stuck: HashSet<ConnectionId>,
    /// Bytes that a peer has not acknowledged, as reported by the kernel, if it reports any.
    pub unacknowledged: HashMap<ConnectionId, usize>,
    /// Connections that are handed over to their home cores.
    pub leaving: Vec<(ConnectionId, CoreId, Box<HandedOver>)>,
    /// Connections to be moved to kernel TLS.
    pub offloading: Vec<ConnectionId>,
}

/// The CONNECT of a client.
pub(super) struct Client<'a> {
    pub name: &'a str,
    pub version: Version,
    pub clean_start: bool,
    pub properties: ConnectProperties<'a>,
    pub will: Option<wire::Will<'a>>,
}

impl<'a> Client<'a> {
    pub fn v5(name: &'a str) -> Self {
        let properties = ConnectProperties::default();
        Self { name, version: Version::V5, clean_start: true, properties, will: None }
    }

    pub fn persistent(name: &'a str) -> Self {
        let mut client = Self::v5(name);
        client.clean_start = false;
        client.properties.session_expiry_interval = Some(3_600);
        client
    }
}

impl World {
    pub fn new() -> Self {
        Self::with(|_| {}, Box::new(AllowAll))
    }

    pub fn with(change: impl FnOnce(&mut Settings), access: Box<dyn Access>) -> Self {
        Self::at(Place::alone(), change, access)
    }

    /// An engine that is one of several cores.
    pub fn at(place: Place, change: impl FnOnce(&mut Settings), access: Box<dyn Access>) -> Self {
        Self::with_keys(place, change, access, Keys::fixed(7))
    }

    /// With these keys.
    pub fn with_keys(
        place: Place,
        change: impl FnOnce(&mut Settings),
        access: Box<dyn Access>,
        keys: Keys,
    ) -> Self {
        let mut settings = Settings::default();
        settings.mqtt.sys_interval_s = 0;
        settings.limits.memory_bytes_max = 1 << 30;
        settings.limits.connections_max = 100;
        change(&mut settings);
        Self {
            engine: Engine::new(place, Config::from(&settings), access, keys, Now(0)),
            now: Now(0),
            received: HashMap::new(),
            held: HashMap::new(),
            closed: HashSet::new(),
            paused: HashSet::new(),
            stuck: HashSet::new(),
            unacknowledged: HashMap::new(),
            leaving: Vec::new(),
            offloading: Vec::new(),
        }
    }

    /// A connection that has sent nothing yet.
    pub fn accept(&mut self) -> ConnectionId {
        let peer = Peer { address: None, listener: 0 };
        let id = self.engine.handle_accepted(self.now, peer).expect("accepted");
        self.received.insert(id, Vec::new());
        id
    }

    /// A connection that another core has handed over.
    #[cfg(feature = "admin")]
    pub fn adopt(&mut self, id: ConnectionId) {
        self.received.insert(id, Vec::new());
        self.settle();
    }

    /// Connects a client and drops its CONNACK.
    pub fn connect(&mut self, client: &Client<'_>) -> ConnectionId {
        let id = self.accept();
        self.send_connect(id, client);
        let packets = self.packets(id, client.version);
        assert!(packets[0].starts_with("Connack"), "{packets:?}");
        id
    }

    pub fn send_connect(&mut self, id: ConnectionId, client: &Client<'_>) {
        self.send_connect_with_keep_alive(id, client, 0);
    }

    pub fn send_connect_with_keep_alive(
        &mut self,
        id: ConnectionId,
        client: &Client<'_>,
        keep_alive_s: u16,
    ) {
        let connect = Connect {
            version: client.version,
            is_bridge: false,
            clean_start: client.clean_start,
            keep_alive_s,
            client_identifier: client.name,
            username: None,
            password: None,
            will: client.will.clone(),
            properties: client.properties.clone(),
        };
        self.send(id, client.version, &Packet::Connect(connect));
    }

    pub fn send(&mut self, id: ConnectionId, version: Version, packet: &Packet<'_>) {
        let mut bytes = Vec::new();
        packet.encode(version, &mut bytes);
        self.engine.handle_received(self.now, id, &bytes);
        self.settle();
    }

    pub fn subscribe(&mut self, id: ConnectionId, filter: &str, qos: Qos) {
        let options = SubscribeOptions {
            qos,
            no_local: false,
            retain_as_published: false,
            retain_handling: 0,
        };
        let filters = [(filter, options)];
        let subscribe = Subscribe {
            packet_identifier: identifier(1),
            subscription_identifier: None,
            user_properties: UserProperties::none(),
            filters: SubscribeFilters::list(&filters),
        };
        self.send(id, Version::V5, &Packet::Subscribe(subscribe));
    }

    pub fn publish(
        &mut self,
        id: ConnectionId,
        topic: &str,
        payload: &[u8],
        qos: Qos,
        number: u16,
    ) {
        let publish = publish(topic, payload, qos, number);
        self.send(id, Version::V5, &Packet::Publish(publish));
    }

    /// Runs turns until no work is left except taking records for the store.
    pub fn settle(&mut self) {
        self.turn();
        while self.engine.poll_timeout().is_some_and(|deadline| deadline.is_due(self.now))
            && !self.engine.has_records()
        {
            // All bytes sent in a test are received at once.
            self.engine.handle_all_read(self.now);
            self.engine.handle_timeout(self.now);
            self.turn();
        }
    }

    /// Carries out actions until none is left.
    pub fn turn(&mut self) {
        self.engine.poll_commands(self.now);
        while let Some(action) = self.engine.poll_action() {
            match action {
                Action::Send { connection, buffer } => {
                    assert!(!self.held.contains_key(&connection), "one buffer at a time");
                    if self.stuck.contains(&connection) {
                        self.held.insert(connection, buffer);
                    } else {
                        self.take(connection, buffer);
                    }
                }
                Action::Close { connection, last } => {
                    if let Some(last) = last {
                        self.read(connection, &last);
                    }
                    self.closed.insert(connection);
                }
                Action::Pause { connection } => {
                    assert!(self.paused.insert(connection), "paused once");
                }
                Action::HandOver { connection, to, handed_over } => {
                    self.leaving.push((connection, to, handed_over));
                }
                Action::AskProgress { connection } => {
                    let unacknowledged = self.unacknowledged.get(&connection).copied();
                    self.engine.handle_progress(self.now, connection, unacknowledged);
                }
                Action::OffloadTls { connection } => self.offloading.push(connection),
                Action::Resume { connection } => {
                    assert!(self.paused.remove(&connection), "resumed once");
                }
            }
        }
    }

    /// A peer that was stuck reads everything.
    pub fn unstick(&mut self, id: ConnectionId) {
        self.stuck.remove(&id);
        if let Some(buffer) = self.held.remove(&id) {
            self.take(id, buffer);
        }
        self.settle();
    }

    /// A peer that is stuck reads `bytes`.
    pub fn take_some(&mut self, id: ConnectionId, bytes: usize) {
        let buffer = self.held.get_mut(&id).expect("a buffer held for the peer");
        assert!(bytes < buffer.len());
        buffer.advance(bytes);
        self.engine.handle_sent(self.now, id, bytes, None);
        self.settle();
    }

    fn take(&mut self, id: ConnectionId, mut buffer: SendBuffer) {
        self.read(id, &buffer);
        let bytes = buffer.len();
        buffer.advance(bytes);
        self.engine.handle_sent(self.now, id, bytes, Some(buffer));
    }

    fn read(&mut self, id: ConnectionId, buffer: &SendBuffer) {
        let mut slices = [IoSlice::new(&[]); 1024];
        let count = buffer.io_slices(&mut slices);
        let stream = self.received.get_mut(&id).expect("a connection of this world");
        let before = stream.len();
        slices[..count].iter().for_each(|slice| stream.extend_from_slice(slice));
        assert_eq!(stream.len() - before, buffer.len());
    }

    /// Advances time for a core that handles each event when it is due.
    pub fn advance_ms(&mut self, ms: u64) {
        self.now = Now(self.now.0 + ms * 1_000);
        self.engine.handle_timeout(self.now);
        self.engine.connections.come_in_time();
        self.settle();
    }

    /// Advances time while the core is stopped, so that it handles no event in between.
    pub fn jump_ms(&mut self, ms: u64) {
        self.now = Now(self.now.0 + ms * 1_000);
        self.engine.handle_timeout(self.now);
        self.turn();
    }

    /// Ends the stream of the peer, which may still read.
    pub fn end(&mut self, id: ConnectionId) {
        self.engine.handle_ended(self.now, id);
        self.settle();
    }

    /// Sends several packets at once.
    pub fn send_all(&mut self, id: ConnectionId, packets: &[Packet<'_>]) {
        let mut bytes = Vec::new();
        packets.iter().for_each(|packet| packet.encode(Version::V5, &mut bytes));
        self.engine.handle_received(self.now, id, &bytes);
        self.settle();
    }

    /// Breaks the network connection.
    pub fn cut(&mut self, id: ConnectionId) {
        self.held.remove(&id);
        self.engine.handle_closed(self.now, id);
        self.settle();
    }

    /// The packets received since the last call, as text.
    pub fn packets(&mut self, id: ConnectionId, version: Version) -> Vec<String> {
        let mut seen = Vec::new();
        self.each_packet(id, version, |packet| seen.push(format!("{packet:?}")));
        seen
    }

    /// Topic, payload and QoS of the PUBLISH packets received since the last call.
    pub fn publishes(&mut self, id: ConnectionId) -> Vec<(String, String, u8, Option<u16>)> {
        let mut seen = Vec::new();
        self.each_packet(id, Version::V5, |packet| {
            if let Packet::Publish(publish) = packet {
                seen.push((
                    publish.topic.to_owned(),
                    String::from_utf8_lossy(publish.payload).into_owned(),
                    u8::from(publish.qos),
                    publish.packet_identifier.map(PacketIdentifier::get),
                ));
            }
        });
        seen
    }

    pub fn payloads(&mut self, id: ConnectionId) -> Vec<String> {
        self.publishes(id).into_iter().map(|(_, payload, _, _)| payload).collect()
    }

    fn each_packet(
        &mut self,
        id: ConnectionId,
        version: Version,
        mut each: impl FnMut(Packet<'_>),
    ) {
        let bytes = std::mem::take(self.received.get_mut(&id).expect("known"));
        let mut rest = &bytes[..];
        while let Ok(Frame::Complete { total, .. }) = wire::frame(rest, usize::MAX) {
            each(wire::decode(&rest[..total], version).expect("the engine sends valid packets"));
            rest = &rest[total..];
        }
        assert!(rest.is_empty(), "whole packets");
    }
}

pub(super) fn identifier(number: u16) -> PacketIdentifier {
    PacketIdentifier::new(number).expect("not zero")
}

pub(super) fn publish<'a>(topic: &'a str, payload: &'a [u8], qos: Qos, number: u16) -> Publish<'a> {
    Publish {
        dup: false,
        qos,
        retain: false,
        topic,
        packet_identifier: PacketIdentifier::new(number).filter(|_| qos != Qos::AtMostOnce),
        properties: PublishProperties::default(),
        payload,
    }
}

pub(super) fn ack(number: u16) -> wire::Ack<'static> {
    wire::Ack::new(identifier(number), ReasonCode::Success)
}
