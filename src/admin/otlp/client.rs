//! Requests to a collector: HTTP/1.1, a connection for each.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::{Request, header};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::admin::tasks::{self, Stream};
use crate::config::telemetry::Endpoint;

/// Time for a request and its answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of an answer that are read at most.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Posts a message; the error says why the collector has not taken it.
pub(super) async fn post(collector: &Endpoint, path: &str, content: Vec<u8>) -> Result<(), String> {
    let posted = timeout(TIMEOUT, exchange(collector, path, content)).await;
    posted.unwrap_or_else(|_| Err("no answer within 10 s".to_owned()))
}

async fn exchange(collector: &Endpoint, path: &str, content: Vec<u8>) -> Result<(), String> {
    let text = |error: &dyn std::error::Error| error.to_string();
    let Endpoint { host, port, path: before } = collector;
    let stream = TcpStream::connect((&**host, *port)).await.map_err(|error| text(&error))?;
    let stream: Stream = Box::new(stream);
    let opened = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = opened.map_err(|error| text(&error))?;
    let connection = tasks::spawn(async move {
        // An error is that of the request as well.
        let _ = connection.await;
    });
    let name =
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let request = Request::post(format!("{before}{path}"))
        .header(header::HOST, name)
        .header(header::USER_AGENT, concat!("ringmq/", env!("CARGO_PKG_VERSION")))
        .header(header::CONTENT_TYPE, "application/x-protobuf")
        .body(Body::from(content))
        .map_err(|error| text(&error))?;
    let answer = sender.send_request(request).await.map_err(|error| text(&error))?;
    let status = answer.status();
    // Reading the answer lets the connection end well; its content does not matter.
    let _ = to_bytes(Body::new(answer.into_body()), ANSWER_BYTES_MAX).await;
    connection.abort();
    if status.is_success() { Ok(()) } else { Err(format!("the collector answers {status}")) }
}
