//! Changes of the settings of the cores while they run.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::plan;
use crate::config::Settings;
use crate::control::reload::{self, Reload};
use crate::control::stop::Stop;

/// Registers the settings of the engines. `connections_max` is how many connections the tables of the cores have room
/// for.
pub(super) fn register(
    settings: &Settings,
    connections_max: &Arc<AtomicU32>,
    reload: &Reload,
    stop: &Stop,
) {
    let (stop, room) = (stop.clone(), Arc::clone(connections_max));
    let takes_all = settings.limits.connections_max == 0;
    let in_tables = Arc::clone(connections_max);
    reload.needs_restart_if("limits.connections_max", move |wanted| {
        match wanted.limits.connections_max {
            0 => !takes_all,
            asked => asked > in_tables.load(Relaxed),
        }
    });
    reload.on_change("settings of the cores", move |change| {
        let parts = |of: &Settings| {
            let log = (of.log.connections, of.log.topics);
            let access = of.access.binds_sessions();
            (of.limits.clone(), of.mqtt.clone(), of.protection.clone(), access, log)
        };
        if parts(change.running) == parts(change.wanted) {
            return Ok(None);
        }
        let limits = plan::resolve(change.wanted, room.load(Relaxed));
        let settings = Settings { limits, ..change.wanted.clone() };
        let stop = stop.clone();
        Ok(Some(Box::new(move || match stop.cores() {
            Some(cores) => reload::configure(cores, &settings),
            None => Err("the cores do not run yet; reload again".to_owned()),
        })))
    });
}
