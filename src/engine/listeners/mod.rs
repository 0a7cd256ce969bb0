//! What lies between the socket and MQTT on a listener: TLS handshakes and TLS that the kernel takes over.

pub(in crate::engine) mod handshakes;
pub(in crate::engine) mod kernel_tls;
