//! A cursor over received bytes with bounds checks.

use super::{CLASS_MAX, Fault, TEXT_BYTES_MAX};

/// The bytes not read yet. Each method takes a field from the front, or returns what is wrong with it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub fn len(&self) -> usize {
        self.rest.len()
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(Fault::Short)?;
        self.rest = rest;
        Ok(*taken)
    }

    #[inline]
    pub fn byte(&mut self) -> Result<u8, Fault> {
        self.array::<1>().map(|[byte]| byte)
    }

    #[inline]
    pub fn fixed_u16(&mut self) -> Result<u16, Fault> {
        self.array().map(u16::from_le_bytes)
    }

    #[inline]
    pub fn fixed_u64(&mut self) -> Result<u64, Fault> {
        self.array().map(u64::from_le_bytes)
    }

    #[inline]
    pub fn fixed_u128(&mut self) -> Result<u128, Fault> {
        self.array().map(u128::from_le_bytes)
    }

    /// LEB128.
    #[inline]
    pub fn number(&mut self) -> Result<u64, Fault> {
        let first = self.byte()?;
        if first < 0x80 { Ok(first.into()) } else { self.longer_number(first) }
    }

    fn longer_number(&mut self, first: u8) -> Result<u64, Fault> {
        let mut number = u64::from(first & 0x7F);
        for shift in (7..64).step_by(7) {
            let byte = self.byte()?;
            // Of the tenth byte one bit is left.
            if shift == 63 && byte > 1 {
                break;
            }
            number |= u64::from(byte & 0x7F) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(Fault::Number)
    }

    #[inline]
    pub fn number_up_to(&mut self, most: u64, field: &'static str) -> Result<u64, Fault> {
        let number = self.number()?;
        if number <= most { Ok(number) } else { Err(Fault::Value(field)) }
    }

    pub fn class(&mut self) -> Result<u8, Fault> {
        let class = self.byte()?;
        if class <= CLASS_MAX { Ok(class) } else { Err(Fault::Value("class")) }
    }

    /// Bytes with their length before them.
    #[inline]
    pub fn bytes(&mut self) -> Result<&'a [u8], Fault> {
        let length = usize::try_from(self.number()?).map_err(|_| Fault::Short)?;
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Fault::Short)?;
        self.rest = rest;
        Ok(taken)
    }

    #[inline]
    pub fn bytes_up_to(&mut self, most: usize, field: &'static str) -> Result<&'a [u8], Fault> {
        let bytes = self.bytes()?;
        if bytes.len() <= most { Ok(bytes) } else { Err(Fault::Value(field)) }
    }

    #[inline]
    pub fn text(&mut self, field: &'static str) -> Result<&'a str, Fault> {
        let bytes = self.bytes_up_to(TEXT_BYTES_MAX, field)?;
        str::from_utf8(bytes).map_err(|_| Fault::Text(field))
    }
}
