//! SUBSCRIBE and UNSUBSCRIBE.

use shards::{FilterId, Subscription, SubscriptionOptions, TopicError, TopicFilter};

use crate::base::ids::{ConnectionId, SessionId, exchange};
use crate::base::limits;
use crate::base::log_rate::{name, rated};
use crate::engine::Engine;
use crate::engine::access::{Coverage, Decision, Identity};
use crate::engine::config::Announced;
use crate::engine::packets::job::Request;
use crate::session::outbound::Identifiers;
use crate::session::retained_replay::Replay;
use crate::wire::violation::Violation;
use crate::wire::{Qos, ReasonCode, Subscribe, SubscribeOptions, Unsubscribe};

/// Subscriptions of a client that are counted per step, to compare those of a kind with their limit.
const COUNTED_PER_STEP: usize = 512;

/// What has come of a subscription that is not refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum Subscribed {
    /// The client has it, with this QoS.
    Granted(Qos),
    /// Nothing has happened yet: the subscription waits for a decision of the access control.
    Waits,
}

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
    ) -> Result<Subscribed, ReasonCode> {
        let limits = &self.config.limits;
        if text.len() > usize::from(limits.topic_bytes_max) {
            return Err(ReasonCode::TopicFilterInvalid);
        }
        let filter = TopicFilter::parse(text, limits.topic_levels_max as usize)
            .map_err(|_| ReasonCode::TopicFilterInvalid)?;
        check_available(self.announced(id), &filter, identifier)?;
        let (qos, coverage) = match self.decide_subscription(id, session, text, options.qos) {
            Decision::Allowed(decided) => decided,
            Decision::Denied => return Err(ReasonCode::NotAuthorized),
            Decision::Pending => return Ok(Subscribed::Waits),
        };
        let subscriber = session.into();
        let found = self.router.index().find(text);
        let is_new =
            found.is_none_or(|filter| self.router.index().get(filter, subscriber).is_none());
        match coverage {
            // Granted as other filtered subscriptions are, but nothing is ever delivered for it.
            Coverage::Nothing if is_new => return Ok(Subscribed::Granted(qos)),
            // Which member a message goes to would depend on what each may receive.
            Coverage::Part if filter.share_name().is_some() => {
                return Err(ReasonCode::NotAuthorized);
            }
            Coverage::Part if !self.router.has_read_rules() => {
                // They are in force, and the check of all clients begins later.
                self.router.set_read_rules(self.access.read_rules());
            }
            _ => {}
        }
        if is_new {
            self.work.spend(self.sessions[session].subscriptions.len() / COUNTED_PER_STEP);
            if !self.has_room_to_subscribe(session, &filter, found.is_none()) {
                return Err(ReasonCode::QuotaExceeded);
            }
        }
        let granted = self.options_of(id, &filter, options, qos);
        let granted = granted.with_filtered(coverage != Coverage::Whole);
        let subscription = Subscription { subscriber, options: granted, identifier };
        let subscription = self.mark_kept(session, subscription);
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
        // Retain Handling 0 sends always, 1 to new subscriptions, 2 never [MQTT-3.3.1-9..11].
        let wants_retained = match options.retain_handling {
            0 => true,
            1 => subscribed.replaced.is_none(),
            _ => false,
        };
        if wants_retained && filter.share_name().is_none() && !self.retained.is_empty() {
            self.begin_replay(session, subscribed.filter, qos, identifier);
        }
        Ok(Subscribed::Granted(qos))
    }

    /// The QoS that the access control grants a subscription, and how much of it the client may receive.
    fn decide_subscription(
        &mut self,
        id: ConnectionId,
        session: SessionId,
        text: &str,
        qos: Qos,
    ) -> Decision<(Qos, Coverage)> {
        let client_identifier = &self.sessions[session].client_identifier;
        let who = Identity { exchange: exchange(id), client_identifier };
        match self.access.may_subscribe(self.now, &who, text, qos, &mut self.work) {
            Decision::Allowed(qos) => {
                let maximum_qos = Qos::try_from(self.maximum_qos(id));
                let qos = qos.min(maximum_qos.unwrap_or(Qos::ExactlyOnce));
                Decision::Allowed((qos, self.access.coverage(&who, text, &mut self.work)))
            }
            Decision::Denied => Decision::Denied,
            Decision::Pending => Decision::Pending,
        }
    }

    /// The options of a subscription. Before 5.0 a client cannot ask for No Local and Retain As Published; a bridge needs
    /// both, or messages come back to their broker.
    fn options_of(
        &self,
        id: ConnectionId,
        filter: &TopicFilter<'_>,
        options: &SubscribeOptions,
        qos: Qos,
    ) -> SubscriptionOptions {
        let is_bridge = self.connections[id].is_bridge();
        let no_local = options.no_local || is_bridge && filter.share_name().is_none();
        let retain_as_published = options.retain_as_published || is_bridge;
        SubscriptionOptions::new(u8::from(qos), no_local, retain_as_published)
    }

    /// Begins to send retained messages for a subscription.
    fn begin_replay(
        &mut self,
        session: SessionId,
        subscription: FilterId,
        qos: Qos,
        identifier: u32,
    ) {
        let subscription_identifiers = match identifier {
            0 => Identifiers::None,
            one => Identifiers::One([one]),
        };
        let cursor = shards::Cursor::default();
        let replay = Replay { cursor, qos, subscription_identifiers, subscription };
        self.sessions[session].replays.push(replay, self.memory.ledger());
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
        let wildcards = self.router.wildcard_subscriptions_everywhere();
        let has_room_for_wildcard = !filter.has_wildcard()
            || has_fewer(FilterId::has_wildcard, limits.wildcard_subscriptions_per_client_max)
                && wildcards < limits.wildcard_subscriptions_max as usize;
        let groups = self.router.shared_filters_everywhere();
        let has_room_for_shared = filter.share_name().is_none()
            || has_fewer(FilterId::is_shared, limits.shared_subscriptions_per_client_max)
                && (!is_new_filter || groups < limits.shared_subscriptions_max as usize);
        held.len() < limits.subscriptions_per_client_max as usize
            && has_room_for_wildcard
            && has_room_for_shared
            && !self.memory.is_full()
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
        self.report_unsubscribed(session, text);
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
        // There may have been no rules when the client came.
        self.note_listener(id, session);
        let is_filtering = self.access.read_rules().is_some();
        let mut groups_left = Vec::new();
        while left > 0 && !self.work.is_spent() {
            left -= 1;
            let held = self.sessions[session].subscriptions.get(left);
            let Some(&filter) = held else { continue };
            let text = self.router.index().text(filter);
            let Some(subscription) = self.router.index().get(filter, session.into()) else {
                continue;
            };
            self.work.spend(2 + text.len() / 64);
            let qos = Qos::try_from(subscription.options.qos()).unwrap_or(Qos::AtMostOnce);
            let client_identifier = &self.sessions[session].client_identifier;
            let who = Identity { exchange: exchange(id), client_identifier };
            let may_keep = self.access.may_keep(self.now, &who, &text, qos, &mut self.work);
            let coverage = match is_filtering && may_keep {
                true => self.access.coverage(&who, &text, &mut self.work),
                false => Coverage::Whole,
            };
            let is_filtered = coverage != Coverage::Whole;
            if !may_keep || is_filtered && filter.is_shared() {
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
            } else if is_filtered != subscription.options.is_filtered() {
                self.mark_filtered(session, &text, subscription, is_filtered);
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
    announced: &Announced,
    filter: &TopicFilter<'_>,
    identifier: u32,
) -> Result<(), ReasonCode> {
    if filter.share_name().is_some() && !announced.shared_subscription_available {
        return Err(ReasonCode::SharedSubscriptionsNotSupported);
    }
    if filter.has_wildcard() && !announced.wildcard_subscription_available {
        return Err(ReasonCode::WildcardSubscriptionsNotSupported);
    }
    if identifier != 0 && !announced.subscription_identifiers_available {
        return Err(ReasonCode::SubscriptionIdentifiersNotSupported);
    }
    Ok(())
}
