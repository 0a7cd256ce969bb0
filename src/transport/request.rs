//! The HTTP request of a WebSocket: checks, the answer, and the client's address from a proxy. Knows no
//! frames.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use crate::config::listener::WebSocket as Rules;
use crate::config::websocket::is_own_address;

/// Appended to the client's key before hashing (RFC 6455, 1.3).
const KEY_SUFFIX: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Subprotocols accepted: the second is used by clients of MQTT 3.1.
const SUBPROTOCOLS: [&str; 2] = ["mqtt", "mqttv3.1"];

/// A request that may be incomplete.
#[derive(Debug)]
pub(super) struct Request {
    rules: Arc<Rules>,
    is_forwarded: bool,
    has_tls: bool,
    bytes: Vec<u8>,
    /// Length of the prefix that was parsed last. While the request is not complete, prefixes are parsed whose
    /// length is a power of two: so a request that comes byte by byte costs no more than its length is worth,
    /// and whether it is refused does not depend on the pieces in which it comes.
    parsed: usize,
}

/// An accepted request.
#[derive(Debug)]
pub(super) struct Granted {
    /// Number of the last received bytes that belong to the request.
    pub(super) used: usize,
    /// The answer.
    pub(super) answer: Vec<u8>,
    /// Address of the client, from its proxy.
    pub(super) address: Option<SocketAddr>,
}

impl Request {
    pub(super) fn new(rules: Arc<Rules>, is_forwarded: bool, has_tls: bool) -> Self {
        Self { rules, is_forwarded, has_tls, bytes: Vec::new(), parsed: 0 }
    }

    /// Whether a proxy gives the address of the client.
    pub(super) fn is_forwarded(&self) -> bool {
        self.is_forwarded
    }

    pub(super) fn bytes_held(&self) -> usize {
        self.bytes.capacity()
    }

    /// Processes received bytes; none while the request is incomplete.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<Option<Granted>, NotGranted> {
        let (before, bytes_max) = (self.bytes.len(), self.rules.request_bytes_max as usize);
        self.bytes.extend_from_slice(&bytes[..bytes.len().min(bytes_max - before)]);
        let unseen = before.saturating_sub(3);
        let end = end_of_empty_line(&self.bytes[unseen..]).map(|end| unseen + end);
        let is_full = self.bytes.len() == bytes_max;
        let length = match (end, self.bytes.len().checked_ilog2()) {
            (Some(end), _) => end,
            (None, Some(exponent)) if !is_full => 1 << exponent,
            (None, _) => self.bytes.len(),
        };
        if length == self.parsed {
            return Ok(None);
        }
        self.parsed = length;
        let granted = self.parse(length, end.is_some(), is_full)?;
        Ok(granted.map(|granted| Granted { used: granted.used - before, ..granted }))
    }

    fn parse(
        &self,
        length: usize,
        is_ended: bool,
        is_full: bool,
    ) -> Result<Option<Granted>, NotGranted> {
        let (bytes, rules) = (&self.bytes[..length], &*self.rules);
        let bad = |what: &str| NotGranted::new("400 Bad Request", what);
        let mut fields = vec![httparse::EMPTY_HEADER; rules.request_fields_max as usize];
        let mut request = httparse::Request::new(&mut fields);
        let used = match request.parse(bytes) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) if is_ended => {
                return Err(bad("not an HTTP request: it begins with an empty line"));
            }
            Ok(httparse::Status::Partial) if !is_full => return Ok(None),
            Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
                let Rules { request_bytes_max, request_fields_max, .. } = rules;
                let what = format!(
                    "the request is longer than {request_bytes_max} bytes or has more than \
                     {request_fields_max} header fields: see websocket.request_bytes_max and \
                     request_fields_max in the configuration"
                );
                return Err(NotGranted::new("431 Request Header Fields Too Large", what));
            }
            Err(error) => return Err(bad(&format!("not an HTTP request: {error}"))),
        };
        if request.method != Some("GET") || request.version != Some(1) {
            return Err(bad("WebSocket requires a GET request of HTTP/1.1"));
        }
        let path = request.path.unwrap_or_default();
        let path = path.split_once('?').map_or(path, |(path, _)| path);
        if !rules.has_path(path) {
            let what = format!("MQTT is at {}, not at {path}", rules.path.join(", "));
            return Err(NotGranted::new("404 Not Found", what));
        }
        let answer = self.answer(request.headers)?;
        let address = self.is_forwarded.then(|| forwarded_for(request.headers, rules)).flatten();
        Ok(Some(Granted { used, answer, address }))
    }

    /// The answer to a request with these header fields.
    fn answer(&self, fields: &[httparse::Header<'_>]) -> Result<Vec<u8>, NotGranted> {
        let bad = |what: &str| NotGranted::new("400 Bad Request", what);
        let words = |name: &'static str| tokens(fields, name);
        let has = |name, word: &str| words(name).any(|token| token.eq_ignore_ascii_case(word));
        if !has("Upgrade", "websocket") || !has("Connection", "upgrade") {
            return Err(NotGranted::new(
                "426 Upgrade Required\r\nUpgrade: websocket",
                "this is a WebSocket for MQTT, not for web pages",
            ));
        }
        if !has("Sec-WebSocket-Version", "13") {
            return Err(NotGranted::new(
                "426 Upgrade Required",
                "Sec-WebSocket-Version must be 13",
            ));
        }
        self.check_origin(fields)?;
        let Some(subprotocol) =
            words("Sec-WebSocket-Protocol").find(|token| SUBPROTOCOLS.contains(token))
        else {
            // [MQTT-6.0.0-3]
            return Err(bad("Sec-WebSocket-Protocol does not offer mqtt"));
        };
        let key = words("Sec-WebSocket-Key").next().unwrap_or_default();
        if BASE64_STANDARD.decode(key).map_or(0, |nonce| nonce.len()) != 16 {
            return Err(bad("Sec-WebSocket-Key is not 16 bytes in Base64"));
        }
        let accept = accept_of(key);
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: {subprotocol}\r\n\r\n"
        );
        Ok(answer.into_bytes())
    }

    /// Browsers send the origin of the page that connects; other clients need not (RFC 6455, 10.2).
    fn check_origin(&self, fields: &[httparse::Header<'_>]) -> Result<(), NotGranted> {
        let Some(origin) = value(fields, "Origin").filter(|_| !self.rules.origins.is_empty())
        else {
            return Ok(());
        };
        let is_known = self.rules.origins.iter().any(|known| known.matches(origin));
        let host = value(fields, "Host").unwrap_or_default();
        if is_known || is_own_address(origin, host, self.has_tls) {
            return Ok(());
        }
        let what =
            "web pages of this origin may not connect: see websocket.origins in the configuration";
        Err(NotGranted::new("403 Forbidden", what))
    }
}

/// The proof that a server has read a client's key (RFC 6455, 4.2.2).
pub(super) fn accept_of(key: &str) -> String {
    let mut hash = sha1_smol::Sha1::from(key);
    hash.update(KEY_SUFFIX.as_bytes());
    BASE64_STANDARD.encode(hash.digest().bytes())
}

/// The end of the first empty line that follows the end of another line: where a request ends.
pub(super) fn end_of_empty_line(bytes: &[u8]) -> Option<usize> {
    let mut ends =
        bytes.iter().enumerate().filter(|&(_, &byte)| byte == b'\n').map(|(at, _)| at + 1);
    ends.find_map(|end| match &bytes[end..] {
        [b'\n', ..] => Some(end + 1),
        [b'\r', b'\n', ..] => Some(end + 2),
        _ => None,
    })
}

/// Address of the client from trusted proxies: the last address in the list that is not a trusted proxy. None if
/// the list has no address.
fn forwarded_for(fields: &[httparse::Header<'_>], rules: &Rules) -> Option<SocketAddr> {
    let named: Vec<&str> = tokens(fields, "X-Forwarded-For").collect();
    let mut nearest = None;
    for name in named.into_iter().rev() {
        let in_brackets = name.trim_start_matches('[').trim_end_matches(']');
        let address = name
            .parse::<SocketAddr>()
            .or_else(|_| in_brackets.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 0)));
        let Ok(address) = address else { break };
        nearest = Some(address);
        if !rules.trusts(Some(address.ip())) {
            break;
        }
    }
    nearest
}

/// The first value of a header field.
pub(super) fn value<'a>(fields: &'a [httparse::Header<'a>], name: &str) -> Option<&'a str> {
    let field = fields.iter().find(|field| field.name.eq_ignore_ascii_case(name))?;
    // A value that is not UTF-8 matches nothing.
    Some(std::str::from_utf8(field.value).unwrap_or("?"))
}

/// A refused request.
pub(super) struct NotGranted {
    status: &'static str,
    /// The reason, for the client and the log.
    pub(super) what: String,
}

impl NotGranted {
    fn new(status: &'static str, what: impl Into<String>) -> Self {
        Self { status, what: what.into() }
    }

    pub(super) fn answer(&self) -> Vec<u8> {
        let Self { status, what } = self;
        let length = what.len() + 1;
        format!(
            "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Type: text/plain; charset=utf-8\r\n\
             Sec-WebSocket-Version: 13\r\nContent-Length: {length}\r\n\r\n{what}\n"
        )
        .into_bytes()
    }
}

/// The elements of a header field that is a list, from all its lines.
pub(super) fn tokens<'a>(
    fields: &'a [httparse::Header<'a>],
    name: &'static str,
) -> impl Iterator<Item = &'a str> {
    let of_name = fields.iter().filter(move |field| field.name.eq_ignore_ascii_case(name));
    of_name
        .filter_map(|field| std::str::from_utf8(field.value).ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|token| !token.is_empty())
}
