//! A cursor over received bytes with bounds checks. Knows data types, but no packet.

use crate::wire::violation::Violation;

/// The bytes not read yet. Each method takes one value of the data type in its name (section 1.5)
/// from the front, or returns the violation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Number of bytes left, from which positions in a property section are computed.
    pub(super) const fn len(&self) -> usize {
        self.rest.len()
    }

    /// All bytes left.
    pub(super) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Checks that the packet ends here.
    pub(super) fn finish(&self) -> Result<(), Violation> {
        if self.rest.is_empty() { Ok(()) } else { Err(Violation::TrailingBytes) }
    }

    #[inline]
    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], Violation> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(Violation::PacketTooShort)?;
        self.rest = rest;
        Ok(taken)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Violation> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(Violation::PacketTooShort)?;
        self.rest = rest;
        Ok(*taken)
    }

    #[inline]
    pub(super) fn byte(&mut self) -> Result<u8, Violation> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// Reads a byte that has to be 0 or 1.
    pub(super) fn bit(&mut self) -> Result<bool, Violation> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Violation::PropertyNotBoolean),
        }
    }

    #[inline]
    pub(super) fn two(&mut self) -> Result<u16, Violation> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn four(&mut self) -> Result<u32, Violation> {
        self.array().map(u32::from_be_bytes)
    }

    /// Reads a Variable Byte Integer, which has to be encoded in the fewest bytes.
    #[inline]
    pub(super) fn variable(&mut self) -> Result<u32, Violation> {
        let mut value = 0;
        for place in 0..4 {
            let byte = self.byte()?;
            value |= u32::from(byte & 0x7F) << (7 * place);
            if byte & 0x80 == 0 {
                // A last byte of 0 is redundant. [MQTT-1.5.5-1]
                let is_minimal = byte != 0 || place == 0;
                return if is_minimal {
                    Ok(value)
                } else {
                    Err(Violation::VariableByteIntegerNotMinimal)
                };
            }
        }
        Err(Violation::VariableByteIntegerTooLong)
    }

    #[inline]
    pub(super) fn data(&mut self) -> Result<&'a [u8], Violation> {
        let length = self.two()?;
        self.take(usize::from(length))
    }

    #[inline]
    pub(super) fn text(&mut self) -> Result<&'a str, Violation> {
        // The standard library rejects surrogates and overlong encodings too. [MQTT-1.5.4-1]
        let text = str::from_utf8(self.data()?).map_err(|_| Violation::StringNotUtf8)?;
        if has_byte(text, |byte| byte == 0) {
            return Err(Violation::StringHasNull); // [MQTT-1.5.4-2]
        }
        Ok(text)
    }

    pub(super) fn pair(&mut self) -> Result<(&'a str, &'a str), Violation> {
        Ok((self.text()?, self.text()?))
    }
}

/// Whether a Topic Name contains a character that is allowed in Topic Filters only.
#[inline]
pub(super) fn has_wildcard(topic: &str) -> bool {
    has_byte(topic, |byte| (byte == b'+') | (byte == b'#'))
}

/// Without an early exit, the compiler vectorizes the loop.
#[inline]
fn has_byte(text: &str, is_it: impl Fn(u8) -> bool) -> bool {
    text.bytes().fold(false, |found, byte| found | is_it(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mqtt_1_5_5_1_variable_byte_integers_are_minimal() {
        let cases: &[(&[u8], Result<u32, Violation>)] = &[
            (&[0x00], Ok(0)),
            (&[0x7F], Ok(127)),
            (&[0x80, 0x01], Ok(128)),
            (&[0xFF, 0x7F], Ok(16_383)),
            (&[0x80, 0x80, 0x01], Ok(16_384)),
            (&[0xFF, 0xFF, 0x7F], Ok(2_097_151)),
            (&[0x80, 0x80, 0x80, 0x01], Ok(2_097_152)),
            (&[0xFF, 0xFF, 0xFF, 0x7F], Ok(268_435_455)),
            (&[0x80, 0x00], Err(Violation::VariableByteIntegerNotMinimal)),
            (&[0xFF, 0x80, 0x00], Err(Violation::VariableByteIntegerNotMinimal)),
            (&[0x80, 0x80, 0x80, 0x00], Err(Violation::VariableByteIntegerNotMinimal)),
            (&[0x80, 0x80, 0x80, 0x80], Err(Violation::VariableByteIntegerTooLong)),
            (&[0x80, 0x80, 0x80, 0x80, 0x01], Err(Violation::VariableByteIntegerTooLong)),
            (&[0x80, 0x80], Err(Violation::PacketTooShort)),
            (&[], Err(Violation::PacketTooShort)),
        ];
        for &(bytes, expected) in cases {
            assert_eq!(Reader::new(bytes).variable(), expected, "{bytes:02X?}");
        }
    }

    #[test]
    fn mqtt_1_5_4_1_and_2_strings_are_utf8_without_null() {
        let cases: &[(&[u8], Result<&str, Violation>)] = &[
            (&[0, 0], Ok("")),
            (b"\0\x01A", Ok("A")),
            // U+2A6D4 as in the specification's figure 1-1.
            (&[0, 5, 0x41, 0xF0, 0xAA, 0x9B, 0x94], Ok("A\u{2A6D4}")),
            // U+FEFF is a character like any other. [MQTT-1.5.4-3]
            (&[0, 3, 0xEF, 0xBB, 0xBF], Ok("\u{FEFF}")),
            // Control characters and non-characters may be rejected, but need not be.
            (&[0, 1, 0x1F], Ok("\u{1F}")),
            (&[0, 3, 0xEF, 0xBF, 0xBF], Ok("\u{FFFF}")),
            (&[0, 1, 0], Err(Violation::StringHasNull)),
            (b"\0\x03a\0b", Err(Violation::StringHasNull)),
            (&[0, 1, 0xFF], Err(Violation::StringNotUtf8)),
            (&[0, 2, 0xC0, 0x80], Err(Violation::StringNotUtf8)), // overlong U+0000
            (&[0, 3, 0xED, 0xA0, 0x80], Err(Violation::StringNotUtf8)), // U+D800
            (&[0, 3, 0xED, 0xBF, 0xBF], Err(Violation::StringNotUtf8)), // U+DFFF
            (&[0, 4, 0xF4, 0x90, 0x80, 0x80], Err(Violation::StringNotUtf8)), // U+110000
            (&[0, 1, 0xE2], Err(Violation::StringNotUtf8)),       // truncated character
            (&[0, 2, 0x41], Err(Violation::PacketTooShort)),
            (&[0], Err(Violation::PacketTooShort)),
        ];
        for &(bytes, expected) in cases {
            assert_eq!(Reader::new(bytes).text(), expected, "{bytes:02X?}");
        }
    }
}
