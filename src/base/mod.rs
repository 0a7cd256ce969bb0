//! Foundation: time, identifiers, limits, counters, buffers, the log. Knows nothing of MQTT.

pub(crate) mod atomic;
pub mod clock;
pub mod compact_address;
pub mod host_name;
#[cfg(feature = "http-hook")]
pub(crate) mod http;
pub mod identity;
pub mod ids;
pub mod latencies;
pub mod limits;
pub mod log_format;
pub mod log_rate;
pub mod log_sink;
pub mod log_topics;
pub mod metrics;
pub mod notifier;
pub mod output;
pub mod part;
#[cfg(any(feature = "tls", feature = "http-hook"))]
pub(crate) mod pem;
pub mod pool;
pub(crate) mod secret_file;
pub mod send_buffer;
pub(crate) mod text_file;
pub mod timer_wheel;
pub mod waker;
