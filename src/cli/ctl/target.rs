//! Where the admin interface is, and the token for it.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::Error;

/// Environment variable with the place of the interface.
const AT_VARIABLE: &str = "RINGMQCTL_AT";
/// Environment variable with a token.
const TOKEN_VARIABLE: &str = "RINGMQCTL_TOKEN";
/// The socket of the service, whose RUNTIME_DIRECTORY a shell does not know.
const SERVICE_SOCKET: &str = "/run/ringmq/admin.sock";

/// Where the admin interface is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A Unix socket.
    Unix(PathBuf),
    /// A host with a port.
    Tcp {
        /// Host name or address, without brackets.
        host: String,
        /// Port.
        port: u16,
        /// Whether the connection uses TLS.
        tls: bool,
    },
}

impl Target {
    /// The value of the header `Host`.
    pub fn host_header(&self) -> String {
        match self {
            Self::Unix(_) => "localhost".to_owned(),
            Self::Tcp { host, port, .. } if host.contains(':') => format!("[{host}]:{port}"),
            Self::Tcp { host, port, .. } => format!("{host}:{port}"),
        }
    }

    /// Whether others could read what is sent: plain HTTP to another machine, or to a name that may be one.
    pub(super) fn is_exposed(&self) -> bool {
        let Self::Tcp { host, tls: false, .. } = self else { return false };
        let is_loopback = host.parse::<IpAddr>().is_ok_and(|of| of.to_canonical().is_loopback());
        !is_loopback && !host.eq_ignore_ascii_case("localhost")
    }

    /// The place that a user names, or the first that there is.
    pub fn find(named: Option<&Self>, configured: Vec<Self>) -> Result<Self, Error> {
        if let Some(named) = named {
            return Ok(named.clone());
        }
        if let Ok(text) = std::env::var(AT_VARIABLE) {
            return text.parse().map_err(|what| Error::Usage(format!("{AT_VARIABLE}: {what}")));
        }
        let all: Vec<Self> =
            configured.into_iter().chain([Self::Unix(SERVICE_SOCKET.into())]).collect();
        let is_there = |target: &&Self| match target {
            Self::Unix(path) => path.exists(),
            Self::Tcp { .. } => true,
        };
        let found = all.iter().find(is_there).cloned();
        found.ok_or_else(|| {
            let places: Vec<String> = all.iter().map(Self::to_string).collect();
            Error::Unreachable(format!(
                "no admin interface at {}; start the broker, or name the place with --at",
                places.join(" and ")
            ))
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp { tls, .. } => {
                let scheme = if *tls { "https" } else { "http" };
                write!(f, "{scheme}://{}", self.host_header())
            }
        }
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not unix:PATH, http://HOST:PORT or https://HOST:PORT");
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.is_empty() { Err(wrong()) } else { Ok(Self::Unix(path.into())) };
        }
        let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
        let tls = match scheme {
            "http" => false,
            "https" => true,
            _ => return Err(wrong()),
        };
        let (host, port) = rest.trim_end_matches('/').rsplit_once(':').ok_or_else(wrong)?;
        let port = port.parse().ok().filter(|port| *port > 0).ok_or_else(wrong)?;
        let host = match host.strip_prefix('[') {
            Some(address) => address.strip_suffix(']').ok_or_else(wrong)?,
            None => host,
        };
        let fits = |c: char| c.is_ascii_alphanumeric() || "-._:".contains(c);
        match !host.is_empty() && host.chars().all(fits) {
            true => Ok(Self::Tcp { host: host.to_owned(), port, tls }),
            false => Err(wrong()),
        }
    }
}

/// The token from a file, or from the environment.
pub(super) fn token(file: Option<&Path>) -> Result<Option<String>, Error> {
    let Some(file) = file else { return Ok(std::env::var(TOKEN_VARIABLE).ok()) };
    let text = std::fs::read_to_string(file).map_err(|error| {
        Error::Usage(format!(
            "--token-file {}: {error}; name a file with one token",
            file.display()
        ))
    })?;
    let token = text.trim();
    match !token.is_empty() && token.chars().all(|c| c.is_ascii_graphic()) {
        true => Ok(Some(token.to_owned())),
        false => Err(Error::Usage(format!(
            "--token-file {}: the file does not contain a token; `broker ctl token add` prints one",
            file.display()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_socket_or_a_url_with_a_port() {
        let tcp = |host: &str, port, tls| Ok(Target::Tcp { host: host.to_owned(), port, tls });
        assert_eq!("unix:/x y".parse(), Ok(Target::Unix("/x y".into())));
        assert_eq!("http://localhost:9883/".parse(), tcp("localhost", 9883, false));
        assert_eq!("https://[::1]:1".parse(), tcp("::1", 1, true));
        for wrong in
            ["", "unix:", "localhost:1", "ftp://a:1", "http://a", "http://a:0", "http://:1"]
        {
            let error = wrong.parse::<Target>().expect_err(wrong);
            assert!(error.contains("unix:PATH"), "{error}");
        }
        for text in ["unix:/x", "http://127.0.0.1:9883", "https://[::1]:9883"] {
            assert_eq!(text.parse::<Target>().expect("a place").to_string(), text);
        }
    }

    #[test]
    fn plain_http_to_another_machine_is_exposed() {
        for (text, is_exposed) in [
            ("unix:/x", false),
            ("https://example.org:1", false),
            ("http://127.0.0.2:1", false),
            ("http://[::1]:1", false),
            ("http://[::ffff:127.0.0.1]:1", false),
            ("http://localhost:1", false),
            ("http://192.0.2.1:1", true),
            ("http://broker:1", true),
            ("http://localhost.example.org:1", true),
        ] {
            assert_eq!(text.parse::<Target>().expect("a place").is_exposed(), is_exposed, "{text}");
        }
    }
}
