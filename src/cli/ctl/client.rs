//! HTTP/1.1 requests to the admin interface.

use std::future::poll_fn;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::http::{Method, Request, StatusCode, header};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::Error;
use super::target::Target;

/// Time for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time until an answer begins, and between two of its parts.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(40);
/// Bytes of an answer at most.
const ANSWER_BYTES_MAX: usize = 256 << 20;
/// Files of certificate authorities of the system.
const SYSTEM_AUTHORITIES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// A client of the interface.
pub struct Client {
    runtime: Runtime,
    target: Target,
    token: Option<String>,
    tls: Option<TlsConnector>,
}

/// An answer.
pub struct Answer {
    /// Status.
    pub status: StatusCode,
    /// Whether the content is JSON.
    pub is_json: bool,
    /// Content.
    pub content: Bytes,
}

/// What a connection carries bytes with.
trait Carrier: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Carrier for T {}

type Stream = Box<dyn Carrier>;

impl Client {
    /// A client that has not connected yet.
    pub fn new(
        target: Target,
        token: Option<String>,
        ca: Option<&Path>,
        identity: Option<&Path>,
    ) -> Result<Self, Error> {
        let tls = match &target {
            Target::Tcp { tls: true, .. } => Some(connector(ca, identity)?),
            Target::Tcp { .. } | Target::Unix(_) => None,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Error::Failed(error.to_string()))?;
        Ok(Self { runtime, target, token, tls })
    }

    /// Sends a request and reads its answer.
    pub fn ask(
        &self,
        method: &Method,
        path: &str,
        content: Option<String>,
    ) -> Result<Answer, Error> {
        self.runtime.block_on(async {
            let (parts, content) = self.send(method, path, content).await?.into_parts();
            let content = timeout(ANSWER_TIMEOUT, to_bytes(Body::new(content), ANSWER_BYTES_MAX));
            let content = content.await.map_err(|_| self.too_slow())?;
            let content = content.map_err(|error| self.unreachable(&error))?;
            Ok(Answer { status: parts.status, is_json: is_json(&parts.headers), content })
        })
    }

    /// Sends a request whose answer comes in parts, and passes them on as they come. An answer that is an error is
    /// returned.
    pub fn stream(
        &self,
        path: &str,
        mut take: impl FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<Option<Answer>, Error> {
        self.runtime.block_on(async {
            let (parts, content) = self.send(&Method::GET, path, None).await?.into_parts();
            if !parts.status.is_success() {
                let content = to_bytes(Body::new(content), ANSWER_BYTES_MAX).await;
                let content = content.map_err(|error| self.unreachable(&error))?;
                let is_json = is_json(&parts.headers);
                return Ok(Some(Answer { status: parts.status, is_json, content }));
            }
            let mut content = content;
            while let Some(frame) = next_frame(&mut content).await {
                let frame = frame.map_err(|error| self.unreachable(&error))?;
                if let Some(bytes) = frame.data_ref() {
                    take(bytes)?;
                }
            }
            Ok(None)
        })
    }

    async fn send(
        &self,
        method: &Method,
        path: &str,
        content: Option<String>,
    ) -> Result<axum::http::Response<Incoming>, Error> {
        let mut request = Request::builder().method(method).uri(path);
        request = request.header(header::HOST, self.target.host_header());
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        if method != Method::GET {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let request = request.body(Body::from(content.unwrap_or_default()));
        let request = request.map_err(|error| Error::Usage(format!("{path}: {error}")))?;
        let stream = timeout(CONNECT_TIMEOUT, self.connect());
        let stream = stream.await.map_err(|_| self.too_slow())?;
        let stream = stream.map_err(|error| self.unreachable(&error))?;
        let opened = http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = opened.map_err(|error| self.unreachable(&error))?;
        tokio::spawn(async move {
            // An error is that of the request as well.
            let _ = connection.await;
        });
        let response = timeout(ANSWER_TIMEOUT, sender.send_request(request));
        let response = response.await.map_err(|_| self.too_slow())?;
        response.map_err(|error| self.unreachable(&error))
    }

    async fn connect(&self) -> io::Result<Stream> {
        let (host, port) = match &self.target {
            #[cfg(unix)]
            Target::Unix(path) => {
                return Ok(Box::new(tokio::net::UnixStream::connect(path).await?));
            }
            #[cfg(not(unix))]
            Target::Unix(_) => {
                return Err(io::Error::other("this system has no Unix sockets"));
            }
            Target::Tcp { host, port, .. } => (host, *port),
        };
        let stream = TcpStream::connect((&**host, port)).await?;
        let Some(tls) = &self.tls else { return Ok(Box::new(stream)) };
        let name = ServerName::try_from(host.clone()).map_err(io::Error::other)?;
        Ok(Box::new(tls.connect(name, stream).await?))
    }

    fn unreachable(&self, error: &dyn std::error::Error) -> Error {
        let mut what = format!("{}: {error}", self.target);
        // Libraries hide the reason behind their own words.
        let mut source = error.source();
        while let Some(error) = source {
            what += &format!(": {error}");
            source = error.source();
        }
        Error::Unreachable(what)
    }

    fn too_slow(&self) -> Error {
        Error::Unreachable(format!("{}: no answer in time", self.target))
    }
}

async fn next_frame(
    content: &mut Incoming,
) -> Option<Result<hyper::body::Frame<Bytes>, hyper::Error>> {
    poll_fn(|context| Pin::new(&mut *content).poll_frame(context)).await
}

fn is_json(headers: &axum::http::HeaderMap) -> bool {
    let media_type = headers.get(header::CONTENT_TYPE).and_then(|of| of.to_str().ok());
    media_type.is_some_and(|of| of.split(';').next().unwrap_or_default().trim().ends_with("json"))
}

fn connector(ca: Option<&Path>, identity: Option<&Path>) -> Result<TlsConnector, Error> {
    let mut roots = RootCertStore::empty();
    let file = authorities(ca)?;
    let (_, refused) = roots.add_parsable_certificates(certificates(&file)?);
    if roots.is_empty() {
        let what =
            format!("{}: no usable certificate authority, {refused} unusable", file.display());
        return Err(Error::Usage(what));
    }
    let builder =
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::Failed(error.to_string()))?
            .with_root_certificates(roots);
    let config = match identity {
        None => builder.with_no_client_auth(),
        Some(file) => {
            let wrong =
                |what: String| Error::Usage(format!("--identity {}: {what}", file.display()));
            let key =
                PrivateKeyDer::from_pem_file(file).map_err(|error| wrong(error.to_string()))?;
            let config = builder.with_client_auth_cert(certificates(file)?, key);
            config.map_err(|error| wrong(error.to_string()))?
        }
    };
    Ok(TlsConnector::from(Arc::new(config)))
}

/// The file of certificate authorities.
fn authorities(ca: Option<&Path>) -> Result<PathBuf, Error> {
    let variable = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    if let Some(file) = ca.map(Path::to_owned).or(variable) {
        return Ok(file);
    }
    let found = SYSTEM_AUTHORITIES.iter().map(PathBuf::from).find(|file| file.exists());
    found.ok_or_else(|| {
        Error::Usage(
            "the system has no file of certificate authorities; name one with --ca".to_owned(),
        )
    })
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let wrong = |error: rustls::pki_types::pem::Error| {
        Error::Usage(format!("{}: {error}; name a PEM file", file.display()))
    };
    CertificateDer::pem_file_iter(file).map_err(wrong)?.collect::<Result<_, _>>().map_err(wrong)
}
