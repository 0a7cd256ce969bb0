//! Moderation of wake-ups, as network cards moderate interrupts: a busy core waits until several inputs have come, or
//! for a bounded time, instead of waking for each.
//!
//! Waiting saves the cost of a turn for each input. It costs latency and, with clients that wait for an answer before
//! they send more, throughput. So it is tried and measured: once a second the core is measured without waiting, and it
//! waits as long as it handles as many packets then, at less processor time for each. A core that is mostly idle never
//! waits.

use std::time::Duration;

use crate::base::clock::Tick;

/// The shortest time that is measured, and the packets that have to be handled in it without waiting.
const SPAN: Duration = Duration::from_millis(10);
const SPAN_PACKETS: u64 = 64;

/// After so long the load is measured without waiting again.
const MEASURED_EVERY: Duration = Duration::from_secs(1);

/// Share of its time in which a core has to be busy to wait.
const BUSY_MIN: f64 = 0.2;

/// Packets that have to come in the time of a wait to save something.
const PACKETS_MIN: f64 = 4.0;

/// What waiting has to leave of the packets handled without.
const RATE_MIN: f64 = 0.7;

/// What waiting may leave of the processor time that a packet takes without.
const COST_MAX: f64 = 0.97;

/// How many times as many packets are another load.
const OTHER_LOAD: f64 = 1.5;

/// For how long waiting is not tried again after it was of no use; doubled each time.
const REST: Duration = Duration::from_millis(250);
const REST_MAX: Duration = Duration::from_secs(4);

/// What was measured over a span.
#[derive(Clone, Copy, Debug)]
struct Measured {
    /// Packets a second.
    rate: f64,
    /// Share of the time in which the core was busy.
    busy: f64,
}

impl Measured {
    /// Processor time for a packet, in seconds.
    fn cost(&self) -> f64 {
        self.busy / self.rate
    }

    /// Whether this is so different that it has to be another load.
    fn is_another_load(&self, other: &Self) -> bool {
        let (less, more) = (self.rate.min(other.rate), self.rate.max(other.rate));
        more > less * OTHER_LOAD
    }
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// The core does not wait, and does not try to before this time, unless the load becomes another one than that for
    /// which waiting was of no use.
    Plain { until: Tick, useless: Option<Measured> },
    /// The core waits since some time, after it was measured without. `is_proven` once that was of use.
    Waiting { plain: Measured, since: Tick, is_proven: bool },
}

/// Decides whether a core waits for more input before it serves what has come.
#[derive(Debug)]
pub struct Moderation {
    /// The longest that the core waits; zero for never.
    budget: Duration,
    phase: Phase,
    rest: Duration,
    /// Not even for another load waiting is tried before.
    rests_until: Tick,
    /// When the span that is being measured began, and the processor time and the packets until then.
    began: Tick,
    spent: Duration,
    packets: u64,
    /// Packets up to the last turn.
    seen: u64,
    /// The last wait brought nothing: the core may sleep.
    is_in_vain: bool,
}

impl Moderation {
    /// Waits for at most `budget`; zero for never.
    pub fn new(budget: Duration) -> Self {
        Self {
            budget,
            phase: Phase::Plain { until: Tick(0), useless: None },
            rest: REST,
            rests_until: Tick(0),
            began: Tick(0),
            spent: Duration::ZERO,
            packets: 0,
            seen: 0,
            is_in_vain: false,
        }
    }

    /// How long to wait for more input; none if the core should sleep until some comes.
    #[inline]
    pub fn wait(&self) -> Option<Duration> {
        let waits = matches!(self.phase, Phase::Waiting { .. }) && !self.is_in_vain;
        waits.then_some(self.budget)
    }

    /// A turn has ended, before which the core may have waited. `packets` counts those that the core has handled since
    /// its start, and `spent` is the processor time of its thread, which is asked for when a span ends.
    #[inline]
    pub fn note_turn(
        &mut self,
        now: Tick,
        has_waited: bool,
        packets: u64,
        spent: impl FnOnce() -> Option<Duration>,
    ) {
        self.is_in_vain = has_waited && packets == self.seen;
        self.seen = packets;
        // A trial that goes wrong ends soon.
        let packets_min = match self.phase {
            Phase::Plain { .. } => SPAN_PACKETS,
            Phase::Waiting { .. } => 1,
        };
        if now.since_ns(self.began) < SPAN.as_nanos() as u64
            || packets - self.packets < packets_min
            || self.budget.is_zero()
        {
            return;
        }
        match spent() {
            Some(spent) => self.end_span(now, packets, spent),
            // Nothing can be measured on this system.
            None => self.budget = Duration::ZERO,
        }
    }

    fn end_span(&mut self, now: Tick, packets: u64, spent: Duration) {
        let seconds = now.since_ns(self.began) as f64 / 1e9;
        let measured = Measured {
            rate: (packets - self.packets) as f64 / seconds,
            busy: spent.saturating_sub(self.spent).as_secs_f64() / seconds,
        };
        (self.began, self.packets, self.spent) = (now, packets, spent);
        match self.phase {
            Phase::Plain { until, useless } => {
                let awaited = measured.rate * self.budget.as_secs_f64();
                let is_another = useless.is_some_and(|before| before.is_another_load(&measured));
                let rests = now < until && !(is_another && now >= self.rests_until);
                if measured.busy >= BUSY_MIN && awaited >= PACKETS_MIN && !rests {
                    self.phase = Phase::Waiting { plain: measured, since: now, is_proven: false };
                }
            }
            Phase::Waiting { plain, since, is_proven } => {
                let is_of_use = measured.rate >= plain.rate * RATE_MIN
                    && measured.cost() <= plain.cost() * COST_MAX;
                let is_old = now.since_ns(since) >= MEASURED_EVERY.as_nanos() as u64;
                match (is_of_use, is_proven) {
                    (true, _) if !is_old => {
                        self.rest = REST;
                        self.phase = Phase::Waiting { plain, since, is_proven: true };
                    }
                    // It is time to measure without, or the load has changed.
                    (true, _) | (false, true) => {
                        self.phase = Phase::Plain { until: now, useless: None };
                    }
                    (false, false) => {
                        let after = |rest: Duration| Tick(now.0 + rest.as_nanos() as u64);
                        self.rests_until = after(REST);
                        let until = after(self.rest);
                        self.phase = Phase::Plain { until, useless: Some(plain) };
                        self.rest = (self.rest * 2).min(REST_MAX);
                    }
                }
            }
        }
    }

    /// The core has slept until there was input.
    #[inline]
    pub fn note_sleep(&mut self) {
        self.is_in_vain = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUDGET: Duration = Duration::from_millis(1);

    /// A core under a load that is calculated: a turn takes 20 µs, and each packet another 5 µs.
    struct Core {
        moderation: Moderation,
        now_ns: u64,
        spent_ns: u64,
        packets: u64,
        /// Time in which the core waited for more input.
        waited_ns: u64,
    }

    impl Core {
        fn new(budget: Duration) -> Self {
            let moderation = Moderation::new(budget);
            Self { moderation, now_ns: 0, spent_ns: 0, packets: 0, waited_ns: 0 }
        }

        fn turn(&mut self, has_waited: bool, packets: u64) {
            let busy_ns = 20_000 + 5_000 * packets;
            self.now_ns += busy_ns;
            self.spent_ns += busy_ns;
            self.packets += packets;
            let spent = Duration::from_nanos(self.spent_ns);
            self.moderation.note_turn(Tick(self.now_ns), has_waited, self.packets, || Some(spent));
        }

        /// How long the core waits for more input; none if it sleeps until some comes.
        fn wait(&mut self) -> Option<u64> {
            let wait = self.moderation.wait().map(|wait| wait.as_nanos() as u64);
            match wait {
                Some(wait) => self.waited_ns += wait,
                None => self.moderation.note_sleep(),
            }
            wait
        }

        /// Packets that come at a rate, whatever the core does.
        fn open_loop(&mut self, per_second: u64, seconds: u64) {
            let (from, until) = (self.now_ns, self.now_ns + seconds * 1_000_000_000);
            let interval_ns = 1_000_000_000 / per_second;
            let before = self.packets;
            while self.now_ns < until {
                let wait = self.wait();
                let next = from + (self.packets - before + 1) * interval_ns;
                self.now_ns = wait.map_or(self.now_ns.max(next), |wait| self.now_ns + wait);
                let come = (self.now_ns - from) / interval_ns;
                self.turn(wait.is_some(), come - (self.packets - before));
            }
        }

        /// Clients that send the next packet 20 µs after the answer, so many of them at the same time.
        fn closed_loop(&mut self, clients: u64, together: u64, seconds: u64) {
            let until = self.now_ns + seconds * 1_000_000_000;
            while self.now_ns < until {
                let wait = self.wait();
                self.now_ns += wait.unwrap_or(20_000);
                self.turn(wait.is_some(), if wait.is_some() { clients } else { together });
            }
        }

        fn share_waited(&self) -> f64 {
            self.waited_ns as f64 / self.now_ns as f64
        }
    }

    #[test]
    fn a_core_that_is_mostly_idle_never_waits() {
        let mut core = Core::new(BUDGET);
        core.open_loop(4_000, 10);
        assert_eq!(core.waited_ns, 0);
    }

    #[test]
    fn a_busy_core_waits_and_saves_turns() {
        let mut plain = Core::new(Duration::ZERO);
        plain.open_loop(20_000, 10);
        let mut core = Core::new(BUDGET);
        core.open_loop(20_000, 10);
        assert!(core.share_waited() > 0.8, "{}", core.share_waited());
        assert!(core.packets.abs_diff(plain.packets) < 100, "nothing is lost by waiting");
        assert!(core.spent_ns * 2 < plain.spent_ns, "{} of {}", core.spent_ns, plain.spent_ns);
    }

    #[test]
    fn clients_that_wait_for_answers_are_not_slowed_down() {
        // Of the last ones, each packet has a turn of its own: waiting saves turns, and costs throughput.
        for (clients, together) in [(1, 1), (4, 4), (10, 10), (30, 30), (10, 1)] {
            let mut plain = Core::new(Duration::ZERO);
            plain.closed_loop(clients, together, 100);
            let mut core = Core::new(BUDGET);
            core.closed_loop(clients, together, 100);
            let share = core.packets as f64 / plain.packets as f64;
            assert!(share > 0.99, "{clients} clients: {share} of the packets");
        }
    }

    #[test]
    fn a_load_after_one_for_which_waiting_was_of_no_use_is_moderated_soon() {
        let mut core = Core::new(BUDGET);
        core.closed_loop(10, 10, 20);
        let before = core.waited_ns;
        core.open_loop(20_000, 2);
        assert!(core.waited_ns - before > 1_000_000_000, "{}", core.waited_ns - before);
    }

    #[test]
    fn a_load_that_ends_lets_the_core_sleep_and_one_that_returns_is_moderated_again() {
        let mut core = Core::new(BUDGET);
        core.open_loop(20_000, 5);
        assert!(core.moderation.wait().is_some());
        // A wait without input.
        core.turn(true, 0);
        assert_eq!(core.moderation.wait(), None);
        core.open_loop(100, 60);
        let before = core.waited_ns;
        core.open_loop(100, 10);
        assert_eq!(core.waited_ns, before);
        core.open_loop(20_000, 5);
        assert!(core.waited_ns - before > 3_000_000_000);
    }

    #[test]
    fn nothing_is_moderated_without_a_budget_or_a_measure_of_processor_time() {
        let mut core = Core::new(Duration::ZERO);
        core.open_loop(20_000, 2);
        assert_eq!(core.waited_ns, 0);
        let mut moderation = Moderation::new(BUDGET);
        for turn in 1..10_000 {
            moderation.note_turn(Tick(turn * 50_000), false, turn, || None);
            assert_eq!(moderation.wait(), None);
        }
    }
}
