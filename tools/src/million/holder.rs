//! One process's share of the connections: opens them, keeps them alive, and records the latency of
//! messages to them. Controlled by its command line and by the end of its input.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::mpsc::{self, TryRecvError},
    thread,
    time::{Duration, Instant},
};

use mio::{Events, Interest, Poll, Token, net::TcpStream};
use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, Socket, Type};

use super::topic_of;
use crate::{
    cli::HoldArgs,
    clock,
    codec::{self, Inbound, Qos, Session, Version},
    error::{Error, Result},
    limits::{CLIENTS_PER_SOURCE, CONNECTING_MAX, HOLD_STALL_TIMEOUT},
    stamp::Stamp,
};

/// The fraction of the Keep Alive after which a PINGREQ is sent.
const PING_AFTER: f64 = 0.75;

/// Interval between checks for due PINGREQs.
const TICK: Duration = Duration::from_millis(20);

/// The final report of a holder.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Held {
    /// Latencies in microseconds with their counts.
    pub latencies_us: Vec<u64>,
    /// Connections that ended early.
    pub lost: u32,
    /// Number of PINGRESP packets.
    pub pingresps: u64,
}

struct Holder<'a> {
    args: &'a HoldArgs,
    poll: Poll,
    /// `None` if the connection has ended.
    streams: Vec<Option<TcpStream>>,
    ready: u32,
    held: Held,
}

/// Runs a process's share.
pub fn hold(args: &HoldArgs) -> Result<()> {
    let poll = Poll::new().map_err(|source| Error::io("poll", source))?;
    let mut holder = Holder { args, poll, streams: Vec::new(), ready: 0, held: Held::default() };
    holder.connect_all()?;
    say("held")?;
    holder.keep(&end_of_input())?;
    let held = serde_json::to_string(&holder.held).expect("numbers");
    say(&held)
}

/// Reported when the input has ended.
fn end_of_input() -> mpsc::Receiver<()> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let _ = io::stdin().read_to_end(&mut Vec::new());
        drop(sender);
    });
    receiver
}

fn say(line: &str) -> Result<()> {
    let mut output = io::stdout();
    writeln!(output, "{line}")
        .and_then(|()| output.flush())
        .map_err(|source| Error::io("say", source))
}

impl Holder<'_> {
    fn connect_all(&mut self) -> Result<()> {
        let mut events = Events::with_capacity(1024);
        let mut last_ready = (0, Instant::now());
        while self.ready < self.args.clients {
            let under_way = self.streams.len() - self.ready as usize;
            let left = self.args.clients as usize - self.streams.len();
            for _ in 0..left.min(CONNECTING_MAX.saturating_sub(under_way)) {
                self.connect()?;
            }
            self.turn(&mut events, Duration::from_millis(100))?;
            if last_ready.0 < self.ready {
                last_ready = (self.ready, Instant::now());
            }
            if self.held.lost > 0 || last_ready.1.elapsed() > HOLD_STALL_TIMEOUT {
                let (ready, lost) = (self.ready, self.held.lost);
                return Err(Error::Broker(format!(
                    "{ready} connections are open, {lost} were lost, and no more can be opened"
                )));
            }
        }
        Ok(())
    }

    /// Starts to connect a client, and sends CONNECT and SUBSCRIBE as soon as possible.
    fn connect(&mut self) -> Result<()> {
        let index = self.streams.len() as u32;
        let source = Ipv4Addr::from(u32::from(self.args.source) + index / CLIENTS_PER_SOURCE);
        let open = || {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
            socket.set_nonblocking(true)?;
            socket.bind(&SocketAddr::new(IpAddr::V4(source), 0).into())?;
            match socket.connect(&self.args.address.socket_address().into()) {
                Err(error)
                    if error.raw_os_error()
                        != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) =>
                {
                    Err(error)
                }
                _ => Ok(TcpStream::from_std(socket.into())),
            }
        };
        let doing = || format!("connect {source} to {}", self.args.address);
        let mut stream = open().map_err(|source| Error::io(doing(), source))?;
        self.poll
            .registry()
            .register(&mut stream, Token(index as usize), Interest::READABLE | Interest::WRITABLE)
            .map_err(|source| Error::io(doing(), source))?;
        self.streams.push(Some(stream));
        Ok(())
    }

    /// Keeps the connections until the end of input.
    fn keep(&mut self, end: &mpsc::Receiver<()>) -> Result<()> {
        let mut events = Events::with_capacity(1024);
        let round = Duration::from_secs(self.args.keep_alive_s.into()).mul_f64(PING_AFTER);
        let begun = Instant::now();
        let mut pinged = 0;
        while end.try_recv() != Err(TryRecvError::Disconnected) {
            // All connections in turn, evenly distributed.
            let rounds = begun.elapsed().as_secs_f64() / round.as_secs_f64();
            let due = (rounds * f64::from(self.args.clients)) as u64;
            for ping in pinged..due {
                self.ping((ping % u64::from(self.args.clients)) as usize)?;
            }
            pinged = due;
            self.turn(&mut events, TICK)?;
        }
        Ok(())
    }

    fn ping(&mut self, index: usize) -> Result<()> {
        let Some(stream) = &mut self.streams[index] else { return Ok(()) };
        if stream.write_all(&[0xC0, 0]).is_err() {
            self.lose(index);
        }
        Ok(())
    }

    fn lose(&mut self, index: usize) {
        self.streams[index] = None;
        self.held.lost += 1;
    }

    fn turn(&mut self, events: &mut Events, wait: Duration) -> Result<()> {
        match self.poll.poll(events, Some(wait)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                return Err(Error::io("poll", error));
            }
            _ => {}
        }
        for event in events.iter() {
            let index = event.token().0;
            if self.serve(index, event.is_writable()).is_err() {
                self.lose(index);
            }
        }
        Ok(())
    }

    fn serve(&mut self, index: usize, is_writable: bool) -> io::Result<()> {
        let Some(stream) = &mut self.streams[index] else { return Ok(()) };
        if is_writable {
            if let Some(error) = stream.take_error()? {
                return Err(error);
            }
            let number = self.args.first + index as u32;
            let mut packets = Vec::new();
            let version = Version::V311;
            let keep_alive_s = self.args.keep_alive_s;
            let (session, identifier) = (Session::Clean, format!("m{number}"));
            codec::encode_connect(version, session, keep_alive_s, &identifier, &mut packets);
            let filters = [topic_of(number)];
            codec::encode_subscribe(version, 1, &filters, Qos::AtMostOnce, &mut packets);
            stream.write_all(&packets)?;
            self.poll.registry().reregister(stream, Token(index), Interest::READABLE)?;
        }
        let mut bytes = [0; 1024];
        loop {
            let len = match stream.read(&mut bytes) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(len) => len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            let now_ns = clock::now_ns();
            let mut rest = &bytes[..len];
            // Packets this short and rare arrive whole.
            while let Ok(Some((header, total))) = codec::frame(rest) {
                match codec::decode(Version::V311, rest[0], &rest[header..total]) {
                    Ok(Inbound::Suback { reasons: [0], .. }) => self.ready += 1,
                    Ok(Inbound::Connack { reason: 0, .. }) => {}
                    Ok(Inbound::Pingresp) => self.held.pingresps += 1,
                    Ok(Inbound::Publish { payload, .. }) => {
                        let stamp = Stamp::decode(payload).ok_or(io::ErrorKind::InvalidData)?;
                        let us = stamp.age_ns(now_ns) / 1_000;
                        self.held.latencies_us.push(us);
                    }
                    _ => return Err(io::ErrorKind::InvalidData.into()),
                }
                rest = &rest[total..];
            }
            if !rest.is_empty() {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
    }
}
