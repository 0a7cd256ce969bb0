//! Options of WebSocket listeners: paths, limits of the request, and permitted origins.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::number::between;
use super::proxy::Proxy;

/// Options of a WebSocket listener.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
pub struct WebSocket {
    /// Accepted paths; `*` for any.
    #[serde(deserialize_with = "one_or_many")]
    pub path: Vec<String>,
    /// Accepted origins of web pages; empty for any. Clients other than browsers usually send no origin,
    /// and are accepted.
    pub origins: Vec<Origin>,
    /// Proxies whose `X-Forwarded-For` is trusted.
    pub forwarded_for_from: Vec<Proxy>,
    /// Whether each MQTT packet is a frame of its own; otherwise all packets of a turn are one frame.
    pub frame_per_packet: bool,
    /// Limit of the request's size in bytes, cookies included.
    #[serde(deserialize_with = "between::<_, _, 512, 1_048_576>")]
    pub request_bytes_max: u32,
    /// Limit of the number of header fields.
    #[serde(deserialize_with = "between::<_, _, 8, 10_000>")]
    pub request_fields_max: u32,
}

impl Default for WebSocket {
    fn default() -> Self {
        Self {
            path: ["/mqtt", "/ws", "/"].map(str::to_owned).to_vec(),
            origins: Vec::new(),
            forwarded_for_from: Vec::new(),
            frame_per_packet: true,
            request_bytes_max: 32 * 1024,
            request_fields_max: 128,
        }
    }
}

impl WebSocket {
    /// Whether pages of any site may connect.
    pub fn admits_any_page(&self) -> bool {
        self.origins.is_empty() || self.origins.contains(&Origin::Any)
    }

    /// Whether a path is accepted.
    pub fn has_path(&self, path: &str) -> bool {
        self.path.iter().any(|known| known == "*" || known == path)
    }

    /// Whether `X-Forwarded-For` from this address is trusted; none for a Unix socket.
    pub fn trusts(&self, address: Option<IpAddr>) -> bool {
        self.forwarded_for_from.iter().any(|proxy| proxy.is_at(address))
    }

    pub(super) fn check(&self) -> Result<(), String> {
        if self.path.is_empty() {
            return Err("websocket.path is empty; name a path such as \"/mqtt\", or \"*\" for any"
                .to_owned());
        }
        for path in self.path.iter().filter(|path| *path != "*") {
            let may_be_asked_for = path.starts_with('/')
                && path.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#*".contains(&byte));
            if !may_be_asked_for {
                return Err(format!(
                    "websocket.path {path:?} can match no request: a path begins with / and has no \
                     ?, #, * or space; \"*\" alone means any path"
                ));
            }
        }
        Ok(())
    }
}

/// An accepted origin of web pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Any origin: `*`.
    Any,
    /// Pages without an origin, such as files: `null`.
    Null,
    /// A site: `https://example.org`, `https://*.example.org`, `http://localhost:*`.
    Site {
        /// Scheme, such as `https`.
        scheme: String,
        /// Host, or the end of the host if [`Self::Site::is_below`].
        host: String,
        /// Whether all subdomains match, and not the host itself.
        is_below: bool,
        /// Port.
        port: PortOf,
    },
}

/// The port of an origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortOf {
    /// Any.
    Any,
    /// This port; none if the origin has none and the scheme has no default.
    Is(Option<u16>),
}

impl Origin {
    /// Whether a page's origin matches.
    pub fn matches(&self, origin: &str) -> bool {
        let Self::Site { scheme, host, is_below, port } = self else {
            return matches!(self, Self::Any) || origin == "null";
        };
        let origin = origin.to_ascii_lowercase();
        let Some(page) = split(&origin) else { return false };
        let is_port = match port {
            PortOf::Any => true,
            PortOf::Is(port) => page.port() == Ok(*port),
        };
        let is_host = match is_below {
            false => page.host == host,
            // The dot is part of it.
            true => page.host.len() > host.len() && page.host.ends_with(host.as_str()),
        };
        page.scheme == scheme && is_host && is_port
    }
}

/// Whether an origin is the address that the client connects to, which some clients other than browsers send.
/// Host names without TLS do not count: the owner of any site can point its name to this machine (DNS
/// rebinding), and only a certificate shows that the name belongs to the broker.
pub fn is_own_address(origin: &str, host: &str, has_tls: bool) -> bool {
    let (origin, host) = (origin.to_ascii_lowercase(), host.to_ascii_lowercase());
    let Some(page) = split(&origin) else { return false };
    let asked = format!("{}://{host}", page.scheme);
    let Some(asked) = split(&asked) else { return false };
    let is_scheme = page.scheme == "https" || (page.scheme == "http" && !has_tls);
    let is_no_name = page.host.parse::<Ipv4Addr>().is_ok()
        || page.host.starts_with('[')
        || page.host == "localhost";
    let is_same = page.host == asked.host && page.port().is_ok() && page.port() == asked.port();
    is_scheme && is_same && (has_tls || is_no_name)
}

/// The parts of `scheme://host:port`.
struct Parts<'a> {
    scheme: &'a str,
    host: &'a str,
    port: Option<&'a str>,
}

impl Parts<'_> {
    /// The port, or the default of the scheme.
    fn port(&self) -> Result<Option<u16>, ()> {
        match self.port {
            Some(port) => port.parse().map(Some).map_err(|_| ()),
            None => Ok(match self.scheme {
                "http" => Some(80),
                "https" => Some(443),
                _ => None,
            }),
        }
    }
}

fn split(text: &str) -> Option<Parts<'_>> {
    let (scheme, rest) = text.split_once("://")?;
    // An IPv6 address is in brackets, with colons of its own.
    let begin = rest.rfind(']').map_or(0, |end| end + 1);
    let (host, port) = match rest[begin..].find(':') {
        Some(colon) => (&rest[..begin + colon], Some(&rest[begin + colon + 1..])),
        None => (rest, None),
    };
    Some(Parts { scheme, host, port })
}

impl FromStr for Origin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "*" => return Ok(Self::Any),
            "null" => return Ok(Self::Null),
            _ => {}
        }
        let never = |why: &str| Err(format!("origin {text:?} can match no page: {why}"));
        let lower = text.to_ascii_lowercase();
        let Some(parts) = split(&lower) else {
            return never(
                "no scheme; expected a form such as \"https://example.org\", or \"*\" for any",
            );
        };
        let is_scheme = parts.scheme.starts_with(|first: char| first.is_ascii_lowercase())
            && parts.scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
        if !is_scheme || matches!(parts.scheme, "ws" | "wss") {
            return never("the scheme is the page's, http or https, not that of the WebSocket");
        }
        if !text.is_ascii() {
            return never("browsers encode letters other than ASCII as \"xn--...\"");
        }
        let after = &lower[parts.scheme.len() + "://".len()..];
        if after.contains(['/', '?', '#', '@', ' ']) {
            return never("an origin ends after host and port, with no / or path");
        }
        let port = match parts.port {
            Some("*") => PortOf::Any,
            _ => match parts.port() {
                Ok(port) => PortOf::Is(port),
                Err(()) => return never("the port is not a number"),
            },
        };
        let (host, is_below) = match parts.host.strip_prefix("*.") {
            Some(host) => (format!(".{host}"), true),
            None => (parts.host.to_owned(), false),
        };
        let name = host.trim_start_matches('.');
        if name.is_empty() || name.contains('*') {
            return never("a host is a name, an address, or \"*.\" and the end of a name");
        }
        let in_brackets = name.strip_prefix('[').map(|rest| rest.trim_end_matches(']'));
        if in_brackets.is_some_and(|address| address.parse::<Ipv6Addr>().is_err()) {
            return never("the brackets contain no IPv6 address");
        }
        Ok(Self::Site { scheme: parts.scheme.to_owned(), host, is_below, port })
    }
}

impl<'de> Deserialize<'de> for Origin {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Site { scheme, host, is_below, port } = self else {
            return f.write_str(if *self == Self::Any { "*" } else { "null" });
        };
        // The host of subdomains begins with a dot.
        write!(f, "{scheme}://{}{host}", if *is_below { "*" } else { "" })?;
        match port {
            PortOf::Any => f.write_str(":*"),
            PortOf::Is(Some(port)) => write!(f, ":{port}"),
            PortOf::Is(None) => Ok(()),
        }
    }
}

impl Serialize for Origin {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A string, or a list of strings.
fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    struct Texts;

    impl<'de> de::Visitor<'de> for Texts {
        type Value = Vec<String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a string, or a list of strings")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
            Ok(vec![text.to_owned()])
        }

        fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            let mut texts = Vec::new();
            while let Some(text) = list.next_element()? {
                texts.push(text);
            }
            Ok(texts)
        }
    }

    deserializer.deserialize_any(Texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_a_site_all_below_one_all_its_ports_or_any() {
        let matches =
            |rule: &str, origin: &str| rule.parse::<Origin>().expect(rule).matches(origin);
        for (rule, origin) in [
            ("https://example.org", "https://example.org"),
            ("https://Example.org:443", "https://example.org"),
            ("https://example.org", "https://example.org:443"),
            ("http://example.org:8080", "http://example.org:8080"),
            ("https://*.example.org", "https://a.b.example.org"),
            ("http://localhost:*", "http://localhost:5173"),
            ("http://[::1]:8080", "http://[::1]:8080"),
            ("capacitor://localhost", "capacitor://localhost"),
            ("null", "null"),
            ("*", "null"),
            ("*", "https://anything.example"),
        ] {
            assert!(matches(rule, origin), "{rule} {origin}");
        }
        for (rule, origin) in [
            ("https://example.org", "http://example.org"),
            ("https://example.org", "https://example.org:8443"),
            ("https://example.org", "https://example.org.evil.example"),
            ("https://*.example.org", "https://example.org"),
            ("https://*.example.org", "https://evilexample.org"),
            ("http://localhost:*", "http://localhost.evil.example:80"),
            ("https://example.org", "null"),
            ("null", "https://example.org"),
        ] {
            assert!(!matches(rule, origin), "{rule} {origin}");
        }
    }

    #[test]
    fn an_origin_that_can_never_match_is_refused_with_why() {
        for (wrong, why) in [
            ("example.org", "no scheme"),
            ("https://example.org/", "no / or path"),
            ("https://example.org/app", "no / or path"),
            ("wss://example.org", "the scheme is the page's"),
            ("https://", "a host is"),
            ("https://*", "a host is"),
            ("https://ex*mple.org", "a host is"),
            ("https://user@example.org", "no / or path"),
            ("https://bücher.example", "xn--"),
            ("https://example.org:port", "not a number"),
            ("https://example.org:65536", "not a number"),
            ("http://[::g]", "IPv6"),
            ("", "no scheme"),
        ] {
            let error = wrong.parse::<Origin>().expect_err(wrong);
            assert!(error.contains(why), "{wrong}: {error}");
        }
    }

    #[test]
    fn the_address_that_a_client_connects_to_is_its_own_origin_unless_a_name_could_lead_here() {
        for (origin, host, has_tls) in [
            ("http://127.0.0.1:8080", "127.0.0.1:8080", false),
            ("https://10.0.0.1", "10.0.0.1:443", false), // before a proxy that has TLS
            ("http://[::1]:8080", "[::1]:8080", false),
            ("http://localhost:8080", "localhost:8080", false),
            ("http://192.0.2.1", "192.0.2.1", false),
            ("https://broker.example:8443", "Broker.example:8443", true),
        ] {
            assert!(is_own_address(origin, host, has_tls), "{origin} {host}");
        }
        for (origin, host, has_tls) in [
            ("http://broker.example:8080", "broker.example:8080", false),
            ("http://127.0.0.1:8080", "127.0.0.1:8081", false),
            ("http://broker.example:8443", "broker.example:8443", true),
            ("https://evil.example", "broker.example", true),
            ("null", "null", true),
            ("http://127.0.0.1:x", "127.0.0.1:x", false),
            ("http://[]", "[]x", false),
        ] {
            assert!(!is_own_address(origin, host, has_tls), "{origin} {host}");
        }
    }

    #[test]
    fn proxies_are_networks_addresses_or_whoever_comes_through_a_unix_socket() {
        let trusts = |proxy: &str, address: Option<&str>| {
            let forwarded_for_from = vec![proxy.parse().expect(proxy)];
            let rules = WebSocket { forwarded_for_from, ..WebSocket::default() };
            rules.trusts(address.map(|address| address.parse().expect("an address")))
        };
        assert!(trusts("10.0.0.0/8", Some("10.1.2.3")) && trusts("10.0.0.1", Some("10.0.0.1")));
        assert!(trusts("10.0.0.1", Some("::ffff:10.0.0.1")) && trusts("unix", None));
        assert!(!trusts("10.0.0.1", Some("10.0.0.2")) && !trusts("10.0.0.1", None));
        assert!(!trusts("unix", Some("127.0.0.1")));
        assert!("localhost".parse::<Proxy>().is_err());
    }
}
