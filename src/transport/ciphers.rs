//! Ciphers of kernel TLS. Knows neither TLS nor the kernel.

use std::fmt;

/// A cipher of TLS records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Cipher {
    /// AES-128-GCM.
    Aes128Gcm,
    /// AES-256-GCM.
    Aes256Gcm,
    /// ChaCha20-Poly1305.
    Chacha20Poly1305,
}

impl Cipher {
    /// All ciphers that the broker supports.
    pub const ALL: [Self; 3] = [Self::Aes128Gcm, Self::Aes256Gcm, Self::Chacha20Poly1305];

    /// Name (RFC 5116, RFC 8439).
    pub fn name(self) -> &'static str {
        match self {
            Self::Aes128Gcm => "AES-128-GCM",
            Self::Aes256Gcm => "AES-256-GCM",
            Self::Chacha20Poly1305 => "ChaCha20-Poly1305",
        }
    }
}

/// A set of ciphers; empty if kernel TLS is not used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ciphers(u8);

impl Ciphers {
    /// Adds a cipher.
    pub fn add(&mut self, cipher: Cipher) {
        self.0 |= 1 << cipher as u8;
    }

    /// Whether the set contains a cipher.
    pub fn has(self, cipher: Cipher) -> bool {
        self.0 & 1 << cipher as u8 != 0
    }

    /// Whether the set is empty.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Names of the ciphers.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Cipher::ALL.into_iter().filter(move |cipher| self.has(*cipher)).map(Cipher::name)
    }
}

impl fmt::Display for Ciphers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, name) in self.names().enumerate() {
            let comma = if place > 0 { ", " } else { "" };
            write!(f, "{comma}{name}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ciphers_are_those_that_were_taken_in() {
        let mut some = Ciphers::default();
        assert!(some.is_empty());
        some.add(Cipher::Chacha20Poly1305);
        some.add(Cipher::Aes128Gcm);
        assert!(!some.has(Cipher::Aes256Gcm) && some.has(Cipher::Aes128Gcm));
        assert_eq!(some.to_string(), "AES-128-GCM, ChaCha20-Poly1305");
    }
}
