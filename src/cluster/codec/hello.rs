//! The first message of a node to another one, whose layout never changes.

use std::fmt;

use super::{VERSION, VERSION_OLDEST};

/// The byte before a hello; frames begin with their version, which is never zero.
const MARK: u8 = 0;

/// Mark, versions, a reserved byte, incarnation, clock, checksum.
const BYTES: usize = 4 + 8 + 8 + 4;

/// The versions of lanes that a node understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    /// The oldest.
    pub lowest: u8,
    /// The latest.
    pub highest: u8,
}

impl Versions {
    /// Those of this program.
    pub const OWN: Self = Self { lowest: VERSION_OLDEST, highest: VERSION };

    /// The version that two nodes speak: the latest that both understand, if there is one.
    pub fn common(self, other: Self) -> Option<u8> {
        let version = self.highest.min(other.highest);
        (version >= self.lowest.max(other.lowest)).then_some(version)
    }
}

/// What a node says before all frames, and again until the other node has said its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The versions of lanes that the sender understands.
    pub versions: Versions,
    /// Which start of the sender this is: each is higher than the one before.
    pub incarnation: u64,
    /// The sender's time of day, in microseconds since 1970.
    pub clock_us: u64,
}

impl Hello {
    /// Whether a message from another node is a hello, and not a frame.
    pub fn is_hello(bytes: &[u8]) -> bool {
        bytes.first() == Some(&MARK)
    }

    /// The message.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(BYTES);
        out.extend_from_slice(&[MARK, self.versions.lowest, self.versions.highest, 0]);
        out.extend_from_slice(&self.incarnation.to_le_bytes());
        out.extend_from_slice(&self.clock_us.to_le_bytes());
        out.extend_from_slice(&crc32fast::hash(&out).to_le_bytes());
        out
    }

    /// Reads the message. A later program may have added fields before the checksum: they are ignored.
    pub fn decode(bytes: &[u8]) -> Result<Self, HelloError> {
        let (fields, sum) = bytes.split_last_chunk::<4>().ok_or(HelloError::Damaged)?;
        if crc32fast::hash(fields) != u32::from_le_bytes(*sum) {
            return Err(HelloError::Damaged);
        }
        let (&[mark, lowest, highest, _], rest) =
            fields.split_first_chunk().ok_or(HelloError::Damaged)?;
        let (incarnation, rest) = rest.split_first_chunk().ok_or(HelloError::Damaged)?;
        let clock = rest.first_chunk().ok_or(HelloError::Damaged)?;
        if mark != MARK || lowest == 0 || lowest > highest {
            return Err(HelloError::Damaged);
        }
        Ok(Self {
            versions: Versions { lowest, highest },
            incarnation: u64::from_le_bytes(*incarnation),
            clock_us: u64::from_le_bytes(*clock),
        })
    }

    /// The version that the sender and this program speak.
    pub fn common_version(&self) -> Result<u8, HelloError> {
        Versions::OWN.common(self.versions).ok_or(HelloError::Versions(self.versions))
    }
}

/// A hello after which no lane can begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HelloError {
    /// Incomplete or damaged on the way.
    Damaged,
    /// The other node understands these versions, and no version of this program.
    Versions(Versions),
}

impl fmt::Display for HelloError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged => f.write_str("the hello of the other node is damaged"),
            Self::Versions(Versions { lowest, highest }) => write!(
                f,
                "the other node understands versions {lowest} to {highest} of lanes, this one {VERSION_OLDEST} to \
                 {VERSION}: upgrade the older one, one release at a time"
            ),
        }
    }
}

impl std::error::Error for HelloError {}
