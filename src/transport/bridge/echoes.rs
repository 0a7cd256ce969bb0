//! What a bridge has sent lately, to recognise it when the far broker sends it back: before MQTT 5.0 and without the bit of
//! bridges, a far broker sends a client its own messages if it has subscribed to them, and the messages have no path.
//!
//! Memory and time are fixed: hashes of the messages of 10 seconds, and of 4,096 of them at most. A message that comes
//! back is taken off once, so that the same one of somebody else passes.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hashbrown::HashMap;

use crate::wire::Qos;

/// Messages at most, and how long one is known.
const ECHOES_MAX: usize = 4_096;
const KNOWN_FOR: Duration = Duration::from_secs(10);

/// Approximate memory once a message was sent.
pub(super) const ECHOES_BYTES: usize = 400 * 1024;

/// What a bridge has sent, over all of its connections. One core uses it at a time.
#[derive(Debug, Default)]
pub struct Echoes(Mutex<Sent>);

#[derive(Debug, Default)]
struct Sent {
    /// Keyed at random: nobody can choose a message that is taken for another one.
    hashes: RandomState,
    /// In the order in which they were sent. Memory for all is reserved with the first.
    order: VecDeque<(u64, Instant)>,
    /// How many of a hash are in `order`.
    known: HashMap<u64, Known>,
}

/// Messages with the same hash. They are alike, so that the first of them leave `order` as those that have come back.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    awaited: u16,
    came_back: u16,
}

/// Which message, where the far broker has it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message<'a> {
    pub topic: &'a str,
    pub payload: &'a [u8],
    pub qos: Qos,
}

impl Echoes {
    /// A message was sent.
    pub(super) fn note(&self, message: Message<'_>, now: Instant) {
        let mut sent = self.sent();
        sent.forget(now);
        let hash = sent.hash(message, message.qos);
        if sent.order.capacity() == 0 {
            sent.order.reserve_exact(ECHOES_MAX);
            // A table that is less than half full does not grow.
            sent.known.reserve(2 * ECHOES_MAX);
        }
        if sent.order.len() == ECHOES_MAX {
            sent.forget_first();
        }
        sent.order.push_back((hash, now));
        sent.known.entry(hash).or_default().awaited += 1;
    }

    /// Whether a message that has come is one that was sent and has not come back yet. With `is_repeated`, it may have
    /// come already.
    pub(super) fn take(&self, message: Message<'_>, is_repeated: bool, now: Instant) -> bool {
        let mut sent = self.sent();
        sent.forget(now);
        if sent.known.is_empty() {
            return false;
        }
        // It comes with the QoS of the subscription if that is lower.
        let all = [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce];
        all.into_iter().filter(|qos| *qos >= message.qos).any(|qos| {
            let hash = sent.hash(message, qos);
            match sent.known.get_mut(&hash) {
                Some(known) if known.awaited > 0 => {
                    known.awaited -= 1;
                    known.came_back += 1;
                    true
                }
                Some(_) => is_repeated,
                None => false,
            }
        })
    }

    #[cfg(test)]
    fn bytes(&self) -> usize {
        let sent = self.sent();
        sent.order.capacity() * size_of::<(u64, Instant)>() + sent.known.allocation_size()
    }

    fn sent(&self) -> MutexGuard<'_, Sent> {
        // No code that can panic runs with the lock held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sent {
    fn hash(&self, message: Message<'_>, qos: Qos) -> u64 {
        self.hashes.hash_one((message.topic, message.payload, qos as u8))
    }

    /// Forgets what was sent too long ago.
    fn forget(&mut self, now: Instant) {
        while let Some((_, at)) = self.order.front()
            && now.saturating_duration_since(*at) > KNOWN_FOR
        {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        let Some((hash, _)) = self.order.pop_front() else { return };
        let Some(known) = self.known.get_mut(&hash) else { return };
        match known.came_back {
            0 => known.awaited -= 1,
            _ => known.came_back -= 1,
        }
        if known.awaited == 0 && known.came_back == 0 {
            self.known.remove(&hash);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message<'a>(topic: &'a str, payload: &'a str, qos: Qos) -> Message<'a> {
        Message { topic, payload: payload.as_bytes(), qos }
    }

    #[test]
    fn what_was_sent_comes_back_once() {
        let (echoes, now) = (Echoes::default(), Instant::now());
        let sent = message("a/b", "x", Qos::AtLeastOnce);
        assert!(!echoes.take(sent, false, now), "nothing was sent");
        echoes.note(sent, now);
        for other in [
            message("a/b", "y", Qos::AtLeastOnce),
            message("a/c", "x", Qos::AtLeastOnce),
            message("a/bx", "", Qos::AtLeastOnce),
            message("a/b", "x", Qos::ExactlyOnce),
        ] {
            assert!(!echoes.take(other, false, now), "{other:?}");
        }
        assert!(echoes.take(sent, false, now));
        assert!(!echoes.take(sent, false, now), "the second is of somebody else");
        echoes.note(sent, now);
        echoes.note(sent, now);
        assert!(echoes.take(sent, false, now) && echoes.take(sent, false, now));
        assert!(!echoes.take(sent, false, now));
    }

    #[test]
    fn what_comes_back_with_the_lower_qos_of_the_subscription_is_recognised() {
        let (echoes, now) = (Echoes::default(), Instant::now());
        for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
            echoes.note(message("a", "x", Qos::ExactlyOnce), now);
            assert!(echoes.take(message("a", "x", qos), false, now), "{qos:?}");
        }
    }

    #[test]
    fn a_repetition_of_what_has_come_back_is_recognised() {
        let (echoes, now) = (Echoes::default(), Instant::now());
        let sent = message("a", "x", Qos::ExactlyOnce);
        assert!(!echoes.take(sent, true, now));
        echoes.note(sent, now);
        assert!(echoes.take(sent, false, now) && echoes.take(sent, true, now));
        assert!(!echoes.take(sent, false, now));
    }

    #[test]
    fn what_was_sent_is_known_for_ten_seconds() {
        let (echoes, now) = (Echoes::default(), Instant::now());
        let (first, second) =
            (message("a", "1", Qos::AtMostOnce), message("a", "2", Qos::AtMostOnce));
        echoes.note(first, now);
        echoes.note(second, now + Duration::from_secs(1));
        let later = now + KNOWN_FOR + Duration::from_millis(1);
        assert!(!echoes.take(first, false, later));
        assert!(echoes.take(second, false, later));
        assert!(!echoes.take(second, true, later + Duration::from_secs(1)));
    }

    #[test]
    fn the_oldest_of_too_many_are_forgotten_and_the_memory_is_fixed() {
        let (echoes, now) = (Echoes::default(), Instant::now());
        assert_eq!(echoes.bytes(), 0, "nothing before the first");
        let texts: Vec<String> = (0..3 * ECHOES_MAX).map(|number| number.to_string()).collect();
        echoes.note(message("a", &texts[0], Qos::AtMostOnce), now);
        let bytes = echoes.bytes();
        for text in &texts[1..] {
            echoes.note(message("a", text, Qos::AtMostOnce), now);
        }
        assert_eq!(echoes.bytes(), bytes);
        assert!(bytes < ECHOES_BYTES, "{bytes}");
        let known = |text: &String| echoes.take(message("a", text, Qos::AtMostOnce), false, now);
        assert_eq!(texts.iter().filter(|text| known(text)).count(), ECHOES_MAX);
        assert!(echoes.sent().known.len() <= ECHOES_MAX);
    }
}
