//! Encodes copies of messages into the outboxes of connections.
//!
//! The first copy of a message in a given form is kept as a template, and further copies differ from it
//! in the Packet Identifier alone.

use bytes::Bytes;

use crate::base::clock::Now;
use crate::base::ids::ConnectionId;
use crate::engine::Engine;
use crate::engine::connections::connection::Connection;
use crate::engine::draft::TemplateUse;
use crate::message::{Content, Copy};
use crate::session::topic_alias::AliasUse;
use crate::wire::{Qos, Version};

/// The encoding of the copy that was written last. Further copies of the same message in the same form
/// are made from it.
#[derive(Default)]
pub(super) struct Template {
    /// Number of the message, see [`TemplateUse::message`].
    message: u64,
    form: Option<(Version, Qos, bool)>,
    bytes: Vec<u8>,
    identifier_at: usize,
}

impl Engine {
    /// Encodes one copy into the outbox of a connection.
    pub(super) fn write(
        &mut self,
        id: ConnectionId,
        content: &Content<'_>,
        mut copy: Copy<'_>,
        payload: Option<Bytes>,
        of: &mut TemplateUse,
    ) {
        self.metrics.publishes_sent += 1;
        self.metrics.publish_bytes_sent += content.payload.len() as u64;
        let connection = &mut self.connections[id];
        let version = connection.version;
        let aliases = connection.extra.as_mut().and_then(|extra| extra.outgoing_aliases.as_mut());
        // A packet that sets an alias has the Topic Name as well.
        let with_alias = Copy { topic_alias: Some(u16::MAX), ..copy };
        if let Some(aliases) = aliases
            && (connection.packet_bytes_max == u32::MAX
                || content.header(version, self.now, &with_alias).encoded_len()
                    <= connection.packet_bytes_max as usize)
        {
            match aliases.choose(content.topic) {
                AliasUse::None => {}
                AliasUse::Set(alias) => copy.topic_alias = Some(alias),
                AliasUse::Known(alias) => {
                    (copy.topic_alias, copy.topic_alias_known) = (Some(alias), true);
                }
            }
        }
        let header_of = |copy: &Copy<'_>, out: &mut Vec<u8>| {
            content.header(version, self.now, copy).encode(out)
        };
        let outbox = self.connections.outbox(id);
        if let Some(payload) = payload {
            outbox.append(|out| {
                header_of(&copy, out);
            });
            outbox.append_shared(payload);
            return;
        }
        let template = &mut self.router.template;
        let is_alike =
            copy.topic_alias.is_none() && copy.subscription_identifiers.is_empty() && !copy.dup;
        let form = Some((version, copy.qos, copy.retain));
        if is_alike && template.form == form && template.message == of.message {
            outbox.append(|out| {
                let start = out.len();
                out.extend_from_slice(&template.bytes);
                if copy.qos != Qos::AtMostOnce {
                    let at = start + template.identifier_at;
                    out[at..at + 2].copy_from_slice(&copy.packet_identifier.to_be_bytes());
                }
            });
            return;
        }
        outbox.append(|out| {
            let start = out.len();
            let identifier_at = header_of(&copy, out);
            out.extend_from_slice(content.payload);
            if is_alike && of.is_wanted {
                template.message += 1;
                of.message = template.message;
                template.form = form;
                template.bytes.clear();
                template.bytes.extend_from_slice(&out[start..]);
                template.identifier_at = identifier_at - start;
            }
        });
    }
}

impl Connection {
    /// Whether a copy fits into the client's Maximum Packet Size [MQTT-3.1.2-24].
    pub(in crate::engine) fn takes(
        &self,
        content: &Content<'_>,
        copy: &Copy<'_>,
        now: Now,
    ) -> bool {
        self.packet_bytes_max == u32::MAX
            || content.header(self.version, now, copy).encoded_len()
                <= self.packet_bytes_max as usize
    }
}
