//! Events as JSON: the content of a request.

use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Serialize;

use super::sender::Clock;
use crate::control::webhooks::{Event, What};

#[derive(Serialize)]
struct Body<'a> {
    webhook: &'a str,
    /// With core and sequence, tells events of this process from those of an earlier one.
    started_ms: u64,
    events: Vec<Written<'a>>,
}

#[derive(Serialize)]
struct Written<'a> {
    event: &'static str,
    at_ms: u64,
    core: u16,
    sequence: u64,
    client: Option<&'a str>,
    user: Option<&'a str>,
    #[serde(flatten)]
    details: Details<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Details<'a> {
    Connect {
        address: Option<SocketAddr>,
        listener: &'a str,
        version: &'static str,
        keep_alive_s: u16,
        clean_start: bool,
        session_present: bool,
    },
    Disconnect {
        address: Option<SocketAddr>,
        listener: &'a str,
        cause: &'static str,
        seconds: u64,
    },
    Subscribe {
        filter: &'a str,
        qos: u8,
    },
    Unsubscribe {
        filter: &'a str,
    },
    Publish {
        topic: &'a str,
        qos: u8,
        retain: bool,
        payload_bytes: usize,
        #[serde(skip_serializing_if = "Option::is_none")]
        payload: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        payload_base64: Option<String>,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        payload_is_cut: bool,
    },
}

/// The content of a request with these events.
pub fn write(webhook: &str, events: &[Event], clock: &Clock) -> Vec<u8> {
    let events = events.iter().map(|event| written(event, clock)).collect();
    let body = Body { webhook, started_ms: clock.started_ms(), events };
    serde_json::to_vec(&body).expect("texts and numbers are JSON")
}

fn written<'a>(event: &'a Event, clock: &Clock) -> Written<'a> {
    let (kind, details) = match &event.what {
        What::Connect {
            address,
            listener,
            version,
            keep_alive_s,
            clean_start,
            session_present,
        } => {
            let details = Details::Connect {
                address: address.map(canonical),
                listener,
                version,
                keep_alive_s: *keep_alive_s,
                clean_start: *clean_start,
                session_present: *session_present,
            };
            ("connect", details)
        }
        What::Disconnect { address, listener, cause, seconds } => {
            let address = address.map(canonical);
            ("disconnect", Details::Disconnect { address, listener, cause, seconds: *seconds })
        }
        What::Subscribe { filter, qos } => {
            ("subscribe", Details::Subscribe { filter, qos: u8::from(*qos) })
        }
        What::Unsubscribe { filter } => ("unsubscribe", Details::Unsubscribe { filter }),
        What::Publish { topic, qos, retain, payload, payload_bytes } => {
            let (text, base64) = shown(payload, *payload_bytes);
            let details = Details::Publish {
                topic,
                qos: u8::from(*qos),
                retain: *retain,
                payload_bytes: *payload_bytes,
                payload: text,
                payload_base64: base64,
                payload_is_cut: payload.len() < *payload_bytes,
            };
            ("publish", details)
        }
    };
    Written {
        event: kind,
        at_ms: clock.wall_ms(event.at),
        core: event.core.0,
        sequence: event.sequence,
        client: event.client.as_deref(),
        user: event.user.as_deref(),
        details,
    }
}

/// IPv4 as such, also where a socket of IPv6 has accepted it.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// A payload as text, or in base64 if it is no text. The end of a payload that was cut within a character is left out.
fn shown(payload: &[u8], bytes: usize) -> (Option<&str>, Option<String>) {
    let is_cut = payload.len() < bytes;
    if is_cut && payload.is_empty() {
        return (None, None);
    }
    let text = match std::str::from_utf8(payload) {
        Ok(text) => Some(text),
        Err(error) if is_cut && error.error_len().is_none() => {
            std::str::from_utf8(&payload[..error.valid_up_to()]).ok()
        }
        Err(_) => None,
    };
    match text {
        Some(text) => (Some(text), None),
        None => (None, Some(BASE64.encode(payload))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_that_is_no_text_is_base64_and_one_that_was_cut_keeps_whole_characters() {
        let base64 = |text: &str| (None, Some(text.to_owned()));
        assert_eq!(shown("aä".as_bytes(), 3), (Some("aä"), None));
        assert_eq!(shown(b"a\xC3", 2), base64("YcM="));
        assert_eq!(shown(b"a\xC3", 3), (Some("a"), None), "cut within a character");
        assert_eq!(shown(b"\xFFa", 9), base64("/2E="));
        assert_eq!(shown(b"", 0), (Some(""), None));
        assert_eq!(shown(b"", 5), (None, None), "nothing of the payload is wanted");
    }
}
