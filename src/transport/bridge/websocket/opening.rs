//! The HTTP request of a WebSocket, and the check of the answer (RFC 6455, 4.1). Knows no frames.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use crate::transport::request::{accept_of, end_of_empty_line, tokens, value};

/// Subprotocol of MQTT [MQTT-6.0.0-3].
const SUBPROTOCOL: &str = "mqtt";
/// Bytes of an answer at most, up to its empty line, and header fields in it.
const ANSWER_BYTES_MAX: usize = 16 * 1024;
const FIELDS_MAX: usize = 128;
/// Bytes of a text of the server in an error at most.
const QUOTED_BYTES_MAX: usize = 100;

/// A request that was sent, and its answer, which may be incomplete.
#[derive(Debug)]
pub(super) struct Opening {
    /// What proves that the server has read the request.
    accept: String,
    answer: Vec<u8>,
}

impl Opening {
    /// Also returns the request.
    pub(super) fn begin(host: &str, path: &str) -> Result<(Self, Vec<u8>), String> {
        let mut nonce = [0; 16];
        getrandom::fill(&mut nonce).map_err(|error| format!("no random bytes: {error}"))?;
        let key = BASE64_STANDARD.encode(nonce);
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Protocol: {SUBPROTOCOL}\r\nSec-WebSocket-Version: 13\r\n\r\n"
        );
        Ok((Self { accept: accept_of(&key), answer: Vec::new() }, request.into_bytes()))
    }

    /// Processes received bytes. Returns how many of them belong to the answer; none while it is incomplete.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<Option<usize>, String> {
        let before = self.answer.len();
        self.answer.extend_from_slice(&bytes[..bytes.len().min(ANSWER_BYTES_MAX - before)]);
        let unseen = before.saturating_sub(3);
        let Some(end) = end_of_empty_line(&self.answer[unseen..]) else {
            let could_begin = self.answer.iter().zip(b"HTTP/").all(|(is, should)| is == should);
            return match (could_begin, self.answer.len() < ANSWER_BYTES_MAX) {
                (true, true) => Ok(None),
                (false, _) => Err("the server does not answer the WebSocket request with HTTP; check scheme and port"
                    .to_owned()),
                (_, false) => Err(format!(
                    "the answer to the WebSocket request is longer than {ANSWER_BYTES_MAX} bytes"
                )),
            };
        };
        let end = unseen + end;
        self.check(&self.answer[..end])?;
        Ok(Some(end - before))
    }

    fn check(&self, answer: &[u8]) -> Result<(), String> {
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let mut response = httparse::Response::new(&mut fields);
        match response.parse(answer) {
            Ok(httparse::Status::Complete(_)) => {}
            Ok(httparse::Status::Partial) => {
                return Err("the answer to the WebSocket request is not HTTP".to_owned());
            }
            Err(error) => {
                return Err(format!("the answer to the WebSocket request is not HTTP: {error}"));
            }
        }
        let (status, reason) =
            (response.code.unwrap_or_default(), response.reason.unwrap_or_default());
        let fields = &*response.headers;
        if status != 101 {
            let quoted = quoted(reason);
            let hint = match (status, value(fields, "Location")) {
                (300..=399, Some(place)) => format!("; it names {}", self::quoted(place)),
                (404, _) => "; check the path of the server".to_owned(),
                _ => String::new(),
            };
            return Err(format!(
                "the server refuses the WebSocket request with {status} {quoted}{hint}"
            ));
        }
        let has = |name: &'static str, word: &str| {
            tokens(fields, name).any(|token| token.eq_ignore_ascii_case(word))
        };
        if !has("Upgrade", "websocket") || !has("Connection", "upgrade") {
            return Err("the server does not change to WebSocket: Upgrade or Connection is missing in its answer"
                .to_owned());
        }
        if value(fields, "Sec-WebSocket-Accept").map(str::trim) != Some(&self.accept) {
            return Err("Sec-WebSocket-Accept in the server's answer does not belong to the request; a proxy may have \
                        answered in its place"
                .to_owned());
        }
        if tokens(fields, "Sec-WebSocket-Extensions").next().is_some() {
            return Err("the server uses a WebSocket extension that was not offered".to_owned());
        }
        let mut subprotocols = tokens(fields, "Sec-WebSocket-Protocol");
        match (subprotocols.next(), subprotocols.next()) {
            (Some(SUBPROTOCOL), None) => Ok(()),
            (None, _) => Err("the server does not speak MQTT at this path: it has not chosen the subprotocol mqtt"
                .to_owned()),
            (Some(other), _) => Err(format!(
                "the server has chosen the subprotocol {}, not mqtt",
                quoted(other)
            )),
        }
    }

    pub(super) fn bytes_held(&self) -> usize {
        self.answer.capacity()
    }
}

/// A text of the server, short and without control characters.
fn quoted(text: &str) -> String {
    let end = text.floor_char_boundary(QUOTED_BYTES_MAX);
    text[..end].escape_debug().to_string()
}
