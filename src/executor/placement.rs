//! Which of the machine's cores runs which of ours.

use crate::config::Cores;

/// The system's number for each of our cores, as far as it has as many: those named, or the first
/// ones this process may run on. None are given when a thread for each core would have to share,
/// or when there is one core alone, which the system moves about as it likes.
pub fn numbers(cores: &Cores) -> Vec<usize> {
    match cores {
        Cores::List(list) => list.iter().map(|&number| usize::from(number)).collect(),
        Cores::Count(1) => Vec::new(),
        Cores::Count(count) => {
            let allowed = core_affinity::get_core_ids().unwrap_or_default();
            if allowed.len() < usize::from(*count) {
                tracing::warn!(
                    cores = count,
                    available = allowed.len(),
                    "more cores asked for than there are; threads are not pinned"
                );
                return Vec::new();
            }
            allowed.iter().take(usize::from(*count)).map(|id| id.id).collect()
        }
    }
}

/// Keeps the calling thread, which is our core `core`, on the system's core `number`.
pub fn pin(core: usize, number: usize) {
    if !core_affinity::set_for_current(core_affinity::CoreId { id: number }) {
        tracing::warn!(core, number, "cannot pin to this core; the system chooses one");
    }
}
