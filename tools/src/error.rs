//! Errors of a command without a result. Does not depend on what was measured.

use std::{fmt, io};

/// The cause for a missing result.
#[derive(Debug)]
pub enum Error {
    /// The request is invalid or not allowed.
    Usage(String),
    /// A system call failed.
    Io {
        /// The attempted action.
        doing: String,
        /// The system's error.
        source: io::Error,
    },
    /// The broker violated the protocol, or did not do what the run requires.
    Broker(String),
}

/// The result of a fallible step.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// A system error with the attempted action.
    pub fn io(doing: impl Into<String>, source: io::Error) -> Self {
        Self::Io { doing: doing.into(), source }
    }

    /// The exit code, which distinguishes the three causes.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Io { .. } | Self::Broker(_) => 3,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(what) | Self::Broker(what) => f.write_str(what),
            Self::Io { doing, source } => write!(f, "{doing}: {source}"),
        }
    }
}

impl std::error::Error for Error {}
