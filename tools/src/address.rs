//! Allowed targets of load: 127.0.0.0/8 only. Does not use sockets.

use std::{fmt, net::SocketAddr, net::SocketAddrV4, str::FromStr};

/// A broker's address on this machine. No other type names a target, so that a mistyped command can
/// never load another machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoopbackAddress(SocketAddrV4);

impl LoopbackAddress {
    /// The address to connect to.
    pub fn socket_address(self) -> SocketAddr {
        SocketAddr::V4(self.0)
    }
}

impl FromStr for LoopbackAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let address: SocketAddrV4 =
            text.parse().map_err(|_| format!("{text} is not IPV4:PORT, such as 127.0.0.1:1883"))?;
        if !address.ip().is_loopback() {
            return Err(format!("{text} is outside 127.0.0.0/8; only this machine can be loaded"));
        }
        Ok(Self(address))
    }
}

impl fmt::Display for LoopbackAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_addresses_are_accepted() {
        for good in ["127.0.0.1:1883", "127.255.3.4:1"] {
            assert!(good.parse::<LoopbackAddress>().is_ok(), "{good}");
        }
        for bad in ["128.0.0.1:1883", "0.0.0.0:1883", "10.0.0.1:1", "localhost:1883", "[::1]:1883"]
        {
            assert!(bad.parse::<LoopbackAddress>().is_err(), "{bad}");
        }
    }
}
