//! Messages for clients with a mount point, which know their topics without it. [`Connection::takes`] says of none of
//! these messages that it fits, so that messages for other clients are not looked at.

use crate::base::clock::Now;
use crate::base::ids::{ConnectionId, SessionId};
use crate::base::limits;
use crate::base::metrics::Drop as DropCause;
use crate::engine::Engine;
use crate::engine::connections::connection::Connection;
use crate::engine::draft::{Draft, TemplateUse};
use crate::engine::routing::recipients::Recipient;
use crate::message::{Content, Copy};
use crate::session::outbound::Delivery;
use crate::wire::PacketIdentifier;

impl Connection {
    /// A message as the client knows it, where it could not be sent as it is; or why it is dropped.
    fn unmounted<'a>(
        &self,
        content: &Content<'a>,
        copy: &Copy<'_>,
        now: Now,
    ) -> Result<Content<'a>, DropCause> {
        let Some(mount) = self.mount() else { return Err(DropCause::PacketTooLarge) };
        // A session that was resumed through this listener may have subscriptions to any topics.
        let topic = mount.short_topic(content.topic).ok_or(DropCause::OutsideMountPoint)?;
        let content = Content { topic, ..*content };
        let bytes = content.header(self.version, now, copy).encoded_len();
        match bytes <= self.client_packet_bytes_max() as usize {
            true => Ok(content),
            false => Err(DropCause::PacketTooLarge),
        }
    }
}

impl Engine {
    /// Sends a message under the topic that its client knows, or drops it.
    #[cold]
    pub(super) fn send_unmounted(
        &mut self,
        recipient: &Recipient,
        id: ConnectionId,
        draft: &mut Draft<'_>,
        shared: Option<shards::FilterId>,
        copy: Copy<'_>,
    ) {
        match self.connections[id].unmounted(&draft.content, &copy, self.now) {
            Ok(of) => self.send_copy(recipient, id, draft, shared, copy, Some(of)),
            Err(cause) => {
                let topic = Some(draft.content.topic);
                self.count_drops_of(recipient.session, cause, 1, topic);
            }
        }
    }

    /// Sends a message that was queued under the topic that its client knows, or drops it.
    #[cold]
    pub(super) fn send_queued_unmounted(
        &mut self,
        id: ConnectionId,
        session: SessionId,
        delivery: &Delivery,
        copy: Copy<'_>,
    ) {
        let content = delivery.message.content();
        let cause = match self.connections[id].unmounted(&content, &copy, self.now) {
            Ok(content) => {
                let is_large = content.payload.len() >= limits::SHARED_BYTES_MIN;
                let payload = is_large.then(|| delivery.message.shared_payload());
                return self.write(id, &content, copy, payload, &mut TemplateUse::default());
            }
            Err(cause) => cause,
        };
        let outbound = self.sessions[session].outbound.as_mut();
        let identifier = PacketIdentifier::new(copy.packet_identifier);
        if let (Some(identifier), Some(outbound)) = (identifier, outbound) {
            outbound.abandon(identifier);
        }
        self.durability.append_done(&mut self.sessions, session);
        self.count_drops_of(session, cause, 1, Some(content.topic));
    }
}
