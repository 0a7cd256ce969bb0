//! Messages in an image: owned, and shared by all deliveries of the same message.

use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};

use crate::storage::record::Content;

/// The content of a stored message.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OwnedContent {
    /// Topic Name.
    pub topic: Box<str>,
    /// Payload.
    #[serde(with = "hex")]
    pub payload: Box<[u8]>,
    /// Encoded properties that are forwarded unaltered.
    #[serde(with = "hex")]
    pub passed_on: Box<[u8]>,
    /// Expiry time, in microseconds since 1970.
    pub expires_us: Option<u64>,
    /// QoS it was published with.
    pub qos: u8,
}

impl From<Content<'_>> for OwnedContent {
    fn from(content: Content<'_>) -> Self {
        Self {
            topic: content.topic.into(),
            payload: content.payload.into(),
            passed_on: content.passed_on.into(),
            expires_us: content.expires_us,
            qos: content.qos,
        }
    }
}

impl OwnedContent {
    /// The content as records have it.
    pub fn borrow(&self) -> Content<'_> {
        let Self { topic, payload, passed_on, expires_us, qos } = self;
        Content { topic, payload, passed_on, expires_us: *expires_us, qos: *qos }
    }
}

/// The content that all deliveries of a message share. In a checkpoint, the content may follow the
/// deliveries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SharedContent(Arc<OnceLock<OwnedContent>>);

impl SharedContent {
    /// A known content.
    pub fn new(content: OwnedContent) -> Self {
        Self(Arc::new(OnceLock::from(content)))
    }

    /// The content, unless its record has not been read yet.
    pub fn get(&self) -> Option<&OwnedContent> {
        self.0.get()
    }

    /// The content: itself if nobody else has it, or a copy; none if its record has not been read yet.
    pub fn into_content(self) -> Option<OwnedContent> {
        Arc::try_unwrap(self.0).map_or_else(|shared| shared.get().cloned(), OnceLock::into_inner)
    }

    /// Identifies the content among all that exist at the same time.
    pub fn address(&self) -> usize {
        Arc::as_ptr(&self.0) as usize
    }

    /// The number of references to the content.
    pub fn sharers(&self) -> usize {
        Arc::strong_count(&self.0)
    }

    /// The record of the content has been read.
    pub(super) fn set(&self, content: OwnedContent) {
        // Each number is used once; in a log that uses one twice, the first content counts.
        let _ = self.0.set(content);
    }
}

/// Bytes as text: two hexadecimal digits each.
mod hex {
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
        let text: String = digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect();
        to.serialize_str(&text)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Box<[u8]>, D::Error> {
        let text = String::deserialize(from)?;
        let wrong = || de::Error::custom("two hexadecimal digits for each byte are expected");
        let digit = |at: u8| char::from(at).to_digit(16).map(|digit| digit as u8);
        let byte = |pair: &[u8]| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        };
        text.as_bytes().chunks(2).map(|pair| byte(pair).ok_or_else(wrong)).collect()
    }
}

/// A shared content is serialized like an owned one.
pub(super) mod shared {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::{OwnedContent, SharedContent};

    pub fn serialize<S: Serializer>(
        content: &Option<SharedContent>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        content.as_ref().and_then(SharedContent::get).serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<SharedContent>, D::Error> {
        Ok(Option::<OwnedContent>::deserialize(from)?.map(SharedContent::new))
    }
}
