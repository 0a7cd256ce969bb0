//! A bound of the bytes that are in flight to a client (`limits.inflight_bytes_max`): while it is reached, the window is
//! closed. Without it, a message pays the look whether there is one.

use super::{Delivery, Outbound, Stage};

/// Bytes in flight, and their bound.
#[derive(Debug)]
pub(super) struct InflightBytes {
    /// Of payloads that were sent on this connection and are not acknowledged, QoS 2 until PUBREC.
    bytes: u64,
    max: u64,
    /// The window while the bound is not reached.
    window: usize,
}

impl Outbound {
    /// Bounds the bytes in flight on this connection, if `max` is not 0. A message that alone is larger is sent alone.
    pub fn bound_inflight_bytes(&mut self, max: u64) {
        if max > 0 || self.inflight_bytes.is_some() {
            let bound = InflightBytes { bytes: 0, max, window: self.window };
            self.inflight_bytes = (max > 0).then(|| Box::new(bound));
            self.settle_anew();
        }
    }

    /// A message was sent.
    #[inline]
    pub(super) fn note_bytes_sent(&mut self, delivery: &Delivery) {
        if self.inflight_bytes.is_some() {
            let payload = delivery.message.content().payload.len();
            self.change_inflight_bytes(|bytes| bytes.saturating_add(payload as u64));
        }
    }

    /// A message that was sent, with so many bytes if they are bounded, is acknowledged or given up.
    #[inline]
    pub(super) fn note_bytes_answered(&mut self, payload: Option<usize>) {
        if let Some(payload) = payload {
            self.change_inflight_bytes(|bytes| bytes.saturating_sub(payload as u64));
        }
    }

    /// The bytes of the message at this place, if bytes are bounded and it was sent.
    #[inline]
    pub(super) fn bytes_sent_at(&self, place: usize) -> Option<usize> {
        self.inflight_bytes.as_ref()?;
        match &self.inflight[place].stage {
            Stage::Sent(delivery) => Some(delivery.message.content().payload.len()),
            _ => None,
        }
    }

    #[cold]
    fn change_inflight_bytes(&mut self, change: impl FnOnce(u64) -> u64) {
        let Some(bound) = &mut self.inflight_bytes else { return };
        bound.bytes = change(bound.bytes);
        self.window = if bound.bytes >= bound.max { 0 } else { bound.window };
    }
}
