//! What every request passes before its handler.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::admin::Shared;
use crate::admin::auth::{Caller, Peer, origin};
use crate::admin::problem::Problem;
use crate::admin::routes::{Allowed, Route};
use crate::admin::server::Place;
use crate::admin::tasks::{self, Aborting};
use crate::config::Scrapers;

/// Bytes of a request's content at most.
pub const BODY_BYTES_MAX: usize = 1 << 20;

/// Time for a request, until its answer begins.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// The gate of one route.
pub struct Gate {
    admin: Shared,
    allowed: Allowed,
    is_change: bool,
    is_audited: bool,
    serves_while_stopping: bool,
    is_for_health: bool,
}

impl Gate {
    pub(super) fn new(admin: Shared, route: &Route) -> Self {
        Self {
            admin,
            allowed: route.allowed,
            is_change: route.is_change(),
            is_audited: route.is_change() || route.is_audited,
            serves_while_stopping: route.serves_while_stopping,
            is_for_health: route.is_for_health,
        }
    }

    /// Who sends the request, if anybody has to be known.
    async fn check(
        &self,
        (method, uri, headers, is_old): (&Method, &Uri, &HeaderMap, bool),
        place: Place,
        peer: &Peer,
    ) -> Result<Option<Caller>, Problem> {
        if place == Place::Health && !self.is_for_health {
            return Err(Problem::unavailable(
                "too many connections to the admin interface; the last one is reserved for health",
            )
            .retry_after(1));
        }
        if self.admin.broker.is_stopping() && !self.serves_while_stopping {
            return Err(Problem::unavailable("the broker stops"));
        }
        // No browser opens a Unix socket, or speaks HTTP/1.0.
        let is_no_browser = peer.is_unix() || !headers.contains_key(header::HOST) && is_old;
        if !is_no_browser {
            origin::check_host(headers, uri, &self.admin.broker.settings.admin.hosts)?;
        }
        let caller = self.identify(headers, peer).await?;
        if self.is_change {
            origin::check_change(method, headers)?;
        }
        Ok(caller)
    }

    async fn identify(&self, headers: &HeaderMap, peer: &Peer) -> Result<Option<Caller>, Problem> {
        let admin = &self.admin;
        let needed = match self.allowed {
            Allowed::Anyone => return Ok(None),
            Allowed::Scrapers => match admin.broker.settings.admin.metrics {
                Scrapers::Open => return Ok(None),
                Scrapers::Auto if peer.is_local() => return Ok(None),
                Scrapers::Auto | Scrapers::Closed => crate::config::Role::Read,
            },
            Allowed::Role(role) => role,
        };
        match admin.auth.identify(headers, peer, admin.broker.access.control()).await? {
            Some(caller) if caller.role >= needed => Ok(Some(caller)),
            Some(caller) => Err(Problem::forbidden(format!(
                "{} has the role {}; this needs {}",
                caller.name,
                caller.role.name(),
                needed.name()
            ))),
            None => Err(Problem::unauthorized(
                "send a token (Authorization: Bearer TOKEN), or a name and a password (Basic)",
            )),
        }
    }
}

/// Checks a request, and lets its handler answer. A handler that panics, or takes too long, is an error of this
/// request alone.
pub(super) async fn pass(
    State(gate): State<Arc<Gate>>,
    mut request: Request,
    next: Next,
) -> Response {
    let extensions = request.extensions();
    let (Some(peer), Some(&place)) = (extensions.get::<Arc<Peer>>(), extensions.get::<Place>())
    else {
        return Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "unknown peer").into_response();
    };
    let peer = Arc::clone(peer);
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let is_old = request.version() < Version::HTTP_11;
    let head = (&method, &uri, request.headers(), is_old);
    let caller = match gate.check(head, place, &peer).await {
        Ok(caller) => caller,
        Err(problem) => {
            if gate.is_audited {
                log_change(None, &peer, &method, &uri, problem.status());
            }
            return problem.into_response();
        }
    };
    if let Some(caller) = &caller {
        request.extensions_mut().insert(caller.clone());
    }
    if !gate.is_audited {
        return run(request, next).await;
    }
    // A change is executed to its end, and logged, even if the client has gone.
    let change = async move {
        let response = run(request, next).await;
        log_change(caller.as_ref(), &peer, &method, &uri, response.status());
        response
    };
    tasks::answer(change).await.unwrap_or_else(|_| failed())
}

/// The answer when a handler has panicked.
fn failed() -> Response {
    Problem::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        "the request failed because of an error in the broker; the log has the details",
    )
    .into_response()
}

async fn run(request: Request, next: Next) -> Response {
    // The handler of a client that has gone ends.
    let mut handler = Aborting(tasks::answer(next.run(request)));
    match tokio::time::timeout(REQUEST_TIMEOUT, &mut handler.0).await {
        Ok(Ok(response)) => response,
        Ok(_) => failed(),
        Err(_) => Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            "the request or its answer took too long; the broker may have executed it",
        )
        .into_response(),
    }
}

/// Logs a request that changes something, or shows packets: who, from where, what, outcome.
fn log_change(
    caller: Option<&Caller>,
    peer: &Peer,
    method: &Method,
    uri: &Uri,
    outcome: StatusCode,
) {
    let (who, role) = caller.map_or(("", ""), |caller| (&*caller.name, caller.role.name()));
    let what = format!("{method} {}", uri.path_and_query().map_or("", |of| of.as_str()));
    tracing::info!(target: "audit", audit = true, who, role, from = %peer, what, outcome = outcome.as_u16(), "admin interface");
}

/// Refuses content that is too large, or whose length two parties could read differently.
pub(super) async fn check_size(request: Request, next: Next) -> Response {
    let headers = request.headers();
    let problem = if headers.contains_key(header::TRANSFER_ENCODING) {
        Problem::new(
            StatusCode::LENGTH_REQUIRED,
            "send the content with Content-Length; Transfer-Encoding is not accepted",
        )
    } else if length(headers) > BODY_BYTES_MAX as u64 {
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "the content exceeds 1 MiB")
    } else if request.version() < Version::HTTP_11 && !is_read(request.method()) {
        Problem::new(StatusCode::HTTP_VERSION_NOT_SUPPORTED, "use HTTP/1.1")
    } else {
        return next.run(request).await;
    };
    let mut response = problem.into_response();
    // What follows is not read.
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

fn is_read(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

fn length(headers: &HeaderMap) -> u64 {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    length.and_then(|length| length.parse().ok()).unwrap_or(0)
}

/// Adds the headers of every answer, unless the handler has set them.
pub(super) async fn add_headers(mut response: Response) -> Response {
    const HEADERS: [(HeaderName, &str); 4] = [
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    for (name, value) in HEADERS {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}
