//! Why a command could not give its result; knows nothing of what it was measuring.

use std::{fmt, io};

/// What ends a command without a figure.
#[derive(Debug)]
pub enum Error {
    /// What was asked for makes no sense or is not allowed.
    Usage(String),
    /// The system said no to something that was tried.
    Io {
        /// What was tried.
        doing: String,
        /// What the system said.
        source: io::Error,
    },
    /// The broker did not do what the protocol or the run asks of it.
    Broker(String),
}

/// What a fallible step of a command gives back.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// The system's refusal with what was being done.
    pub fn io(doing: impl Into<String>, source: io::Error) -> Self {
        Self::Io { doing: doing.into(), source }
    }

    /// The exit code that tells a script which of the three it was.
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
