//! Reload on SIGHUP: certificates, revocation lists, access rules, and whatever else registers. Connections stay
//! open.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::control::{AccessChecked, Command, Cores, EngineCommand, Refused, Replies};

/// How long cores may take to check their clients against changed access rules, before a warning says that the
/// check is not complete.
const CHECK_PATIENCE: Duration = Duration::from_secs(60);

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

/// Access rules have been reloaded: has all cores check their clients against them, and logs when all have, on a
/// thread of its own.
pub fn check_access(cores: &Cores) {
    let replies = cores.ask_all(|reply| Command::Engine(EngineCommand::CheckAccess(reply)));
    let count = cores.count();
    let run = move || match sum(&replies, count, Instant::now() + CHECK_PATIENCE) {
        Ok(Some(AccessChecked { clients_disconnected, subscriptions_ended })) => tracing::info!(
            clients_disconnected,
            subscriptions_ended,
            "all clients have been checked against the reloaded access rules"
        ),
        // The broker stops.
        Ok(None) => {}
        Err(cores) => tracing::warn!(
            ?cores,
            "these cores have not yet checked their clients against the reloaded access rules"
        ),
    };
    if let Err(error) = std::thread::Builder::new().name("reload".to_owned()).spawn(run) {
        tracing::warn!(%error, "cannot start the thread that waits for the check of clients");
    }
}

/// The sum of all cores' replies; none when a core has stopped. The error names the cores that have not replied.
fn sum(
    replies: &Replies<AccessChecked>,
    cores: usize,
    deadline: Instant,
) -> Result<Option<AccessChecked>, Vec<usize>> {
    let mut sum = AccessChecked::default();
    let mut missing: Vec<usize> = (0..cores).collect();
    while let Some((core, answer)) = replies.next_before(deadline) {
        match answer {
            Ok(checked) => {
                sum.clients_disconnected += checked.clients_disconnected;
                sum.subscriptions_ended += checked.subscriptions_ended;
                missing.retain(|&other| other != core);
            }
            Err(Refused::Stopped) => return Ok(None),
            Err(Refused::Full) => {}
        }
    }
    if missing.is_empty() { Ok(Some(sum)) } else { Err(missing) }
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

    #[test]
    fn the_replies_of_all_cores_are_added_up_and_those_that_do_not_reply_are_named() {
        let (to, replies) = crate::control::replies();
        let checked = AccessChecked { clients_disconnected: 2, subscriptions_ended: 3 };
        (0..2).for_each(|core| to.core(core).send(checked));
        let now = Instant::now();
        assert_eq!(sum(&replies, 3, now), Err(vec![2]));
        (0..2).for_each(|core| to.core(core).send(checked));
        drop(to);
        let later = now + Duration::from_secs(60);
        let twice = AccessChecked { clients_disconnected: 4, subscriptions_ended: 6 };
        assert_eq!(sum(&replies, 2, later), Ok(Some(twice)));
        let (to, replies) = crate::control::replies();
        drop((to.core(0), to));
        assert_eq!(sum(&replies, 1, later), Ok(None), "the core has stopped");
    }
}
