//! TLS handshakes that wait for a later turn.

use std::collections::VecDeque;

use crate::base::ids::ConnectionId;
use crate::config::Limits;

/// TLS handshakes that wait for a later turn, and the handshake steps left in this one.
#[derive(Debug)]
pub(super) struct HandshakeQueue {
    waiting: VecDeque<ConnectionId>,
    waiting_max: usize,
    steps_left: u32,
    steps_per_turn: u32,
}

impl HandshakeQueue {
    pub fn new(limits: &Limits) -> Self {
        Self {
            waiting: VecDeque::new(),
            waiting_max: limits.tls_handshakes_waiting_max as usize,
            steps_left: limits.tls_handshakes_per_turn_max,
            steps_per_turn: limits.tls_handshakes_per_turn_max,
        }
    }

    /// Other limits hold from the next turn on. Handshakes that wait stay.
    pub fn set_limits(&mut self, limits: &Limits) {
        self.waiting_max = limits.tls_handshakes_waiting_max as usize;
        self.steps_per_turn = limits.tls_handshakes_per_turn_max;
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Takes a step for input that has just arrived. None is left for such input while earlier
    /// handshakes wait.
    pub fn take_step(&mut self) -> bool {
        let has_step = self.steps_left > 0 && self.waiting.is_empty();
        self.steps_left -= u32::from(has_step);
        has_step
    }

    /// The next handshake, if a step is left; [`Self::note_step`] takes the step.
    #[inline]
    pub fn pop(&mut self) -> Option<ConnectionId> {
        if self.steps_left == 0 {
            return None;
        }
        self.waiting.pop_front()
    }

    pub fn note_step(&mut self) {
        self.steps_left -= 1;
    }

    /// Adds a handshake; false when too many wait. A handshake that has begun is finished first, so that
    /// the first clients of a crowd connect at once and not all of them at the end. A client that
    /// trickles its bytes goes to the end of the queue.
    pub fn push(&mut self, id: ConnectionId, is_half_through: bool) -> bool {
        if self.waiting.len() >= self.waiting_max {
            return false;
        }
        match is_half_through {
            true => self.waiting.push_front(id),
            false => self.waiting.push_back(id),
        }
        true
    }

    #[inline]
    pub fn end_turn(&mut self) {
        self.steps_left = self.steps_per_turn;
    }
}
