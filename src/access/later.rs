//! Access control that begins while the broker runs: a broker that lets everybody do everything pays for no decision,
//! until a reload configures users, rules or limits.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::access::client::Origins;
use crate::access::{AccessError, Control, Notify, Prepared};
use crate::base::clock::Now;
use crate::config::Settings;
use crate::engine::{Access, AllowAll, Authentication, Credentials};

/// The access control of a broker, from the start on or from a later reload on.
pub struct Gate {
    control: OnceLock<Arc<Control>>,
    /// Wakes the cores that wait for it.
    waiting: Mutex<Vec<Notify>>,
}

impl Gate {
    /// Reads the files that the settings name.
    pub fn open(settings: &Settings) -> Result<Arc<Self>, AccessError> {
        let control = Control::open(settings)?.map_or_else(OnceLock::new, OnceLock::from);
        Ok(Arc::new(Self { control, waiting: Mutex::default() }))
    }

    /// The access control, once something is configured for it.
    pub fn control(&self) -> Option<&Arc<Control>> {
        self.control.get()
    }

    /// Checks that changes by commands can be kept in their file. Writes the file as it is, as the user that serves.
    pub fn check_writable(&self) -> Result<(), AccessError> {
        self.control.get().map_or(Ok(()), |control| control.check_writable())
    }

    /// The access control of a core, which `notify` wakes.
    pub fn for_core(self: &Arc<Self>, notify: Notify) -> Box<dyn Access> {
        match self.control.get() {
            Some(control) => Box::new(control.for_core(notify)),
            None => {
                self.waiting().push(Arc::clone(&notify));
                Box::new(Dormant { gate: Arc::clone(self), notify, origins: Origins::default() })
            }
        }
    }

    /// Reads everything for these settings; the result puts it into effect. None if everybody may still do everything.
    pub fn prepare(
        self: &Arc<Self>,
        settings: &Settings,
    ) -> Result<Option<impl FnOnce() + Send + use<>>, AccessError> {
        let (first, again): (Option<Arc<Control>>, Option<Prepared>) = match self.control.get() {
            Some(control) => (None, Some(control.prepare(settings)?)),
            None => (Control::open(settings)?, None),
        };
        if first.is_none() && again.is_none() {
            return Ok(None);
        }
        first.as_ref().map_or(Ok(()), |control| control.check_writable())?;
        let gate = Arc::clone(self);
        Ok(Some(move || {
            if let Some(prepared) = again {
                prepared.put_in_force();
            }
            if let Some(control) = first {
                // Only reloads set it, one at a time.
                let _ = gate.control.set(control);
                gate.waiting().drain(..).for_each(|notify| notify());
            }
        }))
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<Notify>> {
        // A panic leaves the list valid.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Allows everything until there is an access control, which then takes its place.
struct Dormant {
    gate: Arc<Gate>,
    notify: Notify,
    /// Rules of listeners may come.
    origins: Origins,
}

impl Access for Dormant {
    fn authenticate(&mut self, now: Now, exchange: u64, who: &Credentials<'_>) -> Authentication {
        self.origins.note(exchange, who.listener);
        AllowAll.authenticate(now, exchange, who)
    }

    fn admit_bridge(
        &mut self,
        exchange: u64,
        client_identifier: &str,
        user: Option<Box<str>>,
    ) -> Authentication {
        self.origins.note_bridge(exchange);
        AllowAll.admit_bridge(exchange, client_identifier, user)
    }

    fn replacement(&mut self) -> Option<Box<dyn Access>> {
        let control = self.gate.control.get()?;
        let origins = std::mem::take(&mut self.origins);
        Some(Box::new(control.for_core_with(Arc::clone(&self.notify), origins)))
    }
}
