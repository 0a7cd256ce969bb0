//! Requests that a web page of another site makes a browser send are refused.

use std::net::IpAddr;

use axum::http::uri::Authority;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};

use crate::admin::problem::Problem;

/// Checks that the request is for this interface: by address, as localhost, or by a configured name. A page whose
/// name resolves to this machine is refused so (DNS rebinding).
pub fn check_host(headers: &HeaderMap, uri: &Uri, hosts: &[String]) -> Result<(), Problem> {
    let mut values = headers.get_all(header::HOST).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err(Problem::bad_request("one Host header is needed"));
    };
    let host: Option<Authority> = value.to_str().ok().and_then(|value| value.parse().ok());
    let Some(host) = host.filter(|host| !host.as_str().contains('@')) else {
        return Err(Problem::bad_request("the Host header is not HOST or HOST:PORT"));
    };
    let is_target = uri.authority().is_none_or(|target| target == &host);
    if is_target && is_known(host.host(), hosts) {
        return Ok(());
    }
    Err(Problem::new(
        StatusCode::MISDIRECTED_REQUEST,
        format!("{:?} is not a name of this interface; add it to admin.hosts", host.host()),
    ))
}

fn is_known(host: &str, hosts: &[String]) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || address.parse::<IpAddr>().is_ok() || hosts.contains(&host)
}

/// Checks that no page of another site asks for a change. A browser sends JSON to another site only if that site
/// agrees, which this interface never does, and says where the page is from.
pub fn check_change(method: &Method, headers: &HeaderMap) -> Result<(), Problem> {
    let host = headers.get(header::HOST).map(|host| host.as_bytes());
    let is_own = |origin: &[u8]| {
        let authority = origin.strip_prefix(b"http://").or(origin.strip_prefix(b"https://"));
        authority.is_some() && authority == host
    };
    let origins = headers.get_all(header::ORIGIN).iter();
    if origins.into_iter().any(|origin| !is_own(origin.as_bytes())) {
        return Err(Problem::forbidden("a page of another site may not ask for a change"));
    }
    // PUT and DELETE without content never come from a form.
    let length = headers.get(header::CONTENT_LENGTH).map(|length| length.as_bytes());
    let is_empty = length.is_none_or(|length| length == b"0");
    let media_type = headers.get(header::CONTENT_TYPE).and_then(|of| of.to_str().ok());
    let media_type = media_type.and_then(|of| of.split(';').next()).unwrap_or_default().trim();
    if media_type.eq_ignore_ascii_case("application/json") || (is_empty && method != Method::POST) {
        return Ok(());
    }
    let what = "a change needs Content-Type: application/json";
    Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, what))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn headers(of: &[(header::HeaderName, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in of {
            headers.append(name, HeaderValue::from_str(value).expect("a value"));
        }
        headers
    }

    #[test]
    fn a_request_for_another_host_is_refused() {
        let hosts = ["broker.example.org".to_owned()];
        let check = |host: &str, uri: &str| {
            check_host(&headers(&[(header::HOST, host)]), &uri.parse().expect("a URI"), &hosts)
                .map_err(|problem| problem.status().as_u16())
        };
        for host in ["localhost", "LOCALHOST:80", "127.0.0.1:9883", "[::1]:9883", "[::1]"] {
            assert_eq!(check(host, "/livez"), Ok(()), "{host}");
        }
        assert_eq!(check("broker.example.org", "/livez"), Ok(()));
        assert_eq!(check("Broker.example.org.:9883", "/livez"), Ok(()));
        for host in ["evil.example", "localhost.evil.example", "broker.example.org.evil", "127.1"] {
            assert_eq!(check(host, "/livez"), Err(421), "{host}");
        }
        assert_eq!(check("localhost", "http://evil.example/livez"), Err(421));
        assert_eq!(check("a@localhost", "/livez"), Err(400));
        let two = headers(&[(header::HOST, "localhost"), (header::HOST, "evil.example")]);
        assert!(check_host(&two, &Uri::from_static("/"), &hosts).is_err());
        assert!(check_host(&HeaderMap::new(), &Uri::from_static("/"), &hosts).is_err());
    }

    #[test]
    fn a_change_is_json_from_no_other_site() {
        let check = |method: Method, of: &[(header::HeaderName, &str)]| {
            let all = [&[(header::HOST, "localhost:1")], of].concat();
            check_change(&method, &headers(&all)).map_err(|problem| problem.status().as_u16())
        };
        let json = (header::CONTENT_TYPE, "application/json; charset=utf-8");
        let length = (header::CONTENT_LENGTH, "2");
        assert_eq!(check(Method::POST, std::slice::from_ref(&json)), Ok(()));
        assert_eq!(check(Method::POST, &[]), Err(415));
        assert_eq!(check(Method::DELETE, &[]), Ok(()));
        assert_eq!(check(Method::PUT, std::slice::from_ref(&length)), Err(415));
        let form = (header::CONTENT_TYPE, "text/plain");
        assert_eq!(check(Method::POST, &[form]), Err(415));
        for (origin, outcome) in [
            ("http://localhost:1", Ok(())),
            ("https://localhost:1", Ok(())),
            ("http://localhost", Err(403)),
            ("http://evil.example", Err(403)),
            ("null", Err(403)),
        ] {
            assert_eq!(check(Method::POST, &[json.clone(), (header::ORIGIN, origin)]), outcome);
            assert_eq!(check(Method::DELETE, &[(header::ORIGIN, origin)]), outcome, "{origin}");
        }
    }
}
