//! Layers of a bridge's connection: TLS, whose files are read for each connection, so that new certificates need no
//! restart, and WebSocket.

use crate::config::bridge::{Bridge, Server};
use crate::transport::bridge::{FarEnd, Link};
#[cfg(feature = "tls")]
use crate::transport::tls::ClientTlsConfig;

/// How the connections of a bridge are encrypted.
pub(super) struct Encryption<'a> {
    #[cfg(feature = "tls")]
    config: Option<ClientTlsConfig>,
    bridge: &'a Bridge,
}

impl<'a> Encryption<'a> {
    /// Reads the files that the configuration names.
    #[cfg(feature = "tls")]
    pub fn prepare(bridge: &'a Bridge) -> Result<Self, String> {
        let settings = bridge.tls.clone().unwrap_or_default();
        let config = bridge.has_tls().then(|| ClientTlsConfig::read(&settings)).transpose()?;
        Ok(Self { config, bridge })
    }

    /// This build has no TLS.
    #[cfg(not(feature = "tls"))]
    pub fn prepare(bridge: &'a Bridge) -> Result<Self, String> {
        match bridge.has_tls() {
            true => Err("this build has no TLS; use mqtt:// servers".to_owned()),
            false => Ok(Self { bridge }),
        }
    }

    /// When the own certificate has expired, if it has, in words.
    #[cfg(feature = "tls")]
    pub fn expired(&self) -> Option<String> {
        self.config.as_ref().and_then(ClientTlsConfig::expired)
    }

    /// This build has no TLS.
    #[cfg(not(feature = "tls"))]
    pub fn expired(&self) -> Option<String> {
        None
    }

    /// Begins a connection to a server.
    pub fn begin(&self, server: &Server, link: Link) -> Result<FarEnd, String> {
        let far_end = self.encrypt(server, link)?;
        match server.websocket_request() {
            Some((host, path)) => far_end.over_websocket(&host, path),
            None => Ok(far_end),
        }
    }

    fn encrypt(&self, server: &Server, link: Link) -> Result<FarEnd, String> {
        #[cfg(feature = "tls")]
        if let Some(config) = self.config.as_ref().filter(|_| server.has_tls) {
            let named = self.bridge.tls.as_ref().map(|tls| tls.server_name.as_str());
            let name = named.filter(|name| !name.is_empty()).unwrap_or(&server.host);
            let mut said = Vec::new();
            let tls = config.begin(name, &mut said)?;
            return Ok(FarEnd::encrypted(link, tls, said));
        }
        let _ = (server, self.bridge);
        Ok(FarEnd::plain(link))
    }
}
