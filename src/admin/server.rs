//! The thread of the admin interface: listeners, connections, and their limits.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
#[cfg(unix)]
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;

use crate::admin::auth::{Auth, Peer};
use crate::admin::broker::{Broker, Parts};
use crate::admin::tasks::{self, Stream};
use crate::admin::{Admin, Exports, bans, otlp, problem, routes};
use crate::base::log_rate;
use crate::base::log_rate::rated;
use crate::config::listener::{self, ClientCertificate, Transport};
use crate::config::{Admin as Config, ConfigError, Listener, Telemetry};
use crate::executor::ListenerSocket;
use crate::platform::priority;
use crate::transport::tls::{TlsConfig, common_name};

/// Bytes of a request's headers at most.
const HEADER_BYTES_MAX: usize = 16 << 10;
/// Header fields of a request at most.
const HEADERS_MAX: usize = 64;
/// Bytes that a connection buffers at most.
const BUFFER_BYTES_MAX: usize = 32 << 10;
/// Time for the headers of a request, for a TLS handshake, and between two requests.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// The same on the connection that is reserved for health.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a client may read nothing of an answer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long accepting pauses when no descriptor is free.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// Connections beyond the limit that are answered at the same time; others are closed without an answer.
const REFUSED_MAX: usize = 16;
/// Time for a refused client to read the answer.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);
/// The answer for a connection beyond the limit.
fn refusal() -> String {
    let content = r#"{"type":"about:blank","title":"Service Unavailable","status":503,"detail":"too many connections to the admin interface; try again later"}"#;
    format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: {}\r\ncontent-length: {}\r\n\
         retry-after: 1\r\nconnection: close\r\n\r\n{content}",
        problem::MEDIA_TYPE,
        content.len()
    )
}

/// The admin interface before the broker serves: its files have been read.
pub struct Prepared {
    auth: Auth,
    tls: Option<Arc<TlsConfig>>,
}

impl Prepared {
    /// Reads the files that the configuration names. The error names the key, the file and the reason.
    pub fn open(config: &Config) -> Result<Self, String> {
        let tls = config.tls.is_used().then(|| tls_config(config)).transpose()?;
        Ok(Self { auth: Auth::open(&config.access)?, tls: tls.map(Arc::new) })
    }

    /// Starts the thread. Files are registered for reloads.
    pub fn start(self, sockets: Vec<ListenerSocket>, parts: Parts) -> io::Result<Running> {
        let Self { auth, tls } = self;
        let config = parts.settings.admin.clone();
        let bans = bans::Kept::open(parts.folder.as_deref(), &parts.cores)?;
        let admin = Arc::new(Admin {
            broker: Broker::new(parts),
            auth,
            bans,
            traces: Default::default(),
            exports: Exports::default(),
            tls,
        });
        let telemetry = register(&admin);
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let serving = Arc::new(Serving {
            service: TowerToHyperService::new(routes::router(&admin, routes::table())),
            places: Places::new(config.connections_max as usize),
            tls: admin.tls.clone(),
            config,
        });
        let (end, must_end) = oneshot::channel::<()>();
        let entered = runtime.enter();
        for socket in sockets {
            serving.listen(socket)?;
        }
        tasks::spawn(otlp::run(Arc::downgrade(&admin), telemetry));
        drop(entered);
        let run = move || {
            // Answers may be long, and whoever asks may ask at once again: messages go first.
            if let Err(error) = priority::give_way() {
                tracing::debug!(%error, "the admin interface has the same priority as the cores");
            }
            drop(runtime.block_on(must_end));
        };
        let thread = std::thread::Builder::new().name("admin".to_owned()).spawn(run)?;
        Ok(Running { end, thread })
    }
}

/// Reads the files again at a reload, as long as the interface runs. Returns the settings of telemetry.
fn register(admin: &Arc<Admin>) -> watch::Receiver<Telemetry> {
    let (telemetry, settings) = watch::channel(admin.broker.settings.telemetry.clone());
    admin.broker.reload.on_change("telemetry", move |change| {
        if change.running.telemetry == change.wanted.telemetry {
            return Ok(None);
        }
        let (telemetry, wanted) = (telemetry.clone(), change.wanted.telemetry.clone());
        Ok(Some(Box::new(move || {
            telemetry.send_replace(wanted);
            Ok(())
        })))
    });
    let (weak, tls) = (Arc::downgrade(admin), admin.tls.clone());
    admin.broker.reload.on_change("admin interface", move |change| {
        let wrong = |key, what: String| ConfigError::of_key(Some(key), what);
        let Some(admin) = weak.upgrade() else { return Ok(None) };
        let access = change.wanted.admin.access.clone();
        let tokens = Auth::read_again(&access);
        let tokens = tokens.map_err(|what| wrong("admin.access.tokens_file", what))?;
        let read = tls.as_ref().map(|tls| tls.read_again(&|path| std::fs::read(path)));
        let read = read.transpose().map_err(|what| wrong("admin.tls", format!("admin.{what}")))?;
        let tls = tls.clone();
        Ok(Some(Box::new(move || {
            admin.auth.put_in_force(access, tokens);
            if let (Some(tls), Some(read)) = (tls, read) {
                tls.put_in_force(read);
            }
            Ok(())
        })))
    });
    settings
}

fn tls_config(config: &Config) -> Result<TlsConfig, String> {
    let has_authorities = !config.tls.client_ca.as_os_str().is_empty();
    let tls = listener::Tls {
        certificate: config.tls.certificate.clone(),
        key: config.tls.key.clone(),
        client_ca: config.tls.client_ca.clone(),
        client_certificate: match has_authorities {
            true => ClientCertificate::Optional,
            false => ClientCertificate::None,
        },
        alpn: Some(vec!["http/1.1".to_owned()]),
        ..listener::Tls::default()
    };
    let listener = Listener {
        transport: Transport::Tls,
        tls,
        ..Listener::tcp(SocketAddr::from(([0, 0, 0, 0], 0)))
    };
    TlsConfig::open(&listener, &|path| std::fs::read(path)).map_err(|what| format!("admin.{what}"))
}

/// The admin interface while it serves.
#[derive(Debug)]
pub struct Running {
    end: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Running {
    /// Ends the thread, and with it all connections.
    pub fn end(self) {
        // The thread has ended by itself if nobody receives this.
        let _ = self.end.send(());
        if self.thread.join().is_err() {
            tracing::error!("the thread of the admin interface has panicked");
        }
    }
}

/// The places that connections take.
struct Places {
    general: Arc<Semaphore>,
    /// For a Unix socket, when all others are taken.
    unix: Arc<Semaphore>,
    /// For health, when all others are taken.
    health: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
}

/// The place of a connection, in the extensions of its requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// For any request.
    General,
    /// For requests about health.
    Health,
}

impl Places {
    fn new(connections_max: usize) -> Self {
        let places = |count| Arc::new(Semaphore::new(count));
        Self {
            general: places(connections_max - 2),
            unix: places(1),
            health: places(1),
            refusals: places(REFUSED_MAX),
        }
    }

    fn take(&self, is_unix: bool) -> Option<(Place, OwnedSemaphorePermit)> {
        let take = |of: &Arc<Semaphore>, place| {
            Arc::clone(of).try_acquire_owned().ok().map(|permit| (place, permit))
        };
        take(&self.general, Place::General)
            .or_else(|| is_unix.then(|| take(&self.unix, Place::General)).flatten())
            .or_else(|| take(&self.health, Place::Health))
    }
}

/// What all connections share.
struct Serving {
    service: TowerToHyperService<Router>,
    places: Places,
    tls: Option<Arc<TlsConfig>>,
    config: Config,
}

impl Serving {
    /// Accepts connections of a socket, in a task.
    fn listen(self: &Arc<Self>, socket: ListenerSocket) -> io::Result<()> {
        let serving = Arc::clone(self);
        match socket {
            ListenerSocket::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                tasks::spawn(serving.accept_tcp(TcpListener::from_std(listener)?));
            }
            #[cfg(unix)]
            ListenerSocket::Unix(listener) => {
                listener.set_nonblocking(true)?;
                tasks::spawn(serving.accept_unix(UnixListener::from_std(listener)?));
            }
        }
        Ok(())
    }

    async fn accept_tcp(self: Arc<Self>, listener: TcpListener) {
        loop {
            let Ok((stream, address)) = listener.accept().await.map_err(note_refusal) else {
                tokio::time::sleep(ACCEPT_REST).await;
                continue;
            };
            match self.places.take(false) {
                Some((place, permit)) => {
                    let serving = Arc::clone(&self);
                    tasks::spawn(async move {
                        serving.serve_tcp(stream, address, place).await;
                        drop(permit);
                    });
                }
                None => self.refuse(stream),
            }
        }
    }

    async fn serve_tcp(&self, stream: TcpStream, address: SocketAddr, place: Place) {
        let stream = patient(Box::new(stream));
        let Some(tls) = &self.tls else {
            let peer = Peer::Tcp { address, is_encrypted: false, certificate: None };
            return self.serve(stream, peer, place).await;
        };
        let handshake = TlsAcceptor::from(tls.config()).accept(stream);
        let Ok(Ok(stream)) = tokio::time::timeout(HEADER_TIMEOUT, handshake).await else { return };
        let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let name = certificates.first().and_then(common_name);
        let certificate = name.and_then(|name| {
            let role = self.config.tls.roles.get(&*name).copied()?;
            Some((name, role))
        });
        let peer = Peer::Tcp { address, is_encrypted: true, certificate };
        self.serve(Box::new(stream), peer, place).await;
    }

    #[cfg(unix)]
    async fn accept_unix(self: Arc<Self>, listener: UnixListener) {
        loop {
            let Ok((stream, _)) = listener.accept().await.map_err(note_refusal) else {
                tokio::time::sleep(ACCEPT_REST).await;
                continue;
            };
            // A peer that has gone has no credentials.
            let Ok(credentials) = stream.peer_cred() else { continue };
            let user = credentials.uid();
            let peer = Peer::Unix { user, role: self.role_of(user) };
            match self.places.take(true) {
                Some((place, permit)) => {
                    let serving = Arc::clone(&self);
                    tasks::spawn(async move {
                        serving.serve(patient(Box::new(stream)), peer, place).await;
                        drop(permit);
                    });
                }
                None => self.refuse(stream),
            }
        }
    }

    /// The role of a user of the system. Others than the broker's user and root can only open the socket if they
    /// are members of its group.
    #[cfg(unix)]
    fn role_of(&self, user: u32) -> Option<crate::config::Role> {
        use crate::config::Role;
        match user {
            0 => Some(Role::Admin),
            user if user == nix::unistd::geteuid().as_raw() => Some(Role::Admin),
            _ if !self.config.socket_group.is_empty() => Some(Role::Read),
            _ => None,
        }
    }

    /// Serves a connection until it ends.
    async fn serve(&self, stream: Stream, peer: Peer, place: Place) {
        let (peer, service) = (Arc::new(peer), self.service.clone());
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(Arc::clone(&peer));
            request.extensions_mut().insert(place);
            service.call(request)
        });
        let timeout = if place == Place::Health { HEALTH_TIMEOUT } else { HEADER_TIMEOUT };
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(timeout)
            .keep_alive(place == Place::General)
            .max_headers(HEADERS_MAX)
            .max_header_size(HEADER_BYTES_MAX)
            .max_buf_size(BUFFER_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), service);
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection to the admin interface has ended");
        }
    }

    /// Answers a connection beyond the limit.
    fn refuse<S: Refusable>(&self, stream: S) {
        let is_plain = self.tls.is_none() || S::IS_LOCAL;
        let Ok(permit) = Arc::clone(&self.places.refusals).try_acquire_owned() else { return };
        if is_plain && stream.try_write(refusal().as_bytes()).is_ok() {
            tasks::spawn(async move {
                // Closing a socket with unread input would discard the answer.
                let mut buffer = [0; 1_024];
                let read = async {
                    while stream.readable().await.is_ok() {
                        match stream.try_read(&mut buffer) {
                            Ok(1..) => {}
                            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                            Ok(0) | Err(_) => break,
                        }
                    }
                };
                let _ = tokio::time::timeout(REFUSAL_TIMEOUT, read).await;
                drop(permit);
            });
        }
    }
}

/// A socket that is answered without HTTP.
trait Refusable: Send + Sync + 'static {
    const IS_LOCAL: bool;
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize>;
    fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize>;
    fn readable(&self) -> impl Future<Output = io::Result<()>> + Send;
}

macro_rules! refusable {
    ($stream:ty, $is_local:literal) => {
        impl Refusable for $stream {
            const IS_LOCAL: bool = $is_local;
            fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
                self.try_write(bytes)
            }
            fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
                self.try_read(buffer)
            }
            async fn readable(&self) -> io::Result<()> {
                self.readable().await
            }
        }
    };
}

refusable!(TcpStream, false);
#[cfg(unix)]
refusable!(UnixStream, true);

/// Ends connections of clients that do not read.
fn patient(stream: Stream) -> Stream {
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(WRITE_TIMEOUT));
    Box::new(Box::pin(stream))
}

fn note_refusal(error: io::Error) {
    rated!(warn, log_rate::now(), %error, "the admin interface cannot accept a connection");
}
