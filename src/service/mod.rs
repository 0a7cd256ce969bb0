//! The service manager that has started the broker: readiness and watchdog notifications, socket activation, and
//! Windows services. Without a service manager all of this does nothing.

#[cfg(all(feature = "service", target_os = "linux"))]
mod systemd;
#[cfg(all(feature = "service", windows))]
pub mod windows;

use std::fmt;
use std::io;
use std::net::SocketAddr;

use crate::config::{Bind, Settings};
use crate::control::stop::Stop;
use crate::executor::ListenerSocket;

/// A socket of the service manager cannot be used.
#[derive(Debug)]
pub struct NotUsable(pub(crate) io::Error);

impl fmt::Display for NotUsable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a socket that the service manager opened cannot be used: {}; pass TCP or Unix sockets \
             that listen (ListenStream=ADDRESS:PORT with Accept=no in the socket unit)",
            self.0
        )
    }
}

impl std::error::Error for NotUsable {}

/// Sockets that listen already, opened by the service manager for this process.
#[derive(Debug, Default)]
pub struct HandedOver(Vec<(Bind, ListenerSocket)>);

impl HandedOver {
    /// The sockets that the service manager has opened; none without a service manager.
    pub fn from_manager() -> Result<Self, NotUsable> {
        #[cfg(all(feature = "service", target_os = "linux"))]
        return systemd::listeners().map(Self).map_err(NotUsable);
        #[cfg(not(all(feature = "service", target_os = "linux")))]
        return Ok(Self::default());
    }

    /// Assigns each socket to a listener of the settings: to the entry of `[[listeners]]` that is configured for
    /// its address, with its transport and policy. The other sockets speak plain MQTT, and replace the addresses of
    /// `listen`.
    pub fn configure(&self, settings: &mut Settings) -> Result<(), NotUsable> {
        let is_configured =
            |bind: &Bind| settings.listeners.iter().any(|of| is_same(&of.bind, bind));
        let mut plain = Vec::new();
        for (bind, _) in &self.0 {
            match bind {
                bind if is_configured(bind) => {}
                Bind::Address(address) => plain.push(*address),
                Bind::Path(path) => {
                    let what = format!("no [[listeners]] has bind = \"unix:{}\"", path.display());
                    return Err(NotUsable(io::Error::new(io::ErrorKind::NotFound, what)));
                }
            }
        }
        if !plain.is_empty() {
            settings.listen = plain;
        }
        Ok(())
    }

    /// The socket for a listener, with its actual address.
    pub fn take(&mut self, wanted: &Bind) -> Option<(Bind, ListenerSocket)> {
        let at = self.0.iter().position(|(bind, _)| is_same(wanted, bind))?;
        Some(self.0.swap_remove(at))
    }
}

/// Whether a socket has a configured address. A socket for all addresses (systemd's `ListenStream=8883` is
/// `[::]:8883`) matches every address at its port, because the kernel allows no second socket there.
fn is_same(configured: &Bind, opened: &Bind) -> bool {
    let is_for_all = |address: &SocketAddr| address.ip().is_unspecified();
    match (configured, opened) {
        (Bind::Address(configured), Bind::Address(opened)) => {
            configured.port() == opened.port()
                && (configured.ip() == opened.ip() || is_for_all(configured) || is_for_all(opened))
        }
        _ => configured == opened,
    }
}

/// Notifies the service manager that the broker is ready, with a status line. From then on the manager's watchdog
/// is notified as long as all cores take turns.
pub fn notify_ready(status: &str, stop: &Stop) {
    #[cfg(all(feature = "service", target_os = "linux"))]
    systemd::notify_ready(status, stop);
    #[cfg(not(all(feature = "service", target_os = "linux")))]
    let _ = (status, stop);
}

/// Notifies the service manager that the broker stops.
pub fn notify_stopping() {
    #[cfg(all(feature = "service", target_os = "linux"))]
    systemd::notify_stopping();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Listener;
    use std::net::TcpListener;

    fn opened(address: &str) -> (Bind, ListenerSocket) {
        let socket = TcpListener::bind("127.0.0.1:0").expect("free");
        (address.parse().expect("an address"), ListenerSocket::Tcp(socket))
    }

    fn with_listener(bind: &str) -> Settings {
        let listener = Listener::tcp(bind.parse().expect("an address"));
        Settings { listeners: vec![listener], ..Settings::default() }
    }

    #[test]
    fn a_socket_for_a_configured_listener_has_its_transport() {
        let mut settings = with_listener("0.0.0.0:8883");
        let before = settings.listen.clone();
        let mut handed_over = HandedOver(vec![opened("[::]:8883")]);
        handed_over.configure(&mut settings).expect("it is usable");
        assert_eq!(settings.listen, before, "nothing plain was handed over");
        assert!(handed_over.take(&settings.listeners[0].bind).is_some());
        assert!(handed_over.take(&settings.listeners[0].bind).is_none(), "it is taken once");
    }

    #[test]
    fn other_sockets_replace_the_plain_addresses() {
        let mut settings = with_listener("127.0.0.1:8883");
        let handed_over = HandedOver(vec![opened("127.0.0.1:1884"), opened("127.0.0.1:8883")]);
        handed_over.configure(&mut settings).expect("it is usable");
        assert_eq!(settings.listen, ["127.0.0.1:1884".parse().expect("an address")]);
    }
}
