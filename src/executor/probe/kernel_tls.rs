//! Whether the kernel can go on with TLS, found out by using it; and if not, why not.

use std::{fmt, io};

use serde::{Serialize, Serializer};

use crate::config::ExecutorKind as Kind;
use crate::transport::Ciphers;

/// What it can, or why nothing.
#[derive(Debug)]
pub struct KernelTls(Result<Ciphers, String>);

impl KernelTls {
    /// Tries every cipher over loopback.
    pub fn find() -> Self {
        #[cfg(all(feature = "tls", target_os = "linux", target_pointer_width = "64"))]
        let tried = crate::executor::kernel_tls::kernel::try_ciphers();
        #[cfg(not(all(feature = "tls", target_os = "linux", target_pointer_width = "64")))]
        let tried: io::Result<Ciphers> = Err(io::ErrorKind::Unsupported.into());
        Self(match tried {
            Ok(ciphers) if ciphers.is_empty() => {
                Err("this kernel has TLS, and none of the ciphers for it".to_owned())
            }
            Ok(ciphers) => Ok(ciphers),
            Err(error) => Err(why_not(&error)),
        })
    }

    /// What an executor can do with it.
    pub fn find_for(kind: Kind) -> Self {
        match kind {
            Kind::Poll | Kind::Uring => Self::find(),
            _ => Self(Err(format!("the executor {} gives sockets no keys", kind.name()))),
        }
    }

    /// The ciphers it has.
    pub fn ciphers(&self) -> Ciphers {
        self.0.as_ref().copied().unwrap_or_default()
    }
}

fn why_not(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::Unsupported => {
            "it is used on 64-bit Linux alone, by brokers that were built with TLS".to_owned()
        }
        // tcp(7): no such protocol for what lies above TCP.
        io::ErrorKind::NotFound => {
            "this kernel has none, or its module is not loaded (`modprobe tls` as root)".to_owned()
        }
        _ => format!("trying it failed: {error}"),
    }
}

impl fmt::Display for KernelTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Ok(ciphers) => write!(f, "usable; {ciphers}"),
            Err(why) => write!(f, "not usable: {why}"),
        }
    }
}

impl Serialize for KernelTls {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(tag = "state", rename_all = "kebab-case")]
        enum Shown<'a> {
            Usable { ciphers: Vec<&'static str> },
            Unusable { text: &'a str },
        }
        let shown = match &self.0 {
            Ok(ciphers) => Shown::Usable { ciphers: ciphers.names().collect() },
            Err(text) => Shown::Unusable { text },
        };
        shown.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_said_with_what_to_do() {
        let why = why_not(&io::Error::from_raw_os_error(2));
        assert!(why.contains("modprobe tls"), "{why}");
        assert!(why_not(&io::ErrorKind::PermissionDenied.into()).contains("denied"));
        for kind in [Kind::Monoio, Kind::Glommio] {
            let found = KernelTls::find_for(kind);
            assert!(found.ciphers().is_empty() && found.to_string().contains(kind.name()));
        }
    }
}
