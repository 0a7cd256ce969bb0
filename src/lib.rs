#![doc = include_str!("../ARCHITECTURE.md")]

mod atomic;
pub mod limits;

pub mod clock;
pub mod config;
pub mod log_rate;
pub mod metrics;
pub mod output;
pub mod violation;
pub mod weighed;

pub mod wire;

pub mod gauges;
pub mod message;
#[cfg(any(feature = "tls", feature = "http-hook"))]
pub(crate) mod pem;
pub(crate) mod secret_file;
pub mod send_buffer;
pub mod session;
pub mod storage;
pub(crate) mod text_file;
pub mod transport;
pub mod users;

pub mod engine;

pub mod access;
pub mod pool;
pub mod stats;

pub mod executor;
pub mod platform;
pub mod reload;
pub mod server;
pub mod service;
