//! The dashboard: one page with its scripts, from the binary, that uses the REST API.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::admin::Shared;
use crate::admin::compression::{accepts_gzip, unpack};
use crate::admin::problem::Problem;
use crate::admin::routes::{Allowed, Route, get};
use crate::config::Role;

/// What the page may load: only what this interface serves, and no inline code.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
    img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A file as it was packed while the broker was built.
macro_rules! packed {
    ($name:literal) => {
        include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".gz"))
    };
}

/// Names, media types and contents of the files.
const FILES: [(&str, &str, &[u8]); 9] = [
    ("", "text/html; charset=utf-8", packed!("index.html")),
    ("app.js", "text/javascript; charset=utf-8", packed!("app.js")),
    ("api.js", "text/javascript; charset=utf-8", packed!("api.js")),
    ("ui.js", "text/javascript; charset=utf-8", packed!("ui.js")),
    ("bridges.js", "text/javascript; charset=utf-8", packed!("bridges.js")),
    ("users.js", "text/javascript; charset=utf-8", packed!("users.js")),
    ("views.js", "text/javascript; charset=utf-8", packed!("views.js")),
    ("style.css", "text/css; charset=utf-8", packed!("style.css")),
    ("icon.svg", "image/svg+xml", packed!("icon.svg")),
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

/// The tag of a file: it changes with the contents, so that a browser keeps a file until the broker has another one.
fn tag(packed: &[u8]) -> HeaderValue {
    // The same in each process of a version.
    let mut hasher = DefaultHasher::new();
    packed.hash(&mut hasher);
    let tag = HeaderValue::try_from(format!("\"{:016x}\"", hasher.finish()));
    tag.expect("hexadecimal digits")
}

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
    let file = FILES.iter().find(|(known, ..)| *known == name);
    let (_, media_type, packed) = file.ok_or_else(|| absent("the dashboard has no such file"))?;
    let tag = tag(packed);
    let common = [
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (header::VARY, HeaderValue::from_static("accept-encoding")),
        (header::ETAG, tag.clone()),
    ];
    if headers.get(header::IF_NONE_MATCH) == Some(&tag) {
        return Ok((StatusCode::NOT_MODIFIED, common).into_response());
    }
    let media_type = [(header::CONTENT_TYPE, HeaderValue::from_static(media_type))];
    if accepts_gzip(headers) {
        let encoding = [(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"))];
        let packed = Body::from(Bytes::from_static(packed));
        return Ok((common, media_type, encoding, packed).into_response());
    }
    Ok((common, media_type, unpack(packed)).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_files_of_the_dashboard_are_below_150_kb() {
        let bytes: usize = FILES.iter().map(|(.., packed)| unpack(packed).len()).sum();
        assert!((50_000..150_000).contains(&bytes), "{bytes}");
        let packed: usize = FILES.iter().map(|(.., packed)| packed.len()).sum();
        assert!(packed < 50_000, "{packed}");
    }

    #[test]
    fn the_page_loads_no_file_that_is_not_served_and_has_no_inline_code() {
        let mut links = 0;
        for (name, _, packed) in FILES {
            let text = String::from_utf8(unpack(packed)).expect("text");
            for quoted in text.split('"').skip(1).step_by(2) {
                let Some(file) = quoted.strip_prefix("dashboard/").or(quoted.strip_prefix("./"))
                else {
                    continue;
                };
                links += 1;
                assert!(FILES.iter().any(|(known, ..)| *known == file), "{name}: {quoted}");
            }
            assert!(!text.contains("innerHTML") && !text.contains("style="), "{name}");
        }
        assert!(links >= 8, "{links}");
    }
}
