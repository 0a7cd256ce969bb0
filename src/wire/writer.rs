//! Encoders of the data types (section 1.5). Knows no packet.

use super::VARIABLE_BYTE_INTEGER_MAX;

pub(super) fn put_two(out: &mut Vec<u8>, value: u16) {
    out.extend_from_slice(&value.to_be_bytes());
}

pub(super) fn put_four(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_be_bytes());
}

pub(super) fn put_bit(out: &mut Vec<u8>, value: bool) {
    out.push(u8::from(value));
}

pub(super) fn put_variable(out: &mut Vec<u8>, value: u32) {
    let (bytes, count) = variable(value as usize);
    out.extend_from_slice(&bytes[..count]);
}

pub(super) fn put_data(out: &mut Vec<u8>, data: &[u8]) {
    put_two(out, length(data));
    out.extend_from_slice(data);
}

pub(super) fn put_text(out: &mut Vec<u8>, text: &str) {
    put_data(out, text.as_bytes());
}

pub(super) fn put_pair(out: &mut Vec<u8>, (name, value): (&str, &str)) {
    put_text(out, name);
    put_text(out, value);
}

/// Appends the output of `write`, preceded by its length in bytes.
pub(super) fn put_counted(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.push(0);
    write(out);
    let (bytes, count) = variable(out.len() - start - 1);
    out[start] = bytes[0];
    if count > 1 {
        // Rare: long and frequent packets have an encoder of their own.
        out.splice(start + 1..start + 1, bytes[1..count].iter().copied());
    }
}

/// The two-byte length of a string or binary data.
///
/// # Panics
/// If the data is longer than 65,535 bytes: the caller has to bound it.
pub(super) fn length(data: &[u8]) -> u16 {
    u16::try_from(data.len()).expect("strings and binary data are at most 65,535 bytes long")
}

/// Encodes a Variable Byte Integer; returns four bytes and how many of them are used.
///
/// # Panics
/// If the value is too large: the caller has to reject a packet of this size.
#[inline]
pub(super) fn variable(value: usize) -> ([u8; 4], usize) {
    assert!(
        value <= VARIABLE_BYTE_INTEGER_MAX,
        "{value} exceeds the maximum of a Variable Byte Integer"
    );
    let mut bytes = [0; 4];
    let mut rest = value;
    let mut count = 0;
    loop {
        bytes[count] = (rest & 0x7F) as u8;
        rest >>= 7;
        if rest == 0 {
            return (bytes, count + 1);
        }
        bytes[count] |= 0x80;
        count += 1;
    }
}

/// Encoded size of a Variable Byte Integer in bytes.
#[inline]
pub(super) const fn variable_len(value: usize) -> usize {
    1 + (value > 127) as usize + (value > 16_383) as usize + (value > 2_097_151) as usize
}

#[cfg(test)]
mod tests {
    use super::super::reader::Reader;
    use super::*;

    #[test]
    fn variable_byte_integers_come_back() {
        for value in [0, 1, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152, 268_435_455] {
            let mut out = Vec::new();
            put_variable(&mut out, value);
            assert_eq!(out.len(), variable_len(value as usize), "{value}");
            assert_eq!(Reader::new(&out).variable(), Ok(value));
        }
    }

    #[test]
    fn a_count_of_any_size_stands_before_what_it_counts() {
        for size in [0, 1, 127, 128, 16_383, 16_384, 2_097_152] {
            let mut out = vec![0xAA];
            put_counted(&mut out, |out| out.resize(out.len() + size, 0x55));
            let mut reader = Reader::new(&out[1..]);
            assert_eq!(reader.variable(), Ok(size as u32));
            assert_eq!(reader.len(), size);
            assert!(reader.rest().iter().all(|&byte| byte == 0x55));
        }
    }

    #[test]
    #[should_panic(expected = "exceeds the maximum of a Variable Byte Integer")]
    fn a_value_beyond_the_largest_is_a_bug() {
        variable(268_435_456);
    }
}
