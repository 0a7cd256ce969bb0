//! SUBSCRIBE and UNSUBSCRIBE.

use shards::{FilterId, Subscription, SubscriptionOptions, TopicError, TopicFilter};

use crate::base::ids::{ConnectionId, SessionId, exchange};
use crate::base::limits;
use crate::base::log_rate::{name, rated};
use crate::config::Mqtt;
use crate::engine::Engine;
use crate::engine::access::Identity;
use crate::engine::packets::job::Request;
use crate::session::outbound::Identifiers;
use crate::session::retained_replay::Replay;
use crate::wire::violation::Violation;
use crate::wire::{Qos, ReasonCode, Subscribe, SubscribeOptions, Unsubscribe};

impl Engine {
    /// SUBSCRIBE, of which a large one takes several turns.
    pub(in crate::engine) fn handle_subscribe(
        &mut self,
        id: ConnectionId,
        session: SessionId,
        subscribe: &Subscribe<'_>,
    ) -> Result<(), Violation> {
        let request = Request::Subscribe(subscribe.subscription_identifier.unwrap_or(0));
        let filters = subscribe.filters.rest();
        self.begin_job(id, session, request, subscribe.packet_identifier, filters)
    }

    /// UNSUBSCRIBE, of which a large one takes several turns.
    pub(in crate::engine) fn handle_unsubscribe(
        &mut self,
        id: ConnectionId,
        session: SessionId,
        unsubscribe: &Unsubscribe<'_>,
    ) -> Result<(), Violation> {
        let (identifier, filters) = (unsubscribe.packet_identifier, unsubscribe.filters.rest());
        self.begin_job(id, session, Request::Unsubscribe, identifier, filters)
    }

    pub(in crate::engine) fn subscribe_to(
        &mut self,
        id: ConnectionId,
        session: SessionId,
        text: &str,
        options: &SubscribeOptions,
        identifier: u32,
    ) -> Result<Qos, ReasonCode> {
        let limits = &self.config.limits;
        if text.len() > usize::from(limits.topic_bytes_max) {
            return Err(ReasonCode::TopicFilterInvalid);
        }
        let filter = TopicFilter::parse(text, limits.topic_levels_max as usize)
            .map_err(|_| ReasonCode::TopicFilterInvalid)?;
        check_available(&self.config.mqtt, &filter, identifier)?;
        let client_identifier = &self.sessions[session].client_identifier;
        let who = Identity { exchange: exchange(id), client_identifier };
        let qos = self.access.may_subscribe(&who, text, options.qos, &mut self.work);
        let qos = qos.ok_or(ReasonCode::NotAuthorized)?;
        let qos = qos.min(Qos::try_from(self.config.mqtt.maximum_qos).unwrap_or(Qos::ExactlyOnce));
        let subscriber = session.into();
        let found = self.router.index().find(text);
        let is_new =
            found.is_none_or(|filter| self.router.index().get(filter, subscriber).is_none());
        if is_new && !self.has_room_to_subscribe(session, &filter, found.is_none()) {
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
        let subscribed = self.add_subscription(session, &filter, subscription);
        if subscribed.replaced != Some(subscription) {
            self.durability.append_subscribed(&self.sessions[session], text, &subscription);
        }
        if filter.share_name().is_some() {
            if subscribed.replaced.is_none() {
                self.router.join_group(subscribed.filter, session, &mut self.mesh);
            }
        } else if subscribed.first {
            self.mesh.announce(&filter, self.router.replica());
        }
        let state = &mut self.sessions[session];
        // Retain Handling 0 sends always, 1 to new subscriptions, 2 never [MQTT-3.3.1-9..11].
        let wants_retained = match options.retain_handling {
            0 => true,
            1 => subscribed.replaced.is_none(),
            _ => false,
        };
        if wants_retained && filter.share_name().is_none() && !self.retained.is_empty() {
            let replay = Replay {
                cursor: shards::Cursor::default(),
                qos,
                subscription_identifiers: match identifier {
                    0 => Identifiers::None,
                    one => Identifiers::One([one]),
                },
                subscription: subscribed.filter,
            };
            state.replays.push(replay, self.place.ledger());
        }
        Ok(qos)
    }

    /// Whether one more subscription is within all bounds: those on one client keep what it makes
    /// everybody's PUBLISH cost small, as each of them is looked at for each topic.
    fn has_room_to_subscribe(
        &self,
        session: SessionId,
        filter: &TopicFilter<'_>,
        is_new_filter: bool,
    ) -> bool {
        let limits = &self.config.limits;
        let held = &self.sessions[session].subscriptions;
        // Counted only by who has so many of all kinds.
        let has_fewer = |is_one: fn(FilterId) -> bool, max: u32| {
            let max = max as usize;
            held.len() < max || held.iter().filter(|&&filter| is_one(filter)).count() < max
        };
        let wildcards =
            self.router.index().wildcard_len() + self.place.wildcard_subscriptions_elsewhere();
        let has_room_for_wildcard = !filter.has_wildcard()
            || has_fewer(FilterId::has_wildcard, limits.wildcard_subscriptions_per_client_max)
                && wildcards < limits.wildcard_subscriptions_max as usize;
        let groups =
            self.router.index().shared_filters() + self.place.shared_subscriptions_elsewhere();
        let has_room_for_shared = filter.share_name().is_none()
            || has_fewer(FilterId::is_shared, limits.shared_subscriptions_per_client_max)
                && (!is_new_filter || groups < limits.shared_subscriptions_max as usize);
        held.len() < limits.subscriptions_per_client_max as usize
            && has_room_for_wildcard
            && has_room_for_shared
            && !self.memory_is_full()
    }

    /// Ends a client's subscription to a filter; false when it has none. Shared subscriptions among
    /// those are added to `groups_left`, for [`Self::redistribute_of_unsubscribed`].
    pub(in crate::engine) fn unsubscribe_from(
        &mut self,
        session: SessionId,
        text: &str,
        groups_left: &mut Vec<(FilterId, String)>,
    ) -> bool {
        // Checked first: a client may name filters of others by the million.
        let is_held =
            |filter: &FilterId| self.router.index().get(*filter, session.into()).is_some();
        let held = self.router.index().find(text).filter(is_held);
        held.is_some_and(|filter| self.end_subscription(session, filter, text, groups_left))
    }

    fn end_subscription(
        &mut self,
        session: SessionId,
        filter: FilterId,
        text: &str,
        groups_left: &mut Vec<(FilterId, String)>,
    ) -> bool {
        let state = &mut self.sessions[session];
        let Some(place) = state.subscriptions.iter().position(|&held| held == filter) else {
            return false;
        };
        self.work.spend(place / 1_024);
        state.subscriptions.swap_remove(place);
        state.replays.end(filter);
        if filter.is_shared() && state.outbound.is_some() {
            groups_left.push((filter, text.to_owned()));
        }
        self.durability.append_unsubscribed(&self.sessions[session], text);
        self.remove_subscription(filter, session);
        true
    }

    /// Messages that were drawn for shared subscriptions which the client has just left go to other
    /// members, some of them; the rest stays the client's own, as the ids of the filters may come to
    /// mean others.
    pub(in crate::engine) fn redistribute_of_unsubscribed(
        &mut self,
        session: SessionId,
        mut left: Vec<(FilterId, String)>,
    ) {
        if left.is_empty() {
            return;
        }
        left.sort_unstable();
        self.redistribute_queue(session, &left, false);
        if let Some(outbound) = &mut self.sessions[session].outbound {
            self.work.spend(outbound.queued() / limits::QUEUE_ENTRIES_PER_STEP);
            outbound
                .keep_shared(|filter| left.binary_search_by_key(&filter, |(of, _)| *of).is_ok());
        }
    }

    /// Ends those of the first `left` subscriptions that a connected client may not have any more, from
    /// the last one on, as far as the budget goes; how many are left to be looked at. Those made
    /// meanwhile come after them.
    pub(in crate::engine) fn check_subscriptions(
        &mut self,
        session: SessionId,
        mut left: usize,
    ) -> usize {
        if left == 0 || !self.access.has_rules() {
            return 0;
        }
        let Some(id) = self.sessions[session].connection else { return 0 };
        let mut groups_left = Vec::new();
        while left > 0 && !self.work.is_spent() {
            left -= 1;
            let held = self.sessions[session].subscriptions.get(left);
            let Some(&filter) = held else { continue };
            let text = self.router.index().text(filter);
            let subscription = self.router.index().get(filter, session.into());
            let qos = subscription.map_or(0, |subscription| subscription.options.qos());
            let qos = Qos::try_from(qos).unwrap_or(Qos::AtMostOnce);
            let client_identifier = &self.sessions[session].client_identifier;
            let who = Identity { exchange: exchange(id), client_identifier };
            let granted = self.access.may_subscribe(&who, &text, qos, &mut self.work);
            self.work.spend(2 + text.len() / 64);
            if granted.is_none() {
                let client = name(client_identifier.as_str());
                rated!(
                    info,
                    self.now,
                    client,
                    filter = name(&text),
                    "a subscription is not allowed any more"
                );
                self.end_subscription(session, filter, &text, &mut groups_left);
                self.metrics.subscriptions_revoked += 1;
            }
        }
        self.redistribute_of_unsubscribed(session, groups_left);
        left
    }
}

/// Checks a filter of SUBSCRIBE or UNSUBSCRIBE against the protocol, apart from any policy.
pub(in crate::engine) fn check_filter(text: &str, no_local: bool) -> Result<(), Violation> {
    let filter = TopicFilter::parse(text, usize::MAX).map_err(|error| match error {
        TopicError::ShareName => Violation::ShareNameInvalid,
        _ => Violation::TopicFilterInvalid,
    })?;
    match no_local && filter.share_name().is_some() {
        true => Err(Violation::NoLocalOnSharedSubscription), // [MQTT-3.8.3-4]
        false => Ok(()),
    }
}

/// Checks a filter against what CONNACK said is not available.
fn check_available(
    mqtt: &Mqtt,
    filter: &TopicFilter<'_>,
    identifier: u32,
) -> Result<(), ReasonCode> {
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
