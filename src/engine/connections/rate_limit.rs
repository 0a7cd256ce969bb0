//! Rate limit of one client, per second. A client that has sent more is not read until its rate is back
//! within the bound: TCP slows the client, and nothing is dropped.

use std::time::Duration;

use crate::base::clock::Now;
use crate::base::ids::ConnectionId;
use crate::config::Protection;
use crate::engine::connections::Connections;
use crate::engine::timers::{Timer, Timers};
use crate::wire::PacketType;

/// A token, in millionths.
const TOKEN: i64 = 1_000_000;

/// Tokens left to a client: the amount of a second, less what the client has sent. While they are below
/// zero, the client waits.
#[derive(Debug)]
pub struct Allowance {
    counted: Now,
    messages: i64,
    bytes: i64,
}

impl Allowance {
    fn full(now: Now, of: &Protection) -> Self {
        let [messages, bytes] = [of.messages_per_second_max, of.bytes_per_second_max];
        let whole = |rate: u32| i64::from(rate) * TOKEN;
        Self { counted: now, messages: whole(messages), bytes: whole(bytes) }
    }

    /// Takes a packet off it; how long the client has to wait, if it has to.
    fn spend(
        &mut self,
        now: Now,
        of: &Protection,
        messages: u32,
        bytes: usize,
    ) -> Option<Duration> {
        let elapsed_us = now.since_us(self.counted).min(TOKEN as u64) as i64;
        self.counted = now;
        let wait = |left: &mut i64, rate: u32, spent: i64| {
            if rate == 0 {
                return 0;
            }
            let rate = i64::from(rate);
            *left = (*left + elapsed_us * rate).min(rate * TOKEN) - spent * TOKEN;
            (*left).min(0).unsigned_abs().div_ceil(rate.unsigned_abs())
        };
        let for_messages =
            wait(&mut self.messages, of.messages_per_second_max, i64::from(messages));
        let for_bytes = wait(&mut self.bytes, of.bytes_per_second_max, bytes as i64);
        let wait_us = for_messages.max(for_bytes);
        (wait_us > 0).then(|| Duration::from_micros(wait_us))
    }
}

impl Connections {
    /// Counts a packet of an open connection, where that is bounded; whether the client is not read for a
    /// while because of it.
    #[cold]
    pub fn count_packet(
        &mut self,
        id: ConnectionId,
        frame: &[u8],
        protection: &Protection,
        timers: &mut Timers,
        now: Now,
    ) -> bool {
        let is_publish = frame[0] >> 4 == PacketType::Publish as u8;
        let Some(connection) = self.get_mut(id) else { return false };
        let extra = connection.extra.get_or_insert_default();
        let allowance =
            extra.allowance.get_or_insert_with(|| Box::new(Allowance::full(now, protection)));
        let Some(wait) = allowance.spend(now, protection, u32::from(is_publish), frame.len())
        else {
            return false;
        };
        self.pause_reading(id);
        timers.arm(now.after(wait), Timer::Allowance(id));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_may_send_a_seconds_worth_at_once_and_then_at_the_rate() {
        let of = Protection { messages_per_second_max: 10, ..Protection::default() };
        let mut allowance = Allowance::full(Now(0), &of);
        assert!((0..10).all(|_| allowance.spend(Now(0), &of, 1, 1_000_000).is_none()));
        let wait = allowance.spend(Now(0), &of, 1, 1).expect("the eleventh waits");
        assert_eq!(wait, Duration::from_millis(100));
        assert_eq!(allowance.spend(Now(100_000), &of, 0, 1), None);
        // A long pause makes up for no more than a second's worth.
        assert!((0..10).all(|_| allowance.spend(Now(900_000_000), &of, 1, 1).is_none()));
        assert!(allowance.spend(Now(900_000_000), &of, 1, 1).is_some());
    }

    #[test]
    fn a_packet_larger_than_a_seconds_worth_is_paid_for_afterwards() {
        let of = Protection { bytes_per_second_max: 1_000, ..Protection::default() };
        let mut allowance = Allowance::full(Now(0), &of);
        let wait = allowance.spend(Now(0), &of, 1, 4_000).expect("it waits");
        assert_eq!(wait, Duration::from_secs(3));
    }
}
