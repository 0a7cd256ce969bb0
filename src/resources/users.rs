//! Usage of each user over all cores of a process, if `[protection]` limits it: sessions, retained
//! messages, and bytes in queues.
//!
//! A session holds a [`Membership`] of its user and accounts its queue in [`QueueCount`]; the
//! publisher of a retained message is found by the message's stamp. Without limits, none of these
//! exist. Sessions and retained messages are counted under a lock; a queued message costs one
//! addition.

use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::base::atomic::AtomicU64;
use crate::config::Protection;
use crate::resources::gauges::Ledger;

/// Approximate memory of a user besides the name, charged while the user holds something.
const USER_BYTES: usize = 160;

/// Approximate memory of the record that links a retained message to its publisher.
const OWNED_BYTES: usize = 64;

/// The users of all cores.
#[derive(Clone, Debug, Default)]
pub struct Users(Arc<Tables>);

#[derive(Debug, Default)]
struct Tables {
    by_name: Mutex<HashMap<Box<str>, Weak<User>>>,
    /// Retained messages whose users are known, by stamp.
    retained: Mutex<HashMap<u64, Owned>>,
}

/// A retained message of a user.
#[derive(Debug)]
struct Owned {
    user: Arc<User>,
    bytes: u64,
    ledger: Ledger,
}

/// One user and what it holds.
#[derive(Debug)]
pub struct User {
    name: Box<str>,
    /// Written under the lock of `by_name`.
    sessions: AtomicU64,
    /// Both are written under the lock of `retained`.
    retained_messages: AtomicU64,
    retained_bytes: AtomicU64,
    queue_bytes: AtomicU64,
    ledger: Ledger,
    tables: Weak<Tables>,
}

/// A session of a user, counted while this lives.
#[derive(Debug)]
pub struct Membership(Arc<User>);

/// The user has reached a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotaExceeded;

impl Users {
    /// Counts one more session of a user, unless it has `sessions_max`; 0 means no limit. `replaces`
    /// states that the session replaces one of the same user.
    pub fn add_session(
        &self,
        name: &str,
        sessions_max: u32,
        replaces: bool,
        ledger: &Ledger,
    ) -> Result<Membership, QuotaExceeded> {
        let mut by_name = lock(&self.0.by_name);
        let user = match by_name.get(name).and_then(Weak::upgrade) {
            Some(user) => user,
            None => {
                ledger.charge(USER_BYTES + 2 * name.len());
                let user = Arc::new(User {
                    name: name.into(),
                    sessions: AtomicU64::new(0),
                    retained_messages: AtomicU64::new(0),
                    retained_bytes: AtomicU64::new(0),
                    queue_bytes: AtomicU64::new(0),
                    ledger: ledger.clone(),
                    tables: Arc::downgrade(&self.0),
                });
                by_name.insert(name.into(), Arc::downgrade(&user));
                user
            }
        };
        let sessions = user.sessions.load(Relaxed);
        let is_too_many =
            sessions_max > 0 && sessions >= u64::from(sessions_max) + u64::from(replaces);
        if !is_too_many {
            user.sessions.fetch_add(1, Relaxed);
        }
        // Dropping the last reference to a user takes the lock.
        drop(by_name);
        if is_too_many { Err(QuotaExceeded) } else { Ok(Membership(user)) }
    }

    /// Counts a message that a user has retained under `stamp`, replacing the one with the stamp
    /// `replaced`, unless the user has reached a limit of `bounds`.
    pub fn retain(
        &self,
        user: &Membership,
        (stamp, bytes): (u64, u64),
        replaced: Option<u64>,
        bounds: &Protection,
        ledger: &Ledger,
    ) -> Result<(), QuotaExceeded> {
        let Membership(user) = user;
        let mut retained = lock(&self.0.retained);
        let before = replaced.and_then(|stamp| retained.get(&stamp));
        let before = before.filter(|owned| Arc::ptr_eq(&owned.user, user));
        let messages = user.retained_messages.load(Relaxed) - u64::from(before.is_some()) + 1;
        let all_bytes =
            user.retained_bytes.load(Relaxed) - before.map_or(0, |owned| owned.bytes) + bytes;
        if exceeds(messages, bounds.retained_messages_per_user_max.into())
            || exceeds(all_bytes, bounds.retained_bytes_per_user_max)
        {
            return Err(QuotaExceeded);
        }
        ledger.charge(OWNED_BYTES);
        let owned = Owned { user: Arc::clone(user), bytes, ledger: ledger.clone() };
        owned.user.retained_messages.fetch_add(1, Relaxed);
        owned.user.retained_bytes.fetch_add(bytes, Relaxed);
        retained.insert(stamp, owned);
        Ok(())
    }

    /// Ends the accounting of the retained message with this stamp. Every core calls this; the
    /// first call counts.
    pub fn remove_retained(&self, stamp: u64) {
        let owned = lock(&self.0.retained).remove(&stamp);
        if let Some(Owned { user, bytes, ledger }) = owned {
            user.retained_messages.fetch_sub(1, Relaxed);
            user.retained_bytes.fetch_sub(bytes, Relaxed);
            ledger.release(OWNED_BYTES);
        }
    }
}

impl Drop for User {
    fn drop(&mut self) {
        self.ledger.release(USER_BYTES + 2 * self.name.len());
        let Some(tables) = self.tables.upgrade() else { return };
        let mut by_name = lock(&tables.by_name);
        // A user with the same name may have been created in the meantime.
        if by_name.get(&self.name).is_some_and(|user| user.strong_count() == 0) {
            by_name.remove(&self.name);
        }
    }
}

impl Membership {
    /// Number of sessions of the user.
    #[cfg(test)]
    pub fn sessions(&self) -> u64 {
        self.0.sessions.load(Relaxed)
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.0.sessions.fetch_sub(1, Relaxed);
    }
}

/// The messages of a queue and their bytes. The messages count for the core of the queue, the bytes for
/// the user of its session if that is limited.
#[derive(Debug)]
pub struct QueueCount {
    messages: u64,
    bytes: u64,
    ledger: Ledger,
    /// The messages do not count for the core any more.
    has_left_core: bool,
    user: Option<Arc<User>>,
}

impl QueueCount {
    /// An empty queue of the core of `ledger`.
    pub fn on(ledger: &Ledger) -> Self {
        let ledger = ledger.clone();
        Self { messages: 0, bytes: 0, ledger, has_left_core: false, user: None }
    }

    /// Number of messages.
    #[inline]
    pub fn messages(&self) -> usize {
        self.messages as usize
    }

    /// Number of bytes.
    #[inline]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The ledger of the core.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Counts a message that is added.
    #[inline]
    pub fn add(&mut self, bytes: u64) {
        self.set(self.messages + 1, self.bytes + bytes);
    }

    /// Counts a message that is removed.
    #[inline]
    pub fn remove(&mut self, bytes: u64) {
        self.set(self.messages - 1, self.bytes - bytes);
    }

    /// Counts a message that another one replaces.
    pub fn replace(&mut self, old: u64, new: u64) {
        self.set(self.messages, self.bytes - old + new);
    }

    #[inline]
    fn set(&mut self, messages: u64, bytes: u64) {
        if !self.has_left_core {
            self.ledger.change_queued((self.messages, self.bytes), (messages, bytes));
        }
        if let Some(user) = &self.user {
            user.queue_bytes.fetch_add(bytes, Relaxed);
            user.queue_bytes.fetch_sub(self.bytes, Relaxed);
        }
        (self.messages, self.bytes) = (messages, bytes);
    }

    /// Whether `more` bytes would exceed `user_bytes_max` for all queues of the user.
    pub fn would_exceed(&self, more: u64, user_bytes_max: u64) -> bool {
        let Some(user) = &self.user else { return false };
        exceeds(user.queue_bytes.load(Relaxed).saturating_add(more), user_bytes_max)
    }

    /// Assigns the queue to a user.
    pub fn assign_to_user(&mut self, membership: &Membership) {
        let (messages, bytes) = (self.messages, self.bytes);
        self.set(messages, 0);
        self.user = Some(Arc::clone(&membership.0));
        self.set(messages, bytes);
    }

    /// The messages do not count for the core from here on.
    pub fn leave_core(&mut self) {
        if !std::mem::replace(&mut self.has_left_core, true) {
            self.ledger.change_queued((self.messages, self.bytes), (0, 0));
        }
    }
}

impl Drop for QueueCount {
    fn drop(&mut self) {
        self.set(0, 0);
    }
}

fn exceeds(count: u64, max: u64) -> bool {
    max > 0 && count > max
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A counter stays usable after a panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_removed_with_the_last_thing_it_holds() {
        let (users, ledger) = (Users::default(), Ledger::default());
        let add_session = |name| users.add_session(name, 2, false, &ledger);
        let (one, two) = (add_session("u").expect("room"), add_session("u").expect("room"));
        assert_eq!(one.sessions(), 2);
        assert_eq!(add_session("u").err(), Some(QuotaExceeded));
        assert!(add_session("v").is_ok());
        let mut queue = QueueCount::on(&ledger);
        queue.add(100);
        queue.assign_to_user(&one);
        assert!(queue.would_exceed(1, 100) && !queue.would_exceed(0, 100));
        drop((one, two));
        assert!(ledger.bytes() > 0, "the queue still counts");
        drop(queue);
        assert_eq!((ledger.bytes(), lock(&users.0.by_name).len()), (0, 0));
    }
}
