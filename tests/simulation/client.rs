//! A client that follows the protocol: what it sends, what it has to acknowledge, and what it
//! received. Reports its observations to the judge.

mod half_closed;
mod roaming;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ringmq::wire::{
    self, Ack, Connect, ConnectProperties, Disconnect, Packet, PacketIdentifier, Publish,
    PublishProperties, Qos, ReasonCode, Subscribe, SubscribeFilters, SubscribeOptions, Unsubscribe,
    UnsubscribeFilters, UserProperties, Version,
};

use self::half_closed::HalfClosed;
use self::roaming::Roaming;
use crate::judge::{Judge, Seen};
use crate::wills;
use crate::world::{At, World};

/// A message of this client whose exchange is not complete.
struct Pending {
    identifier: u16,
    message: usize,
    /// PUBREC was received: PUBREL is sent again instead of PUBLISH.
    is_released: bool,
}

pub struct Client {
    pub number: usize,
    pub name: String,
    pub version: Version,
    pub link: Option<usize>,
    /// The connection whose sending direction is shut down.
    half_closed: Option<HalfClosed>,
    /// Connections that were replaced by a later one.
    abandoned: Vec<usize>,
    roaming: Roaming,
    /// CONNACK was received on the current link.
    pub is_connected: bool,
    /// Session Expiry Interval of the server's session, as requested in CONNECT.
    expiry_s: u32,
    is_clean: bool,
    /// The client does not know which session the server has.
    must_start_clean: bool,
    /// When the connection ended, if the session outlives it.
    left_us: u64,
    /// The Session Expiry Interval of the disconnected session.
    kept_s: u64,
    /// Number of Packet Identifiers: small, so that each is soon reused.
    identifiers: u16,
    last_identifier: u16,
    pending: VecDeque<Pending>,
    /// QoS 2 exchanges between PUBREC and PUBREL.
    received: BTreeSet<u16>,
    subscribing: BTreeMap<u16, (&'static str, u8)>,
    unsubscribing: BTreeMap<u16, &'static str>,
    pub is_lazy: bool,
    owed: Vec<Vec<u8>>,
    /// End offset of each message in the data sent on the link.
    ends: VecDeque<(usize, usize)>,
}

impl Client {
    pub fn new(
        number: usize,
        name: String,
        version: Version,
        identifiers: u16,
        roams: bool,
    ) -> Self {
        Self {
            number,
            name,
            version,
            link: None,
            half_closed: None,
            abandoned: Vec::new(),
            roaming: Roaming::new(roams),
            is_connected: false,
            expiry_s: 0,
            is_clean: true,
            must_start_clean: false,
            left_us: 0,
            kept_s: 0,
            identifiers,
            last_identifier: 0,
            pending: VecDeque::new(),
            received: BTreeSet::new(),
            subscribing: BTreeMap::new(),
            unsubscribing: BTreeMap::new(),
            is_lazy: false,
            owed: Vec::new(),
            ends: VecDeque::new(),
        }
    }

    /// Whether the session outlives its connection.
    pub fn is_persistent(&self) -> bool {
        match self.version {
            Version::V5 => self.expiry_s > 0,
            _ => !self.is_clean,
        }
    }

    /// The Session Expiry Interval that the last CONNECT asked for.
    fn requested_s(&self) -> u64 {
        if self.version == Version::V5 { self.expiry_s.into() } else { 3_600 }
    }

    /// Whether a disconnected session may have expired by now, or be about to.
    fn may_have_expired(&self, now_us: u64) -> bool {
        now_us.saturating_sub(self.left_us) + 1_000_000 >= self.kept_s * 1_000_000
    }

    pub fn connect(&mut self, world: &mut World, judge: &mut Judge, core: usize, how: How) {
        if self.link.is_some() && !self.is_connected && self.roams() {
            self.cut(world, judge);
        }
        if self.link.is_some() && !self.is_connected || self.has_connect_in_transit(world) {
            // The order of two CONNECTs in transit is undefined.
            return;
        }
        // The new connection takes over the old one, which the server may keep for a while.
        self.abandoned.extend(self.link);
        self.lose_link(world, judge);
        self.forget_half_closed(judge);
        let how = How { is_clean: how.is_clean || self.must_start_clean, ..how };
        if how.is_clean {
            judge.end_session(self.number);
        }
        self.go_to(world, judge, core);
        (self.is_clean, self.expiry_s) = (how.is_clean, how.expiry_s);
        self.link = Some(world.connect(core));
        let mut properties = ConnectProperties::default();
        if self.version == Version::V5 {
            properties.session_expiry_interval = Some(how.expiry_s);
        }
        let name = self.name.clone();
        let number = judge.wills.connect(self.number, how.has_will).map(u64::to_be_bytes);
        let will = number.as_ref().map(|number| wire::Will {
            topic: wills::TOPICS[self.number],
            payload: number,
            qos: Qos::AtLeastOnce,
            retain: true,
            ..wire::Will::default()
        });
        let connect = Connect {
            version: self.version,
            is_bridge: false,
            clean_start: how.is_clean,
            keep_alive_s: 0,
            client_identifier: &name,
            username: None,
            password: None,
            will,
            properties,
        };
        self.send(world, &Packet::Connect(connect));
        if let Some(filter) = how.pipelined {
            self.subscribe_now(world, judge, filter, 1);
        }
    }

    /// The connection has ended; a persistent session must still receive its messages.
    pub fn lose_link(&mut self, world: &mut World, judge: &mut Judge) {
        self.end_link(world, judge, false);
    }

    fn end_link(&mut self, world: &mut World, judge: &mut Judge, is_polite: bool) {
        let Some(link) = self.link.take() else { return };
        let was_connected = std::mem::take(&mut self.is_connected);
        judge.wills.end(self.number, was_connected, is_polite);
        if was_connected {
            self.left_us = world.now.0;
        } else {
            self.give_up_connect(world, judge, link);
        }
        self.owed.clear();
        self.ends.clear();
        self.subscribing.clear();
        self.unsubscribing.clear();
        judge.lose_connection(self.number);
        if was_connected && !self.is_persistent() {
            self.begin_anew(judge);
        }
    }

    /// The server has no session: exchanges started in one have ended.
    fn begin_anew(&mut self, judge: &mut Judge) {
        for pending in self.pending.drain(..) {
            judge.doubt(pending.message);
        }
        self.received.clear();
        judge.begin_session(self.number);
    }

    /// Closes replaced connections, should the server not have done so.
    pub fn drop_abandoned(&mut self, world: &mut World) {
        self.abandoned.drain(..).for_each(|link| world.cut(link));
    }

    pub fn leave(&mut self, world: &mut World, judge: &mut Judge) {
        if self.is_connected {
            self.send(world, &Packet::Disconnect(Disconnect::default()));
            self.end_link(world, judge, true);
        }
    }

    pub fn cut(&mut self, world: &mut World, judge: &mut Judge) {
        self.forget_half_closed(judge);
        if let Some(link) = self.link {
            world.cut(link);
            self.lose_link(world, judge);
        }
    }

    pub fn subscribe(
        &mut self,
        world: &mut World,
        judge: &mut Judge,
        filter: &'static str,
        qos: u8,
    ) {
        if self.is_connected && self.may_ask() {
            self.subscribe_now(world, judge, filter, qos);
        }
    }

    /// Whether there are Packet Identifiers for subscriptions.
    fn may_ask(&self) -> bool {
        self.subscribing.len() + self.unsubscribing.len() < usize::from(self.identifiers / 2)
    }

    fn subscribe_now(
        &mut self,
        world: &mut World,
        judge: &mut Judge,
        filter: &'static str,
        qos: u8,
    ) {
        judge.ask(self.number, filter, qos);
        let identifier = self.identifier();
        self.subscribing.insert(identifier.get(), (filter, qos));
        let options = SubscribeOptions {
            qos: Qos::try_from(qos).expect("0 to 2"),
            no_local: false,
            retain_as_published: false,
            retain_handling: 0,
        };
        let filters = [(filter, options)];
        let subscribe = Subscribe {
            packet_identifier: identifier,
            subscription_identifier: None,
            user_properties: UserProperties::none(),
            filters: SubscribeFilters::list(&filters),
        };
        self.send(world, &Packet::Subscribe(subscribe));
    }

    pub fn unsubscribe(&mut self, world: &mut World, judge: &mut Judge, filter: &'static str) {
        if !self.is_connected || !self.may_ask() {
            return;
        }
        // A SUBACK that is still in transit is obsolete.
        self.subscribing.retain(|_, (of, _)| *of != filter);
        judge.unsubscribe(self.number, filter);
        let filters = [filter];
        let identifier = self.identifier();
        self.unsubscribing.insert(identifier.get(), filter);
        let unsubscribe = Unsubscribe {
            packet_identifier: identifier,
            user_properties: UserProperties::none(),
            filters: UnsubscribeFilters::list(&filters),
        };
        self.send(world, &Packet::Unsubscribe(unsubscribe));
    }

    /// Publishes a message, or removes a retained one if `bytes` is 0.
    pub fn publish(
        &mut self,
        world: &mut World,
        judge: &mut Judge,
        topic: &'static str,
        qos: u8,
        retain: bool,
        bytes: usize,
    ) {
        if !self.is_connected || !self.has_room() {
            return;
        }
        let message = judge.publish(self.number, topic, qos, retain, bytes);
        let identifier = (qos > 0).then(|| self.identifier().get());
        self.send_publish(world, judge, message, identifier, false);
        if let Some(identifier) = identifier {
            self.pending.push_back(Pending { identifier, message, is_released: false });
        }
    }

    /// Whether the client may have another message in flight.
    pub fn has_room(&self) -> bool {
        self.pending.len() < usize::from(self.identifiers / 4).min(500)
    }

    fn send_publish(
        &mut self,
        world: &mut World,
        judge: &Judge,
        message: usize,
        identifier: Option<u16>,
        dup: bool,
    ) {
        let of = &judge.messages[message];
        let payload = judge.payload(message);
        let publish = Publish {
            dup,
            qos: Qos::try_from(of.qos).expect("0 to 2"),
            retain: of.retain,
            topic: of.topic,
            packet_identifier: identifier.and_then(PacketIdentifier::new),
            properties: PublishProperties::default(),
            payload: &payload,
        };
        self.send(world, &Packet::Publish(publish));
        let link = self.link.expect("just sent on it");
        self.ends.push_back((world.links[link].sent.len(), message));
    }

    fn identifier(&mut self) -> PacketIdentifier {
        let is_free = |of: &u16| {
            self.pending.iter().all(|pending| pending.identifier != *of)
                && !self.subscribing.contains_key(of)
                && !self.unsubscribing.contains_key(of)
        };
        let (last, most) = (self.last_identifier, self.identifiers);
        let mut next = (0..most).map(|on| (last + on) % most + 1);
        self.last_identifier = next.find(is_free).expect("some are left free");
        PacketIdentifier::new(self.last_identifier).expect("from 1")
    }

    fn send(&mut self, world: &mut World, packet: &Packet<'_>) {
        let Some(link) = self.link else { return };
        packet.encode(self.version, &mut world.links[link].sent);
    }

    fn owe(&mut self, packet: &Packet<'_>) {
        let mut bytes = Vec::new();
        packet.encode(self.version, &mut bytes);
        self.owed.push(bytes);
    }

    /// Reports to the judge which messages a core has read so far.
    pub fn note_read(&mut self, world: &mut World, judge: &mut Judge) {
        let Some(link) = self.link else { return };
        let reads = &mut world.links[link].reads;
        while let (Some(&(end, message)), Some(&(read, turn))) = (self.ends.front(), reads.front())
        {
            if end <= read {
                self.ends.pop_front();
                judge.messages[message].read_in.get_or_insert(turn);
            } else {
                reads.pop_front();
            }
        }
    }

    /// A session that has been disconnected for too long must receive nothing.
    pub fn note_expiry(&self, world: &World, judge: &mut Judge) {
        if !self.is_connected && self.may_have_expired(world.now.0) {
            judge.end_session(self.number);
        }
    }

    /// Processes received packets, and responds.
    pub fn look(&mut self, world: &mut World, judge: &mut Judge) -> Result<(), String> {
        self.check_half_closed(world, judge)?;
        while let Some(link) = self.link {
            let Some(packet) = world.links[link].inbox.pop_front() else {
                if world.links[link].at == At::Closed {
                    self.lose_link(world, judge);
                }
                break;
            };
            let packet = wire::decode(&packet, self.version).map_err(|v| format!("sent: {v}"))?;
            self.handle(world, judge, link, &packet)?;
        }
        if !self.is_lazy {
            self.pay(world);
        }
        Ok(())
    }

    /// Sends pending acknowledgements.
    pub fn pay(&mut self, world: &mut World) {
        if let Some(link) = self.link {
            world.links[link].sent.extend(self.owed.drain(..).flatten());
        }
    }

    fn handle(
        &mut self,
        world: &mut World,
        judge: &mut Judge,
        link: usize,
        packet: &Packet<'_>,
    ) -> Result<(), String> {
        match packet {
            Packet::Connack(connack) => self.handle_connack(world, judge, link, connack),
            Packet::Publish(publish) => self.handle_publish(judge, link, publish),
            Packet::Puback(ack) => self.handle_ack(world, judge, ack.packet_identifier.get()),
            Packet::Pubrec(ack) => {
                self.handle_pubrec(world, judge, ack.packet_identifier)?;
                self.owe(&Packet::Pubrel(Ack::new(ack.packet_identifier, ReasonCode::Success)));
                Ok(())
            }
            Packet::Pubrel(ack) => {
                self.received.remove(&ack.packet_identifier.get());
                self.owe(&Packet::Pubcomp(Ack::new(ack.packet_identifier, ReasonCode::Success)));
                Ok(())
            }
            Packet::Pubcomp(ack) => {
                self.pending.retain(|p| p.identifier != ack.packet_identifier.get());
                Ok(())
            }
            Packet::Suback(suback) => {
                let identifier = suback.packet_identifier.get();
                if let Some((filter, _)) = self.subscribing.remove(&identifier) {
                    let granted = suback.reasons[0];
                    if granted > 2 {
                        return Err(format!("{} was refused {filter}: {granted:#x}", self.name));
                    }
                    // The last of several responses counts.
                    if self.subscribing.values().all(|(of, _)| *of != filter) {
                        judge.subscribe(self.number, filter, granted);
                    }
                }
                Ok(())
            }
            Packet::Unsuback(unsuback) => {
                let filter = self.unsubscribing.remove(&unsuback.packet_identifier.get());
                let is_last = self.subscribing.values().all(|(of, _)| Some(*of) != filter)
                    && self.unsubscribing.values().all(|of| Some(*of) != filter);
                if let Some(filter) = filter.filter(|_| is_last) {
                    judge.note_unsubscribed(self.number, filter);
                }
                Ok(())
            }
            Packet::Disconnect(disconnect) => match disconnect.reason {
                ReasonCode::SessionTakenOver => self.check_taken_over(judge),
                other => Err(format!("{} was disconnected: {other:?}", self.name)),
            },
            other => Err(format!("{} received {other:?}", self.name)),
        }
    }

    fn handle_connack(
        &mut self,
        world: &mut World,
        judge: &mut Judge,
        link: usize,
        connack: &wire::Connack<'_>,
    ) -> Result<(), String> {
        if connack.reason != ReasonCode::Success {
            if self.may_be_refused(connack.reason) {
                self.cut(world, judge);
                return Ok(());
            }
            return Err(format!("{} was refused: {:?}", self.name, connack.reason));
        }
        self.is_connected = true;
        self.must_start_clean = false;
        self.kept_s = self.requested_s();
        self.check_replaced(world, judge)?;
        judge.connect(self.number, world.core_of(link), connack.session_present)?;
        self.arrive(world, judge);
        judge.wills.accept(self.number, world.now.0);
        if !connack.session_present {
            self.begin_anew(judge);
        }
        judge.keep_session(self.number, self.is_persistent());
        // [MQTT-4.4.0-1]
        let pending: Vec<(u16, usize, bool)> =
            self.pending.iter().map(|p| (p.identifier, p.message, p.is_released)).collect();
        for (identifier, message, is_released) in pending {
            if is_released {
                let identifier = PacketIdentifier::new(identifier).expect("from 1");
                self.send(world, &Packet::Pubrel(Ack::new(identifier, ReasonCode::Success)));
            } else {
                judge.messages[message].is_resent = true;
                self.send_publish(world, judge, message, Some(identifier), true);
            }
        }
        Ok(())
    }

    fn handle_publish(
        &mut self,
        judge: &mut Judge,
        link: usize,
        publish: &Publish<'_>,
    ) -> Result<(), String> {
        let is_new = match publish.packet_identifier {
            Some(identifier) if publish.qos == Qos::ExactlyOnce => {
                self.owe(&Packet::Pubrec(Ack::new(identifier, ReasonCode::Success)));
                self.received.insert(identifier.get())
            }
            Some(identifier) => {
                self.owe(&Packet::Puback(Ack::new(identifier, ReasonCode::Success)));
                true
            }
            None => true,
        };
        if !is_new {
            return Ok(());
        }
        let seen = Seen {
            client: self.number,
            link,
            qos: publish.qos.into(),
            dup: publish.dup,
            retain: publish.retain,
            session: 0,
        };
        judge.receive(seen, publish.topic, publish.payload)
    }

    fn handle_ack(
        &mut self,
        world: &World,
        judge: &mut Judge,
        identifier: u16,
    ) -> Result<(), String> {
        let place = self.pending.iter().position(|p| p.identifier == identifier);
        let Some(pending) = place.and_then(|place| self.pending.remove(place)) else {
            return Err(format!(
                "{} received a PUBACK for {identifier}, which it did not send",
                self.name
            ));
        };
        judge.acknowledge(world, pending.message)
    }

    fn handle_pubrec(
        &mut self,
        world: &World,
        judge: &mut Judge,
        identifier: PacketIdentifier,
    ) -> Result<(), String> {
        let pending = self.pending.iter_mut().find(|p| p.identifier == identifier.get());
        match pending {
            Some(pending) if !pending.is_released => {
                pending.is_released = true;
                judge.acknowledge(world, pending.message)
            }
            _ => Ok(()),
        }
    }

    /// Conditions that must not hold after everything has settled.
    pub fn unsettled(&self) -> Option<String> {
        let waits = if self.half_closed.is_some() {
            "the end of its connection"
        } else if self.link.is_some() && !self.is_connected {
            "a CONNACK"
        } else if self.is_connected && !self.subscribing.is_empty() {
            "a SUBACK"
        } else if self.is_connected && !self.pending.is_empty() {
            "an acknowledgement"
        } else {
            return None;
        };
        Some(format!("{} still waits for {waits}", self.name))
    }
}

/// The parameters of a CONNECT.
pub struct How {
    pub is_clean: bool,
    pub expiry_s: u32,
    pub pipelined: Option<&'static str>,
    pub has_will: bool,
}
