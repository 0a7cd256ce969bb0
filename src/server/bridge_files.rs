//! Files that bridges need: checked before a start, and read again for each connection.

#[cfg(feature = "tls")]
use std::path::Path;

#[cfg(feature = "tls")]
use crate::base::pem;
use crate::base::secret_file;
#[cfg(feature = "tls")]
use crate::config::bridge::{Authorities, BridgeTls};
use crate::config::{Bridge, Settings};

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
    #[cfg(feature = "tls")]
    bridge.tls.as_ref().map_or(Ok(()), check_tls)?;
    Ok(())
}

#[cfg(feature = "tls")]
fn check_tls(tls: &BridgeTls) -> Result<(), String> {
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};

    if let Authorities::File(file) = &tls.ca {
        check_pem::<CertificateDer<'_>>("ca", file, pem::Kind::Certificates)?;
    }
    if !tls.certificate.as_os_str().is_empty() {
        check_pem::<CertificateDer<'_>>("certificate", &tls.certificate, pem::Kind::Certificates)?;
        check_pem::<PrivateKeyDer<'_>>("key", &tls.key, pem::Kind::Key)?;
    }
    Ok(())
}

#[cfg(feature = "tls")]
fn check_pem<T: rustls::pki_types::pem::PemObject>(
    key: &str,
    file: &Path,
    kind: pem::Kind,
) -> Result<(), String> {
    let name = file.display().to_string();
    let wrong = |what: String| format!("tls.{key} {name}: {}", what.replace("FILE", &name));
    let text = std::fs::read(file).map_err(|error| {
        wrong(format!("{error}; name a PEM file that the broker's user may read"))
    })?;
    pem::read::<T>(&text, kind).map(drop).map_err(wrong)
}
