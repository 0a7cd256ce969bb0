//! The end of the connections of listeners that are closed.

use crate::control::Reply;
use crate::control::question::ListingPlace;
use crate::engine::Engine;
use crate::engine::cause::Cause;
use crate::engine::connections::ending::Ending;
use crate::engine::inspect::{Progress, SessionWalk, Slice, Slices, Walked};
use crate::wire::ReasonCode;

/// Ends the connections of clients of some listeners.
#[derive(Debug)]
pub(super) struct Closing {
    listeners: Box<[u16]>,
    walk: SessionWalk,
    ended: u64,
    reply: Reply<u64>,
}

impl Closing {
    pub(super) fn new(listeners: Box<[u16]>, reply: Reply<u64>) -> Self {
        Self { listeners, walk: SessionWalk::new(ListingPlace::default()), ended: 0, reply }
    }
}

impl Slices for Closing {
    fn bytes(&self) -> usize {
        size_of::<Self>() + size_of_val(&*self.listeners)
    }

    fn work(&mut self, engine: &mut Engine, slice: &mut Slice) -> Progress {
        loop {
            let session = match self.walk.next(engine, slice) {
                Walked::Session(session) => session,
                Walked::Later => return Progress::More,
                Walked::End => return Progress::Done,
            };
            let Some(id) = engine.sessions[session].connection else { continue };
            let Some(connection) = engine.connections.get(id) else { continue };
            if self.listeners.contains(&connection.listener) {
                slice.act();
                let (reason, cause) = (ReasonCode::AdministrativeAction, Cause::ListenerClosed);
                engine.end_connection(id, Ending::Server(reason, cause));
                self.ended += 1;
            }
            if engine.work.is_spent() {
                return Progress::More;
            }
        }
    }

    fn answer(self: Box<Self>, _is_complete: bool) {
        self.reply.send(self.ended);
    }
}
