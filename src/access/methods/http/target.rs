//! Whom the hook asks: the URL apart from the secrets in it, and the authorities that may vouch for it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use ureq::http::Uri;
use ureq::tls::{Certificate, RootCerts};

use crate::base::pem;
use crate::base::pem::Kind;
use crate::config::Http;

/// The variable by which other programs are told the authorities of this machine.
const CERT_FILE: &str = "SSL_CERT_FILE";

/// A server, with what is to be said to it to be let in.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// The URL without a name and a password.
    pub url: String,
    /// What the header `Authorization` says, where the URL has them.
    pub authorization: Option<String>,
    /// The URL as it may stand in a log: without secrets, which may be in its query too.
    pub name: String,
}

impl Target {
    /// Takes a URL apart. No error repeats any of it.
    pub fn parse(url: &str) -> Result<Self, String> {
        let wrong = |what: &str| format!("access.http.url: {what}");
        let form = "a URL as https://login.example.org/mqtt is expected";
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
        // A password with one of `/?#` as it is would end the host there, and be taken for a path.
        if url.matches('@').count() > usize::from(user_info.is_some()) {
            return Err(wrong(
                "it has an @ that does not stand before the host; write @ as %40, / as %2F, ? as \
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

    fn is_secure(&self) -> bool {
        self.url.starts_with("https:")
    }

    /// The authorities of which one has to have signed the server's certificate: those of the
    /// configuration, else those of the environment, else those that browsers know.
    pub fn trusted(
        &self,
        settings: &Http,
        environment: impl Fn(&str) -> Option<OsString>,
    ) -> Result<RootCerts, String> {
        if !self.is_secure() {
            return match settings.ca.as_os_str().is_empty() {
                true => Ok(RootCerts::WebPki),
                false => {
                    Err("access.http.ca means nothing for a URL of http; say https".to_owned())
                }
            };
        }
        if !settings.ca.as_os_str().is_empty() {
            return read("access.http.ca", &settings.ca, true);
        }
        match environment(CERT_FILE).filter(|file| !file.is_empty()) {
            Some(file) => read(CERT_FILE, &PathBuf::from(file), false),
            None => Ok(RootCerts::WebPki),
        }
    }
}

/// What RFC 7617 makes of the name and the password in a URL.
fn basic(user_info: &str) -> String {
    let (user, password) = user_info.split_once(':').unwrap_or((user_info, ""));
    let credentials = [&*decoded(user), b":", &*decoded(password)].concat();
    format!("Basic {}", BASE64.encode(credentials))
}

/// Bytes of which some are written as `%` and two digits.
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

/// Authorities of a file. Of a list that was made for this alone each has to be of use; one of a whole
/// machine may have some that this TLS does not take.
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
        return Err(wrong(&"none of its certificates is of use"));
    }
    let owned = |certificate: &CertificateDer<'_>| Certificate::from_der(certificate).to_owned();
    Ok(RootCerts::new_with_certs(&certificates.iter().map(owned).collect::<Vec<_>>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_known_without_the_secrets_in_it() {
        let target = Target::parse("https://us:p%40s%3Fs%zz@host.example:8443/mqtt/in?key=secret")
            .expect("it is one");
        assert_eq!(target.url, "https://host.example:8443/mqtt/in?key=secret");
        assert_eq!(target.name, "https://host.example:8443/mqtt/in?…");
        let expected = format!("Basic {}", BASE64.encode("us:p@s?s%zz"));
        assert_eq!(target.authorization, Some(expected));
        let target = Target::parse("http://[::1]:80").expect("it is one");
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
            let error = Target::parse(url).expect_err(url);
            assert!(error.starts_with("access.http.url: ") && !error.contains("sec"), "{error}");
        }
    }
}
