//! Sampled messages, on their way from the cores to the exporter of telemetry.
//!
//! The queue between them is bounded. A core never waits for the exporter: what finds no room is dropped and counted.

use flume::{Receiver, Sender};

use crate::base::clock::Now;
use crate::wire::ReasonCode;

/// Sampled messages that wait for the exporter.
pub const SPANS_MAX: usize = 4_096;

/// Deliveries of a message that have a span of their own.
pub const DELIVERIES_MAX: usize = 8;

/// Bytes of a Topic Name or Client Identifier that a span has; the rest is cut off.
pub const NAME_BYTES_MAX: usize = 256;

/// Bytes of memory that a span takes at most.
pub const SPAN_BYTES_MAX: usize = size_of::<MessageSpan>()
    + DELIVERIES_MAX * size_of::<DeliverySpan>()
    + (2 + DELIVERIES_MAX) * NAME_BYTES_MAX;

/// The span under which a message was published, by the User Property `traceparent` (W3C Trace Context).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traceparent {
    /// The trace.
    pub trace_id: [u8; 16],
    /// The span of the publisher.
    pub span_id: [u8; 8],
    /// Whether the publisher has sampled the trace.
    pub is_sampled: bool,
}

impl Traceparent {
    /// Reads `VERSION-TRACE-SPAN-FLAGS`; none if the text is malformed, which counts as no parent.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let [version] = hexadecimal::<1>(parts.next()?)?;
        let trace_id = hexadecimal(parts.next()?)?;
        let span_id = hexadecimal(parts.next()?)?;
        let [flags] = hexadecimal::<1>(parts.next()?)?;
        // Later versions may have more parts; version 255 is forbidden.
        let is_whole = version > 0 && version < 0xFF || version == 0 && parts.next().is_none();
        let is_zero = trace_id == [0; 16] || span_id == [0; 8];
        (is_whole && !is_zero).then_some(Self { trace_id, span_id, is_sampled: flags & 1 > 0 })
    }
}

/// Bytes from lower-case digits.
fn hexadecimal<const BYTES: usize>(text: &str) -> Option<[u8; BYTES]> {
    let digit = |of: u8| match of {
        b'0'..=b'9' => Some(of - b'0'),
        b'a'..=b'f' => Some(of - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; BYTES];
    let digits = text.as_bytes();
    if digits.len() != 2 * BYTES {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

/// A Topic Name or Client Identifier as a span has it.
pub fn cut_name(name: &str) -> &str {
    &name[..name.floor_char_boundary(NAME_BYTES_MAX)]
}

/// What became of a sampled message.
#[derive(Clone, Debug, PartialEq)]
pub struct MessageSpan {
    /// The core of the publisher.
    pub core: u16,
    /// The span of the publisher, if there is one.
    pub parent: Option<Traceparent>,
    /// When the PUBLISH came, in the time of the core.
    pub began: Now,
    /// When it was answered, or at QoS 0 handed to its subscribers.
    pub ended: Now,
    /// The publisher's Client Identifier.
    pub client_identifier: Box<str>,
    /// The Topic Name.
    pub topic: Box<str>,
    /// QoS.
    pub qos: u8,
    /// RETAIN flag.
    pub retain: bool,
    /// DUP flag.
    pub dup: bool,
    /// Bytes of the packet.
    pub bytes: u64,
    /// Bytes of the payload.
    pub payload_bytes: u64,
    /// Clients and shared subscriptions of this core that receive the message.
    pub recipients: u64,
    /// Other cores that receive it.
    pub cores: u64,
    /// Whether the answer waited for other cores, the store or a decision of the access control.
    pub waited: bool,
    /// Why the message was refused; none if it was accepted.
    pub refused: Option<ReasonCode>,
    /// The first deliveries on this core.
    pub deliveries: Vec<DeliverySpan>,
}

/// The delivery of a sampled message to a client.
#[derive(Clone, Debug, PartialEq)]
pub struct DeliverySpan {
    /// The Client Identifier of the subscriber.
    pub client_identifier: Box<str>,
    /// QoS.
    pub qos: u8,
    /// When the packet left; none if the message waits in the client's queue.
    pub sent: Option<Now>,
}

/// A core's end of the queue.
#[derive(Clone, Debug)]
pub struct SpanSink(Sender<MessageSpan>);

impl SpanSink {
    /// Gives a span to the exporter; whether there was room.
    pub fn push(&self, span: MessageSpan) -> bool {
        self.0.try_send(span).is_ok()
    }
}

/// The exporter's end of the queue.
#[derive(Debug)]
pub struct SpanSource(Receiver<MessageSpan>);

/// A queue of sampled messages.
pub fn spans() -> (SpanSink, SpanSource) {
    let (to, from) = flume::bounded(SPANS_MAX);
    (SpanSink(to), SpanSource(from))
}

impl SpanSource {
    /// Takes at most this many spans that are there already.
    pub fn take(&self, most: usize) -> Vec<MessageSpan> {
        self.0.try_iter().take(most).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_is_read_as_w3c_defines_it() {
        let text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let parent = Traceparent::parse(text).expect("valid");
        assert_eq!((parent.trace_id[0], parent.trace_id[15]), (0x0A, 0x9C));
        assert_eq!((parent.span_id[7], parent.is_sampled), (0x31, true));
        let other = |from: &str, to: &str| Traceparent::parse(&text.replacen(from, to, 1));
        assert!(!other("-01", "-00").expect("valid").is_sampled);
        assert!(other("00-", "01-").is_some() && other("-01", "-01-more").is_none());
        let later = text.replacen("00-", "01-", 1) + "-more";
        assert!(Traceparent::parse(&later).is_some());
        for (from, to) in [
            ("00-", "ff-"),
            ("0af7", "0AF7"),
            ("0af7", "0ag7"),
            ("0af7651916cd43dd8448eb211c80319c", "00000000000000000000000000000000"),
            ("b7ad6b7169203331", "0000000000000000"),
            ("-01", ""),
            ("-01", "-1"),
            ("-", "_"),
        ] {
            assert_eq!(other(from, to), None, "{from} {to}");
        }
        assert_eq!(Traceparent::parse(""), None);
    }
}
