//! Subscriptions of a link, on both sides: those of a beginning, and what a reload makes of them.

use std::sync::Arc;

use super::{Link, Phase, Terms, fault};
use crate::config::bridge::changes::difference;
use crate::transport::Fault;
use crate::transport::bridge::report::Event;
use crate::transport::bridge::{notification, session};
use crate::wire::{self, Disconnect, Packet, Version};

impl Link {
    /// The far broker may have subscriptions to these filters from before: it gives up those that no rule has.
    pub fn give_up_others(&mut self, filters: &[Box<str>]) {
        if self.is_open() {
            self.subscriptions.remember(filters);
            self.ask_far();
        }
    }

    /// Other terms hold from now on, which need no other connection: the differences of the subscriptions are asked for
    /// on both sides.
    pub fn change(&mut self, terms: Arc<Terms>) {
        let before = std::mem::replace(&mut self.terms, terms);
        // Otherwise the session and the far broker are asked for all once the connection is accepted.
        if !self.is_open() {
            return;
        }
        let held: Vec<_> = before.out.local_filters().collect();
        let wanted: Vec<_> = self.terms.out.local_filters().collect();
        let difference = difference(&held, &wanted);
        // First, so that a filter in place of another leaves no gap.
        let (added, to_session) = (&difference.added, &mut self.to_session);
        if !added.is_empty() {
            session::subscribe_here(added, &self.terms, self.far.maximum_qos, to_session);
            let filters = added.iter().map(|(filter, _)| (*filter).into());
            self.subscribing.push_back(filters.collect());
        }
        session::unsubscribe(&difference.removed, Version::V5, to_session);
        self.ask_far();
    }

    /// The bridge is gone from the configuration: it has no subscriptions at the far broker any more, and then no session.
    pub fn give_up(&mut self) {
        if self.phase == Phase::Open {
            self.phase = Phase::GivingUp;
            self.ask_far();
        }
    }

    /// Whether the bridge subscribes to this filter at its far broker.
    pub fn wants(&self, filter: &str) -> bool {
        !matches!(self.phase, Phase::GivingUp | Phase::Over) && self.terms.r#in.has_filter(filter)
    }

    /// The session here has been asked for the filters of all rules.
    pub(super) fn note_subscribing_all(&mut self) {
        let filters: Vec<_> = self.terms.out.local_filters().map(|(of, _)| of.into()).collect();
        if !filters.is_empty() {
            self.subscribing.push_back(filters);
        }
    }

    /// Asks the far broker for what it lacks, and to give up what it has too much.
    pub(super) fn ask_far(&mut self) {
        let Self { terms, attempt, phase, subscriptions, to_far, .. } = self;
        let all = if *phase == Phase::GivingUp { 0 } else { usize::MAX };
        let wanted = terms.r#in.remote_filters().take(all);
        if let Some(event) = subscriptions.ask_for(wanted, attempt.version, to_far) {
            self.report.tell(event);
        }
        if *phase == Phase::GivingUp && subscriptions.is_empty() {
            // The far broker closes the connection; only then it has no session any more.
            *phase = Phase::Over;
            if let Some(topic) = &terms.notification {
                notification::publish(topic, notification::NOT_CONNECTED, attempt.version, to_far);
            }
            let session_expiry_interval = (attempt.version == Version::V5).then_some(0);
            let disconnect = Disconnect { session_expiry_interval, ..Disconnect::default() };
            Packet::Disconnect(disconnect).encode(attempt.version, to_far);
            self.report.tell(Event::GivenUp);
        }
    }

    pub(super) fn take_suback(&mut self, frame: &[u8]) -> Result<(), Fault> {
        let suback = match wire::decode(frame, self.attempt.version) {
            Ok(Packet::Suback(suback)) => suback,
            Ok(_) => return Ok(()),
            Err(violation) => return Err(fault(violation.what())),
        };
        let (version, out) = (self.attempt.version, &mut self.to_far);
        for event in self.subscriptions.take_suback(suback.reasons, version, out) {
            self.report.tell(event);
        }
        self.ask_far();
        Ok(())
    }

    pub(super) fn take_unsuback(&mut self) {
        let filters = self.subscriptions.take_unsuback();
        self.report.tell(Event::Unsubscribed(filters));
        self.ask_far();
    }

    /// Subscribes again to what the far broker has refused.
    pub fn subscribe_again(&mut self) {
        if self.phase == Phase::Open {
            self.subscriptions.ask_again(self.attempt.version, &mut self.to_far);
        }
    }
}
