//! Arbitrary bytes as a WebSocket request or as WebSocket frames, split at arbitrary positions: no
//! panic, input and output are bounded, and the split does not matter.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ringmq::config::listener::{Listener, Transport as Kind};
use ringmq::base::ids::Peer;
use ringmq::base::send_buffer::SendBuffer;
use ringmq::transport::{ListenerPolicy, Scratch, Transport};

/// A valid request, so that frames are reached.
const REQUEST: &[u8] = b"GET /mqtt HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Protocol: mqtt\r\n\r\n";

/// The longest possible request.
const REQUEST_BYTES_MAX: usize = 32 * 1024;
/// An unknown path is included in the response; the rest of the response is smaller than this.
const ANSWER_BYTES_MAX: usize = REQUEST_BYTES_MAX + 1_024;

fuzz_target!(|input: &[u8]| {
    let Some(([is_granted, cut], stream)) = input.split_first_chunk::<2>() else { return };
    let mut listener = Listener::tcp("127.0.0.1:1883".parse().expect("an address"));
    listener.transport = Kind::Ws;
    let policy = ListenerPolicy::new(&listener, None);
    let peer = Peer { address: Some("127.0.0.1:1".parse().expect("an address")), listener: 0 };
    let begin = || policy.transport_for(&peer).expect("a request is expected");
    let prefix = if is_granted & 1 == 1 { REQUEST } else { &[] };
    let stream = [prefix, stream].concat();
    let at_once = run(&mut begin(), &[&stream]);
    let step = usize::from(*cut) % 31 + 1;
    let in_pieces = run(&mut begin(), &stream.chunks(step).collect::<Vec<_>>());
    assert_eq!(at_once, in_pieces);
});

/// The output, and whether all input was valid.
fn run(transport: &mut Transport, pieces: &[&[u8]]) -> (Vec<u8>, bool, Option<String>) {
    let (mut scratch, mut is_ended) = (Scratch::default(), false);
    for piece in pieces {
        match transport.receive(piece, &mut scratch) {
            Ok(received) => is_ended |= received.is_ended,
            Err(fault) => {
                let last = transport.close(None, &mut Scratch::default());
                assert!(last.is_none_or(|last: SendBuffer| last.len() < ANSWER_BYTES_MAX));
                return (scratch.plain, is_ended, Some(fault.to_string()));
            }
        }
        assert!(transport.bytes_held() <= 2 * REQUEST_BYTES_MAX);
    }
    (scratch.plain, is_ended, None)
}
