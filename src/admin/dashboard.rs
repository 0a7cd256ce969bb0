//! The dashboard: one page with its scripts, from the binary, that uses the REST API.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::LazyLock;

use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::admin::Shared;
use crate::admin::compression::{accepts_gzip, gzip};
use crate::admin::problem::Problem;
use crate::admin::routes::{Allowed, Route, get};
use crate::config::Role;

/// What the page may load: only what this interface serves, and no inline code.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
    img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Names, media types and contents of the files.
const FILES: [(&str, &str, &str); 9] = [
    ("", "text/html; charset=utf-8", include_str!("dashboard/index.html")),
    ("app.js", "text/javascript; charset=utf-8", include_str!("dashboard/app.js")),
    ("api.js", "text/javascript; charset=utf-8", include_str!("dashboard/api.js")),
    ("ui.js", "text/javascript; charset=utf-8", include_str!("dashboard/ui.js")),
    ("bridges.js", "text/javascript; charset=utf-8", include_str!("dashboard/bridges.js")),
    ("users.js", "text/javascript; charset=utf-8", include_str!("dashboard/users.js")),
    ("views.js", "text/javascript; charset=utf-8", include_str!("dashboard/views.js")),
    ("style.css", "text/css; charset=utf-8", include_str!("dashboard/style.css")),
    ("icon.svg", "image/svg+xml", include_str!("dashboard/icon.svg")),
];

/// The routes of this module.
pub fn routes() -> Vec<Route> {
    let open = |route: Route| route.for_whom(Allowed::Anyone);
    vec![
        open(get("/", Role::Read, "The dashboard", page)).answers_as("text/html"),
        open(get("/dashboard/{file}", Role::Read, "A file of the dashboard", file))
            .answers_as("text/javascript")
            .answers_as("text/css")
            .answers_as("image/svg+xml"),
    ]
}

/// A file as it is sent.
struct File {
    name: &'static str,
    media_type: &'static str,
    plain: &'static str,
    packed: Bytes,
    /// Changes with the contents, so that a browser keeps a file until the broker has another one.
    tag: HeaderValue,
}

impl File {
    fn new((name, media_type, plain): (&'static str, &'static str, &'static str)) -> Self {
        // The same in each process of a version.
        let mut hasher = DefaultHasher::new();
        plain.hash(&mut hasher);
        let tag = HeaderValue::try_from(format!("\"{:016x}\"", hasher.finish()));
        let tag = tag.expect("hexadecimal digits");
        Self { name, media_type, plain, packed: gzip(plain.as_bytes()).into(), tag }
    }
}

/// All files, packed at the first request.
static PACKED: LazyLock<Vec<File>> = LazyLock::new(|| FILES.into_iter().map(File::new).collect());

async fn page(State(admin): State<Shared>, headers: HeaderMap) -> Result<Response, Problem> {
    answer(&admin, &headers, "")
}

async fn file(
    State(admin): State<Shared>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    answer(&admin, &headers, &name)
}

fn answer(admin: &Shared, headers: &HeaderMap, name: &str) -> Result<Response, Problem> {
    let absent = |why| Problem::new(StatusCode::NOT_FOUND, why);
    if !admin.broker.settings.admin.dashboard {
        return Err(absent("the dashboard is turned off by admin.dashboard"));
    }
    let file = PACKED.iter().find(|file| file.name == name);
    let file = file.ok_or_else(|| absent("the dashboard has no such file"))?;
    let common = [
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (header::VARY, HeaderValue::from_static("accept-encoding")),
        (header::ETAG, file.tag.clone()),
    ];
    if headers.get(header::IF_NONE_MATCH) == Some(&file.tag) {
        return Ok((StatusCode::NOT_MODIFIED, common).into_response());
    }
    let media_type = [(header::CONTENT_TYPE, HeaderValue::from_static(file.media_type))];
    if accepts_gzip(headers) {
        let encoding = [(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"))];
        let packed = Body::from(file.packed.clone());
        return Ok((common, media_type, encoding, packed).into_response());
    }
    Ok((common, media_type, file.plain).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_files_of_the_dashboard_are_below_150_kb() {
        let bytes: usize = PACKED.iter().map(|file| file.plain.len()).sum();
        assert!(bytes < 150_000, "{bytes}");
        let packed: usize = PACKED.iter().map(|file| file.packed.len()).sum();
        assert!(packed < 50_000, "{packed}");
    }

    #[test]
    fn the_page_loads_no_file_that_is_not_served_and_has_no_inline_code() {
        let mut links = 0;
        for (name, _, text) in FILES {
            for quoted in text.split('"').skip(1).step_by(2) {
                let Some(file) = quoted.strip_prefix("dashboard/").or(quoted.strip_prefix("./"))
                else {
                    continue;
                };
                links += 1;
                assert!(PACKED.iter().any(|known| known.name == file), "{name}: {quoted}");
            }
            assert!(!text.contains("innerHTML") && !text.contains("style="), "{name}");
        }
        assert!(links >= 8, "{links}");
    }
}
