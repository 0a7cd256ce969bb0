//! The part of MQTT 3.1.1 and 5.0 that a load generator needs, from the client's side. Deliberately
//! separate from the broker's codec: a generator that shares a mistake with the broker would not
//! detect it.

mod decode;
mod encode;

pub use decode::{Inbound, decode, frame};
pub use encode::{
    KEEP_ALIVE_S, PublishTemplate, Session, encode_connect, encode_disconnect, encode_pingreq,
    encode_puback, encode_pubcomp, encode_pubrec, encode_pubrel, encode_retained_removal,
    encode_subscribe, encode_unsubscribe,
};

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

/// Protocol version.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum,
)]
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
    /// The version in text.
    pub fn name(self) -> &'static str {
        match self {
            Self::V311 => "3.1.1",
            Self::V5 => "5.0",
        }
    }
}

/// Quality of Service.
#[expect(clippy::enum_variant_names, reason = "names of the specification")]
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
    /// The two bits in the packet.
    pub fn bits(self) -> u8 {
        self as u8
    }
}

impl Serialize for Qos {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(self.bits())
    }
}

impl<'de> Deserialize<'de> for Qos {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u8::deserialize(deserializer)? {
            0 => Ok(Self::AtMostOnce),
            1 => Ok(Self::AtLeastOnce),
            2 => Ok(Self::ExactlyOnce),
            bits => Err(D::Error::custom(format!("QoS {bits} does not exist"))),
        }
    }
}

#[cfg(test)]
mod tests;
