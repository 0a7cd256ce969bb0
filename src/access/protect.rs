//! Limits per address, user and client, counted over all cores: connections, failed authentications, and
//! connections that are opened and closed repeatedly; and bans.
//!
//! Used when a connection opens and closes, never for a message, so locks suffice. Memory is limited by the
//! number of connections, and for addresses and clients without a connection by [`MARKS_MAX`].

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use ipnet::IpNet;

use crate::base::atomic::AtomicU64;
use crate::base::clock::{Deadline, Now};
use crate::base::log_rate::{name, rated};
use crate::config::Protection;
use crate::engine::Cause;

/// Addresses, and clients, that are kept without a connection. Expired ones are removed first, then those that are
/// not banned; if all are banned, no more are added.
const MARKS_MAX: usize = 65_536;

const SECOND_US: u64 = 1_000_000;

/// An address, or a network that counts as one address.
type Place = u128;

/// The counts of all cores.
#[derive(Debug)]
pub(super) struct Guard {
    bounds: ArcSwap<Protection>,
    addresses: Mutex<Addresses>,
    clients: Mutex<Marks<Box<str>>>,
    users: Mutex<HashMap<Box<str>, u32>>,
    turned_away: AtomicU64,
    bans: AtomicU64,
}

#[derive(Debug, Default)]
struct Addresses {
    /// Open connections.
    open: HashMap<Place, u32>,
    /// Connections of the last second.
    rates: Marks<Place>,
    /// Failed authentications, and bans.
    refusals: Marks<Place>,
}

/// Counts within a time window.
#[derive(Debug)]
struct Marks<K>(HashMap<K, Mark>);

#[derive(Clone, Copy, Debug)]
struct Mark {
    began: Now,
    count: u32,
    banned_until: Option<Deadline>,
}

impl<K> Default for Marks<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Hash + Eq> Marks<K> {
    fn is_banned<Q: Hash + Eq + ?Sized>(&self, key: &Q, now: Now) -> bool
    where
        K: std::borrow::Borrow<Q>,
    {
        self.0.get(key).is_some_and(|mark| mark.is_banned(now))
    }

    /// Increments the count of a key, and starts a new window if the last one has passed.
    fn count(&mut self, key: K, now: Now, window_us: u64) -> Option<&mut Mark> {
        if self.0.len() >= MARKS_MAX && !self.0.contains_key(&key) {
            self.0.retain(|_, mark| mark.is_banned(now) || now.since_us(mark.began) < window_us);
            if self.0.len() >= MARKS_MAX {
                self.0.retain(|_, mark| mark.is_banned(now));
            }
            if self.0.len() >= MARKS_MAX {
                return None;
            }
        }
        let fresh = Mark { began: now, count: 0, banned_until: None };
        let mark = self.0.entry(key).or_insert(fresh);
        if now.since_us(mark.began) >= window_us {
            (mark.began, mark.count) = (now, 0);
        }
        mark.count = mark.count.saturating_add(1);
        Some(mark)
    }
}

impl Mark {
    fn is_banned(&self, now: Now) -> bool {
        self.banned_until.is_some_and(|until| !until.is_due(now))
    }
}

impl Guard {
    pub fn new(bounds: &Protection) -> Self {
        Self {
            bounds: ArcSwap::from_pointee(bounds.clone()),
            addresses: Mutex::default(),
            clients: Mutex::default(),
            users: Mutex::default(),
            turned_away: AtomicU64::new(0),
            bans: AtomicU64::new(0),
        }
    }

    /// Other bounds hold from now on. Connections that are open are not counted where nothing was counted before, or
    /// under other keys.
    pub fn set_bounds(&self, bounds: &Protection) {
        let before = self.bounds.swap(Arc::new(bounds.clone()));
        let keys = |of: &Protection| (of.ipv4_prefix, of.ipv6_prefix, of.exempt.clone());
        let counts = |max: u32| max > 0;
        if keys(&before) != keys(bounds)
            || counts(before.connections_per_address_max)
                != counts(bounds.connections_per_address_max)
        {
            lock(&self.addresses).open.clear();
        }
        if counts(before.connections_per_user_max) != counts(bounds.connections_per_user_max) {
            lock(&self.users).clear();
        }
    }

    /// Number of connections that were closed when they opened.
    pub fn turned_away(&self) -> u64 {
        self.turned_away.load(Relaxed)
    }

    /// Number of bans since the start.
    pub fn bans(&self) -> u64 {
        self.bans.load(Relaxed)
    }

    /// Whether a connection from this address is admitted; if so, it counts until [`Self::left`].
    pub fn enter(&self, now: Now, address: Option<SocketAddr>) -> Result<(), Cause> {
        let Some(place) = self.bounded(address) else { return Ok(()) };
        let Protection {
            connections_per_address_max: open_max,
            connections_per_address_per_second_max: rate_max,
            ..
        } = **self.bounds.load();
        let mut addresses = lock(&self.addresses);
        let open = addresses.open.get(&place).copied().unwrap_or(0);
        let is_slow_enough = |addresses: &mut Addresses| {
            let mark = addresses.rates.count(place, now, SECOND_US);
            mark.is_some_and(|mark| mark.count <= rate_max)
        };
        let turned_away = if addresses.refusals.is_banned(&place, now) {
            Err(Cause::Banned)
        } else if open_max > 0 && open >= open_max {
            Err(Cause::ConnectionsOfAddress)
        } else if rate_max > 0 && !is_slow_enough(&mut addresses) {
            Err(Cause::ConnectionRateOfAddress)
        } else {
            Ok(())
        };
        if turned_away.is_err() {
            self.turned_away.fetch_add(1, Relaxed);
        } else if open_max > 0 {
            *addresses.open.entry(place).or_default() += 1;
        }
        turned_away
    }

    /// An admitted connection has closed.
    pub fn left(&self, address: Option<SocketAddr>) {
        if self.bounds.load().connections_per_address_max == 0 {
            return;
        }
        let Some(place) = self.bounded(address) else { return };
        take_one(&mut lock(&self.addresses).open, &place);
    }

    /// Authentication of a client from this address has failed.
    pub fn refused(&self, now: Now, address: Option<SocketAddr>) {
        let Protection { refusals_max, ban_s, .. } = **self.bounds.load();
        let (Some(place), true) = (self.bounded(address), refusals_max > 0) else { return };
        let mut addresses = lock(&self.addresses);
        let Some(mark) = addresses.refusals.count(place, now, self.window_us()) else { return };
        if mark.count >= refusals_max && !mark.is_banned(now) {
            mark.banned_until = Some(now.after_s(ban_s.into()));
            self.bans.fetch_add(1, Relaxed);
            rated!(
                warn,
                now,
                address = address.map(|address| address.ip().to_string()),
                refused = mark.count,
                for_s = ban_s,
                "address banned: too many failed authentications"
            );
        }
    }

    /// Whether closed connections are counted per client.
    pub fn counts_flaps(&self) -> bool {
        self.bounds.load().flaps_max > 0
    }

    /// Whether this client is banned.
    pub fn is_banned(&self, now: Now, user: Option<&str>, client_identifier: &str) -> bool {
        self.bounds.load().flaps_max > 0
            && !client_identifier.is_empty()
            && lock(&self.clients).is_banned(&*client_key(user, client_identifier), now)
    }

    /// The connection of an authenticated client has closed.
    pub fn flapped(&self, now: Now, user: Option<&str>, client_identifier: &str) {
        let Protection { flaps_max, ban_s, .. } = **self.bounds.load();
        if flaps_max == 0 || client_identifier.is_empty() {
            return;
        }
        let mut clients = lock(&self.clients);
        let key = client_key(user, client_identifier);
        let Some(mark) = clients.count(key, now, self.window_us()) else { return };
        if mark.count >= flaps_max && !mark.is_banned(now) {
            mark.banned_until = Some(now.after_s(ban_s.into()));
            mark.count = 0;
            self.bans.fetch_add(1, Relaxed);
            rated!(
                warn,
                now,
                client = name(client_identifier),
                user = user.map(name),
                for_s = ban_s,
                "client banned: too many connections were opened and closed"
            );
        }
    }

    /// Counts a connection of a user, unless it has as many as it may; `spares` is one that is
    /// about to be taken over.
    pub fn enter_user(&self, user: &str, spares: bool) -> bool {
        let users_max = self.bounds.load().connections_per_user_max;
        if users_max == 0 {
            return true;
        }
        let mut users = lock(&self.users);
        let open = users.get(user).copied().unwrap_or(0);
        if open >= users_max.saturating_add(u32::from(spares)) {
            return false;
        }
        *users.entry(user.into()).or_default() += 1;
        true
    }

    /// A connection that was counted for a user is gone.
    pub fn user_left(&self, user: &str) {
        if self.bounds.load().connections_per_user_max > 0 {
            take_one(&mut lock(&self.users), user);
        }
    }

    fn window_us(&self) -> u64 {
        u64::from(self.bounds.load().window_s) * SECOND_US
    }

    /// The key under which an address counts; none if the address is exempt.
    fn bounded(&self, address: Option<SocketAddr>) -> Option<Place> {
        let (address, bounds) = (address?.ip().to_canonical(), self.bounds.load());
        if bounds.exempt.iter().any(|network: &IpNet| network.contains(&address)) {
            return None;
        }
        Some(match address {
            IpAddr::V4(address) => {
                network(address.to_ipv6_mapped().to_bits(), 96 + bounds.ipv4_prefix)
            }
            IpAddr::V6(address) => network(address.to_bits(), bounds.ipv6_prefix),
        })
    }
}

/// The network of an address with this prefix length.
fn network(address: u128, prefix: u8) -> u128 {
    address & u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0)
}

fn client_key(user: Option<&str>, client_identifier: &str) -> Box<str> {
    // The user is part of the key, so that one user cannot ban the client of another. Neither part
    // contains U+0000 [MQTT-1.5.4-2].
    format!("{}\0{client_identifier}", user.unwrap_or_default()).into()
}

fn take_one<K, Q>(counts: &mut HashMap<K, u32>, key: &Q)
where
    K: Hash + Eq + std::borrow::Borrow<Q>,
    Q: Hash + Eq + ?Sized,
{
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Counts stay valid after a panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(change: impl FnOnce(&mut Protection)) -> Guard {
        let mut bounds = Protection { exempt: Vec::new(), ..Protection::default() };
        change(&mut bounds);
        Guard::new(&bounds)
    }

    fn at(text: &str) -> Option<SocketAddr> {
        Some(SocketAddr::new(text.parse().expect("an address"), 5_000))
    }

    #[test]
    fn an_address_has_so_many_connections_and_those_of_a_network_count_as_one() {
        let guard = guard(|bounds| bounds.connections_per_address_max = 2);
        let enters = |address| guard.enter(Now(0), at(address)).is_ok();
        assert!(enters("10.0.0.1") && enters("::ffff:10.0.0.1") && !enters("10.0.0.1"));
        assert!(enters("10.0.0.2"));
        guard.left(at("10.0.0.1"));
        assert!(enters("10.0.0.1") && !enters("10.0.0.1"));
        assert!(enters("2001:db8::1") && enters("2001:db8::2") && !enters("2001:db8:0:0:ffff::1"));
        assert!(enters("2001:db8:0:1::1"));
        assert_eq!(guard.turned_away(), 3);
        assert!((0..9).all(|_| guard.enter(Now(0), None).is_ok()), "a Unix socket has no address");
    }

    #[test]
    fn a_network_of_ipv4_counts_as_one_address_where_it_is_told_to() {
        let guard =
            guard(|bounds| (bounds.connections_per_address_max, bounds.ipv4_prefix) = (2, 24));
        let enters = |address| guard.enter(Now(0), at(address)).is_ok();
        assert!(enters("10.0.0.1") && enters("10.0.0.255") && !enters("10.0.0.7"));
        assert!(enters("10.0.1.1"));
    }

    #[test]
    fn an_address_makes_so_many_connections_in_a_second() {
        let guard = guard(|bounds| bounds.connections_per_address_per_second_max = 3);
        let made = |now| (0..9).filter(|_| guard.enter(Now(now), at("10.0.0.1")).is_ok()).count();
        assert_eq!((made(0), made(SECOND_US - 1), made(SECOND_US)), (3, 0, 3));
    }

    #[test]
    fn an_address_with_too_many_refusals_is_banned_for_a_while_and_no_other() {
        let guard =
            guard(|bounds| (bounds.refusals_max, bounds.window_s, bounds.ban_s) = (3, 10, 60));
        let s = |s| Now(s * SECOND_US);
        for at_s in [0, 1, 20, 21] {
            guard.refused(s(at_s), at("10.0.0.1"));
        }
        assert!(guard.enter(s(21), at("10.0.0.1")).is_ok(), "never three in ten seconds");
        guard.refused(s(22), at("10.0.0.1"));
        assert!(
            guard.enter(s(22), at("10.0.0.1")).is_err()
                && guard.enter(s(22), at("10.0.0.2")).is_ok()
        );
        assert!(
            guard.enter(s(81), at("10.0.0.1")).is_err()
                && guard.enter(s(82), at("10.0.0.1")).is_ok()
        );
        assert_eq!(guard.bans(), 1);
    }

    #[test]
    fn addresses_that_are_exempt_are_never_bounded() {
        let guard = guard(|bounds| {
            bounds.exempt = vec!["10.0.0.0/8".parse().expect("a network")];
            bounds.connections_per_address_max = 1;
        });
        assert!((0..9).all(|_| guard.enter(Now(0), at("10.1.2.3")).is_ok()));
        assert!(
            guard.enter(Now(0), at("11.1.2.3")).is_ok()
                && guard.enter(Now(0), at("11.1.2.3")).is_err()
        );
    }

    #[test]
    fn a_client_that_comes_and_goes_is_banned_and_another_user_of_its_name_is_not() {
        let guard = guard(|bounds| (bounds.flaps_max, bounds.window_s, bounds.ban_s) = (3, 10, 60));
        (0..3).for_each(|_| guard.flapped(Now(0), Some("u"), "c"));
        assert!(guard.is_banned(Now(0), Some("u"), "c"));
        assert!(!guard.is_banned(Now(0), Some("v"), "c") && !guard.is_banned(Now(0), None, "c"));
        assert!(!guard.is_banned(Now(60 * SECOND_US), Some("u"), "c"));
    }

    #[test]
    fn a_user_has_so_many_connections_and_may_take_over_its_own() {
        let guard = guard(|bounds| bounds.connections_per_user_max = 1);
        assert!(guard.enter_user("u", false) && !guard.enter_user("u", false));
        assert!(guard.enter_user("u", true) && guard.enter_user("v", false));
        guard.user_left("u");
        assert!(!guard.enter_user("u", false));
        guard.user_left("u");
        assert!(guard.enter_user("u", false));
    }

    #[test]
    fn what_is_remembered_of_strangers_is_bounded_and_bans_outlive_the_rest() {
        let guard = guard(|bounds| (bounds.refusals_max, bounds.ban_s) = (2, 600));
        let of = |number: u32| {
            let address = IpAddr::V4(std::net::Ipv4Addr::from_bits(number));
            Some(SocketAddr::new(address, 1))
        };
        (0..2).for_each(|_| guard.refused(Now(0), of(1)));
        (2..2 * MARKS_MAX as u32).for_each(|number| guard.refused(Now(0), of(number)));
        assert!(lock(&guard.addresses).refusals.0.len() <= MARKS_MAX);
        assert!(guard.enter(Now(0), of(1)).is_err(), "still banned");
    }
}
