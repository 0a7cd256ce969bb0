//! Replacement of webhooks in a build without them. The configuration has none.

use std::sync::Arc;

use crate::config::Settings;
use crate::control::reload::Reload;
use crate::control::stop::Stop;
use crate::control::webhooks::{Status, Tap};

/// No webhooks.
#[derive(Clone, Debug, Default)]
pub struct Webhooks;

/// Nothing is wrong.
pub fn check(_settings: &Settings) -> Result<(), String> {
    Ok(())
}

impl Webhooks {
    /// No webhooks.
    pub fn open(_settings: &Settings, _reload: &Reload, _stop: &Stop) -> Result<Self, String> {
        Ok(Self)
    }

    /// None.
    pub fn taps(&self) -> Arc<[Tap]> {
        Arc::default()
    }

    /// None.
    pub fn status(&self) -> Vec<Status> {
        Vec::new()
    }

    /// Nothing to do.
    pub fn start_clock(&self) {}

    /// Nothing to do.
    pub fn end(&self) {}
}
