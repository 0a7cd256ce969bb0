//! Replacement of telemetry in a build without it: there is nothing to export.

use std::sync::Weak;

use tokio::sync::watch::Receiver;

use crate::admin::Admin;
use crate::config::Telemetry;

/// The configuration cannot ask for telemetry.
pub(super) async fn run(_admin: Weak<Admin>, _settings: Receiver<Telemetry>) {}
