//! The keys of a connection for kernel TLS. rustls clears their memory when they are dropped.

use std::fmt;

use rustls::server::UnbufferedServerConnection;
use rustls::{
    CipherSuite, ConnectionTrafficSecrets, Error, ExtractedSecrets, ProtocolVersion,
    SupportedCipherSuite,
};

use crate::transport::Cipher;

/// The keys of both directions.
pub struct Keys {
    version: ProtocolVersion,
    secrets: ExtractedSecrets,
}

/// The key of one direction, and its record number.
pub struct Key<'a> {
    /// Protocol version: 0x0303 for TLS 1.2, 0x0304 for 1.3.
    pub version: u16,
    /// Cipher.
    pub cipher: Cipher,
    /// The key, with the length of the cipher.
    pub key: &'a [u8],
    /// Salt and initialization vector of the nonces.
    pub iv: [u8; 12],
    /// Number of the next record.
    pub sequence: u64,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("version", &self.version).finish_non_exhaustive()
    }
}

impl Keys {
    /// The keys of a connection that is between two records and has no output pending.
    pub(super) fn of(connection: UnbufferedServerConnection) -> Result<Self, Error> {
        let version = connection.protocol_version().ok_or(Error::HandshakeNotComplete)?;
        // The rest of the state could derive new keys, which kernels before 6.14 do not accept.
        let (secrets, _) = connection.dangerous_into_kernel_connection()?;
        Ok(Self { version, secrets })
    }

    /// The key for sending.
    ///
    /// With AES-GCM of TLS 1.2, a record has an explicit nonce of eight bytes, which the sender may choose but
    /// must never repeat. rustls uses bytes of the handshake XOR the record number; the kernel counts up from the
    /// given value. The kernel starts 2^63 away, so that the two never meet.
    pub fn sending(&self) -> Key<'_> {
        let mut key = self.key(&self.secrets.tx);
        if self.version == ProtocolVersion::TLSv1_2 && key.cipher != Cipher::Chacha20Poly1305 {
            key.iv[4] ^= 0x80;
        }
        key
    }

    /// The key for receiving.
    pub fn receiving(&self) -> Key<'_> {
        self.key(&self.secrets.rx)
    }

    fn key<'a>(&self, (sequence, secrets): &'a (u64, ConnectionTrafficSecrets)) -> Key<'a> {
        let (cipher, key, iv) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (Cipher::Aes128Gcm, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (Cipher::Aes256Gcm, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => {
                (Cipher::Chacha20Poly1305, key, iv)
            }
            _ => unreachable!("the cipher suite was checked"),
        };
        Key {
            version: self.version.into(),
            cipher,
            key: key.as_ref(),
            iv: iv.as_ref().try_into().expect("all ciphers of TLS here have twelve bytes"),
            sequence: *sequence,
        }
    }
}

/// The cipher of a suite; none if it is unknown.
pub(super) fn cipher_of(suite: SupportedCipherSuite) -> Option<Cipher> {
    match suite.suite() {
        CipherSuite::TLS13_AES_128_GCM_SHA256
        | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
        | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => Some(Cipher::Aes128Gcm),
        CipherSuite::TLS13_AES_256_GCM_SHA384
        | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
        | CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => Some(Cipher::Aes256Gcm),
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256
        | CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
        | CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => {
            Some(Cipher::Chacha20Poly1305)
        }
        _ => None,
    }
}
