//! Clients that change the node: where they are, and what may happen meanwhile.

use super::{Judge, Split};

/// Where a client is.
#[derive(Default)]
pub(super) struct Whereabouts {
    /// The node that it connected to last.
    node: Option<usize>,
    /// How often it has changed the node.
    stay: usize,
    /// The turn by which its present node had its session.
    since: u64,
    /// Two nodes may have a session of it until everything settles, as one of them was evicted.
    is_unsure: bool,
}

impl Whereabouts {
    /// The node, and how often it has changed.
    pub fn now(&self) -> (usize, usize) {
        (self.node.unwrap_or(0), self.stay)
    }

    /// Whether the client was at its present node in this turn.
    pub fn is_here_since(&self, turn: u64) -> bool {
        self.since < turn
    }

    pub fn is_unsure(&self) -> bool {
        self.is_unsure
    }
}

impl Judge {
    /// A client connects to a node. What it has sent at another one, without an acknowledgement, may come after what it
    /// sends from now on.
    pub fn go_to(&mut self, client: usize, node: usize) {
        if self.evicted.contains(&node) {
            self.note_unsure(client);
        }
        let subscriber = &mut self.subscribers[client];
        let of = &mut subscriber.whereabouts;
        if of.node.replace(node).is_none_or(|before| before == node) {
            return;
        }
        of.stay += 1;
        subscriber.core = None;
        for message in self.messages.iter_mut().filter(|of| of.is_fresh && of.publisher == client) {
            message.is_left_behind |= !message.is_accepted;
        }
    }

    /// CONNACK was received: the node has the session, and keeps it if nothing of the client is under way elsewhere.
    pub fn arrive(&mut self, client: usize, turn: u64, is_sure: bool) {
        let subscriber = &mut self.subscribers[client];
        subscriber.whereabouts.since = turn;
        subscriber.core = subscriber.core.filter(|_| is_sure);
    }

    /// A node was killed: what it alone had of a client's messages is lost.
    pub fn doubt_those_at(&mut self, node: usize) {
        for message in self.messages.iter_mut().filter(|of| of.is_fresh && of.node == node) {
            message.is_of_killed = true;
            message.is_doubtful |= message.qos == 0 || message.qos == 2 && message.is_left_behind;
        }
    }

    /// A node was evicted.
    pub fn note_evicted(&mut self, node: usize) {
        self.note_split(Split::All);
        self.evicted.insert(node);
    }

    /// Two nodes may have a session of a client.
    pub fn note_unsure(&mut self, client: usize) {
        self.end_session(client);
        self.subscribers[client].whereabouts.is_unsure = true;
    }

    /// Whether two nodes may have a session of a client.
    pub fn is_unsure(&self, client: usize) -> bool {
        self.subscribers[client].whereabouts.is_unsure
    }

    /// Whether a client may receive a message after a later one.
    pub(super) fn may_be_late(&self, client: usize, message: usize, last: usize) -> bool {
        let of = &self.messages[message];
        let is_overtaken = of.is_left_behind && of.stay < self.messages[last].stay;
        let is_again = self.received.contains_key(&(message, client));
        is_overtaken || is_again && self.may_be_doubled(client, message)
    }

    /// Whether a client may receive a message twice.
    pub(super) fn may_be_doubled(&self, client: usize, message: usize) -> bool {
        let (of, at) = (&self.messages[message], &self.subscribers[client].whereabouts);
        at.is_unsure || self.was_split && of.is_doubtful && of.is_resent
    }

    /// Everything has settled.
    pub(super) fn settle_moves(&mut self) {
        self.evicted.clear();
    }

    /// A client whose session two nodes may have had begins with a new one.
    pub fn start_over(&mut self, client: usize) {
        self.end_session(client);
        self.subscribers[client].whereabouts.is_unsure = false;
    }
}
