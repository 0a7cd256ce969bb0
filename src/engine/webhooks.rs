//! Events for webhooks. Where no webhook wants an event of a kind, that costs one comparison.

use crate::base::clock::Now;
use crate::base::ids::{ConnectionId, CoreId, SessionId};
use crate::config::WebhookEvent;
use crate::control::webhooks::{Event, Kinds, Tap, What};
use crate::engine::Engine;
use crate::engine::client_log::{Agreement, why_ended};
use crate::engine::connections::connection::Connection;
use crate::engine::connections::ending::Ending;
use crate::engine::observers::Observers;
use crate::message::Content;
use crate::session::state::Session;
use crate::wire::Qos;

/// Filters that are compared with a topic in a step.
const FILTERS_PER_STEP: usize = 8;

/// The webhooks of this core.
#[derive(Debug, Default)]
pub(in crate::engine) struct Webhooks {
    /// Kinds of events that any of them wants.
    wanted: Kinds,
    each: Vec<Hook>,
}

#[derive(Debug)]
struct Hook {
    tap: Tap,
    /// Number of the next event.
    next: u64,
}

/// Where and when something happened.
#[derive(Clone, Copy, Debug)]
struct Place {
    core: CoreId,
    now: Now,
}

impl Webhooks {
    /// These webhooks from now on. Events of one that was there before are numbered on.
    pub fn set(&mut self, taps: &[Tap]) {
        let before = std::mem::take(&mut self.each);
        let next = |tap: &Tap| before.iter().find(|of| of.tap.is_same(tap)).map_or(0, |of| of.next);
        self.each = taps.iter().map(|tap| Hook { next: next(tap), tap: tap.clone() }).collect();
        self.wanted = taps.iter().fold(Kinds::default(), |kinds, tap| kinds.or(tap.kinds()));
    }

    /// Whether any webhook wants events of a kind.
    #[inline]
    fn want(&self, event: WebhookEvent) -> bool {
        self.wanted.has(event)
    }

    /// Offers an event to the webhooks that want it.
    fn offer(
        &mut self,
        place: Place,
        event: WebhookEvent,
        session: Option<&Session>,
        mut what: impl FnMut(&Tap) -> Option<What>,
    ) {
        for Hook { tap, next } in &mut self.each {
            if !tap.kinds().has(event) {
                continue;
            }
            let Some(what) = what(tap) else { continue };
            let client = session.map(|session| session.client_identifier.as_str().into());
            let user = session.and_then(Session::owner).map(Into::into);
            let Place { core, now: at } = place;
            tap.offer(Event { core, sequence: *next, at, client, user, what });
            *next += 1;
        }
    }
}

impl Engine {
    /// A client was admitted.
    pub(in crate::engine) fn report_connected(
        &mut self,
        id: ConnectionId,
        session: SessionId,
        agreement: Agreement,
    ) {
        if !self.observers.webhooks.want(WebhookEvent::Connect) {
            return;
        }
        let place = self.place_of_event();
        let Self {
            observers: Observers { webhooks, .. }, connections, listeners, sessions, ..
        } = self;
        let Some(connection) = connections.get(id) else { return };
        webhooks.offer(place, WebhookEvent::Connect, Some(&sessions[session]), |_| {
            Some(What::Connect {
                address: connection.address(),
                listener: listeners.name(connection.listener).into(),
                version: connection.version.name(),
                keep_alive_s: connection.keep_alive_s,
                clean_start: agreement.clean_start,
                session_present: agreement.session_present,
            })
        });
    }

    /// The connection of an admitted client has ended.
    pub(in crate::engine) fn report_disconnected(
        &mut self,
        connection: &Connection,
        session: SessionId,
        ending: Ending,
    ) {
        if !self.observers.webhooks.want(WebhookEvent::Disconnect) {
            return;
        }
        let place = self.place_of_event();
        let Self { observers: Observers { webhooks, .. }, listeners, sessions, now, .. } = self;
        webhooks.offer(place, WebhookEvent::Disconnect, Some(&sessions[session]), |_| {
            Some(What::Disconnect {
                address: connection.address(),
                listener: listeners.name(connection.listener).into(),
                cause: why_ended(connection, ending).cause().name(),
                seconds: u64::from(connection.seconds_open(*now)),
            })
        });
    }

    /// A client has subscribed.
    pub(in crate::engine) fn report_subscribed(
        &mut self,
        session: SessionId,
        filter: &str,
        qos: Qos,
    ) {
        if !self.observers.webhooks.want(WebhookEvent::Subscribe) {
            return;
        }
        let place = self.place_of_event();
        let session = Some(&self.sessions[session]);
        self.observers.webhooks.offer(place, WebhookEvent::Subscribe, session, |_| {
            Some(What::Subscribe { filter: filter.into(), qos })
        });
    }

    /// A subscription has ended, and its session continues.
    pub(in crate::engine) fn report_unsubscribed(&mut self, session: SessionId, filter: &str) {
        if !self.observers.webhooks.want(WebhookEvent::Unsubscribe) {
            return;
        }
        let place = self.place_of_event();
        let session = Some(&self.sessions[session]);
        self.observers.webhooks.offer(place, WebhookEvent::Unsubscribe, session, |_| {
            Some(What::Unsubscribe { filter: filter.into() })
        });
    }

    /// A message was published: by a client, as a Will, or by an operator.
    #[inline]
    pub(in crate::engine) fn report_published(
        &mut self,
        content: &Content<'_>,
        session: Option<SessionId>,
        retain: bool,
    ) {
        if self.observers.webhooks.want(WebhookEvent::Publish) {
            self.offer_message(content, session, retain);
        }
    }

    #[cold]
    fn offer_message(&mut self, content: &Content<'_>, session: Option<SessionId>, retain: bool) {
        let place = self.place_of_event();
        let Self { observers: Observers { webhooks, .. }, sessions, work, .. } = self;
        let session = session.map(|session| &sessions[session]);
        webhooks.offer(place, WebhookEvent::Publish, session, |tap| {
            work.spend(1 + tap.filters().len() / FILTERS_PER_STEP);
            let matches = |filter: &String| shards::filter_matches(filter, content.topic);
            tap.filters().iter().any(matches).then(|| {
                let sent = content.payload.len().min(tap.payload_bytes_max());
                work.spend_bytes(sent);
                What::Publish {
                    topic: content.topic.into(),
                    qos: content.qos,
                    retain,
                    payload: content.payload[..sent].into(),
                    payload_bytes: content.payload.len(),
                }
            })
        });
    }

    fn place_of_event(&self) -> Place {
        Place { core: self.mesh.core(), now: self.now }
    }
}
