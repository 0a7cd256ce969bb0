//! Shared subscriptions: one member of the group receives each message, on whatever core it is, and its
//! undelivered messages go to other members when it leaves. `groups` chooses the core and the member. If
//! the last member of the chosen core has left meanwhile, the message goes on to another core.

use shards::FilterId;

use crate::base::ids::{CoreId, SessionId};
use crate::base::limits;
use crate::base::metrics::Drop as DropCause;
use crate::engine::Engine;
use crate::engine::connections::Connections;
use crate::engine::draft::{Draft, Origin};
use crate::engine::durability::in_transit::{Begun, EndOnArrival};
use crate::engine::mesh::batch::Destination;
use crate::engine::routing::Router;
use crate::engine::routing::congestion::{Pressure, Standing};
use crate::engine::routing::groups::Rank;
use crate::engine::routing::recipients::{Recipient, SharedSubscription};
use crate::session::outbound::Outbound;
use crate::session::table::SessionTable;
use crate::storage::record::SessionNumber;
use crate::wire::Qos;

/// Steps to find the member that receives a message.
const SHARE_STEPS: usize = 2;

/// How fit a session is to receive one more message.
fn rank(sessions: &SessionTable, connections: &Connections, session: SessionId) -> Rank {
    let state = &sessions[session];
    let Some(id) = state.connection else { return Rank::Away };
    let connection = &connections[id];
    let is_open = state.outbound.as_ref().is_none_or(|o| o.is_open(Qos::AtLeastOnce));
    match connection.congestion().is_none() && is_open {
        true => Rank::Ready,
        false => Rank::Busy,
    }
}

impl Engine {
    /// Delivers a message to one member of a shared subscription; `None` if no member can receive it.
    pub(in crate::engine) fn deliver_to_group(
        &mut self,
        subscription: &SharedSubscription,
        draft: &mut Draft<'_>,
        origin: &Origin,
        except: Option<SessionId>,
    ) -> Option<Standing> {
        self.work.spend(SHARE_STEPS);
        if self.durability.is_duplicate_of_group(subscription, draft.exchange, &self.router.index) {
            return Some(Standing::Offline);
        }
        let qos = draft.content.qos;
        let core = self.router.choose_core(subscription, qos);
        if core != self.mesh.core() {
            self.forward_to_group(core, &subscription.text, draft, origin, 1);
            return Some(Standing::Offline);
        }
        let Self { router, sessions, connections, .. } = self;
        let chosen = subscription
            .here
            .and_then(|here| choose_member(here, except, qos, router, sessions, connections));
        let any = chosen.is_none() && qos > Qos::AtMostOnce;
        if !matches!(chosen, Some((Rank::Ready, _)))
            && let Some(core) = self.router.other_core(subscription.group, any)
        {
            self.forward_to_group(core, &subscription.text, draft, origin, 1);
            return Some(Standing::Offline);
        }
        let (_, member) = chosen?;
        Some(self.deliver(&member, draft, subscription.here))
    }

    fn forward_to_group(
        &mut self,
        core: CoreId,
        text: &str,
        draft: &mut Draft<'_>,
        origin: &Origin,
        hops: u16,
    ) {
        match self.begin_forward(core, text, draft, origin, hops) {
            Begun::AtOnce => self.send_to_group(core, text, draft, origin, (hops, None)),
            Begun::Logged(ended) => {
                let exchange = draft.exchange.take();
                self.send_to_group(core, text, draft, origin, (hops, Some(ended)));
                draft.exchange = exchange;
            }
            Begun::OnceStored => {}
        }
    }

    /// Sends a message to another core for a member of a shared subscription there.
    pub(in crate::engine) fn send_to_group(
        &mut self,
        core: CoreId,
        text: &str,
        draft: &mut Draft<'_>,
        origin: &Origin,
        (hops, ended): (u16, Option<EndOnArrival>),
    ) {
        let whom = |batch: &mut crate::engine::Batch| {
            let filter = batch.push_text(text);
            let on_arrival = ended.and_then(|ended| batch.push_on_arrival(ended));
            Destination::Group { filter, hops, on_arrival }
        };
        self.forward_to(core, draft, origin, whom);
    }

    /// Delivers a message that another core forwarded for a member of this core. Without a connected member
    /// here it is forwarded to a core that has one; if the members here are behind, to one other core.
    pub(in crate::engine) fn deliver_forwarded_to_group(
        &mut self,
        text: &str,
        draft: &mut Draft<'_>,
        origin: &Origin,
        hops: u16,
    ) {
        let qos = draft.content.qos;
        let here = self.router.index.find(text);
        let Self { router, sessions, connections, .. } = self;
        let chosen =
            here.and_then(|filter| choose_member(filter, None, qos, router, sessions, connections));
        let hops_max = match &chosen {
            Some((Rank::Ready, _)) => 0,
            Some((Rank::Busy, _)) => 2,
            // The replicas of the cores that the message passed may have been outdated: it may pass all again.
            _ => 2 * self.mesh.cores() + 2,
        };
        let any = chosen.is_none() && qos > Qos::AtMostOnce;
        if hops < hops_max
            && let Some(core) = self.router.other_core(self.router.replica.group(text), any)
        {
            return self.forward_to_group(core, text, draft, origin, hops + 1);
        }
        let Some((_, member)) = chosen else {
            if qos > Qos::AtMostOnce {
                self.metrics.drops.add(DropCause::Offline, 1);
                if self.observers.watch.shows_packets() {
                    self.show_drop(None, (DropCause::Offline, 1), Some(draft.content.topic));
                }
            }
            return;
        };
        let mut pressure = Pressure::default();
        pressure.add(self.deliver(&member, draft, here));
        self.slow_publisher(origin.publisher, &pressure);
    }

    /// Redistributes undelivered messages of a session to other members of the shared subscriptions `groups`:
    /// queued messages, a limited number at a time, and unacknowledged messages of QoS 1. `leaves` if the
    /// session has ended or its client has disconnected, false if it has unsubscribed. Returns whether more
    /// messages are left.
    pub(in crate::engine) fn redistribute_queue(
        &mut self,
        session: SessionId,
        groups: &[(FilterId, String)],
        leaves: bool,
    ) -> bool {
        let number = self.sessions[session].number();
        let Some(mut outbound) = self.sessions[session].outbound.take() else {
            return false;
        };
        let is_more = self.redistribute(session, number, &mut outbound, groups, leaves);
        self.sessions[session].outbound = Some(outbound);
        is_more
    }

    /// Redistributes the messages in `outbound`, which has been removed from its session.
    pub(in crate::engine) fn redistribute(
        &mut self,
        session: SessionId,
        number: Option<SessionNumber>,
        outbound: &mut Outbound,
        groups: &[(FilterId, String)],
        leaves: bool,
    ) -> bool {
        // Only to connected members; without one, messages wait for this member, or, if its session has ended,
        // go to a member that is away.
        let subscriptions: Vec<(FilterId, SharedSubscription)> = groups
            .iter()
            .map(|(filter, text)| (*filter, self.router.shared_subscription(text)))
            .filter(|(_, subscription)| self.router.has_other_member(subscription, session, leaves))
            .collect();
        if subscriptions.is_empty() {
            return false;
        }
        // Sorted, as `groups` are.
        let find = |filter| subscriptions.binary_search_by_key(&filter, |(of, _)| *of);
        let is_one = |filter| find(filter).is_ok();
        let (taken, is_more) = outbound.take_shared(is_one, leaves, limits::HANDED_ON_AT_ONCE);
        self.work.spend(taken.len() + outbound.queued() / limits::QUEUE_ENTRIES_PER_STEP);
        self.durability.append_done_of(number, outbound);
        for delivery in taken {
            let filter = delivery.shared.expect("taken for its shared subscription");
            let (_, subscription) = &subscriptions[find(filter).expect("one of them")];
            let (message, record) = (delivery.message.clone(), delivery.record.number);
            if message.is_expired(self.now) {
                let topic = Some(message.content().topic);
                self.count_drops_of(session, DropCause::Expired, 1, topic);
                continue;
            }
            let mut draft = Draft::of(&message, message.content(), delivery.retain);
            draft.before.extend(number.filter(|_| record != 0).map(|session| (session, record)));
            if self
                .deliver_to_group(subscription, &mut draft, &Origin::default(), Some(session))
                .is_none()
            {
                let topic = Some(message.content().topic);
                self.count_drops_of(session, DropCause::Offline, 1, topic);
            }
        }
        is_more
    }
}

/// The member of a shared subscription on this core that receives the next message.
fn choose_member(
    filter: FilterId,
    except: Option<SessionId>,
    qos: Qos,
    router: &mut Router,
    sessions: &SessionTable,
    connections: &Connections,
) -> Option<(Rank, Recipient)> {
    router.choose_member(filter, except, qos, |session| rank(sessions, connections, session))
}
