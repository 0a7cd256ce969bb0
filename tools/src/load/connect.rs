//! Opens all connections of a run: a bounded number at a time, each with TCP connect, CONNECT and
//! SUBSCRIBE.

use std::time::{Duration, Instant};

use mio::{Events, Token};

use super::{Client, Load, Publisher, Subscriber, client::Phase};
use crate::{
    address::LoopbackAddress,
    codec::{KEEP_ALIVE_S, Session, encode_connect, encode_subscribe},
    error::{Error, Result},
    limits::{CONNECT_TIMEOUT, CONNECTING_MAX},
    scenario::Workload,
};

impl Load {
    pub(super) fn connect_all(&mut self) -> Result<()> {
        let mut events = Events::with_capacity(CONNECTING_MAX);
        let deadline = Instant::now() + CONNECT_TIMEOUT;
        let total = self.clients_max();
        // Clients become ready approximately in order, so a cursor is sufficient.
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
        let address = self.address_of(index);
        let number = self.share.in_run(index as u32);
        let registry = self.poll.registry();
        let stream = self.connector.connect_to(address, number, registry, Token(index));
        let stream = stream.map_err(|source| Error::io(format!("connect to {address}"), source))?;
        self.clients.push(Client::new(stream));
        match self.publisher_of(index) {
            Some(publisher) => {
                let number = self.share.in_run(publisher);
                self.publishers.push(Publisher::new(&self.workload, self.run, number, self.share));
            }
            None => self.subscribers.push(Subscriber::new(&self.workload, number)),
        }
        Ok(())
    }

    /// Where a client connects.
    fn address_of(&self, index: usize) -> LoopbackAddress {
        let settings = &self.settings;
        let elsewhere = settings.publishers_at.filter(|_| self.publisher_of(index).is_some());
        elsewhere.unwrap_or(settings.address)
    }

    /// The socket is connected, or failed to connect.
    pub(super) fn finish_connecting(&mut self, index: usize) -> Result<()> {
        let address = self.address_of(index);
        let client = &mut self.clients[index];
        let failed = |source| Error::io(format!("connect to {address}"), source);
        if !client.stream.is_connected().map_err(failed)? {
            return Ok(());
        }
        client.phase = Phase::AwaitConnack;
        let identifier = format!("bench-{:08x}-{}-{index}", self.run, self.share.number);
        let session = match self.workload.are_sessions_kept {
            true => Session::Kept,
            false => Session::Clean,
        };
        let mqtt = self.workload.mqtt;
        encode_connect(mqtt, session, KEEP_ALIVE_S, &identifier, &mut client.outgoing);
        Ok(())
    }

    /// CONNACK was received.
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
        let filters = self.workload.topic_filters(self.run, self.share.in_run(index as u32));
        let client = &mut self.clients[index];
        client.phase = Phase::AwaitSuback;
        let Workload { mqtt, qos, .. } = self.workload;
        encode_subscribe(mqtt, 1, &filters, qos, &mut client.outgoing);
        Ok(())
    }

    /// SUBACK was received.
    pub(super) fn handle_suback(&mut self, index: usize, reasons: &[u8]) -> Result<()> {
        let phase = self.clients[index].phase;
        let granted = reasons.iter().all(|&reason| reason == self.workload.qos.bits());
        if phase != Phase::AwaitSuback || !granted {
            let name = self.name_of(index);
            return Err(Error::Broker(format!("{name} got SUBACK with reasons {reasons:02x?}")));
        }
        self.clients[index].phase = Phase::Ready;
        Ok(())
    }
}
