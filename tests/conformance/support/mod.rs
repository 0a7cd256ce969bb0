//! A broker process, and a client that shares no code with the broker, so that no mistake is made
//! on both sides.

mod broker;
mod client;
mod decode;
mod encode;
mod packet;
#[allow(dead_code, reason = "not used by all tests that share this module")]
pub mod reason;

pub use broker::{Broker, settle};
pub(crate) use client::property;
pub use client::{Client, SILENCE, user_properties};
pub use encode::{Bytes, Connect, Encode, Subscribe, Unsubscribe, Will, frame, string};
pub use packet::{Ack, Auth, Connack, Disconnect, Packet, Property, Publish, Suback, Unsuback};

/// A protocol version, by its level in CONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    V31 = 3,
    V311 = 4,
    V5 = 5,
}

pub use Version::{V5, V31, V311};

/// Runs a test with 3.1.1 and 5.0.
pub fn for_versions(body: impl Fn(Version)) {
    for_each_version(&[V311, V5], body);
}

/// Runs a test with 3.1, 3.1.1 and 5.0.
pub fn for_all_versions(body: impl Fn(Version)) {
    for_each_version(&[V31, V311, V5], body);
}

/// Runs a test with each of `versions`; a failure names the version.
pub fn for_each_version(versions: &[Version], body: impl Fn(Version)) {
    struct Named(Version);
    impl Drop for Named {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("under {:?}", self.0);
            }
        }
    }
    for &version in versions {
        let _named = Named(version);
        body(version);
    }
}
