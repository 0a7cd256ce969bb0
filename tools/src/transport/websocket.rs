//! WebSocket (RFC 6455) as a client: a request, then MQTT in masked binary frames, and the payload
//! of the broker's frames, whose boundaries MQTT ignores. Offers no extension.

use std::io;

use base64::{Engine as _, prelude::BASE64_STANDARD};

use super::wrong;

/// Maximum size of the response to the request, including its body.
const ANSWER_BYTES_MAX: usize = 8 * 1024;
/// Maximum number of header fields in it.
const ANSWER_FIELDS_MAX: usize = 64;
/// Appended to the key before it is hashed (1.3).
const KEY_SUFFIX: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Maximum payload of a control frame (5.5).
const CONTROL_BYTES_MAX: u64 = 125;
/// Maximum header size of an unmasked frame.
const HEAD_BYTES_MAX: usize = 10;
/// The bit of a masked payload.
const MASKED: u8 = 0x80;

mod opcode {
    pub const CONTINUATION: u8 = 0x0;
    pub const BINARY: u8 = 0x2;
    pub const CLOSE: u8 = 0x8;
    pub const PING: u8 = 0x9;
    pub const PONG: u8 = 0xA;
    /// The last or only frame of a message.
    pub const FINAL: u8 = 0x80;
}

/// WebSocket of one connection.
#[derive(Debug)]
pub struct WebSocket {
    phase: Phase,
    /// The mask of the next frame. Masks protect proxies from browsers (10.3), and neither is
    /// involved here: so it need not be random, but it differs from frame to frame.
    mask: u32,
}

#[derive(Debug)]
enum Phase {
    /// The request has not been sent.
    Before { request: Vec<u8>, key: String },
    /// The response is incomplete.
    Asking { answer: Vec<u8>, key: String, path: String },
    /// The connection is open.
    Open(Frames),
    /// The broker has closed it.
    Ended,
}

/// State of the input.
#[derive(Debug, Default)]
struct Frames {
    head: [u8; HEAD_BYTES_MAX],
    head_bytes: usize,
    /// Remaining payload of the current frame, once its header is complete.
    left: Option<u64>,
    opcode: u8,
    /// The received part of a control frame's payload.
    control: Vec<u8>,
}

impl WebSocket {
    /// A request for `path` of `host`.
    pub fn new(path: &str, host: &str) -> Self {
        let mut nonce = [0; 16];
        getrandom::fill(&mut nonce).expect("the system has random bytes");
        let [a, b, c, d, ..] = nonce;
        let key = BASE64_STANDARD.encode(nonce);
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Protocol: mqtt\r\n\
             Sec-WebSocket-Version: 13\r\n\r\n"
        );
        let phase = Phase::Before { request: request.into_bytes(), key };
        Self { phase, mask: u32::from_ne_bytes([a, b, c, d]) }
    }

    /// The request, on the first call.
    pub fn take_request(&mut self) -> Option<Vec<u8>> {
        let Phase::Before { request, key } = &mut self.phase else { return None };
        let (request, key) = (std::mem::take(request), std::mem::take(key));
        let path = request.split(|&byte| byte == b' ').nth(1).unwrap_or_default();
        let path = String::from_utf8_lossy(path).into_owned();
        self.phase = Phase::Asking { answer: Vec::new(), key, path };
        Some(request)
    }

    /// Whether the connection is open.
    pub fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open(_))
    }

    /// Whether the broker has closed it.
    pub fn is_ended(&self) -> bool {
        matches!(self.phase, Phase::Ended)
    }

    /// Appends a frame with `bytes` to `out`.
    pub fn frame(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        self.write_frame(opcode::BINARY, bytes, out);
    }

    fn write_frame(&mut self, opcode: u8, bytes: &[u8], out: &mut Vec<u8>) {
        out.push(opcode::FINAL | opcode);
        match bytes.len() {
            length @ 0..=125 => out.push(MASKED | length as u8),
            length @ 126..=0xFFFF => {
                out.push(MASKED | 126);
                out.extend_from_slice(&(length as u16).to_be_bytes());
            }
            length => {
                out.push(MASKED | 127);
                out.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        self.mask = self.mask.wrapping_mul(0x9E37_79B1).wrapping_add(0x7F4A_7C15);
        let mask = self.mask.to_ne_bytes();
        out.extend_from_slice(&mask);
        let begin = out.len();
        out.extend_from_slice(bytes);
        mask_in_place(&mut out[begin..], mask);
    }

    /// Moves the MQTT data in `bytes` to the front; returns its length. Responses are appended to
    /// `answer`.
    pub fn receive(&mut self, bytes: &mut [u8], answer: &mut Vec<u8>) -> io::Result<usize> {
        let mut begin = 0;
        if let Phase::Asking { answer: head, key, path } = &mut self.phase {
            let before = head.len();
            head.extend_from_slice(&bytes[..bytes.len().min(ANSWER_BYTES_MAX - before)]);
            let Some(length) = judge(head, key, path)? else { return Ok(0) };
            begin = length - before;
            self.phase = Phase::Open(Frames::default());
        }
        let mut filled = 0;
        while let Phase::Open(frames) = &mut self.phase {
            let (used, payload) = frames.take(&mut bytes[filled..], begin - filled)?;
            begin = filled + used;
            match payload {
                Taken::Nothing => break,
                Taken::Mqtt(length) => filled += length,
                Taken::Ping(payload) => self.write_frame(opcode::PONG, &payload, answer),
                Taken::Close(code) => {
                    self.write_frame(opcode::CLOSE, &code, answer);
                    self.phase = Phase::Ended;
                }
            }
        }
        Ok(filled)
    }
}

/// The result of processing a frame, or part of one.
#[derive(Debug, PartialEq, Eq)]
enum Taken {
    /// All input is consumed.
    Nothing,
    /// This many bytes were moved to the front.
    Mqtt(usize),
    Ping(Vec<u8>),
    /// The frame requires this response.
    Close(Vec<u8>),
}

impl Frames {
    /// Processes `bytes[begin..]` and moves MQTT data to the front; returns the end of the consumed
    /// input.
    fn take(&mut self, bytes: &mut [u8], mut begin: usize) -> io::Result<(usize, Taken)> {
        loop {
            let Some(left) = &mut self.left else {
                let need = head_need(&self.head[..self.head_bytes]);
                if self.head_bytes < need {
                    let Some(&byte) = bytes.get(begin) else { return Ok((begin, Taken::Nothing)) };
                    self.head[self.head_bytes] = byte;
                    self.head_bytes += 1;
                    begin += 1;
                } else {
                    self.begin_payload()?;
                }
                continue;
            };
            let part = (*left).min((bytes.len() - begin) as u64) as usize;
            let end = begin + part;
            *left -= part as u64;
            let is_whole = *left == 0;
            if is_whole {
                self.left = None;
            }
            if self.opcode & 0x8 == 0 {
                if part == 0 && !is_whole {
                    return Ok((begin, Taken::Nothing));
                }
                bytes.copy_within(begin..end, 0);
                return Ok((end, Taken::Mqtt(part)));
            }
            self.control.extend_from_slice(&bytes[begin..end]);
            if !is_whole {
                return Ok((end, Taken::Nothing));
            }
            begin = end;
            let payload = std::mem::take(&mut self.control);
            match self.opcode {
                opcode::PING => return Ok((end, Taken::Ping(payload))),
                opcode::CLOSE => {
                    let code = payload.get(..2).unwrap_or_default().to_vec();
                    return Ok((end, Taken::Close(code)));
                }
                _ => {}
            }
        }
    }

    /// Checks a complete header.
    fn begin_payload(&mut self) -> io::Result<()> {
        let head = &self.head;
        let (is_final, opcode) = (head[0] & opcode::FINAL != 0, head[0] & 0x0F);
        let length = match head[1] {
            126 => u64::from(u16::from_be_bytes([head[2], head[3]])),
            127 => u64::from_be_bytes(head[2..10].try_into().expect("eight bytes")),
            length => u64::from(length),
        };
        let is_sound = match opcode {
            opcode::CONTINUATION | opcode::BINARY => true,
            opcode::CLOSE | opcode::PING | opcode::PONG => is_final && length <= CONTROL_BYTES_MAX,
            _ => false,
        };
        if !is_sound || head[0] & 0x70 != 0 || head[1] & MASKED != 0 {
            let [a, b, ..] = *head;
            return Err(wrong(format!(
                "WebSocket: the broker sent an invalid frame, starting with {a:#04x} {b:#04x}"
            )));
        }
        (self.opcode, self.left, self.head_bytes) = (opcode, Some(length), 0);
        Ok(())
    }
}

/// The length of the header that starts with these bytes.
fn head_need(head: &[u8]) -> usize {
    match head {
        [_, 126, ..] => 4,
        [_, 127, ..] => 10,
        _ => 2,
    }
}

/// Applies a mask (5.3), eight bytes at a time, which compilers vectorize.
fn mask_in_place(bytes: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (eights, rest) = bytes.as_chunks_mut::<8>();
    for eight in eights {
        *eight = (u64::from_ne_bytes(*eight) ^ wide).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

/// The length of the response at the start of `bytes`, if it accepts the request; `None` if it is
/// incomplete.
fn judge(bytes: &[u8], key: &str, path: &str) -> io::Result<Option<usize>> {
    let mut fields = [httparse::EMPTY_HEADER; ANSWER_FIELDS_MAX];
    let mut answer = httparse::Response::new(&mut fields);
    let length = match answer.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if bytes.len() < ANSWER_BYTES_MAX => return Ok(None),
        Ok(httparse::Status::Partial) => {
            return Err(wrong("WebSocket: a response larger than 8 KiB"));
        }
        Err(error) => return Err(wrong(format!("WebSocket: the response is not HTTP: {error}"))),
    };
    let (code, reason) = (answer.code.unwrap_or(0), answer.reason.unwrap_or_default());
    if code != 101 {
        let body = String::from_utf8_lossy(&bytes[length..]);
        let body = body.lines().next().unwrap_or_default();
        let colon = if body.is_empty() { "" } else { ": " };
        return Err(wrong(format!(
            "the broker refused WebSocket at {path} with HTTP status {code} {reason}{colon}{body}"
        )));
    }
    let field = |name: &str| {
        let field = answer.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name));
        field.and_then(|field| std::str::from_utf8(field.value).ok()).unwrap_or_default().trim()
    };
    let mut hash = sha1_smol::Sha1::from(key);
    hash.update(KEY_SUFFIX.as_bytes());
    if field("Sec-WebSocket-Accept") != BASE64_STANDARD.encode(hash.digest().bytes()) {
        return Err(wrong("WebSocket: the broker's Sec-WebSocket-Accept does not match the key"));
    }
    if field("Sec-WebSocket-Protocol") != "mqtt" {
        return Err(wrong("WebSocket: the broker selected another subprotocol than mqtt"));
    }
    Ok(Some(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
    /// The response to the key of RFC 6455, 1.3, with the MQTT subprotocol.
    const GRANTED: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
        Connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\
        Sec-WebSocket-Protocol: mqtt\r\n\r\n";

    fn asking() -> WebSocket {
        let (answer, key, path) = (Vec::new(), KEY.into(), "/mqtt".into());
        WebSocket { phase: Phase::Asking { answer, key, path }, mask: 7 }
    }

    /// The MQTT data in `bytes`, processed in pieces of this size, and the responses.
    fn receive(
        websocket: &mut WebSocket,
        bytes: &[u8],
        step: usize,
    ) -> io::Result<(Vec<u8>, Vec<u8>)> {
        let (mut mqtt, mut answer) = (Vec::new(), Vec::new());
        for piece in bytes.chunks(step) {
            let mut piece = piece.to_vec();
            let filled = websocket.receive(&mut piece, &mut answer)?;
            mqtt.extend_from_slice(&piece[..filled]);
        }
        Ok((mqtt, answer))
    }

    /// A positive response, frames with every length of header, one fragmented message, a ping in
    /// between.
    fn stream() -> (Vec<u8>, Vec<u8>) {
        let (mut bytes, mut mqtt) = (GRANTED.as_bytes().to_vec(), Vec::new());
        for (first, length) in [(0x82, 5), (0x02, 0), (0x00, 300), (0x80, 70_000), (0x82, 1)] {
            let payload: Vec<u8> = (0..length).map(|byte| byte as u8).collect();
            bytes.push(first);
            match length {
                0..=125 => bytes.push(length as u8),
                126..=0xFFFF => {
                    bytes.push(126);
                    bytes.extend_from_slice(&(length as u16).to_be_bytes());
                }
                _ => {
                    bytes.push(127);
                    bytes.extend_from_slice(&(length as u64).to_be_bytes());
                }
            }
            bytes.extend_from_slice(&payload);
            mqtt.extend_from_slice(&payload);
            bytes.extend_from_slice(&[0x89, 2, b'h', b'i', 0x8A, 0]);
        }
        (bytes, mqtt)
    }

    #[test]
    fn frames_may_be_split_at_any_byte_and_pings_are_answered() {
        let (bytes, mqtt) = stream();
        for step in [1, 3, 1_000, bytes.len()] {
            let mut websocket = asking();
            let (came, answer) = receive(&mut websocket, &bytes, step).expect("a valid value");
            assert!(came == mqtt, "in pieces of {step}");
            assert_eq!(answer.len(), 5 * (2 + 4 + 2));
            let pong = answer[..8].to_vec();
            assert_eq!((pong[0], pong[1]), (0x8A, 0x82));
            assert_eq!([pong[6] ^ pong[2], pong[7] ^ pong[3]], *b"hi");
        }
    }

    #[test]
    fn sent_frames_are_masked_and_have_their_length() {
        let mut websocket = asking();
        for length in [0, 125, 126, 0xFFFF, 0x1_0000] {
            let payload: Vec<u8> = (0..length).map(|byte| byte as u8).collect();
            let mut out = Vec::new();
            websocket.frame(&payload, &mut out);
            let head = out.len() - length - 4;
            assert_eq!(out[0], 0x82);
            assert_eq!(
                (out[1] & 0x7F, head),
                match length {
                    0..=125 => (length as u8, 2),
                    126..=0xFFFF => (126, 4),
                    _ => (127, 10),
                }
            );
            let mask: [u8; 4] = out[head..head + 4].try_into().expect("four bytes");
            mask_in_place(&mut out[head + 4..], mask);
            assert!(out[1] & MASKED != 0 && out[head + 4..] == payload[..]);
        }
    }

    #[test]
    fn a_refusal_is_reported_with_its_status_and_reason() {
        let refused = |answer: &str| {
            receive(&mut asking(), answer.as_bytes(), 10_000).expect_err("refused").to_string()
        };
        let body = "HTTP/1.1 404 Not Found\r\nContent-Length: 16\r\n\r\nMQTT is at /here\n";
        let text = refused(body);
        assert_eq!(
            text,
            "the broker refused WebSocket at /mqtt with HTTP status 404 Not Found: MQTT is at /here"
        );
        assert!(refused(&GRANTED.replace("s3p", "xyz")).contains("Sec-WebSocket-Accept"));
        assert!(refused(&GRANTED.replace("mqtt", "chat")).contains("mqtt"));
        assert!(refused("\x15\x03\x03").contains("HTTP"));
        assert!(refused(&format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(9_000))).contains("8 KiB"));
    }

    #[test]
    fn a_close_frame_is_answered_and_ends_the_input() {
        let mut websocket = asking();
        let bytes = [GRANTED.as_bytes(), &[0x82, 1, 9, 0x88, 2, 3, 0xE8, 0x82, 1, 8]].concat();
        let (mqtt, answer) = receive(&mut websocket, &bytes, bytes.len()).expect("a valid value");
        assert_eq!((mqtt, answer[0]), (vec![9], 0x88));
        assert!(websocket.is_ended());
    }

    #[test]
    fn invalid_frames_end_the_connection() {
        for bad in [[0x81, 0], [0x82, 0x80], [0xC2, 0], [0x09, 0], [0x89, 126], [0x83, 0]] {
            let mut bytes = GRANTED.as_bytes().to_vec();
            bytes.extend_from_slice(&bad);
            bytes.extend_from_slice(&[0, 126]);
            receive(&mut asking(), &bytes, 10_000).expect_err("an invalid frame");
        }
    }
}
