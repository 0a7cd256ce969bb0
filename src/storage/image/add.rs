//! Adds state to an image that comes from elsewhere than from its own records.

use std::collections::HashSet;

use crate::storage::image::{
    Delivery, HeldWill, Image, OwnedContent, Retained, Session, SharedContent,
};
use crate::storage::record::SessionNumber;

/// Adds to an image what it does not have yet: numbers and stamps follow those of the image.
#[derive(Debug)]
pub struct Additions<'a> {
    image: &'a mut Image,
    /// Clients with a session.
    clients: HashSet<Box<str>>,
    /// The stamp of retained messages.
    stamp: u64,
    /// The session without a client, which has the messages that nobody has got yet.
    without_client: Option<SessionNumber>,
}

/// Bits of a stamp that name a core.
const STAMP_CORE_BITS: u32 = 10;

impl<'a> Additions<'a> {
    /// Adds to `image`.
    pub fn to(image: &'a mut Image) -> Self {
        let clients = image.sessions.values().map(|of| of.client_identifier.clone()).collect();
        let latest = image.retained.values().map(|of| of.stamp).max().unwrap_or(0);
        let stamp = ((latest >> STAMP_CORE_BITS) + 1) << STAMP_CORE_BITS;
        Self { image, clients, stamp, without_client: None }
    }

    /// Adds a session, and gives its deliveries numbers; none if its client has a session.
    pub fn session(&mut self, mut session: Session) -> Option<SessionNumber> {
        if !self.clients.insert(session.client_identifier.clone()) {
            return None;
        }
        for delivery in session.inflight.iter_mut().chain(&mut session.queue) {
            self.image.delivery_max += 1;
            delivery.number = self.image.delivery_max;
        }
        Some(self.insert(session))
    }

    fn insert(&mut self, session: Session) -> SessionNumber {
        let number = SessionNumber::following(self.image.session_max);
        self.image.session_max = number.serial();
        self.image.sessions.insert(number, session);
        number
    }

    /// Adds a retained message; false if there is one under its topic, or there was one that was removed.
    pub fn retained(&mut self, content: OwnedContent) -> bool {
        let is_new = !self.image.retained.contains_key(&content.topic);
        if is_new {
            let topic = content.topic.clone();
            self.image
                .retained
                .insert(topic, Retained { stamp: self.stamp, content: Some(content) });
        }
        is_new
    }

    /// Adds the Will of a client that was connected, with the number of its session.
    pub fn will(&mut self, session: SessionNumber, will: HeldWill) {
        self.image.wills.insert(session, will);
    }

    /// Adds a message that nobody has got yet: the next start delivers it to all subscribers.
    pub fn forward(&mut self, content: SharedContent, retain: bool) {
        let session = match self.without_client {
            Some(session) => session,
            None => {
                let session = Session { expiry_interval_s: u32::MAX, ..Session::default() };
                let number = self.insert(session);
                *self.without_client.insert(number)
            }
        };
        self.image.delivery_max += 1;
        let delivery = Delivery {
            number: self.image.delivery_max,
            qos: content.get().map_or(0, |content| content.qos),
            content: Some(content),
            retain,
            packet_identifier: 0,
            shared: None,
            identifiers: Vec::new(),
        };
        let session = self.image.sessions.get_mut(&session).expect("just inserted");
        session.queue.push_back(delivery);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(topic: &str) -> OwnedContent {
        let (payload, passed_on) = (Box::from(&b"x"[..]), Box::default());
        OwnedContent { topic: topic.into(), payload, passed_on, expires_us: None, qos: 2 }
    }

    fn session(client: &str) -> Session {
        Session { client_identifier: client.into(), ..Session::default() }
    }

    #[test]
    fn a_session_or_retained_message_that_an_image_has_stays() {
        let mut image = Image::default();
        let mut add = Additions::to(&mut image);
        assert_eq!(add.session(session("c")), Some(SessionNumber::new(1, 0, 1)));
        assert_eq!(add.session(session("c")), None);
        assert!(add.retained(content("t")));
        assert!(!add.retained(OwnedContent { qos: 0, ..content("t") }));
        add.forward(SharedContent::new(content("f")), true);
        add.forward(SharedContent::new(content("g")), false);
        let mut again = Additions::to(&mut image);
        assert_eq!(again.session(session("c")), None);
        assert!(!again.retained(content("t")));
        assert_eq!(image.retained["t"].content, Some(content("t")));
        assert_eq!((image.sessions.len(), image.delivery_max), (2, 2));
        let forwards = image.sessions.values().find(|of| of.client_identifier.is_empty());
        let numbers: Vec<_> = forwards.expect("one").queue.iter().map(|of| of.number).collect();
        assert_eq!(numbers, [1, 2]);
    }
}
