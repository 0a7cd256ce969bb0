//! An immutable string of 24 bytes that stores short texts inline. Knows nothing of topics.

use crate::slab::heap;

/// Length of the longest text that is stored inline.
const SHORT_BYTES_MAX: usize = 22;

/// Most levels and many whole topics are short: stored inline, they need no allocation, and a
/// comparison causes no second cache miss.
#[derive(Debug)]
pub struct Text(Kept);

#[derive(Debug)]
enum Kept {
    Short { len: u8, bytes: [u8; SHORT_BYTES_MAX] },
    Long(Box<str>),
}

impl Text {
    /// Copies a text.
    pub fn new(text: &str) -> Self {
        if text.len() > SHORT_BYTES_MAX {
            return Self(Kept::Long(text.into()));
        }
        let mut bytes = [0; SHORT_BYTES_MAX];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        Self(Kept::Short { len: text.len() as u8, bytes })
    }

    /// Bytes of memory allocated outside the value.
    pub(crate) fn heap_bytes(&self) -> usize {
        match &self.0 {
            Kept::Short { .. } => 0,
            Kept::Long(text) => heap(text.len()),
        }
    }

    /// The bytes of the text.
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Kept::Short { len, bytes } => &bytes[..usize::from(*len)],
            Kept::Long(text) => text.as_bytes(),
        }
    }

    /// The text as a string slice. Checks that the bytes are UTF-8: where bytes are enough, [`Self::as_bytes`] is
    /// cheaper.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Kept::Long(text) => text,
            Kept::Short { .. } => {
                std::str::from_utf8(self.as_bytes()).expect("the bytes of a str are UTF-8")
            }
        }
    }
}

impl PartialEq<str> for Text {
    fn eq(&self, other: &str) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_long_texts_survive_storage() {
        assert_eq!(size_of::<Text>(), 24);
        for len in [0, 1, SHORT_BYTES_MAX - 1, SHORT_BYTES_MAX, SHORT_BYTES_MAX + 1, 500] {
            let text = "é".repeat(len / 2) + &"x"[..len % 2];
            assert_eq!(Text::new(&text).as_str(), text);
            assert!(Text::new(&text) == *text.as_str());
            let is_short = matches!(Text::new(&text).0, Kept::Short { .. });
            assert_eq!(is_short, len <= SHORT_BYTES_MAX);
        }
    }
}
