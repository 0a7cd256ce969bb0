//! SUBSCRIBE and UNSUBSCRIBE.

use shards::{FilterId, SubscriberId, Subscription, SubscriptionOptions, TopicError, TopicFilter};

use crate::engine::access::Identity;
use crate::engine::answers::{Answer, Promise, suback, unsuback};
use crate::engine::connect::exchange;
use crate::engine::{ConnectionId, Engine};
use crate::limits;
use crate::log_rate::{name, rated};
use crate::session::outbound::Identifiers;
use crate::session::state::RetainedFeed;
use crate::violation::Violation;
use crate::wire::{
    Packet, PacketIdentifier, Qos, ReasonCode, Subscribe, SubscribeOptions, Unsubscribe, Version,
};

impl Engine {
    /// One SUBACK with a Reason Code for each filter [MQTT-3.8.4-6]; retained messages follow it.
    pub(super) fn handle_subscribe(
        &mut self,
        id: ConnectionId,
        session: u32,
        subscribe: &Subscribe<'_>,
    ) -> Result<(), Violation> {
        let identifier = subscribe.subscription_identifier.unwrap_or(0);
        self.check_answer_fits(id, subscribe.packet_identifier, subscribe.filters.count())?;
        // Judged before anything is changed: a packet that breaks the protocol changes nothing.
        for (text, options) in subscribe.filters {
            if parse_any(text)?.share_name().is_some() && options.no_local {
                return Err(Violation::NoLocalOnSharedSubscription); // [MQTT-3.8.3-4]
            }
        }
        let version = self.version(id.slot);
        let mut reasons = Vec::new();
        let mark = self.mark();
        for (text, options) in subscribe.filters {
            let outcome = self.subscribe_to(id, session, text, &options, identifier);
            self.links.metrics.subscriptions_refused += u64::from(outcome.is_err());
            let reason = match outcome {
                Ok(granted) => granted as u8,
                Err(_) if version != Version::V5 => 0x80,
                Err(reason) => reason as u8,
            };
            reasons.push(reason);
        }
        let suback = Answer::Suback { packet_identifier: subscribe.packet_identifier, reasons };
        // From SUBACK on, what is published on any core reaches this client: every core knows the
        // filter by then. Retained messages follow.
        let promise = Promise { batch: self.batch_since(mark), receives: None };
        self.answer(id, suback, promise, |engine, core, awaited| {
            engine.lanes.to(core).await_announcements(awaited)
        });
        Ok(())
    }

    /// A SUBACK or UNSUBACK has a Reason Code for each filter and cannot be cut short, nor may it be
    /// larger than the client takes [MQTT-3.1.2-24].
    fn check_answer_fits(
        &mut self,
        id: ConnectionId,
        packet_identifier: PacketIdentifier,
        filters: usize,
    ) -> Result<(), Violation> {
        let Some(connection) = self.links.get(id) else { return Ok(()) };
        if connection.packet_bytes_max == u32::MAX {
            return Ok(());
        }
        let (mut bytes, reasons) = (Vec::new(), vec![0; filters]);
        Packet::Suback(suback(packet_identifier, &reasons)).encode(Version::V5, &mut bytes);
        match bytes.len() > connection.packet_bytes_max as usize {
            true => Err(Violation::AnswerTooLarge),
            false => Ok(()),
        }
    }

    fn subscribe_to(
        &mut self,
        id: ConnectionId,
        session: u32,
        text: &str,
        options: &SubscribeOptions,
        identifier: u32,
    ) -> Result<Qos, ReasonCode> {
        let limits = &self.settings.limits;
        if text.len() > usize::from(limits.topic_bytes_max) {
            return Err(ReasonCode::TopicFilterInvalid);
        }
        let filter = TopicFilter::parse(text, limits.topic_levels_max as usize)
            .map_err(|_| ReasonCode::TopicFilterInvalid)?;
        self.check_available(&filter, identifier)?;
        let client_identifier = &self.sessions[session as usize].client_identifier;
        let who = Identity { exchange: exchange(id), client_identifier };
        let qos =
            self.access.may_subscribe(&who, text, options.qos).ok_or(ReasonCode::NotAuthorized)?;
        let qos =
            qos.min(Qos::try_from(self.settings.mqtt.maximum_qos).unwrap_or(Qos::ExactlyOnce));
        let subscriber = SubscriberId(session);
        let held = &self.sessions[session as usize].subscriptions;
        let is_new =
            self.index.find(text).is_none_or(|filter| self.index.get(filter, subscriber).is_none());
        let is_too_many = held.len() >= self.settings.limits.subscriptions_per_client_max as usize;
        if is_new && (is_too_many || self.memory_is_full()) {
            return Err(ReasonCode::QuotaExceeded);
        }
        let subscription = Subscription {
            subscriber,
            options: SubscriptionOptions::new(
                u8::from(qos),
                options.no_local,
                options.retain_as_published,
            ),
            identifier,
        };
        let subscribed = self.index.subscribe(&filter, subscription);
        if subscribed.replaced != Some(subscription) {
            self.tell_subscribed(session, text, &subscription);
        }
        let state = &mut self.sessions[session as usize];
        if subscribed.replaced.is_none() {
            state.subscriptions.push(subscribed.filter);
            self.links.ledger.charge(limits::SUBSCRIPTION_BYTES);
        }
        if subscribed.first {
            self.links.ledger.charge(text.len());
        }
        if filter.share_name().is_some() {
            if subscribed.replaced.is_none() {
                self.join_group(subscribed.filter, session, subscribed.first);
            }
        } else if subscribed.first {
            self.announce(&filter);
        }
        let state = &mut self.sessions[session as usize];
        // Retain Handling 0 sends always, 1 to new subscriptions, 2 never [MQTT-3.3.1-9..11].
        let wants_retained = match options.retain_handling {
            0 => true,
            1 => subscribed.replaced.is_none(),
            _ => false,
        };
        if wants_retained && filter.share_name().is_none() {
            state.feeds.push(RetainedFeed {
                cursor: shards::Cursor::default(),
                qos,
                subscription_identifiers: match identifier {
                    0 => Identifiers::None,
                    one => Identifiers::One([one]),
                },
                subscription: subscribed.filter,
            });
        }
        Ok(qos)
    }

    /// What CONNACK said is not to be had.
    fn check_available(&self, filter: &TopicFilter<'_>, identifier: u32) -> Result<(), ReasonCode> {
        let mqtt = &self.settings.mqtt;
        if filter.share_name().is_some() && !mqtt.shared_subscription_available {
            return Err(ReasonCode::SharedSubscriptionsNotSupported);
        }
        if filter.has_wildcard() && !mqtt.wildcard_subscription_available {
            return Err(ReasonCode::WildcardSubscriptionsNotSupported);
        }
        if identifier != 0 && !mqtt.subscription_identifiers_available {
            return Err(ReasonCode::SubscriptionIdentifiersNotSupported);
        }
        Ok(())
    }

    /// One UNSUBACK with a Reason Code for each filter [MQTT-3.10.4-5], [MQTT-3.11.3-1].
    pub(super) fn handle_unsubscribe(
        &mut self,
        id: ConnectionId,
        session: u32,
        unsubscribe: &Unsubscribe<'_>,
    ) -> Result<(), Violation> {
        self.check_answer_fits(id, unsubscribe.packet_identifier, unsubscribe.filters.count())?;
        for text in unsubscribe.filters {
            parse_any(text)?;
        }
        let mut reasons = Vec::new();
        let mark = self.mark();
        for text in unsubscribe.filters {
            let held = self.index.find(text).filter(|&filter| {
                // Asked first: a client may name filters of others by the million.
                self.index.get(filter, SubscriberId(session)).is_some()
            });
            let is_removed =
                held.is_some_and(|filter| self.end_subscription(session, filter, text));
            reasons.push(match is_removed {
                true => ReasonCode::Success as u8,
                false => ReasonCode::NoSubscriptionExisted as u8,
            });
        }
        let packet_identifier = unsubscribe.packet_identifier;
        if let Some(batch) = self.batch_since(mark) {
            let promise = Promise { batch: Some(batch), receives: None };
            let unsuback = Answer::Unsuback { packet_identifier, reasons };
            self.answer(id, unsuback, promise, |_, _, _| false);
            return Ok(());
        }
        let unsuback = unsuback(packet_identifier, &reasons);
        let version = self.version(id.slot);
        self.links.send(id.slot, |out| Packet::Unsuback(unsuback).encode(version, out));
        Ok(())
    }

    /// Ends a client's subscription; false when it has none to this filter.
    fn end_subscription(&mut self, session: u32, filter: FilterId, text: &str) -> bool {
        let state = &mut self.sessions[session as usize];
        let Some(place) = state.subscriptions.iter().position(|&held| held == filter) else {
            return false;
        };
        state.subscriptions.swap_remove(place);
        state.feeds.end(filter);
        self.tell_unsubscribed(session, text);
        let lines = self.shared_lines(session, Some(filter));
        self.leave(filter, SubscriberId(session));
        self.hand_shared_messages_on(session, &lines, false);
        // What nobody took stays its own: the filter's id may come to mean another group.
        if let Some(outbound) = &mut self.sessions[session as usize].outbound {
            outbound.keep_shared(filter);
        }
        true
    }

    /// Ends the subscriptions that a connected client may not have any more.
    pub(super) fn check_subscriptions(&mut self, session: u32) {
        if self.access.revision() == 0 {
            return;
        }
        let state = &self.sessions[session as usize];
        let Some(id) = state.connection else { return };
        for filter in state.subscriptions.clone() {
            let text = self.index.text(filter);
            let subscription = self.index.get(filter, SubscriberId(session));
            let qos = subscription.map_or(0, |subscription| subscription.options.qos());
            let qos = Qos::try_from(qos).unwrap_or(Qos::AtMostOnce);
            let client_identifier = &self.sessions[session as usize].client_identifier;
            let who = Identity { exchange: exchange(id), client_identifier };
            if self.access.may_subscribe(&who, &text, qos).is_none() {
                let client = name(client_identifier.as_str());
                rated!(
                    info,
                    self.now,
                    client,
                    filter = name(&text),
                    "a subscription is not allowed any more"
                );
                self.flush_run();
                self.end_subscription(session, filter, &text);
                self.links.metrics.subscriptions_revoked += 1;
            }
        }
    }

    /// Credentials and rules may have changed: those who are connected are looked at with their
    /// subscriptions, some each turn; those who are away, when they come back.
    pub(super) fn go_on_checking_clients(&mut self) {
        let revision = self.access.revision();
        if self.checked_revision != revision {
            self.checked_revision = revision;
            self.next_to_check = Some(0);
        }
        let Some(first) = self.next_to_check else { return };
        let last = first + limits::SESSIONS_CHECKED_PER_TURN;
        for session in first..last {
            if self.sessions.contains(session) && self.check_credentials(session as u32) {
                self.check_subscriptions(session as u32);
            }
        }
        let end = self.sessions.iter().next_back().map_or(0, |(last, _)| last + 1);
        self.next_to_check = (last < end).then_some(last);
    }

    /// Takes a subscriber off a filter.
    pub(super) fn leave(&mut self, filter: FilterId, subscriber: SubscriberId) {
        let text = self.index.text(filter);
        let Some(gone) = self.index.unsubscribe(filter, subscriber) else { return };
        self.links.ledger.release(limits::SUBSCRIPTION_BYTES);
        if gone.last {
            self.links.ledger.release(text.len());
        }
        if filter.is_shared() {
            self.leave_group(filter, &text, gone.last);
        } else if gone.last {
            self.withdraw(&text);
        }
    }
}

/// What is no matter of policy but breaks the protocol, in SUBSCRIBE and UNSUBSCRIBE alike.
fn parse_any(text: &str) -> Result<TopicFilter<'_>, Violation> {
    TopicFilter::parse(text, usize::MAX).map_err(|error| match error {
        TopicError::ShareName => Violation::ShareNameInvalid,
        _ => Violation::TopicFilterInvalid,
    })
}
