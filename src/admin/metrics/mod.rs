//! `/metrics`: what monitoring systems scrape.
//!
//! | file | what it does |
//! | --- | --- |
//! | `families` | numbers under the names, labels and units that monitoring systems see |
//! | `exposition` | families as text, in the format that a request accepts |

mod exposition;
pub(super) mod families;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU32, Ordering};

use crate::admin::bridges;
use crate::admin::compression::{accepts_gzip, gzip};
use crate::admin::routes::{Allowed, Route, get};
use crate::admin::{Admin, Shared};
use crate::config::Role;
use crate::platform::process::Process;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use exposition::Format;
use families::Numbers;

/// The routes of this module.
pub fn routes() -> Vec<Route> {
    let route = get("/metrics", Role::Read, "Metrics for Prometheus and OpenMetrics", metrics);
    vec![route.for_whom(Allowed::Scrapers).answers_as("text/plain")]
}

/// The numbers as they stand.
pub(super) async fn numbers(admin: &Admin) -> Numbers {
    let (broker, exports) = (&admin.broker, &admin.exports);
    let exported = |counter: &AtomicU32| counter.load(Ordering::Relaxed).into();
    Numbers {
        snapshot: broker.sample().await,
        process: Process::here(),
        started: broker.started(),
        connections_max: broker.connections_max,
        memory_bytes_max: broker.memory_bytes_max,
        store_bytes_max: Some(broker.settings.storage.bytes_max).filter(|max| *max > 0),
        certificates_expire_s: certificates_expire_s(admin),
        webhooks: broker.webhooks.status(),
        bridges: bridges::with_sizes(broker).await,
        cluster: broker.cluster.clone(),
        exports: [&exports.metrics, &exports.spans, &exports.spans_lost, &exports.failed]
            .map(exported),
    }
}

async fn metrics(State(admin): State<Shared>, headers: HeaderMap) -> Response {
    let numbers = numbers(&admin).await;
    let format = Format::accepted(&headers);
    let text = format.encode(families::all(&numbers));
    response(text, format, accepts_gzip(&headers))
}

/// By listener, when the first of its certificates expires; the admin interface itself is one.
fn certificates_expire_s(admin: &Admin) -> Vec<(String, i64)> {
    let mut all = admin.broker.certificates_expire_s();
    let own = admin.tls.as_ref().and_then(|tls| tls.certificates_expire_s());
    all.extend(own.map(|expire_s| ("admin".to_owned(), expire_s)));
    all
}

fn response(text: String, format: Format, is_packed: bool) -> Response {
    let media_type = (header::CONTENT_TYPE, HeaderValue::from_static(format.media_type()));
    // Caches in between must not give one client the format of another.
    let vary = (header::VARY, HeaderValue::from_static("accept, accept-encoding"));
    if !is_packed {
        return ([media_type, vary], text).into_response();
    }
    let encoding = (header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    ([media_type, vary, encoding], Body::from(gzip(text.as_bytes()))).into_response()
}
