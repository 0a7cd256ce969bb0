//! Engines without I/O for benchmarks, whose sockets accept everything and whose clients
//! acknowledge immediately. This code is measured with them and therefore kept small.
#![allow(dead_code, reason = "each benchmark uses what it needs")]

use std::io::IoSlice;
use std::sync::Arc;

use ringmq::access::Control;
use ringmq::base::clock::Now;
use ringmq::base::ids::{ConnectionId, CoreId, Peer};
use ringmq::base::send_buffer::SendBuffer;
use ringmq::config::{AclFormat, Settings};
use ringmq::engine::{Access, Action, AllowAll, Config, Engine, Keys};
use ringmq::resources::gauges::Place;
use ringmq::wire::{self, Ack, Frame, Packet, Qos, ReasonCode, Version};

#[path = "../tests/support/packets.rs"]
pub mod packets;

/// A connection and its core.
pub type Client = (usize, ConnectionId);

/// A broker in one thread.
pub struct World {
    /// By core.
    pub engines: Vec<Engine>,
    /// Pending acknowledgements of clients, with their connections.
    owed: Vec<(Client, Vec<u8>)>,
    acknowledges: bool,
}

impl World {
    /// A broker with this many cores, whose clients acknowledge or not.
    pub fn new(cores: u16, acknowledges: bool) -> Self {
        Self::with_access(cores, acknowledges, || Box::new(AllowAll))
    }

    /// A broker with one core and these access rules.
    pub fn with_rules(rules: &str) -> Self {
        let control = control(rules);
        Self::with_access(1, false, || Box::new(control.for_core(Arc::new(|| {}))))
    }

    /// The same with the rules of Mosquitto, which filter the subscriptions that they cover in part.
    pub fn with_filters(rules: &str) -> Self {
        let control = control_of(rules, AclFormat::Mosquitto);
        Self::with_access(1, false, || Box::new(control.for_core(Arc::new(|| {}))))
    }

    fn with_access(cores: u16, acknowledges: bool, access: impl Fn() -> Box<dyn Access>) -> Self {
        let mut settings = Settings::default();
        settings.limits.connections_max = 10_000;
        settings.limits.memory_bytes_max = 1 << 32;
        settings.mqtt.sys_interval_s = 0;
        let engine =
            |place| Engine::new(place, Config::from(&settings), access(), Keys::fixed(1), Now(0));
        let engines = Place::each(cores).into_iter().map(engine).collect();
        Self { engines, owed: Vec::new(), acknowledges }
    }

    /// A subscribed client connected to `core`, its home.
    pub fn client(&mut self, core: usize, filter: &str, qos: Qos) -> Client {
        let peer = Peer { address: None, listener: 0 };
        let id = self.engines[core].handle_accepted(Now(0), peer).expect("accepted");
        // Without a Client Identifier it stays on its core.
        self.receive((core, id), &packets::connect("", Version::V311));
        self.receive((core, id), &packets::subscribe(filter, qos, Version::V311));
        (core, id)
    }

    /// A disconnected client with a persistent session and a subscription at QoS 1.
    pub fn member_away(&mut self, name: &str, filter: &str) {
        let peer = Peer { address: None, listener: 0 };
        let id = self.engines[0].handle_accepted(Now(0), peer).expect("accepted");
        self.receive((0, id), &packets::connect_kept(name, Version::V311));
        self.receive((0, id), &packets::subscribe(filter, Qos::AtLeastOnce, Version::V311));
        self.engines[0].handle_closed(Now(0), id);
    }

    /// One publisher, and this many subscribers to `a/topic` on the last core.
    pub fn fan_out(cores: u16, qos: Qos, subscribers: usize) -> (Self, Client) {
        let mut world = Self::new(cores, qos != Qos::AtMostOnce);
        let publisher = world.client(0, "elsewhere", Qos::AtMostOnce);
        for _ in 0..subscribers {
            world.client(usize::from(cores) - 1, "a/topic", qos);
        }
        (world, publisher)
    }

    /// Processes bytes from a client, and everything that follows.
    pub fn receive(&mut self, (core, id): Client, bytes: &[u8]) {
        self.engines[core].handle_received(Now(0), id, bytes);
        self.settle();
    }

    /// Processes a PINGREQ from each of these clients in one turn.
    pub fn ping(&mut self, clients: &[Client]) {
        for &(core, id) in clients {
            self.engines[core].handle_received(Now(0), id, &[0xC0, 0]);
        }
        self.settle();
    }

    fn settle(&mut self) {
        loop {
            (0..self.engines.len()).for_each(|core| self.send(core));
            let is_quiet = !self.carry() && self.owed.is_empty();
            if is_quiet {
                return;
            }
            for ((core, id), acks) in std::mem::take(&mut self.owed) {
                self.engines[core].handle_received(Now(0), id, &acks);
            }
        }
    }

    fn send(&mut self, core: usize) {
        while let Some(action) = self.engines[core].poll_action() {
            let Action::Send { connection, mut buffer } = action else { continue };
            if self.acknowledges {
                self.owe((core, connection), &buffer);
            }
            let bytes = buffer.len();
            buffer.advance(bytes);
            self.engines[core].handle_sent(Now(0), connection, bytes, Some(buffer));
        }
    }

    /// Exchanges messages between cores; false if there were none.
    fn carry(&mut self) -> bool {
        let mut has_said = false;
        let cores = self.engines.len();
        for (from, to) in (0..cores).flat_map(|from| (0..cores).map(move |to| (from, to))) {
            if from == to {
                continue;
            }
            while let Some(batch) = self.engines[from].poll_batch(CoreId(to as u16)) {
                self.engines[to].handle_batch(Now(0), CoreId(from as u16), batch);
                has_said = true;
            }
        }
        has_said
    }

    fn owe(&mut self, client: Client, buffer: &SendBuffer) {
        let mut slices = [IoSlice::new(&[]); 64];
        let count = buffer.io_slices(&mut slices);
        let mut acks = Vec::new();
        for slice in &slices[..count] {
            let mut rest: &[u8] = slice;
            while let Ok(Frame::Complete { total, .. }) = wire::frame(rest, usize::MAX) {
                if let Ok(Packet::Publish(publish)) = wire::decode(&rest[..total], Version::V311)
                    && let Some(identifier) = publish.packet_identifier
                {
                    let ack = Ack::new(identifier, ReasonCode::Success);
                    Packet::Puback(ack).encode(Version::V311, &mut acks);
                }
                rest = &rest[total..];
            }
        }
        if !acks.is_empty() {
            self.owed.push((client, acks));
        }
    }
}

/// An access control with these rules, which accepts every client.
pub fn control(rules: &str) -> Arc<Control> {
    control_of(rules, AclFormat::Ringmq)
}

fn control_of(rules: &str, format: AclFormat) -> Arc<Control> {
    let file = std::env::temp_dir().join(format!("ringmq-bench-acl-{}", std::process::id()));
    std::fs::write(&file, rules).expect("a file for the rules");
    let mut settings = Settings::default();
    settings.access.acl_file.clone_from(&file);
    settings.access.acl_format = format;
    let control = Control::open(&settings).expect("valid rules").expect("rules are configured");
    std::fs::remove_file(file).expect("just written");
    control
}

/// This many consecutive PUBLISH packets, as in a receive buffer.
pub fn messages(topic: &str, qos: Qos, count: u16, payload_bytes: usize) -> Vec<u8> {
    let payload = vec![b'x'; payload_bytes];
    (1..=count)
        .flat_map(|number| packets::publish_bytes(topic, qos, number, Version::V311, &payload))
        .collect()
}
