//! A bound on how fast a queue is sent that has filled while its client, a bridge, was away.

use crate::base::clock::{Deadline, Now};

/// Parts of a second for which as many messages may be sent at once as in that time.
const BURSTS: u64 = 10;
const SECOND_US: u64 = 1_000_000;

/// Messages that may be sent by now: a token bucket.
#[derive(Debug, Default)]
pub(super) struct Backfill {
    /// What waited when the client connected, and what has lined up behind, is not sent yet.
    is_on: bool,
    tokens: u64,
    /// When the tokens were counted.
    counted: Now,
    /// A timer is armed for more.
    is_awaited: bool,
}

impl Backfill {
    /// The client has connected.
    pub fn begin(&mut self) {
        *self = Self { is_on: true, ..Self::default() };
    }

    /// How many messages may be sent now; none if there is no bound any more.
    pub fn quota(&mut self, per_second_max: u32, now: Now) -> Option<usize> {
        if !self.is_on || per_second_max == 0 {
            return None;
        }
        let rate = u64::from(per_second_max);
        let most = (rate / BURSTS).max(1);
        let since_us = now.since_us(self.counted);
        let gained = since_us.saturating_mul(rate) / SECOND_US;
        if gained > 0 {
            self.tokens = self.tokens.saturating_add(gained).min(most);
            // What is left of a token's time counts for the next one.
            let used_us = if self.tokens == most { since_us } else { gained * SECOND_US / rate };
            self.counted = Now(self.counted.0 + used_us);
        }
        Some(self.tokens as usize)
    }

    /// So many messages were sent. Returns when more may be, if any wait and no timer is armed for that.
    pub fn note_sent(
        &mut self,
        messages: usize,
        has_waiting: bool,
        per_second_max: u32,
    ) -> Option<Deadline> {
        self.tokens = self.tokens.saturating_sub(messages as u64);
        self.is_on &= has_waiting;
        if !self.is_on || self.tokens > 0 || per_second_max == 0 || self.is_awaited {
            return None;
        }
        self.is_awaited = true;
        let rate = u64::from(per_second_max);
        let wait_us = (SECOND_US / rate).max(SECOND_US / BURSTS / 2);
        Some(Deadline::at_us(self.counted.0 + wait_us))
    }

    /// The timer has fired.
    pub fn note_fired(&mut self) {
        self.is_awaited = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Messages that are sent in this many seconds, with a look each millisecond.
    fn sent(of: &mut Backfill, per_second_max: u32, seconds: u64) -> usize {
        let mut sent = 0;
        for now_us in (SECOND_US..(seconds + 1) * SECOND_US).step_by(1_000) {
            let quota = of.quota(per_second_max, Now(now_us)).expect("there is a bound");
            let _ = of.note_sent(quota, true, per_second_max);
            sent += quota;
        }
        sent
    }

    #[test]
    fn a_queue_is_sent_no_faster_than_its_bound_and_not_much_slower() {
        for rate in [1, 7, 300, 1_000, 12_345] {
            let mut of = Backfill::default();
            of.begin();
            let sent = sent(&mut of, rate, 10);
            let expected = 10 * rate as usize;
            let burst = (rate as usize / BURSTS as usize).max(1);
            assert!(sent <= expected + burst, "{rate}: {sent}");
            assert!(sent + 1 >= expected * 98 / 100, "{rate}: {sent}");
        }
    }

    #[test]
    fn the_bound_ends_with_the_queue_and_begins_again_with_the_next_connection() {
        let mut of = Backfill::default();
        assert_eq!(of.quota(10, Now(1_000_000)), None, "no client has connected");
        of.begin();
        assert_eq!(of.quota(0, Now(1_000_000)), None, "no bound");
        assert_eq!(of.quota(10, Now(1_000_000)), Some(1));
        let more = of.note_sent(1, true, 10).expect("more wait");
        assert!(!more.is_due(Now(1_000_000)) && more.is_due(Now(1_100_000)), "{more:?}");
        assert_eq!(of.note_sent(0, true, 10), None, "one timer at a time");
        of.note_fired();
        assert!(of.note_sent(0, true, 10).is_some());
        let _ = of.note_sent(0, false, 10);
        assert_eq!(of.quota(10, Now(9_000_000)), None, "the queue is empty");
        of.begin();
        assert!(of.quota(10, Now(9_000_000)).is_some());
    }
}
