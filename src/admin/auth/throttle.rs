//! Addresses that send wrong secrets have to wait.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hashbrown::HashMap;

use super::Peer;

/// Wrong secrets of an address, after which the address is closed.
const WRONG_MAX: u32 = 10;
/// How long wrong secrets count, and how long an address is closed.
const WINDOW: Duration = Duration::from_secs(60);
/// Addresses that are remembered.
const ADDRESSES_MAX: usize = 4_096;

/// Wrong secrets by address.
#[derive(Debug, Default)]
pub struct Throttle(Mutex<HashMap<IpAddr, Wrong>>);

#[derive(Clone, Copy, Debug)]
struct Wrong {
    secrets: u32,
    last: Instant,
}

impl Wrong {
    fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last) >= WINDOW
    }
}

/// The address that counts: networks of 64 bits of IPv6 belong to one household.
fn counted(peer: &Peer) -> Option<IpAddr> {
    let Peer::Tcp { address, .. } = peer else { return None };
    Some(match address.ip().to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 64)).into(),
        ip => ip,
    })
}

impl Throttle {
    /// Seconds until the peer may send a secret; none if it may now.
    pub fn seconds_closed(&self, peer: &Peer) -> Option<u32> {
        self.seconds_closed_at(counted(peer)?, Instant::now())
    }

    /// Counts a wrong secret.
    pub fn note_wrong(&self, peer: &Peer) {
        if let Some(address) = counted(peer) {
            self.note_wrong_at(address, Instant::now());
        }
    }

    fn seconds_closed_at(&self, address: IpAddr, now: Instant) -> Option<u32> {
        let of = self.locked().get(&address).copied()?;
        let is_closed = of.secrets >= WRONG_MAX && !of.is_over(now);
        let left = WINDOW.saturating_sub(now.saturating_duration_since(of.last));
        is_closed.then(|| left.as_secs() as u32 + 1)
    }

    fn note_wrong_at(&self, address: IpAddr, now: Instant) {
        let mut addresses = self.locked();
        if addresses.len() >= ADDRESSES_MAX && !addresses.contains_key(&address) {
            addresses.retain(|_, of| !of.is_over(now));
            // The address that has been quiet for longest makes room.
            let oldest =
                addresses.iter().min_by_key(|(_, of)| of.last).map(|(&address, _)| address);
            if let Some(oldest) = oldest.filter(|_| addresses.len() >= ADDRESSES_MAX) {
                addresses.remove(&oldest);
            }
        }
        let of = addresses.entry(address).or_insert(Wrong { secrets: 0, last: now });
        of.secrets = if of.is_over(now) { 1 } else { of.secrets + 1 };
        of.last = now;
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, HashMap<IpAddr, Wrong>> {
        // A panic leaves the map valid.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn ten_wrong_secrets_close_an_address_for_a_minute_and_no_other() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        for _ in 0..WRONG_MAX {
            assert_eq!(throttle.seconds_closed_at(ADDRESS, now), None);
            throttle.note_wrong_at(ADDRESS, now);
        }
        assert_eq!(throttle.seconds_closed_at(ADDRESS, now), Some(61));
        assert_eq!(throttle.seconds_closed_at([127, 0, 0, 2].into(), now), None);
        assert_eq!(throttle.seconds_closed_at(ADDRESS, now + WINDOW), None);
        throttle.note_wrong_at(ADDRESS, now + WINDOW);
        assert_eq!(throttle.seconds_closed_at(ADDRESS, now + WINDOW), None, "counted from one");
    }

    #[test]
    fn a_flood_of_addresses_takes_bounded_memory() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        for number in 0..2 * ADDRESSES_MAX as u32 {
            throttle.note_wrong_at(std::net::Ipv4Addr::from_bits(number).into(), now);
        }
        assert_eq!(throttle.locked().len(), ADDRESSES_MAX);
    }

    #[test]
    fn the_addresses_of_an_ipv6_network_count_together() {
        let counted = |address: &str| {
            let address = address.parse().expect("an address");
            counted(&Peer::Tcp { address, is_encrypted: false, certificate: None })
        };
        assert_eq!(counted("[2001:db8::1]:1"), counted("[2001:db8::2:1]:2"));
        assert_ne!(counted("[2001:db8::1]:1"), counted("[2001:db8:0:1::1]:1"));
        assert_eq!(counted("[::ffff:127.0.0.1]:1"), Some(ADDRESS));
    }
}
