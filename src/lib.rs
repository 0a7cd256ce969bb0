#![doc = include_str!("../ARCHITECTURE.md")]

pub mod base;

pub mod wire;

pub mod config;

pub mod resources;

pub mod message;

pub mod transport;

pub mod storage;

pub mod session;

pub mod control;

pub mod engine;

pub mod mosquitto;

pub mod access;
#[cfg(feature = "bridge")]
pub mod bridges;
#[cfg(not(feature = "bridge"))]
#[path = "bridges/absent.rs"]
pub mod bridges;
#[cfg(feature = "cluster")]
pub mod cluster;
pub mod stats;
#[cfg(feature = "webhooks")]
pub mod webhooks;
#[cfg(not(feature = "webhooks"))]
#[path = "webhooks/absent.rs"]
pub mod webhooks;

#[cfg(feature = "admin")]
pub mod admin;
pub mod executor;
pub mod platform;
pub mod server;
pub mod service;

pub mod cli;
