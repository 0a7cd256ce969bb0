//! Receives data from the broker, splits it into packets, and handles each packet.

use super::{
    Load,
    client::{Phase, ReadOutcome},
};
use crate::{
    clock,
    codec::{
        Inbound, Qos, decode, encode_puback, encode_pubcomp, encode_pubrec, encode_pubrel, frame,
    },
    error::{Error, Result},
    stamp::Stamp,
    verify::Arrival,
};

impl Load {
    /// A socket is writable, or connected.
    pub(super) fn handle_writable(&mut self, index: usize) -> Result<()> {
        if self.clients[index].phase == Phase::Connecting {
            self.finish_connecting(index)?;
        }
        self.flush(index)?;
        if let Some(publisher) = self.publisher_of(index) {
            self.list(publisher);
        }
        Ok(())
    }

    /// A socket is readable.
    pub(super) fn handle_readable(&mut self, index: usize) -> Result<()> {
        if self.clients[index].phase == Phase::Connecting {
            return Ok(());
        }
        // The buffer is moved out temporarily, so that packets can borrow it.
        let mut buffer = std::mem::take(&mut self.read_buffer);
        loop {
            let outcome = self.clients[index].read(&mut buffer);
            let (filled, more) = match outcome {
                Ok(ReadOutcome::More(filled)) => (filled, true),
                Ok(ReadOutcome::Last(filled)) => (filled, false),
                Ok(ReadOutcome::Closed) => {
                    let name = self.name_of(index);
                    return Err(Error::Broker(format!("the broker closed {name}")));
                }
                Err(source) => {
                    return Err(Error::io(format!("read as {}", self.name_of(index)), source));
                }
            };
            let used = self.handle_bytes(index, &buffer[..filled])?;
            let partial = &mut self.clients[index].partial;
            partial.clear();
            partial.extend_from_slice(&buffer[used..filled]);
            if !more {
                break;
            }
        }
        self.read_buffer = buffer;
        match self.publisher_of(index) {
            // Its acknowledgements are sent together with its next messages.
            Some(publisher) => self.list(publisher),
            None => self.flush(index)?,
        }
        Ok(())
    }

    /// Handles the whole packets at the start of `bytes`; returns their length.
    fn handle_bytes(&mut self, index: usize, bytes: &[u8]) -> Result<usize> {
        let now_ns = clock::now_ns();
        let version = self.workload.mqtt;
        let mut used = 0;
        loop {
            let rest = &bytes[used..];
            let packet = match frame(rest) {
                Ok(Some((header, total))) => {
                    used += total;
                    decode(version, rest[0], &rest[header..total])
                }
                Ok(None) => return Ok(used),
                Err(malformed) => Err(malformed),
            };
            match packet {
                Ok(Inbound::Publish { qos, packet_identifier, payload, .. }) => {
                    self.handle_publish(index, now_ns, qos, packet_identifier, payload)?;
                }
                Ok(packet) => self.handle_control(index, now_ns, packet)?,
                Err(malformed) => {
                    let name = self.name_of(index);
                    return Err(Error::Broker(format!("{name} was sent {malformed}")));
                }
            }
            if self.workload.is_segment_each {
                self.flush(index)?;
            }
        }
    }

    #[inline]
    fn handle_publish(
        &mut self,
        index: usize,
        now_ns: u64,
        qos: Qos,
        packet_identifier: u16,
        payload: &[u8],
    ) -> Result<()> {
        let outgoing = &mut self.clients[index].outgoing;
        match qos {
            Qos::AtMostOnce => {}
            Qos::AtLeastOnce => encode_puback(packet_identifier, outgoing),
            Qos::ExactlyOnce => encode_pubrec(packet_identifier, outgoing),
        }
        self.recorder.tally.wrong_qos += u64::from(qos != self.workload.qos);
        if payload.len() != self.workload.payload_bytes as usize {
            self.recorder.tally.corrupted += 1;
            return Ok(());
        }
        match Stamp::decode(payload) {
            Some(stamp) => self.handle_delivery(index, now_ns, &stamp),
            None => self.recorder.tally.corrupted += 1,
        }
        Ok(())
    }

    #[inline]
    fn handle_delivery(&mut self, index: usize, now_ns: u64, stamp: &Stamp) {
        let arrival = match (self.subscribers.get_mut(index), &mut self.group) {
            (Some(_), _) if stamp.run != self.run as u16 => None,
            (Some(subscriber), None) => subscriber.accept(stamp),
            (Some(_), Some(group)) => group.accept(index, stamp.publisher, stamp.sequence),
            (None, _) => None,
        };
        let Some(arrival) = arrival else {
            self.recorder.tally.misdelivered += 1;
            return;
        };
        self.recorder.tally.note(arrival);
        let settled = match arrival {
            Arrival::InOrder | Arrival::Overtaken => 1,
            // Missing messages are given up, so that a broker that drops messages is still loaded.
            Arrival::AfterGap(skipped) => skipped + 1,
            Arrival::Late => 0,
            Arrival::Duplicate => return,
        };
        self.recorder.done(now_ns, stamp.age_ns(now_ns));
        self.settled += settled;
        if let Some(publisher) = self.share.in_process(stamp.publisher) {
            self.publishers[publisher as usize].pace.settle(settled);
            self.list(publisher);
        }
    }

    /// The broker has processed messages of a publisher.
    fn handle_taken(&mut self, index: usize, now_ns: u64, qos: Qos) {
        let Some(publisher) = self.publisher_of(index) else { return };
        let publisher = &mut self.publishers[publisher as usize];
        let mut taken = 0;
        for sent_ns in publisher.take(qos) {
            self.recorder.done(now_ns, now_ns.saturating_sub(sent_ns));
            taken += 1;
        }
        self.settled += taken;
        publisher.pace.settle(taken);
    }

    fn handle_control(&mut self, index: usize, now_ns: u64, packet: Inbound<'_>) -> Result<()> {
        match packet {
            Inbound::Connack { reason, receive_maximum, .. } => {
                return self.handle_connack(index, reason, receive_maximum);
            }
            Inbound::Suback { reasons, .. } => return self.handle_suback(index, reasons),
            Inbound::Disconnect(reason) => {
                let name = self.name_of(index);
                return Err(Error::Broker(format!("{name} was disconnected: {reason:#04x}")));
            }
            Inbound::Pubrel(identifier, _) => {
                encode_pubcomp(identifier, &mut self.clients[index].outgoing);
            }
            Inbound::Puback(identifier, reason) => {
                self.handle_completed(index, now_ns, identifier, reason, Qos::AtLeastOnce);
            }
            Inbound::Pubcomp(identifier, reason) => {
                self.handle_completed(index, now_ns, identifier, reason, Qos::ExactlyOnce);
            }
            Inbound::Pubrec(identifier, reason) => {
                let known = self.publisher_of(index).is_some_and(|publisher| {
                    self.publishers[publisher as usize].receive(identifier)
                });
                self.recorder.tally.wrong_acknowledgements += u64::from(!known || reason >= 0x80);
                encode_pubrel(identifier, &mut self.clients[index].outgoing);
            }
            Inbound::Pingresp => self.handle_taken(index, now_ns, Qos::AtMostOnce),
            Inbound::Publish { .. } | Inbound::Unsuback(_) => {}
        }
        Ok(())
    }

    fn handle_completed(
        &mut self,
        index: usize,
        now_ns: u64,
        identifier: u16,
        reason: u8,
        qos: Qos,
    ) {
        let known = self
            .publisher_of(index)
            .is_some_and(|publisher| self.publishers[publisher as usize].complete(identifier, qos));
        self.recorder.tally.wrong_acknowledgements += u64::from(!known || reason >= 0x80);
        if known {
            self.handle_taken(index, now_ns, qos);
        }
    }
}
