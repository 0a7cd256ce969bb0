//! Replacement of the questions of operators in a build without them: there is nothing to do.

use crate::base::clock::Now;
use crate::base::ids::ConnectionId;
use crate::base::metrics::{Drop as DropCause, Metrics};
use crate::control::question::Question;
use crate::engine::Engine;
use crate::engine::cause::Rejection;
use crate::engine::watch::{SeenPacket, Whose};

/// Bytes received and sent on a connection, which nobody asks for.
#[derive(Debug, Default)]
pub(in crate::engine) struct Traffic(());

impl Traffic {
    #[inline]
    pub fn note_received(&mut self, _bytes: usize) {}

    #[inline]
    pub fn note_sent(&mut self, _bytes: usize) {}
}

/// The traces that a core records events for: there are none.
#[derive(Debug, Default)]
pub(in crate::engine) struct Traces(());

impl Traces {
    #[inline]
    pub fn is_empty(&self) -> bool {
        true
    }

    pub fn note_connect(&mut self, _id: ConnectionId, _client: &str, _user: Option<&str>) {}

    pub fn selects(&self, _whose: &Whose<'_>) -> bool {
        false
    }

    pub fn show_packet(&mut self, _now: Now, _whose: &Whose<'_>, _seen: &SeenPacket<'_>) {}

    pub fn show_drop(
        &mut self,
        _now: Now,
        _whose: &Whose<'_>,
        _topic: Option<&str>,
        _drops: (DropCause, u64),
    ) {
    }

    pub fn end_turn(&mut self) {}

    pub fn count_into(&self, _metrics: &mut Metrics) {}
}

/// The sampling of a core: there is none.
#[derive(Debug, Default)]
pub(in crate::engine) struct Spans(());

impl Spans {
    #[inline]
    pub fn is_on(&self) -> bool {
        false
    }

    #[inline]
    pub fn watches_output(&self) -> bool {
        false
    }

    pub fn note_sent(&mut self, _id: ConnectionId, _now: Now, _seen: &SeenPacket<'_>) {}

    pub fn count_into(&self, _metrics: &mut Metrics) {}
}

/// The questions that a core works on.
#[derive(Debug, Default)]
pub(in crate::engine) struct Questions(());

impl Questions {
    #[inline]
    pub fn is_busy(&self) -> bool {
        false
    }

    #[inline]
    pub fn wants_turn(&self) -> bool {
        false
    }
}

impl Engine {
    pub(in crate::engine) fn ask(&mut self, question: Question) {
        question.refuse(crate::control::Refused::Stopped);
    }

    pub(in crate::engine) fn continue_questions(&mut self) {}

    pub(in crate::engine) fn end_turn_of_questions(&mut self) {}

    pub(in crate::engine) fn check_bans(
        &mut self,
        _id: ConnectionId,
        _client_identifier: &str,
        _user: Option<&str>,
    ) -> Result<(), Rejection> {
        Ok(())
    }
}
