//! Addresses of other brokers, as URLs.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Bytes of a host name at most, and of a label in it (RFC 1035).
const HOST_BYTES_MAX: usize = 253;
const LABEL_BYTES_MAX: usize = 63;

/// Bytes of a path at most: that of a WebSocket, and that of a Unix socket (`sun_path` of unix(7), with its end).
const PATH_BYTES_MAX: usize = 1_024;
const SOCKET_BYTES_MAX: usize = 107;

/// The path of a WebSocket unless one is named.
const WEBSOCKET_PATH: &str = "/mqtt";

/// An address of another broker.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Server {
    /// Whether the connection uses TLS: `mqtts`, `wss`.
    pub has_tls: bool,
    /// Host name in lower case, or address; one of IPv6 without brackets. Path of a Unix socket.
    pub host: String,
    /// Port; 0 with a Unix socket.
    pub port: u16,
    /// What carries MQTT.
    pub way: Way,
}

/// What carries MQTT to another broker, with or without TLS.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Way {
    /// TCP.
    Tcp,
    /// WebSocket at this path, which may have a query.
    WebSocket(String),
    /// A Unix socket.
    Unix,
}

impl Server {
    /// The path of the Unix socket, if it is one.
    pub fn unix_path(&self) -> Option<&Path> {
        (self.way == Way::Unix).then(|| Path::new(&self.host))
    }

    /// Host and path of the request of a WebSocket, if it is one (RFC 6455, 4.1).
    pub fn websocket_request(&self) -> Option<(String, &str)> {
        let Way::WebSocket(path) = &self.way else { return None };
        let host = match self.host.contains(':') {
            true => format!("[{}]", self.host),
            false => self.host.clone(),
        };
        let host = match self.port == self.scheme().1 {
            true => host,
            false => format!("{host}:{}", self.port),
        };
        Some((host, path))
    }

    /// The scheme, and its usual port (RFC 6455, 3, and that of MQTT).
    fn scheme(&self) -> (&'static str, u16) {
        match (&self.way, self.has_tls) {
            (Way::WebSocket(_), false) => ("ws", 80),
            (Way::WebSocket(_), true) => ("wss", 443),
            (_, false) => ("mqtt", 1883),
            (_, true) => ("mqtts", 8883),
        }
    }
}

impl FromStr for Server {
    type Err = String;

    /// Parses a URL. An error repeats no part of one that may have a password.
    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains('@') {
            return Err("a server has no user name and password in its URL; use username and \
                        password_file"
                .to_owned());
        }
        let wrong = |what: &str| Err(format!("{text:?}: {what}"));
        if let Some(path) = text.strip_prefix("unix:").filter(|path| !path.starts_with("//")) {
            return unix(path).or_else(wrong);
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return wrong("not a URL such as mqtt://broker.example.org or mqtts://192.0.2.1:8883");
        };
        let (has_tls, has_websocket) = match scheme.to_ascii_lowercase().as_str() {
            "mqtt" => (false, false),
            "mqtts" => (true, false),
            "ws" => (false, true),
            "wss" => (true, true),
            "unix" => return wrong("a Unix socket is written as unix:/path"),
            _ => {
                return wrong(&format!(
                    "{scheme} is not supported: use mqtt, mqtts, ws, wss or unix:/path"
                ));
            }
        };
        let (rest, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let way = match has_websocket {
            true => match websocket_path(path) {
                Ok(path) => Way::WebSocket(path),
                Err(what) => return wrong(what),
            },
            false if path.is_empty() => Way::Tcp,
            false => return wrong("nothing follows the host and the port; remove the path"),
        };
        let (host, port) = match rest.strip_prefix('[').map(|rest| rest.split_once(']')) {
            Some(Some((host, ""))) => (host, None),
            Some(Some((host, rest))) if rest.starts_with(':') => (host, Some(&rest[1..])),
            Some(_) => return wrong("an IPv6 address is written as [2001:db8::1]:1883"),
            None if rest.matches(':').count() > 1 => {
                return wrong("an IPv6 address needs brackets, such as [2001:db8::1]:1883");
            }
            None => match rest.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (rest, None),
            },
        };
        let mut server = match checked(host, rest.starts_with('[')) {
            Ok(host) => Self { has_tls, host, port: 0, way },
            Err(what) => return wrong(what),
        };
        server.port = match port.map(str::parse) {
            None => server.scheme().1,
            Some(Ok(port)) if port != 0 => port,
            Some(_) => return wrong("the port is not a number from 1 to 65535"),
        };
        Ok(server)
    }
}

/// The path of a WebSocket, as it stands in the request.
fn websocket_path(path: &str) -> Result<String, &'static str> {
    if path.is_empty() {
        return Ok(WEBSOCKET_PATH.to_owned());
    }
    if !path.starts_with('/') || !path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
        return Err(
            "the path of a WebSocket begins with / and has no space and no #; write other characters as %XX",
        );
    }
    match path.len() <= PATH_BYTES_MAX {
        true => Ok(path.to_owned()),
        false => Err("the path of a WebSocket has more than 1,024 bytes"),
    }
}

/// A Unix socket.
fn unix(path: &str) -> Result<Server, &'static str> {
    if !cfg!(unix) {
        return Err("this system has no Unix sockets");
    }
    if !path.starts_with('/') || path.contains('\0') {
        return Err("the path of a Unix socket begins with /, such as unix:/run/broker.sock");
    }
    match path.len() <= SOCKET_BYTES_MAX {
        true => Ok(Server { has_tls: false, host: path.to_owned(), port: 0, way: Way::Unix }),
        false => Err("the path of a Unix socket has more than 107 bytes"),
    }
}

/// The host in its usual form.
fn checked(host: &str, has_brackets: bool) -> Result<String, &'static str> {
    if has_brackets {
        let address = host.parse::<Ipv6Addr>();
        return address
            .map(|address| address.to_string())
            .map_err(|_| "what is in brackets is not an IPv6 address");
    }
    if !host.is_ascii() {
        return Err("the host name is not ASCII; write it in the form that begins with xn--");
    }
    let is_of_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let is_label =
        |label: &str| (1..=LABEL_BYTES_MAX).contains(&label.len()) && label.bytes().all(is_of_name);
    let name = host.strip_suffix('.').unwrap_or(host);
    if name.len() > HOST_BYTES_MAX || !name.split('.').all(is_label) {
        return Err("the host is neither a host name nor an address");
    }
    // Resolvers take the last label of digits for an address (RFC 3696, 2).
    let has_numbers = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
    if name.rsplit('.').next().is_some_and(has_numbers) && host.parse::<Ipv4Addr>().is_err() {
        return Err("the host is not an IPv4 address such as 192.0.2.1");
    }
    Ok(host.to_ascii_lowercase())
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, way, .. } = self;
        let (scheme, _) = self.scheme();
        match (way, host.contains(':')) {
            (Way::Unix, _) => return write!(f, "unix:{host}"),
            (_, true) => write!(f, "{scheme}://[{host}]:{port}")?,
            (_, false) => write!(f, "{scheme}://{host}:{port}")?,
        }
        match way {
            Way::WebSocket(path) => f.write_str(path),
            Way::Tcp | Way::Unix => Ok(()),
        }
    }
}

impl<'de> Deserialize<'de> for Server {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl Serialize for Server {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_a_host_or_an_address_and_its_port_is_that_of_the_scheme_unless_it_says() {
        let way = Way::Tcp;
        let server = |has_tls, host: &str, port| Server {
            has_tls,
            host: host.to_owned(),
            port,
            way: way.clone(),
        };
        for (text, expected, shown) in [
            ("mqtt://a.example", server(false, "a.example", 1883), "mqtt://a.example:1883"),
            ("mqtts://A.Example", server(true, "a.example", 8883), "mqtts://a.example:8883"),
            ("MQTT://my_host:1", server(false, "my_host", 1), "mqtt://my_host:1"),
            (
                "mqtt://192.0.2.1:65535",
                server(false, "192.0.2.1", 65_535),
                "mqtt://192.0.2.1:65535",
            ),
            (
                "mqtts://[2001:DB8:0::1]",
                server(true, "2001:db8::1", 8883),
                "mqtts://[2001:db8::1]:8883",
            ),
            ("mqtt://[::1]:7", server(false, "::1", 7), "mqtt://[::1]:7"),
        ] {
            let parsed: Server = text.parse().expect(text);
            assert_eq!(parsed, expected, "{text}");
            assert_eq!(parsed.to_string(), shown);
            assert_eq!(shown.parse(), Ok(parsed), "it is written as it is read");
        }
    }

    #[test]
    fn a_websocket_has_the_port_of_http_and_a_path_with_its_query() {
        for (text, shown, host, path) in [
            ("ws://A.example", "ws://a.example:80/mqtt", "a.example", "/mqtt"),
            ("wss://a.example/", "wss://a.example:443/", "a.example", "/"),
            ("wss://a:80/x/y?k=v", "wss://a:80/x/y?k=v", "a:80", "/x/y?k=v"),
            ("ws://[::1]:8080", "ws://[::1]:8080/mqtt", "[::1]:8080", "/mqtt"),
            (
                "wss://h/$iothub/websocket",
                "wss://h:443/$iothub/websocket",
                "h",
                "/$iothub/websocket",
            ),
        ] {
            let parsed: Server = text.parse().expect(text);
            assert_eq!(parsed.to_string(), shown);
            assert_eq!(parsed.has_tls, text.starts_with("wss"));
            assert_eq!(parsed.websocket_request(), Some((host.to_owned(), path)));
            assert_eq!(shown.parse(), Ok(parsed), "it is written as it is read");
        }
        let plain: Server = "mqtt://a".parse().expect("a server");
        assert_eq!((plain.websocket_request(), plain.unix_path()), (None, None));
    }

    #[cfg(unix)]
    #[test]
    fn a_unix_socket_is_named_by_its_path() {
        for (text, says) in [
            ("unix:run/a", "begins with /"),
            ("unix:", "begins with /"),
            (&format!("unix:/{}", "a".repeat(107)), "107 bytes"),
        ] {
            let error = text.parse::<Server>().expect_err(text);
            assert!(error.contains(says), "{text}: {error}");
        }
        let parsed: Server = "unix:/run/a.sock".parse().expect("a server");
        assert_eq!(parsed.unix_path(), Some(Path::new("/run/a.sock")));
        assert!(!parsed.has_tls);
        assert_eq!(parsed.to_string(), "unix:/run/a.sock");
    }

    #[test]
    fn what_is_no_server_is_refused_with_what_to_write() {
        let long = format!("mqtt://{}", "a".repeat(64));
        for (text, says) in [
            ("a.example:1883", "not a URL"),
            ("", "not a URL"),
            ("tcp://a", "tcp is not supported: use mqtt, mqtts, ws, wss or unix:/path"),
            ("ws://", "neither a host name nor an address"),
            ("ws://a?b", "begins with /"),
            ("ws://a/b c", "no space"),
            ("ws://a/b#c", "no #"),
            (&format!("ws://a/{}", "b".repeat(1_024)), "1,024 bytes"),
            ("unix://run/a", "a Unix socket is written as unix:/path"),
            ("mqtt://", "neither a host name nor an address"),
            ("mqtt://:1", "neither a host name nor an address"),
            ("mqtt://a..b", "neither a host name nor an address"),
            ("mqtt://a b", "neither a host name nor an address"),
            (&long, "neither a host name nor an address"),
            ("mqtt://bücher.example", "xn--"),
            ("mqtt://a/mqtt", "remove the path"),
            ("mqtt://a:0", "from 1 to 65535"),
            ("mqtt://a:65536", "from 1 to 65535"),
            ("mqtt://a:", "from 1 to 65535"),
            ("mqtt://300.0.2.1", "not an IPv4 address"),
            ("mqtt://1883", "not an IPv4 address"),
            ("mqtt://2001:db8::1", "needs brackets"),
            ("mqtt://[2001:db8::1", "is written as"),
            ("mqtt://[2001:db8::1]1", "is written as"),
            ("mqtt://[a]", "not an IPv6 address"),
        ] {
            let error = text.parse::<Server>().expect_err(text);
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn a_password_in_the_url_of_a_server_is_refused_and_not_repeated() {
        for text in ["mqtt://u:hush@a", "u:hush@a", "mqtt://a/hush@"] {
            let error = text.parse::<Server>().expect_err(text);
            assert!(error.contains("password_file") && !error.contains("hush"), "{error}");
        }
    }
}
