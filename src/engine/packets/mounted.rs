//! Packets of clients with a mount point: their topics and Topic Filters are completed, and then taken as those of other
//! clients.

use std::borrow::Cow;

use crate::base::ids::{ConnectionId, SessionId};
use crate::base::limits;
use crate::engine::Engine;
use crate::engine::cause::{Cause, Rejection};
use crate::engine::client_log::Claimed;
use crate::engine::packets::connect::decode_again;
use crate::engine::packets::publish::Taken;
use crate::engine::packets::receive::are_properties_small;
use crate::wire::violation::Violation;
use crate::wire::{self, Connect, Frame, PacketType, Publish, ReasonCode};

impl Engine {
    /// Takes the CONNECT of a client whose topics are moved, on its home core: the topic of its Will is completed.
    #[cold]
    pub(super) fn handle_mounted_connect(
        &mut self,
        id: ConnectionId,
        frame: &[u8],
        connect: &Connect<'_>,
    ) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let Some(prefix) = self.listeners.mount_point(connection.listener) else {
            return self.handle_home_connect(id, frame, connect);
        };
        connection.set_mount_point(prefix.clone());
        let Some(will) = &connect.will else { return self.handle_home_connect(id, frame, connect) };
        let topic = [prefix, will.topic].concat();
        if topic.len() > shards::TOPIC_BYTES_MAX {
            connection.version = connect.version;
            let reason = ReasonCode::TopicNameInvalid;
            let rejection = Rejection::new(reason, Cause::WillInvalid).with_detail(reason.name());
            return self.refuse(id, Claimed::by(connect), &rejection);
        }
        let mounted = wire::connect_with_will_topic(frame, will, &topic);
        self.handle_home_connect(id, &mounted, &decode_again(&mounted));
    }

    /// Handles a packet of an admitted client with a mount point.
    #[cold]
    pub(super) fn handle_mounted_packet(
        &mut self,
        id: ConnectionId,
        session: SessionId,
        frame: &[u8],
    ) {
        let version = self.connections[id].version;
        let Ok(Frame::Complete { header, .. }) = wire::frame(frame, usize::MAX) else { return };
        self.metrics.packets_received += 1;
        if self.observers.watch.watches_packets() {
            self.watch_packet(id, frame);
        }
        let is_small = frame.len() <= limits::PROPERTIES_LOOK_BYTES
            || are_properties_small(&self.config.limits, frame, header, version);
        let outcome = match wire::packet_type(frame) {
            _ if !is_small => Err(Violation::PropertiesTooLarge),
            Some(PacketType::Publish) => wire::decode_publish(frame, header, version)
                .and_then(|publish| self.handle_mounted_publish(id, session, frame, &publish)),
            _ => self.handle_open(id, session, frame, header, version),
        };
        if let Err(violation) = outcome {
            self.violate(id, violation, wire::packet_type(frame));
        }
    }

    fn handle_mounted_publish(
        &mut self,
        id: ConnectionId,
        session: SessionId,
        frame: &[u8],
        publish: &Publish<'_>,
    ) -> Result<(), Violation> {
        self.count_received(publish);
        match self.take_mounted(id, session, publish)? {
            Taken::Done => {}
            Taken::Waits => self.keep_publish(id, frame),
        }
        Ok(())
    }

    /// Takes a PUBLISH under its full topic, perhaps for the second time, after a decision. A topic that is too long only
    /// behind the mount point is not the client's mistake: the message is refused, and the connection stays.
    #[cold]
    pub(super) fn take_mounted(
        &mut self,
        id: ConnectionId,
        session: SessionId,
        publish: &Publish<'_>,
    ) -> Result<Taken, Violation> {
        let topic = match (publish.topic, self.connections[id].mount()) {
            // A Topic Alias stands for the full topic.
            ("", _) | (_, None) => Cow::Borrowed(publish.topic),
            (topic, Some(mount)) => Cow::Owned(mount.full_topic(topic)),
        };
        let full = Publish { topic: &topic, ..publish.clone() };
        let checked = match topic.len() > shards::TOPIC_BYTES_MAX {
            true => Err(Violation::TopicTooLong),
            false => self.check_publish(id, &full),
        };
        match checked {
            Err(Violation::TopicTooLong | Violation::TopicTooDeep) => {
                self.reject(id, session, &full, &topic, ReasonCode::TopicNameInvalid)?;
                Ok(Taken::Done)
            }
            Err(violation) => Err(violation),
            Ok(()) => self.take_checked(id, session, &full),
        }
    }

    /// The Topic Filter that a client means.
    pub(super) fn full_filter<'a>(&self, id: ConnectionId, filter: &'a str) -> Cow<'a, str> {
        match self.connections[id].mount() {
            Some(mount) => Cow::Owned(mount.full_filter(filter)),
            None => Cow::Borrowed(filter),
        }
    }
}
