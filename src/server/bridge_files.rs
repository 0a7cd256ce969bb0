//! Files that bridges need: checked before a start, and read again for each connection.

use crate::base::secret_file;
use crate::config::{Bridge, Settings};
#[cfg(feature = "tls")]
use crate::transport::tls::ClientTlsConfig;

/// Checks that the files of every bridge are there and have what they should have. The error names the bridge, the key
/// and the file.
pub(super) fn check(settings: &Settings) -> Result<(), String> {
    settings.bridges.iter().try_for_each(|bridge| {
        check_bridge(bridge)
            .map_err(|what| format!("[[bridges]] name = \"{}\": {what}", bridge.name))
    })
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
