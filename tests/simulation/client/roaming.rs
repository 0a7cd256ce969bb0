//! A client that changes the node.

use std::collections::BTreeSet;

use ringmq::wire::ReasonCode;

use super::Client;
use crate::judge::Judge;
use crate::world::{At, World};

#[derive(Default)]
pub(super) struct Roaming {
    /// The client connects to any node.
    is_on: bool,
    /// The node of the last CONNECT.
    node: Option<usize>,
    /// The nodes that may have the session: where CONNACK was received last, and those of later CONNECTs.
    homes: BTreeSet<usize>,
    /// Connections that the client has given up before CONNACK.
    given_up: Vec<usize>,
    /// One of these CONNECTs may still be under way between nodes.
    pub(super) has_stray: bool,
}

impl Roaming {
    pub fn new(is_on: bool) -> Self {
        Self { is_on, ..Self::default() }
    }
}

impl Client {
    pub(super) fn roams(&self) -> bool {
        self.roaming.is_on
    }

    /// Whether a CONNECT that the client has given up is on its way from one core to another.
    pub(super) fn has_connect_in_transit(&mut self, world: &World) -> bool {
        let given_up = &mut self.roaming.given_up;
        given_up.retain(|&link| world.links[link].at == At::Moving);
        self.roaming.is_on && !given_up.is_empty()
    }

    /// CONNECT is sent to a core.
    pub(super) fn go_to(&mut self, world: &World, judge: &mut Judge, core: usize) {
        let node = world.nodes.node_of(core);
        self.roaming.node = Some(node);
        self.roaming.homes.insert(node);
        judge.go_to(self.number, node);
    }

    /// CONNACK was received.
    pub(super) fn arrive(&mut self, world: &World, judge: &mut Judge) {
        // The session may be claimed for the node of a CONNECT that was given up.
        if !self.roaming.has_stray {
            self.roaming.homes.clear();
        }
        self.roaming.homes.extend(self.roaming.node);
        judge.arrive(self.number, world.turn, !self.roaming.has_stray);
    }

    /// The connection has ended before CONNACK. Unless the session is kept in any case, nobody knows whether CONNECT has
    /// arrived and has replaced it.
    pub(super) fn give_up_connect(&mut self, world: &mut World, judge: &mut Judge, link: usize) {
        self.roaming.given_up.push(link);
        let is_kept = !self.is_clean && self.is_persistent() && judge.is_kept(self.number);
        let may_arrive = self.roaming.is_on && world.links[link].read > 0;
        self.roaming.has_stray |= may_arrive;
        if self.roaming.is_on && is_kept {
            self.kept_s = self.kept_s.min(self.requested_s());
            return;
        }
        if may_arrive {
            // It may end a session that begins after it.
            judge.note_unsure(self.number);
        }
        judge.end_session(self.number);
        self.must_start_clean = true;
        self.drop_abandoned(world);
    }

    /// Whether CONNECT may have been overtaken by one that the client has given up.
    pub(super) fn may_be_refused(&self, reason: ReasonCode) -> bool {
        let is_busy = matches!(reason, ReasonCode::ServerBusy | ReasonCode::ServerUnavailable);
        self.roaming.is_on && is_busy
    }

    /// The node of a session that is kept from now on sends CONNACK once the connections before have ended: no two acknowledge.
    pub(super) fn check_replaced(&self, world: &World, judge: &Judge) -> Result<(), String> {
        let is_open = |link: &&usize| world.links[**link].at != At::Closed;
        match self.abandoned.iter().find(is_open) {
            Some(_)
                if self.is_persistent() && !judge.is_split() && !judge.is_unsure(self.number) =>
            {
                Err(format!("{} has two connections", self.name))
            }
            _ => Ok(()),
        }
    }

    /// "Session taken over" on the last connection: by one that the client has given up, or by an earlier one whose claim
    /// is later.
    pub(super) fn check_taken_over(&self, judge: &Judge) -> Result<(), String> {
        let is_explained =
            !self.is_persistent() || self.roaming.has_stray || judge.is_unsure(self.number);
        match self.roaming.is_on && !is_explained {
            true => Err(format!("{} was taken over by nobody", self.name)),
            false => Ok(()),
        }
    }

    /// Whether there are connections that were replaced by a later one, at another node perhaps.
    pub fn has_abandoned(&self) -> bool {
        self.roaming.is_on && !self.abandoned.is_empty()
    }

    /// Everything is at rest: whether only the last connection is left.
    pub fn check_alone(&self, world: &World, judge: &Judge) -> Result<(), String> {
        let links = self.abandoned.iter().chain(&self.link);
        let open = links.filter(|link| world.links[**link].at != At::Closed).count();
        match open > 1 && !judge.is_unsure(self.number) {
            true => Err(format!("{} has {open} connections at rest", self.name)),
            false => Ok(()),
        }
    }

    /// A node is about to be killed.
    pub fn lose_node(&mut self, world: &mut World, judge: &mut Judge, node: usize) {
        if self.roaming.node == Some(node) {
            self.cut(world, judge);
            self.drop_abandoned(world);
        }
        if self.roaming.homes.contains(&node) {
            judge.end_session(self.number);
            judge.doubt_fresh(self.number);
            // Another node may have an earlier state of it.
            self.must_start_clean |= self.roaming.is_on;
        }
    }

    /// A node was evicted: it has its sessions still, and nobody knows.
    pub fn note_evicted(&mut self, judge: &mut Judge, node: usize) {
        if self.roaming.is_on && self.roaming.homes.contains(&node) {
            judge.note_unsure(self.number);
        }
    }

    /// Everything has settled: a client of whose sessions one was left begins with a new one.
    pub fn start_over(&mut self, world: &mut World, judge: &mut Judge) {
        self.roaming.has_stray = false;
        if judge.is_unsure(self.number) {
            self.cut(world, judge);
            judge.start_over(self.number);
            self.must_start_clean = true;
        }
    }
}
