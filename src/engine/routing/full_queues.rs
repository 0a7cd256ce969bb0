//! Publishers that wait because the queue of a bridge is nearly full that holds its publishers, whether it is connected or
//! not.

use std::collections::VecDeque;

use crate::base::ids::{Publisher, SessionId};

/// Publishers that are let go at a time: their input refills the queue.
#[cfg(feature = "bridge")]
const RELEASED_AT_ONCE: usize = 8;

/// The publishers of one core and of others that wait, by the session whose queue they wait for: some bridges at most.
#[derive(Debug, Default)]
pub(in crate::engine) struct FullQueues(Vec<(SessionId, VecDeque<Publisher>)>);

impl FullQueues {
    /// A publisher waits for the queue of a session.
    #[cold]
    pub fn wait(&mut self, session: SessionId, publisher: Publisher) {
        match self.0.iter_mut().find(|(of, _)| *of == session) {
            Some((_, waiting)) => waiting.push_back(publisher),
            None => self.0.push((session, VecDeque::from([publisher]))),
        }
    }

    /// Takes some publishers out whose sessions have room, or are none that publishers wait for, as `has_room` says.
    #[cfg(feature = "bridge")]
    pub fn release(&mut self, has_room: impl Fn(SessionId) -> bool) -> VecDeque<Publisher> {
        let mut released = VecDeque::new();
        for (session, waiting) in &mut self.0 {
            if has_room(*session) {
                let count = waiting.len().min(RELEASED_AT_ONCE);
                released.extend(waiting.drain(..count));
            }
        }
        self.0.retain(|(_, waiting)| !waiting.is_empty());
        released
    }
}
