//! Commands that change something: disconnecting, ending sessions and subscriptions, publishing.

use crate::base::ids::CoreId;
use crate::control::Reply;
use crate::control::answer::{NotPublished, Published};
use crate::control::question::NewMessage;
use crate::engine::cause::Cause;
use crate::engine::connections::ending::Ending;
use crate::engine::draft::Origin;
use crate::engine::inspect::{Progress, Slice, Slices};
use crate::engine::{Engine, sys_topics};
use crate::message::Content;
use crate::wire::ReasonCode;

/// A message on its way to the other cores and the store.
#[derive(Debug)]
pub(super) struct Publishing {
    published: Published,
    barriers: Vec<(CoreId, u64)>,
    batch: Option<u64>,
    /// Fan-outs that had begun when the message was published.
    fan_outs: u64,
    reply: Option<Reply<Result<Published, NotPublished>>>,
}

impl Publishing {
    pub(super) fn answering(mut self, reply: Reply<Result<Published, NotPublished>>) -> Self {
        self.reply = Some(reply);
        self
    }
}

impl Slices for Publishing {
    fn is_awaited(&self) -> Option<bool> {
        Some(self.reply.as_ref().is_some_and(Reply::is_awaited))
    }

    fn bytes(&self) -> usize {
        size_of::<Self>() + self.barriers.capacity() * size_of::<(CoreId, u64)>()
    }

    fn work(&mut self, engine: &mut Engine, _slice: &mut Slice) -> Progress {
        if self.can_continue(engine) { Progress::Done } else { Progress::Waits }
    }

    fn can_continue(&self, engine: &Engine) -> bool {
        engine.mesh.are_receipted(&self.barriers)
            && self.batch.is_none_or(|batch| engine.durability.is_stored(batch))
            && engine.router.fan_outs().have_ended(self.fan_outs)
    }

    fn answer(self: Box<Self>, is_complete: bool) {
        let Self { mut published, reply, .. } = *self;
        published.is_acknowledged = is_complete;
        if let Some(reply) = reply {
            reply.send(Ok(published));
        }
    }
}

impl Engine {
    /// Disconnects a client; whether it was connected.
    pub(super) fn disconnect_client(&mut self, client_identifier: &str) -> bool {
        let Some(id) = self
            .sessions
            .find(client_identifier)
            .and_then(|session| self.sessions[session].connection)
        else {
            return false;
        };
        self.end_connection(
            id,
            Ending::Server(ReasonCode::AdministrativeAction, Cause::ByOperator),
        );
        true
    }

    /// Ends the session of a client, and its connection; whether there was one.
    pub(super) fn end_session_of(&mut self, client_identifier: &str) -> bool {
        if self.sessions.find(client_identifier).is_none() {
            return false;
        }
        self.disconnect_client(client_identifier);
        // A session that is not persistent has ended with its connection.
        if let Some(session) = self.sessions.find(client_identifier) {
            self.end_session(session);
        }
        true
    }

    /// Ends one subscription of a client; whether it had it.
    pub(super) fn end_subscription_of(&mut self, client_identifier: &str, filter: &str) -> bool {
        let Some(session) = self.sessions.find(client_identifier) else { return false };
        let mut groups_left = Vec::new();
        let is_removed = self.unsubscribe_from(session, filter, &mut groups_left);
        self.redistribute_of_unsubscribed(session, groups_left);
        is_removed
    }

    /// Publishes a message.
    pub(super) fn publish_as_operator(
        &mut self,
        message: &NewMessage,
    ) -> Result<Publishing, NotPublished> {
        self.check_new_message(message)?;
        let mark = self.durability.mark();
        let expires_s = message.message_expiry_interval_s;
        let content = Content {
            topic: &message.topic,
            payload: &message.payload,
            passed_on: &message.properties,
            expires: expires_s.map(|seconds| self.now.after_s(u64::from(seconds))),
            qos: message.qos,
        };
        let stored = match message.retain {
            true => Some(self.retain(&content, None).map_err(|_| NotPublished::RetainedFull)?),
            false => None,
        };
        self.work.spend_bytes(message.payload.len());
        self.report_published(&content, None, message.retain);
        self.router.begin_message();
        self.route(&content, &Origin::default(), message.retain, stored.as_ref());
        let recipients = self.router.recipients(content.topic, &self.sessions, &mut self.work);
        let recipients = (recipients.each.len() + recipients.shared.len()) as u64;
        let batch = self.durability.batch_since(mark);
        if batch.is_some() {
            self.durability.flush_soon();
        }
        Ok(Publishing {
            published: Published { recipients, core: self.mesh.core().0, is_acknowledged: false },
            barriers: self.mesh.barriers_of_reached(),
            batch,
            fan_outs: self.router.fan_outs().begun(),
            reply: None,
        })
    }

    fn check_new_message(&self, message: &NewMessage) -> Result<(), NotPublished> {
        let (limits, mqtt) = (&self.config.limits, &self.config.mqtt);
        let topic = &*message.topic;
        let is_valid = shards::check_topic_name(topic, limits.topic_levels_max as usize).is_ok()
            && topic.len() <= usize::from(limits.topic_bytes_max);
        let bytes = topic.len() + message.payload.len() + message.properties.len();
        match () {
            () if !is_valid => Err(NotPublished::TopicInvalid),
            () if sys_topics::is_ours(topic) => Err(NotPublished::TopicReserved),
            () if u8::from(message.qos) > mqtt.maximum_qos => Err(NotPublished::QosNotSupported),
            () if message.retain && !mqtt.retain_available => Err(NotPublished::RetainNotSupported),
            () if bytes > limits.packet_bytes_max as usize => Err(NotPublished::TooLarge),
            () if self.memory.is_full() => Err(NotPublished::MemoryFull),
            () => Ok(()),
        }
    }
}
