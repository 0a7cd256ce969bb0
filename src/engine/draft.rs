//! A message while it is routed, and where it comes from.

use crate::base::ids::{CoreId, Publisher, SessionId};
use crate::engine::durability::in_transit::LoggedDelivery;
use crate::engine::durability::qos2_dedup::Qos2Exchange;
use crate::engine::mesh::node_block::Places;
use crate::message::{Content, Message};
use crate::resources::gauges::Ledger;

/// A message while it is routed. Its value on the heap and its encodings are made when first needed.
pub(in crate::engine) struct Draft<'a> {
    pub content: Content<'a>,
    /// RETAIN flag of the PUBLISH.
    pub retain: bool,
    /// The QoS 2 exchange of a message that must reach no session twice.
    pub exchange: Option<Qos2Exchange>,
    /// Deliveries in the journal that end when this message is delivered to another member of a shared
    /// subscription.
    pub before: Vec<LoggedDelivery>,
    message: Option<Message>,
    /// Where the message lies in the batches for other cores.
    pub places: Places,
    pub template: TemplateUse,
}

impl<'a> Draft<'a> {
    pub fn new(content: Content<'a>, retain: bool) -> Self {
        Self {
            content,
            retain,
            exchange: None,
            before: Vec::new(),
            message: None,
            places: Places::new(),
            template: TemplateUse::default(),
        }
    }

    /// A draft of a message that is on the heap already.
    pub fn of(message: &Message, content: Content<'a>, retain: bool) -> Self {
        Self { message: Some(message.clone()), ..Self::new(content, retain) }
    }

    /// Whether the message is on the heap already.
    pub fn is_message(&self) -> bool {
        self.message.is_some()
    }

    /// The message on the heap, allocated by the first call.
    pub fn message(&mut self, ledger: &Ledger) -> &Message {
        self.message.get_or_insert_with(|| self.content.to_message(ledger))
    }
}

/// How a message uses the template. A template that was made of another message is never used.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::engine) struct TemplateUse {
    /// Several copies are expected: a template does not pay for one.
    pub is_wanted: bool,
    /// Number of the message, given when the first template is made of it.
    pub message: u64,
}

impl TemplateUse {
    /// So many copies are expected.
    pub fn expect(&mut self, copies: usize) {
        self.is_wanted = copies > 1;
    }
}

/// The origin of a message.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::engine) struct Origin {
    /// The connection that published the message, for backpressure.
    pub publisher: Option<Publisher>,
    /// The publisher's session, if it is on this core, for No Local.
    pub session: Option<SessionId>,
    /// The QoS 2 exchange of a message that must reach no session twice.
    pub exchange: Option<Qos2Exchange>,
    /// The core that forwarded the message.
    pub from: Option<CoreId>,
}
