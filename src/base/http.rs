//! HTTP servers of the operator that the broker sends requests to: the URL of one without the secrets in it, its
//! certificate authorities, and the client that asks it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use ureq::http::Uri;
use ureq::tls::{Certificate, RootCerts};

use crate::base::pem;
use crate::base::pem::Kind;

/// Environment variable that names the certificate authorities of this machine.
const CERT_FILE: &str = "SSL_CERT_FILE";

/// A server, and the credentials for it.
#[derive(Clone, Debug)]
pub struct Target {
    /// The URL without name and password.
    pub url: String,
    /// Value of the header `Authorization`, if the URL has name and password.
    pub authorization: Option<String>,
    /// The URL for the log, without secrets, which may also be in the query.
    pub name: String,
}

impl Target {
    /// Parses the URL that a key of the configuration has. Errors never repeat any part of it.
    pub fn parse(key: &str, url: &str) -> Result<Self, String> {
        let wrong = |what: &str| format!("{key}: {what}");
        let form = "a URL such as https://login.example.org/mqtt is expected";
        let uri: Uri = url.parse().map_err(|_| wrong(form))?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(wrong(form));
        };
        if !matches!(scheme, "http" | "https") || authority.host().is_empty() {
            return Err(wrong(form));
        }
        let (user_info, host) = match authority.as_str().rsplit_once('@') {
            Some((user_info, host)) => (Some(user_info), host),
            None => (None, authority.as_str()),
        };
        // An unescaped `/`, `?` or `#` in a password would end the host.
        if url.matches('@').count() > usize::from(user_info.is_some()) {
            return Err(wrong(
                "it has an @ that is not before the host; write @ as %40, / as %2F, ? as \
                 %3F and # as %23 in a name, a password, a path or a query",
            ));
        }
        let query = if uri.query().is_some() { "?…" } else { "" };
        let rest = uri.path_and_query().map_or("/", |rest| rest.as_str());
        Ok(Self {
            url: format!("{scheme}://{host}{rest}"),
            authorization: user_info.map(basic),
            name: format!("{scheme}://{host}{}{query}", uri.path()),
        })
    }

    pub fn is_secure(&self) -> bool {
        self.url.starts_with("https:")
    }

    /// The HTTP client for the server. It trusts the certificate authorities in the file `ca`, which the key `key`
    /// names; if there is none, those of the environment, otherwise those that browsers trust.
    pub fn client(
        &self,
        (key, ca): (&str, &Path),
        timeout: Duration,
        environment: impl Fn(&str) -> Option<OsString>,
    ) -> Result<ureq::Agent, String> {
        let trusted = self.trusted((key, ca), environment)?;
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(timeout))
            .http_status_as_error(false)
            .max_redirects(0)
            // Proxies of the environment are not meant for passwords.
            .proxy(None)
            .tls_config(ureq::tls::TlsConfig::builder().root_certs(trusted).build())
            .user_agent(concat!("ringmq/", env!("CARGO_PKG_VERSION")))
            .build();
        Ok(config.into())
    }

    fn trusted(
        &self,
        (key, ca): (&str, &Path),
        environment: impl Fn(&str) -> Option<OsString>,
    ) -> Result<RootCerts, String> {
        if !self.is_secure() {
            return match ca.as_os_str().is_empty() {
                true => Ok(RootCerts::WebPki),
                false => Err(format!("{key} has no effect for an http URL; use https")),
            };
        }
        if !ca.as_os_str().is_empty() {
            return read(key, ca, true);
        }
        match environment(CERT_FILE).filter(|file| !file.is_empty()) {
            Some(file) => read(CERT_FILE, &PathBuf::from(file), false),
            None => Ok(RootCerts::WebPki),
        }
    }
}

/// Encodes the name and password of a URL (RFC 7617).
fn basic(user_info: &str) -> String {
    let (user, password) = user_info.split_once(':').unwrap_or((user_info, ""));
    let credentials = [&*decoded(user), b":", &*decoded(password)].concat();
    format!("Basic {}", BASE64.encode(credentials))
}

/// Decodes percent-encoding.
fn decoded(text: &str) -> Vec<u8> {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let [first, after @ ..] = rest {
        let digits = after.first_chunk::<2>().filter(|_| *first == b'%');
        let digit = |byte: u8| char::from(byte).to_digit(16);
        let byte = digits.and_then(|[high, low]| Some(digit(*high)? * 16 + digit(*low)?));
        bytes.push(byte.map_or(*first, |byte| byte as u8));
        rest = if byte.is_some() { &after[2..] } else { after };
    }
    bytes
}

/// Reads certificate authorities from a file. With `is_strict`, every certificate has to be usable; the list of a
/// whole machine may have some that this TLS library does not accept.
fn read(of: &str, file: &Path, is_strict: bool) -> Result<RootCerts, String> {
    let wrong = |what: &dyn std::fmt::Display| format!("{of}: {}: {what}", file.display());
    let text = std::fs::read(file).map_err(|error| wrong(&error))?;
    let certificates: Vec<CertificateDer<'static>> =
        pem::read(&text, Kind::Certificates).map_err(|what| wrong(&what))?;
    let mut roots = RootCertStore::empty();
    for (number, certificate) in certificates.iter().enumerate() {
        let added = roots.add(certificate.clone());
        if let (Err(error), true) = (added, is_strict) {
            return Err(wrong(&format_args!("certificate {}: {error}", number + 1)));
        }
    }
    if roots.is_empty() {
        return Err(wrong(&"none of its certificates can be used"));
    }
    let owned = |certificate: &CertificateDer<'_>| Certificate::from_der(certificate).to_owned();
    Ok(RootCerts::new_with_certs(&certificates.iter().map(owned).collect::<Vec<_>>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_known_without_the_secrets_in_it() {
        let url = "https://us:p%40s%3Fs%zz@host.example:8443/mqtt/in?key=secret";
        let target = Target::parse("access.http.url", url).expect("it is one");
        assert_eq!(target.url, "https://host.example:8443/mqtt/in?key=secret");
        assert_eq!(target.name, "https://host.example:8443/mqtt/in?…");
        let expected = format!("Basic {}", BASE64.encode("us:p@s?s%zz"));
        assert_eq!(target.authorization, Some(expected));
        let target = Target::parse("access.http.url", "http://[::1]:80").expect("it is one");
        assert_eq!((&*target.url, &*target.name), ("http://[::1]:80/", "http://[::1]:80/"));
        assert_eq!(target.authorization, None);
    }

    #[test]
    fn a_url_that_is_none_is_refused_without_being_repeated() {
        for url in [
            "secret",
            "ftp://secret:secret@host/",
            "http://",
            "http:///secret",
            "http://u:secret/secret@host/",
            "http://u:secret?secret@host/",
            "http://u:secret#secret@host/",
            "http://u:sec ret@host/",
            "http://u:secret@ho st/",
        ] {
            let error = Target::parse("access.http.url", url).expect_err(url);
            assert!(error.starts_with("access.http.url: ") && !error.contains("sec"), "{error}");
        }
    }
}
