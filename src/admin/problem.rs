//! Errors as `application/problem+json` (RFC 9457).

use axum::body::to_bytes;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;

/// Media type of an error.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// Bytes of an error's text at most.
const DETAIL_BYTES_MAX: usize = 4_096;

/// An error: what is wrong, and what to do.
#[derive(Clone, Debug)]
pub struct Problem {
    status: StatusCode,
    detail: String,
    retry_after_s: Option<u32>,
}

/// An error as it is sent.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Problem")]
pub struct Sent {
    /// `about:blank`: the status says what kind of error this is.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The name of the status.
    title: String,
    /// The status.
    status: u16,
    /// What is wrong with this request, and what to do.
    detail: String,
}

impl Problem {
    /// An error with this status.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), retry_after_s: None }
    }

    /// 400: the request is wrong.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    /// 401: nobody is known to have sent the request.
    pub fn unauthorized(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, detail)
    }

    /// 403: the caller may not do this.
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, detail)
    }

    /// 404: there is no such thing.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    /// 503: the broker cannot answer now.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, detail)
    }

    /// Tells the client when to try again.
    pub fn retry_after(self, seconds: u32) -> Self {
        Self { retry_after_s: Some(seconds), ..self }
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Makes an error of an answer that says in plain text what is wrong, as extractors of requests do.
    pub async fn from_plain(response: Response) -> Response {
        let media_type = response.headers().get(header::CONTENT_TYPE);
        let is_described = media_type.is_some_and(|of| of.as_bytes().ends_with(b"json"));
        if !(response.status().is_client_error() || response.status().is_server_error())
            || is_described
        {
            return response;
        }
        let (mut parts, body) = response.into_parts();
        let text = to_bytes(body, DETAIL_BYTES_MAX).await.unwrap_or_default();
        let detail = match parts.status {
            StatusCode::NOT_FOUND => {
                "there is no such resource; GET /api/v1/openapi.json lists all".into()
            }
            StatusCode::METHOD_NOT_ALLOWED => {
                "the resource has no such method; Allow lists those it has".into()
            }
            _ => String::from_utf8_lossy(&text),
        };
        let sent = Self::new(parts.status, detail).into_response();
        let (described, body) = sent.into_parts();
        parts.headers.remove(header::CONTENT_LENGTH);
        parts.headers.extend(described.headers);
        Response::from_parts(parts, body)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Self { status, detail, retry_after_s } = self;
        let title = status.canonical_reason().unwrap_or_default().to_owned();
        let sent = Sent { kind: "about:blank", title, status: status.as_u16(), detail };
        let mut response = (status, axum::Json(sent)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        if let Some(seconds) = retry_after_s {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if status == StatusCode::UNAUTHORIZED {
            // Basic is accepted too, but not named: browsers would ask for a password by themselves.
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
