//! Any bytes through a PROXY header and WebSocket, in any pieces: nothing panics, what is kept is
//! bounded, and pieces change nothing.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ringmq::config::listener::{Listener, Transport as Kind};
use ringmq::engine::Peer;
use ringmq::send_buffer::SendBuffer;
use ringmq::transport::{Entrance, Scratch, Transport};

/// A request that is granted, so that frames are reached.
const REQUEST: &[u8] = b"GET /mqtt HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Protocol: mqtt\r\n\r\n";

fuzz_target!(|input: &[u8]| {
    let Some(([kind, cut], stream)) = input.split_first_chunk::<2>() else { return };
    let mut listener = Listener::tcp("127.0.0.1:1883".parse().expect("an address"));
    if kind & 1 == 1 {
        listener.proxy_protocol_from = vec!["127.0.0.0/8".parse().expect("a network")];
    }
    if kind & 2 == 2 {
        listener.transport = Kind::Ws;
    }
    let entrance = Entrance::new(&listener, None);
    let peer = Peer { address: Some("127.0.0.1:1".parse().expect("an address")), listener: 0 };
    let begin = || entrance.transport_for(&peer);
    let (Some(mut whole), Some(mut pieces)) = (begin(), begin()) else { return };
    let prefix = if kind & 7 == 6 { REQUEST } else { &[] };
    let stream = [prefix, stream].concat();
    let at_once = run(&mut whole, &[&stream]);
    let step = usize::from(*cut) % 31 + 1;
    let in_pieces = run(&mut pieces, &stream.chunks(step).collect::<Vec<_>>());
    assert_eq!(at_once, in_pieces);
});

/// What comes out, and whether it was all of use.
fn run(transport: &mut Transport, pieces: &[&[u8]]) -> (Vec<u8>, bool, Option<String>) {
    let (mut scratch, mut is_ended) = (Scratch::default(), false);
    for piece in pieces {
        match transport.receive(piece, &mut scratch) {
            Ok(received) => is_ended |= received.is_ended,
            Err(fault) => {
                let last = transport.close(None, &mut Scratch::default());
                assert!(last.is_none_or(|last: SendBuffer| last.len() < 1_024));
                return (scratch.plain, is_ended, Some(fault.to_string()));
            }
        }
        assert_eq!(transport.bytes_held(), 0);
    }
    (scratch.plain, is_ended, None)
}
