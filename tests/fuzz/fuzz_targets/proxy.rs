//! Arbitrary bytes as a PROXY header and the following data, split at arbitrary positions: no
//! panic, buffered input is bounded, the split does not matter, and the data after the header is
//! unchanged.

#![no_main]

use std::net::SocketAddr;

use libfuzzer_sys::fuzz_target;
use ringmq::config::listener::{Listener, ProxiedIdentity};
use ringmq::base::ids::Peer;
use ringmq::transport::{ListenerPolicy, Scratch, Transport};

/// The longest possible header: 16 bytes, and 4,096 bytes of addresses and extensions.
const HEADER_BYTES_MAX: usize = 16 + 4_096;

fuzz_target!(|input: &[u8]| {
    let Some((cut, stream)) = input.split_first() else { return };
    let mut listener = Listener::tcp("127.0.0.1:1883".parse().expect("an address"));
    listener.proxy_protocol_from = vec!["127.0.0.0/8".parse().expect("a network")];
    listener.proxy_protocol_identity =
        if cut & 0x80 == 0 { ProxiedIdentity::None } else { ProxiedIdentity::Cn };
    listener.proxy_protocol_requires_tls = cut & 0x40 != 0;
    let policy = ListenerPolicy::new(&listener, None);
    let peer = Peer { address: Some("127.0.0.1:1".parse().expect("an address")), listener: 0 };
    let begin = || policy.transport_for(&peer).expect("a header is expected");
    let at_once = run(&mut begin(), &[stream]);
    let step = usize::from(*cut) % 31 + 1;
    let in_pieces = run(&mut begin(), &stream.chunks(step).collect::<Vec<_>>());
    assert_eq!(at_once, in_pieces);
    if let Ok((Some(_), plain)) = at_once {
        assert!(stream.ends_with(&plain) && plain.len() < stream.len());
    }
});

/// The address in a complete header, and the data after it.
fn run(
    transport: &mut Transport,
    pieces: &[&[u8]],
) -> Result<(Option<Option<SocketAddr>>, Vec<u8>), String> {
    let (mut scratch, mut named) = (Scratch::default(), None);
    for piece in pieces {
        let awaited = transport.awaits_address();
        let received = transport.receive(piece, &mut scratch).map_err(|fault| fault.to_string())?;
        assert!(awaited || received.address.is_none(), "the address is reported once");
        if awaited && !transport.awaits_address() {
            named = Some(received.address);
            assert!(transport.is_spent());
        }
        assert!(transport.bytes_held() <= HEADER_BYTES_MAX);
        assert!(!transport.has_something_to_say());
    }
    Ok((named, scratch.plain))
}
