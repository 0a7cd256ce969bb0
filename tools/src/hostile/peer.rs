//! A client of an attack: one socket with blocking reads and writes and a timeout. Interprets only
//! the first byte and the Reason Code of received packets.

use std::{
    fmt,
    io::{self, Read, Write},
    net::TcpStream,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::packets::{self, Connect};
use crate::address::LoopbackAddress;

/// An unexpected end of an exchange with the broker. Not an error of the tool, as a broker may
/// refuse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// CONNACK with this Reason Code.
    Connack(u8),
    /// DISCONNECT with this Reason Code.
    Disconnect(u8),
    /// The connection was closed without a packet.
    Closed,
    /// No data was received or accepted before the timeout.
    Silence,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connack(reason) => write!(f, "CONNACK {reason:#04x}"),
            Self::Disconnect(reason) => write!(f, "DISCONNECT {reason:#04x}"),
            Self::Closed => f.write_str("closed"),
            Self::Silence => f.write_str("no answer"),
        }
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::Silence,
            _ => Self::Closed,
        }
    }
}

/// The result of an exchange.
pub type Exchange<T> = Result<T, Refusal>;

/// One connection.
#[derive(Debug)]
pub struct Peer {
    stream: TcpStream,
    inbox: Vec<u8>,
    patience: Duration,
}

/// A packet from the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The first byte.
    pub first_byte: u8,
    /// The bytes after the Remaining Length.
    pub body: Vec<u8>,
}

impl Peer {
    /// A TCP connection on which no data has been sent.
    pub fn open(address: LoopbackAddress, patience: Duration) -> Exchange<Self> {
        let stream = TcpStream::connect_timeout(&address.socket_address(), patience)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        Ok(Self { stream, inbox: Vec::new(), patience })
    }

    /// A connected client.
    pub fn connect(
        address: LoopbackAddress,
        patience: Duration,
        connect: &Connect<'_>,
    ) -> Exchange<Self> {
        let mut peer = Self::open(address, patience)?;
        peer.send(&connect.encode())?;
        peer.await_packet(0x20)?;
        Ok(peer)
    }

    /// Sends all bytes.
    pub fn send(&mut self, bytes: &[u8]) -> Exchange<()> {
        self.stream.write_all(bytes)?;
        Ok(())
    }

    /// Sends as many bytes as the broker accepts in time; returns their number. The end of the
    /// connection is not an error here, as floods expect it.
    pub fn send_until(&mut self, bytes: &[u8], until: Instant) -> usize {
        let mut sent = 0;
        while sent < bytes.len() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || self.stream.set_write_timeout(Some(left)).is_err() {
                break;
            }
            match self.stream.write(&bytes[sent..]) {
                Ok(0) => break,
                Ok(taken) => sent += taken,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        let _ = self.stream.set_write_timeout(Some(self.patience));
        sent
    }

    /// The next packet.
    pub fn next(&mut self) -> Exchange<Answer> {
        let mut buffer = [0; 16 * 1024];
        loop {
            if let Some((header, total)) = frame(&self.inbox) {
                let body = self.inbox[header..total].to_vec();
                let first_byte = self.inbox[0];
                self.inbox.drain(..total);
                return Ok(Answer { first_byte, body });
            }
            match self.read(&mut buffer)? {
                0 => return Err(Refusal::Closed),
                read => self.inbox.extend_from_slice(&buffer[..read]),
            }
        }
    }

    /// Reads what has arrived, or waits for it. A read with a timeout ends with EINTR when the
    /// process was stopped and continues (signal(7)).
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.stream.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    /// Reads and discards data up to and including these bytes: a response that is not MQTT.
    pub fn await_bytes(&mut self, last: &[u8]) -> Exchange<()> {
        let (mut seen, mut buffer) = (Vec::new(), [0; 1_024]);
        while !seen.ends_with(last) {
            match self.read(&mut buffer)? {
                0 => return Err(Refusal::Closed),
                read => seen.extend_from_slice(&buffer[..read]),
            }
        }
        Ok(())
    }

    /// The next packet with this first byte; others are discarded.
    pub fn await_packet(&mut self, first_byte: u8) -> Exchange<Answer> {
        let until = Instant::now() + self.patience;
        while Instant::now() < until {
            let answer = self.next()?;
            let reason = |at: usize| answer.body.get(at).copied().unwrap_or(0);
            match answer.first_byte {
                0x20 if reason(1) != 0 => return Err(Refusal::Connack(reason(1))),
                0xE0 => return Err(Refusal::Disconnect(reason(0))),
                found if found == first_byte => return Ok(answer),
                _ => {}
            }
        }
        Err(Refusal::Silence)
    }

    /// Waits until the broker has processed all earlier packets, with PINGREQ and PINGRESP.
    pub fn settle(&mut self) -> Exchange<()> {
        self.send(&packets::PINGREQ)?;
        self.await_packet(0xD0).map(|_| ())
    }

    /// Subscribes to these filters, a thousand per packet, each answered before the next; returns
    /// how many were granted.
    pub fn subscribe_all<T: AsRef<str>>(&mut self, qos: u8, filters: &[T]) -> Exchange<usize> {
        let mut granted = 0;
        for some in filters.chunks(1_000) {
            self.send(&packets::subscribe(1, qos, some))?;
            let suback = self.await_packet(0x90)?;
            granted += granted_in(&suback);
        }
        Ok(granted)
    }

    /// The broker's last response, if any: reads what arrives in time.
    pub fn last_word(&mut self, until: Instant) -> Refusal {
        let mut word = Refusal::Silence;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || self.stream.set_read_timeout(Some(left)).is_err() {
                return word;
            }
            match self.next() {
                Ok(Answer { first_byte: 0xE0, body }) => {
                    word = Refusal::Disconnect(body.first().copied().unwrap_or(0));
                }
                Ok(Answer { first_byte: 0x20, body }) if body.get(1) != Some(&0) => {
                    word = Refusal::Connack(body.get(1).copied().unwrap_or(0));
                }
                Ok(_) => {}
                Err(Refusal::Closed) if word == Refusal::Silence => return Refusal::Closed,
                Err(_) => return word,
            }
        }
    }

    /// Reads and discards all data, in a thread that ends with the connection.
    pub fn drain(&self) -> Exchange<JoinHandle<u64>> {
        let mut stream = self.stream.try_clone()?;
        Ok(thread::spawn(move || {
            let (mut buffer, mut total) = (vec![0; 64 * 1024], 0);
            loop {
                match stream.read(&mut buffer) {
                    Ok(0) => return total,
                    Ok(read) => total += read as u64,
                    Err(error)
                        if matches!(
                            error.kind(),
                            io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                        ) => {}
                    Err(_) => return total,
                }
            }
        }))
    }

    /// Ends the connection without DISCONNECT, also for other readers of the socket.
    pub fn drop_connection(&self) {
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Ends a thread that drains the connection, too.
        self.drop_connection();
    }
}

/// Data that several connections send concurrently, each as much as the broker accepts.
#[derive(Clone, Copy, Debug)]
pub struct Pump<'a> {
    /// Sent first by each connection.
    pub first: &'a [u8],
    /// Sent after that, repeatedly.
    pub again: &'a [u8],
    /// Maximum number of bytes per connection.
    pub each_max: usize,
    /// Maximum number of bytes of all connections.
    pub total_max: usize,
    /// The end of the transmission.
    pub end: Instant,
}

impl Pump<'_> {
    /// Sends in turn, one piece per connection, without waiting for any of them; returns the number
    /// of accepted bytes. Closed connections are skipped.
    pub fn run(&self, peers: &mut [Peer]) -> usize {
        const PIECE: usize = 64 * 1024;
        let mut sent = vec![0; peers.len()];
        let mut is_open = vec![true; peers.len()];
        let mut total = 0;
        peers.iter().for_each(|peer| drop(peer.stream.set_nonblocking(true)));
        while total < self.total_max && Instant::now() < self.end && is_open.contains(&true) {
            let mut is_idle = true;
            for (number, peer) in peers.iter_mut().enumerate() {
                if !is_open[number] || sent[number] >= self.each_max {
                    continue;
                }
                let piece = self.piece(sent[number], PIECE.min(self.each_max - sent[number]));
                match peer.stream.write(piece) {
                    Ok(taken) => {
                        sent[number] += taken;
                        total += taken;
                        is_idle &= taken == 0;
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(_) => is_open[number] = false,
                }
            }
            if sent.iter().all(|&sent| sent >= self.each_max) {
                break;
            }
            if is_idle {
                thread::sleep(Duration::from_millis(1));
            }
        }
        peers.iter().for_each(|peer| drop(peer.stream.set_nonblocking(false)));
        total
    }

    /// The data of a connection after this many bytes.
    fn piece(&self, sent: usize, most: usize) -> &[u8] {
        let rest = match sent.checked_sub(self.first.len()) {
            Some(after) if !self.again.is_empty() => &self.again[after % self.again.len()..],
            Some(_) => &[],
            None => &self.first[sent..],
        };
        &rest[..rest.len().min(most)]
    }
}

/// The number of granted filters in a 5.0 SUBACK.
pub fn granted_in(suback: &Answer) -> usize {
    suback.body.iter().skip(3).filter(|&&reason| reason < 0x80).count()
}

/// The end of the first packet, if complete: the length of its header and its total length.
fn frame(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut remaining = 0;
    for at in 1..=4 {
        let byte = *bytes.get(at)?;
        remaining |= usize::from(byte & 0x7F) << (7 * (at - 1));
        if byte & 0x80 == 0 {
            let total = at + 1 + remaining;
            return (bytes.len() >= total).then_some((at + 1, total));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);

    /// A stand-in that answers the first bytes with these, and closes the connection.
    fn answering(answer: &'static [u8]) -> LoopbackAddress {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("a bound socket").to_string();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("the test connects");
            let _ = stream.read(&mut [0; 256]);
            let _ = stream.write_all(answer);
        });
        address.parse().expect("127.0.0.1 is loopback")
    }

    #[test]
    fn a_refusal_is_reported_with_its_reason() {
        let connect =
            |answer| Peer::connect(answering(answer), PATIENCE, &Connect::clean("c")).map(|_| ());
        assert_eq!(connect(&[0x20, 3, 0, 0, 0]), Ok(()));
        assert_eq!(connect(&[0x20, 3, 0, 0x89, 0]), Err(Refusal::Connack(0x89)));
        assert_eq!(connect(&[0xE0, 1, 0x97]), Err(Refusal::Disconnect(0x97)));
        assert_eq!(connect(&[]), Err(Refusal::Closed));
    }

    #[test]
    fn a_pump_sends_its_first_part_once_and_its_second_repeatedly() {
        let pump = Pump {
            first: b"abc",
            again: b"xy",
            each_max: 8,
            total_max: 100,
            end: Instant::now() + PATIENCE,
        };
        assert_eq!(pump.piece(0, 8), b"abc");
        assert_eq!(pump.piece(1, 1), b"b");
        assert_eq!((pump.piece(3, 8), pump.piece(6, 8)), (&b"xy"[..], &b"y"[..]));
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("a bound socket").to_string();
        let address = address.parse().expect("127.0.0.1 is loopback");
        let mut peers = [Peer::open(address, PATIENCE).expect("the server listens")];
        let (mut stream, _) = listener.accept().expect("the test has connected");
        assert_eq!(pump.run(&mut peers), 8);
        drop(peers);
        let mut received = Vec::new();
        stream.read_to_end(&mut received).expect("all data");
        assert_eq!(received, b"abcxyxyx");
    }

    #[test]
    fn operations_end_at_their_timeout() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("a bound socket").to_string();
        let address = address.parse().expect("127.0.0.1 is loopback");
        let patience = Duration::from_millis(50);
        let begun = Instant::now();
        let refused = Peer::connect(address, patience, &Connect::clean("c")).map(|_| ());
        assert_eq!(refused, Err(Refusal::Silence));
        let mut peer = Peer::open(address, patience).expect("the backlog has room");
        let sent = peer.send_until(&vec![0; 64 << 20], Instant::now() + patience);
        assert!(sent < 64 << 20, "the data is not read");
        assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
    }
}
