//! Files that bridges need: checked before a start and a reload, and read again for each connection. What a reload
//! changes.

use crate::base::secret_file;
use crate::bridges::Bridges;
use crate::config::{Bridge, ConfigError, keys};
use crate::control::reload::Reload;
#[cfg(feature = "tls")]
use crate::transport::tls::ClientTlsConfig;

/// Checks that the files of every bridge are there and have what they should have. The error names the bridge, the key
/// and the file.
pub(super) fn check(bridges: &[Bridge]) -> Result<(), String> {
    bridges.iter().try_for_each(|bridge| {
        check_bridge(bridge)
            .map_err(|what| format!("[[bridges]] name = \"{}\": {what}", bridge.name))
    })
}

/// Registers the bridges: a reload makes them those of the other settings. Files of a bridge that does not change are not
/// read.
pub(super) fn register(bridges: &Bridges, reload: &Reload) {
    let bridges = bridges.clone();
    reload.on_change("bridges", move |change| {
        let (running, wanted) = (&change.running.bridges, &change.wanted.bridges);
        if running == wanted && !bridges.is_behind() {
            return Ok(None);
        }
        for (number, bridge) in wanted.iter().enumerate().filter(|(_, of)| !running.contains(of)) {
            check(std::slice::from_ref(bridge)).map_err(|what| {
                let key = keys::of_table(keys::BRIDGES, number);
                ConfigError::of_key(Some(&key), what)
            })?;
        }
        let (bridges, settings) = (bridges.clone(), change.wanted.clone());
        let drops_queues = change.drops_queues;
        Ok(Some(Box::new(move || bridges.apply(&settings, drops_queues))))
    });
}

fn check_bridge(bridge: &Bridge) -> Result<(), String> {
    let file = &bridge.password_file;
    if !file.as_os_str().is_empty() {
        secret_file::read_line(file)
            .map_err(|what| format!("password_file {}: {what}", file.display()))?;
        secret_file::warn_if_open(file, "the password of a bridge");
    }
    if bridge.tls.as_ref().is_some_and(|tls| !tls.verify_name) {
        tracing::warn!(
            bridge = bridge.name,
            "tls.verify_name is false: any holder of a certificate of the authorities can pretend to be the far broker"
        );
    }
    #[cfg(feature = "tls")]
    bridge.tls.as_ref().map_or(Ok(()), |tls| ClientTlsConfig::read(tls).map(drop))?;
    Ok(())
}
