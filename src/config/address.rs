//! Addresses to listen on, in the forms that the configuration accepts.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _};
use std::str::FromStr;

use serde::{Deserializer, de};

/// The addresses that a text stands for: an address with a port; the addresses of a host name, with a port; or,
/// for a port alone, all addresses of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses(pub Vec<SocketAddr>);

impl Addresses {
    /// All addresses of this machine.
    fn all(port: u16) -> Self {
        let all =
            [SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)), (Ipv6Addr::UNSPECIFIED, port).into()];
        Self(all.to_vec())
    }

    /// The loopback addresses, which only this machine can reach.
    pub fn loopback(port: u16) -> Self {
        let own =
            [SocketAddr::from((Ipv4Addr::LOCALHOST, port)), (Ipv6Addr::LOCALHOST, port).into()];
        Self(own.to_vec())
    }
}

impl FromStr for Addresses {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse() {
            return Ok(Self(vec![address]));
        }
        let (host, port) = text.rsplit_once(':').unwrap_or(("*", text));
        let Ok(port) = port.parse() else {
            return Err(format!(
                "{text:?} is not an address with a port: expected 127.0.0.1:1883, [::1]:1883, localhost:1883, \
                 :1883 for all addresses of this machine, or unix:/path"
            ));
        };
        if host.contains(':') {
            let inside = host.trim_matches(['[', ']']);
            return Err(format!(
                "{text:?}: an IPv6 address needs brackets before the port: [{inside}]:{port}"
            ));
        }
        if matches!(host, "" | "*") {
            return Ok(Self::all(port));
        }
        let found = (host, port).to_socket_addrs().map_err(|error| {
            format!("{text:?}: the host name {host:?} cannot be resolved: {error}; name an address")
        })?;
        let mut addresses = Vec::new();
        for address in found {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        addresses.sort_by_key(SocketAddr::is_ipv6);
        match addresses.is_empty() {
            true => Err(format!("{text:?}: the host name {host:?} has no address")),
            false => Ok(Self(addresses)),
        }
    }
}

/// A text, a port, or a list of them.
pub(super) fn addresses<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<SocketAddr>, D::Error> {
    struct Written;

    impl<'de> de::Visitor<'de> for Written {
        type Value = Vec<SocketAddr>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an address such as \"127.0.0.1:1883\", or a list of addresses")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
            text.parse::<Addresses>().map(|of| of.0).map_err(E::custom)
        }

        fn visit_i64<E: de::Error>(self, port: i64) -> Result<Self::Value, E> {
            self.visit_str(&port.to_string())
        }

        fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            let mut all = Vec::new();
            while let Some(One(addresses)) = list.next_element()? {
                all.extend(addresses);
            }
            Ok(all)
        }
    }

    /// An element of a list.
    struct One(Vec<SocketAddr>);

    impl<'de> serde::Deserialize<'de> for One {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            deserializer.deserialize_any(Written).map(One)
        }
    }

    deserializer.deserialize_any(Written)
}

/// The reason why two addresses cannot both be listened on, if there is one.
pub(super) fn clash(one: &SocketAddr, other: &SocketAddr) -> Option<String> {
    if one.port() != other.port() || one.port() == 0 {
        return None;
    }
    if one == other {
        return Some(format!("{one} is listened on twice; name it once"));
    }
    let covers = |all: &SocketAddr, part: &SocketAddr| {
        all.ip().is_unspecified() && all.is_ipv6() == part.is_ipv6()
    };
    // Other systems prefer the listener of the specific address.
    let is_within = cfg!(target_os = "linux") && (covers(one, other) || covers(other, one));
    is_within.then(|| {
        format!(
            "{one} and {other}: one of them means all addresses of this machine, including the other; \
             list the addresses one by one, or choose another port"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<String>, String> {
        let addresses = text.parse::<Addresses>()?;
        Ok(addresses.0.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn an_address_a_name_or_a_port_are_what_people_mean_by_them() {
        let all = ["0.0.0.0:1883", "[::]:1883"].map(str::to_owned).to_vec();
        for text in ["1883", ":1883", "*:1883"] {
            assert_eq!(read(text), Ok(all.clone()), "{text}");
        }
        assert_eq!(read("[::1]:1"), Ok(vec!["[::1]:1".to_owned()]));
        let localhost = read("localhost:1883").expect("every machine has it");
        assert!(localhost.contains(&"127.0.0.1:1883".to_owned()), "{localhost:?}");
        for (wrong, says) in [
            ("localhost", "not an address with a port"),
            ("", "not an address with a port"),
            ("127.0.0.1:65536", "not an address with a port"),
            ("2001:db8::1:1883", "[2001:db8::1]:1883"),
            ("nobody.invalid:1883", "cannot be resolved"),
        ] {
            let error = read(wrong).expect_err(wrong);
            assert!(error.contains(says), "{wrong}: {error}");
        }
    }

    #[test]
    fn addresses_clash_where_one_is_the_other_or_has_it_within() {
        let clashes = |one: &str, other: &str| {
            let of = |text: &str| text.parse().expect("an address");
            clash(&of(one), &of(other)).is_some()
        };
        assert!(clashes("127.0.0.1:1", "127.0.0.1:1"));
        assert_eq!(clashes("0.0.0.0:1", "127.0.0.1:1"), cfg!(target_os = "linux"));
        assert_eq!(clashes("[::1]:1", "[::]:1"), cfg!(target_os = "linux"));
        assert!(!clashes("127.0.0.1:1", "127.0.0.1:2") && !clashes("127.0.0.1:0", "127.0.0.1:0"));
        assert!(!clashes("127.0.0.1:1", "[::1]:1") && !clashes("0.0.0.0:1", "[::]:1"));
    }
}
