//! WebSocket to a far broker (RFC 6455): the client's end. The frames of the server are those of `transport::websocket`,
//! without masks; what is sent here has one.

mod opening;
#[cfg(test)]
mod tests;

use crate::base::send_buffer::SendBuffer;
use crate::transport::websocket::{Frames, MASKED, apply_mask, code, opcode, write_head};
use crate::transport::{Fault, Layer};
use opening::Opening;

/// Set in the second byte of a frame that has a mask.
const MASK_BIT: u8 = 0x80;
/// Longest payload of a frame. MQTT permits any boundaries [MQTT-6.0.0-2]; servers and proxies may not accept frames of
/// any length.
const FRAME_BYTES_MAX: usize = 64 * 1024;
/// Random bytes that are drawn at once: for 64 masks.
const RANDOM_BYTES: usize = 256;

/// WebSocket of one connection.
#[derive(Debug)]
pub struct ClientWebSocket {
    phase: Phase,
    /// The request, until it is sent.
    request: Vec<u8>,
    /// The payload of the last ping that has not been answered; earlier ones need no answer (5.5.3).
    ping: Option<Box<[u8]>>,
    close_code: u16,
    masks: Masks,
    /// Memory for what the frames carry.
    mqtt: Vec<u8>,
}

#[derive(Debug)]
enum Phase {
    /// The server has not answered the request.
    Opening(Opening),
    /// The server has accepted it.
    Frames(Frames<{ !MASKED }>),
    /// The server has refused it, or one end has closed.
    Over,
}

impl ClientWebSocket {
    /// Begins with the request for a path. `host` is the server's as the request names it, with its port unless that is
    /// the usual one.
    pub fn begin(host: &str, path: &str) -> Result<Self, String> {
        let (opening, request) = Opening::begin(host, path)?;
        Ok(Self {
            phase: Phase::Opening(opening),
            request,
            ping: None,
            close_code: code::NORMAL,
            masks: Masks::new()?,
            mqtt: Vec::new(),
        })
    }

    /// Whether the server has accepted, so that MQTT can be sent.
    pub fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Frames(_))
    }

    /// Whether nothing can be sent any more.
    pub fn is_broken(&self) -> bool {
        self.masks.is_exhausted
    }

    /// Whether there is something to send other than MQTT.
    pub fn has_something_to_say(&self) -> bool {
        !self.request.is_empty() || self.ping.is_some()
    }

    /// Processes bytes of the server: passes what the frames carry to `take`, also before a failure. Adds to the number
    /// of frames. Returns the code if the server closes.
    pub fn receive(
        &mut self,
        mut bytes: &[u8],
        frames_seen: &mut usize,
        take: impl FnOnce(&[u8]) -> Result<(), Fault>,
    ) -> Result<Option<u16>, Fault> {
        let fault = |what: String| Fault { layer: Layer::WebSocket, what };
        if let Phase::Opening(opening) = &mut self.phase {
            match opening.take(bytes) {
                Ok(None) => return take(&[]).map(|()| None),
                Ok(Some(used)) => {
                    bytes = &bytes[used..];
                    self.phase = Phase::Frames(Frames::default());
                }
                Err(what) => {
                    self.phase = Phase::Over;
                    return Err(fault(what));
                }
            }
        }
        let Phase::Frames(frames) = &mut self.phase else { return Ok(None) };
        self.mqtt.clear();
        let outcome = frames.take(bytes, &mut self.mqtt, &mut self.ping, frames_seen);
        if !matches!(outcome, Ok(None)) {
            frames.end();
        }
        let heard = take(&self.mqtt);
        match outcome {
            Ok(None) => heard.map(|()| None),
            Ok(Some(code)) => {
                self.close_code = code;
                heard.map(|()| Some(code))
            }
            Err((code, what)) => {
                self.close_code = code;
                Err(fault(what.to_owned()))
            }
        }
    }

    /// Puts MQTT into frames, after what else there is to send. `scratch` is memory.
    pub fn wrap(&mut self, mqtt: &mut SendBuffer, scratch: &mut Vec<u8>) {
        if mqtt.is_empty() && !self.has_something_to_say() {
            return;
        }
        scratch.clear();
        mqtt.take(usize::MAX, scratch);
        mqtt.clear();
        mqtt.append(|out| {
            out.append(&mut self.request);
            if let Some(ping) = self.ping.take() {
                self.masks.write_frame(opcode::PONG, &ping, out);
            }
            debug_assert!(scratch.is_empty() || self.is_open(), "MQTT begins after the request");
            for part in scratch.chunks(FRAME_BYTES_MAX) {
                self.masks.write_frame(opcode::BINARY, part, out);
            }
        });
        scratch.clear();
    }

    /// Writes a Close frame, if the server had accepted the request.
    pub fn write_close(&mut self, out: &mut Vec<u8>) {
        if self.is_open() {
            self.masks.write_frame(opcode::CLOSE, &self.close_code.to_be_bytes(), out);
            self.phase = Phase::Over;
        }
    }

    /// Memory of an incomplete answer or control frame, and of what frames carry.
    pub fn bytes_held(&self) -> usize {
        let held = match &self.phase {
            Phase::Opening(opening) => opening.bytes_held(),
            Phase::Frames(frames) => frames.bytes_held(),
            Phase::Over => 0,
        };
        held + self.mqtt.capacity()
    }
}

/// Random masks: nobody can foretell the next one, so that no sender of messages can choose the bytes that proxies see
/// (RFC 6455, 10.3).
#[derive(Debug)]
struct Masks {
    random: [u8; RANDOM_BYTES],
    used: usize,
    /// The system has no more random bytes.
    is_exhausted: bool,
}

impl Masks {
    fn new() -> Result<Self, String> {
        let mut masks = Self { random: [0; RANDOM_BYTES], used: 0, is_exhausted: false };
        getrandom::fill(&mut masks.random).map_err(|error| format!("no random bytes: {error}"))?;
        Ok(masks)
    }

    fn next(&mut self) -> Option<[u8; 4]> {
        if self.used == RANDOM_BYTES {
            self.is_exhausted |= getrandom::fill(&mut self.random).is_err();
            self.used = 0;
        }
        if self.is_exhausted {
            return None;
        }
        let at = self.used;
        self.used += 4;
        self.random[at..self.used].try_into().ok()
    }

    /// Writes a whole message with a mask of its own. Without one, nothing more is sent.
    fn write_frame(&mut self, opcode: u8, payload: &[u8], out: &mut Vec<u8>) {
        let Some(mask) = self.next() else { return };
        let begin = out.len();
        write_head(opcode, payload.len(), out);
        out[begin + 1] |= MASK_BIT;
        out.extend_from_slice(&mask);
        let begin = out.len();
        out.extend_from_slice(payload);
        apply_mask(&mut out[begin..], mask);
    }
}
