//! Opening every connection of a run: a bounded number at a time, each through TCP connect,
//! CONNECT and SUBSCRIBE.

use std::time::{Duration, Instant};

use mio::{Events, Interest, Token, net::TcpStream};

use super::{Client, Load, Publisher, Subscriber, client::Phase};
use crate::{
    codec::{KEEP_ALIVE_S, encode_connect, encode_connect_kept, encode_subscribe},
    error::{Error, Result},
    limits::{CONNECT_TIMEOUT, CONNECTING_MAX},
};

impl Load {
    pub(super) fn connect_all(&mut self) -> Result<()> {
        let mut events = Events::with_capacity(CONNECTING_MAX);
        let deadline = Instant::now() + CONNECT_TIMEOUT;
        let total = self.workload.clients() as usize;
        // Clients become ready in about the order they were begun, so a cursor is enough.
        let mut first_unready = 0;
        while first_unready < total {
            while self.clients.len() < total && self.clients.len() - first_unready < CONNECTING_MAX
            {
                self.begin_client()?;
            }
            self.turn(&mut events, Duration::from_millis(100))?;
            while first_unready < self.clients.len()
                && self.clients[first_unready].phase == Phase::Ready
            {
                first_unready += 1;
            }
            if Instant::now() > deadline {
                let name = self.name_of(first_unready);
                let phase = self.clients[first_unready].phase;
                return Err(Error::Broker(format!("{name} is still in {phase:?} after a minute")));
            }
        }
        Ok(())
    }

    fn begin_client(&mut self) -> Result<()> {
        let index = self.clients.len();
        let address = self.settings.address;
        let connect = || {
            let mut stream = TcpStream::connect(address.socket_address())?;
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.poll.registry().register(&mut stream, Token(index), interest)?;
            Ok(stream)
        };
        let stream =
            connect().map_err(|source| Error::io(format!("connect to {address}"), source))?;
        self.clients.push(Client::new(stream));
        match self.publisher_of(index) {
            Some(publisher) => {
                self.publishers.push(Publisher::new(&self.workload, self.run, publisher));
            }
            None => self.subscribers.push(Subscriber::new(&self.workload, index as u32)),
        }
        Ok(())
    }

    /// The socket is connected, or failed to.
    pub(super) fn finish_connecting(&mut self, index: usize) -> Result<()> {
        let address = self.settings.address;
        let client = &mut self.clients[index];
        let failed = |source| Error::io(format!("connect to {address}"), source);
        if let Some(error) = client.stream.take_error().map_err(failed)? {
            return Err(failed(error));
        }
        match client.stream.peer_addr() {
            Err(error) if error.kind() == std::io::ErrorKind::NotConnected => return Ok(()),
            outcome => outcome.map_err(failed)?,
        };
        // Batching is this program's own; Nagle's would add 40 ms where acknowledgements meet it.
        client.stream.set_nodelay(true).map_err(failed)?;
        client.phase = Phase::AwaitConnack;
        let identifier = format!("bench-{:08x}-{index}", self.run);
        let encode = match self.workload.are_sessions_kept {
            true => encode_connect_kept,
            false => encode_connect,
        };
        encode(self.workload.mqtt, KEEP_ALIVE_S, &identifier, &mut client.outgoing);
        Ok(())
    }

    /// CONNACK came.
    pub(super) fn handle_connack(
        &mut self,
        index: usize,
        reason: u8,
        receive_maximum: u16,
    ) -> Result<()> {
        if reason != 0 || self.clients[index].phase != Phase::AwaitConnack {
            let name = self.name_of(index);
            return Err(Error::Broker(format!("{name} got CONNACK with reason {reason:#04x}")));
        }
        if let Some(publisher) = self.publisher_of(index) {
            self.publishers[publisher as usize].set_receive_maximum(receive_maximum);
            self.clients[index].phase = Phase::Ready;
            return Ok(());
        }
        let filter = self.workload.topic_filter(self.run, index as u32);
        let client = &mut self.clients[index];
        client.phase = Phase::AwaitSuback;
        encode_subscribe(self.workload.mqtt, &filter, self.workload.qos, &mut client.outgoing);
        Ok(())
    }

    /// SUBACK came.
    pub(super) fn handle_suback(&mut self, index: usize, reason: u8) -> Result<()> {
        let phase = self.clients[index].phase;
        if phase != Phase::AwaitSuback || reason != self.workload.qos.bits() {
            let name = self.name_of(index);
            return Err(Error::Broker(format!("{name} got SUBACK with reason {reason:#04x}")));
        }
        self.clients[index].phase = Phase::Ready;
        Ok(())
    }
}
