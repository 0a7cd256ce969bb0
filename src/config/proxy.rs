//! Networks and proxies in the configuration: an address without a prefix length is a single address.

use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A trusted proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proxy {
    /// A proxy with an address in this network.
    Network(IpNet),
    /// A proxy that connects through a Unix socket: `unix`.
    Unix,
}

impl Proxy {
    /// Whether a connection from this address is the proxy's; none for a Unix socket.
    pub fn is_at(&self, address: Option<IpAddr>) -> bool {
        match (self, address) {
            (Self::Unix, None) => true,
            (Self::Network(network), Some(address)) => network.contains(&address.to_canonical()),
            _ => false,
        }
    }
}

impl FromStr for Proxy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "unix" => Ok(Self::Unix),
            _ => network(text).map(Self::Network).map_err(|what| format!("{what}, nor \"unix\"")),
        }
    }
}

impl<'de> Deserialize<'de> for Proxy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl Serialize for Proxy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Network(network) => serializer.collect_str(network),
            Self::Unix => serializer.serialize_str("unix"),
        }
    }
}

fn network(text: &str) -> Result<IpNet, String> {
    let address = || text.parse::<IpAddr>().map(IpNet::from);
    text.parse().or_else(|_| address()).map_err(|_| {
        format!("{text:?} is neither a network such as 10.0.0.0/8 nor an address such as 10.0.0.1")
    })
}

/// A list of networks and addresses.
pub(super) fn networks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    texts.iter().map(|text| network(text).map_err(de::Error::custom)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;

    #[test]
    fn an_address_without_a_length_is_a_network_of_that_address_wherever_networks_are_listed() {
        for text in [
            "[[listeners]]\nbind = \"127.0.0.1:0\"\nproxy_protocol_from = [\"10.0.0.1\", \"::1\"]\n",
            "[protection]\nexempt = [\"10.0.0.1\", \"::1\", \"10.0.0.0/8\"]\n",
        ] {
            Settings::from_toml(text).expect(text);
            let error = Settings::from_toml(&text.replace("::1", "host")).expect_err(text);
            assert!(
                error.to_string().contains("\"host\" is neither a network such as 10.0.0.0/8"),
                "{error}"
            );
        }
        let proxy: Proxy = "10.0.0.1".parse().expect("an address");
        assert!(proxy.is_at("10.0.0.1".parse().ok()) && !proxy.is_at("10.0.0.2".parse().ok()));
    }
}
