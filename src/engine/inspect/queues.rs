//! Queues that an operator empties.

use crate::base::ids::SessionRef;
use crate::base::limits;
use crate::base::metrics::Drop as DropCause;
use crate::control::Reply;
use crate::engine::Engine;
use crate::engine::inspect::{Progress, Slice, Slices};

/// Drops the messages that wait for a client when the command comes.
#[derive(Debug)]
pub(super) struct Emptying {
    session: SessionRef,
    /// The number of the first message that stays.
    end: u64,
    dropped: u64,
    reply: Reply<Option<u64>>,
}

impl Emptying {
    pub(super) fn new(session: SessionRef, end: u64, reply: Reply<Option<u64>>) -> Self {
        Self { session, end, dropped: 0, reply }
    }
}

impl Slices for Emptying {
    fn bytes(&self) -> usize {
        size_of::<Self>()
    }

    fn work(&mut self, engine: &mut Engine, slice: &mut Slice) -> Progress {
        let id = self.session.session;
        let places = slice.looks().min(limits::QUEUE_DROPPED_AT_ONCE);
        if engine.sessions.resolve(self.session).is_none() {
            return Progress::Done;
        }
        let (dropped, is_more) = engine.drop_queued(id, self.end, places, DropCause::ByOperator);
        for _ in 0..dropped {
            slice.look();
        }
        if let Some(connection) = engine.sessions[id].connection {
            engine.connections.mark_ready(connection);
        }
        self.dropped += dropped;
        if is_more { Progress::More } else { Progress::Done }
    }

    fn answer(self: Box<Self>, _is_complete: bool) {
        self.reply.send(Some(self.dropped));
    }
}
