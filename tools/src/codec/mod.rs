//! The least of MQTT 3.1.1 and 5.0 that a load generator speaks, from the client's side. It is
//! apart from the broker's codec on purpose: a generator that shared a mistake with the broker
//! would not see it.

mod decode;
mod encode;

pub use decode::{Inbound, decode, frame};
pub use encode::{
    KEEP_ALIVE_S, PublishTemplate, encode_connect, encode_connect_kept, encode_disconnect,
    encode_puback, encode_pubcomp, encode_pubrec, encode_pubrel, encode_subscribe,
};

use serde::Serialize;

/// The protocol version a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, clap::ValueEnum)]
pub enum Version {
    /// MQTT 3.1.1.
    #[value(name = "3.1.1")]
    #[serde(rename = "3.1.1")]
    V311,
    /// MQTT 5.0.
    #[value(name = "5.0", alias = "5")]
    #[serde(rename = "5.0")]
    V5,
}

impl Version {
    /// How people write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::V311 => "3.1.1",
            Self::V5 => "5.0",
        }
    }
}

/// Quality of Service.
#[expect(clippy::enum_variant_names, reason = "the specification calls them so")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Qos {
    /// At most once.
    #[value(name = "0")]
    AtMostOnce,
    /// At least once.
    #[value(name = "1")]
    AtLeastOnce,
    /// Exactly once.
    #[value(name = "2")]
    ExactlyOnce,
}

impl Qos {
    /// Its two bits on the wire.
    pub fn bits(self) -> u8 {
        self as u8
    }
}

impl Serialize for Qos {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(self.bits())
    }
}

#[cfg(test)]
mod tests;
