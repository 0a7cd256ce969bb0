//! A client that shuts down its sending direction: it waits for the responses to what it has sent.

use std::collections::{BTreeMap, BTreeSet};

use ringmq::wire::{self, Disconnect, Packet};

use super::Client;
use crate::judge::Judge;
use crate::world::{At, World};

/// A connection whose sending direction is shut down.
pub struct HalfClosed {
    link: usize,
    since_us: u64,
    /// Messages to be acknowledged, by Packet Identifier.
    awaited: BTreeMap<u16, usize>,
    /// Pending SUBSCRIBE and UNSUBSCRIBE packets.
    asked: BTreeSet<u16>,
}

impl Client {
    /// Shuts down the sending direction, and waits for the responses.
    pub fn end(
        &mut self,
        world: &mut World,
        judge: &mut Judge,
        is_polite: bool,
        reads_ahead: bool,
    ) {
        let Some(link) = self.link.filter(|_| self.is_connected) else { return };
        if is_polite {
            self.send(world, &Packet::Disconnect(Disconnect::default()));
        }
        world.end(link, reads_ahead);
        let sent = self.pending.iter().filter(|of| !of.is_released);
        self.half_closed = Some(HalfClosed {
            link,
            since_us: world.now.0,
            awaited: sent.map(|of| (of.identifier, of.message)).collect(),
            asked: self.subscribing.keys().chain(self.unsubscribing.keys()).copied().collect(),
        });
        judge.keeps_what_it_sent = true;
        self.end_link(world, judge, is_polite);
        judge.keeps_what_it_sent = false;
    }

    /// The result of packets on the half-closed connection is unknown.
    pub(super) fn forget_half_closed(&mut self, judge: &mut Judge) {
        if self.half_closed.take().is_some() {
            judge.doubt_fresh(self.number);
        }
    }

    /// Processes responses on the half-closed connection.
    pub(super) fn check_half_closed(
        &mut self,
        world: &mut World,
        judge: &mut Judge,
    ) -> Result<(), String> {
        let Some(mut half_closed) = self.half_closed.take() else { return Ok(()) };
        while let Some(packet) = world.links[half_closed.link].inbox.pop_front() {
            match wire::decode(&packet, self.version).map_err(|v| format!("sent: {v}"))? {
                // The session continues from there.
                Packet::Puback(ack) => {
                    let identifier = ack.packet_identifier.get();
                    self.pending.retain(|of| of.identifier != identifier);
                    if let Some(message) = half_closed.awaited.remove(&identifier) {
                        judge.acknowledge(world, message)?;
                    }
                }
                Packet::Pubrec(ack) => {
                    let identifier = ack.packet_identifier.get();
                    let mut pending = self.pending.iter_mut();
                    if let Some(of) = pending.find(|of| of.identifier == identifier) {
                        of.is_released = true;
                    }
                    if let Some(message) = half_closed.awaited.remove(&identifier) {
                        judge.acknowledge(world, message)?;
                    }
                }
                Packet::Suback(suback) => {
                    half_closed.asked.remove(&suback.packet_identifier.get());
                }
                Packet::Unsuback(unsuback) => {
                    half_closed.asked.remove(&unsuback.packet_identifier.get());
                }
                _ => {}
            }
        }
        if world.links[half_closed.link].at != At::Closed {
            self.half_closed = Some(half_closed);
            return Ok(());
        }
        // The broker may stop waiting for other cores and the store.
        let is_late = world.now.0 >= half_closed.since_us + 15_000_000;
        let is_answered = half_closed.awaited.is_empty() && half_closed.asked.is_empty();
        let is_taken_over = self.roams() && self.check_taken_over(judge).is_ok();
        match is_answered || is_late || is_taken_over {
            true => Ok(()),
            false => Err(format!("{} received no response before its connection ended", self.name)),
        }
    }
}
