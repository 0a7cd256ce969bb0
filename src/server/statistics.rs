//! Statistics that are printed, which a reload begins, changes and ends.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{ServerError, check};
use crate::config::{ConfigError, Settings, Stats};
use crate::control::reload::{Change, Commit, Reload};
use crate::stats::{Prepared, Prompt, Reporter, SharedStatistics};

/// What prints statistics; clones are the same.
#[derive(Clone, Default)]
pub(super) struct Printing(Arc<Shared>);

#[derive(Default)]
struct Shared {
    prompt: Prompt,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Before the cores run.
    prepared: Option<Prepared>,
    reporter: Option<Reporter>,
    /// What the cores record, once they run.
    statistics: Option<SharedStatistics>,
}

impl Printing {
    /// Creates the files of the settings.
    pub fn prepare(settings: &Settings) -> Result<Self, ServerError> {
        let printing = Self::default();
        if settings.stats.enabled {
            let prepared = Reporter::prepare(&settings.stats, &printing.0.prompt)
                .map_err(|error| ServerError::Stats(settings.stats.log.clone(), error))?;
            printing.state().prepared = Some(prepared);
        }
        Ok(printing)
    }

    /// Registers the settings. `records`: the cores record statistics, which only a start decides.
    pub fn register(&self, reload: &Reload, records: bool) {
        reload.needs_restart_if("stats", move |wanted| wanted.stats.enabled && !records);
        let printing = self.clone();
        reload.on_change("stats", move |change| printing.prepare_change(change));
    }

    fn prepare_change(&self, change: &Change<'_>) -> Result<Option<Commit>, ConfigError> {
        let (running, wanted) = (change.running.stats.clone(), change.wanted.stats.clone());
        if running == wanted {
            return Ok(None);
        }
        if wanted.enabled
            && running.log != wanted.log
            && !wanted.log.as_os_str().is_empty()
            && let Err(error) = check::may_write(&wanted.log)
        {
            let error = ServerError::Stats(wanted.log.clone(), error);
            return Err(ConfigError::of_key(Some("stats.log"), error.to_string()));
        }
        let printing = self.clone();
        Ok(Some(Box::new(move || printing.change(&running, &wanted))))
    }

    fn change(&self, running: &Stats, wanted: &Stats) -> Result<(), String> {
        let mut state = self.state();
        let Some(statistics) = state.statistics.clone() else {
            return Err("the cores do not run yet; reload again".to_owned());
        };
        if let Some(reporter) = &state.reporter
            && wanted.enabled
            && running.log == wanted.log
        {
            reporter.change(wanted);
            return Ok(());
        }
        if let Some(reporter) = state.reporter.take() {
            reporter.end(false);
        }
        statistics.set_has_reporter(wanted.enabled);
        if wanted.enabled {
            let prepared = Reporter::prepare(wanted, &self.0.prompt)
                .map_err(|error| ServerError::Stats(wanted.log.clone(), error).to_string())?;
            let started = prepared.start(statistics);
            let started = started.map_err(|error| format!("cannot start the thread: {error}"));
            state.reporter = Some(started?);
        }
        Ok(())
    }

    /// Asks for a report.
    pub fn prompt(&self) -> Prompt {
        self.0.prompt.clone()
    }

    /// Whether statistics are printed from the start on.
    pub fn is_prepared(&self) -> bool {
        self.state().prepared.is_some()
    }

    /// The cores run, and record this if they record anything.
    pub fn start(&self, statistics: Option<SharedStatistics>) -> std::io::Result<()> {
        let mut state = self.state();
        if let (Some(prepared), Some(statistics)) = (state.prepared.take(), &statistics) {
            state.reporter = Some(prepared.start(statistics.clone())?);
        }
        state.statistics = statistics;
        Ok(())
    }

    /// The cores have stopped.
    pub fn end(&self) {
        if let Some(reporter) = self.state().reporter.take() {
            reporter.end(true);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A change that panicked has at most left no reporter.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
