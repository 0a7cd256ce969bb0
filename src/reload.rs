//! What is read anew while the broker serves, on SIGHUP: certificates, revocation lists, and whatever
//! else registers. Nobody's connection is touched by it.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// Reads something anew. When what it finds is of no use it says why, and what was read before goes
/// on being used.
type Hook = Box<dyn Fn() -> Result<(), String> + Send>;

/// All that can be read anew; clones are the same one.
#[derive(Clone, Default)]
pub struct Reload(Arc<Mutex<Vec<(&'static str, Hook)>>>);

impl Reload {
    /// With nothing to read yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds something; `what` names it in the log.
    pub fn register(
        &self,
        what: &'static str,
        hook: impl Fn() -> Result<(), String> + Send + 'static,
    ) {
        self.hooks().push((what, Box::new(hook)));
    }

    /// Reads everything anew, on the calling thread, and says in the log how it went. Whether all of
    /// it is of use.
    pub fn run(&self) -> bool {
        let mut is_whole = true;
        for (what, hook) in self.hooks().iter() {
            match hook() {
                Ok(()) => tracing::info!(what, "read anew"),
                Err(error) => {
                    is_whole = false;
                    tracing::error!(
                        what,
                        "cannot be read anew; what was read before stays: {error}"
                    );
                }
            }
        }
        is_whole
    }

    fn hooks(&self) -> std::sync::MutexGuard<'_, Vec<(&'static str, Hook)>> {
        // A hook that panicked has changed nothing of the list.
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
    fn one_that_fails_keeps_none_of_the_others_from_being_read() {
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
