//! Addresses of other brokers, as URLs.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Bytes of a host name at most, and of a label in it (RFC 1035).
const HOST_BYTES_MAX: usize = 253;
const LABEL_BYTES_MAX: usize = 63;

/// An address of another broker.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Server {
    /// Whether the connection uses TLS: `mqtts`.
    pub has_tls: bool,
    /// Host name in lower case, or address; one of IPv6 without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
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
        let Some((scheme, rest)) = text.split_once("://") else {
            return wrong("not a URL such as mqtt://broker.example.org or mqtts://192.0.2.1:8883");
        };
        let has_tls = match scheme.to_ascii_lowercase().as_str() {
            "mqtt" => false,
            "mqtts" => true,
            _ => return wrong(&format!("{scheme} is not supported: use mqtt or mqtts")),
        };
        if rest.contains(['/', '?', '#']) {
            return wrong("nothing follows the host and the port; remove the path");
        }
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
        let default = if has_tls { 8883 } else { 1883 };
        let port = match port.map(str::parse) {
            None => default,
            Some(Ok(port)) if port != 0 => port,
            Some(_) => return wrong("the port is not a number from 1 to 65535"),
        };
        match checked(host, rest.starts_with('[')) {
            Ok(host) => Ok(Self { has_tls, host, port }),
            Err(what) => wrong(what),
        }
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
        let Self { has_tls, host, port } = self;
        let scheme = if *has_tls { "mqtts" } else { "mqtt" };
        match host.contains(':') {
            true => write!(f, "{scheme}://[{host}]:{port}"),
            false => write!(f, "{scheme}://{host}:{port}"),
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
        let server = |has_tls, host: &str, port| Server { has_tls, host: host.to_owned(), port };
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
    fn what_is_no_server_is_refused_with_what_to_write() {
        let long = format!("mqtt://{}", "a".repeat(64));
        for (text, says) in [
            ("a.example:1883", "not a URL"),
            ("", "not a URL"),
            ("ws://a", "ws is not supported: use mqtt or mqtts"),
            ("tcp://a", "use mqtt or mqtts"),
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
