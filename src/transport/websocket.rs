//! WebSocket (RFC 6455) for MQTT: binary frames of the subprotocol `mqtt`, with any boundaries.
//!
//! Frame boundaries have no meaning for MQTT, so frames of any length pass through without being collected.
//! Extensions are refused: compression does not pay for packets of a few bytes.

use std::sync::Arc;

use super::request::Request;
use super::{Fault, Layer, Received};
use crate::config::listener::WebSocket as Rules;

/// Longest payload of a control frame (5.5).
const CONTROL_BYTES_MAX: u64 = 125;
/// Longest header of a frame from a client.
const HEAD_BYTES_MAX: usize = 14;

/// Close codes (7.4.1).
pub(super) mod code {
    pub const NORMAL: u16 = 1_000;
    pub const PROTOCOL_ERROR: u16 = 1_002;
    pub const UNSUPPORTED_DATA: u16 = 1_003;
}

pub(super) mod opcode {
    pub const CONTINUATION: u8 = 0x0;
    pub const TEXT: u8 = 0x1;
    pub const BINARY: u8 = 0x2;
    pub const CLOSE: u8 = 0x8;
    pub const PING: u8 = 0x9;
    pub const PONG: u8 = 0xA;
    /// The last, or only, frame of a message.
    pub const FINAL: u8 = 0x80;
}

/// WebSocket of one connection.
#[derive(Debug)]
pub struct WebSocket {
    phase: Phase,
    /// The answer to the request, until it is sent.
    answer: Vec<u8>,
    /// The payload of the last ping that has not been answered; earlier ones need no answer (5.5.3).
    ping: Option<Box<[u8]>>,
    close_code: u16,
    frame_per_packet: bool,
}

#[derive(Debug)]
enum Phase {
    /// The request is incomplete.
    Request(Request),
    /// The request was accepted.
    Frames(Frames<MASKED>),
    /// The request was refused, or the client has closed.
    Over,
}

impl WebSocket {
    /// A new connection. `is_forwarded` if a proxy connects, which gives the address of the client; `has_tls` if
    /// the request comes over TLS.
    pub(super) fn begin(rules: Arc<Rules>, is_forwarded: bool, has_tls: bool) -> Self {
        let frame_per_packet = rules.frame_per_packet;
        let phase = Phase::Request(Request::new(rules, is_forwarded, has_tls));
        let close_code = code::NORMAL;
        Self { phase, answer: Vec::new(), ping: None, close_code, frame_per_packet }
    }

    /// Processes received bytes, and appends the payload of binary frames to `plain`.
    pub(super) fn receive(
        &mut self,
        bytes: &[u8],
        plain: &mut Vec<u8>,
        received: &mut Received,
    ) -> Result<(), Fault> {
        let mut bytes = bytes;
        if let Phase::Request(request) = &mut self.phase {
            match request.take(bytes) {
                Ok(None) => return Ok(()),
                Ok(Some(granted)) => {
                    bytes = &bytes[granted.used..];
                    received.address = granted.address.or(received.address);
                    self.answer = granted.answer;
                    self.phase = Phase::Frames(Frames::default());
                }
                Err(refusal) => {
                    self.answer = refusal.answer();
                    self.phase = Phase::Over;
                    return Err(Fault { layer: Layer::WebSocket, what: refusal.what });
                }
            }
        }
        let Phase::Frames(frames) = &mut self.phase else { return Ok(()) };
        let outcome = frames.take(bytes, plain, &mut self.ping, &mut received.frames);
        match outcome {
            Ok(None) => Ok(()),
            Ok(Some(code)) => {
                self.close_code = code;
                received.is_ended = true;
                frames.end();
                Ok(())
            }
            Err((code, what)) => {
                self.close_code = code;
                frames.end();
                Err(Fault { layer: Layer::WebSocket, what: what.to_owned() })
            }
        }
    }

    /// Memory of an incomplete request or control frame.
    pub(super) fn bytes_held(&self) -> usize {
        match &self.phase {
            Phase::Request(request) => request.bytes_held(),
            Phase::Frames(frames) => frames.bytes_held(),
            Phase::Over => 0,
        }
    }

    /// Whether the request, which has the client's address, is still missing.
    pub(super) fn awaits_address(&self) -> bool {
        matches!(&self.phase, Phase::Request(request) if request.is_forwarded())
    }

    pub(super) fn has_something_to_say(&self) -> bool {
        !self.answer.is_empty() || self.ping.is_some()
    }

    /// Whether each packet is a frame of its own.
    pub(super) fn has_frame_per_packet(&self) -> bool {
        self.frame_per_packet
    }

    /// Writes the bytes to send before `bytes` of MQTT, ending with their frame header.
    pub(super) fn write_heads(&mut self, bytes: usize, out: &mut Vec<u8>) {
        out.append(&mut self.answer);
        self.answer = Vec::new();
        if let Some(ping) = self.ping.take() {
            write_head(opcode::PONG, ping.len(), out);
            out.extend_from_slice(&ping);
        }
        if bytes > 0 {
            debug_assert!(matches!(self.phase, Phase::Frames(_)), "MQTT begins after the request");
            write_head(opcode::BINARY, bytes, out);
        }
    }

    /// Writes a Close frame, if the request was accepted.
    pub(super) fn write_close(&mut self, out: &mut Vec<u8>) {
        if matches!(self.phase, Phase::Frames(_)) {
            write_head(opcode::CLOSE, 2, out);
            out.extend_from_slice(&self.close_code.to_be_bytes());
            self.phase = Phase::Over;
        }
    }
}

pub(super) fn write_head(opcode: u8, bytes: usize, out: &mut Vec<u8>) {
    out.push(opcode::FINAL | opcode);
    match bytes {
        0..=125 => out.push(bytes as u8),
        126..=0xFFFF => {
            out.push(126);
            out.extend_from_slice(&(bytes as u16).to_be_bytes());
        }
        _ => {
            out.push(127);
            out.extend_from_slice(&(bytes as u64).to_be_bytes());
        }
    }
}

/// Frames of a client have a mask, those of a server have none (5.1).
pub(super) const MASKED: bool = true;

/// Frames of the other end, of which the last may be incomplete. `HAS_MASK` if that end is a client.
#[derive(Debug, Default)]
pub(super) struct Frames<const HAS_MASK: bool> {
    /// The incomplete header of the next frame.
    head: [u8; HEAD_BYTES_MAX],
    head_bytes: u8,
    /// Frame whose payload is being received.
    payload: Option<Payload>,
    /// A fragmented message is incomplete.
    is_in_message: bool,
    /// Further input is ignored.
    is_over: bool,
}

#[derive(Debug)]
struct Payload {
    opcode: u8,
    left: u64,
    mask: [u8; 4],
    /// Received part of the payload of a control frame.
    control: Vec<u8>,
}

/// Reason to close the connection: the close code, and the text of the log.
pub(super) type Wrong = (u16, &'static str);

impl<const HAS_MASK: bool> Frames<HAS_MASK> {
    /// Ignores further input.
    pub(super) fn end(&mut self) {
        self.is_over = true;
    }

    /// Memory of an incomplete control frame.
    pub(super) fn bytes_held(&self) -> usize {
        self.payload.as_ref().map_or(0, |of| of.control.capacity())
    }

    /// Processes received bytes. Returns a code when the other end closes.
    pub(super) fn take(
        &mut self,
        mut bytes: &[u8],
        plain: &mut Vec<u8>,
        ping: &mut Option<Box<[u8]>>,
        frames: &mut usize,
    ) -> Result<Option<u16>, Wrong> {
        if self.is_over {
            return Ok(None);
        }
        loop {
            if self.payload.is_none() {
                let have = usize::from(self.head_bytes);
                let need = head_need::<HAS_MASK>(&self.head[..have]);
                if have < need {
                    if bytes.is_empty() {
                        return Ok(None);
                    }
                    let (taken, rest) = bytes.split_at(bytes.len().min(need - have));
                    self.head[have..have + taken.len()].copy_from_slice(taken);
                    self.head_bytes += taken.len() as u8;
                    bytes = rest;
                    continue;
                }
                self.payload = Some(self.begin_payload(have)?);
                self.head_bytes = 0;
            }
            let payload = self.payload.as_mut().expect("it has just begun");
            let taken = payload.left.min(bytes.len() as u64) as usize;
            let (part, rest) = bytes.split_at(taken);
            bytes = rest;
            let to = match payload.opcode & 0x08 {
                0 => &mut *plain,
                _ => &mut payload.control,
            };
            let begin = to.len();
            to.extend_from_slice(part);
            if HAS_MASK {
                apply_mask(&mut to[begin..], payload.mask);
            }
            payload.mask.rotate_left(taken % 4);
            payload.left -= taken as u64;
            if payload.left > 0 {
                return Ok(None);
            }
            let payload = self.payload.take().expect("it was there");
            *frames += 1;
            match payload.opcode {
                opcode::PING => *ping = Some(payload.control.into_boxed_slice()),
                opcode::CLOSE => return close_code(&payload.control).map(Some),
                _ => {}
            }
        }
    }

    /// Checks a complete header.
    fn begin_payload(&mut self, bytes: usize) -> Result<Payload, Wrong> {
        let head = &self.head[..bytes];
        let (is_final, opcode) = (head[0] & opcode::FINAL != 0, head[0] & 0x0F);
        let wrong = |what| Err((code::PROTOCOL_ERROR, what));
        if head[0] & 0x70 != 0 {
            return wrong("a frame with reserved bits set, without an extension");
        }
        match (HAS_MASK, head[1] & 0x80 != 0) {
            (true, false) => return wrong("a frame without a mask from a client"),
            (false, true) => return wrong("a frame with a mask from a server"),
            _ => {}
        }
        let (length, is_shortest) = match head[1] & 0x7F {
            126 => {
                let length = u64::from(u16::from_be_bytes([head[2], head[3]]));
                (length, length > 125)
            }
            127 => {
                let length = u64::from_be_bytes(head[2..10].try_into().expect("eight bytes"));
                (length, length > 0xFFFF && length >> 63 == 0)
            }
            length => (u64::from(length), true),
        };
        if !is_shortest {
            return wrong("a frame whose length is not encoded in the shortest form");
        }
        match opcode {
            opcode::CONTINUATION if self.is_in_message => self.is_in_message = !is_final,
            opcode::BINARY if !self.is_in_message => self.is_in_message = !is_final,
            opcode::CONTINUATION | opcode::BINARY => {
                return wrong(
                    "a new message within a fragmented one, or a continuation without a start",
                );
            }
            // [MQTT-6.0.0-1]
            opcode::TEXT => return Err((code::UNSUPPORTED_DATA, "a text frame: MQTT is binary")),
            opcode::CLOSE | opcode::PING | opcode::PONG => {
                if !is_final || length > CONTROL_BYTES_MAX {
                    return wrong("a control frame that is fragmented or longer than 125 bytes");
                }
            }
            _ => return wrong("a frame with an unknown opcode"),
        }
        let mask = match HAS_MASK {
            true => head[bytes - 4..].try_into().expect("four bytes"),
            false => [0; 4],
        };
        Ok(Payload { opcode, left: length, mask, control: Vec::new() })
    }
}

/// Length of a header that begins with these bytes.
fn head_need<const HAS_MASK: bool>(head: &[u8]) -> usize {
    let mask = if HAS_MASK { 4 } else { 0 };
    match head {
        [] | [_] => 2,
        [_, length, ..] => match length & 0x7F {
            126 => 2 + 2 + mask,
            127 => 2 + 8 + mask,
            _ => 2 + mask,
        },
    }
}

/// The code to answer a Close frame with (5.5.1, 7.4).
fn close_code(payload: &[u8]) -> Result<u16, Wrong> {
    let Some((code, reason)) = payload.split_first_chunk::<2>() else {
        return match payload.len() {
            0 => Ok(code::NORMAL),
            _ => Err((code::PROTOCOL_ERROR, "a Close frame with an incomplete code")),
        };
    };
    let code = u16::from_be_bytes(*code);
    let may_be_sent = matches!(code, 1_000..=1_003 | 1_007..=1_014 | 3_000..=4_999);
    match may_be_sent && std::str::from_utf8(reason).is_ok() {
        true => Ok(code),
        false => Err((code::PROTOCOL_ERROR, "a Close frame with an invalid code or text")),
    }
}

/// Adds or removes a mask (5.3), eight bytes at a time, which compilers vectorize.
pub(super) fn apply_mask(bytes: &mut [u8], mask: [u8; 4]) {
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

#[cfg(test)]
#[path = "websocket_tests.rs"]
mod tests;
