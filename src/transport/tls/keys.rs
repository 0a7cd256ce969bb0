//! The keys of a connection whose TLS goes on in the kernel: what of rustls' state a kernel has to
//! know. rustls clears their memory when they are dropped.

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

/// The key of one direction, and where it stands.
pub struct Key<'a> {
    /// As it stands in records: 0x0303 for TLS 1.2, 0x0304 for 1.3.
    pub version: u16,
    /// What it is for.
    pub cipher: Cipher,
    /// The key itself, as long as the cipher has it.
    pub key: &'a [u8],
    /// What nonces are made of.
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
    /// Of a connection that is between two records and has nothing to say.
    pub(super) fn of(connection: UnbufferedServerConnection) -> Result<Self, Error> {
        let version = connection.protocol_version().ok_or(Error::HandshakeNotComplete)?;
        // The rest of rustls' state could give new keys, which no kernel before 6.14 takes.
        let (secrets, _) = connection.dangerous_into_kernel_connection()?;
        Ok(Self { version, secrets })
    }

    /// By what is sent from now on.
    ///
    /// With AES-GCM of TLS 1.2 a record says eight bytes of its nonce, which whoever sends may choose
    /// but never twice. rustls takes those of the handshake XOR the record's number; a kernel counts
    /// up from those it is given. It begins 2^63 away, so that they do not meet.
    pub fn sending(&self) -> Key<'_> {
        let mut key = self.key(&self.secrets.tx);
        if self.version == ProtocolVersion::TLSv1_2 && key.cipher != Cipher::Chacha20Poly1305 {
            key.iv[4] ^= 0x80;
        }
        key
    }

    /// By what is received from now on.
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
            _ => unreachable!("its suite was looked at"),
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

/// The cipher of a suite; none of one that nobody here has heard of.
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
