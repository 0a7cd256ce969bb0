//! The level of the log while the broker runs: another one for a while, after which the log goes back to the configured
//! level by itself.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::config::LogLevel;

/// The log of this process, once it has started.
static LOG: OnceLock<LogControl> = OnceLock::new();

/// The level of the log; clones control the same log.
#[derive(Clone)]
pub struct LogControl(Arc<Shared>);

struct Shared {
    apply: Box<dyn Fn(LogLevel) + Send + Sync>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    configured: LogLevel,
    level: LogLevel,
    until: Option<Instant>,
    /// A thread waits for `until`.
    has_thread: bool,
}

/// The level of the log at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogState {
    /// The level that applies.
    pub level: LogLevel,
    /// The level of the configuration.
    pub configured: LogLevel,
    /// Time after which the configured level applies again; none if it does, or if the level was changed for good.
    pub remaining: Option<Duration>,
}

impl LogControl {
    /// The control of a log that has the configured level; `apply` changes the level.
    pub fn new(configured: LogLevel, apply: impl Fn(LogLevel) + Send + Sync + 'static) -> Self {
        let state = State { configured, level: configured, until: None, has_thread: false };
        Self(Arc::new(Shared {
            apply: Box::new(apply),
            state: Mutex::new(state),
            changed: Condvar::new(),
        }))
    }

    /// The control of this process's log, if the log has started.
    pub fn of_process() -> Option<&'static Self> {
        LOG.get()
    }

    /// Makes this the control of the process's log, of which there is one.
    pub fn install(self) {
        let _ = LOG.set(self);
    }

    /// The level as it is now.
    pub fn state(&self) -> LogState {
        let state = self.0.locked();
        let remaining = state.until.map(|until| until.saturating_duration_since(Instant::now()));
        LogState { level: state.level, configured: state.configured, remaining }
    }

    /// Changes the level: for a while, or until it is changed again. The error says why it cannot be changed for a
    /// while; then it is not changed.
    pub fn set(&self, level: LogLevel, during: Option<Duration>) -> std::io::Result<()> {
        let mut state = self.0.locked();
        let until = during.map(|during| Instant::now() + during);
        if until.is_some() && !state.has_thread {
            let shared = Arc::clone(&self.0);
            let run = move || shared.go_back();
            std::thread::Builder::new().name("log-level".to_owned()).spawn(run)?;
            state.has_thread = true;
        }
        (state.level, state.until) = (level, until);
        (self.0.apply)(level);
        self.0.changed.notify_all();
        tracing::info!(target: "audit", audit = true, log_level = level.name(), seconds = during.map(|of| of.as_secs()), "the log level was changed");
        Ok(())
    }

    /// The configuration has been read again. A level that was set for a while stays until then.
    pub fn configure(&self, configured: LogLevel) {
        let mut state = self.0.locked();
        state.configured = configured;
        if state.until.is_none() {
            state.level = configured;
            (self.0.apply)(configured);
        }
    }
}

impl Shared {
    fn locked(&self) -> MutexGuard<'_, State> {
        // No code that can panic runs with the lock held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the time of another level is over, and ends.
    fn go_back(&self) {
        let mut state = self.locked();
        while let Some(until) = state.until {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                (state.level, state.until) = (state.configured, None);
                (self.apply)(state.level);
                tracing::info!(log_level = state.level.name(), "the log is back at its level");
                break;
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.has_thread = false;
    }
}

impl fmt::Debug for LogControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.state().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A control at `info`, and the levels that it has applied.
    fn control() -> (LogControl, Arc<Mutex<Vec<LogLevel>>>) {
        let applied = Arc::new(Mutex::new(Vec::new()));
        let record = Arc::clone(&applied);
        let apply = move |level| record.lock().expect("whole").push(level);
        (LogControl::new(LogLevel::Info, apply), applied)
    }

    fn await_level(control: &LogControl, level: LogLevel) {
        let until = Instant::now() + Duration::from_secs(20);
        while control.state().level != level {
            assert!(Instant::now() < until, "{control:?}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    #[test]
    fn a_level_for_a_while_goes_back_by_itself_and_the_last_change_counts() {
        let (control, applied) = control();
        control.set(LogLevel::Trace, Some(Duration::from_secs(3_600))).expect("set");
        assert!(control.state().remaining.is_some_and(|left| left > Duration::from_secs(3_500)));
        control.set(LogLevel::Debug, Some(Duration::from_millis(30))).expect("set");
        await_level(&control, LogLevel::Info);
        let levels = [LogLevel::Trace, LogLevel::Debug, LogLevel::Info];
        assert_eq!(*applied.lock().expect("whole"), levels);
        assert_eq!(control.state().remaining, None);
        // A thread that has ended is replaced.
        control.set(LogLevel::Warn, Some(Duration::from_millis(5))).expect("set");
        await_level(&control, LogLevel::Info);
    }

    #[test]
    fn a_level_for_good_stays_and_a_reload_waits_for_the_end_of_a_while() {
        let (control, applied) = control();
        control.set(LogLevel::Trace, Some(Duration::from_millis(20))).expect("set");
        control.set(LogLevel::Debug, None).expect("set");
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(control.state().level, LogLevel::Debug);
        control.set(LogLevel::Trace, Some(Duration::from_millis(50))).expect("set");
        control.configure(LogLevel::Error);
        assert_eq!(control.state().level, LogLevel::Trace);
        await_level(&control, LogLevel::Error);
        control.configure(LogLevel::Warn);
        assert_eq!(applied.lock().expect("whole").last(), Some(&LogLevel::Warn));
    }
}
