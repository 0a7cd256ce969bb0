//! Incomplete packets, requests and handshakes.

use std::io::Read;
use std::net::TcpStream;
use std::time::Duration;

use crate::{Attacked, Folder, Kind, MEMORY_BYTES_MAX, MIB, Outcome, check, connect, send};

// The attacks send more than may be buffered, and more than the test allows.
const _: () =
    assert!(800 * 120_000 > 2 * MEMORY_BYTES_MAX && 150 * 15 * MIB > 2 * MEMORY_BYTES_MAX);
const _: () = assert!(900 * 17_000 > MEMORY_BYTES_MAX / 4);

const SOON: Duration = Duration::from_millis(20);
const REFUSED: &str = "hold more of an unfinished packet";

/// The fixed header of a packet of this length, and the start of a CONNECT.
fn begin(packet_type: u8, remaining: usize) -> Vec<u8> {
    let length: Vec<u8> = (0..4).map(|n| (remaining >> (7 * n)) as u8 | 0x80).collect();
    let mut bytes = [&[packet_type][..], &length].concat();
    bytes[4] &= 0x7F;
    if packet_type == 0x10 {
        bytes.extend(b"\0\x04MQTT\x05\x02\0\0\0\0\x01c");
    }
    bytes
}

fn open(attacked: &Attacked) -> TcpStream {
    TcpStream::connect(attacked.address).expect("the server listens")
}

#[test]
fn unfinished_connects_of_16_mib() {
    check(&Kind {
        name: "100 CONNECTs of 16 MiB, unfinished",
        // CONNACK with "Packet too large" and a Reason String.
        tells: b"the CONNECT packet is larger than this server accepts",
        attack: |attacked| {
            let bytes = [begin(0x10, (16 << 20) - 5), vec![b'x'; 15 << 20]].concat();
            let mut outcome = Outcome { refused_min: 100, ..Outcome::default() };
            for _ in 0..100 {
                let mut stream = open(attacked);
                send(&mut stream, &bytes);
                outcome.take(stream, SOON);
            }
            outcome
        },
        counts: "connections/violations",
        ..Kind::default()
    });
}

#[test]
fn unfinished_connects_of_the_maximum_size() {
    check(&Kind {
        name: "800 CONNECTs of 128 KiB, unfinished",
        configuration: "limits.connect_timeout_s = 60\n".to_owned(),
        attack: |attacked| {
            let bytes = [begin(0x10, 131_000), vec![b'x'; 120_000]].concat();
            let mut outcome = Outcome { refused_min: 600, ..Outcome::default() };
            for _ in 0..800 {
                let mut stream = open(attacked);
                send(&mut stream, &bytes);
                outcome.take(stream, SOON);
            }
            outcome
        },
        says: Some(REFUSED),
        counts: "connections/input-refused",
        ..Kind::default()
    });
}

#[test]
fn unfinished_publishes_of_16_mib() {
    check(&Kind {
        name: "150 PUBLISHes of 16 MiB, unfinished",
        // DISCONNECT with "Quota exceeded".
        tells: &[0xE0, 0x01, 0x97],
        attack: |attacked| {
            let bytes = [begin(0x30, (16 << 20) - 5), vec![b'x'; 15 << 20]].concat();
            let mut outcome = Outcome { refused_min: 140, ..Outcome::default() };
            let log_in = |n: usize| {
                let mut stream = open(attacked);
                send(&mut stream, &connect(&format!("half {n}"), None));
                stream.read_exact(&mut [0; 4]).expect("CONNACK");
                stream
            };
            let streams: Vec<TcpStream> = (0..150).map(log_in).collect();
            for mut stream in streams {
                send(&mut stream, &bytes);
                outcome.take(stream, SOON);
            }
            outcome
        },
        says: Some(REFUSED),
        counts: "connections/input-refused",
        ..Kind::default()
    });
}

/// A ClientHello that claims 65,535 bytes, in records of 16 KiB.
fn hello(bytes: usize) -> Vec<u8> {
    let message = [&[0x01, 0x00, 0xFF, 0xFF, 0x03, 0x03][..], &vec![7; bytes]].concat();
    let records = message.chunks(16 * 1024);
    let record =
        |part: &[u8]| [&[0x16, 0x03, 0x01][..], &(part.len() as u16).to_be_bytes(), part].concat();
    records.flat_map(record).collect()
}

/// A TLS listener with a certificate.
fn tls(folder: &Folder) -> String {
    let certified =
        rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let path = |name| folder.0.join(name).display().to_string();
    std::fs::write(path("cert.pem"), certified.cert.pem()).expect("written");
    std::fs::write(path("key.pem"), certified.signing_key.serialize_pem()).expect("written");
    format!(
        "limits.connect_timeout_s = 60\n[[listeners]]\nbind = \"127.0.0.1:0\"\ntransport = \"tls\"\n\
         [listeners.tls]\ncertificate = \"{}\"\nkey = \"{}\"\n",
        path("cert.pem"),
        path("key.pem")
    )
}

#[test]
#[cfg(feature = "tls")]
fn unfinished_tls_hellos_of_70_kib() {
    let folder = Folder::new("hellos");
    check(&Kind {
        name: "900 TLS hellos of 70 KiB, unfinished",
        configuration: tls(&folder),
        attack: |attacked| {
            let mut outcome = Outcome { refused_min: 800, ..Outcome::default() };
            let all = hello(65_000);
            let mut streams = Vec::new();
            for _ in 0..900 {
                let mut stream =
                    TcpStream::connect(attacked.others[0]).expect("the server listens");
                // As much as the broker buffers of one, and then more.
                send(&mut stream, &all[..17_000]);
                streams.push(stream);
            }
            for stream in &mut streams {
                send(stream, &all[17_000..]);
            }
            std::thread::sleep(Duration::from_secs(1));
            streams.into_iter().for_each(|stream| outcome.take(stream, SOON));
            outcome
        },
        says: Some(REFUSED),
        counts: "connections/input-refused",
        ..Kind::default()
    });
}

#[test]
#[cfg(feature = "websocket")]
fn unfinished_websocket_requests() {
    check(&Kind {
        name: "1,000 WebSocket requests of 8 KiB, unfinished",
        configuration: "limits.connect_timeout_s = 60\n[[listeners]]\nbind = \"127.0.0.1:0\"\n\
                        transport = \"ws\"\n"
            .to_owned(),
        attack: |attacked| {
            let mut outcome = Outcome { refused_min: 100, ..Outcome::default() };
            let field = format!("X: {}\r\n", "x".repeat(1_000));
            let request = format!("GET /mqtt HTTP/1.1\r\n{}", field.repeat(8));
            for _ in 0..1_000 {
                let mut stream =
                    TcpStream::connect(attacked.others[0]).expect("the server listens");
                send(&mut stream, request.as_bytes());
                outcome.take(stream, Duration::from_millis(1));
            }
            outcome
        },
        says: Some(REFUSED),
        counts: "connections/input-refused",
        ..Kind::default()
    });
}
