//! Signals for one core from other threads, and the waker that makes the core look at them.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::base::log_rate;
use crate::base::log_rate::rated;
use crate::base::waker::Waker;

/// Something that another thread has for a core. The data lies with its owner: a queue, a channel, a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Signal {
    /// Commands are in the queue (`control`).
    Commands = 1,
    /// The journal has been synchronised, or its state has changed (`storage`).
    Storage = 2,
    /// Authentication answers are ready, or the access rules have changed (`access`).
    Access = 4,
    /// The gateway of the cluster has sent batches, or has room for more (`cluster`).
    Gateway = 8,
}

/// The signals that a core has taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signals(u32);

impl Signals {
    /// Whether there are none.
    #[inline]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether this one is among them.
    pub fn has(self, signal: Signal) -> bool {
        self.0 & signal as u32 != 0
    }
}

/// Notifies one core: a word of pending signals, and the core's waker.
#[derive(Debug)]
pub struct Notifier {
    pending: AtomicU32,
    waker: Waker,
}

impl Notifier {
    /// A notifier with all signals pending, so that the core's first turn looks at everything.
    pub fn new(waker: Waker) -> Self {
        Self { pending: AtomicU32::new(u32::MAX), waker }
    }

    /// Sets a signal and wakes the core. The core takes it in its next turn.
    pub fn notify(&self, signal: Signal) {
        // Release: a core that takes the signal sees what was written before.
        self.pending.fetch_or(signal as u32, Ordering::Release);
        // The core notices at its next timer.
        if let Err(error) = self.wake() {
            rated!(warn, log_rate::now(), %error, "cannot wake a core");
        }
    }

    /// Wakes the core, or keeps it from falling asleep.
    pub fn wake(&self) -> io::Result<()> {
        self.waker.wake()
    }

    /// Whether signals are pending.
    pub fn has_signals(&self) -> bool {
        self.pending.load(Ordering::Acquire) != 0
    }

    /// Takes the pending signals. Called by the core alone, once a turn.
    #[inline]
    pub fn take(&self) -> Signals {
        match self.pending.load(Ordering::Relaxed) {
            0 => Signals(0),
            _ => Signals(self.pending.swap(0, Ordering::Acquire)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notifier() -> (mio::Poll, Notifier) {
        let poll = mio::Poll::new().expect("a poll");
        let waker = mio::Waker::new(poll.registry(), mio::Token(0)).expect("a waker");
        (poll, Notifier::new(Waker::Poll(waker)))
    }

    #[test]
    fn the_first_turn_looks_at_everything_and_the_next_at_what_was_signalled() {
        let (_poll, notifier) = notifier();
        let all = notifier.take();
        assert!([Signal::Commands, Signal::Storage, Signal::Access].iter().all(|&s| all.has(s)));
        assert!(notifier.take().is_empty());
        notifier.notify(Signal::Storage);
        notifier.notify(Signal::Storage);
        let taken = notifier.take();
        assert!(taken.has(Signal::Storage) && !taken.has(Signal::Commands));
        assert!(notifier.take().is_empty());
    }

    #[test]
    fn a_signal_wakes_a_core_that_sleeps() {
        let (mut poll, notifier) = notifier();
        let sleeper = std::thread::spawn(move || {
            let mut events = mio::Events::with_capacity(1);
            poll.poll(&mut events, Some(std::time::Duration::from_secs(60))).expect("it waits");
            events.iter().count()
        });
        notifier.notify(Signal::Access);
        assert_eq!(sleeper.join().expect("it wakes"), 1);
    }
}
