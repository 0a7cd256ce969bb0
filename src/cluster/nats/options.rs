//! How the engine is reached.

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_nats::{ConnectOptions, Event, ServerAddr};
use tokio::sync::mpsc;

use super::Internal;
use crate::cluster::membership::Me;

/// Time for a connection and its TLS handshake.
const CONNECT: Duration = Duration::from_secs(2);

/// Pauses between attempts to connect, up to this one.
const PAUSE_MAX_MS: u64 = 1_000;

/// Requests and frames that wait for the connection; a frame has at most a quarter of a megabyte.
const WAITING_MAX: usize = 256;

/// Frames that have come and wait for the gateway. More are dropped, and sent again by their lanes.
const RECEIVED_MAX: usize = 256;

/// How to reach the engine, and who this node is.
#[derive(Clone, Debug, Default)]
pub struct CarrierOptions {
    /// Who this node is.
    pub me: Me,
    /// URLs of the engine's servers, `nats://HOST:PORT` or `tls://HOST:PORT`.
    pub servers: Vec<String>,
    /// Servers that the engine has when it is complete, if that is known: with three, the bucket of the members is made only
    /// once three of them can hold it.
    pub servers_expected: usize,
    /// User name and password.
    pub user: Option<(String, String)>,
    /// File with the credentials (a token and its key) of a NATS user.
    pub credentials: Option<PathBuf>,
    /// File with the seed of an NKey.
    pub nkey: Option<PathBuf>,
    /// File with certificates of authorities, in PEM.
    pub ca: Option<PathBuf>,
    /// Files with the certificate and the key of this node, in PEM.
    pub certificate: Option<(PathBuf, PathBuf)>,
}

/// The addresses of the servers, and the options of a connection.
pub(super) async fn prepare(
    options: &CarrierOptions,
    events: mpsc::UnboundedSender<Internal>,
) -> Result<(Vec<ServerAddr>, ConnectOptions), String> {
    let mut addresses = Vec::new();
    for server in &options.servers {
        let address = server.parse().map_err(|error| {
            format!(
                "engine server {server:?}: {error}; expected nats://HOST:PORT or tls://HOST:PORT"
            )
        })?;
        addresses.push(address);
    }
    if addresses.is_empty() {
        return Err(
            "no engine server is named; name one, such as \"nats://127.0.0.1:4222\"".to_owned()
        );
    }
    let mut connect = ConnectOptions::new()
        .name(format!("ringmq {} {}", options.me.cluster, options.me.name))
        .connection_timeout(CONNECT)
        .retry_on_initial_connect()
        .reconnect_delay_callback(|attempts| {
            let doubled = 1u64 << attempts.min(10);
            Duration::from_millis(if attempts <= 1 { 0 } else { doubled.min(PAUSE_MAX_MS) })
        })
        .client_capacity(WAITING_MAX)
        .subscription_capacity(RECEIVED_MAX)
        .skip_subject_validation(true)
        .event_callback(move |event| {
            let events = events.clone();
            async move {
                let _ = events.send(told(event));
            }
        });
    if let Some((user, password)) = &options.user {
        connect = connect.user_and_password(user.clone(), password.clone());
    }
    if let Some(file) = &options.credentials {
        let text = read(file)?;
        connect = connect.credentials(&text).map_err(|error| {
            format!(
                "{}: no credentials of NATS ({error}); `nsc generate creds` makes them",
                file.display()
            )
        })?;
    }
    if let Some(file) = &options.nkey {
        connect = connect.nkey(read(file)?.trim().to_owned());
    }
    if let Some(file) = &options.ca {
        read(file)?;
        connect = connect.add_root_certificates(file.clone());
    }
    if let Some((certificate, key)) = &options.certificate {
        read(certificate)?;
        read(key)?;
        connect = connect.add_client_certificate(certificate.clone(), key.clone());
    }
    Ok((addresses, connect))
}

fn told(event: Event) -> Internal {
    match event {
        Event::Connected => Internal::Connected,
        Event::Disconnected | Event::Closed => Internal::Disconnected,
        Event::SlowConsumer(_) => Internal::Overrun,
        other => Internal::Trouble(other.to_string()),
    }
}

fn read(file: &Path) -> Result<String, String> {
    std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))
}
