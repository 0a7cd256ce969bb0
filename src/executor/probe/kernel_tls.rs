//! Probes kernel TLS by using it, and explains why it is unavailable.

use std::{fmt, io};

use serde::{Serialize, Serializer};

use crate::config::ExecutorKind as Kind;
use crate::transport::Ciphers;

/// The ciphers that kernel TLS supports, or the reason why it is unavailable.
#[derive(Debug)]
pub struct KernelTls(Result<Ciphers, String>);

impl KernelTls {
    /// Tests every cipher over loopback.
    pub fn find() -> Self {
        #[cfg(all(feature = "tls", target_os = "linux", target_pointer_width = "64"))]
        let tried = crate::executor::kernel_tls::kernel::try_ciphers();
        #[cfg(not(all(feature = "tls", target_os = "linux", target_pointer_width = "64")))]
        let tried: io::Result<Ciphers> = Err(io::ErrorKind::Unsupported.into());
        Self(match tried {
            Ok(ciphers) if ciphers.is_empty() => {
                Err("this kernel has TLS but supports none of the ciphers".to_owned())
            }
            Ok(ciphers) => Ok(ciphers),
            Err(error) => Err(why_not(&error)),
        })
    }

    /// Kernel TLS as far as an executor supports it.
    pub fn find_for(kind: Kind) -> Self {
        match kind {
            Kind::Poll | Kind::Uring => Self::find(),
            _ => Self(Err(format!("the executor {} does not support it", kind.name()))),
        }
    }

    /// The supported ciphers.
    pub fn ciphers(&self) -> Ciphers {
        self.0.as_ref().copied().unwrap_or_default()
    }
}

fn why_not(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::Unsupported => {
            "it requires 64-bit Linux and a broker built with TLS".to_owned()
        }
        // The kernel does not know this upper layer protocol (TCP_ULP).
        io::ErrorKind::NotFound => {
            "this kernel has none, or its module is not loaded (`modprobe tls` as root)".to_owned()
        }
        _ => format!("its test failed: {error}"),
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
    fn the_reason_names_the_remedy() {
        let why = why_not(&io::Error::from_raw_os_error(2));
        assert!(why.contains("modprobe tls"), "{why}");
        assert!(why_not(&io::ErrorKind::PermissionDenied.into()).contains("denied"));
        for kind in [Kind::Monoio, Kind::Glommio] {
            let found = KernelTls::find_for(kind);
            assert!(found.ciphers().is_empty() && found.to_string().contains(kind.name()));
        }
    }
}
