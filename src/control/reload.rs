//! Reload on SIGHUP: certificates, revocation lists, access rules, and whatever else registers. Connections stay
//! open.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// Reads something again and puts it in force. The error says why that is impossible; then what was read before
/// stays in force.
type Hook = Box<dyn Fn() -> Result<(), String> + Send>;

/// Everything that can be reloaded; clones are the same one.
#[derive(Clone, Default)]
pub struct Reload(Arc<Mutex<Vec<(&'static str, Hook)>>>);

impl Reload {
    /// With nothing to reload yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds something to reload; `what` names it in the log.
    pub fn register(
        &self,
        what: &'static str,
        hook: impl Fn() -> Result<(), String> + Send + 'static,
    ) {
        self.hooks().push((what, Box::new(hook)));
    }

    /// Reloads everything, on the calling thread, and logs the outcome. Whether everything succeeded.
    pub fn run(&self) -> bool {
        let mut is_whole = true;
        for (what, hook) in self.hooks().iter() {
            match hook() {
                Ok(()) => tracing::info!(what, "reloaded"),
                Err(error) => {
                    is_whole = false;
                    tracing::error!(
                        what,
                        "cannot reload; what was read before stays in force: {error}"
                    );
                }
            }
        }
        is_whole
    }

    fn hooks(&self) -> std::sync::MutexGuard<'_, Vec<(&'static str, Hook)>> {
        // A hook that panicked has not changed the list.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Reload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.hooks().iter().map(|(what, _)| what)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn a_failure_does_not_keep_the_others_from_being_reloaded() {
        let (reload, read) = (Reload::new(), Arc::new(AtomicU32::new(0)));
        for is_good in [true, false, true] {
            let read = Arc::clone(&read);
            reload.register("it", move || {
                read.fetch_add(1, Ordering::Relaxed);
                is_good.then_some(()).ok_or_else(|| "no".to_owned())
            });
        }
        assert!(!reload.run());
        assert_eq!(read.load(Ordering::Relaxed), 3);
    }
}
