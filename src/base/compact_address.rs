//! A client's address in 23 bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// An optional [`SocketAddr`] for state of which there are a million: 23 bytes without alignment instead of 32 with an
/// alignment of 4. The IPv6 flow label, which the kernel reports as 0 unless it is asked for (ipv6(7)), is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompactAddress {
    family: Family,
    ip: [u8; 16],
    scope: [u8; 4],
    port: [u8; 2],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    None,
    V4,
    V6,
}

impl CompactAddress {
    /// The address, if there is one.
    pub fn get(self) -> Option<SocketAddr> {
        let port = u16::from_ne_bytes(self.port);
        match self.family {
            Family::None => None,
            Family::V4 => {
                let [a, b, c, d, ..] = self.ip;
                Some(SocketAddr::from((Ipv4Addr::new(a, b, c, d), port)))
            }
            Family::V6 => {
                let scope = u32::from_ne_bytes(self.scope);
                Some(SocketAddrV6::new(Ipv6Addr::from(self.ip), port, 0, scope).into())
            }
        }
    }
}

impl From<Option<SocketAddr>> for CompactAddress {
    fn from(address: Option<SocketAddr>) -> Self {
        let mut compact = Self { family: Family::None, ip: [0; 16], scope: [0; 4], port: [0; 2] };
        let Some(address) = address else { return compact };
        compact.port = address.port().to_ne_bytes();
        match address.ip() {
            IpAddr::V4(ip) => {
                compact.family = Family::V4;
                compact.ip[..4].copy_from_slice(&ip.octets());
            }
            IpAddr::V6(ip) => {
                compact.family = Family::V6;
                compact.ip = ip.octets();
            }
        }
        if let SocketAddr::V6(v6) = address {
            compact.scope = v6.scope_id().to_ne_bytes();
        }
        compact
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_comes_back_as_it_was() {
        for text in ["127.0.0.1:1883", "255.254.253.252:65535", "[::1]:0", "[2001:db8::7]:8883"] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(CompactAddress::from(Some(address)).get(), Some(address));
        }
        let link_local = SocketAddrV6::new("fe80::1".parse().unwrap(), 1883, 0, 7).into();
        assert_eq!(CompactAddress::from(Some(link_local)).get(), Some(link_local));
        assert_eq!(CompactAddress::from(None).get(), None);
    }

    #[test]
    fn it_takes_23_bytes() {
        assert_eq!((size_of::<CompactAddress>(), align_of::<CompactAddress>()), (23, 1));
    }
}
