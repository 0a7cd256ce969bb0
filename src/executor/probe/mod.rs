//! Probes of kernel features, made by using them: io_uring and kernel TLS.

#[cfg(all(feature = "uring", target_os = "linux", target_pointer_width = "64"))]
pub mod io_uring;
pub mod kernel_tls;

use std::fmt;

use serde::{Serialize, Serializer};

use crate::config::Uring;

/// Whether this build can use io_uring at all. If not, its absence is not worth a message.
pub const MAY_HAVE_IO_URING: bool =
    cfg!(all(feature = "uring", target_os = "linux", target_pointer_width = "64"));

/// The optional features of io_uring, or the reason why it is unavailable.
#[derive(Debug)]
pub struct Availability(Result<Abilities, Unavailable>);

#[cfg(all(feature = "uring", target_os = "linux", target_pointer_width = "64"))]
pub use io_uring::{Abilities, Unavailable};

/// Stubs for builds without io_uring.
#[cfg(not(all(feature = "uring", target_os = "linux", target_pointer_width = "64")))]
pub use elsewhere::{Abilities, Unavailable};

#[cfg(not(all(feature = "uring", target_os = "linux", target_pointer_width = "64")))]
mod elsewhere {
    /// Never constructed: io_uring is not built in.
    #[derive(Clone, Copy, Debug)]
    pub struct Abilities {
        /// Not supported.
        pub defer_taskrun: bool,
        /// Not supported.
        pub incremental: bool,
        /// Not supported.
        pub closes_direct_descriptors: bool,
    }

    /// io_uring is not built in.
    #[derive(Debug)]
    pub struct Unavailable;

    impl Unavailable {
        /// A machine-readable name of the reason.
        pub fn word(&self) -> &'static str {
            "not-built-in"
        }
    }

    impl std::fmt::Display for Unavailable {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str(match cfg!(all(target_os = "linux", target_pointer_width = "64")) {
                true => "this broker was built without it (cargo feature `uring`)",
                false => "it requires 64-bit Linux",
            })
        }
    }
}

/// Probes io_uring for `sockets_max` sockets.
#[cfg_attr(
    not(all(feature = "uring", target_os = "linux", target_pointer_width = "64")),
    expect(unused_variables, reason = "there is nothing to probe")
)]
pub fn availability(uring: &Uring, sockets_max: u32) -> Availability {
    #[cfg(all(feature = "uring", target_os = "linux", target_pointer_width = "64"))]
    return Availability(io_uring::probe(uring, sockets_max));
    #[cfg(not(all(feature = "uring", target_os = "linux", target_pointer_width = "64")))]
    return Availability(Err(Unavailable));
}

impl Availability {
    /// Whether io_uring can be used.
    pub fn is_there(&self) -> bool {
        self.0.is_ok()
    }

    /// Whether io_uring can be used and closes direct descriptors immediately.
    pub fn closes_direct_descriptors(&self) -> bool {
        self.0.as_ref().is_ok_and(|abilities| abilities.closes_direct_descriptors)
    }

    /// The reason why io_uring is unavailable.
    pub fn why_not(&self) -> Option<&Unavailable> {
        self.0.as_ref().err()
    }
}

impl fmt::Display for Availability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let has = |has, what: &str| format!("{}{what}", if has { "" } else { "no " });
        match &self.0 {
            Ok(Abilities { defer_taskrun, incremental, closes_direct_descriptors, .. }) => write!(
                f,
                "usable; {}, {}, {}",
                has(*defer_taskrun, "deferred task work"),
                has(*incremental, "incremental buffers"),
                has(*closes_direct_descriptors, "direct descriptors")
            ),
            Err(why) => write!(f, "not usable: {why}"),
        }
    }
}

impl Serialize for Availability {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(tag = "state", rename_all = "kebab-case")]
        enum Shown<'a> {
            Usable { defer_taskrun: bool, incremental_buffers: bool },
            Unusable { because: &'a str, text: String },
        }
        let shown = match &self.0 {
            Ok(Abilities { defer_taskrun, incremental, .. }) => {
                Shown::Usable { defer_taskrun: *defer_taskrun, incremental_buffers: *incremental }
            }
            Err(why) => Shown::Unusable { because: why.word(), text: why.to_string() },
        };
        shown.serialize(serializer)
    }
}
